"""From the N verifications of a solution to the one that a verifier learns from (SPARK, arXiv 2512.03244, stage I).

single               the first verification, whatever the others say
outcome_consistency  y* is the majority of the Yes and No on the answer; one verification that says y* is kept
step_consistency     v_i* is the majority of the verdicts on step i; one verification whose verdicts are v* is kept

Nobody is asked and nothing of the gold is seen. A verification that failed (the verifier could not be asked, or its
text was cut off or unreadable) casts no vote and is never kept: the others decide, however few they are, and how many
those were is told (`Choice.voted`). One that left a verdict out casts no vote on that. What the paper does with ties,
without a match, and among several matches is not published: `ConsistencySettings` names our choices.
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

    `tie`: a vote that ends even drops the solution, or counts as "correct" (Yes) or "incorrect" (No). `no_match`: where
    no verification has all verdicts of step-level consistency the solution is dropped, or the "closest" is kept, the
    one with the fewest steps whose verdict is another or missing. `keep`: of several the "first" is kept, or the
    "shortest" in tokens, of these the first.
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

    `read` are the verifications that the rule looked at. `agreement` is the least share of the votes, over what the
    rule votes on, that say what the kept one says; None where there was no vote. `tied` and `unmatched` say that a vote
    ended even, or that no verification matched the consensus, whatever became of it.
    """

    kept: Judgement | None
    read: Sequence[Judgement]
    agreement: float | None = None
    tied: bool = False
    unmatched: bool = False

    @property
    def voted(self) -> int:
        """How many of the verifications that were read are verifications, and no failures."""
        return len(_readable(self.read))

    @property
    def dropped(self) -> str:
        """Which of REASONS, where nothing was kept; "failed": there was no verification, "no_verdict": there was
        nothing in them to vote with."""
        if self.kept:
            return ""
        if not self.voted:
            return FAILED
        return "no_match" if self.unmatched else "tie" if self.tied else "no_verdict"


def single(verifications: Sequence[Judgement], settings: ConsistencySettings) -> Choice:
    """The first verification, nothing where it failed: the others cost more than this rule asks for. `settings` leave
    nothing open."""
    first = verifications[:1]
    return Choice(next(iter(_readable(first)), None), first)


def outcome_consistency(verifications: Sequence[Judgement], settings: ConsistencySettings) -> Choice:
    """A verification that says of the answer what most do.

    Args:
      verifications: all of one solution, in their order; at least one.
    """
    readable = _readable(verifications)
    share = _share([said.outcome for said in readable])
    verdict = _verdict(share, settings)
    if share is None or verdict is None:
        return Choice(None, verifications, tied=share is not None)
    kept = _keep([said for said in readable if said.outcome is verdict], settings)
    agreement = share if verdict else 1 - share
    return Choice(_with_votes(kept, readable), verifications, agreement, tied=share == 0.5)


def step_consistency(verifications: Sequence[Judgement], settings: ConsistencySettings) -> Choice:
    """A verification that says of every step what most do; its verdict on the answer is not looked at.

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
        sum(step.label is not verdict for step, verdict in zip(said.steps, consensus, strict=True)) for said in readable
    ]
    fewest = min(differ)
    if fewest and settings.no_match == "drop":
        return Choice(None, verifications, tied=tied, unmatched=True)
    nearest = [said for said, count in zip(readable, differ, strict=True) if count == fewest]
    kept = _with_votes(_keep(nearest, settings), readable)
    agreements = [
        0.0 if step.label is None else share if step.label else 1 - share
        for step, share in zip(kept.steps, shares, strict=True)
    ]
    return Choice(kept, verifications, min(agreements, default=None), tied, unmatched=fewest > 0)


def _readable(verifications: Sequence[Judgement]) -> list[Judgement]:
    return [said for said in verifications if not said.failure]


def _share(labels: Sequence[bool | None]) -> float | None:
    """The share of True among the labels that there are."""
    votes = [label for label in labels if label is not None]
    return sum(votes) / len(votes) if votes else None


def _step_shares(verifications: Sequence[Judgement]) -> list[float | None]:
    return [_share([step.label for step in said]) for said in zip(*(v.steps for v in verifications), strict=True)]


def _verdict(share: float | None, settings: ConsistencySettings) -> bool | None:
    """What a vote comes to; None where nobody voted, or an even vote drops the solution."""
    return None if share is None else TIES[settings.tie] if share == 0.5 else share > 0.5


def _keep(matching: Sequence[Judgement], settings: ConsistencySettings) -> Judgement:
    return matching[0] if settings.keep == "first" else min(matching, key=lambda said: said.generated_tokens)


def _with_votes(kept: Judgement, verifications: Sequence[Judgement]) -> Judgement:
    """`kept` with the share of "correct" among the votes on each step as the step's score."""
    shares = _step_shares(verifications)
    steps = (replace(step, score=share) for step, share in zip(kept.steps, shares, strict=True))
    return replace(kept, steps=tuple(steps))
