"""A text cut into lines and sentences: joining the pieces gives the text back."""

import itertools
import re
from collections.abc import Sequence

_LINE_END = re.compile(r"\n\s*")


def cut_behind(boundary: re.Pattern[str], text: str) -> tuple[str, ...]:
    """Cut `text` after every match of `boundary`, which must include the blanks that follow; joining the pieces gives
    `text` back. Blanks at the start stay with the first piece: no piece is blank unless all of `text` is.
    """
    first = len(text) - len(text.lstrip())
    ends = [match.end() for match in boundary.finditer(text)]
    cuts = [0, *(end for end in ends if first < end < len(text)), len(text)]
    return tuple(text[start:end] for start, end in itertools.pairwise(cuts) if start < end)


def split_lines(text: str) -> tuple[str, ...]:
    """One piece per line that is not blank, with its line end; joining the pieces gives `text` back."""
    return cut_behind(_LINE_END, text)


def step_texts(split: Sequence[str]) -> tuple[str, ...]:
    """The pieces of a text as steps of a record: each on one line, without blanks around it, blank ones left out."""
    lines = (" ".join(line for line in map(str.strip, piece.split("\n")) if line) for piece in split)
    return tuple(step for step in lines if step)


def line_steps(text: str) -> tuple[str, ...]:
    """One step per line, without the blanks around it; blank lines are no steps."""
    return step_texts(split_lines(text))


# A sentence may end at a line end, or after a stop and closing quotes, before something that can start a sentence.
_BOUNDARY = re.compile(r"""(?<=[.!?])["'”’)\]]*[^\S\n]+(?=["'“‘(\[]?[A-Z0-9$£€])|\n\s*""")


_ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "approx", "e.g", "i.e")


def split_sentences(text: str) -> tuple[str, ...]:
    """Cut `text` into sentences; each keeps the blanks behind it, so that joining them gives `text` back.

    No piece is blank unless all of `text` is. A line end always ends a sentence; the full stop of a title or another
    common abbreviation does not. That of a single letter does ("twice as many as jar B. How many"): in word problems
    the letter is a label far more often than an initial.
    """
    pieces, start, first = [], 0, len(text) - len(text.lstrip())
    for match in _BOUNDARY.finditer(text):
        if text[match.start()] != "\n" and ends_in_abbreviation(text, match.start()):
            continue
        if match.end() <= first:  # blanks at the start
            continue
        pieces.append(text[start : match.end()])
        start = match.end()
    return (*pieces, *([text[start:]] if start < len(text) else ()))


def ends_in_abbreviation(text: str, end: int) -> bool:
    """Whether `text[:end]` ends with the full stop of an abbreviation."""
    if end < 1 or text[end - 1] != ".":
        return False
    word = text[max(0, end - 13) : end - 1].split()[-1:]
    return bool(word) and word[0].lstrip("(\"'“‘").lower() in _ABBREVIATIONS
