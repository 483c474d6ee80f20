"""Majority and weighted votes over the answers of one problem's candidate solutions.

Answers are compared as strings; `candidates` first gives answers that the task calls equal the same string. None and
blank strings are "no answer" and never win. Ties are broken at random, by a digest of seed, problem id and answer, so
that the order of the candidates does not matter.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence

import numpy as np

# Weights are rounded to whole multiples of their maximum / 2**40, so that the order of a sum does not change it.
_WEIGHT_BITS = 40


# Per problem: after so many comparisons, or so many undecided ones, the other answers are compared as text alone.
_MOST_COMPARISONS = 2000
_MOST_UNDECIDED = 4


def candidates(
    answers: Sequence[str | None], equal: Callable[[str | None, Sequence[str]], bool | None]
) -> tuple[str | None, ...]:
    r"""The answers of one problem, each class of equal ones as one text: "\frac{1}{2}", "0.5", "\dfrac12" all as "0.5".

    Distinct answers are taken by length and then alphabetically, and each joins the first class whose first answer it
    equals, which is the text of the class. So the order of `answers` does not matter, also where equality is not
    transitive ("x=5", "5", "y=5"). An undecided comparison joins nothing. After 2,000 comparisons, or 4 undecided ones,
    the other answers are compared as text, which bounds the time of a hostile set.

    Args:
      equal: the task's `answers_equal`.
    """
    texts: dict[str, str] = {}
    classes: list[str] = []
    asked = undecided = 0
    for answer in sorted({a for a in answers if a is not None and a.strip()}, key=lambda a: (len(a), a)):
        texts[answer] = answer
        for text in classes:
            if asked >= _MOST_COMPARISONS or undecided >= _MOST_UNDECIDED:
                break
            verdict = equal(answer, (text,))
            asked, undecided = asked + 1, undecided + (verdict is None)
            if verdict:
                texts[answer] = text
                break
        if texts[answer] == answer:
            classes.append(answer)
    return tuple(None if answer is None else texts.get(answer, answer) for answer in answers)


@dataclasses.dataclass(frozen=True)
class Ballot:
    """The distinct answers of one problem, the first of which wins a tie; `cast`, int, [candidates], has the index in
    `answers` of each candidate's answer, -1 where it has none.
    """

    answers: tuple[str, ...]
    cast: np.ndarray


def ballot(answers: Sequence[str | None], problem_id: str, seed: int = 0) -> Ballot:
    """Group the candidates' answers. The order of `answers` does not change the order of the distinct ones."""
    given = [answer if answer is not None and answer.strip() else None for answer in answers]
    distinct = sorted({a for a in given if a is not None}, key=lambda answer: _digest(seed, problem_id, answer))
    index = {answer: i for i, answer in enumerate(distinct)}
    return Ballot(tuple(distinct), np.array([-1 if a is None else index[a] for a in given], dtype=np.int64))


def majority(answers: Sequence[str | None], problem_id: str, seed: int = 0) -> str | None:
    """The most frequent answer (self-consistency); None where no candidate has one."""
    return weighted(answers, [1.0] * len(answers), problem_id, seed)


def weighted(
    answers: Sequence[str | None], scores: Sequence[float | None], problem_id: str, seed: int = 0
) -> str | None:
    """The answer with the largest sum of scores; None where no candidate has one.

    Raises:
      ValueError: a score is negative or not finite, or there are more or fewer scores than answers.
    """
    choice = ballot(answers, problem_id, seed)
    winner = winners(choice, scores)[0]
    return choice.answers[winner] if winner >= 0 else None


def winners(choice: Ballot, scores: Sequence[float | None], drawn: np.ndarray | None = None) -> np.ndarray:
    """The winner of a weighted vote in each of several subsets of the candidates.

    Args:
      choice: the answers of the problem.
      scores: a weight >= 0 per candidate; a candidate without a score adds nothing to its answer.
      drawn: bool, [draws, candidates]: the subsets; all candidates once where None.

    Returns:
      int, [draws]: an index into `choice.answers`, -1 where no candidate of the subset has an answer.

    Raises:
      ValueError: as for `weighted`.
    """
    drawn = everyone(choice) if drawn is None else drawn
    weights = check_scores(choice, scores)
    if (weights < 0).any():
        raise ValueError(
            f"weight {weights[weights < 0][0]} is negative: a weighted vote needs weights >= 0, "
            "for a log-probability pass its exponential"
        )
    if not choice.answers:
        return np.full(len(drawn), -1, dtype=np.int64)
    weights = np.nan_to_num(weights, nan=0.0)
    units = np.rint(weights / (weights.max() or 1.0) * 2.0**_WEIGHT_BITS).astype(np.int64)
    votes_for = choice.cast[:, None] == np.arange(len(choice.answers))
    totals = drawn.astype(np.int64) @ (votes_for * units[:, None])
    totals[~(drawn @ votes_for)] = -1
    return np.where(totals.max(axis=1) < 0, -1, totals.argmax(axis=1))


def everyone(choice: Ballot) -> np.ndarray:
    """The one subset that holds every candidate: bool, [1, candidates]."""
    return np.ones((1, len(choice.cast)), dtype=bool)


def check_scores(choice: Ballot, scores: Sequence[float | None]) -> np.ndarray:
    """Scores as float64, [candidates], NaN where there is none.

    Raises:
      ValueError: a score is not finite, or there are more or fewer scores than candidates.
    """
    if len(scores) != len(choice.cast):
        raise ValueError(f"{len(scores)} scores for {len(choice.cast)} candidates: give one score, or None, for each")
    for i, score in enumerate(scores):
        if score is not None and not math.isfinite(score):
            raise ValueError(f"score {score} of candidate {i} is not finite: mark a missing score by None")
    return np.array([np.nan if score is None else score for score in scores], dtype=np.float64)


def _digest(seed: int, problem_id: str, answer: str) -> bytes:
    return hashlib.blake2b(json.dumps([seed, problem_id, answer]).encode(), digest_size=16).digest()
