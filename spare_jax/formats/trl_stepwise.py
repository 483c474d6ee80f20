"""TRL's stepwise supervision format: JSON lines of {"id", "prompt", "completions", "labels"}.

`prompt` is a text, `completions` the steps, `labels` one true or false per step. TRL itself knows no `id`; it is kept
so that a row can be traced to its solution. Numbers are accepted as labels where they are 0 or 1: others were cut
to integers by TRL's trainer and silently became another label.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spare_jax.jsonlines import StoreError, read_lines, write_lines
from spare_jax.records import Problem, Record, RecordError, Solution


@dataclasses.dataclass(frozen=True)
class StepwiseRow(Record):
    """One labelled solution. `id` may be empty in files of others."""

    prompt: str
    completions: tuple[str, ...]
    labels: tuple[bool, ...]
    id: str = ""


def row_of(problem: Problem, solution: Solution, labels: Sequence[bool | None]) -> StepwiseRow | None:
    """A labelled solution as a row; None where a step has no label, which the format cannot say.

    Raises:
      ValueError: there is not one label per step.
    """
    if len(labels) != len(solution.steps):
        raise ValueError(f"solution {solution.id}: {len(solution.steps)} steps, but {len(labels)} labels")
    if None in labels or not labels:
        return None
    prompt = "\n".join((*problem.context, problem.question))
    return StepwiseRow(prompt, solution.steps, tuple(label is True for label in labels), solution.id)


def write(path: str | Path, rows: Iterable[StepwiseRow]) -> None:
    """Write rows in the order given, whole or not at all.

    Raises:
      StoreError: a row has not one label per completion.
    """
    write_lines(path, (_checked(row, f"{path}: row {i}").to_json() for i, row in enumerate(rows, 1)))


def read(path: str | Path, on_error: str = "raise", malformed: list[str] | None = None) -> list[StepwiseRow]:
    """Read rows in the file's order.

    Args:
      on_error, malformed: as for `jsonlines.read_lines`.

    Raises:
      StoreError: the file is missing, or a line is malformed; names file, line and field.
    """
    return [row for _, row in read_lines(path, _parse, on_error, malformed)]


def _parse(value: Any) -> StepwiseRow:
    if isinstance(value, dict):
        known = {field.name for field in dataclasses.fields(StepwiseRow)}
        value = {key: item for key, item in value.items() if key in known}  # columns of others' own
        if isinstance(labels := value.get("labels"), list):
            value["labels"] = [bool(v) if isinstance(v, int | float) and v in (0, 1) else v for v in labels]
    row = StepwiseRow.from_json(value)
    if len(row.labels) != len(row.completions):
        raise RecordError(f"StepwiseRow.labels: {len(row.labels)} labels for {len(row.completions)} completions")
    return row


def _checked(row: StepwiseRow, where: str) -> StepwiseRow:
    if len(row.labels) != len(row.completions):
        raise StoreError(f"{where}: {len(row.labels)} labels for {len(row.completions)} completions")
    return row
