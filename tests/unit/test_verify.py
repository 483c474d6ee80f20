"""SPARK's verifications: what we write we read back, and no text makes the parser fail."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_cases import PROBLEM, TOKENIZER, ask, completion, solution
from judge_cases import TASK as TOY

from spare_jax.judges.verify import VerifySettings
from spare_jax.judges.verify import verify as judge_by_verification
from spare_jax.prompts import verify
from spare_jax.prompts.verify import StepVerification
from spare_jax.records import StepJudgement
from spare_jax.tasks.arithmetic import TASK, WORLD

LINE = st.from_regex(r"\A[a-zé0-9(][a-zé0-9 +=*#.\"\\]{0,20}[a-z.]\Z")
STEP = st.builds(
    StepVerification, title=LINE, analysis=st.lists(LINE, min_size=1, max_size=3).map("\n".join), correct=st.booleans()
)


@given(st.lists(STEP, min_size=1, max_size=4), st.booleans())
def test_round_trip_in_the_grammar(steps, answer):
    text = verify.format_verification(steps, answer)
    parsed = verify.parse(text, len(steps))
    assert [parsed.steps[i] for i in range(1, len(steps) + 1)] == steps and parsed.answer == answer
    assert re.fullmatch(verify.grammar(len(steps)).pattern, text)
    assert not re.fullmatch(verify.grammar(len(steps) + 1).pattern, text)


LINES = (
    "## Step 1: a", "## Step 2:", "## Step 99999999999999: x", "## Step \u0661: x", "**This step is correct.**", "\r",
    "**This step is incorrect.**", "**Verification: Is the answer correct (Yes/No)? Yes**", "#", "\x00", "words",
)  # fmt: skip


@given(st.text(max_size=300) | st.lists(st.sampled_from(LINES), max_size=12).map("\n".join))
def test_any_text_parses(text):
    parsed = verify.parse(text, 2)
    assert set(parsed.steps) <= {1, 2}


def test_the_last_verdict_of_a_section_and_the_first_section_of_a_step_count():
    text = (
        "## Step 1: sum\nIt seems right.\n**This step is correct.**\nWait.\n**This step is incorrect.**\n\n"
        "## Step 1: again\nx\n**This step is correct.**\n\n## Step 2: cut\nand then\n\n## Step 9: more\n"
        "**Verification: Is the answer correct (Yes/No)? Yes**\n**Verification: Is the answer correct (Yes/No)? No**"
    )
    parsed = verify.parse(text, 2)
    assert parsed.steps[1].correct is False and parsed.steps[1].title == "sum"
    assert parsed.steps[2] == StepVerification("cut", "and then", None)
    assert (parsed.duplicates, parsed.surplus, parsed.answer) == (1, 1, False)
    on_windows = verify.parse(text.replace("\n", "\r\n"), 2)
    assert on_windows.answer is False and on_windows.steps[1].correct is False


@pytest.mark.parametrize(
    "step",
    [
        StepVerification("a\nb", "x", True),
        StepVerification("a", "", True),
        StepVerification("a", "**This step is correct.**", False),
        StepVerification("a", "x\n\ny", True),
        StepVerification("a", "x", None),
    ],
)
def test_what_the_grammar_does_not_have_is_refused(step):
    with pytest.raises(ValueError, match="step 1"):
        verify.format_verification([step], True)


def test_a_judgement_becomes_a_verification_that_says_the_same():
    problem, gold = next(WORLD.generate(0, "verify", 1))
    steps = (*gold.steps[:-1], "The answer is 98.", "Hello")
    judged = WORLD.truth(problem, gold, steps)
    said = verify.format_verification(verify.from_judgement(judged), answer=False)
    parsed = verify.parse(said, len(steps))
    assert [parsed.steps[i + 1].correct for i in range(len(steps))] == [step.label for step in judged]
    assert parsed.steps[1].title == judged[0].explanation.split(":")[0]
    assert [match[1] for match in verify.VERDICTS.finditer(said)] == [
        *("correct" if step.label else "incorrect" for step in judged),
        "No",
    ]


def test_a_verifier_sees_no_reference():
    problem, gold = next(WORLD.generate(0, "verify", 1))
    candidate = ("Zoe has 3.", "The answer is 3.")
    shown = verify.render(TASK, problem, candidate, verify.GUIDELINES)
    assert [message["role"] for message in shown] == ["system", "user"]
    assert shown[1]["content"].splitlines()[-2:] == ["[s1] Zoe has 3.", "[s2] The answer is 3."]
    assert "[r1]" not in shown[1]["content"] and not any(step in shown[1]["content"] for step in gold.steps)


class TestVerify:
    def verification(self, *labels, answer=True):
        steps = [verify.StepVerification("check", "looked at", label) for label in labels]
        return verify.format_verification(steps, answer)

    def judge(self, texts, steps=("step a", "8"), **changes):
        how = VerifySettings(
            **{"max_length": 100_000, "max_tokens": 500, "votes": len(texts), "grammar": False} | changes
        )
        answer = lambda request: tuple(completion(text) for text in texts)  # noqa: E731
        return ask(judge_by_verification(TOY, PROBLEM, solution(*steps), TOKENIZER, how), answer)

    def test_reads_its_verdicts(self):
        judgement, (request,) = self.judge([self.verification(True, False, answer=False)])
        assert [step.label for step in judgement.steps] == [True, False] and judgement.outcome is False
        assert judgement.steps[0].explanation == "check: looked at"
        assert request.n == 1 and request.temperature == 0

    def test_votes_count_step_by_step(self):
        texts = [self.verification(*labels) for labels in ((True, False), (True, True), (False, False))]
        judgement, _ = self.judge(texts, temperature=1.0)
        assert [step.label for step in judgement.steps] == [True, False]
        assert [step.score for step in judgement.steps] == [2 / 3, 1 / 3]

    def test_a_step_without_a_verdict_is_missed(self):
        judgement, _ = self.judge(["## Step 2: x\ny\n**This step is correct.**"])
        assert [(step.label, step.missed) for step in judgement.steps] == [(None, True), (True, False)]
        assert judgement.outcome is None

    def test_where_the_prompt_fills_the_context_nothing_is_asked(self):
        failure, requests = self.judge([""], max_length=10)
        assert not requests and "no room" in failure.message and not failure.passing

    def test_texts_that_were_cut_off_or_say_nothing_do_not_vote(self):
        says = self.verification(False, True, answer=False)
        judgement, _ = self.judge([says, "?", ""], temperature=1.0)
        assert [step.label for step in judgement.steps] == [False, True] and judgement.text == says
        for text, end, why in (("?", "stop", "has no verdict"), (says, "length", "was cut off after")):
            ended = dataclasses.replace(completion(text), finish_reason=end)
            how = VerifySettings(max_length=100_000, votes=2, temperature=1.0, grammar=False)
            asked = judge_by_verification(TOY, PROBLEM, solution("step a", "8"), TOKENIZER, how)
            judgement, _ = ask(asked, lambda _, ended=ended: (ended, ended))
            assert why in judgement.failure and judgement.outcome is None and judgement.steps == (StepJudgement(),) * 2
            assert judgement.generated_tokens == 2 * len(ended.ids) and judgement.text == text
