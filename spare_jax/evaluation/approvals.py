"""How often a judge approves right answers, wrong ones, and wrong ones with a repeated step."""

from collections.abc import Sequence
from typing import Any

from spare_jax.evaluation.missing import UNDECIDED, UNLABELLED, tally, why_not_judged
from spare_jax.records import Judgement, Solution


def approvals(
    solutions: Sequence[Solution], judgements: Sequence[Judgement], right: Sequence[bool | None]
) -> dict[str, Any]:
    """How many answers a judge calls right, of the right and of the wrong ones. A policy that is rewarded for the
    judge's Yes may learn to get it for wrong answers: compare the share before and after training.

    Args:
      solutions, judgements: one judgement per solution.
      right: whether the final answer is right, [solution]; None where that is undecided.

    Returns:
      {"right", "wrong", "wrong_repeating": the wrong ones with a repeated step}, each with "n", answers; "yes", those
      that the judge calls right; "sound", those of them in which it calls no step wrong. And "missing", answers that
      are in none of these, by reason.

    Raises:
      ValueError: there are not as many judgements and truths as solutions.
    """
    rows = list(zip(solutions, judgements, right, strict=True))
    missing = [_why_missing(judgement, ok) for _, judgement, ok in rows]
    items = [row for row, why in zip(rows, missing, strict=True) if not why]
    wrong = [item for item in items if not item[2]]
    return {
        "right": _counts([judgement for _, judgement, ok in items if ok]),
        "wrong": _counts([judgement for _, judgement, _ in wrong]),
        "wrong_repeating": _counts([judgement for s, judgement, _ in wrong if len(set(s.steps)) < len(s.steps)]),
        "missing": tally(missing),
    }


def _why_missing(judgement: Judgement, right: bool | None) -> str | None:
    if why := why_not_judged(judgement):
        return why
    return UNLABELLED if judgement.outcome is None else UNDECIDED if right is None else None


def _counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    approved = [judgement for judgement in judgements if judgement.outcome]
    return {"n": len(judgements), "yes": len(approved), "sound": sum(j.first_error is None for j in approved)}
