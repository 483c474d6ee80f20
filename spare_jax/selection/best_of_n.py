"""Best of n: the answer of the candidate solution that a reward model scores highest."""

from collections.abc import Sequence

import numpy as np

from spare_jax.selection.voting import Ballot, ballot, check_scores, everyone


def best_of_n(
    answers: Sequence[str | None], scores: Sequence[float | None], problem_id: str, seed: int = 0
) -> str | None:
    """The answer of the top-scored candidate that has one; None where none has.

    Candidates without a score rank below all that have one. Ties are broken as in voting.py.

    Raises:
      ValueError: a score is not finite, or there are more or fewer scores than answers.
    """
    choice = ballot(answers, problem_id, seed)
    top = top_scored(choice, scores)[0]
    return choice.answers[top] if top >= 0 else None


def top_scored(choice: Ballot, scores: Sequence[float | None], drawn: np.ndarray | None = None) -> np.ndarray:
    """The answer of the best candidate in each of several subsets of the candidates.

    Args:
      choice: the answers of the problem.
      scores: any finite number per candidate, or None.
      drawn: bool, [draws, candidates]: the subsets; all candidates once where None.

    Returns:
      int, [draws]: an index into `choice.answers`, -1 where no candidate of the subset has an answer.
    """
    drawn = everyone(choice) if drawn is None else drawn
    values = np.nan_to_num(check_scores(choice, scores), nan=-np.inf)
    if not choice.answers:
        return np.full(len(drawn), -1, dtype=np.int64)
    ranked = np.lexsort((choice.cast, -values, choice.cast < 0))
    first = ranked[drawn[:, ranked].argmax(axis=1)]
    return np.where((drawn & (choice.cast >= 0)).any(axis=1), choice.cast[first], -1)
