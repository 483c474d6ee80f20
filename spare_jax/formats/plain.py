"""Unlabelled solutions for a judge: {"id", "question", "solution"}, and "reference" and "context" where there are any.

Solution, reference and context are a list (of steps, of sentences) or one text. A text is cut at its blank lines; if it
has none, at its line ends; if it is one line, into sentences. But it is cut only where a step can end (steps/split.py):
not before displayed mathematics, nor inside code.
"""

import itertools
import re

from spare_jax.formats.fields import Row, field, ids_of, judged_by, labelled
from spare_jax.records import LabelledSolution
from spare_jax.steps.lines import cut_behind, split_lines
from spare_jax.steps.split import split_steps

JUDGE = "plain"

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


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
    """A solution as a row, without its labels."""
    row = {"id": record.solution.id, "question": record.problem.question, "solution": record.solution.steps}
    row |= {"context": record.problem.context} if record.problem.context else {}
    return row | ({"reference": record.gold.steps} if record.gold and record.gold.steps else {})


def _steps(row: Row, name: str) -> tuple[str, ...]:
    if not isinstance(row.get(name), str):
        return field(row, name, tuple[str, ...])
    text = row[name].strip()
    pieces = split_steps(text)
    if "\n" not in text:
        return tuple(piece.strip() for piece in pieces)
    ends = set(itertools.accumulate(map(len, pieces)))
    steps, start, at = [], 0, 0
    for part in cut_behind(_BLANK_LINE, text) if _BLANK_LINE.search(text) else split_lines(text):
        at += len(part)
        if at in ends:
            steps.append(text[start:at].strip())
            start = at
    return tuple(steps)
