"""Fields of rows in other people's files, checked as they are read; and what the formats have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from spare_jax.records import Gold, Judgement, LabelledSolution, Problem, RecordError, Solution, StepJudgement, convert

Row = Mapping[str, Any]
Ids = tuple[str, str]  # of a problem and of a solution of it
T = TypeVar("T")

IMPORTED = "imported"  # the `finish_reason` of a solution from a file


def field(row: Any, name: str, hint: type[T], within: str = "") -> T:
    """The value of `row[name]` as the type `hint`; lists become tuples.

    Args:
      within: where in the file's row `row` stands, for messages: "label.steps[3]".

    Raises:
      RecordError: `row` is no object, or the field is missing or of another type.
    """
    where = f"{within}.{name}" if within else name
    if not isinstance(row, Mapping):
        raise RecordError(f"{within or 'row'}: expected an object, found {type(row).__name__}")
    if name not in row:
        raise RecordError(f"field {where!r} is missing")
    return convert(row[name], hint, where)


def optional(row: Any, name: str, hint: type[T], within: str = "") -> T | None:
    """As `field`, but None where the field is missing or null (Arrow tables hold null for what is missing)."""
    if isinstance(row, Mapping) and row.get(name) is None:
        return None
    return field(row, name, hint, within)


def id_in(row: Row, name: str) -> str | None:
    """The id `row[name]`, a text or a whole number; None where it is missing, null or empty."""
    value = row.get(name) if isinstance(row, Mapping) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return optional(row, name, str) or None


def ids_of(row: Row, default: str, count: int) -> list[Ids]:
    """Ids of the `count` solutions of a row, for formats without ids: the problem's is `default`, and the solutions'
    are "<default>/0", "<default>/1", ...

    Rows that this package wrote have an `id`, the solution's: then the problem's is the part before the last "/", and
    further solutions are "<id>/1", "<id>/2", ...
    """
    own = id_in(row, "id")
    if not own:
        return [(default, f"{default}/{k}") for k in range(count)]
    problem_id = own.rpartition("/")[0] or own
    return [(problem_id, own), *((problem_id, f"{own}/{k}") for k in range(1, count))]


def named_ids(problem_id: str, name: str | None) -> Ids:
    """Ids of a problem and of its solution, "<problem_id>/<name>"; without a name both are the same."""
    return problem_id, f"{problem_id}/{name}" if name else problem_id


def name_of(record: LabelledSolution) -> str:
    """The part of the solution's id behind the problem's: the inverse of `named_ids`."""
    return record.solution.id.removeprefix(record.problem.id).removeprefix("/")


def labelled(
    judge: str,
    ids: Ids,
    question: str,
    steps: Sequence[str],
    judged: Sequence[StepJudgement],
    *,
    answers: Sequence[str] = (),
    reference: Sequence[str] = (),
    context: Sequence[str] = (),
    outcome: bool | None = None,
    text: str = "",
    finish_reason: str = IMPORTED,
) -> LabelledSolution:
    """One labelled solution from the parts of a row; its `gold` is None where there is neither answer nor reference."""
    problem_id, solution_id = ids
    return LabelledSolution(
        Problem(problem_id, question, tuple(context)),
        Solution(solution_id, problem_id, tuple(steps), None, finish_reason),
        Judgement(solution_id, judge, tuple(judged), outcome, text),
        Gold(problem_id, tuple(answers), tuple(reference)) if answers or reference else None,
    )


def judged_by(labels: Sequence[bool | None]) -> tuple[StepJudgement, ...]:
    """Step judgements that hold a label and nothing else."""
    return tuple(StepJudgement(label=label) for label in labels)


def prompt(problem: Problem) -> str:
    """The problem as one text: its context sentences and the question, each on a line."""
    return "\n".join((*problem.context, problem.question))
