"""The arithmetic world as a task: problems and truth come from worlds/arithmetic.py."""

import dataclasses
from collections.abc import Sequence

from spare_jax.records import StepJudgement
from spare_jax.tasks.task import Exemplar, Task
from spare_jax.worlds import arithmetic
from spare_jax.worlds.arithmetic_judge import ERRORS, judge, stated_answer

INSTRUCTION = "Solve."

BRIEF_GUIDELINES = "Grade each step."
"""What tiny-teacher was trained with: it knows the rest."""

GUIDELINES = """\
You are a teacher who grades a student's solution step by step. You are given numbered sentences of a story [c1], \
[c2], ..., the question [q], the steps of a reference solution [r1], [r2], ... and the student's steps [s1], [s2], ...
For every student step, in order: work out what a right step would have computed, using the story and the reference; \
name the story sentences, the student's earlier steps and the reference steps that it rests on; then label it.
A step is CORRECT if it follows from the story and from earlier correct steps, even if the reference goes another way, \
merges or splits steps, or does not need it. Operands may stand in any order. A step is INCORRECT if its arithmetic is \
off (NUMERIC), an operand has the wrong value (OPERAND), the story does not tell the relation it uses \
(COMPREHENSION), it uses a count that nothing has established (PREMISE), it builds on an earlier error (PROPAGATED), \
it states the wrong final answer (ANSWER), or it states no value (FORMAT).
Answer with a JSON list that has one object per student step, with the keys student_step, explanation, context, \
steps, reference, errors, label, in this order. The label is CORRECT or INCORRECT."""


def extract_answer(steps: Sequence[str]) -> str | None:
    """The number of the last step if that is an answer step ("The answer is 12."), else None."""
    return stated_answer(steps[-1]) if steps else None


def answers_equal(predicted: str | None, golds: Sequence[str]) -> bool:
    """Whole numbers are equal or not; there is one gold answer."""
    return predicted is not None and predicted in golds


def step_truth(problem, gold, steps: Sequence[str]) -> tuple[StepJudgement, ...]:
    """The world's verdicts on `steps` as the records that a perfect annotator would write."""
    return tuple(
        StepJudgement(
            label=verdict.correct,
            explanation=verdict.explanation,
            context=verdict.context,
            steps=verdict.steps,
            reference=verdict.reference,
            errors=(verdict.error,) if verdict.error else (),
        )
        for verdict in judge(problem, gold, tuple(steps))
    )


def exemplars() -> tuple[Exemplar, ...]:
    """Twelve graded candidates on problems of a split of their own; every other one has a wrong step.

    The wrong candidates were written by hand against the problems that seed 0 draws: `_SLIPS` says which step says
    what instead. The judgements are the world's own.
    """
    short = dataclasses.replace(arithmetic.TRAIN, lengths=(2, 3, 4))
    pool = []
    for index, (problem, gold) in enumerate(arithmetic.generate(0, "exemplars", 12, short)):
        candidate = list(gold.steps)
        if index % 2:
            old, new = _SLIPS[index // 2]
            at = old % len(candidate)
            candidate[at] = new(candidate[at])
        pool.append(Exemplar(problem.id, problem, gold.steps, tuple(candidate), step_truth(problem, gold, candidate)))
    return tuple(pool)


def _result_off_by(amount: int):
    """The same step with another number at its end."""

    def slip(step: str) -> str:
        head, _, value = step.rstrip(".").rpartition(" ")
        return f"{head} {int(value) + amount}."

    return slip


_SLIPS = (
    (0, _result_off_by(10)),
    (1, _result_off_by(1)),
    (-1, _result_off_by(2)),
    (1, _result_off_by(10)),
    (0, _result_off_by(3)),
    (-1, _result_off_by(20)),
)

TASK = Task(
    name="arithmetic",
    instruction=INSTRUCTION,
    guidelines=GUIDELINES,
    error_categories=ERRORS,
    extract_answer=extract_answer,
    answers_equal=answers_equal,
    exemplars=exemplars,
)
