"""From the N verifications of a solution to the one that a verifier learns from (SPARK, arXiv 2512.03244, stage I).

single               the first verification, whatever the others are
outcome_consistency  y* is the majority of the verdicts (Yes or No) on the answer; a verification with y* is kept
step_consistency     v_i* is the majority of the verdicts on step i; a verification with all verdicts v* is kept

The gold answer is not used. A verification that failed (the verifier could not be asked, or its text was cut off or
unreadable) has no vote and is never kept; `Choice.voted` counts the others. One that left a verdict out has no vote on
that. What the paper does with ties, without a match, and among several matches is not published: `ConsistencySettings`
has a setting for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spare_jax.records import Judgement

TIES: dict[str, bool | None] = {"drop": None, "correct": True, "incorrect": False}
NO_MATCH = ("drop", "closest")
KEEP = ("first", "shortest")
FAILED = "failed"
REASONS = (FAILED, "no_verdict", "tie", "no_match")


@dataclass(frozen=True)
class ConsistencySettings:
    """What the rules leave open.

    `tie`: an even vote drops the solution, or counts as "correct" (Yes) or "incorrect" (No). `no_match`: where no
    verification has all verdicts v* the solution is dropped, or the "closest" is kept, in which the fewest verdicts
    differ or are missing. `keep`: of several matches the "first" is kept, or the "shortest" in tokens.
    """

    tie: str = "drop"
    no_match: str = "drop"
    keep: str = "first"

    def __post_init__(self):
        for key, known in (("tie", TIES), ("no_match", NO_MATCH), ("keep", KEEP)):
            if getattr(self, key) not in known:
                raise ValueError(
                    f"config.spark.{key}={getattr(self, key)!r} is unknown: choose among {', '.join(known)}"
                )


@dataclass(frozen=True)
class Choice:
    """The verification that a rule keeps, None where it drops the solution.

    `read`: the verifications that the rule looks at. `agreement`: the share of the votes that agree with the kept one,
    the least over all that is voted on; None without a vote. `tied`: a vote was even; `unmatched`: no verification
    matched the consensus; both also where the settings then kept one.
    """

    kept: Judgement | None
    read: Sequence[Judgement]
    agreement: float | None = None
    tied: bool = False
    unmatched: bool = False

    @property
    def voted(self) -> int:
        """How many of the verifications `read` did not fail."""
        return len(_readable(self.read))

    @property
    def dropped(self) -> str:
        """Which of REASONS nothing was kept for, "" where something was; "failed": all verifications failed,
        "no_verdict": a vote had no votes."""
        if self.kept:
            return ""
        if not self.voted:
            return FAILED
        return "no_match" if self.unmatched else "tie" if self.tied else "no_verdict"


def single(verifications: Sequence[Judgement], settings: ConsistencySettings) -> Choice:
    """The first verification, or none where that failed. The settings have no effect."""
    first = verifications[:1]
    return Choice(next(iter(_readable(first)), None), first)


def outcome_consistency(verifications: Sequence[Judgement], settings: ConsistencySettings) -> Choice:
    """A verification with the majority's verdict on the answer.

    Args:
      verifications: all of one solution, in their order; at least one.
    """
    readable = _readable(verifications)
    share = _share([verification.outcome for verification in readable])
    verdict = _verdict(share, settings)
    if share is None or verdict is None:
        return Choice(None, verifications, tied=share is not None)
    kept = _keep([verification for verification in readable if verification.outcome is verdict], settings)
    agreement = share if verdict else 1 - share
    return Choice(_with_votes(kept, readable), verifications, agreement, tied=share == 0.5)


def step_consistency(verifications: Sequence[Judgement], settings: ConsistencySettings) -> Choice:
    """A verification with the majority's verdict on every step, whatever its verdict on the answer.

    Args:
      verifications: all of one solution, in their order; at least one.
    """
    readable = _readable(verifications)
    shares = [share for share in _step_shares(readable) if share is not None]
    consensus = [_verdict(share, settings) for share in shares]
    if not readable or len(shares) < len(readable[0].steps):
        return Choice(None, verifications)
    tied = 0.5 in shares
    if None in consensus:
        return Choice(None, verifications, tied=tied)
    differ = [
        sum(step.label is not verdict for step, verdict in zip(verification.steps, consensus, strict=True))
        for verification in readable
    ]
    fewest = min(differ)
    if fewest and settings.no_match == "drop":
        return Choice(None, verifications, tied=tied, unmatched=True)
    nearest = [verification for verification, count in zip(readable, differ, strict=True) if count == fewest]
    kept = _with_votes(_keep(nearest, settings), readable)
    agreements = [
        0.0 if step.label is None else share if step.label else 1 - share
        for step, share in zip(kept.steps, shares, strict=True)
    ]
    return Choice(kept, verifications, min(agreements, default=None), tied, unmatched=fewest > 0)


def _readable(verifications: Sequence[Judgement]) -> list[Judgement]:
    return [verification for verification in verifications if not verification.failure]


def _share(labels: Sequence[bool | None]) -> float | None:
    """The share of True among the labels that are not None; None where all are."""
    votes = [label for label in labels if label is not None]
    return sum(votes) / len(votes) if votes else None


def _step_shares(verifications: Sequence[Judgement]) -> list[float | None]:
    return [
        _share([step.label for step in verification])
        for verification in zip(*(v.steps for v in verifications), strict=True)
    ]


def _verdict(share: float | None, settings: ConsistencySettings) -> bool | None:
    """The result of a vote by its share of True; None without votes, or where an even vote drops the solution."""
    return None if share is None else TIES[settings.tie] if share == 0.5 else share > 0.5


def _keep(matching: Sequence[Judgement], settings: ConsistencySettings) -> Judgement:
    return (
        matching[0]
        if settings.keep == "first"
        else min(matching, key=lambda verification: verification.generated_tokens)
    )


def _with_votes(kept: Judgement, verifications: Sequence[Judgement]) -> Judgement:
    """`kept`, with the share of votes for "correct" on each step as its score."""
    shares = _step_shares(verifications)
    steps = (replace(step, score=share) for step, share in zip(kept.steps, shares, strict=True))
    return replace(kept, steps=tuple(steps))
