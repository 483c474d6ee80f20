"""TRL's stepwise supervision: {"prompt", "completions": the steps, "labels": one true or false per step}.

The column `id` is this package's and traces a row to its solution. The numbers 0 and 1 are read as labels, others are
errors: TRL's trainer would silently round them to another label.
"""

from typing import Any

from spare_jax.formats.fields import Row, field, ids_of, judged_by, labelled, prompt
from spare_jax.records import LabelledSolution, RecordError, convert

JUDGE = "trl_stepwise"


def records_of(row: Row, default_id: str) -> tuple[LabelledSolution]:
    """The one labelled solution of a row.

    Raises:
      RecordError: a field is missing or does not fit, or there is not one label per completion.
    """
    question, steps = field(row, "prompt", str), field(row, "completions", tuple[str, ...])
    labels = [_label(label, f"labels[{i}]") for i, label in enumerate(field(row, "labels", list))]
    if len(labels) != len(steps):
        raise RecordError(f"labels: {len(labels)} labels for {len(steps)} completions")
    return (labelled(JUDGE, ids_of(row, default_id, 1)[0], question, steps, judged_by(labels)),)


def row_of(record: LabelledSolution) -> Row | None:
    """A labelled solution as a row; None where it has no steps or a step without label."""
    if None in record.labels or not record.labels:
        return None
    return {
        "id": record.solution.id,
        "prompt": prompt(record.problem),
        "completions": record.solution.steps,
        "labels": record.labels,
    }


def _label(value: Any, where: str) -> bool:
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else convert(value, bool, where)
