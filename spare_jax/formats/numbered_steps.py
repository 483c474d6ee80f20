"""Solutions as Math-Shepherd writes them: the question, a blank, "Step 1: ...", and a number before every step.

The numbers are the file's dress, not the steps' text: they are taken off and put on again.
"""

import re

from spare_jax.records import RecordError

_FIRST = ("Step 1:", "step 1:")
_NUMBER = re.compile(r"\s*[Ss]tep ([1-9][0-9]{0,3}):")


def split_question(text: str, where: str) -> tuple[str, str]:
    """The question and the first step of a text that holds both.

    The step begins at the first "Step 1:", else at the first "step 1:", else (some rows have neither) after the last
    question mark.

    Raises:
      RecordError: none of these is there; begins with `where`.
    """
    for mark in _FIRST:
        if mark in text:
            question, _, step = text.partition(mark)
            return question.strip(), step.strip()
    question, mark, step = text.rpartition("?")
    if not mark or not step.strip():
        raise RecordError(f"{where}: neither 'Step 1:' nor a question mark shows where the question ends")
    return (question + mark).strip(), step.strip()


def marks_first(text: str) -> bool:
    """Whether a text says "Step 1:": as a question it could not be told from its first step again."""
    return _FIRST[0] in text


def numbered(step: str, number: int) -> str:
    """A step with its number before it."""
    return f"Step {number}: {step}"


def unnumbered(text: str, number: int) -> str:
    """A step without blanks around it, and without its number if it has just that one."""
    match = _NUMBER.match(text)
    return text[match.end() if match and number_of(text) == number else 0 :].strip()


def number_of(text: str) -> int | None:
    """The number that a text begins with as a step, "Step 3: ..."; None where there is none."""
    match = _NUMBER.match(text)
    return int(match[1]) if match else None
