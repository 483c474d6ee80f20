"""Solutions to be judged, for who has no format: {"id", "question", "solution"}, "reference" and "context" where there
are any.

Solution and reference are a list of steps or one text, the context a list of sentences or one text. A
text is cut where a line is blank, or at every line end where none is. Nothing is labelled yet.
"""

import re

from spare_jax.formats.fields import Row, field, ids_of, judged_by, labelled
from spare_jax.records import LabelledSolution

JUDGE = "plain"


def records_of(row: Row, default_id: str) -> tuple[LabelledSolution]:
    """The one solution of a row, every step without label.

    Raises:
      RecordError: a field is missing or does not fit.
    """
    question, steps = field(row, "question", str), _steps(row, "solution")
    reference = _steps(row, "reference") if row.get("reference") is not None else ()
    context = _steps(row, "context") if row.get("context") is not None else ()
    judged = judged_by([None] * len(steps))
    ids = ids_of(row, default_id, 1)[0]
    return (labelled(JUDGE, ids, question, steps, judged, reference=reference, context=context),)


def row_of(record: LabelledSolution) -> Row:
    """A solution as a row; its labels are left behind."""
    row = {"id": record.solution.id, "question": record.problem.question, "solution": record.solution.steps}
    row |= {"context": record.problem.context} if record.problem.context else {}
    return row | ({"reference": record.gold.steps} if record.gold and record.gold.steps else {})


def _steps(row: Row, name: str) -> tuple[str, ...]:
    if not isinstance(row.get(name), str):
        return field(row, name, tuple[str, ...])
    text = row[name].strip()
    parts = re.split(r"\n[^\S\n]*\n\s*", text) if re.search(r"\n[^\S\n]*\n", text) else text.splitlines()
    return tuple(part.strip() for part in parts if part.strip())
