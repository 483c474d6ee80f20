"""The answer of a world's exact judge on one step."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Truth of one candidate step.

    `error` is the category of a wrong step, None for a right one. `context`, `steps` and `reference` are the 1-based
    ids of the context sentences, earlier candidate steps and reference steps that the step rests on or answers to;
    `explanation` sets what the step says beside what is right.
    """

    correct: bool
    error: str | None = None
    explanation: str = ""
    context: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    reference: tuple[int, ...] = ()
