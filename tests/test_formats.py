"""TRL's stepwise format: what is written is read again, what does not fit is named."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_strategies import TEXT

from spare_jax.formats import trl_stepwise
from spare_jax.formats.trl_stepwise import StepwiseRow, row_of
from spare_jax.jsonlines import StoreError
from spare_jax.records import Problem, Solution

ROWS = st.lists(
    st.lists(st.tuples(TEXT, st.booleans()), max_size=4).flatmap(
        lambda steps: st.builds(
            StepwiseRow,
            prompt=TEXT,
            completions=st.just(tuple(text for text, _ in steps)),
            labels=st.just(tuple(label for _, label in steps)),
            id=TEXT,
        )
    ),
    max_size=4,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_round_trip_keeps_rows_and_their_order(tmp_path, rows):
    path = tmp_path / "trl_stepwise.jsonl"
    trl_stepwise.write(path, rows)
    assert trl_stepwise.read(path) == rows


def test_a_row_looks_as_trl_reads_it(tmp_path):
    path = tmp_path / "x.jsonl"
    trl_stepwise.write(path, [StepwiseRow("Q", ("a", "b"), (True, False), "s")])
    assert path.read_text() == '{"completions":["a","b"],"id":"s","labels":[true,false],"prompt":"Q"}\n'


def test_files_of_others_are_read(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "Q", "completions": ["a", "b", "c"], "labels": [1, 0.0, true], "source": 3}\n\n')
    assert trl_stepwise.read(path) == [StepwiseRow("Q", ("a", "b", "c"), (True, False, True), "")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": [True]}, r"StepwiseRow\.labels: 1 labels for 2 completions"),
        ({"labels": [True, 0.7]}, r"StepwiseRow\.labels\[1\]: expected bool, found float"),
        ({"labels": [True, -1]}, r"StepwiseRow\.labels\[1\]: expected bool, found int"),
        ({"labels": [True, None]}, r"StepwiseRow\.labels\[1\]: expected bool, found NoneType"),
        ({"labels": "10"}, r"StepwiseRow\.labels: expected a list"),
        ({"completions": "ab"}, r"StepwiseRow\.completions: expected a list"),
        ({"prompt": None}, r"StepwiseRow\.prompt: expected str"),
    ],
)
def test_a_malformed_row_is_named_or_skipped(tmp_path, change, reason):
    path = tmp_path / "x.jsonl"
    good = {"prompt": "Q", "completions": ["a", "b"], "labels": [True, False]}
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, good | change)))
    with pytest.raises(StoreError, match=rf"x\.jsonl:2: {reason}"):
        trl_stepwise.read(path)
    malformed: list[str] = []
    assert len(trl_stepwise.read(path, "skip", malformed)) == len(malformed) == 1


def test_rows_that_do_not_fit_are_not_written(tmp_path):
    with pytest.raises(StoreError, match="row 2: 2 labels for 1 completions"):
        trl_stepwise.write(tmp_path / "x", [StepwiseRow("Q", ("a",), (True,)), StepwiseRow("Q", ("a",), (True, False))])
    assert not (tmp_path / "x").exists()


def test_a_labelled_solution_becomes_a_row():
    problem = Problem("p", "How many?", ("Ann has 3.",))
    solution = Solution("p/0", "p", ("a", "b"), "3", "stop")
    assert row_of(problem, solution, (True, False)) == StepwiseRow(
        "Ann has 3.\nHow many?", ("a", "b"), (True, False), "p/0"
    )
    assert row_of(problem, solution, (True, None)) is None  # a masked step: the format would make it a wrong one
    with pytest.raises(ValueError, match="p/0: 2 steps, but 1 labels"):
        row_of(problem, solution, (True,))
