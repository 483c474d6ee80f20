"""From an annotation to training labels: the choices that SPARE (arXiv 2506.15498) leaves open, each a setting.

The annotator's text stays in the Judgement, so labels can be made again under another policy without asking it again.
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
    """How a label is chosen where the annotator gave none, or the outcome replaces it. A solution that was not judged
    has no labels under any policy.

    `missed`: the label of a step that the annotation left out: "incorrect", the "outcome" of the solution, or "unknown"
    (masked). `unknown_is_incorrect`: a label that is neither CORRECT nor INCORRECT counts as incorrect; otherwise it is
    masked. `last_step_is_outcome`: the last step's label is the solution's outcome, whatever the annotator wrote.
    `reference_as_sample`: the reference, all correct, joins the training examples of its problem; off, since it is not
    published whether the paper did so.
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
    """How often the policy chose a label, on one solution or on several (`+` adds counts).

    `solutions`, of which `failed` were not judged and count nowhere else; `steps`; `missed`: steps that the annotation
    left out; `unknown`: steps whose label is neither word; `overwritten`: last steps whose label the outcome changed;
    `surplus`: entries about steps that do not exist; `duplicates`: second entries about a step.
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
    """The labels of an annotation under a policy, one entry per step, and the counts. An `outcome` of None replaces no
    label."""
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
    """A judgement of SPARE's with its labels under `policy`, made from its text, and the counts. A failed judgement is
    returned as it is."""
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
    """Solutions with their labels, for training alone: with `reference_as_sample` each problem's reference is among
    them. A last step whose label is the outcome loses the judge's score, so that its soft label is the outcome too. A
    solution that was not judged is left out.

    Args:
      problems, golds: by problem id.
      judgements: by solution id, one of every solution, labelled under the policy already.

    Raises:
      RecordError: a judgement has another number of labels than its solution has steps.
      ValueError: a solution has no judgement.
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
                judgement_of_reference = Judgement(reference.id, "reference", all_correct, outcome=True)
                yield LabelledSolution(problems[problem_id], reference, judgement_of_reference)


def _without_outranked(judgement: Judgement, policy: LabelPolicy) -> Judgement:
    """The judgement without the score of a last step whose label is the outcome."""
    if not (judgement.steps and policy.last_step_is_outcome and judgement.outcome is not None):
        return judgement
    return replace(judgement, steps=(*judgement.steps[:-1], replace(judgement.steps[-1], score=None)))


def reference_solution(task: "Task", gold: Gold) -> Solution:
    """The reference as a solution; its id ends in "/reference", and it has no sampled ids."""
    return Solution(
        id=gold.problem_id + REFERENCE,
        problem_id=gold.problem_id,
        steps=gold.steps,
        answer=task.extract_answer(gold.steps),
        finish_reason="reference",
    )


def check_pool(solutions: Iterable[Solution]) -> None:
    """Raise ValueError if one of the solutions that are to be evaluated is a reference."""
    for solution in solutions:
        if solution.id.endswith(REFERENCE) or solution.finish_reason == "reference":
            raise ValueError(
                f"solution {solution.id!r} is a reference and stands in an evaluation pool: references are added "
                "by training_examples alone, take it out of solutions.jsonl"
            )
