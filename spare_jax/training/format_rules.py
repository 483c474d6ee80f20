r"""The one format checker, V of SPARK (arXiv 2512.03244, stage III): is a solution in the form it was asked for?

Reward hacking shows in the form first: a policy that is paid by a model appends a second problem which it can solve,
says several answers, or hides work behind the answer. V = 1 iff nothing of this is found; a reward is V times
something, so such a solution earns nothing.

A form is a `FormatRules`. SPARK's own (TAGGED) has <step> blocks, one <answer>..</answer>, one \boxed{}, and nothing
after the answer. Its V are the last three; that a solution ends by itself, has a step and stays with one problem is
ours. The tasks of this project write a step on each line and the answer on the last (`rules_of`).

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
)

_BOX = re.compile(r"\\boxed\s?\{")
_SECOND_PROBLEM = re.compile(
    r"^[ \t#*_>]{0,9}(?:(?:new|next|another|second|similar|bonus)[ ])?(?:problem|question|exercise)"
    r"[ ]?[0-9]{0,3}[ *_]{0,4}[:.]"
    r"|\b(?:solve|consider|try|tackle)[ ](?:another|a[ ]new|a[ ]similar|the[ ]next)[ ](?:one|problem|question)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a form finds in a text: how many steps and answers it has, and what stands behind the last answer."""

    steps: int
    answers: int
    rest: str


@dataclasses.dataclass(frozen=True)
class FormatRules:
    r"""A form: `parts` takes a text apart, `boxed` says whether it must have exactly one \boxed{}."""

    parts: Callable[[str], Parts]
    boxed: bool


@dataclasses.dataclass(frozen=True)
class FormatCheck:
    """What is wrong with a solution's form: some of FAILURES, in their order."""

    failures: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """V."""
        return not self.failures


def check(rules: FormatRules, text: str, finish_reason: str = "stop") -> FormatCheck:
    """Whether `text`, a whole solution without its end-of-text token, has the form of `rules`."""
    parts, boxes = rules.parts(text), count_boxes(text)
    found = {
        "cut_off": finish_reason != "stop",
        "no_steps": parts.steps == 0,
        "no_answer": parts.answers == 0,
        "several_answers": parts.answers > 1,
        "text_after_answer": bool(parts.rest.strip()),
        "no_box": rules.boxed and boxes == 0,
        "several_boxes": rules.boxed and boxes > 1,
        "second_problem": _SECOND_PROBLEM.search(text) is not None,
    }
    return FormatCheck(tuple(name for name in FAILURES if found[name]))


def count_boxes(text: str) -> int:
    r"""How many \boxed{ a text has."""
    return sum(1 for _ in _BOX.finditer(text))


def _tagged(text: str) -> Parts:
    """SPARK's form. An answer is an opened and closed pair of tags; one that is never closed is none, and whatever tag
    of an answer stands alone beside a pair counts as another."""
    opened, closed = text.count("<answer>"), text.count("</answer>")
    _, pair, rest = text.rpartition("</answer>")
    whole = pair and "<answer>" in text[: text.index("</answer>")]
    steps = min(text.count("<step>"), text.count("</step>"))
    return Parts(steps, max(opened, closed) if whole else 0, rest if whole else "")


TAGGED = FormatRules(_tagged, boxed=True)


def rules_of(task: "Task") -> FormatRules:
    r"""The form in which `task` asks for solutions: a step on each line, and the answer on the last line, once.

    What a world calls an answer its own `extract_answer` knows, of a line by itself. Elsewhere it is what
    `tasks.answers` takes for the statement of one ("The answer is", "####", \boxed{}); where the instruction asks for a
    box, there must be one.
    """
    if task.world is None:
        return _lines(lambda line: stated_answer(line) is not None, boxed="\\boxed" in task.instruction)
    return _lines(lambda line: task.extract_answer((line,)) is not None, boxed=False)


def _lines(is_answer: Callable[[str], bool], boxed: bool) -> FormatRules:
    def parts(text: str) -> Parts:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        answers = [i for i, line in enumerate(lines) if is_answer(line)]
        return Parts(len(lines), len(answers), "\n".join(lines[answers[-1] + 1 :]) if answers else "")

    return FormatRules(parts, boxed)
