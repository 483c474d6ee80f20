"""Accuracy of a policy, and of ways to choose among its samples.

A problem is missing, not wrong, where sampling failed, where it is undecided whether the chosen answer is right, or
where the ranker failed on one of the samples and so cannot rank them. A sample that states no answer is wrong.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.missing import FAILED, NO_SOLUTION, UNDECIDED, tally
from spare_jax.evaluation.statistics import bootstrap, known, mean_or_none, paired_bootstrap
from spare_jax.selection.aggregate import AGGREGATIONS, aggregate
from spare_jax.selection.best_of_n import top_scored
from spare_jax.selection.voting import ballot, winners

# A ranker's step scores: [problem][candidate][step]; None for a candidate that it failed on. (A candidate that has no
# score for another reason, as a text without steps, has an empty list or None scores, and ranks last.)
StepScores = Sequence[Sequence[Sequence[float | None] | None]]
# One score per candidate: [problem][candidate]; None for a problem whose candidates cannot be ranked.
Scores = Sequence[Sequence[float | None] | None]


@dataclasses.dataclass(frozen=True)
class Pool:
    """One problem's candidate solutions; none where sampling failed.

    `answers`: of each candidate, None where it states none; equal answers have one text, as `voting.candidates` gives
    them. `outcomes`: whether each is right, None where that is undecided. `tokens`: those that each candidate took to
    generate, `prompt_tokens` those of their shared prompt; both are needed for figures over tokens alone.
    """

    problem_id: str
    answers: tuple[str | None, ...]
    outcomes: tuple[bool | None, ...]
    tokens: tuple[int, ...] = ()
    prompt_tokens: int = 0

    def __post_init__(self):
        if len(self.answers) != len(self.outcomes) or (self.tokens and len(self.tokens) != len(self.answers)):
            raise ValueError(
                f"problem {self.problem_id}: {len(self.answers)} answers, {len(self.outcomes)} outcomes and "
                f"{len(self.tokens)} token counts; each candidate needs one of each"
            )

    @property
    def decided(self) -> list[bool]:
        """The outcomes that are known."""
        return [outcome for outcome in self.outcomes if outcome is not None]


def pass_at_1(pools: Sequence[Pool]) -> float | None:
    """The probability that one sample is right: each problem's share of right samples, averaged over problems."""
    return pass_at_n(pools, 1)


def pass_at_n(pools: Sequence[Pool], n: int) -> float | None:
    """The probability that one of n samples is right: the unbiased estimate 1 - C(wrong, n) / C(all, n) (arXiv
    2107.03374, equation 1), averaged over problems.

    Undecided samples are left out. A problem with fewer than n samples counts with all of them, one without any is left
    out.
    """
    values = []
    for outcomes in (pool.decided for pool in pools):
        if total := len(outcomes):
            size = min(n, total)
            values.append(1.0 - math.comb(total - sum(outcomes), size) / math.comb(total, size))
    return mean_or_none(values)


def macro_f1(predicted: Sequence[frozenset[str]], accepted: Sequence[frozenset[str]]) -> float | None:
    """Macro-F1 of answers that name several labels: the mean of each label's F1 over all answers; None without labels.

    Args:
      predicted, accepted: the labels of each answer. Labels that no accepted answer has are left out of the mean.
    """
    values = []
    for label in sorted(frozenset().union(*accepted)):
        hits = sum(label in a and label in b for a, b in zip(predicted, accepted, strict=True))
        named = sum(label in a for a in predicted) + sum(label in b for b in accepted)
        values.append(2 * hits / named)
    return mean_or_none(values)


def oracle(pools: Sequence[Pool]) -> float | None:
    """The share of problems with at least one right sample, the accuracy of a perfect selection; problems without a
    decided sample are left out."""
    return mean_or_none([any(pool.decided) for pool in pools if pool.decided])


def chosen_right(pools: Sequence[Pool], rule: str, scores: Scores | None = None, seed: int = 0) -> np.ndarray:
    """Whether a rule's choice among all candidates is right: float, [problems], 1.0 or 0.0, NaN where the problem is
    missing.

    Args:
      pools: the problems; one whose candidates state no answer counts as wrong.
      rule: "majority", "weighted" (sum of scores per answer) or "best_of_n".
      scores: one per candidate of each problem, for the latter two.
      seed: of the tie-breaking.

    Raises:
      ValueError: unknown rule, scores that the rule cannot use, or scores for other problems than `pools`.
    """
    per_problem = scores_by_pool(pools, rule, scores)
    values = [
        np.nan if s is None or not p.answers else right_in_draws(p, rule, s, seed, None)[0]
        for p, s in zip(pools, per_problem, strict=True)
    ]
    return np.array(values, dtype=np.float64)


def why_missing(pools: Sequence[Pool], right: np.ndarray, scores: Scores | None = None) -> list[str | None]:
    """Why each problem is missing from `right`, which `chosen_right` gave for these scores; None where it is not."""
    ranked = scores or [()] * len(pools)
    return [
        None if not np.isnan(value) else NO_SOLUTION if not pool.answers else FAILED if weights is None else UNDECIDED
        for pool, value, weights in zip(pools, right, ranked, strict=True)
    ]


