"""Reward models that write before they judge: what they are asked, where a critique is cut, what is made of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizer import small_tokenizer

from spare_jax.judges.critiques import gen_prm, think_prm
from spare_jax.judges.reward_model import RewardModelSettings
from spare_jax.programs import Completion, RequestFailed, Sample
from spare_jax.prompts import critiques
from spare_jax.prompts.chat import encode
from spare_jax.records import Problem, Solution

TOKENIZER = small_tokenizer()
PROBLEM = Problem("p", "How many {has} Ben?")
SOLUTION = Solution("p/0", "p", ("Ada has 5.", "Step 2: So 8.", "8"), "8", "stop")
RIGHT, WRONG = "The step is \\boxed{correct}.\n", "The step is \\boxed{\\text{incorrect}}.\n"
ROOMY = RewardModelSettings(10_000)


def ask(program, texts, scores):
    """The judgement of a program that is answered `texts` and `scores` in turn, and all that it asked."""
    asked, answers, texts, scores = [], None, iter(texts), iter(scores)
    while True:
        try:
            (request,) = program.send(answers)
        except StopIteration as stop:
            return stop.value, asked
        asked.append(request)
        if isinstance(request, Sample):
            answers = [(Completion((*encode(TOKENIZER, next(texts)), TOKENIZER.eos_token_id)),)]
        else:
            answers = [(Completion(scores=(next(scores),)),)]


def shown(ids):
    return TOKENIZER.decode(ids, clean_up_tokenization_spaces=False)


def test_think_prm_asks_for_one_critique_and_one_decision():
    written = "Step 1: fine. " + RIGHT + "Is the solution correct? Yes"
    judgement, (sample, score) = ask(think_prm(TOKENIZER, PROBLEM, SOLUTION, ROOMY), [written], [0.75])
    prompt = shown(sample.prefix.ids)
    assert "[Math Problem]\n\nHow many {has} Ben?\n" in prompt
    assert "[Solution]\n\nStep 1: Ada has 5.\nStep 2: So 8.\nStep 3: 8\n\nReview" in prompt
    assert prompt.endswith("\nLet's verify step by step:")
    assert (sample.temperature, sample.n, sample.stop) == (0, 1, (TOKENIZER.eos_token_id,))
    assert score.prefix is sample.prefix
    assert shown(score.ids) == "Step 1: fine. " + RIGHT + "\nIs the solution correct? "
    assert score.positions == (len(score.prefix.ids) + len(score.ids) - 1,)
    assert [step.score for step in judgement.steps] == [None, None, 0.75]
    assert [step.label for step in judgement.steps] == [True, None, None]
    assert [step.missed for step in judgement.steps] == [False, True, True]


def test_gen_prm_judges_step_by_step_behind_its_own_analyses():
    written = ["Fine.</analyze>\n<verify>import os", "Wrong. <output> Yes", "So be it."]
    judgement, asked = ask(gen_prm(TOKENIZER, PROBLEM, SOLUTION, ROOMY), written, [0.9, 0.2, 0.5])
    assert [step.score for step in judgement.steps] == [0.9, 0.2, 0.5]
    assert [step.explanation for step in judgement.steps] == ["Fine.", "Wrong. ", "So be it."]
    prompts = [shown(request.prefix.ids) for request in asked[::2]]
    assert "How many {has} Ben?\nAda has 5." in prompts[0]
    assert "Step 2" not in prompts[0]
    assert "step by step: Fine.</analyze>\n<output>\n**Judgement**: $\\boxed{Yes}$\n</output>" in prompts[2]
    assert "Wrong. </analyze>\n<output>\n**Judgement**: $\\boxed{No}$\n</output>" in prompts[2]
    assert prompts[2].endswith("<analyze>\nLet's analyze the Paragraph 3 step by step: ")
    assert all("import os" not in prompt for prompt in prompts)
    assert shown(asked[1].ids).endswith("Fine.</analyze>\n<output>\n**Judgement**: $\\boxed{")


@pytest.mark.parametrize("tail", ["</think> more", "Step 4: another " + RIGHT, "Is the solution correct? No"])
def test_a_critique_ends_where_it_goes_too_far(tail):
    kept = shown(critiques.cut(TOKENIZER, encode(TOKENIZER, RIGHT + tail), critiques.think_marks(3)))
    assert RIGHT.startswith(kept.rstrip())
    assert critiques.think_verdicts(kept, 3) == [True, None, None]


def test_more_verdicts_than_steps_are_left_out():
    judgement, _ = ask(think_prm(TOKENIZER, PROBLEM, SOLUTION, ROOMY), [(WRONG + RIGHT) * 4], [0.1])
    assert [step.label for step in judgement.steps] == [False, True, False]
    silent, _ = ask(think_prm(TOKENIZER, PROBLEM, SOLUTION, ROOMY), [""], [0.1])
    assert [step.missed for step in silent.steps] == [True] * 3
    assert silent.steps[-1].score == 0.1


def test_what_does_not_fit_or_was_cut_off_has_no_score():
    first = len(critiques.gen_prompt(TOKENIZER, PROBLEM, SOLUTION.steps, [])) + 80
    judgement, asked = ask(gen_prm(TOKENIZER, PROBLEM, SOLUTION, RewardModelSettings(first)), ["Fine."], [0.9])
    assert [step.score for step in judgement.steps] == [0.9, None, None]
    for program in (think_prm, gen_prm):
        with pytest.raises(RequestFailed, match="leaves no room"):
            next(program(TOKENIZER, PROBLEM, SOLUTION, RewardModelSettings(8)))
        started = program(TOKENIZER, PROBLEM, SOLUTION, ROOMY)
        next(started)
        with pytest.raises(RequestFailed, match="cut off after 3 tokens"):
            started.send([(Completion((7, 8, 9), finish_reason="length"),)])
    assert all(len(request.prefix.ids) + getattr(request, "max_tokens", 0) <= first for request in asked)
    for program in (think_prm, gen_prm):
        empty, asked = ask(program(TOKENIZER, PROBLEM, Solution("p/1", "p", (), None, "stop"), ROOMY), [], [])
        assert (empty.steps, asked) == ((), [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60) | st.sampled_from([RIGHT, WRONG, "</analyze>", "\\boxed{"]), max_size=5))
def test_no_text_is_too_strange(parts):
    text = "".join(parts)
    assert len(critiques.think_verdicts(text, 3)) == 3
    judgement, _ = ask(gen_prm(TOKENIZER, PROBLEM, SOLUTION, ROOMY), [text] * 3, [0.5] * 3)
    assert len(judgement.steps) == 3
    assert not any(mark in (step.explanation or "") for step in judgement.steps for mark in critiques.GEN_MARKS)
