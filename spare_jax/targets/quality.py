"""Which verifications are good enough to learn from. SPARK filters them (arXiv 2512.03244, stage I); how is not
published, so every rule here is a setting, and callers count what each drops. None uses the gold answer."""

from dataclasses import dataclass

from spare_jax.prompts import verify
from spare_jax.records import Judgement

REASONS = ("too_long", "malformed", "disagreement")


@dataclass(frozen=True)
class QualityFilter:
    """The rules, in the order in which they are applied.

    `max_tokens`: the longest text allowed, in generated tokens; None, any length. `grammar`: the last verification in
    the text must have one section with a verdict per step, no other sections, and a verdict on the answer. `agreement`:
    the least `Choice.agreement` (consistency.py) allowed; choices without a vote pass.
    """

    max_tokens: int | None = None
    grammar: bool = True
    agreement: float = 0.0

    def refuses(self, target: Judgement, agreement: float | None) -> str:
        """The first of REASONS for which `target`, a verification, is dropped; "" where it is kept."""
        if self.max_tokens is not None and target.generated_tokens > self.max_tokens:
            return "too_long"
        if self.grammar and not verify.parse_last(target.text, len(target.steps)).is_whole(len(target.steps)):
            return "malformed"
        return "disagreement" if agreement is not None and agreement < self.agreement else ""
