"""TRL's preference format: {"prompt", "chosen", "rejected"}, texts or lists of messages.

Steps are the lines of a solution that are not blank. Further columns are this package's: `id` (the problem's),
`chosen_id`, `rejected_id`; `chosen_scores` and `rejected_scores`, one per step, as in SPARE's preference data; and
`shared_steps`: so many steps with which both solutions begin are the last lines of the prompt and not repeated in
`chosen` and `rejected` (but have scores there).
"""

from collections.abc import Mapping
from typing import Any

from spare_jax.formats.fields import IMPORTED, Row, field, id_in, optional, prompt
from spare_jax.records import Preference, Problem, RecordError, Solution


def records_of(row: Row, default_id: str) -> tuple[Preference]:
    """The one preference of a row. System messages are ignored: a task has its own instruction.

    Raises:
      RecordError: a field is missing or does not fit, a list of messages has not exactly one of the role that is due,
        the prompt has fewer lines than shared steps, or there is not one score per step.
    """
    question, shared = _cut(_text(row, "prompt", "user"), optional(row, "shared_steps", int) or 0)
    problem = Problem(id_in(row, "id") or default_id, question)
    solutions, scores = {}, {}
    for side in ("chosen", "rejected"):
        solution_id = id_in(row, f"{side}_id") or f"{problem.id}/{side}"
        own = (line.strip() for line in _text(row, side, "assistant").split("\n") if line.strip())
        steps = (*shared, *own)
        solutions[side] = Solution(solution_id, problem.id, steps, None, IMPORTED)
        scores[side] = optional(row, f"{side}_scores", tuple[float | None, ...]) or ()
        if len(scores[side]) not in (0, len(steps)):
            raise RecordError(f"{side}_scores: {len(scores[side])} scores for {len(steps)} steps")
    chosen, rejected = solutions["chosen"], solutions["rejected"]
    return (Preference(problem, chosen, rejected, scores["chosen"], scores["rejected"], len(shared)),)


def row_of(record: Preference) -> Row | None:
    """A preference as a row of texts; None where a step is blank or holds a line end and would be read as two steps."""
    if not all(s.strip() and "\n" not in s for s in (*record.chosen.steps, *record.rejected.steps)):
        return None
    shared = record.shared_steps
    row: dict[str, Any] = {
        "id": record.problem.id,
        "prompt": "\n".join((prompt(record.problem), *record.chosen.steps[:shared])),
        "chosen": "\n".join(record.chosen.steps[shared:]),
        "rejected": "\n".join(record.rejected.steps[shared:]),
        "chosen_id": record.chosen.id,
        "rejected_id": record.rejected.id,
    }
    if record.chosen_scores or record.rejected_scores:
        row |= {"chosen_scores": record.chosen_scores, "rejected_scores": record.rejected_scores}
    if shared:
        row["shared_steps"] = shared
    return row


def _cut(prompt_text: str, shared_steps: int) -> tuple[str, tuple[str, ...]]:
    """A prompt as the question and the `shared_steps` steps that are its last lines."""
    lines = prompt_text.split("\n")
    if not 0 <= shared_steps < len(lines):
        raise RecordError(f"shared_steps: {shared_steps} for a prompt of {len(lines)} lines, one or more a question's")
    end = len(lines) - shared_steps
    return "\n".join(lines[:end]), tuple(line.strip() for line in lines[end:])


def _text(row: Row, name: str, role: str) -> str:
    if not isinstance(row, Mapping) or not isinstance(row.get(name), list):
        return field(row, name, str)
    contents = []
    for i, message in enumerate(field(row, name, tuple[dict, ...])):
        within = f"{name}[{i}]"
        sender, content = field(message, "role", str, within), field(message, "content", str, within)
        if sender == role:
            contents.append(content)
        elif sender != "system":
            raise RecordError(f"{within}.role: {sender[:40]!r} where {role!r} is due")
    if len(contents) != 1:
        raise RecordError(f"{name}: {len(contents)} messages of role {role!r}, expected one")
    return contents[0]
