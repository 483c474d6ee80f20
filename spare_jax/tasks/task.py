"""What the stages need to know of a data set: its texts, its steps, its answers, its exemplars.

A `Task` is made by the module that is named after its data set.
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
    """The sentences that context ids refer to: the problem's context or, where it has none, those of the question,
    which then has no line of its own in the prompt."""
    return problem.context or tuple(s for s in (" ".join(p.split()) for p in split_sentences(problem.question)) if s)


def _no_exemplars() -> tuple[Exemplar, ...]:
    return ()


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set or world as the stages see it.

    Attributes:
      name: its name in the config.
      instruction: the system message of the solve prompt and of the reward models' text.
      guidelines: the system message of the annotate prompt.
      error_categories: the errors that an annotator may name.
      extract_answer: steps of a solution -> its final answer in canonical form, None where it has none.
      answers_equal: (answer, accepted answers) -> whether it equals one of them, None where that is undecided; False
        for the answer None.
      split_steps: text of a solution -> one piece per step, which joined give the text back (`step_texts` makes steps
        of a record of them).
      context_sentences: the sentences of a problem that the annotate prompt numbers c1, c2, ...
      exemplars: the pool that `choose_exemplars` draws from.
      credit: (answer, accepted answers) -> partial credit in [0, 1], where the data set's metric gives some.
      classes: the set of labels that an answer names, where the data set's metric is macro-F1.
      world: the source and exact judge of generated problems; None for a data set.
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
    """Draw `k` exemplars without replacement, depending only on `pool` and `key` (SPARE, arXiv 2506.15498).

    From k = 2 on there is a candidate that is all correct and one with an error. These two come first, in random order:
    a prompt that is too long loses exemplars from the end, so that both kinds stay as long as possible.

    Args:
      key: seeds the draw; names the run's seed and the instance, as "0/train-17/3".

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
