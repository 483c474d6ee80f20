"""The answer of a world's exact judge on one step, and the form of its explanations."""

import dataclasses
import re

# "Ben: said Ada + 5 = 8, is 7"; some worlds repeat the subject: "Ada's boss: said Ben, Ada's boss is Cal".
SAID_IS = re.compile(
    r"(?P<before_right>(?:(?P<subject>[^:]+): )?said (?P<said>.+), (?:(?P=subject) )?is )(?P<right>.+)"
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Truth of one candidate step.

    `error` is the category of a wrong step, None for a right one. `explanation` sets what the step states beside what
    is right. `context`, `steps` and `reference` are the numbers, from 1, of the context sentences and earlier steps
    that the step builds on, and of the reference steps that it matches.
    """

    correct: bool
    error: str | None = None
    explanation: str = ""
    context: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    reference: tuple[int, ...] = ()
