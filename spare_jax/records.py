"""What flows between the stages: frozen records that go to JSON and back.

`Problem` holds nothing that a reference-free method may not see; what must stay hidden from such a
method is in `Gold`. Every annotator, reward model and the world's truth answer with a `Judgement`.
"""

import dataclasses
import functools
import types
import typing
from typing import Any, Self


class RecordError(ValueError):
    """A JSON object does not fit the record it should become; names the field at fault."""


@dataclasses.dataclass(frozen=True)
class Record:
    """Base of all records: `to_json` and `from_json` are inverse to each other."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, one key per field; tuples become lists."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Any) -> Self:
        """Build the record from a decoded JSON object.

        Raises:
          RecordError: `row` is no object, or a field is missing, unknown or of the wrong type.
        """
        if not isinstance(row, dict):
            raise RecordError(f"{cls.__name__}: expected an object, found {type(row).__name__}")
        hints = _hints(cls)
        if unknown := set(row) - set(hints):
            raise RecordError(f"{cls.__name__}: unknown field {min(unknown)!r}; known: {', '.join(hints)}")
        for field in dataclasses.fields(cls):
            if field.name not in row and field.default is dataclasses.MISSING:
                raise RecordError(f"{cls.__name__}: field {field.name!r} is missing")
        return cls(**{name: convert(value, hints[name], f"{cls.__name__}.{name}") for name, value in row.items()})


@dataclasses.dataclass(frozen=True)
class Problem(Record):
    """A question, and the numbered context sentences that it rests on (empty where the question says all)."""

    id: str
    question: str
    context: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Gold(Record):
    """What is known of a problem's solution: accepted answers, reference steps, and a world's own facts."""

    problem_id: str
    answers: tuple[str, ...]
    steps: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Solution(Record):
    """One candidate solution, with the token ids that were sampled.

    `spans[i]` is the half-open range of `token_ids` that holds step i; `tokenizer` is the digest of the
    tokenizer the ids belong to. `mean_logprob` is the policy's mean log-probability per sampled token, in nats.
    """

    id: str
    problem_id: str
    steps: tuple[str, ...]
    answer: str | None
    finish_reason: str
    token_ids: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    tokenizer: str = ""
    mean_logprob: float | None = None
    prompt_tokens: int = 0


@dataclasses.dataclass(frozen=True)
class StepJudgement(Record):
    """What a judge says of one step. Ids are 1-based, as the judge's prompt numbers them.

    `label` is True for correct, False for incorrect, None for unknown; `score` is a probability of being correct.
    `missed` says that the judge's text was read and has no record of the step; a policy may have chosen the label.
    """

    label: bool | None = None
    score: float | None = None
    explanation: str = ""
    context: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    reference: tuple[int, ...] = ()
    errors: tuple[str, ...] = ()
    missed: bool = False


@dataclasses.dataclass(frozen=True)
class Judgement(Record):
    """A judge's answer on one solution.

    `steps` has one entry per step of the solution, or none where the judge looks at the outcome alone.
    `outcome` is the judge's verdict on the final answer, `outcome_score` a probability of its being correct. `surplus`
    counts records about steps that do not exist; `parsed` is False where the judge's text held no readable record at
    all. `failure` says why the solution was not judged: the judge could not be asked, or what it wrote was cut off or
    could not be read. Then there is no label, no score and no outcome: what failed is missing, never a judge's word.
    """

    solution_id: str
    judge: str
    steps: tuple[StepJudgement, ...] = ()
    outcome: bool | None = None
    text: str = ""
    parsed: bool = True
    surplus: int = 0
    exemplars_dropped: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    failure: str = ""
    outcome_score: float | None = None

    def __post_init__(self):
        """Raises RecordError where a failure comes with a label or a score."""
        said = (self.outcome, self.outcome_score, *(word for step in self.steps for word in (step.label, step.score)))
        if self.failure and any(word is not None for word in said):
            raise RecordError(
                f"judge {self.judge!r} failed on solution {self.solution_id!r} ({self.failure}) and labels it: what "
                "failed has no label and no score"
            )

    @property
    def id(self) -> str:
        """Of one judgement among several of a solution: the solution's id and the judge."""
        return f"{self.solution_id}/{self.judge}"

    @property
    def first_error(self) -> int | None:
        """Index of the first step labelled incorrect, None where there is none."""
        return next((i for i, step in enumerate(self.steps) if step.label is False), None)


UNDECIDED = "the comparison of its answer with the accepted one came to no verdict"


