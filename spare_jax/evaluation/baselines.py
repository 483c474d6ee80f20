"""Trivial baselines that read no step: they know its position, its length, or the number of steps.

A reward model must beat them to show that it reads steps. They are fitted on other solutions than those measured.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from spare_jax.evaluation.missing import Missing
from spare_jax.evaluation.process_errors import (
    FirstError,
    choose_threshold,
    first_error,
    first_error_metrics,
    harmonic_mean,
)

# Number of steps -> the index of the step to call the first error, None to call none.
PositionBaseline = Mapping[int, int | None]

# first errors


def fit_position_baseline(truth: Sequence[FirstError], n_steps: Sequence[int]) -> PositionBaseline:
    """The table from numbers of steps to first errors that has the best F1 on these (dev) solutions.

    For each number of steps it holds the most frequent position of a first error, or None where that is better for F1.
    """
    known = [(t, n) for t, n in zip(truth, n_steps, strict=True) if not isinstance(t, Missing)]
    position_of: dict[int, int] = {}
    # Dynamic programming over lengths: correct solutions passed -> (most first errors hit, the lengths accused for it).
    reached: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for length in sorted({n for _, n in known}):
        here = [t for t, n in known if n == length]
        errors = [t for t in here if t is not None]
        passed = len(here) - len(errors)
        grown = {count + passed: state for count, state in reached.items()}
        if errors:
            position_of[length] = min(set(errors), key=lambda p: (-errors.count(p), p))
            hits_here = errors.count(position_of[length])
            for count, (hits, accused) in reached.items():
                if count not in grown or hits + hits_here > grown[count][0]:
                    grown[count] = (hits + hits_here, (*accused, length))
        reached = grown
    n_error = sum(t is not None for t, _ in known)
    n_correct = len(known) - n_error
    _, _, accused = max(
        (harmonic_mean(hits / max(n_error, 1), count / max(n_correct, 1)), hits + count, accused)
        for count, (hits, accused) in reached.items()
    )
    return {length: position_of[length] if length in accused else None for length in sorted({n for _, n in known})}


def position_first_error(baseline: PositionBaseline, n_steps: int) -> int | None:
    """The baseline's guess for a solution; a number of steps that it has not seen counts as the nearest one seen."""
    if not baseline or not n_steps:
        return None
    position = baseline[min(baseline, key=lambda length: (abs(length - n_steps), length))]
    return None if position is None else min(position, n_steps - 1)


@dataclasses.dataclass(frozen=True)
class LengthBaseline:
    """Calls a step wrong by its length alone: where `_length_score` lies below `threshold`."""

    threshold: float
    long_is_wrong: bool


def fit_length_baseline(truth: Sequence[FirstError], lengths: Sequence[Sequence[int]]) -> LengthBaseline | None:
    """The length beyond which, or below which, steps are called wrong with the best first-error F1 on these (dev)
    solutions.

    Args:
      truth: first error of each solution.
      lengths: [solution][step], >= 0, for instance in characters.

    Returns:
      The better of the two kinds; None where F1 is undefined.
    """
    fitted: list[tuple[float, LengthBaseline]] = []
    for long_is_wrong in (True, False):
        scores = [[_length_score(n, long_is_wrong) for n in steps] for steps in lengths]
        threshold = choose_threshold(scores, truth)
        f1 = first_error_metrics([first_error(steps, threshold) for steps in scores], truth)["f1"]
        if f1 is not None:
            fitted.append((f1, LengthBaseline(threshold, long_is_wrong)))
    return max(fitted, key=lambda pair: pair[0])[1] if fitted else None


def length_first_error(baseline: LengthBaseline | None, lengths: Sequence[int]) -> FirstError:
    """The baseline's guess for a solution with steps of these lengths; without a baseline None, no error."""
    if baseline is None:
        return None
    return first_error([_length_score(n, baseline.long_is_wrong) for n in lengths], baseline.threshold)


def _length_score(length: int, long_is_wrong: bool) -> float:
    """A length as a score in [0, 1]: falling where long steps count as wrong, else rising."""
    return 1 / (1 + length) if long_is_wrong else length / (1 + length)


# ranking


def position_scores(seen: Iterable[Sequence[bool | None]], n_steps: Sequence[int]) -> list[list[float]]:
    """Step scores from the position alone: the share of right steps at that position, in solutions of that length.

    Args:
      seen: the labels of solutions to learn from, [solution][step], None where unknown.
      n_steps: the number of steps of each solution to score.

    Returns:
      [solution][step], in (0, 1): the share, smoothed towards 1/2 where few were seen.
    """
    rates = _rates(((len(labels), i), label) for labels in seen for i, label in enumerate(labels))
    return [[rates.get((n, i), 0.5) for i in range(n)] for n in n_steps]


def length_scores(seen: Iterable[tuple[int, bool | None]], n_steps: Sequence[int]) -> list[float]:
    """Solution scores from the number of steps alone: the share of right answers with that number of steps.

    Args:
      seen: (number of steps, whether the final answer is right) of solutions to learn from, None where undecided.
      n_steps: the number of steps of each solution to score.

    Returns:
      [solution], in (0, 1), smoothed as in `position_scores`.
    """
    rates = _rates(seen)
    return [rates.get(n, 0.5) for n in n_steps]


def _rates(seen: Iterable[tuple[Hashable, bool | None]]) -> dict[Hashable, float]:
    """The share of True per kind, with one True and one False added (Laplace's rule of succession)."""
    labels: dict[Hashable, list[bool]] = defaultdict(list)
    for kind, label in seen:
        if label is not None:
            labels[kind].append(label)
    return {kind: (sum(known) + 1) / (len(known) + 2) for kind, known in labels.items()}
