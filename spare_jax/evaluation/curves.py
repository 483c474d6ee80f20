"""Accuracy over the number of samples, and over the tokens that sampling and scoring took."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.accuracy import (
    Pool,
    Scores,
    StepScores,
    aggregate_all,
    pass_at_n,
    right_in_draws,
    scores_by_pool,
)
from spare_jax.evaluation.statistics import mean_or_none
from spare_jax.selection.aggregate import AGGREGATIONS

_DRAWS = 128  # random subsets per size, where there are more


def accuracy_curves(
    pools: Sequence[Pool],
    rankers: Mapping[str, StepScores],
    scoring_tokens: Mapping[str, Sequence[Sequence[int | None]]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The `curves` part of metrics.json: every rule under every aggregation, for 1 .. N samples per problem.

    Args:
      pools, rankers, seed: as in `accuracy.selection_metrics`.
      scoring_tokens: ranker -> [problem][candidate], the tokens that scoring a candidate took, None where it failed.

    Returns:
      {"n": [...], "pass_at_n": [...], "majority": {"tokens": [...], "accuracy": [...]}, ranker: {"tokens": [...],
      "weighted": {aggregation: [...]}, "best_of_n": {...}}, ...}, where lists have one entry per n. Tokens are means
      per problem, None where the pools have no token counts. pass_at_n is the upper bound of every accuracy.
    """
    numbers = range(1, max((len(pool.answers) for pool in pools), default=0) + 1)
    curves: dict[str, Any] = {
        "n": list(numbers),
        "pass_at_n": [pass_at_n(pools, n) for n in numbers],
        "majority": {"tokens": tokens_by_n(pools), "accuracy": accuracy_by_n(pools, "majority", seed=seed)},
    }
    for name, step_scores in rankers.items():
        curves[name] = {"tokens": tokens_by_n(pools, (scoring_tokens or {}).get(name))}
        for rule in ("weighted", "best_of_n"):
            # A ranker with one score per solution is the same under every aggregation, and is computed once.
            known: dict[tuple[tuple[float | None, ...] | None, ...], list[float | None]] = {}
            curves[name][rule] = {}
            for aggregation in AGGREGATIONS:
                scores = tuple(s if s is None else tuple(s) for s in aggregate_all(step_scores, aggregation))
                if scores not in known:
                    known[scores] = accuracy_by_n(pools, rule, scores, seed)
                curves[name][rule][aggregation] = known[scores]
    return curves


def accuracy_by_n(pools: Sequence[Pool], rule: str, scores: Scores | None = None, seed: int = 0) -> list[float | None]:
    """Accuracy of a rule with n of each problem's candidates, for n = 1 .. the largest pool; None where every problem
    is missing.

    Averages over all subsets of n candidates, or 128 random ones, the same for every rule, where there are more. A
    problem with fewer than n candidates counts with all of them.
    """
    sizes = range(1, max((len(pool.answers) for pool in pools), default=0) + 1)
    return [mean_or_none(values) for values in right_by_n(pools, rule, sizes, scores, seed)]


def right_by_n(
    pools: Sequence[Pool], rule: str, sizes: Sequence[int], scores: Scores | None = None, seed: int = 0
) -> np.ndarray:
    """How often a rule with n of a problem's candidates is right, for every n of `sizes`: over the subsets of
    `accuracy_by_n`, without those in which the choice is undecided. Float, [sizes, problems]; NaN where a problem is
    missing (accuracy.py)."""
    rates = np.full((len(sizes), len(pools)), np.nan)
    for column, (pool, pool_scores) in enumerate(zip(pools, scores_by_pool(pools, rule, scores), strict=True)):
        total = len(pool.answers)
        if total and pool_scores is not None:
            drawn, starts = _subsets_of_sizes(total, tuple(min(n, total) for n in sizes), seed)
            right = right_in_draws(pool, rule, pool_scores, seed, drawn)
            decided = np.add.reduceat((~np.isnan(right)).astype(np.float64), starts)
            hits = np.add.reduceat(np.nan_to_num(right), starts)
            rates[:, column] = np.where(decided > 0, hits / np.maximum(decided, 1.0), np.nan)
    return rates


def tokens_by_n(
    pools: Sequence[Pool], scoring_tokens: Sequence[Sequence[int | None]] | None = None
) -> list[float] | None:
    """Mean tokens per problem for n samples, n = 1 .. the largest pool: the prompt once, n candidates, their scoring.

    Args:
      pools: the problems. Returns None unless all that have candidates have token counts.
      scoring_tokens: [problem][candidate], the tokens that a reward model read and wrote to score the candidate, None
        where it failed. A problem where it failed on all is left out.
    """
    read = [0.0 if scoring_tokens is None else mean_or_none(scoring_tokens[i]) for i in range(len(pools))]
    sampled = [
        (scoring, pool) for scoring, pool in zip(read, pools, strict=True) if pool.answers if scoring is not None
    ]
    if not sampled or any(not pool.tokens for _, pool in sampled):
        return None
    curve = []
    for n in range(1, max(len(pool.tokens) for _, pool in sampled) + 1):
        totals = []
        for scoring, pool in sampled:
            per_sample = np.mean(pool.tokens) + scoring
            totals.append(pool.prompt_tokens + min(n, len(pool.tokens)) * per_sample)
        curve.append(float(np.mean(totals)))
    return curve


@functools.lru_cache(maxsize=64)
def _subsets_of_sizes(total: int, sizes: tuple[int, ...], seed: int) -> tuple[np.ndarray, list[int]]:
    """`subsets` of every size, concatenated: bool, [draws, total], and the row at which each size begins."""
    by_size = [subsets(total, size, seed) for size in sizes]
    return np.concatenate(by_size), [0, *itertools.accumulate(map(len, by_size[:-1]))]


@functools.lru_cache(maxsize=4096)
def subsets(total: int, size: int, seed: int) -> np.ndarray:
    """Bool, [draws, total]: all subsets of `size` candidates, or 128 random ones where there are more."""
    if math.comb(total, size) <= _DRAWS:
        members = list(itertools.combinations(range(total), size))
        drawn = np.zeros((len(members), total), dtype=bool)
        for row, chosen in zip(drawn, members, strict=True):
            row[list(chosen)] = True
        return drawn
    order = np.random.default_rng([seed, total, size]).random((_DRAWS, total)).argsort(axis=1)
    return order < size
