"""Generative reward models: what they write is read back, what they say and how likely it was, votes, resumption."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_cases import PROBLEM, TASK, TOKENIZER, EmptyJournal, ask, completion, solution
from small_tokenizer import small_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spare_jax import assets
from spare_jax.engines.local import LocalEngine
from spare_jax.engines.scripted import Killed, ScriptedEngine
from spare_jax.judges.generative import GenerativeSettings, generative
from spare_jax.models import huggingface
from spare_jax.models.decoder import hidden_states, logits
from spare_jax.programs import Completion, Sample, run
from spare_jax.prompts import generative as prompt
from spare_jax.prompts import verify
from spare_jax.prompts.chat import encode, encode_chat
from spare_jax.prompts.solve import decode
from spare_jax.records import Judgement, StepJudgement
from spare_jax.runs.ask import labels_of
from spare_jax.selection.aggregate import aggregate

YES, NO = (verify.ANSWER.format(word) for word in ("Yes", "No"))


def text_of(kind, labels, answer):
    if kind == "orm":
        return prompt.format_outcome(answer)
    if kind == "prm":
        return prompt.format_labels(labels, answer)
    steps = [verify.StepVerification("sum", f"It says {i} é.", label) for i, label in enumerate(labels)]
    text = verify.format_verification(steps, answer)
    if kind == "prm_cot":
        return text
    first = [verify.StepVerification("first", "It looks right.", True) for _ in labels]
    return prompt.format_critique(verify.format_verification(first, True), "* A fault.\n\nOr none.", text)


VERDICTS = st.lists(st.booleans(), min_size=1, max_size=4), st.booleans()
KINDS = pytest.mark.parametrize("kind", prompt.KINDS)


# what is written


@KINDS
@given(*VERDICTS)
def test_what_is_written_is_read_back(kind, labels, answer):
    text = text_of(kind, labels, answer)
    parsed = prompt.parse(kind, text, len(labels))
    said = [parsed.steps[number].correct for number in sorted(parsed.steps)]
    assert said == ([] if kind == "orm" else labels) and parsed.answer is answer
    assert (parsed.surplus, parsed.duplicates) == (0, 0)
    assert re.fullmatch(prompt.grammar(kind, len(labels)).pattern, text)
    longer = re.fullmatch(prompt.grammar(kind, len(labels) + 1).pattern, text)
    assert bool(longer) == (kind == "orm")


@pytest.mark.parametrize("kind", ["orm", "prm"])
def test_the_grammar_has_what_is_written_and_nothing_else(kind):
    every = {
        text_of(kind, labels, answer)
        for labels in itertools.product((True, False), repeat=2)
        for answer in (True, False)
    }

    @given(st.from_regex(prompt.grammar(kind, 2).pattern, fullmatch=True))
    def accepted(text):
        assert text in every

    accepted()
    assert all(re.fullmatch(prompt.grammar(kind, 2).pattern, text) for text in every)


LINES = (
    "## Step 1: a", "## Step 2:", "**This step is correct.**", "**This step is incorrect.**", "Step 1: Correct", "\r",
    "Step 2: Incorrect", "Step 0: Correct", "Step 3: Correct", "Step \u0661: Correct", "Step 99999999999: Correct",
    "Step 1: Correct or not", YES, NO, "Yes", "No", "#", "\x00", "é\ud800",
)  # fmt: skip


@KINDS
@given(st.text(max_size=200) | st.lists(st.sampled_from(LINES), max_size=12).map("\n".join))
def test_no_text_is_too_strange_and_every_verdict_stands_where_it_says(kind, text):
    parsed = prompt.parse(kind, text, 2)
    assert set(parsed.verdicts) <= set(parsed.steps) <= {1, 2}
    for number, step in parsed.steps.items():
        words = {None: "", True: "correct", False: "incorrect"}
        at = parsed.verdicts.get(number)
        assert (at is None) == (step.correct is None)
        assert at is None or re.match(rf"{words[step.correct]}\b", text[at:], re.IGNORECASE)
    assert (parsed.answer_verdict is None) == (parsed.answer is None)
    assert parsed.answer is None or text[parsed.answer_verdict :].startswith("Yes" if parsed.answer else "No")


def test_the_first_line_of_a_step_counts_and_the_last_word_on_the_answer():
    lines = ("Step 2: Correct", "words", "Step 2: Incorrect", "Step 1: Correct ", "Step 1: Correct?", "Step 7: Correct")
    text = "\n".join((*lines, YES, NO))
    parsed = prompt.parse("prm", text, 2)
    assert {number: step.correct for number, step in parsed.steps.items()} == {1: True, 2: True}
    assert (parsed.duplicates, parsed.surplus, parsed.answer) == (1, 1, False)
    assert prompt.parse("orm", " Yes\n", 2).answer is True
    for text in ("Yes. No", "yes", "", "The answer is correct: Yes"):
        assert prompt.parse("orm", text, 2).answer is None


def test_a_critique_may_come_first_and_the_last_verification_counts():
    first, last = text_of("prm_cot", [True, True], True), text_of("prm_cot", [True, False], False)
    text = f"{first}\n\nStep 2 was called correct, and 3 + 5 is not 9.\n\n{last}"
    parsed = prompt.parse("prm_cot", text, 2)
    assert [parsed.steps[number].correct for number in (1, 2)] == [True, False] and parsed.answer is False
    assert (parsed.surplus, parsed.duplicates) == (0, 0)
    assert parsed.answer_verdict == len(text) - len("No**")
    begun = f"{first}\n\n## Step 1: again\nand then"
    assert prompt.parse("prm_cot", begun, 2).steps == {1: verify.StepVerification("again", "and then", None)}
    assert prompt.parse("prm_cot", begun, 2).answer is None


# what is learnt


def judged(*labels, outcome: bool | None = True, text=""):
    return Judgement("p/0", "targets", tuple(map(StepJudgement, labels)), outcome, text)


def test_targets_are_whole_or_none():
    text = text_of("prm_cot", [True, False], False)
    whole = judged(True, False, outcome=False, text=text)
    assert prompt.target("orm", whole) == "No"
    assert prompt.target("prm", whole) == f"Step 1: Correct\nStep 2: Incorrect\n{NO}"
    assert prompt.target("prm_cot", whole) == text
    critique = f"{text_of('prm_cot', [False, True], True)}\nNo.\n{text}"
    assert prompt.target("prm_cot", judged(True, False, outcome=False, text=critique)) == text
    assert prompt.target("prm_critique", judged(True, False, outcome=False, text=critique)) == critique
    assert prompt.target("prm_critique", whole) is None  # nothing was criticised

    unlabelled = judged(True, None, text=text_of("prm_cot", [True, True], True))
    assert prompt.target("orm", unlabelled) == "Yes"
    assert prompt.target("prm", unlabelled) is None and prompt.target("prm_cot", unlabelled) is None
    assert all(prompt.target(kind, judged(True, outcome=None)) is None for kind in prompt.KINDS)
    for other in (
        judged(True, True, outcome=False, text=text),  # the text says otherwise
        judged(True, False, outcome=True, text=text),
        judged(True, False, True, outcome=False, text=text),
        judged(True, outcome=False, text=text),
        judged(True, False, outcome=False, text=text.replace("## Step 2", "## Step 1: x\n## Step 2")),
    ):
        assert prompt.target("prm_cot", other) is None


# where a verdict is read


def tiny():
    return huggingface.load(assets.resolve("tiny-base"))


TOKENIZERS = {split: small_tokenizer(split) for split in ("line_end", "words")}
TOKENIZERS["tiny-base"] = huggingface.load_tokenizer(assets.resolve("tiny-base"))


@KINDS
@pytest.mark.parametrize("name", TOKENIZERS)
@given(*VERDICTS)
def test_a_verdict_is_read_where_the_other_one_would_have_begun(kind, name, labels, answer):
    """Turning one verdict round changes the text's ids from its place on, to the other of its two tokens."""
    tokenizer = TOKENIZERS[name]
    of_step, of_answer = prompt.verdict_tokens(tokenizer, kind)
    text = text_of(kind, labels, answer)
    ids, parsed = encode(tokenizer, text), prompt.parse(kind, text, len(labels))
    for number in range(len(labels) + 1):
        turned = [not label if i == number - 1 else label for i, label in enumerate(labels)], answer ^ (number == 0)
        if kind == "orm" and number:
            continue
        right, tokens = (parsed.steps[number].correct, of_step) if number else (answer, of_answer)
        begins = parsed.verdicts[number] if number else parsed.answer_verdict
        place = prompt.verdict_place(tokenizer, ids, begins, right, tokens)
        others = encode(tokenizer, text_of(kind, *turned))
        assert ids[:place] == others[:place]
        pair = (tokens.wrong, tokens.right)
        assert (ids[place], others[place]) == (pair if not right else pair[::-1])


