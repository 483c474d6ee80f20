"""Math-Shepherd (arXiv:2312.08935): {"input", "label", "task"}.

`input` is "<question> Step 1: ... ки\\nStep 2: ... ки", `label` the same text with + or - in place of each tag. The two
are read side by side: a "ки" that `label` has as well is a word of the text, and all other text must be equal. Some
published rows have a tag inside the question by mistake; a tag before "Step 1:" is ignored.
"""

from spare_jax.formats.fields import Row, field, ids_of, judged_by, labelled, optional, prompt
from spare_jax.formats.numbered_steps import marks_first, number_of, numbered, split_question, unnumbered
from spare_jax.records import LabelledSolution, RecordError

JUDGE = "math_shepherd"
TAG = "ки"
TASKS = ("GSM8K", "MATH")


def records_of(row: Row, default_id: str) -> tuple[LabelledSolution]:
    """The one labelled solution of a row. In a row without id, `task` is put before the default id if it is in TASKS.

    Raises:
      RecordError: a field is missing, or `input` and `label` differ in more than the labels.
    """
    texts, labels = _aligned(field(row, "input", str), field(row, "label", str))
    first = next((i for i, text in enumerate(texts) if marks_first(text)), 0)
    if any(number_of(text) not in (None, 1) for text in texts[1 : first + 1]):
        first = 0  # a later step speaks of "Step 1:"
    question, step = split_question("".join(texts[: first + 1]), "input")
    steps = [step, *(unnumbered(text, i) for i, text in enumerate(texts[first + 1 :], 2))]
    task = optional(row, "task", str)
    ids = ids_of(row, f"{task}-{default_id}" if task in TASKS else default_id, 1)[0]
    return (labelled(JUDGE, ids, question, steps, judged_by(labels[first:])),)


def row_of(record: LabelledSolution) -> Row | None:
    """A labelled solution as a row; None where it has no steps, a step without label, or "Step 1:" in the question.

    Blanks around the question and the steps are not kept. `task` is there if the problem's id begins with one of TASKS.
    """
    question = prompt(record.problem)
    if None in record.labels or not record.labels or marks_first(question):
        return None

    def text(tags) -> str:
        steps = (numbered(step, i) for i, step in enumerate(record.solution.steps, 1))
        return f"{question} " + "\n".join(f"{step} {tag}" for step, tag in zip(steps, tags, strict=True))

    row = {
        "id": record.solution.id,
        "input": text([TAG] * len(record.labels)),
        "label": text("+" if label else "-" for label in record.labels),
    }
    task = record.problem.id.partition("-")[0]
    return row | {"task": task} if task in TASKS else row


def _aligned(text: str, labelled_text: str) -> tuple[list[str], list[bool]]:
    """The pieces of `text` before each step tag, and the label in the place of each tag."""
    pieces, labels, at = [[]], [], 0
    for i, piece in enumerate(text.split(TAG)):
        if i:
            if labelled_text.startswith(TAG, at):
                pieces[-1].append(TAG)
                at += len(TAG)
            elif labelled_text[at : at + 1] in ("+", "-"):
                labels.append(labelled_text[at] == "+")
                pieces.append([])
                at += 1
            else:
                character = labelled_text[at : at + 1]
                raise RecordError(f"label: step tag {len(labels) + 1} has {character!r} in its place, not + or -")
        if not labelled_text.startswith(piece, at):
            raise RecordError(f"label: differs from input in the text after {len(labels)} step tags")
        pieces[-1].append(piece)
        at += len(piece)
    if at != len(labelled_text):
        raise RecordError("label: goes on where input ends")
    if not labels:
        raise RecordError(f"input: no step tag {TAG!r}")
    texts = ["".join(parts) for parts in pieces]
    if texts.pop().strip():
        raise RecordError("input: text after the last step tag")
    return texts, labels
