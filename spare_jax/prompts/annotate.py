"""SPARE's annotation (arXiv 2506.15498): reference, context and candidate steps under ids, one JSON record per step.

The user turn is one line per sentence or step: `[c1] ...` context sentences, `[q] ...` the question unless the
sentences are its own, `[r1] ...` reference steps, `[s1] ...` the student's steps. The answer is a compact JSON list.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import json_repair

from spare_jax.programs import Grammar
from spare_jax.prompts.chat import Message
from spare_jax.prompts.solve import one_line
from spare_jax.records import Problem, StepJudgement

if TYPE_CHECKING:
    from spare_jax.tasks.task import Exemplar, Task

BRIEF_GUIDELINES = "Grade each step."
"""The guidelines that the embedded teachers were trained with."""

LABELS = {"CORRECT": True, "INCORRECT": False}
UNKNOWN = "UNKNOWN"
MAX_ID = 9999

_OUR_IDS = re.compile(r"\[\s*(q|[crs]\s*\d+)\s*\]", re.IGNORECASE)
_RECORD_START = re.compile(r"""\{\s*["'“]?student_step\b""")
_ID = re.compile(r"\[?\s*(?:step|[crs])?\s*([0-9]{1,9})\s*\]?[.:]?", re.IGNORECASE)
# Control characters inside strings are accepted (models write raw newlines); Infinity and NaN become null.
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda _: None)


def render(
    task: "Task",
    problem: Problem,
    reference_steps: Sequence[str],
    candidate_steps: Sequence[str],
    guidelines: str,
    exemplars: Sequence["Exemplar"] = (),
) -> list[Message]:
    """The conversation that asks for an annotation: guidelines, exemplars with their answers, the instance.

    `reference_steps` may be empty. Every sentence and step is put on one line, and an id in it gets other brackets
    ("[s2]" becomes "(s2)"), so that no text can add a line or an id; other brackets ("[3]") stay.
    """
    messages = [{"role": "system", "content": guidelines}]
    for exemplar in exemplars:
        shown = instance(task, exemplar.problem, exemplar.reference, exemplar.candidate)
        messages.append({"role": "user", "content": shown})
        messages.append({"role": "assistant", "content": format_records(exemplar.judgements)})
    messages.append({"role": "user", "content": instance(task, problem, reference_steps, candidate_steps)})
    return messages


def instance(task: "Task", problem: Problem, reference: Sequence[str], candidate: Sequence[str]) -> str:
    """Context, question, reference (which may be empty) and candidate: a line per sentence or step, with its id."""
    lines = _numbered("c", task.context_sentences(problem))
    if problem.context:  # otherwise the sentences are the question's own
        lines.append(f"[q] {_line(problem.question)}")
    return "\n".join([*lines, *_numbered("r", reference), *_numbered("s", candidate)])


def _numbered(letter: str, texts: Iterable[str]) -> list[str]:
    return [f"[{letter}{i}] {_line(text)}" for i, text in enumerate(texts, 1)]


def _line(text: str) -> str:
    return _OUR_IDS.sub(r"(\1)", one_line(text))


def format_records(records: Sequence[StepJudgement]) -> str:
    """The answer that a perfect annotator gives: compact JSON, one object per step, explanation before label.

    A step that was `missed` has no object. A control character that `parse` would take for LaTeX, as the tab in
    "\\times", is written by its code point."""
    rows = [
        {
            "student_step": i,
            "explanation": record.explanation,
            "context": record.context,
            "steps": record.steps,
            "reference": record.reference,
            "errors": record.errors,
            "label": UNKNOWN if record.label is None else "CORRECT" if record.label else "INCORRECT",
        }
        for i, record in enumerate(records, 1)
        if not record.missed
    ]
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPE.sub(lambda match: _CODE_POINTS[match[0][1]] + match[0][2:] if _is_latex(match) else match[0], text)