def test_a_verdict_in_other_tokens_has_no_place():
    """tiny-base writes " co" for correct, and " " and "in" for incorrect: behind a blank alone neither is the other."""
    tokenizer = TOKENIZERS["tiny-base"]
    of_step, _ = prompt.verdict_tokens(tokenizer, "prm_cot")
    before = "**This step is "
    ids, blank = encode(tokenizer, before + "correct.**"), encode(tokenizer, " ")
    place = prompt.verdict_place(tokenizer, ids, len(before), True, of_step)
    others = [*encode(tokenizer, before.strip()), *blank, *encode(tokenizer, "correct.**")]
    assert decode(tokenizer, others) == decode(tokenizer, ids) and others[place] == of_step.wrong == blank[0]
    assert prompt.verdict_place(tokenizer, others, len(before), True, of_step) is None
    assert prompt.verdict_place(tokenizer, ids, len(before) + 50, True, of_step) is None


def test_a_tokenizer_that_knows_no_verdicts_is_refused():
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "Yes": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    for kind in prompt.KINDS:
        with pytest.raises(ValueError, match=r"no token that tells .* set config\.generative\.scoring='verdict'"):
            prompt.verdict_tokens(tokenizer, kind)


# the judge


def judge(kind, texts, scores=None, steps=("step a", "8"), **changes):
    """The judgement of a model that writes `texts`, and whose Score requests are answered by `scores(request)`."""
    how = {"max_length": 100_000, "votes": len(texts), "guidelines": prompt.GUIDELINES[kind]} | changes
    settings = GenerativeSettings(kind=kind, model="judge", **{"grammar": False} | how)

    def answer(request):
        if isinstance(request, Sample):
            return tuple(completion(text) for text in texts)
        return (Completion(scores=tuple(scores(request))),)

    return ask(generative(TASK, PROBLEM, solution(*steps), TOKENIZER, settings), answer)


