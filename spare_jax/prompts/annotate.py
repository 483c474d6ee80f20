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
"""What the embedded teachers were trained with: they know the rest."""

LABELS = {"CORRECT": True, "INCORRECT": False}
UNKNOWN = "UNKNOWN"
MAX_ID = 9999

_OUR_IDS = re.compile(r"\[\s*(q|[crs]\s*\d+)\s*\]", re.IGNORECASE)
_RECORD_START = re.compile(r"""\{\s*["']?student_step\b""")
_ID = re.compile(r"\[?\s*[crs]?\s*([0-9]{1,9})\s*\]?", re.IGNORECASE)
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
    """The conversation that asks for an annotation: guidelines, solved exemplars, the instance.

    `reference_steps` may be empty. Every sentence and step stands on one line (white space of any kind becomes a
    blank), and what looks like one of our ids inside it loses its brackets ("[s2]" becomes "(s2)"), so no text can
    add a line or an id; other brackets ("[3]") stay.
    """
    messages = [{"role": "system", "content": guidelines}]
    for exemplar in exemplars:
        shown = instance(task, exemplar.problem, exemplar.reference, exemplar.candidate)
        messages.append({"role": "user", "content": shown})
        messages.append({"role": "assistant", "content": format_records(exemplar.judgements)})
    messages.append({"role": "user", "content": instance(task, problem, reference_steps, candidate_steps)})
    return messages


def instance(task: "Task", problem: Problem, reference: Sequence[str], candidate: Sequence[str]) -> str:
    """Context, question, reference (which may be empty) and candidate, each on its line under its id."""
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

    A step that was `missed` has no object."""
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
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def grammar(n_steps: int) -> Grammar:
    """Exactly the texts of `n_steps` records that `format_records` could write, student_step 1 to n in order, labels
    of the two words alone."""
    return Grammar("".join((r"\[", ",".join(_RECORD % step for step in range(1, n_steps + 1)), r"\]")))


_STRING = r'"([^"\\\x00-\x1F\x7F]|\\["\\/bfnrt])*"'
_NUMBERS = r"\[([1-9][0-9]{0,2}(,[1-9][0-9]{0,2})*)?\]"
_RECORD = (
    rf'\{{"student_step":%d,"explanation":{_STRING},"context":{_NUMBERS},"steps":{_NUMBERS},"reference":{_NUMBERS},'
    rf'"errors":\[({_STRING}(,{_STRING})*)?\],"label":"(CORRECT|INCORRECT)"\}}'
)


@dataclass
class ParsedAnnotation:
    """What an annotator's text says.

    `records` is keyed by the 1-based step. `surplus` counts records about steps that do not exist, `duplicates`
    second and later records about one step (the first counts). `parsed` is False where there was no record at all.
    """

    records: dict[int, StepJudgement] = field(default_factory=dict)
    surplus: int = 0
    duplicates: int = 0
    parsed: bool = False


def parse(text: str, n_steps: int) -> ParsedAnnotation:
    """Read the records out of a model's text, whatever the text is; never raises.

    Text around the records is passed over, and a record that is no valid JSON (cut short, wrong quotes or escapes) is
    repaired where that is possible. A field of the wrong type is read as empty, a label other than the two words as
    unknown (None), and an object without a readable step number is no record.
    """
    parsed = ParsedAnnotation()
    for row in _objects(text):
        step = _id(row.get("student_step"))
        if step is None:
            continue
        parsed.parsed = True
        if not 1 <= step <= n_steps:
            parsed.surplus += 1
        elif step in parsed.records:
            parsed.duplicates += 1
        else:
            label = row.get("label")
            parsed.records[step] = StepJudgement(
                label=LABELS.get(label.strip().upper()) if isinstance(label, str) else None,
                explanation=_text(row.get("explanation")),
                context=_ids(row.get("context")),
                steps=_ids(row.get("steps")),
                reference=_ids(row.get("reference")),
                errors=tuple(error for item in _items(row.get("errors")) if (error := _text(item))),
            )
    return parsed


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Objects with a key "student_step", in the order of the text: the valid ones, and repaired ones between them."""
    gap = position = 0
    while (start := text.find("{", position)) >= 0:
        position = start + 1
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):  # no JSON; a number of more digits than int() reads; deep nesting
            continue
        if "student_step" in value:
            yield from _repaired(text[gap:start])
            yield value
            gap = position = end
    yield from _repaired(text[gap:])


def _repaired(text: str) -> Iterator[dict[str, Any]]:
    """The same from text that holds no valid record. Each broken record is repaired by itself."""
    starts = [match.start() for match in _RECORD_START.finditer(text)]
    for start, end in itertools.pairwise([*starts, len(text)]):
        try:
            value = json_repair.loads(text[start:end], skip_json_loads=True)
        except Exception:  # somebody else's parser on a model's text: whatever it stumbles on, there is no record
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and "student_step" in item:
                yield item


def _id(value: Any) -> int | None:
    """A step or sentence number from 3, 3.0, "3", "s3" or "[s3]"."""
    if isinstance(value, str) and (match := _ID.fullmatch(value.strip())):
        return int(match[1])
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    return None


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(number for item in _items(value) if (number := _id(item)) is not None and 1 <= number <= MAX_ID)


def _items(value: Any) -> list[Any]:
    """A list as it is, a lone value as a list of one, null as none."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    """A string that can be written as UTF-8 ("\\ud800" is legal in JSON and is no character); other types are empty."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""
