"""What the tasks of all generated worlds have in common. Their problems and truth come from worlds/."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from spare_jax.tasks.task import Exemplar, Task
from spare_jax.worlds.world import World

INSTRUCTION = "Solve."

_GUIDELINES = """\
You are a teacher who grades a student's solution step by step. You are given numbered sentences of a story [c1], \
[c2], ..., the question [q], the steps of a reference solution [r1], [r2], ... and the student's steps [s1], [s2], ...
For every student step, in order: say what it says of whom and, using the story and the reference, what is right; \
name the story sentences, the student's earlier steps and the reference steps that it rests on; then label it.
{rule}
Answer with a JSON list that has one object per student step, with the keys student_step, explanation, context, \
steps, reference, errors, label, in this order. The label is CORRECT or INCORRECT."""


def generated_task(
    world: World,
    rule: str,
    stated_answer: Callable[[str], str | None],
    exemplars: Callable[[], tuple[Exemplar, ...]],
) -> Task:
    """The task of a world.

    Args:
      rule: when a step is right, and the categories of wrong steps, as text for the guidelines.
      stated_answer: the answer in a step such as "The answer is 12.", None for any other step. A solution's answer is
        that of its last step; two answers are equal if their texts are.
      exemplars: the pool of graded candidates.
    """

    def extract_answer(steps: Sequence[str]) -> str | None:
        return stated_answer(steps[-1]) if steps else None

    def answers_equal(predicted: str | None, golds: Sequence[str]) -> bool:
        return predicted is not None and predicted in golds

    return Task(
        name=world.name,
        instruction=INSTRUCTION,
        guidelines=_GUIDELINES.format(rule=rule),
        error_categories=world.errors,
        extract_answer=extract_answer,
        answers_equal=answers_equal,
        exemplars=exemplars,
        world=world,
    )


def graded_candidates(world: World, count: int, candidates: Mapping[int, Sequence[str]]) -> tuple[Exemplar, ...]:
    """Exemplars of a world, graded by the world: `count` problems of two to four steps, from a split of their own. The
    candidate of problem i is `candidates[i]`, else the reference."""
    middling = dataclasses.replace(world.train, lengths=(2, 3, 4))
    pool = []
    for index, (problem, gold) in enumerate(world.generate(0, "exemplars", count, middling)):
        candidate = tuple(candidates.get(index, gold.steps))
        pool.append(Exemplar(problem.id, problem, gold.steps, candidate, world.truth(problem, gold, candidate)))
    return tuple(pool)