@KINDS
def test_the_question_is_one_and_the_system_message_another(kind):
    _, (request,) = judge(kind, ["Yes"], temperature=0.7, top_p=0.9, max_tokens=50)
    messages = verify.render(TASK, PROBLEM, ("step a", "8"), prompt.GUIDELINES[kind])
    assert messages[1] == verify.render(TASK, PROBLEM, ("step a", "8"), verify.GUIDELINES)[1]
    assert request.prefix.ids == tuple(encode_chat(TOKENIZER, messages))
    assert (request.n, request.temperature, request.top_p, request.max_tokens) == (1, 0.7, 0.9, 50)
    assert request.stop == (TOKENIZER.eos_token_id,) and request.grammar is None
    _, (request,) = judge(kind, ["Yes"], grammar=True)
    assert request.grammar == prompt.grammar(kind, 2) and request.stop == ()


@pytest.mark.parametrize("kind", ["prm", "prm_cot"])
def test_the_majority_labels_and_the_share_scores(kind):
    said = [([True, False], False), ([True, True], True), ([False, False], False)]
    judgement, _ = judge(kind, [text_of(kind, *verdicts) for verdicts in said], temperature=1.0)
    assert [step.label for step in judgement.steps] == [True, False]
    assert [step.score for step in judgement.steps] == [2 / 3, 1 / 3]
    assert (judgement.outcome, judgement.outcome_score) == (False, 1 / 3)
    assert judgement.parsed and judgement.steps[0].explanation == ("sum: It says 0 é." if kind == "prm_cot" else "")


def test_a_step_without_a_verdict_has_neither_label_nor_score():
    cut = text_of("prm_cot", [True, True], True).partition("## Step 2")[0] + "## Step 2: cut\noff"
    for texts in ([cut], [cut, "nonsense"]):
        for scoring in ("verdict", "probability"):
            judgement, _ = judge("prm_cot", texts, lambda request: (0.9,), scoring=scoring)
            assert [(step.label, step.missed) for step in judgement.steps] == [(True, False), (None, True)]
            assert [step.score for step in judgement.steps] == [0.9 if scoring == "probability" else 1.0, None]
            assert (judgement.outcome, judgement.outcome_score, judgement.parsed) == (None, None, True)