def grammar(n_steps: int) -> Grammar:
    """The grammar of an annotation: what `format_records` writes of `n_steps` steps, in order, all labelled."""
    return Grammar("".join((r"\[", ",".join(_RECORD % step for step in range(1, n_steps + 1)), r"\]")))


_STRING = r'"([^"\\\x00-\x1F\x7F]|\\["\\/bfnrt])*"'
_NUMBERS = r"\[([1-9][0-9]{0,2}(,[1-9][0-9]{0,2})*)?\]"
_RECORD = (
    rf'\{{"student_step":%d,"explanation":{_STRING},"context":{_NUMBERS},"steps":{_NUMBERS},"reference":{_NUMBERS},'
    rf'"errors":\[({_STRING}(,{_STRING})*)?\],"label":"(CORRECT|INCORRECT)"\}}'
)


@dataclass
class ParsedAnnotation:
    """The records in an annotator's text.

    `records` is keyed by the step's number, from 1. `surplus` counts records about steps that do not exist,
    `duplicates` second and later records about a step, of which the first counts.
    """

    records: dict[int, StepJudgement] = field(default_factory=dict)
    surplus: int = 0
    duplicates: int = 0


def parse(text: str, n_steps: int) -> ParsedAnnotation:
    """Read the records in a model's text, which may be any text; never raises.

    Text around the records is ignored, and a record that is no valid JSON (cut short, wrong quotes) is repaired where
    possible. LaTeX whose backslash is not escaped is kept: "\\frac" is no form feed. A field of the wrong type is read
    as empty, a label other than the two words as unknown (None), and an object without a step number is no record.

    In linear time: at most 2 n_steps + 64 records are read, of at most 16,000 characters each, and of those that need
    repair 8,000 characters each and 64,000 in all.
    """
    parsed = ParsedAnnotation()
    for row in _objects(_escaped(text), 2 * n_steps + 64):
        step = _id(row.get("student_step"))
        if step is None:
            continue
        if not 1 <= step <= n_steps:
            parsed.surplus += 1
        elif step in parsed.records:
            parsed.duplicates += 1
        else:
            label = row.get("label")
            parsed.records[step] = StepJudgement(
                label=LABELS.get(label.strip(" \t\r\n*_`.").upper()) if isinstance(label, str) else None,
                explanation=_text(row.get("explanation")),
                context=_ids(row.get("context")),
                steps=_ids(row.get("steps")),
                reference=_ids(row.get("reference")),
                errors=tuple(error for item in _items(row.get("errors")) if (error := _text(item))),
            )
    return parsed


# A backslash in a string and what follows: an escape of JSON, or letters, which may be a LaTeX command.
_ESCAPE = re.compile(r"""\\(?:(["\\/]|u[0-9A-Fa-f]{4})|([A-Za-z]+)|.?)""", re.DOTALL)
_CODE_POINTS = {"b": "\\u0008", "f": "\\u000c", "n": "\\u000a", "r": "\\u000d", "t": "\\u0009"}
# Commands whose first letter JSON reads as a line end, a carriage return or a tab. (Those that begin with b or f need
# no list: nobody writes a backspace or a form feed.)
_LATEX = frozenset(
    re.findall(
        r"\w+",
        "nabla natural ncong ne nearrow neg neq newline nexists ngeq ngtr ni nleq nless nmid nolimits "
        "nonumber not notag notin nparallel nprec nsim nsubset nsubseteq nsucc nsupseteq nu nwarrow "
        "nleftarrow nrightarrow nRightarrow nVdash raggedright raise raisebox rangle rbrace rbrack rceil ref "
        "renewcommand rfloor rgroup rho right rightarrow rightarrowtail rightharpoondown rightharpoonup "
        "rightleftarrows rightleftharpoons rightrightarrows risingdotseq rlap rm rmoustache root rtimes rule "
        "rvert rVert table tabular tag tan tanh tau tbinom text textbf textcolor textit textnormal textrm "
        "textsc textsf textstyle textsuperscript texttt textup tfrac therefore theta thickapprox thicksim "
        "thinspace tikz tilde times tiny to top triangle triangledown triangleleft trianglelefteq triangleq "
        "triangleright trianglerighteq twoheadrightarrow",
    )
)


