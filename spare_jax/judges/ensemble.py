"""Ensembles: the judgements of several judges on one solution as one.

The SPARE paper (arXiv 2506.15498) suggests to combine SPARE, which is better at right steps, with rollouts, which are
better at wrong ones, and does not do it. Four rules need nothing but the members' judgements; the fifth, "weighted", is
a logistic regression that is fitted on solutions whose true labels are known.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize

from spare_jax.records import Judgement, StepJudgement

RULES = ("agreement", "union", "intersection", "majority", "weighted")


@dataclasses.dataclass(frozen=True)
class Weights:
    """The coefficients of the regression: the log-odds that a step is right, given the members' judgements of it.

    They are `prior`, plus per member m: `right[m]` if its label is right or `wrong[m]` if it is wrong, and `score[m]`
    times (its score - 1/2) if it has a score.
    """

    members: tuple[str, ...]
    prior: float
    right: tuple[float, ...]
    wrong: tuple[float, ...]
    score: tuple[float, ...]

    def probability(self, votes: Sequence[StepJudgement]) -> float:
        """The probability that a step is right, given each member's StepJudgement of it."""
        return float(1 / (1 + np.exp(-(_features(votes) @ self._vector()))))

    def _vector(self) -> np.ndarray:
        return np.array([self.prior, *self.right, *self.wrong, *self.score])


def fit(members: Mapping[str, Mapping[str, Judgement]], truths: Mapping[str, Judgement]) -> Weights:
    """Fit the weights by logistic regression on the labelled steps of `truths`, with an L2 penalty of weight 1.

    Args:
      members: the judgements of each member, by its name and then by solution id.
      truths: the true labels, by solution id. Steps without a label are left out, and solutions on which a member
        failed.

    Raises:
      ValueError: a member has not judged a solution, or there is no labelled step.
    """
    rows, labels = [], []
    for solution_id, truth in truths.items():
        judged = []
        for name, judgements in members.items():
            if solution_id not in judgements:
                raise ValueError(f"ensemble: judge {name!r} has no judgement of solution {solution_id!r}: run it first")
            judged.append(judgements[solution_id])
        if any(judgement.failure for judgement in judged):
            continue
        for i, real in enumerate(truth.steps):
            if real.label is not None:
                rows.append(_features([judgement.steps[i] for judgement in judged]))
                labels.append(real.label)
    if not rows:
        raise ValueError("ensemble: the truth set has no labelled step: name another one")
    x, y = np.stack(rows), np.asarray(labels, dtype=np.float64)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = x @ weights
        p = 1 / (1 + np.exp(-logits))
        penalty = np.concatenate([[0.0], weights[1:]])
        value = np.sum(np.logaddexp(0, logits) - y * logits) + 0.5 * penalty @ weights
        return float(value), x.T @ (p - y) + penalty

    fitted = scipy.optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    n = len(members)
    right, wrong, score = (tuple(map(float, fitted[1 + k * n : 1 + (k + 1) * n])) for k in range(3))
    return Weights(tuple(members), float(fitted[0]), right, wrong, score)


def combine(
    judgements: Sequence[Judgement],
    rule: str,
    weights: Weights | None = None,
    threshold: float = 0.5,
    margin: float = 0.0,
    judge: str = "ensemble",
) -> Judgement:
    """The members' judgements of one solution as one, by a rule that labels each step:

    agreement     the label that all members have
    union         wrong if any member says wrong, right if all say right
    intersection  right if any member says right, wrong if all say wrong
    majority      the label of more than half of the members; wrong if half of them say wrong
    weighted      right if the probability of being right, by `weights`, is at least `threshold`; no label if it is
                  closer than `margin` to it

    A step has no label (abstention) if the missing label of a member could change the result. A step's score is the
    share that says right of the members with a label, or the probability; without a label there is no score.
    Explanation and references are those of the first member with the chosen label. Tokens are summed over the members.
    The outcome is that of the first member that has one. If a member failed, the ensemble has failed too.

    Raises:
      ValueError: unknown rule, no members, members that judged different solutions, or a rule without its weights.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r} of an ensemble: use one of {', '.join(RULES)}")
    if not judgements or len({(j.solution_id, len(j.steps)) for j in judgements}) != 1:
        raise ValueError("an ensemble needs judgements of the same solution, with as many steps each")
    if (rule == "weighted") != (weights is not None and weights.members == tuple(j.judge for j in judgements)):
        raise ValueError("rule weighted, and no other, needs the weights of these members: fit them on a truth set")
    read, written = sum(j.prompt_tokens for j in judgements), sum(j.generated_tokens for j in judgements)
    if failures := [f"{j.judge}: {j.failure}" for j in judgements if j.failure]:
        nothing = (StepJudgement(),) * len(judgements[0].steps)
        return Judgement(
            judgements[0].solution_id,
            judge,
            nothing,
            parsed=False,
            prompt_tokens=read,
            generated_tokens=written,
            failure="; ".join(failures),
        )
    steps = []
    for votes in zip(*(j.steps for j in judgements), strict=True):
        labels = [step.label for step in votes]
        known = [label for label in labels if label is not None]
        score, label = None, None
        if weights is None and known:
            score, label = sum(known) / len(known), _LABEL[rule](labels)
        elif weights is not None and any(step.label is not None or step.score is not None for step in votes):
            score = weights.probability(votes)
            label = None if abs(score - threshold) < margin else score >= threshold
        evidence = next((step for step in votes if step.label == label), StepJudgement())
        steps.append(StepJudgement() if label is None else dataclasses.replace(evidence, label=label, score=score))
    return Judgement(
        solution_id=judgements[0].solution_id,
        judge=judge,
        steps=tuple(steps),
        outcome=next((j.outcome for j in judgements if j.outcome is not None), None),
        prompt_tokens=read,
        generated_tokens=written,
    )


def _agreement(labels: Sequence[bool | None]) -> bool | None:
    return labels[0] if len(set(labels)) == 1 else None


def _union(labels: Sequence[bool | None]) -> bool | None:
    return False if False in labels else None if None in labels else True


def _intersection(labels: Sequence[bool | None]) -> bool | None:
    return True if True in labels else None if None in labels else False


def _more_than_half(labels: Sequence[bool | None]) -> bool | None:
    right, wrong, half = labels.count(True), labels.count(False), len(labels) / 2
    return True if right > half else False if wrong >= half else None


_LABEL = {"agreement": _agreement, "union": _union, "intersection": _intersection, "majority": _more_than_half}


def _features(votes: Sequence[StepJudgement]) -> np.ndarray:
    """float64 [1 + 3 members]: 1; whether each member says right; whether it says wrong; its score - 1/2, or 0."""
    right = [float(step.label is True) for step in votes]
    wrong = [float(step.label is False) for step in votes]
    score = [0.0 if step.score is None else step.score - 0.5 for step in votes]
    return np.array([1.0, *right, *wrong, *score])
