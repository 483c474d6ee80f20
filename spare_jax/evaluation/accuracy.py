"""How often a policy, and a way of choosing among its samples, answers right."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.statistics import mean_or_none, paired_bootstrap
from spare_jax.selection.aggregate import AGGREGATIONS, aggregate
from spare_jax.selection.best_of_n import top_scored
from spare_jax.selection.voting import ballot, winners

# A ranker's step scores: [problem][candidate][step].
StepScores = Sequence[Sequence[Sequence[float | None]]]
# One score per candidate: [problem][candidate].
Scores = Sequence[Sequence[float | None]]

_DRAWS = 128  # subsets per size where there are too many to take them all


@dataclasses.dataclass(frozen=True)
class Pool:
    """One problem's candidate solutions: canonical answer key (None for none) and whether it is right, of each.

    `tokens` is what each candidate took to generate, `prompt_tokens` what their shared prompt holds; both may stay
    empty where no figure over tokens is wanted.
    """

    problem_id: str
    answers: tuple[str | None, ...]
    outcomes: tuple[bool, ...]
    tokens: tuple[int, ...] = ()
    prompt_tokens: int = 0

    def __post_init__(self):
        if len(self.answers) != len(self.outcomes) or (self.tokens and len(self.tokens) != len(self.answers)):
            raise ValueError(
                f"problem {self.problem_id}: {len(self.answers)} answers, {len(self.outcomes)} outcomes and "
                f"{len(self.tokens)} token counts; each candidate needs one of each"
            )


def pass_at_1(pools: Sequence[Pool]) -> float | None:
    """The chance that one sample is right: each problem's share of right samples, averaged over problems."""
    return pass_at_n(pools, 1)


def pass_at_n(pools: Sequence[Pool], n: int) -> float | None:
    """The chance that one of n samples is right, unbiased: 1 - C(wrong, n) / C(all, n) averaged over problems.

    A problem with fewer than n samples counts with all it has, one without any is left out.
    """
    values = []
    for pool in pools:
        if total := len(pool.outcomes):
            size = min(n, total)
            values.append(1.0 - math.comb(total - sum(pool.outcomes), size) / math.comb(total, size))
    return mean_or_none(values)


def macro_f1(said: Sequence[frozenset[str]], right: Sequence[frozenset[str]]) -> float | None:
    """The mean over labels of F1, each over all answers, of answers that name several labels; None without a label.

    A label that no right answer has does not count by itself: naming it costs
    nothing but what it stands in the place of.
    """
    values = []
    for label in sorted(frozenset().union(*right)):
        hits = sum(label in a and label in b for a, b in zip(said, right, strict=True))
        named = sum(label in a for a in said) + sum(label in b for b in right)
        values.append(2 * hits / named)
    return mean_or_none(values)


def oracle(pools: Sequence[Pool]) -> float | None:
    """The share of problems with at least one right sample: what a perfect selection would reach."""
    return mean_or_none([any(pool.outcomes) for pool in pools if pool.outcomes])


def chosen_right(pools: Sequence[Pool], rule: str, scores: Scores | None = None, seed: int = 0) -> np.ndarray:
    """1.0 per problem where the rule's choice among all candidates is right; float, [problems].

    Args:
      pools: the problems; one without candidates, or without any answer among them, counts as wrong.
      rule: "majority", "weighted" (sum of scores per answer) or "best_of_n".
      scores: one per candidate of each problem, for the latter two.
      seed: of the tie-breaking.

    Raises:
      ValueError: unknown rule, scores that the rule cannot use, or scores for other problems than `pools`.
    """
    per_problem = _scores_by_pool(pools, rule, scores)
    values = [_chosen_right(p, rule, s, seed, None)[0] for p, s in zip(pools, per_problem, strict=True)]
    return np.array(values, dtype=np.float64)


def accuracy_by_n(pools: Sequence[Pool], rule: str, scores: Scores | None = None, seed: int = 0) -> list[float]:
    """Accuracy of a rule given n of the candidates, for n = 1 .. the largest pool.

    Averages over every subset of n candidates, or over 128 subsets drawn without replacement where there are more;
    the draws are the same for every rule. A problem with fewer than n candidates counts with all it has.
    """
    largest = max((len(pool.answers) for pool in pools), default=0)
    return [float(right_by_n(pools, rule, n, scores, seed).mean()) for n in range(1, largest + 1)]


def right_by_n(pools: Sequence[Pool], rule: str, n: int, scores: Scores | None = None, seed: int = 0) -> np.ndarray:
    """How often a rule given n of a problem's candidates is right, over the subsets of `accuracy_by_n`; float,
    [problems]."""
    values = []
    for pool, pool_scores in zip(pools, _scores_by_pool(pools, rule, scores), strict=True):
        drawn = subsets(len(pool.answers), min(n, len(pool.answers)), seed)
        values.append(_chosen_right(pool, rule, pool_scores, seed, drawn).mean())
    return np.array(values, dtype=np.float64)


