"""PRMBench (arXiv:2501.03124): right solutions that were changed, step by step, to hold one class of error.

What the benchmark grades is read: `modified_question`, `modified_process` and its `error_steps` (numbers from 1), with
`original_process` as reference. The numbers "1. ", "2. " before steps are removed on reading and added on writing.
"""

import re

from spare_jax.formats.fields import Row, field, id_in, labelled, name_of, named_ids, optional, prompt
from spare_jax.records import LabelledSolution, RecordError, StepJudgement

JUDGE = "prmbench"

_NUMBER = re.compile(r"(\d+)\. ")


def records_of(row: Row, default_id: str) -> tuple[LabelledSolution]:
    """The one labelled solution of a row; its id is "<idx>/<classification>", the problem's "<idx>".

    `classification` is the category of error of the wrong steps, `reason` the judgement's text.

    Raises:
      RecordError: a field is missing or does not fit, or `error_steps` names no step.
    """
    steps = _unnumbered(field(row, "modified_process", tuple[str, ...]))
    wrong = set(field(row, "error_steps", tuple[int, ...]))
    if strange := [number for number in wrong if not 1 <= number <= len(steps)]:
        raise RecordError(f"error_steps: {min(strange)} is none of {len(steps)} steps")
    classification = optional(row, "classification", str) or ""
    error = StepJudgement(label=False, errors=(classification,))
    judged = [error if i in wrong else StepJudgement(label=True) for i in range(1, len(steps) + 1)]
    ids = named_ids(id_in(row, "idx") or default_id, classification)
    question, reference = field(row, "modified_question", str), field(row, "original_process", tuple[str, ...])
    text = optional(row, "reason", str) or ""
    return (labelled(JUDGE, ids, question, steps, judged, reference=_unnumbered(reference), text=text),)


def row_of(record: LabelledSolution) -> Row | None:
    """A labelled solution as a row; None where a step has no label or there is no reference.

    The one question is written as the original and as the modified one, the wrong steps as `modified_steps` too.
    `classification` is the part of the solution's id behind the problem's.
    """
    if None in record.labels or record.gold is None:
        return None
    question = prompt(record.problem)
    wrong = [i for i, label in enumerate(record.labels, 1) if not label]
    return {
        "idx": record.problem.id,
        "classification": name_of(record),
        "question": question,
        "original_question": question,
        "modified_question": question,
        "original_process": _numbered(record.gold.steps),
        "modified_process": _numbered(record.solution.steps),
        "modified_steps": wrong,
        "error_steps": wrong,
        "reason": record.judgement.text,
    }


def _numbered(steps: tuple[str, ...]) -> list[str]:
    return [f"{i}. {step}" for i, step in enumerate(steps, 1)]


def _unnumbered(steps: tuple[str, ...]) -> tuple[str, ...]:
    matches = [_NUMBER.match(step) for step in steps]
    return tuple(
        step[match.end() :] if match and match[1] == str(i) else step
        for i, (step, match) in enumerate(zip(steps, matches, strict=True), 1)
    )
