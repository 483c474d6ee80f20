"""How often a policy, and a way of choosing among its samples, answers right."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.statistics import bootstrap, mean_or_none, paired_bootstrap
from spare_jax.selection.aggregate import AGGREGATIONS, aggregate
from spare_jax.selection.best_of_n import top_scored
from spare_jax.selection.voting import ballot, winners

# A ranker's step scores: [problem][candidate][step].
StepScores = Sequence[Sequence[Sequence[float | None]]]
# One score per candidate: [problem][candidate].
Scores = Sequence[Sequence[float | None]]


@dataclasses.dataclass(frozen=True)
class Pool:
    """One problem's candidate solutions: of each its answer (None for none; one text for equal answers, as by
    `voting.candidates`) and whether it is right.

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
    per_problem = scores_by_pool(pools, rule, scores)
    values = [right_in_draws(p, rule, s, seed, None)[0] for p, s in zip(pools, per_problem, strict=True)]
    return np.array(values, dtype=np.float64)


def selection_metrics(pools: Sequence[Pool], rankers: Mapping[str, StepScores], seed: int = 0) -> dict[str, Any]:
    """The `selection` part of metrics.json.

    Args:
      pools: the test problems.
      rankers: step scores in [0, 1] by the ranker's name ("prm", "orm", "likelihood", "prm_at_init"). A ranker that
        knows only one score for a solution gives a list of one; for the likelihood that is exp(mean_logprob), since
        votes need weights >= 0.
      seed: of tie-breaking and bootstrap.

    Returns:
      {"majority", "oracle", ranker: {"best_of_n": {aggregation: accuracy}, "weighted": {...}}, ...}; "intervals", over
      problems, of one sample, of majority and oracle, and of each ranker's weighted vote by the last step's score; and,
      where there is a "prm", its paired differences "prm_minus_majority" and "prm_minus_<other>" (statistics.py),
      weighted by the last step's score on both sides.
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
    sampled = [pool.outcomes for pool in pools if pool.outcomes]
    one, bound = ([float(of(outcomes)) for outcomes in sampled] for of in (np.mean, any))
    result["intervals"] = {
        name: bootstrap(values, seed)
        for name, values in {"one_sample": one, "oracle": bound, **fixed_in_advance}.items()
    }
    if "prm" in rankers:
        for name, right in fixed_in_advance.items():
            if name != "prm":
                result[f"prm_minus_{name}"] = paired_bootstrap(fixed_in_advance["prm"], right, seed)
    return result


def aggregate_all(step_scores: StepScores, how: str) -> list[list[float | None]]:
    """One score per candidate of every problem (selection/aggregate.py)."""
    return [[aggregate(steps, how) for steps in candidates] for candidates in step_scores]


def right_in_draws(
    pool: Pool, rule: str, scores: Sequence[float | None], seed: int, drawn: np.ndarray | None
) -> np.ndarray:
    """Is the rule's choice among each drawn subset of the candidates right? An answer is, if any candidate with it is.

    Args:
      scores: one per candidate.
      drawn: bool, [draws, candidates]; all candidates once where None.

    Returns:
      bool, [draws].
    """
    choice = ballot(pool.answers, pool.problem_id, seed)
    choose = top_scored if rule == "best_of_n" else winners
    picked = choose(choice, scores, drawn)
    right = np.zeros(len(choice.answers) + 1, dtype=bool)  # the last entry, also index -1, is "no answer"
    np.logical_or.at(right, choice.cast, pool.outcomes)
    right[-1] = False
    return right[picked]


def scores_by_pool(pools: Sequence[Pool], rule: str, scores: Scores | None) -> Scores:
    """What a rule counts for every candidate: its score, or 1.0 in a majority vote.

    Raises:
      ValueError: unknown rule, or no scores for just these problems.
    """
    if rule not in ("majority", "weighted", "best_of_n"):
        raise ValueError(f"unknown rule {rule!r}: use majority, weighted or best_of_n")
    if rule == "majority":
        return [[1.0] * len(pool.answers) for pool in pools]
    if scores is None or len(scores) != len(pools):
        raise ValueError(f"rule {rule} needs scores for all {len(pools)} problems, in their order")
    return scores
