"""What every room needs to know of a data set: its texts, its steps, its answers, its exemplars.

A task is a value, made by the module that is named after it.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

from spare_jax.records import Problem, StepJudgement
from spare_jax.steps.lines import split_lines, split_sentences
from spare_jax.worlds.world import World


@dataclasses.dataclass(frozen=True)
class Exemplar:
    """A candidate solution that was graded by hand, shown to the annotator (arXiv 2506.15498).

    `judgements` has one entry per candidate step. Its `context` ids count the task's `context_sentences(problem)`,
    its `steps` ids the candidate's own steps, its `reference` ids the reference steps, all from 1.
    """

    id: str
    problem: Problem
    reference: tuple[str, ...]
    candidate: tuple[str, ...]
    judgements: tuple[StepJudgement, ...]

    @property
    def is_correct(self) -> bool:
        """Whether every step of the candidate is labelled correct."""
        return all(step.label is True for step in self.judgements)


def numbered_context(problem: Problem) -> tuple[str, ...]:
    """The sentences that context ids count: the problem's context, or the question's own where there is none.

    A prompt gives the question a line of its own exactly when `problem.context` is not empty.
    """
    return problem.context or tuple(s for s in (" ".join(p.split()) for p in split_sentences(problem.question)) if s)


def _no_exemplars() -> tuple[Exemplar, ...]:
    return ()


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set or world as the stages see it.

    Attributes:
      name: the config's name for it.
      instruction: the system message of the solve prompt and of the reward models' text.
      guidelines: the system message of the annotate prompt.
      error_categories: what the annotator may name as a step's errors.
      extract_answer: a solution's steps -> its final answer in a form that votes can count, None where it has none.
      answers_equal: (an answer, the accepted ones) -> whether it is one of them, None where that is undecided; False of
        None.
      split_steps: a solution's text -> one piece per step; joining them gives the text back (`step_texts` makes the
        steps of a record of them).
      context_sentences: what the annotate prompt numbers c1, c2, ...
      exemplars: the pool that `choose_exemplars` draws from.
      credit: how much of an accepted answer a wrong one has, in [0, 1], where the data set's metric says so.
      classes: the labels that an answer names, where it may name several and the data set's metric is macro-F1.
      world: for generated problems, where they come from and who knows the truth of every step.
    """

    name: str
    instruction: str
    guidelines: str
    error_categories: tuple[str, ...]
    extract_answer: Callable[[Sequence[str]], str | None]
    answers_equal: Callable[[str | None, Sequence[str]], bool | None]
    split_steps: Callable[[str], tuple[str, ...]] = split_lines
    context_sentences: Callable[[Problem], tuple[str, ...]] = numbered_context
    exemplars: Callable[[], tuple[Exemplar, ...]] = _no_exemplars
    credit: Callable[[str | None, Sequence[str]], float] | None = None
    classes: Callable[[str | None], frozenset[str]] | None = None
    world: World | None = None


def world_of(task: Task) -> World:
    """The task's world. Raises ValueError where it has none."""
    if task.world is None:
        raise ValueError(
            f"task {task.name!r} is no world: its problems are read and nobody knows the truth of single steps; choose "
            "another task, or another judge than truth"
        )
    return task.world


def choose_exemplars(pool: Sequence[Exemplar], k: int, key: str) -> tuple[Exemplar, ...]:
    """Draw `k` exemplars without replacement, as a function of `pool` and `key` alone (arXiv 2506.15498).

    From k = 2 on the draw holds a candidate that is all correct and one with an error. These two come first, in
    random order: exemplars are dropped from the end until a prompt fits, and so both classes stay the longest.

    Args:
      key: names the seed and the instance, such as "0/train-17/3"; its digest is the randomness.

    Raises:
      ValueError: `k` exceeds the pool, or the pool lacks one of the two classes.
    """
    if k > len(pool):
        raise ValueError(f"{k} exemplars asked of a pool of {len(pool)}: lower config.annotate.exemplars")
    shuffled = sorted(pool, key=lambda e: hashlib.blake2b(f"{key}\0{e.id}".encode(errors="surrogatepass")).digest())
    if k < 2:
        return tuple(shuffled[:k])
    right = next((e for e in shuffled if e.is_correct), None)
    wrong = next((e for e in shuffled if not e.is_correct), None)
    if right is None or wrong is None:
        raise ValueError("the exemplar pool needs a candidate that is all correct and one with an error")
    both = [e for e in shuffled if e is right or e is wrong]
    return (*both, *[e for e in shuffled if e is not right and e is not wrong][: k - 2])
