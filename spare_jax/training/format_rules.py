r"""The one format checker, V of SPARK (arXiv 2512.03244, stage III): is a solution in the form it was asked for?

Reward hacking shows in the form first: a policy that is paid by a model appends a second problem which it can solve,
states several answers, writes on behind the answer, or repeats a step. V is 1 where nothing that the rules forbid is
found, else 0; every reward is multiplied by it.

A form is a `FormatRules`. SPARK's own (TAGGED) has <step> blocks, one <answer>..</answer>, one \boxed{}, and nothing
after the answer; SPARK's V checks the last three. Ours also checks that a solution ends by itself, has a step, stays
with one problem and repeats no step; a repeated step makes V 0 only where a config forbids it. The tasks of this
project write a step on each line and the answer on the last (`rules_of`).

`check` never fails, whatever a model writes, and takes time linear in the text.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from spare_jax.tasks.answers import LONGEST_ANSWER, braced, stated_answer

if TYPE_CHECKING:
    from spare_jax.tasks.task import Task

# What can be wrong, in the order in which it is listed.
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
FORBIDDEN = tuple(name for name in FAILURES if name != "repeated_step")  # unless a config says otherwise

_BOX = re.compile(r"\\boxed\s?\{")
_SECOND_PROBLEM = re.compile(
    r"^[ \t#*_>]{0,9}(?:(?:new|next|another|second|similar|bonus)[ ])?(?:problem|question|exercise)"
    r"[ ]?[0-9]{0,3}[ *_]{0,4}[:.]"
    r"|\b(?:solve|consider|try|tackle)[ ](?:another|a[ ]new|a[ ]similar|the[ ]next)[ ](?:one|problem|question)"
    r"|\b(?:new|next|another|second|similar|bonus)[ ](?:problem|question|exercise)[ ]?[0-9]{0,3}:",
    re.IGNORECASE | re.MULTILINE,
)
# The end of a sentence before another one; "St. Louis" and "J. R. Smith" have none.
_NEXT_SENTENCE = re.compile(r"(?:[0-9]|[a-z]{4}|[)}\]$%\"'])[.!?]\s+(?=\S)")
# What closes a formula behind its box.
_CLOSING = re.compile(r"\\end\{[a-z]{1,20}\*?\}|[$\\\])*.\s]")


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of a text: its steps, the number of its answers, and the text behind the last one."""

    steps: tuple[str, ...]
    answers: int
    rest: str


@dataclasses.dataclass(frozen=True)
class FormatRules:
    r"""A form: `parts` splits a text, `boxed` says whether exactly one \boxed{} must be in it, and V is 0 where one of
    the `forbidden` failures is found.

    Raises:
      ValueError: `forbidden` names something that is not in FAILURES.
    """

    parts: Callable[[str], Parts]
    boxed: bool
    forbidden: tuple[str, ...] = FORBIDDEN

    def __post_init__(self):
        if unknown := set(self.forbidden) - set(FAILURES):
            raise ValueError(f"grpo.forbidden names {min(unknown)!r}: choose among {', '.join(FAILURES)}")


@dataclasses.dataclass(frozen=True)
class FormatCheck:
    """The failures of a solution's form, in the order of FAILURES; `valid`, which is V; and its number of boxes."""

    failures: tuple[str, ...]
    valid: bool
    boxes: int


def check(rules: FormatRules, text: str, finish_reason: str = "stop") -> FormatCheck:
    """Whether `text`, a whole solution without its end-of-text token, has the form of `rules`."""
    parts, boxes = rules.parts(text), len(_BOX.findall(text))
    wrong = {
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
    failures = tuple(name for name in FAILURES if wrong[name])
    return FormatCheck(failures, not set(failures) & set(rules.forbidden), boxes)


def _tagged(text: str) -> Parts:
    """SPARK's form. An answer is a pair of an opening and a closing tag. Without a pair there is no answer; beside a
    pair every further opening or closing tag counts as another answer."""
    opened, closed = text.count("<answer>"), text.count("</answer>")
    _, pair, rest = text.rpartition("</answer>")
    whole = pair and "<answer>" in text[: text.index("</answer>")]
    *ended, _ = text.split("</step>")
    steps = tuple(piece.rpartition("<step>")[2].strip() for piece in ended if "<step>" in piece)
    return Parts(steps, max(opened, closed) if whole else 0, rest if whole else "")


TAGGED = FormatRules(_tagged, boxed=True)


def rules_of(task: "Task", forbidden: tuple[str, ...] = FORBIDDEN) -> FormatRules:
    r"""The form in which `task` asks for solutions: a step on each line, and the answer on the last line, once.

    In a task of a world a line states an answer if the world's `extract_answer` finds one in it. In other tasks it does
    if `tasks.answers` finds one ("The answer is", "####", \boxed{}); where the instruction asks for a box, the answer
    is the last box, and there must be one. Text after the answer's sentence stands behind the answer.
    """
    if task.world is None:
        boxed = "\\boxed" in task.instruction
        return FormatRules(_boxed if boxed else _stated, boxed, forbidden)
    extract = task.extract_answer
    return FormatRules(
        lambda text: _lines(text, lambda line: None if extract((line,)) is None else ""), False, forbidden
    )


def _lines(text: str, behind_answer: Callable[[str], str | None]) -> Parts:
    """A step on each line. `behind_answer` returns the text behind the answer in a line, None where it states none."""
    lines = tuple(line.strip() for line in text.split("\n") if line.strip())
    answers = {i: behind for i, line in enumerate(lines) if (behind := behind_answer(line)) is not None}
    last = max(answers, default=len(lines))
    return Parts(lines, len(answers), "\n".join([answers.get(last, ""), *lines[last + 1 :]]))


def _stated(text: str) -> Parts:
    def behind(line: str) -> str | None:
        stated = stated_answer(line)
        return None if stated is None else _behind_sentence(stated)

    return _lines(text, behind)


def _boxed(text: str) -> Parts:
    """The last box is the answer; where there is no whole box, as `_stated`."""
    parts = _stated(text)
    *_, box = None, *_BOX.finditer(text)
    inside = box and braced(text[box.end() : box.end() + LONGEST_ANSWER])
    if not box or inside is None:
        return parts
    line, _, rest = text[box.end() + len(inside) :].partition("\n")
    rest = f"{_behind_sentence(line)}\n{rest}"
    return Parts(parts.steps, 1, rest if _CLOSING.sub("", rest) else "")


def _behind_sentence(line: str) -> str:
    """The text behind the first sentence of a line."""
    _, *rest = _NEXT_SENTENCE.split(line, maxsplit=1)
    return "".join(rest)
