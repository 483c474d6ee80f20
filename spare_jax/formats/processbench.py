"""ProcessBench (arXiv:2412.06559): {"id", "generator", "problem", "steps", "final_answer_correct", "label"}.

`label` is the index of the first wrong step, -1 where there is none. Labelling stopped there, so later steps have no
label. `final_answer_correct` is the outcome; a right answer may follow a wrong step. Some copies add a
`reference_solution`, a text with a step per line.
"""

from spare_jax.formats.fields import Row, field, id_in, judged_by, labelled, name_of, named_ids, optional, prompt
from spare_jax.records import LabelledSolution, RecordError
from spare_jax.steps.lines import line_steps

JUDGE = "processbench"


def records_of(row: Row, default_id: str) -> tuple[LabelledSolution]:
    """The one labelled solution of a row; its id is "<id>/<generator>", the problem's "<id>".

    Raises:
      RecordError: a field is missing or does not fit, or `label` is no step.
    """
    question, steps = field(row, "problem", str), field(row, "steps", tuple[str, ...])
    outcome, first_error = field(row, "final_answer_correct", bool), field(row, "label", int)
    if not -1 <= first_error < len(steps):
        raise RecordError(f"label: {first_error} is neither -1 nor one of {len(steps)} steps")
    right = len(steps) if first_error == -1 else first_error
    labels = [True] * right + [False, *[None] * len(steps)][: len(steps) - right]
    ids = named_ids(id_in(row, "id") or default_id, optional(row, "generator", str))
    reference = line_steps(optional(row, "reference_solution", str) or "")
    return (labelled(JUDGE, ids, question, steps, judged_by(labels), reference=reference, outcome=outcome),)


def row_of(record: LabelledSolution) -> Row | None:
    """A labelled solution as a row; None where its outcome, or the label of a step up to the first error, is unknown.

    `generator` is the part of the solution's id behind the problem's. Labels after the first error are not kept.
    """
    first_error = record.judgement.first_error
    if None in record.labels[:first_error] or record.judgement.outcome is None:
        return None
    reference = {"reference_solution": "\n".join(record.gold.steps)} if record.gold and record.gold.steps else {}
    return reference | {
        "id": record.problem.id,
        "generator": name_of(record),
        "problem": prompt(record.problem),
        "steps": record.solution.steps,
        "final_answer_correct": record.judgement.outcome,
        "label": -1 if first_error is None else first_error,
    }
