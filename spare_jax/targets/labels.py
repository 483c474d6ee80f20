"""From what an annotator wrote to training labels: the policies of SPARE (arXiv 2506.15498), each a switch.

The annotator's text stays in its Judgement, so labels can be made anew under another policy without asking again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spare_jax.prompts.annotate import ParsedAnnotation, parse
from spare_jax.records import Gold, Judgement, LabelledSolution, Problem, Solution, StepJudgement

if TYPE_CHECKING:
    from spare_jax.tasks.task import Task

MISSED = ("incorrect", "outcome", "unknown")
REFERENCE = "/reference"


@dataclass(frozen=True)
class LabelPolicy:
    """How a label is chosen where the annotator's word is missing or outranked.

    All of them speak of an annotation that was read; what failed has no label under any policy.

    `missed`: the label of a step without a record: "incorrect", the "outcome" of the solution, or "unknown" (masked).
    `unknown_is_incorrect`: a record whose label is neither of the two words counts as incorrect; else it is masked.
    `last_step_is_outcome`: the last step's label is the solution's outcome, whatever the annotator said.
    `reference_as_sample`: the reference joins the training examples of its problem, all correct. Whether the paper
    did this is not published, hence off.
    """

    missed: str = "incorrect"
    unknown_is_incorrect: bool = True
    last_step_is_outcome: bool = True
    reference_as_sample: bool = False

    def __post_init__(self):
        if self.missed not in MISSED:
            raise ValueError(f"policy for missed steps is {self.missed!r}: set it to one of {', '.join(MISSED)}")


@dataclass(frozen=True)
class LabelCounts:
    """What the policy had to do on one solution, or on many (`+` adds counts up).

    `steps` in all; `missed` without a record; `unknown` with a record without a usable label; `overwritten` last steps
    whose label the outcome changed; `surplus` records about no step, `duplicates` second ones about the same. `failed`
    solutions were not judged: no policy speaks of them, and none of their steps is counted.
    """

    solutions: int = 0
    steps: int = 0
    missed: int = 0
    unknown: int = 0
    overwritten: int = 0
    surplus: int = 0
    duplicates: int = 0
    failed: int = 0

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        return LabelCounts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def label_steps(
    annotation: ParsedAnnotation, n_steps: int, outcome: bool | None, policy: LabelPolicy
) -> tuple[tuple[StepJudgement, ...], LabelCounts]:
    """One labelled entry per step, and what was counted on the way. An `outcome` of None overwrites nothing."""
    by_policy = {"incorrect": False, "outcome": outcome, "unknown": None}[policy.missed]
    steps = []
    for number in range(1, n_steps + 1):
        step = annotation.records.get(number, StepJudgement(label=by_policy, missed=True))
        if step.label is None and not step.missed and policy.unknown_is_incorrect:
            step = replace(step, label=False)
        steps.append(step)
    overwritten = 0
    if steps and policy.last_step_is_outcome and outcome is not None:
        overwritten = int(steps[-1].label is not outcome)
        steps[-1] = replace(steps[-1], label=outcome)
    counts = LabelCounts(
        solutions=1,
        steps=n_steps,
        missed=sum(step.missed for step in steps),
        unknown=sum(record.label is None for record in annotation.records.values()),
        overwritten=overwritten,
        surplus=annotation.surplus,
        duplicates=annotation.duplicates,
    )
    return tuple(steps), counts


def relabel(judgement: Judgement, policy: LabelPolicy) -> tuple[Judgement, LabelCounts]:
    """The labels that SPARE's `judgement` has under `policy`, from the annotator's text that it keeps; one that failed
    stays as it is."""
    if judgement.failure:
        return judgement, LabelCounts(solutions=1, failed=1)
    annotation = parse(judgement.text, len(judgement.steps))
    steps, counts = label_steps(annotation, len(judgement.steps), judgement.outcome, policy)
    steps = tuple(replace(step, score=was.score) for step, was in zip(steps, judgement.steps, strict=True))
    return replace(judgement, steps=steps), counts


def training_examples(
    task: "Task",
    problems: Mapping[str, Problem],
    solutions: Iterable[Solution],
    judgements: Mapping[str, Judgement],
    golds: Mapping[str, Gold],
    policy: LabelPolicy,
) -> Iterator[LabelledSolution]:
    """Solutions with their labels, for TRAINING alone: with `reference_as_sample` they hold each problem's reference.

    Where the policy outranks the judge's word on a step its score goes too, so that labels and soft labels agree there.
    A solution that was not judged is left out.

    Args:
      problems, golds: by problem id.
      judgements: of every solution, by its id, labelled under the policy already.

    Raises:
      ValueError: a judgement has another number of labels than its solution has steps, or a solution has none.
    """
    with_reference: set[str] = set()
    for solution in solutions:
        if solution.id not in judgements:
            raise ValueError(
                f"solution {solution.id!r} was not put to the judge whose labels are to train: name one that was asked "
                "about all of them, as config.prm.labels='spare'"
            )
        problem_id, judgement = solution.problem_id, judgements[solution.id]
        if not judgement.failure:
            yield LabelledSolution(problems[problem_id], solution, _without_outranked(judgement, policy))
        if policy.reference_as_sample and problem_id not in with_reference:
            with_reference.add(problem_id)
            if (gold := golds.get(problem_id)) and gold.steps:
                reference = reference_solution(task, gold)
                all_correct = (StepJudgement(label=True),) * len(reference.steps)
                said = Judgement(reference.id, "reference", all_correct, outcome=True)
                yield LabelledSolution(problems[problem_id], reference, said)


def _without_outranked(judgement: Judgement, policy: LabelPolicy) -> Judgement:
    """The judgement without the score of a last step whose label is the outcome."""
    if not (judgement.steps and policy.last_step_is_outcome and judgement.outcome is not None):
        return judgement
    return replace(judgement, steps=(*judgement.steps[:-1], replace(judgement.steps[-1], score=None)))


def reference_solution(task: "Task", gold: Gold) -> Solution:
    """The reference in the form of a solution; its id ends in "/reference" and it holds no sampled ids."""
    return Solution(
        id=gold.problem_id + REFERENCE,
        problem_id=gold.problem_id,
        steps=gold.steps,
        answer=task.extract_answer(gold.steps),
        finish_reason="reference",
    )


def check_pool(solutions: Iterable[Solution]) -> None:
    """Guard of an evaluation pool: no solution to be ranked or judged may be a reference.

    Raises:
      ValueError: one is.
    """
    for solution in solutions:
        if solution.id.endswith(REFERENCE) or solution.finish_reason == "reference":
            raise ValueError(
                f"solution {solution.id!r} is a reference and stands in an evaluation pool: references are added "
                "by training_examples alone, take it out of solutions.jsonl"
            )
