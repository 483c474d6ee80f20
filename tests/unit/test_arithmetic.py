"""The arithmetic world: its counts, and a judge that is exact on hand-written cases."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spare_jax.evaluation.explanations import says_right
from spare_jax.records import Gold, Problem
from spare_jax.tasks.arithmetic import WORLD
from spare_jax.worlds import arithmetic
from spare_jax.worlds.arithmetic import story_of
from spare_jax.worlds.arithmetic_judge import ERRORS, judge
from spare_jax.worlds.expressions import Name, Number, Operation, evaluate, parse

# Ada 7, Ben 12 (told in two ways), Cal 36, Dan 43; Eve 30 and Fay 26 are not needed.
FACTS = (
    "Ben = Ada + 5", "Ada = 7", "Fay = Eve - 4", "Dan = Cal + Ada", "Eve = 30", "Cal = Ben * 3", "Ben = Eve - 18",
    "? = Dan",
)  # fmt: skip
REFERENCE = (
    "Ben has Ada + 5 = 7 + 5 = 12.",
    "Cal has Ben * 3 = 12 * 3 = 36.",
    "Dan has Cal + Ada = 36 + 7 = 43.",
    "The answer is 43.",
)
PROBLEM = Problem("p", "How many apples does Dan have?", tuple(f"sentence {i}" for i in range(7)))
GOLD = Gold("p", ("43",), REFERENCE, FACTS)


def verdicts(*steps):
    return judge(PROBLEM, GOLD, steps)


def errors(*steps):
    return [verdict.error for verdict in verdicts(*steps)]


def test_the_reference_is_right_and_aligned():
    found = verdicts(*REFERENCE)
    assert [v.correct for v in found] == [True] * 4
    assert [v.reference for v in found] == [(1,), (2,), (3,), (4,)]
    assert [v.steps for v in found] == [(), (1,), (2,), (3,)]
    assert [v.context for v in found] == [(1, 2), (6,), (2, 4), ()]
    assert [v.explanation for v in found] == [
        "Ben: said Ada + 5 = 7 + 5 = 12, is so",
        "Cal: said Ben * 3 = 12 * 3 = 36, is so",
        "Dan: said Cal + Ada = 36 + 7 = 43, is so",
        "answer: said 43, is so",
    ]


@pytest.mark.parametrize(
    "steps",
    [
        ("Ben has 5 + Ada = 5 + 7 = 12.", "Cal has 3 * Ben = 3 * 12 = 36."),  # commuted
        ("Ben has 7 + 5 = 12.",),  # no names
        ("Ben = Ada + 5 = 12.",),  # no numbers, another sign
        ("7 + 5 = 12.", "Ben has 12."),  # split in two
        ("Cal has (Ada + 5) * 3 = (7 + 5) * 3 = 36.",),  # merged
        ("Dan has (7 + 5) * 3 + 7 = 43.", "The answer is 43."),  # all in one
        ("Ben has Eve - 18 = 30 - 18 = 12.", "Cal has Ben * 3 = 12 * 3 = 36."),  # the other route
        ("Fay has Eve - 4 = 30 - 4 = 26.", *REFERENCE),  # true and not needed
        ("Ada has 7.", *REFERENCE, "Dan has 43."),  # true things said again
        ("Ada has 7 apples.", *REFERENCE),  # a count with its unit
    ],
)
def test_valid_routes_are_right(steps):
    assert errors(*steps) == [None] * len(steps)


@pytest.mark.parametrize(
    "steps, expected",
    [
        (("Ben has Ada + 5 = 7 + 5 = 13.",), ["NUMERIC"]),
        (("Ben has Ada + 5 = 8 + 5 = 13.",), ["OPERAND"]),
        (("Ben has Ada + 5 = 8 + 5 = 12.",), ["OPERAND"]),  # a right value by a wrong operand
        (("Ben has Ada + Ada = 7 + 7 = 14.",), ["COMPREHENSION"]),
        (("Ben has 6 + 6 = 12.",), ["COMPREHENSION"]),  # a right value by a wrong route
        (("Ben has 5 - 7 = 12.",), ["COMPREHENSION"]),  # subtraction does not commute
        (("Cal has Ben * 3 = 12 * 3 = 36.",), ["PREMISE"]),  # nothing has established Ben
        (("Cal has 36.",), ["PREMISE"]),
        (("The answer is 43.",), ["PREMISE"]),
        (("The answer is 44.",), ["ANSWER"]),
        (("Ben has Ada + 5 = 7 + 5 = 13.", "Cal has Ben * 3 = 13 * 3 = 39."), ["NUMERIC", "PROPAGATED"]),
        (("Ben has Ada + 5 = 7 + 5 = 13.", "Ben has 13."), ["NUMERIC", "PROPAGATED"]),  # a wrong value restated
        # An error does not touch what does not build on it.
        (("Ben has Ada + 5 = 7 + 5 = 13.", "Fay has Eve - 4 = 30 - 4 = 26."), ["NUMERIC", None]),
        # A right derivation mends a wrong one.
        (("Ben has Ada + 5 = 7 + 5 = 13.", *REFERENCE), ["NUMERIC", None, None, None, None]),
        (("Gus has Ada + 5 = 7 + 5 = 12.",), ["COMPREHENSION"]),  # nobody of that name
        (("Ben has Ada + 5.",), ["FORMAT"]),
        (("Hello",), ["FORMAT"]),
        (("",), ["FORMAT"]),
        (("__import__('os').system('true') = 12.",), ["FORMAT"]),
    ],
)
def test_errors_and_their_categories(steps, expected):
    assert errors(*steps) == expected
    assert set(filter(None, expected)) <= set(ERRORS)


def test_merged_steps_align_with_several_reference_steps():
    (verdict,) = verdicts("Cal has (Ada + 5) * 3 = (7 + 5) * 3 = 36.")
    assert verdict.reference == (1, 2)


@given(st.lists(st.text(max_size=60), max_size=6))
def test_any_text_gets_a_verdict(steps):
    assert len(verdicts(*steps)) == len(steps)


@given(st.text(alphabet="AdaBenCl0123456789+-*()= .", max_size=80))
@settings(max_examples=300)
def test_text_that_looks_like_a_step_gets_a_verdict(text):
    assert len(verdicts(text, f"Ben has {text}.")) == 2


def agree(found):
    """Every explanation that compares, and gives the reason for its verdict."""
    says = [says_right(verdict.explanation) for verdict in found]
    return all(one is None or one is verdict.correct for one, verdict in zip(says, found, strict=True))


@given(st.lists(st.text(alphabet="AdaBenCl0123456789+-*()= .", max_size=40), max_size=4))
@settings(max_examples=300)
def test_an_explanation_gives_the_reason_of_any_verdict(texts):
    assert agree(verdicts(*(f"{name} has {text}." for name in ("Ben", "Cal") for text in texts), "The answer is 43."))


def test_explanations_give_the_reasons_for_verdicts_on_all_kinds_of_solutions():
    kinds = set()
    for problem, gold in WORLD.generate(6, "check", 150):
        rng = random.Random(problem.id)
        for make in (WORLD.another_solution, WORLD.every_fact, WORLD.mistaken_solution):
            steps = make(problem, gold, rng)
            found = judge(problem, gold, steps)
            kinds |= {verdict.error for verdict in found}
            assert agree(found), (steps, found)
            assert all(
                says_right(v.explanation) is not None for v in found if v.error not in ("FORMAT", "COMPREHENSION")
            )
    assert kinds >= {None, *ERRORS} - {"NUMERIC"}


@pytest.mark.parametrize(
    ("steps", "explanation"),
    [
        (("Ben has 5 + Ada = 5 + 7 = 12.",), "Ben: said 5 + Ada = 5 + 7 = 12, is so"),
        (("Ben has 5 + Ada = 5 + 8 = 13.",), "Ben: said 5 + Ada = 5 + 8, is 7"),
        (("Cal has Ben * 3 = 12 * 3 = 36.",), "Cal: said Ben * 3 = 12, is Ben"),
        (("Dan has Cal + Ada = 36 + 7 = 43.",), "Dan: said Cal + Ada = 36, is Cal"),
        (("Ben has Ada * 5 = 7 * 5 = 35.",), "Ben: said Ada *, is +"),
        (("Ben has Ada + 5 = 7 + 5 = 13.",), "Ben: said Ada + 5 = 7 + 5 = 13, is 12"),
        (("Ben has 7 + 5 = 13.",), "Ben: said 7 + 5 = 13, is 12"),
        (("Ben has Ada + 5 = 7+6 = 13.",), "Ben: said Ada + 5 = 7+6, is 5"),
        (("Cal has 36.",), "Cal: said 36, is Cal"),
        (("Cal has Ben * 3 = 36.",), "Cal: said Ben * 3 = 36, is Cal"),
        (("The answer is 43.",), "answer: said 43, is Dan"),
        (("The answer is 44.",), "answer: said 44, is 43"),
    ],
)
def test_a_wrong_step_is_repeated_up_to_its_first_wrong_word(steps, explanation):
    assert verdicts(*steps)[-1].explanation == explanation


def test_mistaken_solutions_err_as_policies_do_and_never_slip():
    first, right, numeric = [], 0, 0
    for problem, gold in WORLD.generate(9, "check", 300):
        steps = WORLD.mistaken_solution(problem, gold, random.Random(problem.id))
        assert steps == WORLD.mistaken_solution(problem, gold, random.Random(problem.id))
        found = [verdict.error for verdict in judge(problem, gold, steps)]
        numeric += "NUMERIC" in found
        right += not any(found)
        first += [error for error in found if error][:1]
    assert numeric == 0
    assert 60 < right < 200
    assert first.count("PREMISE") > len(first) / 2
    assert {"PREMISE", "COMPREHENSION", "OPERAND", "FORMAT"} <= set(first)


def test_counts_stay_in_range():
    for distribution in (WORLD.train, *WORLD.held_out.values()):
        for _, gold in WORLD.generate(3, "check", 150, distribution):
            assert all(1 <= value <= arithmetic.MAX_VALUE for value in story_of(gold).values.values())


def test_every_count_states_each_fact_once_and_is_right():
    distribution = dataclasses.replace(WORLD.train, lengths=(0, 1, 2, 3), max_distractors=4)
    for problem, gold in WORLD.generate(8, "x", 100, distribution):
        steps = arithmetic.every_count(problem, gold, random.Random(problem.id))
        assert all(verdict.correct for verdict in judge(problem, gold, steps))
        told = [(step.split()[0], "=" in step) for step in steps[:-1]]
        facts = story_of(gold).facts
        assert sorted(told) == sorted((name, not isinstance(expression, Number)) for name, expression in facts)
        assert steps[-1] == gold.steps[-1]


def test_a_changed_number_is_always_found():
    rng = random.Random(0)
    for problem, gold in WORLD.generate(4, "check", 200):
        steps = list(gold.steps)
        at = rng.randrange(len(steps))
        head, _, value = steps[at].rstrip(".").rpartition(" ")
        steps[at] = f"{head} {int(value) + rng.choice([-1, 1, 10])}."
        found = judge(problem, gold, steps)
        assert [v.correct for v in found[:at]] == [True] * at
        assert not found[at].correct
        assert not found[-1].correct  # everything needed flows into the answer


def test_some_problems_have_two_routes_and_some_have_distractors():
    pairs = list(WORLD.generate(7, "check", 200))
    names = [[fact.split(" = ")[0] for fact in gold.facts[:-1]] for _, gold in pairs]
    assert 20 < sum(len(told) > len(set(told)) for told in names) < 100
    assert any(len(told) > 2 * (len(gold.steps) - 1) for told, (_, gold) in zip(names, pairs, strict=True))


expressions = st.recursive(
    st.one_of(st.integers(0, 99).map(Number), st.sampled_from(["Ada", "Ben"]).map(Name)),
    lambda inner: st.builds(Operation, st.sampled_from("+-*"), inner, inner),
    max_leaves=8,
)


@given(expressions)
def test_expressions_survive_printing(expression):
    again = parse(str(expression))
    assert again is not None
    values = {"Ada": 3, "Ben": 5}
    assert evaluate(again, values) == evaluate(expression, values)


@given(st.text(max_size=40))
def test_parsing_never_raises(text):
    parse(text)