def tokens_by_n(pools: Sequence[Pool], scoring_tokens: Sequence[Sequence[int]] | None = None) -> list[float] | None:
    """Mean tokens per problem for n samples, n = 1 .. the largest pool: the prompt once, n candidates, their scoring.

    Args:
      pools: the problems; None is returned unless all of them have token counts.
      scoring_tokens: [problem][candidate], what a reward model read and wrote to score each candidate.
    """
    if not pools or any(not pool.tokens for pool in pools):
        return None
    curve = []
    for n in range(1, max(len(pool.tokens) for pool in pools) + 1):
        totals = []
        for i, pool in enumerate(pools):
            per_sample = np.mean(pool.tokens) + (np.mean(scoring_tokens[i]) if scoring_tokens else 0.0)
            totals.append(pool.prompt_tokens + min(n, len(pool.tokens)) * per_sample)
        curve.append(float(np.mean(totals)))
    return curve


def selection_metrics(pools: Sequence[Pool], rankers: Mapping[str, StepScores], seed: int = 0) -> dict[str, Any]:
    """The `selection` part of metrics.json.

    Args:
      pools: the test problems.
      rankers: step scores in [0, 1] by the ranker's name ("prm", "orm", "likelihood", "prm_at_init"). A ranker that
        knows only one score for a solution gives a list of one; for the likelihood that is exp(mean_logprob), since
        votes need weights >= 0.
      seed: of tie-breaking and bootstrap.

    Returns:
      {"majority", "oracle", ranker: {"best_of_n": {aggregation: accuracy}, "weighted": {...}}, ...} and, where there
      is a "prm", its paired differences "prm_minus_majority" and "prm_minus_<other>" (statistics.py), weighted by the
      last step's score on both sides.
    """
    votes = chosen_right(pools, "majority", seed=seed)
    result: dict[str, Any] = {"majority": mean_or_none(votes), "oracle": oracle(pools)}
    fixed_in_advance = {"majority": votes}
    for name, step_scores in rankers.items():
        result[name] = {"best_of_n": {}, "weighted": {}}
        for how in AGGREGATIONS:
            scores = aggregate_all(step_scores, how)
            for rule in ("best_of_n", "weighted"):
                right = chosen_right(pools, rule, scores, seed)
                result[name][rule][how] = mean_or_none(right)
                if rule == "weighted" and how == "last":
                    fixed_in_advance[name] = right
    if "prm" in rankers:
        for name, right in fixed_in_advance.items():
            if name != "prm":
                result[f"prm_minus_{name}"] = paired_bootstrap(fixed_in_advance["prm"], right, seed)
    return result


def accuracy_curves(
    pools: Sequence[Pool],
    rankers: Mapping[str, StepScores],
    scoring_tokens: Mapping[str, Sequence[Sequence[int]]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The `curves` part of metrics.json: weighted votes by the last step's score, majority and oracle.

    Args:
      pools, rankers, seed: as in `selection_metrics`.
      scoring_tokens: by ranker's name, [problem][candidate], the tokens that scoring a candidate took.

    Returns:
      {"accuracy_by_n": {"n": [...], "oracle": [...], "majority": [...], ranker: [...]},
       "accuracy_by_tokens": {"majority": {"tokens": [...], "accuracy": [...]}, ranker: {...}}}; the latter is empty
      where the pools have no token counts. Tokens are means per problem.
    """
    largest = max((len(pool.answers) for pool in pools), default=0)
    by_n: dict[str, Any] = {
        "n": list(range(1, largest + 1)),
        "oracle": [pass_at_n(pools, n) for n in range(1, largest + 1)],
        "majority": accuracy_by_n(pools, "majority", seed=seed),
    }
    for name, step_scores in rankers.items():
        by_n[name] = accuracy_by_n(pools, "weighted", aggregate_all(step_scores, "last"), seed)
    by_tokens = {}
    for name in ("majority", *rankers):
        tokens = tokens_by_n(pools, (scoring_tokens or {}).get(name))
        if tokens is not None:
            by_tokens[name] = {"tokens": tokens, "accuracy": by_n[name]}
    return {"accuracy_by_n": by_n, "accuracy_by_tokens": by_tokens}


def aggregate_all(step_scores: StepScores, how: str) -> list[list[float | None]]:
    """One score per candidate of every problem (selection/aggregate.py)."""
    return [[aggregate(steps, how) for steps in candidates] for candidates in step_scores]


def _chosen_right(
    pool: Pool, rule: str, scores: Sequence[float | None], seed: int, drawn: np.ndarray | None
) -> np.ndarray:
    """Bool, [draws]: is the rule's choice among each drawn subset right? An answer is, if any candidate with it is."""
    choice = ballot(pool.answers, pool.problem_id, seed)
    choose = top_scored if rule == "best_of_n" else winners
    picked = choose(choice, scores, drawn)
    right = np.zeros(len(choice.answers) + 1, dtype=bool)  # the last entry, also index -1, is "no answer"
    np.logical_or.at(right, choice.cast, pool.outcomes)
    right[-1] = False
    return right[picked]


def _scores_by_pool(pools: Sequence[Pool], rule: str, scores: Scores | None) -> Scores:
    if rule not in ("majority", "weighted", "best_of_n"):
        raise ValueError(f"unknown rule {rule!r}: use majority, weighted or best_of_n")
    if rule == "majority":
        return [[1.0] * len(pool.answers) for pool in pools]
    if scores is None or len(scores) != len(pools):
        raise ValueError(f"rule {rule} needs scores for all {len(pools)} problems, in their order")
    return scores


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