@KINDS
def test_a_text_without_verdicts_is_missed_and_never_0(kind):
    for scoring in ("verdict", "probability"):
        judgement, requests = judge(kind, ["I cannot tell."], scoring=scoring)
        assert len(requests) == 1 and "has no verdict" in judgement.failure and judgement.outcome is None
        assert judgement.steps == (StepJudgement(),) * 2
        assert aggregate([step.score for step in judgement.steps], "last") is None


def test_an_outcome_reward_model_scores_the_last_step():
    judgement, _ = judge("orm", ["Yes", "No", "Yes", "Yes"], temperature=1.0)
    assert [(step.label, step.score, step.missed) for step in judgement.steps] == [
        (None, None, False),
        (None, 0.75, False),
    ]
    assert (judgement.outcome, judgement.outcome_score) == (True, 0.75)
    assert aggregate([step.score for step in judgement.steps], "last") == 0.75
    assert labels_of(judgement, 0.8) == (None, False)


def test_probabilities_are_the_mean_of_the_votes_that_have_one():
    """Of three votes one says nothing of step 2, and one nothing at all."""
    texts = [text_of("prm", [True, False], False), "Step 1: Incorrect\n", "?"]
    answers = iter([(0.9, 0.2), (0.4,), (0.3,)])
    judgement, (sample, *scored) = judge("prm", texts, lambda _: next(answers), scoring="probability", temperature=1.0)
    assert [step.label for step in judgement.steps] == [True, False]
    assert [step.score for step in judgement.steps] == [pytest.approx((0.9 + 0.3) / 2), 0.2]
    assert (judgement.outcome, judgement.outcome_score) == (False, 0.4)
    of_step, of_answer = prompt.verdict_tokens(TOKENIZER, "prm")
    pairs = [(tokens.wrong, tokens.right) for tokens in (of_step, of_answer)]
    assert [request.answers for request in scored] == [pairs[0], pairs[1], pairs[0]]
    # Each verdict is read at the token before its own, and the answer's behind what the steps' have read.
    assert scored[0].prefix is sample.prefix and scored[1].prefix.all_ids() == scored[0].all_ids()
    for request, behind in zip(scored, ("Step 2:", "(Yes/No)?", "Step 1:"), strict=True):
        read = decode(TOKENIZER, request.all_ids()[: request.positions[-1] + 1])
        assert read.rstrip().endswith(behind) and len(request.all_ids()) == request.positions[-1] + 1


def test_verdicts_are_read_in_whatever_order_they_stand():
    text = f"{YES}\nStep 2: Correct\nStep 1: Incorrect\n"
    by_place = lambda request: [position / 1000 for position in request.positions]  # noqa: E731
    judgement, (_, of_steps, of_answer) = judge("prm", [text], by_place, scoring="probability")
    for request, behind in ((of_steps, ["Step 2:", "Step 1:"]), (of_answer, ["(Yes/No)?"])):
        ids = request.all_ids()
        assert all(position < len(ids) for position in request.positions)
        read = [decode(TOKENIZER, ids[: position + 1]).rstrip() for position in request.positions]
        assert [text.endswith(end) for text, end in zip(read, behind, strict=True)] == [True] * len(behind)
    assert [step.score for step in judgement.steps] == [of_steps.positions[1] / 1000, of_steps.positions[0] / 1000]
    assert judgement.outcome_score == of_answer.positions[0] / 1000


def test_nothing_is_asked_without_room_or_steps():
    failure, requests = judge("prm", [""], max_length=10)
    assert not requests and "no room" in failure.message and not failure.passing
    judgement, requests = judge("prm", [""], steps=())
    assert not requests and judgement.steps == () and judgement.outcome is None


def test_settings_that_do_not_exist_are_told():
    with pytest.raises(ValueError, match=r"generative\.kind='x': choose among orm, prm, prm_cot"):
        GenerativeSettings(10, kind="x")
    with pytest.raises(ValueError, match=r"generative\.scoring='x': choose among verdict, probability"):
        GenerativeSettings(10, kind="prm", scoring="x")  # pyright: ignore[reportArgumentType]


