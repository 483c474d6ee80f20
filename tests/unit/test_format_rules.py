r"""The format checker V: every kind of failure by hand, and any text at all."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spare_jax.runs import splits
from spare_jax.training.format_rules import FAILURES, FORBIDDEN, TAGGED, check, rules_of

ARITHMETIC, MATH, GSM8K, MUSIQUE = (
    rules_of(splits.task_of(name)) for name in ("arithmetic", "math", "gsm8k", "musique")
)
GOOD = "<step>3 + 5 = 8</step>\n<step>8 * 2 = 16</step>\n<answer>\\boxed{16}</answer>\n"
STORY = "Ben has Ada + 3 = 5 + 3 = 8.\nThe answer is 8."


@pytest.mark.parametrize(
    "text, failures",
    [
        (GOOD, ()),
        ("", ("no_steps", "no_answer", "no_box")),
        (GOOD.replace("<step>", ""), ("no_steps",)),
        (GOOD.replace("</answer>", ""), ("no_answer",)),
        (GOOD.replace("<answer>", ""), ("no_answer",)),
        ("</answer><answer>" + GOOD[:24] + "\\boxed{1}", ("no_answer",)),
        (GOOD + "<answer>16</answer>", ("several_answers",)),
        (GOOD.replace("<answer>", "<answer><answer>"), ("several_answers",)),
        (GOOD + "</answer>", ("several_answers",)),
        (GOOD + "So it is 16.", ("text_after_answer",)),
        (GOOD + "<answer>", ("several_answers", "text_after_answer")),
        (GOOD.replace("\\boxed{16}", "16"), ("no_box",)),
        (GOOD.replace("\\boxed{16}", "\\boxed{1} \\boxed{16}"), ("several_boxes",)),
        (GOOD.replace("8 * 2", "\\boxed{8} * 2"), ("several_boxes",)),
        ("<step>a</step>\n\n**Problem 2:** What is 1 + 1?\n" + GOOD, ("second_problem",)),
        ("Now let us solve a similar problem.\n" + GOOD, ("second_problem",)),
        (GOOD + GOOD, ("several_answers", "several_boxes", "repeated_step")),
        (GOOD.replace("8 * 2 = 16", " 3 + 5 = 8"), ("repeated_step",)),
    ],
)
def test_the_tagged_form(text, failures):
    assert check(TAGGED, text).failures == failures
    assert check(TAGGED, text).valid == (failures in ((), ("repeated_step",)))


@pytest.mark.parametrize(
    "rules, text, failures",
    [
        (ARITHMETIC, STORY, ()),
        (ARITHMETIC, STORY + "\n \n", ()),
        (ARITHMETIC, "Ben has 8.", ("no_answer",)),
        (ARITHMETIC, STORY + "\nThe answer is 8.", ("several_answers", "repeated_step")),
        (ARITHMETIC, STORY.replace("\n", "\nAda has 5.\n Ada has 5.\n"), ("repeated_step",)),
        (ARITHMETIC, STORY.replace("\n", "\nAda has 5.\nAda has 6.\n"), ()),
        (ARITHMETIC, STORY + "\nBen has 8.", ("text_after_answer",)),
        (
            ARITHMETIC,
            STORY + "\nProblem: Ada has 1. How many?\nThe answer is 1.",
            ("several_answers", "second_problem"),
        ),
        (ARITHMETIC, "\n  \n", ("no_steps", "no_answer")),
        (GSM8K, "3 * 5 = 15\nThe answer is 15.", ()),
        (GSM8K, "3 * 5 = 15\n15", ("no_answer",)),
        (MATH, "3 * 5 = 15\nSo it is $\\boxed{15}$.", ()),
        (MATH, "3 * 5 = 15\nThe answer is 15.", ("no_box",)),
        (MATH, "It is $\\boxed{15}$ or $\\boxed{16}$.", ("several_boxes",)),
        (MATH, "Exercise is healthy, the question is why: 1.\n\\boxed{1}", ()),
        (MATH, "\\[\n\\boxed{\\frac{1}{2}}\n\\]", ()),
        (MATH, "The answer is 15 dollars.\n$\\boxed{15}$ dollars a week.", ()),
        (MATH, "So it is $\\boxed{15}$. New problem: what is 1 + 1?", ("text_after_answer", "second_problem")),
        (MATH, "So it is $\\boxed{15}$. Now 1 + 1 = 2.", ("text_after_answer",)),
        (MATH, "So \\boxed{15}. As a challenge, find another", ("text_after_answer",)),
        (MATH, "So there are $\\boxed{9}$ divisors of 196.", ()),
        (MATH, "\\begin{align*}\n2 + 1 &= \\boxed{3}.\n\\end{align*}", ()),
        (MATH, "So it is \\boxed{15", ("no_answer",)),
        (GSM8K, "3 * 5 = 15\nThe answer is 15 eggs.", ()),
        (GSM8K, "3 * 5 = 15\nThe answer is 15. What is 1 + 1? It is 2.", ("text_after_answer",)),
        (GSM8K, "3 * 5 = 15\nThe answer is 15. A new problem: 1 + 1?", ("text_after_answer", "second_problem")),
        (GSM8K, "3 * 5 = 15\n#### 15", ()),
        (MUSIQUE, "He lived there.\nThe answer is St. Louis.", ()),
        (MUSIQUE, "He lived there.\nThe answer is J. R. R. Tolkien", ()),
        (MUSIQUE, "He lived there.\nThe answer is Paris. It is in France.", ("text_after_answer",)),
        (ARITHMETIC, STORY + " Ben has 8.", ("no_answer",)),
    ],
)
def test_the_form_of_a_task(rules, text, failures):
    assert check(rules, text).failures == failures


def test_v_is_about_what_is_forbidden():
    twice = STORY.replace("\n", "\nBen has Ada + 3 = 5 + 3 = 8.\n")
    open_ended = STORY + "\nBen has 8."
    arithmetic = splits.task_of("arithmetic")
    found = [
        [check(rules_of(arithmetic, forbidden), text).valid for text in (STORY, twice, open_ended)]
        for forbidden in (FORBIDDEN, ("repeated_step",), ())
    ]
    assert found == [[True, True, False], [True, False, True], [True, True, True]]
    assert set(FAILURES) - set(FORBIDDEN) == {"repeated_step"}
    with pytest.raises(ValueError, match=r"grpo\.forbidden names 'rudeness': choose among cut_off, no_steps"):
        rules_of(arithmetic, ("rudeness",))


def test_what_was_cut_off_is_told():
    assert check(TAGGED, GOOD, "length").failures == ("cut_off",)
    assert check(ARITHMETIC, "Ben has", "length").failures == ("cut_off", "no_answer")


PIECES = st.sampled_from(
    ["<step>", "</step>", "<answer>", "</answer>", "\\boxed{", "}", "\n", " ", "The answer is 8.", "Problem 2:", "#"]
)
TEXTS = st.lists(PIECES, max_size=20).map("".join) | st.text()


@given(TEXTS, st.sampled_from([TAGGED, ARITHMETIC, MATH]))
@example("\udcff<answer>\x00", TAGGED)
def test_any_text_has_failures_in_their_order_and_v_means_the_form(text, rules):
    found = check(rules, text)
    assert list(found.failures) == [name for name in FAILURES if name in found.failures]
    if found.valid and rules is TAGGED:
        assert text.count("<answer>") == text.count("</answer>") == found.boxes == 1
        assert text.rstrip().endswith("</answer>") and "<step>" in text
    if found.valid and rules is ARITHMETIC:
        assert text.count("The answer is") == 1 and text.rstrip()[-1] in ".8"


@given(TEXTS.filter(str.strip))
def test_nothing_can_be_appended_to_a_valid_solution(tail):
    assert not check(TAGGED, GOOD + tail).valid
    assert not check(ARITHMETIC, STORY + "\n" + tail).valid
    assert not check(GSM8K, "3 * 5 = 15\nThe answer is 15.\n" + tail).valid
    if re.search(r"\w", tail):  # what closes a formula may stand on a line of its own
        assert not check(MATH, "3 * 5 = 15\nSo it is $\\boxed{15}$.\n" + tail).valid


@pytest.mark.parametrize(
    "piece", ["\n", " ", "#", "<answer>", "</answer>", "\\boxed ", "problem ", "The answer is ", "* "]
)
def test_long_hostile_text_takes_no_time(piece):
    start = time.perf_counter()
    for rules in (TAGGED, ARITHMETIC, MATH):
        check(rules, piece * (200_000 // len(piece)))
    assert time.perf_counter() - start < 5
