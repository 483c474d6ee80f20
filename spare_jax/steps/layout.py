"""The layout of a model's text: what each line is (heading, list item, prose, ...), and which block it belongs to.

Mathematics, code and drawings are replaced by placeholders first, so that line ends within them do not count.
"""

import bisect
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

_LONGEST_FORMULA = 5000  # the longest in MATH has 2,122 characters

# The placeholders: for a character of displayed mathematics, code or a drawing, and of a formula within a line.
DISPLAY, INLINE = "\ue000", "\ue001"
_FENCE = r"^[ \t]*(`{3,}|~{3,})"
_OPENING = re.compile(
    rf"{_FENCE}[^`\n]*$|^[ \t]*(\[)[ \t]*$|(\[asy\]|\$\$|(?<!\\)\\[\[(]|(?<!\\)\$(?=\S))|\\begin\{{(\w{{1,20}}\*?)\}}"
    r"|(`)[^`\n]{1,200}`",
    re.MULTILINE,
)
_CLOSING = re.compile(
    rf"{_FENCE}[ \t]*$|^[ \t]*(\])[ \t]*$|(\[/asy\]|\$\$|\\[\])])|\\end\{{(\w{{1,20}}\*?)\}}", re.MULTILINE
)
_CLOSING_DOLLAR = re.compile(r"(?<=[^\s\\$])\$(?![0-9])")
_CLOSED_BY = {"[asy]": "[/asy]", "$$": "$$", "\\[": "\\]", "\\(": "\\)", "[": "]", "$": "$"}


def hide(text: str) -> str:
    """`text`, of the same length, with placeholders for mathematics, code and drawings, so that nothing cuts them.

    Where a formula within a line ends in a punctuation mark its last placeholder is that mark. An opening mark that is
    not closed within 5,000 characters hides nothing; code that is not closed extends to the end. A dollar sign opens a
    formula only if no blank follows, and closes one only if no blank is before and no digit behind it: "$5 and $6" are
    prices.
    """
    closing = defaultdict(list)
    for match in _CLOSING.finditer(text):
        fence, bracket, mark, name = match.groups()
        closing[fence or bracket or mark or f"end {name}"].append(match.end())
    closing["$"] = [match.end() for match in _CLOSING_DOLLAR.finditer(text)]
    shown, at = [], 0
    for match in _OPENING.finditer(text):
        if match.start() < at:
            continue
        fence, bracket, mark, name, code = match.groups()
        opened = fence or bracket or mark or name
        if code:
            end: int | None = match.end()
        else:
            key = fence or (f"end {name}" if name else _CLOSED_BY[opened])
            ends = closing[key]
            where = bisect.bisect_right(ends, match.end())
            end = ends[where] if where < len(ends) else len(text) if fence else None
        inline = bool(code) or opened in ("$", "\\(")
        too_long = not fence and end is not None and end - match.start() > _LONGEST_FORMULA
        if end is None or too_long or (inline and text.find("\n\n", match.start(), end) >= 0):
            continue
        body = text[match.end() : end].rstrip("$)\\")
        stop = body[-1] if inline and body.endswith((".", ",", ";", ":", "?")) else INLINE
        last = stop if inline else DISPLAY
        shown += [text[at : match.start()], (INLINE if inline else DISPLAY) * (end - match.start() - 1), last]
        at = end
    return "".join((*shown, text[at:]))


class Line(NamedTuple):
    """A line that is not blank: where it is, from `start` to `end` without the blanks around it, and what it is.

    `kind`: headings are "step", "title", "section" or "answer"; others "item" (of a numbered list), "bullet", "display"
    (or table), "rule", and "" for prose. `level` is a heading's, 1 the highest; `number` an item's. `spaced`: a blank
    line is before it. `bare`: it has no content of its own, only a mark or a heading. `titled`: only a title.
    """

    start: int
    end: int
    indent: int
    spaced: bool
    kind: str = ""
    level: int = 0
    number: int = 0
    bare: bool = False
    titled: bool = False


