"""RLHFlow's process data: {"conversations": [{"role", "content"}]}, a step per user turn, "+" or "-" after each.

The first turn is "<question> <first step>". The question ends at "Step 1:" (the Mistral data number their steps), else
at the last question mark; a row with neither is malformed. Some files name the column `messages`.
"""

from spare_jax.formats.fields import Row, field, ids_of, judged_by, labelled, optional, prompt
from spare_jax.formats.numbered_steps import marks_first, numbered, split_question, unnumbered
from spare_jax.records import LabelledSolution, RecordError

JUDGE = "rlhflow"


def records_of(row: Row, default_id: str) -> tuple[LabelledSolution]:
    """The one labelled solution of a row.

    Raises:
      RecordError: a field is missing, the turns do not alternate, or an answer is neither "+" nor "-".
    """
    name = "conversations" if optional(row, "messages", tuple[dict, ...]) is None else "messages"
    turns = field(row, name, tuple[dict, ...])
    if not turns or len(turns) % 2:
        raise RecordError(f"{name}: {len(turns)} turns are no pairs of step and label")
    texts, labels = [], []
    for i, turn in enumerate(turns):
        within, expected = f"{name}[{i}]", ("user", "assistant")[i % 2]
        role, content = field(turn, "role", str, within), field(turn, "content", str, within)
        if role != expected:
            raise RecordError(f"{within}.role: {role[:40]!r} where {expected!r} is due")
        if role == "user":
            texts.append(content)
        elif content.strip() in ("+", "-"):
            labels.append(content.strip() == "+")
        else:
            raise RecordError(f"{within}.content: {content[:40]!r} is neither '+' nor '-'")
    question, first = split_question(texts[0], f"{name}[0].content")
    steps = [first, *(unnumbered(text, i) for i, text in enumerate(texts[1:], 2))]
    return (labelled(JUDGE, ids_of(row, default_id, 1)[0], question, steps, judged_by(labels)),)


def row_of(record: LabelledSolution) -> Row | None:
    """A labelled solution as a row; None where it has no steps, a step without label, or "Step 1:" in the question.

    Blanks around the question and the steps are not kept.
    """
    question = prompt(record.problem)
    if None in record.labels or not record.labels or marks_first(question):
        return None
    turns = []
    for i, (step, label) in enumerate(zip(record.solution.steps, record.labels, strict=True), 1):
        text = numbered(step, i) if i > 1 else f"{question} {numbered(step, i)}"
        turns += [{"role": "user", "content": text}, {"role": "assistant", "content": "+" if label else "-"}]
    return {"id": record.solution.id, "conversations": turns}
