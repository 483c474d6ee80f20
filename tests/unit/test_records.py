"""Records go to JSON and back without loss, and say which field does not fit."""

import dataclasses
import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import record

from spare_jax.records import (
    Gold,
    Judgement,
    LabelledSolution,
    Preference,
    Problem,
    RecordError,
    Solution,
    StepJudgement,
    not_judged,
)

TYPES = (Problem, Gold, Solution, StepJudgement, Judgement, Preference)
EXAMPLES = (
    Problem("p", "How many?", ("Ann has 3.",)),
    Gold("p", ("3",), ("Ann has 3.",), ("a=3",)),
    Solution("p/0", "p", ("Ann has 3.",), "3", "stop", (5, 6), ((0, 2),), "abc", -0.25, 7),
    StepJudgement(True, 0.5, "right", (1,), (2,), (3,), ("NUMERIC",), False),
    Judgement("p/0", "spare", (StepJudgement(False),), True, "[]", True, 1, 2, 3, 4),
)
EXAMPLES += (
    LabelledSolution(EXAMPLES[0], EXAMPLES[2], EXAMPLES[4], EXAMPLES[1]),
    Preference(EXAMPLES[0], EXAMPLES[2], EXAMPLES[2], (0.5,), (None,), 1),
)
FIELDS = [(example, field.name) for example in EXAMPLES for field in dataclasses.fields(example)]


@st.composite
def labelled_solutions(draw):
    solution, steps = draw(record(Solution)), record(StepJudgement)
    judged = tuple(draw(steps) for _ in solution.steps)
    judgement = dataclasses.replace(draw(record(Judgement)), steps=judged, failure="")
    return LabelledSolution(draw(record(Problem)), solution, judgement, draw(st.none() | record(Gold)))


@given(st.one_of(labelled_solutions(), *map(record, TYPES)))
def test_json_round_trip(value):
    again = type(value).from_json(json.loads(json.dumps(value.to_json())))
    assert again == value
    assert hash(again) == hash(value)  # tuples all the way down, as before


@pytest.mark.parametrize(("example", "name"), FIELDS, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_a_value_of_a_wrong_type_is_named(example, name):
    hint = typing.get_type_hints(type(example))[name]
    wrong = {"x": 1} if hint is not str else 1
    with pytest.raises(RecordError, match=rf"{type(example).__name__}\.{name}\b"):
        type(example).from_json(example.to_json() | {name: wrong})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda v: type(v).__name__)
def test_missing_and_unknown_fields_are_named(example):
    for field in dataclasses.fields(example):
        row = example.to_json()
        del row[field.name]
        if field.default is dataclasses.MISSING:
            with pytest.raises(RecordError, match=f"{field.name!r} is missing"):
                type(example).from_json(row)
        else:
            assert getattr(type(example).from_json(row), field.name) == field.default
    with pytest.raises(RecordError, match="unknown field 'extra'"):
        type(example).from_json(example.to_json() | {"extra": 1})


@pytest.mark.parametrize("row", [None, 3, "text", [1], True])
def test_what_is_no_object_is_no_record(row):
    with pytest.raises(RecordError, match="expected an object"):
        Problem.from_json(row)


def test_numbers_keep_their_kind():
    assert type(StepJudgement.from_json({"score": 1}).score) is float
    for row in ({"score": True}, {"label": 1}, {"missed": 0}, {"context": [1.0]}, {"context": [True]}):
        with pytest.raises(RecordError, match=next(iter(row))):
            StepJudgement.from_json(row)


def test_a_wrong_value_deep_inside_is_located():
    row = Judgement("p/0", "spare", (StepJudgement(), StepJudgement())).to_json()
    row["steps"][1]["reference"] = [1, "2"]
    with pytest.raises(RecordError, match=r"Judgement\.steps\[1\].*StepJudgement\.reference\[1\]: expected int"):
        Judgement.from_json(row)


@pytest.mark.parametrize(
    "said",
    [
        {"outcome": False},
        {"outcome_score": 0.0},
        {"steps": (StepJudgement(True),)},
        {"steps": (StepJudgement(score=0.5),)},
    ],
)
def test_what_failed_has_no_label_and_no_score(said):
    with pytest.raises(RecordError, match="failed on solution 'p/0' \\(no server\\) and labels it"):
        Judgement("p/0", "spare", failure="no server", **said)
    solution = Solution("p/0", "p", ("a", "b"), None, "stop")
    failed = not_judged(solution, "spare", "no server")
    assert failed.steps == (StepJudgement(),) * 2 and failed.first_error is None and failed.outcome is None


def test_first_error_is_the_first_step_labelled_incorrect():
    def judged(*labels):
        return Judgement("p/0", "spare", tuple(StepJudgement(label) for label in labels)).first_error

    assert judged(True, None, False, False) == 2
    assert judged(True, None) is None
    assert judged() is None


def test_a_labelled_solution_has_one_judged_step_per_step():
    problem, solution, judgement = EXAMPLES[0], EXAMPLES[2], EXAMPLES[4]
    with pytest.raises(RecordError, match="'p/0' has 1 steps and judge 'spare' labelled 0"):
        LabelledSolution(problem, solution, dataclasses.replace(judgement, steps=()))
    labels = (StepJudgement(), StepJudgement(label=False))
    two = dataclasses.replace(solution, steps=("a", "b")), dataclasses.replace(judgement, steps=labels)
    assert LabelledSolution(problem, *two).labels == (None, False)


@pytest.mark.parametrize("shared", [-1, 2, 3, 4])
def test_a_preference_shares_only_equal_steps(shared):
    problem, one, other = (
        Problem("p", "?"),
        *(Solution(f"p/{i}", "p", ("a", *rest), None, "stop") for i, rest in enumerate([("b", "c"), ("c", "c", "c")])),
    )
    with pytest.raises(RecordError, match=f"shared_steps: {shared}, and solutions 'p/0' and 'p/1' do not begin"):
        Preference(problem, one, other, shared_steps=shared)
    assert Preference(problem, one, other, shared_steps=1).id == "p/0 > p/1"


@given(st.lists(st.builds(StepJudgement, st.none() | st.booleans(), st.none() | st.floats(0, 1)), max_size=6))
def test_soft_labels_are_scores_or_labels_and_masked_where_labels_are(steps):
    solution = Solution("p/0", "p", ("x",) * len(steps), None, "stop")
    item = LabelledSolution(Problem("p", "?"), solution, Judgement("p/0", "j", tuple(steps)))
    assert [soft is None for soft in item.soft_labels] == [label is None for label in item.labels]
    for step, soft in zip(steps, item.soft_labels, strict=True):
        if step.label is not None:
            assert soft == (step.score if step.score is not None else {True: 1.0, False: 0.0}[step.label])