_NUMBER_WORDS = "one|two|three|four|five|six|seven|eight|nine|ten|[0-9]{1,3}"
STEP_WORD = rf"step\s*\#?\s*(?:{_NUMBER_WORDS})\b"
_NUMBERED = re.compile(
    rf"(?:{STEP_WORD}|(?:first|second|third|fourth|fifth|next|last|final)\s+step\b|\(?[0-9]{{1,3}}[.:)](?=\s|$))"
    r"[\s:.)*_–—-]*",
    re.IGNORECASE,
)
_ANSWER_TITLE = re.compile(
    r"(?:the\s+)?(?:(?:final|correct)\s+)?(?:answers?|results?|conclusions?|答案)\s*(?::|$)", re.IGNORECASE
)
_SECTION_TITLE = re.compile(
    r"(?:(?:detailed|full|complete|step[- ]by[- ]step)\s+)*"
    r"(?:solutions?|proof|explanation|reasoning|calculations?|working|steps|approach|analysis|thought process)\s*:?",
    re.IGNORECASE,
)
_BOLD = re.compile(
    r"(?:\*\*([^*\n]{1,200})\*\*|__([^_\n]{1,200})__|\\textbf\s?\{([^{}\n]{1,200})\}"
    r"|\\(?:sub)*section\*?\s?\{([^{}\n]{1,200})\})\s*(:?)\s*"
)
_ITALIC = re.compile(r"\*([^*\s][^*\n]{0,199})\*\s*$")
_HASHES = re.compile(r"(#{1,6})(?:\s+|(?=Step))(.*)")
_ANSWER_MARK = re.compile(rf"####\s*(?![0-9]{{1,3}}[.)]\s)[-+]?[$£€0-9.({INLINE}\\]")
_PLAIN_HEADING = re.compile(
    rf"({STEP_WORD}\s*(?:[:.)–—-]|$)[\s:.)–—-]*)|((?:the\s+)?(?:final\s+)?answer\s*:\s*)", re.IGNORECASE
)
_ITEM = re.compile(r"\(?([0-9]{1,3})\\?[.)](?:\s+|$)")
_BULLET = re.compile(r"(?:[-*+•–·▪◦‣]|\(?(?:[a-z]|[ivx]{2,4})\))(?:\s+|$)")
_RULE = re.compile(r"(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,}|=+|</?\w{1,20}>)$")
_OPENING_TAG = re.compile(r"<\w")
_DISPLAYED = re.compile(rf"[{DISPLAY}\s.,;:]+$")
_TABLE_RULE = re.compile(r"^[ \t]*([-|:][-|: \t]*)$", re.MULTILINE)
_LINE_START = re.compile(
    rf"\n\s*|(?<=[.!?])[^\S\n]+(?=\*{{0,2}}(?i:{STEP_WORD})[:.*]|\(?[0-9]{{1,2}}[.)][^\S\n]+[A-Z*])"
)
DRESS = " \t*_"


def lines_of(hidden: str) -> list[Line]:
    """The lines of a text after `hide`; a heading or item that begins within a line begins a new one."""
    tables = {match.start(1) for match in _TABLE_RULE.finditer(hidden) if "|" in match[1] and "-" in match[1]}
    first = len(hidden) - len(hidden.lstrip())
    starts, befores, ends = [first], [hidden[:first]], []
    for match in _LINE_START.finditer(hidden, first):
        if "\n" not in match[0] and _ITEM.fullmatch(hidden, starts[-1], match.start()):  # "1. Step 1: Add."
            continue
        ends.append(match.start())
        starts.append(match.end())
        befores.append(match[0])
    ends.append(len(hidden))
    if starts[-1] == len(hidden):
        starts, befores, ends = starts[:-1], befores[:-1], ends[:-1]
    lines: list[Line] = []
    in_table = False
    for i, (start, end, before) in enumerate(zip(starts, ends, befores, strict=True)):
        shown = hidden[start:end]
        in_table = (in_table and "|" in shown) or start in tables or (i + 1 < len(starts) and starts[i + 1] in tables)
        indent = len(before) - before.rfind("\n") - 1 if "\n" in before or not i else lines[-1].indent
        place = Line(start, end, indent, before.count("\n") > 1)
        lines.append(place._replace(kind="display") if in_table else _classified(place, shown))
    return lines


