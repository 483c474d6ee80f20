"""Which verifications are good enough to learn from. SPARK filters them too (arXiv 2512.03244, stage I); how is not
published, so every rule here is a setting, and what each one drops is counted. None of them knows an answer."""

from dataclasses import dataclass

from spare_jax.prompts import verify
from spare_jax.records import Judgement

REASONS = ("too_long", "malformed", "disagreement")


@dataclass(frozen=True)
class QualityFilter:
    """The rules, in the order in which they are asked.

    `max_tokens`: the longest text, in tokens as they were generated (None: any length). `grammar`: the last
    verification of the text, the one that everybody reads, is whole: one section with a verdict per step, none about
    another step, and a verdict on the answer. `agreement`: the least `Choice.agreement` (consistency.py); where
    nobody voted there is none to ask for.
    """

    max_tokens: int | None = None
    grammar: bool = True
    agreement: float = 0.0

    def refuses(self, target: Judgement, agreement: float | None) -> str:
        """The first of REASONS that holds against `target`, which has one judged step per step; "" where none does."""
        if self.max_tokens is not None and target.generated_tokens > self.max_tokens:
            return "too_long"
        if self.grammar and not verify.parse_last(target.text, len(target.steps)).is_whole(len(target.steps)):
            return "malformed"
        return "disagreement" if agreement is not None and agreement < self.agreement else ""
