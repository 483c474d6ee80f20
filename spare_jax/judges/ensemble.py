"""Several judges as one: SPARE sees right steps and rollouts see wrong ones, so their errors complement each other.

The SPARE paper (arXiv 2506.15498) suggests such an ensemble and did not build one. Four rules need nothing but the
members' judgements; the fifth weighs them by what each was worth on solutions whose truth is known.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize

from spare_jax.records import Judgement, StepJudgement

RULES = ("agreement", "union", "intersection", "majority", "weighted")


@dataclasses.dataclass(frozen=True)
class Weights:
    """What each member's word is worth: log-odds that a step is right, per member and class of what it says.

    A member adds `right[m]` where its label is right, `wrong[m]` where it is wrong, nothing where it has none, and
    `score[m]` times (its score - 1/2) where it has one; `prior` is where nobody says anything.
    """

    members: tuple[str, ...]
    prior: float
    right: tuple[float, ...]
    wrong: tuple[float, ...]
    score: tuple[float, ...]

    def probability(self, said: Sequence[StepJudgement]) -> float:
        """The probability that a step is right, given what the members say of it."""
        return float(1 / (1 + np.exp(-(_features(said) @ self._vector()))))

    def _vector(self) -> np.ndarray:
        return np.array([self.prior, *self.right, *self.wrong, *self.score])


def fit(
    members: Mapping[str, Mapping[str, Judgement]], truths: Mapping[str, Judgement], strength: float = 1.0
) -> Weights:
    """Learn the weights by logistic regression on the steps of `truths`, with an L2 penalty of `strength`.

    Args:
      members: judgements by the member's name, then by solution; each has all solutions of `truths`.
      truths: the known labels, by solution; steps whose truth is unknown are passed over, and solutions on which a
        member failed.

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
        penalty = strength * np.concatenate([[0.0], weights[1:]])
        value = np.sum(np.logaddexp(0, logits) - y * logits) + 0.5 * penalty @ weights
        return float(value), x.T @ (p - y) + penalty

    found = scipy.optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    n = len(members)
    right, wrong, score = (tuple(map(float, found[1 + k * n : 1 + (k + 1) * n])) for k in range(3))
    return Weights(tuple(members), float(found[0]), right, wrong, score)


def combine(
    judgements: Sequence[Judgement],
    rule: str,
    weights: Weights | None = None,
    threshold: float = 0.5,
    margin: float = 0.0,
    judge: str = "ensemble",
) -> Judgement:
    """The members' judgements on one solution as one.

    agreement     a label where all members have the same one
    union         wrong where any member says wrong, right where all say right
    intersection  right where any member says right, wrong where all say wrong
    majority      what more than half of the members say; a tie of all is wrong
    weighted      wrong where the probability of being right, by `weights`, lies below `threshold`; no label where it
                  lies within `margin` of it

    A member without a label for a step may have meant either: where that would decide, there is none (abstention). The
    score is the share of members with a label that say right, or the probability; who abstains has neither. The
    evidence is that of the first member with the chosen label; tokens are summed, since all of them were spent. The
    outcome is the first one that is known. Where a member failed, so has the ensemble: its rule speaks of all of them.

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
    for said in zip(*(j.steps for j in judgements), strict=True):
        labels = [step.label for step in said]
        known = [label for label in labels if label is not None]
        score, label = None, None
        if weights is None and known:
            score, label = sum(known) / len(known), _LABEL[rule](labels)
        elif weights is not None and any(step.label is not None or step.score is not None for step in said):
            score = weights.probability(said)
            label = None if abs(score - threshold) < margin else score >= threshold
        evidence = next((step for step in said if step.label == label), StepJudgement())
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


def _majority(labels: Sequence[bool | None]) -> bool | None:
    right, wrong, half = labels.count(True), labels.count(False), len(labels) / 2
    return True if right > half else False if wrong >= half else None


_LABEL = {"agreement": _agreement, "union": _union, "intersection": _intersection, "majority": _majority}


def _features(said: Sequence[StepJudgement]) -> np.ndarray:
    """What the members say of a step as numbers: 1, says right, says wrong, score - 1/2; float64, [1 + 3 members]."""
    right = [float(step.label is True) for step in said]
    wrong = [float(step.label is False) for step in said]
    score = [0.0 if step.score is None else step.score - 0.5 for step in said]
    return np.array([1.0, *right, *wrong, *score])