def selection_metrics(pools: Sequence[Pool], rankers: Mapping[str, StepScores], seed: int = 0) -> dict[str, Any]:
    """The `selection` part of metrics.json.

    Args:
      pools: the test problems.
      rankers: name ("prm", "orm", "likelihood", ...) -> step scores in [0, 1]. A ranker with one score per solution
        gives a list of one; for the likelihood that is exp(mean_logprob), since votes need weights >= 0.
      seed: of tie-breaking and bootstrap.

    Returns:
      {"majority", "oracle", ranker: {"best_of_n": {aggregation: accuracy}, "weighted": {...}}, ...}; "n", the number of
      problems in each of these; "intervals" (statistics.bootstrap) of one sample, majority, oracle and each ranker's
      weighted vote by the last step's score; and, if there is a ranker "prm", the paired differences of that vote,
      "prm_minus_majority" and "prm_minus_<ranker>" (statistics.paired_bootstrap). Intervals and differences have
      "missing", problems by reason.
    """
    votes = chosen_right(pools, "majority", seed=seed)
    result: dict[str, Any] = {"majority": mean_or_none(votes), "oracle": oracle(pools)}
    counted: dict[str, Any] = {"majority": len(known(votes)), "oracle": sum(bool(pool.decided) for pool in pools)}
    fixed_in_advance, missing = {"majority": votes}, {"majority": why_missing(pools, votes)}
    for name, step_scores in rankers.items():
        result[name] = {"best_of_n": {}, "weighted": {}}
        counted[name] = {"best_of_n": {}, "weighted": {}}
        for aggregation in AGGREGATIONS:
            scores = aggregate_all(step_scores, aggregation)
            for rule in ("best_of_n", "weighted"):
                right = chosen_right(pools, rule, scores, seed)
                result[name][rule][aggregation] = mean_or_none(right)
                counted[name][rule][aggregation] = len(known(right))
                if rule == "weighted" and aggregation == "last":
                    fixed_in_advance[name], missing[name] = right, why_missing(pools, right, scores)
    one, bound = (np.array([f(pool.decided) if pool.decided else np.nan for pool in pools]) for f in (np.mean, any))
    undecided = why_missing(pools, one)
    sides = {"one_sample": (one, undecided), "oracle": (bound, undecided)}
    sides |= {name: (right, missing[name]) for name, right in fixed_in_advance.items()}
    result["n"] = counted
    result["intervals"] = {
        name: bootstrap(values, seed) | {"missing": tally(reasons)} for name, (values, reasons) in sides.items()
    }
    if "prm" in rankers:
        for name, right in fixed_in_advance.items():
            if name != "prm":
                either = (a or b for a, b in zip(missing["prm"], missing[name], strict=True))
                result[f"prm_minus_{name}"] = paired_bootstrap(fixed_in_advance["prm"], right, seed) | {
                    "missing": tally(either)
                }
    return result


def aggregate_all(step_scores: StepScores, aggregation: str) -> list[list[float | None] | None]:
    """One score per candidate of every problem (selection/aggregate.py); None for a problem where the ranker failed on
    a candidate, which may be the best one."""
    scores: list[list[float | None] | None] = []
    for candidates in step_scores:
        scored = [aggregate(steps, aggregation) for steps in candidates if steps is not None]
        scores.append(scored if len(scored) == len(candidates) else None)
    return scores


def right_in_draws(
    pool: Pool, rule: str, scores: Sequence[float | None], seed: int, drawn: np.ndarray | None
) -> np.ndarray:
    """Whether a rule's choice among each drawn subset of a problem's candidates is right. An answer is right if any
    candidate with it is, and undecided if all are.

    Args:
      scores: one per candidate.
      drawn: bool, [draws, candidates]: the subsets; all candidates once where None.

    Returns:
      float, [draws]: 1.0 or 0.0, NaN where the choice is undecided.
    """
    choice = ballot(pool.answers, pool.problem_id, seed)
    choose = top_scored if rule == "best_of_n" else winners
    picked = choose(choice, scores, drawn)
    right, wrong = np.zeros((2, len(choice.answers) + 1), dtype=bool)  # the last entry, also index -1, is "no answer"
    np.logical_or.at(right, choice.cast, [outcome is not None and outcome for outcome in pool.outcomes])
    np.logical_or.at(wrong, choice.cast, [outcome is not None and not outcome for outcome in pool.outcomes])
    right[-1], wrong[-1] = False, True
    return np.where(right, 1.0, np.where(wrong, 0.0, np.nan))[picked]


def scores_by_pool(pools: Sequence[Pool], rule: str, scores: Scores | None) -> Scores:
    """The weight of every candidate under a rule: its score, or 1.0 in a majority vote.

    Raises:
      ValueError: the rule is unknown, or needs scores and there is not one entry per problem.
    """
    if rule not in ("majority", "weighted", "best_of_n"):
        raise ValueError(f"unknown rule {rule!r}: use majority, weighted or best_of_n")
    if rule == "majority":
        return [[1.0] * len(pool.answers) for pool in pools]
    if scores is None or len(scores) != len(pools):
        raise ValueError(f"rule {rule} needs scores for all {len(pools)} problems, in their order")
    return scores
