"""The steps of a solution as language models write it: sentences, lists, headings, displayed mathematics, tables, code.

Where the writer has marked steps, by headings ("## Step 2", "**Step 2:**", "Step 2:") or by a numbered or bulleted
list, a step is a heading with all below it, or an item. Elsewhere a step is a sentence, and a line end ends a sentence.
Displayed mathematics, a table and a block of code belong to the sentence before them. A piece without content of its
own (a heading, a number, a rule, "We have:") belongs to what follows it. A sentence that states the answer at the end
of the text is a step of its own, also below a heading or in an item.
"""

import re
from collections.abc import Sequence

from spare_jax.steps.layout import DISPLAY, DRESS, INLINE, STEP_WORD, Line, blocks_of, hide, lines_of
from spare_jax.steps.lines import cut_behind, ends_in_abbreviation, split_lines, split_sentences

LONGEST = 100_000
"""Most characters of a text whose layout is read; of a longer text every line is a step."""

_TAG = re.compile(r"(?:</step>|\bки\b)\s*", re.IGNORECASE)
_BOUNDARY = re.compile(
    rf"(?:(?:(?<=[.!?])(?<!\.\.)[\"'”’)\]*_]*|(?<={DISPLAY}[.,;]))\s+|(?<={DISPLAY})\s*)"
    rf"(?=[\"'“‘(\[*_|]*[A-Z0-9$£€{INLINE}À-ÖØ-ÞΑ-ΩА-Я])|(?<=[。！？])(?=[^\s”’」』）])"
)
_MARKER = re.compile(
    rf"\W*(?:\(?(?:[0-9]{{1,3}}|[IVX]{{1,4}}|[a-z])\\?[.)]|{STEP_WORD}[.:]?|(?:solution|proof)[.:])\W*$", re.IGNORECASE
)
_SAYS = re.compile(rf"[^\W_]|[{DISPLAY}{INLINE}]")
_COUNTED = re.compile(r"\b(?:[Ff]ig|[Ee]qn?|pp?|[Cc]h|[Vv]ol|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|ft)\.$")
_INITIAL = re.compile(r"(?:^|\b(?:Mr|Mrs|Ms|Dr|Prof)\. |\b[A-Z][a-z]{1,15} |\b[A-Z]\. ?)[A-Z]\.$")
_CODA = re.compile(r"I hope (?:it|this) is correct")
_CONTINUES = re.compile(r"=|≈|≡|⇒|⟹|→|≤|≥|\\(?:implies|Rightarrow|approx|quad)\b")
_JOINS = re.compile(r"(?:where|which|and|or|with|for|since|because|giving|implying|that)\b")
_DISPLAY_ENDS = (DISPLAY, *(DISPLAY + mark for mark in ".,;"))
_LOWER = re.compile(r"[a-z]{2}")
_HARD_WRAPPED = 60  # a line of so many characters may have been broken to fit a page, in mid sentence


def split_steps(text: str) -> tuple[str, ...]:
    """Cut a solution into one piece per step, by its layout; joining the pieces gives `text` back.

    Blanks stay with the piece before them; no piece is blank unless all of `text` is. A text with tags at the ends of
    its steps ("</step>", "ки") is cut there, and one of more than `LONGEST` characters at its line ends.
    """
    if len(text) > LONGEST:
        return split_lines(text)
    if _TAG.search(text):
        return cut_behind(_TAG, text)
    hidden = hide(text)
    lines = lines_of(hidden)
    cuts = _cuts(text, hidden, lines, blocks_of(lines))
    ends = [*cuts, len(text)]
    return tuple(text[start:end] for start, end in zip([0, *cuts], ends, strict=True) if start < end)


