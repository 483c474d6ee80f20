"""TRL's preference format: {"prompt", "chosen", "rejected"}, texts or lists of messages.

Steps are the lines of a solution that are not blank. `id` (the problem's), `chosen_id`, `rejected_id` and the step
scores (`chosen_scores`, `rejected_scores`, as SPARE's preference data keep them) are columns of our own.
"""

from collections.abc import Mapping
from typing import Any

from spare_jax.formats.fields import IMPORTED, Row, field, optional, prompt
from spare_jax.records import Preference, Problem, RecordError, Solution


def records_of(row: Row, default_id: str) -> tuple[Preference]:
    """The one preference of a row. A system message is passed over: a task has its own instruction.

    Raises:
      RecordError: a field is missing or does not fit, a conversation has more than one turn of the prompt's or the
        answer's role, or there is not one score per step.
    """
    question = _text(row, "prompt", "user")
    problem = Problem(optional(row, "id", str) or default_id, question)
    solutions, scores = {}, {}
    for side in ("chosen", "rejected"):
        solution_id = optional(row, f"{side}_id", str) or f"{problem.id}/{side}"
        steps = tuple(line.strip() for line in _text(row, side, "assistant").split("\n") if line.strip())
        solutions[side] = Solution(solution_id, problem.id, steps, None, IMPORTED)
        scores[side] = optional(row, f"{side}_scores", tuple[float | None, ...]) or ()
        if len(scores[side]) not in (0, len(steps)):
            raise RecordError(f"{side}_scores: {len(scores[side])} scores for {len(steps)} steps")
    return (Preference(problem, solutions["chosen"], solutions["rejected"], scores["chosen"], scores["rejected"]),)


def row_of(record: Preference) -> Row | None:
    """A preference as a row of texts; None where a step is blank or holds a line end, which would cut it in two."""
    if not all(s.strip() and "\n" not in s for s in (*record.chosen.steps, *record.rejected.steps)):
        return None
    row: dict[str, Any] = {
        "id": record.problem.id,
        "prompt": prompt(record.problem),
        "chosen": "\n".join(record.chosen.steps),
        "rejected": "\n".join(record.rejected.steps),
        "chosen_id": record.chosen.id,
        "rejected_id": record.rejected.id,
    }
    if record.chosen_scores or record.rejected_scores:
        row |= {"chosen_scores": record.chosen_scores, "rejected_scores": record.rejected_scores}
    return row


def _text(row: Row, name: str, role: str) -> str:
    if not isinstance(row, Mapping) or not isinstance(row.get(name), list):
        return field(row, name, str)
    contents = []
    for i, message in enumerate(field(row, name, tuple[dict, ...])):
        within = f"{name}[{i}]"
        found, content = field(message, "role", str, within), field(message, "content", str, within)
        if found == role:
            contents.append(content)
        elif found != "system":
            raise RecordError(f"{within}.role: {found[:40]!r} where {role!r} is due")
    if len(contents) != 1:
        raise RecordError(f"{name}: {len(contents)} messages of role {role!r}, expected one")
    return contents[0]
