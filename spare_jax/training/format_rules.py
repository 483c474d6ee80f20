r"""The one format checker, V of SPARK (arXiv 2512.03244, stage III): is a solution in the form it was asked for?

Reward hacking shows in the form first: a policy that is paid by a model appends a second problem which it can solve,
says several answers, hides work behind the answer, or says a step twice. V = 1 iff nothing of what its rules forbid is
found; a reward is V times something, so such a solution earns nothing.

A form is a `FormatRules`. SPARK's own (TAGGED) has <step> blocks, one <answer>..</answer>, one \boxed{}, and nothing
after the answer. Its V are the last three; that a solution ends by itself, has a step and stays with one problem is
ours, and so is that it repeats none, which is looked for and not forbidden unless a config says so. The tasks of this
project write a step on each line and the answer on the last (`rules_of`).

Text is data here: whatever a model writes, `check` returns, in time linear in it.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from spare_jax.tasks.answers import stated_answer

if TYPE_CHECKING:
    from spare_jax.tasks.task import Task

# What can be wrong, in the order in which it is told.
FAILURES = (
    "cut_off",  # the solution did not end by itself
    "no_steps",
    "no_answer",
    "several_answers",
    "text_after_answer",
    "no_box",
    "several_boxes",
    "second_problem",
    "repeated_step",
)
FORBIDDEN = FAILURES[:-1]  # unless a config says otherwise

_BOX = re.compile(r"\\boxed\s?\{")
_SECOND_PROBLEM = re.compile(
    r"^[ \t#*_>]{0,9}(?:(?:new|next|another|second|similar|bonus)[ ])?(?:problem|question|exercise)"
    r"[ ]?[0-9]{0,3}[ *_]{0,4}[:.]"
    r"|\b(?:solve|consider|try|tackle)[ ](?:another|a[ ]new|a[ ]similar|the[ ]next)[ ](?:one|problem|question)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a form finds in a text: its steps, how many answers it has, and what stands behind the last one."""

    steps: tuple[str, ...]
    answers: int
    rest: str


@dataclasses.dataclass(frozen=True)
class FormatRules:
    r"""A form: `parts` takes a text apart, `boxed` says whether it must have exactly one \boxed{}, and V is 0 where one
    of the `forbidden` failures is found.

    Raises:
      ValueError: there is no such failure.
    """

    parts: Callable[[str], Parts]
    boxed: bool
    forbidden: tuple[str, ...] = FORBIDDEN

    def __post_init__(self):
        if unknown := set(self.forbidden) - set(FAILURES):
            raise ValueError(f"grpo.forbidden names {min(unknown)!r}: choose among {', '.join(FAILURES)}")


@dataclasses.dataclass(frozen=True)
class FormatCheck:
    """What is wrong with a solution's form, some of FAILURES in their order; and V, which is `valid`."""

    failures: tuple[str, ...]
    valid: bool


def check(rules: FormatRules, text: str, finish_reason: str = "stop") -> FormatCheck:
    """Whether `text`, a whole solution without its end-of-text token, has the form of `rules`."""
    parts, boxes = rules.parts(text), count_boxes(text)
    found = {
        "cut_off": finish_reason != "stop",
        "no_steps": not parts.steps,
        "no_answer": parts.answers == 0,
        "several_answers": parts.answers > 1,
        "text_after_answer": bool(parts.rest.strip()),
        "no_box": rules.boxed and boxes == 0,
        "several_boxes": rules.boxed and boxes > 1,
        "second_problem": _SECOND_PROBLEM.search(text) is not None,
        "repeated_step": len(set(parts.steps)) < len(parts.steps),
    }
    failures = tuple(name for name in FAILURES if found[name])
    return FormatCheck(failures, valid=not set(failures) & set(rules.forbidden))


def count_boxes(text: str) -> int:
    r"""How many \boxed{ a text has."""
    return sum(1 for _ in _BOX.finditer(text))


def _tagged(text: str) -> Parts:
    """SPARK's form. An answer is an opened and closed pair of tags; one that is never closed is none, and whatever tag
    of an answer stands alone beside a pair counts as another."""
    opened, closed = text.count("<answer>"), text.count("</answer>")
    _, pair, rest = text.rpartition("</answer>")
    whole = pair and "<answer>" in text[: text.index("</answer>")]
    *ended, _ = text.split("</step>")
    steps = tuple(piece.rpartition("<step>")[2].strip() for piece in ended if "<step>" in piece)
    return Parts(steps, max(opened, closed) if whole else 0, rest if whole else "")


TAGGED = FormatRules(_tagged, boxed=True)


def rules_of(task: "Task", forbidden: tuple[str, ...] = FORBIDDEN) -> FormatRules:
    r"""The form in which `task` asks for solutions: a step on each line, and the answer on the last line, once.

    What a world calls an answer its own `extract_answer` knows, of a line by itself. Elsewhere it is what
    `tasks.answers` takes for the statement of one ("The answer is", "####", \boxed{}); where the instruction asks for a
    box, there must be one.
    """
    if task.world is None:
        boxed = "\\boxed" in task.instruction
        return FormatRules(_lines(lambda line: stated_answer(line) is not None), boxed, forbidden)
    return FormatRules(_lines(lambda line: task.extract_answer((line,)) is not None), False, forbidden)


def _lines(is_answer: Callable[[str], bool]) -> Callable[[str], Parts]:
    def parts(text: str) -> Parts:
        lines = tuple(line.strip() for line in text.split("\n") if line.strip())
        answers = [i for i, line in enumerate(lines) if is_answer(line)]
        return Parts(lines, len(answers), "\n".join(lines[answers[-1] + 1 :]) if answers else "")

    return parts