def _cuts(text: str, hidden: str, lines: Sequence[Line], blocks: Sequence[int]) -> list[int]:
    """Where steps begin, but for the first."""
    cuts: list[int] = []
    inner: list[int] = []  # where sentences begin within the last block
    has_content = prose = listing = (
        False  # of the step so far; prose: it has a sentence; listing: a list with a lead-in
    )
    for i, line in enumerate(lines):
        begins = blocks[i] == i
        before = hidden[lines[i - 1].start : lines[i - 1].end].rstrip(DRESS) if i else ""
        free = i > 0 and blocks[i - 1] < 0
        listing = line.kind == "bullet" and ((listing and blocks[i - 1] >= 0) or (free and before.endswith((":", ","))))
        if not has_content or line.kind == "rule":
            joined = True
        elif begins or line.kind in ("section", "title"):
            joined = listing or (free and before.endswith(":"))
        elif line.kind == "display" or hidden[line.start] == DISPLAY:
            joined = prose or (_is_row(hidden, line) and _is_row(hidden, lines[i - 1]) and not line.spaced)
        else:
            joined = before.endswith((":", ",", "=")) or _goes_on(hidden, line, before, prose)
        if not joined:
            if begins or blocks[i] < 0:
                cuts.append(line.start)
                inner = []
            else:
                inner.append(line.start)
            has_content = prose = False
        if line.kind not in ("display", "rule"):
            starts = _sentence_starts(hidden, line)
            if blocks[i] < 0:
                cuts += starts
            else:
                inner += starts
            prose = True
        has_content = has_content or not line.bare
    head = lines[blocks[-1]] if lines and blocks[-1] >= 0 else None
    if cuts and not has_content:  # a heading at the end, with nothing below it
        cuts.pop()
    elif inner and head is not None and head.kind != "answer":
        spaced = any(line.start == inner[-1] and line.spaced for line in lines[-8:])
        apart = spaced and head.kind == "step"
        about = _ABOUT_ANSWER if head.titled else _ABOUT_CONCLUSION
        about_answer = not apart and about.search(text, head.start, head.end)
        if not about_answer and _states_answer(text[inner[-1] :], spaced):
            cuts.append(inner[-1])
    return cuts


def _is_row(hidden: str, line: Line) -> bool:
    """Whether a line is a row of a table."""
    return line.kind == "display" and hidden[line.start] != DISPLAY


def _goes_on(hidden: str, line: Line, before: str, prose: bool) -> bool:
    """Whether a line of prose continues the sentence of the line `before`, which does not end in a colon."""
    if not before:
        return False
    if not hidden[line.start].isalnum() and _CONTINUES.match(hidden, line.start):
        return True
    if before.endswith(_DISPLAY_ENDS):
        return bool(_LOWER.match(hidden, line.start))
    if before.endswith((".", "!", "?", ";", "。")):
        return False
    if prose and hidden[line.start] == INLINE and not hidden[line.start : line.end].strip(INLINE + " .,;"):
        return True
    wrapped = len(before) >= _HARD_WRAPPED and not line.spaced
    return bool((_LOWER if wrapped else _JOINS).match(hidden, line.start))


def _sentence_starts(hidden: str, line: Line) -> list[int]:
    """Where the sentences of a line begin, but for the first."""
    starts, start = [], line.start
    for match in _BOUNDARY.finditer(hidden, line.start, line.end):
        at = match.end()
        if _INITIAL.search(hidden, max(line.start, match.start() - 24), match.start()):
            continue
        if hidden[at].isdigit() and _COUNTED.search(hidden, max(line.start, match.start() - 8), match.start()):
            continue
        if ends_in_abbreviation(hidden, match.start()) or _CODA.match(hidden, at):
            continue
        if at - start < 20 and (not _SAYS.search(hidden, start, at) or _MARKER.match(hidden[start:at])):
            continue
        starts.append(at)
        start = at
    return starts


_CONCLUDING = (
    r"(?:so|thus|therefore|hence|finally|consequently|altogether|overall|in conclusion|to conclude|in total|as a result"
    r"|因此|所以)"
)
_ABOUT_ANSWER = re.compile(r"answer|conclu|final|result", re.IGNORECASE)
_ABOUT_CONCLUSION = re.compile(
    r"(?:state|write|give|box)\s(?:down\s)?(?:the|our)\s(?:final\s)?answer|conclusion", re.IGNORECASE
)
_STATED = re.compile(
    rf"\W*(?:{_CONCLUDING}\b[\s,:]*)*(?:(?:the|our)\s+)?(?:(?:final|correct)\s+)?(?:answers?\b|答案)|\s*####",
    re.IGNORECASE,
)
_CONCLUDED = re.compile(rf"\W*{_CONCLUDING}\b", re.IGNORECASE)
_BOXED_CONCLUSION = re.compile(rf"\W*(?:{_CONCLUDING}|the)\b", re.IGNORECASE)


def _states_answer(sentence: str, spaced: bool) -> bool:
    """Whether the last sentence of a text states the answer; `spaced`: it begins a paragraph."""
    if _STATED.match(sentence):
        return True
    if "\\boxed" in sentence and _BOXED_CONCLUSION.match(sentence):
        return True
    return spaced and bool(_CONCLUDED.match(sentence))


def split_prose(text: str) -> tuple[str, ...]:
    """Cut `text` into sentences, never within mathematics, code or a drawing; joining the pieces gives `text` back. A
    text of more than `LONGEST` characters is cut at its line ends."""
    if len(text) > LONGEST:
        return split_lines(text)
    pieces, at = [], 0
    for piece in split_sentences(hide(text)):
        pieces.append(text[at : at + len(piece)])
        at += len(piece)
    return tuple(pieces)
