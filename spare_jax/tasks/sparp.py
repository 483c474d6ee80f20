"""SpaRP: spatial relations with their reasoning paths, several of which may hold at once (arXiv 2406.04566).

Read from a directory with train.json and test.json, or from the hub, as published (UKPLab/sparp, one configuration per
part): `context`, `question`, `targets` (all relations that hold), `target_choices`, `reasoning`. An answer is the set
of its relations: it is right if all are there and no other.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spare_jax.jsonlines import StoreError
from spare_jax.records import Gold, Problem, RecordError
from spare_jax.tasks import stepgame
from spare_jax.tasks.source import read_split
from spare_jax.tasks.task import Task, line_steps, split_sentences

SPLITS = {"train": "train.json", "test": "test.json"}

INSTRUCTION = (
    "Find all relations that hold, step by step. Write one step on each line: what you take from the context, or what "
    "follows from earlier steps. End with a line that says: The answer is, and all relations, with commas between them."
)

_STATED = re.compile(r"\banswers?(?: to the question)?(?: is| are|:)\s*(.+)", re.IGNORECASE)
_PARTED = re.compile(r",|;|\band\b(?!\s+touch)")  # "inside and touching" is one relation
_STEP = re.compile(r"(?<=\S)\s+(?=Step \d+:)")


def task() -> Task:
    """The task's texts and functions."""
    return Task(
        name="sparp",
        instruction=INSTRUCTION,
        guidelines=stepgame.GUIDELINES,
        error_categories=stepgame.ERROR_CATEGORIES,
        extract_answer=extract_answer,
        answers_equal=lambda answer, accepted: answer in accepted,
        classes=classes,
    )


def extract_answer(steps: Sequence[str]) -> str | None:
    """The relations behind the last "the answer is" in alphabetical order, "above, left"; None where there are none."""
    for step in reversed(steps):
        if match := _STATED.search(step):
            return canonical(_PARTED.split(match[1])) or None
    return None


def canonical(relations: Sequence[str]) -> str:
    """A set of relations as a text: lower case, without other signs than "-", in alphabetical order."""
    plain = (" ".join(re.sub(r"[^\w\s-]|_", " ", relation.lower()).split()) for relation in relations)
    return ", ".join(sorted({relation for relation in plain if relation}))


def classes(answer: str | None) -> frozenset[str]:
    """The relations of an answer in the form of `extract_answer`."""
    return frozenset(answer.split(", ")) if answer else frozenset()


def split_steps(text: str) -> tuple[str, ...]:
    """One step per line, or per "Step 2:"."""
    return line_steps(_STEP.sub("\n", text))


def load(
    path: str | Path, split: str, on_error: str = "raise", malformed: list[str] | None = None
) -> Iterator[tuple[Problem, Gold]]:
    """Read one split in its order; a problem's id holds its line number, "sparp-test-00001".

    Every sentence of the context is a context sentence; the choices stand behind the question. A reasoning that does
    not state the targets gets a last step that does.

    Args:
      path, on_error, malformed: as for `source.read_split`.
      split: "train" or "test".

    Raises:
      StoreError: no such split or file, or a malformed line; names file, line and field.
    """
    if split not in SPLITS:
        raise StoreError(f"sparp has no split {split!r}: it has {' and '.join(SPLITS)}")
    for number, (question, context, steps, answer) in read_split(path, SPLITS[split], _parse, on_error, malformed):
        problem_id = f"sparp-{split}-{number:05d}"
        yield Problem(problem_id, question, context), Gold(problem_id, (answer,), steps)


def _parse(row: Any) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
    """A decoded row as question, context, reference steps and answer."""
    if not isinstance(row, dict):
        raise RecordError(f"expected an object, found {type(row).__name__}")
    for field in ("context", "question", "reasoning"):
        if not isinstance(row.get(field), str):
            raise RecordError(f"field {field!r}: expected str, found {type(row.get(field)).__name__}")
    for field in ("targets", "target_choices"):
        if not isinstance(row.get(field), list) or not all(isinstance(item, str) for item in row[field]):
            raise RecordError(f"field {field!r}: expected a list of texts")
    answer = canonical(row["targets"])
    if not answer:
        raise RecordError("field 'targets' is empty")
    question = " ".join(row["question"].split())
    if row["target_choices"]:
        question = f"{question} Choose among: {', '.join(row['target_choices'])}."
    context = tuple(" ".join(sentence.split()) for sentence in split_sentences(row["context"]) if sentence.strip())
    steps = split_steps(row["reasoning"])
    if extract_answer(steps) != answer:
        steps = (*steps, f"The answer is {answer}.")
    return question, context, steps, answer