def test_probabilities_are_those_of_the_decoder():
    """Of the model's logits at the token before each verdict, softmax over the two that differ there, by hand."""
    checkpoint, length = tiny(), 384
    tokenizer = checkpoint.tokenizer
    engine = LocalEngine(checkpoint.model, checkpoint.config, pad_id=0, seed=0, slots=2, max_length=length)
    forward = jax.jit(lambda ids: logits(checkpoint.model, hidden_states(checkpoint.model, ids, *of_row)))
    of_row = jnp.arange(length)[None], jnp.ones((1, length), jnp.int32)

    class Written:
        """Answers samples with texts, and scores by the engine."""

        def __init__(self, texts):
            self.texts, self.finished = texts, []

        def submit(self, request_id, request):
            if isinstance(request, Sample):
                said = [Completion((*encode(tokenizer, text), tokenizer.eos_token_id)) for text in self.texts]
                self.finished.append((request_id, tuple(said)))
            else:
                engine.submit(request_id, request)

        def poll(self):
            finished, self.finished = self.finished, []
            return [*finished, *engine.poll()]

    for kind in prompt.KINDS:
        verdicts = [([True, False], False), ([False, False], True)]
        texts = [text_of(kind, *said) for said in verdicts]
        guidelines = prompt.BRIEF_GUIDELINES[kind]
        how = GenerativeSettings(
            length, kind=kind, guidelines=guidelines, votes=2, scoring="probability", grammar=False
        )
        program = lambda: generative(TASK, PROBLEM, solution("step a", "8"), tokenizer, how)  # noqa: E731, B023
        ((_, judgement),) = run({"generative": Written(texts)}, [("p", program)], EmptyJournal())

        asked = encode_chat(tokenizer, verify.render(TASK, PROBLEM, ("step a", "8"), guidelines))
        by_hand = []
        for (labels, answer), text in zip(verdicts, texts, strict=True):
            ids, found = encode(tokenizer, text), []
            for number in range(1 if kind == "orm" else 3):
                turned = [label ^ (i == number - 1) for i, label in enumerate(labels)], answer ^ (number == 0)
                others = encode(tokenizer, text_of(kind, *turned))
                place = next(i for i, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b)
                right = answer if number == 0 else labels[number - 1]
                pair = (others[place], ids[place]) if right else (ids[place], others[place])
                row = np.zeros((1, length), np.int32)
                row[0, : len(asked) + len(ids)] = [*asked, *ids]
                there = np.asarray(forward(row))[0, len(asked) + place - 1, list(pair)].astype(np.float64)
                found.append(np.exp(there[1]) / np.exp(there).sum())
            by_hand.append(found)
        of_answer, *of_steps = np.mean(by_hand, axis=0)
        assert judgement.outcome_score == pytest.approx(of_answer, rel=1e-4)
        scores = [step.score for step in judgement.steps]
        assert scores == ([None, judgement.outcome_score] if kind == "orm" else pytest.approx(of_steps, rel=1e-4))
        distinct = {round(float(np.log(p)), 3) for found in by_hand for p in found}
        assert len(distinct) == (1 if kind == "orm" else 5)  # the votes differ behind their first words


class KeptJournal(dict):
    """A journal in memory."""

    def put(self, request_id, completions):
        self[request_id] = completions


@pytest.mark.parametrize("after", range(4))
def test_a_judgement_that_was_killed_goes_on(after):
    def engine(kill_after):
        def answer(request):
            if isinstance(request, Sample):
                return tuple(completion(text_of("prm", [True, bool(k)], True)) for k in range(2))
            return (Completion(scores=tuple(1 / (position + 1) for position in request.positions)),)

        return ScriptedEngine(answer, per_poll=1, kill_after=kill_after)

    how = GenerativeSettings(
        10_000, kind="prm", guidelines="Judge.", votes=2, temperature=1.0, scoring="probability", grammar=False
    )
    programs = [("p", lambda: generative(TASK, PROBLEM, solution("a", "8"), TOKENIZER, how))]
    unbroken, journal = list(run({"generative": engine(None)}, programs, EmptyJournal())), KeptJournal()
    with pytest.raises(Killed):
        list(run({"generative": engine(after)}, programs, journal))
    assert len(journal) == after
    resumed = engine(None)
    assert list(run({"generative": resumed}, programs, journal)) == unbroken
    assert len(resumed.answered) == 5 - after