def _classified(place: Line, shown: str) -> Line:
    """The line with its kind, by its text `shown`."""
    sign = shown[0]
    if sign.isalpha() or sign == INLINE:
        if sign in "SsAaFfTt" and (match := _PLAIN_HEADING.match(shown)):
            return place._replace(kind="step" if match[1] else "answer", level=8, bare=match.end() == len(shown))
        return place._replace(bare=bool(_SECTION_TITLE.fullmatch(shown.rstrip(". "))))
    if sign == DISPLAY or sign in "-*_=<":
        if _DISPLAYED.match(shown):
            return place._replace(kind="display")
        if _RULE.match(shown):
            return place._replace(kind="" if _OPENING_TAG.match(shown) else "rule", bare=True)
    if match := _ITEM.match(shown):
        rest = shown[match.end() :].strip()
        return place._replace(kind="item", number=int(match[1]), bare=not rest, titled=_is_title(rest))
    if match := _BULLET.match(shown):
        return place._replace(kind="bullet", bare=match.end() == len(shown))
    return _heading(place, shown)


def _is_title(text: str) -> bool:
    bold = _BOLD.match(text)
    return not text or text.rstrip(DRESS).endswith(":") or bool(bold and bold.end() == len(text))


def _heading(place: Line, shown: str) -> Line:
    """The line as a heading, "## Title", "**Title**" or "**Title:** what follows", or as prose."""
    if match := _HASHES.match(shown):
        if _ANSWER_MARK.match(shown):
            return place._replace(kind="answer", level=9)
        title, level, rest = match[2].strip(DRESS + "#"), len(match[1]), ""
    elif match := _BOLD.match(shown):
        title, level, rest = next(filter(None, match.groups()[:4])).strip(), 7, shown[match.end() :]
        numbered = _NUMBERED.match(title)
        if rest and not (match[5] or title.endswith(":") or numbered):
            return place
        if not rest and not numbered and (title.endswith((".", "!", "?")) or "=" in title):
            return place
    elif (match := _ITALIC.match(shown)) and _NUMBERED.match(match[1]):
        title, level, rest = match[1], 7, ""
    else:
        return place
    if match := _NUMBERED.match(title):
        bare = not rest and match.end() == len(title)
        return place._replace(kind="step", level=level, bare=bare, titled=not rest)
    if _ANSWER_TITLE.match(title):
        kind = "answer"
        rest = rest or title.partition(":")[2]
    else:
        kind = "section" if _SECTION_TITLE.fullmatch(title) else "title"
    return place._replace(kind=kind, level=level, bare=not rest, titled=not rest)


def blocks_of(lines: Sequence[Line]) -> list[int]:
    """For each line the index of the first line of its block, a heading or an item; -1 where it is in no block."""
    following: dict[tuple[int, int], int] = {}
    has_next = [False] * len(lines)
    for i in range(len(lines) - 1, -1, -1):
        line = lines[i]
        if line.kind == "item":
            has_next[i] = following.get((line.indent, line.number + 1), 0) > 0
            following[line.indent, line.number] = i
        elif line.kind == "step" and following:
            following = {}
    lone = sum(line.kind == "title" for line in lines) + sum(line.kind == "step" for line in lines) < 2
    blocks = [-1] * len(lines)
    at = -1  # the block's first line
    for i, line in enumerate(lines):
        head = lines[at] if at >= 0 else None
        if line.kind in ("step", "answer") or (
            line.kind in ("title", "section") and not _holds(head, line, has_next, at)
        ):
            at = -1 if line.kind == "section" or (line.kind == "title" and lone) else i
        elif line.kind in ("item", "bullet"):
            if head is not None and head.kind == "title" and line.kind == "item":  # a section that holds a list
                blocks[at:i] = [-1] * (i - at)
                at = i
            elif not _holds(head, line, has_next, at):
                at = i
        elif head is not None and not _holds(head, line, has_next, at):
            at = -1
        blocks[i] = at
        if line.kind == "rule":
            at = -1
    return blocks


def _holds(head: Line | None, line: Line, has_next: Sequence[bool], at: int) -> bool:
    """Whether the block of `head`, which begins at line `at`, goes on with `line`."""
    if head is None:
        return False
    if line.kind in ("title", "section"):
        return (line.level > head.level > 0 and head.kind == "step") or (head.kind == "item" and has_next[at])
    if head.level:
        return True
    if line.indent > head.indent or line.kind in ("display", "rule"):
        return True
    if head.kind == "bullet":
        return False
    if line.kind == "item":
        return False
    return has_next[at] or head.titled or line.kind == "bullet"
