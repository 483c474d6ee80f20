"""How often a policy, and a way of choosing among its samples, answers right.

A problem is missing, never wrong, where nobody knows: it has no samples because sampling failed, the chosen answer is
undecided, or the ranker failed on one of the samples and so cannot rank them. A sample that states no answer is wrong.
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

# A ranker's step scores: [problem][candidate][step]; None for a candidate that it failed on. (One that has no score by
# design, as a text without steps, has an empty list or None scores, and ranks last.)
StepScores = Sequence[Sequence[Sequence[float | None] | None]]
# One score per candidate: [problem][candidate]; None for a problem whose candidates cannot be ranked.
Scores = Sequence[Sequence[float | None] | None]


@dataclasses.dataclass(frozen=True)
class Pool:
    """One problem's candidate solutions: of each its answer (None for none; one text for equal answers, as by
    `voting.candidates`) and whether it is right (None where that is undecided). A problem without candidates is one
    whose sampling failed.

    `tokens` is what each candidate took to generate, `prompt_tokens` what their shared prompt holds; both may stay
    empty where no figure over tokens is wanted.
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
    """The chance that one sample is right: each problem's share of right samples, averaged over problems."""
    return pass_at_n(pools, 1)


def pass_at_n(pools: Sequence[Pool], n: int) -> float | None:
    """The chance that one of n samples is right, unbiased: 1 - C(wrong, n) / C(all, n) averaged over problems.

    Undecided samples count as if they were not there. A problem with fewer than n samples counts with all it has, one
    without any is left out.
    """
    values = []
    for outcomes in (pool.decided for pool in pools):
        if total := len(outcomes):
            size = min(n, total)
            values.append(1.0 - math.comb(total - sum(outcomes), size) / math.comb(total, size))
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
    """The share of problems with at least one right sample, of those with a decided one: what a perfect selection would
    reach."""
    return mean_or_none([any(pool.decided) for pool in pools if pool.decided])


def chosen_right(pools: Sequence[Pool], rule: str, scores: Scores | None = None, seed: int = 0) -> np.ndarray:
    """1.0 per problem where the rule's choice among all candidates is right, NaN where that is missing; float,
    [problems].

    Args:
      pools: the problems; one without any answer among its candidates counts as wrong.
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
    """Why problems are missing from what `chosen_right` has found with these scores, None where they are not."""
    ranked = scores or [()] * len(pools)
    return [
        None if not np.isnan(value) else NO_SOLUTION if not pool.answers else FAILED if of is None else UNDECIDED
        for pool, value, of in zip(pools, right, ranked, strict=True)
    ]


def selection_metrics(pools: Sequence[Pool], rankers: Mapping[str, StepScores], seed: int = 0) -> dict[str, Any]:
    """The `selection` part of metrics.json.

    Args:
      pools: the test problems.
      rankers: step scores in [0, 1] by the ranker's name ("prm", "orm", "likelihood", "prm_at_init"). A ranker that
        knows only one score for a solution gives a list of one; for the likelihood that is exp(mean_logprob), since
        votes need weights >= 0.
      seed: of tie-breaking and bootstrap.

    Returns:
      {"majority", "oracle", ranker: {"best_of_n": {aggregation: accuracy}, "weighted": {...}}, ...}; "n", the number of
      problems that each of these is over; "intervals", over problems, of one sample, of majority and oracle, and of
      each ranker's weighted vote by the last step's score; and, where there is a "prm", its paired differences
      "prm_minus_majority" and "prm_minus_<other>" (statistics.py), weighted by the last step's score on both sides.
      Intervals and differences have "missing", problems by why they are not in it.
    """
    votes = chosen_right(pools, "majority", seed=seed)
    result: dict[str, Any] = {"majority": mean_or_none(votes), "oracle": oracle(pools)}
    counted: dict[str, Any] = {"majority": len(known(votes)), "oracle": sum(bool(pool.decided) for pool in pools)}
    fixed_in_advance, missing = {"majority": votes}, {"majority": why_missing(pools, votes)}
    for name, step_scores in rankers.items():
        result[name] = {"best_of_n": {}, "weighted": {}}
        counted[name] = {"best_of_n": {}, "weighted": {}}
        for how in AGGREGATIONS:
            scores = aggregate_all(step_scores, how)
            for rule in ("best_of_n", "weighted"):
                right = chosen_right(pools, rule, scores, seed)
                result[name][rule][how] = mean_or_none(right)
                counted[name][rule][how] = len(known(right))
                if rule == "weighted" and how == "last":
                    fixed_in_advance[name], missing[name] = right, why_missing(pools, right, scores)
    one, bound = (np.array([of(pool.decided) if pool.decided else np.nan for pool in pools]) for of in (np.mean, any))
    undecided = why_missing(pools, one)
    sides = {"one_sample": (one, undecided), "oracle": (bound, undecided)}
    sides |= {name: (right, missing[name]) for name, right in fixed_in_advance.items()}
    result["n"] = counted
    result["intervals"] = {
        name: bootstrap(values, seed) | {"missing": tally(why)} for name, (values, why) in sides.items()
    }
    if "prm" in rankers:
        for name, right in fixed_in_advance.items():
            if name != "prm":
                either = (a or b for a, b in zip(missing["prm"], missing[name], strict=True))
                result[f"prm_minus_{name}"] = paired_bootstrap(fixed_in_advance["prm"], right, seed) | {
                    "missing": tally(either)
                }
    return result


def aggregate_all(step_scores: StepScores, how: str) -> list[list[float | None] | None]:
    """One score per candidate of every problem (selection/aggregate.py); None for a problem where the ranker failed on
    one of them, which may be the best."""
    found: list[list[float | None] | None] = []
    for candidates in step_scores:
        scored = [aggregate(steps, how) for steps in candidates if steps is not None]
        found.append(scored if len(scored) == len(candidates) else None)
    return found


def right_in_draws(
    pool: Pool, rule: str, scores: Sequence[float | None], seed: int, drawn: np.ndarray | None
) -> np.ndarray:
    """Is the rule's choice among each drawn subset of the candidates right? An answer is, if any candidate with it is;
    it is undecided where all candidates with it are.

    Args:
      scores: one per candidate.
      drawn: bool, [draws, candidates]; all candidates once where None.

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
