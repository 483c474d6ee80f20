"""What reads no step: baselines that know where a step stands, how long it is, or how many there are.

A reward model that does not beat them has learnt no more than that. Each is fitted on solutions that are not measured.
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

# For each number of steps, which step to call the first error (None: none of them).
PositionBaseline = Mapping[int, int | None]

# first errors


def fit_position_baseline(truth: Sequence[FirstError], n_steps: Sequence[int]) -> PositionBaseline:
    """Guess the first error from the number of steps alone, as well as dev solutions allow.

    For solutions of each length it names the most frequent position of a first error, or none, so that no other such
    table has a better F1. A reward model that does not beat this has read nothing but positions.
    """
    known = [(t, n) for t, n in zip(truth, n_steps, strict=True) if not isinstance(t, Missing)]
    position_of: dict[int, int] = {}
    # Correct solutions passed -> the most first errors hit along with them, and the lengths accused for it.
    reached: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for length in sorted({n for _, n in known}):
        here = [t for t, n in known if n == length]
        errors = [t for t in here if t is not None]
        passed = len(here) - len(errors)
        grown = {count + passed: state for count, state in reached.items()}
        if errors:
            position_of[length] = min(set(errors), key=lambda p: (-errors.count(p), p))
            found = errors.count(position_of[length])
            for count, (hits, accused) in reached.items():
                if count not in grown or hits + found > grown[count][0]:
                    grown[count] = (hits + found, (*accused, length))
        reached = grown
    n_error = sum(t is not None for t, _ in known)
    n_correct = len(known) - n_error
    _, _, accused = max(
        (harmonic_mean(hits / max(n_error, 1), count / max(n_correct, 1)), hits + count, accused)
        for count, (hits, accused) in reached.items()
    )
    return {length: position_of[length] if length in accused else None for length in sorted({n for _, n in known})}


def position_first_error(baseline: PositionBaseline, n_steps: int) -> int | None:
    """The baseline's guess; a length it never saw is treated as the nearest one that it saw."""
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
    """The limit of length beyond which, or below which, steps are best called wrong on these (dev) solutions.

    Args:
      truth: first error of each solution.
      lengths: [solution][step], any measure of a step's length >= 0; for instance its characters.

    Returns:
      The baseline with the better first-error F1 of the two kinds; None where F1 is undefined.
    """
    found: list[tuple[float, LengthBaseline]] = []
    for long_is_wrong in (True, False):
        scores = [[_length_score(n, long_is_wrong) for n in steps] for steps in lengths]
        threshold = choose_threshold(scores, truth)
        f1 = first_error_metrics([first_error(steps, threshold) for steps in scores], truth)["f1"]
        if f1 is not None:
            found.append((f1, LengthBaseline(threshold, long_is_wrong)))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def length_first_error(baseline: LengthBaseline | None, lengths: Sequence[int]) -> FirstError:
    """The baseline's guess at a solution with steps of these lengths; None, no error, without a baseline."""
    if baseline is None:
        return None
    return first_error([_length_score(n, baseline.long_is_wrong) for n in lengths], baseline.threshold)


def _length_score(length: int, long_is_wrong: bool) -> float:
    """A length in [0, 1], as thresholds are: falling from 1 towards 0 where long steps count as wrong, else rising."""
    return 1 / (1 + length) if long_is_wrong else length / (1 + length)


# ranking


def position_scores(seen: Iterable[Sequence[bool | None]], n_steps: Sequence[int]) -> list[list[float]]:
    """Every step scored by how often steps at its place are right, in solutions as long.

    Args:
      seen: the labels of solutions to learn from, [solution][step]; steps without one teach nothing.
      n_steps: of each solution to score.

    Returns:
      [solution][step], in (0, 1): the share of right ones, drawn towards a half where few were seen.
    """
    rates = _rates(((len(labels), i), label) for labels in seen for i, label in enumerate(labels))
    return [[rates.get((n, i), 0.5) for i in range(n)] for n in n_steps]


def length_scores(seen: Iterable[tuple[int, bool | None]], n_steps: Sequence[int]) -> list[float]:
    """Every solution scored by how often those with as many steps end right.

    Args:
      seen: (steps, whether the final answer is right) of solutions to learn from; undecided ones teach nothing.
      n_steps: of each solution to score.

    Returns:
      [solution], as `position_scores`.
    """
    rates = _rates(seen)
    return [rates.get(n, 0.5) for n in n_steps]


def _rates(seen: Iterable[tuple[Hashable, bool | None]]) -> dict[Hashable, float]:
    """By kind the share of True, after one True and one False more than were seen (Laplace's rule of succession)."""
    labels: dict[Hashable, list[bool]] = defaultdict(list)
    for kind, label in seen:
        if label is not None:
            labels[kind].append(label)
    return {kind: (sum(of) + 1) / (len(of) + 2) for kind, of in labels.items()}