def not_judged(
    solution: Solution, judge: str, failure: str, text: str = "", prompt_tokens: int = 0, generated_tokens: int = 0
) -> Judgement:
    """The judgement of a judge that failed: nothing is known of any step. `text` is what it wrote all the same, and
    the tokens are what that took."""
    return Judgement(
        solution.id,
        judge,
        (StepJudgement(),) * len(solution.steps),
        text=text,
        parsed=False,
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        failure=failure,
    )


@dataclasses.dataclass(frozen=True)
class Case(Record):
    """What a judge is asked about: a solution, its problem, and what may be known of that; `gold` is None where nobody
    knows, or is not to be told."""

    problem: Problem
    solution: Solution
    gold: Gold | None = None

    def gold_for(self, judge: str) -> Gold:
        """The gold, for a judge that cannot do without it. Raises ValueError where there is none."""
        if self.gold is None:
            raise ValueError(
                f"judge {judge}: it compares with the reference, and none is known of problem {self.problem.id!r}: "
                "give one, or choose a judge that needs none (verify, reward_model)"
            )
        return self.gold


@dataclasses.dataclass(frozen=True)
class LabelledSolution(Record):
    """A solution and what a judge says of its steps: what reward models train on, and what files of labels hold.

    `gold` is what the file knows of the answer; the pipeline's own examples leave it out.
    """

    problem: Problem
    solution: Solution
    judgement: Judgement
    gold: Gold | None = None

    def __post_init__(self):
        """Raises RecordError where there is not one judged step per step of the solution."""
        if len(self.judgement.steps) != len(self.solution.steps):
            raise RecordError(
                f"solution {self.solution.id!r} has {len(self.solution.steps)} steps and judge "
                f"{self.judgement.judge!r} labelled {len(self.judgement.steps)}: the judgements are of other "
                "solutions, judge these anew"
            )

    @property
    def case(self) -> Case:
        """The same without what the judge says."""
        return Case(self.problem, self.solution, self.gold)

    @property
    def labels(self) -> tuple[bool | None, ...]:
        """One per step; None where it is unknown, which is masked in training."""
        return tuple(step.label for step in self.judgement.steps)

    @property
    def soft_labels(self) -> tuple[float | None, ...]:
        """One probability of "correct" per step: the judge's score, its label where it gave no score (Math-Shepherd's
        soft estimation, arXiv 2312.08935, section 3.3). A step without label is masked here too, scored or not."""
        return tuple(
            None if step.label is None else float(step.label) if step.score is None else step.score
            for step in self.judgement.steps
        )


@dataclasses.dataclass(frozen=True)
class Preference(Record):
    """Two solutions of a problem, the better one first; scores per step where there are any.

    The first `shared_steps` steps are the same in both and stand with the prompt: what is preferred is what follows
    them. Two whole solutions share none in this sense, however they begin.
    """

    problem: Problem
    chosen: Solution
    rejected: Solution
    chosen_scores: tuple[float | None, ...] = ()
    rejected_scores: tuple[float | None, ...] = ()
    shared_steps: int = 0

    def __post_init__(self):
        """Raises RecordError where the two do not begin with that many equal steps."""
        shared = self.chosen.steps[: max(0, self.shared_steps)]
        if len(shared) != self.shared_steps or self.rejected.steps[: len(shared)] != shared:
            raise RecordError(
                f"Preference.shared_steps: {self.shared_steps}, and solutions {self.chosen.id!r} and "
                f"{self.rejected.id!r} do not begin with that many equal steps"
            )

    @property
    def id(self) -> str:
        """The ids of both solutions, the chosen one's first."""
        return f"{self.chosen.id} > {self.rejected.id}"


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint` asks for; only the JSON-shaped types that records use are known.

    Raises:
      RecordError: it does not fit; begins with `where`.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return convert(value, next(a for a in args if a is not type(None)), where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise RecordError(f"{where}: expected a list, found {type(value).__name__}")
        if args[-1] is Ellipsis:
            return tuple(convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise RecordError(f"{where}: expected {len(args)} items, found {len(value)}")
        return tuple(convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))
    if isinstance(hint, type) and issubclass(hint, Record):
        try:
            return hint.from_json(value)
        except RecordError as error:
            raise RecordError(f"{where}: {error}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise RecordError(f"{where}: a number of {len(str(value))} digits is out of range") from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise RecordError(f"{where}: expected {hint.__name__}, found {type(value).__name__}")
    return value
