"""What every room needs to know of a data set: its texts, its steps, its answers, its exemplars.

A task is a value, made by the module that is named after it.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Sequence

from spare_jax.records import Problem, StepJudgement
from spare_jax.worlds.world import World

_LINE_END = re.compile(r"\n\s*")


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


def cut_behind(boundary: re.Pattern[str], text: str) -> tuple[str, ...]:
    """Cut `text` behind every match of `boundary`, which takes all blanks that follow; joining the pieces gives `text`
    back.

    Blanks stay with the piece before them, at the start with the one behind: no piece is blank unless all of `text` is.
    """
    first = len(text) - len(text.lstrip())
    ends = [match.end() for match in boundary.finditer(text)]
    cuts = [0, *(end for end in ends if first < end < len(text)), len(text)]
    return tuple(text[start:end] for start, end in itertools.pairwise(cuts) if start < end)


def split_lines(text: str) -> tuple[str, ...]:
    """One piece per line that is not blank, with its line end; joining the pieces gives `text` back."""
    return cut_behind(_LINE_END, text)


def step_texts(split: Sequence[str]) -> tuple[str, ...]:
    """What records hold of the pieces of a text: each on one line, without the blanks around it; blank ones are gone.

    Splitting loses nothing. This is where line ends and outer blanks go, which no step of a record has.
    """
    lines = (" ".join(line for line in map(str.strip, piece.split("\n")) if line) for piece in split)
    return tuple(step for step in lines if step)


def line_steps(text: str) -> tuple[str, ...]:
    """One step per line, without the blanks around it; blank lines are no steps."""
    return step_texts(split_lines(text))


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


# Where a sentence may end: after its full stop, and closing quotes or brackets, before what can start another.
_BOUNDARY = re.compile(r"""(?<=[.!?])["'”’)\]]*[^\S\n]+(?=["'“‘(\[]?[A-Z0-9$£€])|\n\s*""")
_ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "approx", "e.g", "i.e")


def split_sentences(text: str) -> tuple[str, ...]:
    """Cut `text` into sentences; each keeps the blanks behind it, so that joining them gives `text` back.

    No piece is blank unless all of `text` is. A line end always ends a sentence. Titles and other common abbreviations
    do not. A single letter does ("twice as many as jar B. How many"): in word problems it is a label far more often
    than an initial.
    """
    pieces, start, first = [], 0, len(text) - len(text.lstrip())
    for match in _BOUNDARY.finditer(text):
        if text[match.start()] != "\n" and ends_in_abbreviation(text, match.start()):
            continue
        if match.end() <= first:  # blanks at the start
            continue
        pieces.append(text[start : match.end()])
        start = match.end()
    return (*pieces, *([text[start:]] if start < len(text) else ()))


def ends_in_abbreviation(text: str, end: int) -> bool:
    """Whether `text`, up to the index `end`, ends in the full stop of an abbreviation."""
    if end < 1 or text[end - 1] != ".":
        return False
    word = text[max(0, end - 13) : end - 1].split()[-1:]
    return bool(word) and word[0].lstrip("(\"'“‘").lower() in _ABBREVIATIONS
