"""Solutions as Math-Shepherd writes them: the question, a blank, "Step 1: ...", "Step 2: ...".

The numbers belong to the format, not to the steps: they are removed on reading and added on writing.
"""

import re

from spare_jax.records import RecordError

_FIRST = ("Step 1:", "step 1:")
_NUMBER = re.compile(r"\s*[Ss]tep ([1-9][0-9]{0,3}):")


def split_question(text: str, where: str) -> tuple[str, str]:
    """The question and the first step of a text that holds both: cut at the first "Step 1:", else at the first
    "step 1:", else, since some rows have neither, after the last question mark.

    Raises:
      RecordError: none of these is there; the message begins with `where`.
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
    """Whether a text has "Step 1:" in it; a question that has could not be split from its first step again."""
    return _FIRST[0] in text


def numbered(step: str, number: int) -> str:
    """A step with its number before it."""
    return f"Step {number}: {step}"


def unnumbered(text: str, number: int) -> str:
    """A step without the blanks around it, and without the number before it if that is `number`."""
    match = _NUMBER.match(text)
    return text[match.end() if match and number_of(text) == number else 0 :].strip()


def number_of(text: str) -> int | None:
    """The number 3 of a text that begins with "Step 3:"; None for another text."""
    match = _NUMBER.match(text)
    return int(match[1]) if match else None