def _is_latex(match: re.Match[str]) -> bool:
    """Whether an escape of JSON is rather a LaTeX command whose backslash is not escaped."""
    letters = match[2] or ""
    return len(letters) > 1 and (letters[0] in "bf" or (letters[0] in "nrt" and letters in _LATEX))


def _escaped(text: str) -> str:
    """`text` with the backslashes doubled that begin a LaTeX command or no escape of JSON."""

    def mended(match: re.Match[str]) -> str:
        known = match[1] or (match[2] and match[2][0] in _CODE_POINTS and not _is_latex(match))
        return match[0] if known else "\\" + match[0]

    return _ESCAPE.sub(mended, text)


_KEY = re.compile("student_step")
_LONGEST_RECORD = 16_000
_LONGEST_REPAIR, _ALL_REPAIRS, _DEEPEST_REPAIR = 8_000, 64_000, 30


def _objects(text: str, most: int) -> Iterator[dict[str, Any]]:
    """Objects with a key "student_step", in the order of the text: valid ones, and repaired ones between them. Only the
    first `most` occurrences of the key are looked at."""
    gap, repairs = 0, [_ALL_REPAIRS]
    for key in itertools.islice(_KEY.finditer(text), most):
        if key.start() < gap:
            continue
        for start in _openings(text, max(gap, key.start() - _LONGEST_RECORD), key.start()):
            try:
                value, length = _DECODER.raw_decode(text[start : start + _LONGEST_RECORD])
            except (ValueError, RecursionError):  # no JSON; a number of more digits than int() reads; deep nesting
                continue
            if "student_step" in value:
                yield from _repaired(text[gap:start], most, repairs)
                yield value
                gap = start + length
                break
    yield from _repaired(text[gap:], most, repairs)


def _openings(text: str, start: int, end: int) -> list[int]:
    """Where the object with a key at `end` may begin: at the eight opening braces before it, the farthest first."""
    braces: list[int] = []
    while len(braces) < 8 and (end := text.rfind("{", start, end)) >= 0:
        braces.append(end)
    return braces[::-1]


def _repaired(text: str, most: int, left: list[int]) -> Iterator[dict[str, Any]]:
    """The objects in text without a valid record, each repaired by itself. `left`, a list of one, holds how many
    characters may still be repaired."""
    starts = [match.start() for match in itertools.islice(_RECORD_START.finditer(text), most)]
    for start, end in itertools.pairwise([*starts, len(text)]):
        record = _shallow(text[start : min(end, start + _LONGEST_REPAIR, start + left[0])])
        left[0] -= len(record)
        try:
            value = json_repair.loads(record, skip_json_loads=True) if record else None
        except Exception:  # a library's parser on a model's text may raise anything: there is no record then
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and "student_step" in item:
                yield item


def _shallow(text: str) -> str:
    """`text` up to where its brackets are nested deeper than in any record: there a repair would take very long."""
    depth = 0
    for match in re.finditer(r"[\[\]{}()]", text):
        depth = max(0, depth + (1 if match[0] in "[{(" else -1))
        if depth > _DEEPEST_REPAIR:
            return text[: match.start()]
    return text


def _id(value: Any) -> int | None:
    """A step or sentence number from 3, 3.0, "3", "s3", "[s3]" or "Step 3"."""
    if isinstance(value, str) and (match := _ID.fullmatch(value.strip())):
        return int(match[1])
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    return None


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(number for item in _items(value) if (number := _id(item)) is not None and 1 <= number <= MAX_ID)


def _items(value: Any) -> list[Any]:
    """A list as it is, another value as a list of one, null as an empty list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    """A string that can be written as UTF-8 ("\\ud800" is legal in JSON and is no character); other types are empty."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""
