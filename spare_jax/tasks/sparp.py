"""SpaRP: spatial relations with their reasoning paths, several of which may hold at once (arXiv 2406.04566).

Read from a directory with train.json and test.json, or from the hub, as published (UKPLab/sparp, one configuration per
part): `context`, `question`, `targets` (all relations that hold), `target_choices`, `reasoning`. An answer is the set
of its relations: it is right if all are there and no other.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spare_jax.formats.fields import optional
from spare_jax.records import Gold, Problem, RecordError
from spare_jax.tasks import stepgame
from spare_jax.tasks.source import read_split, required, split_file
from spare_jax.tasks.task import Task, cut_behind, split_sentences, step_texts

SPLITS = {"train": "train.json", "test": "test.json"}

INSTRUCTION = (
    "Find all relations that hold, step by step. Write one step on each line: what you take from the context, or what "
    "follows from earlier steps. End with a line that says: The answer is, and all relations, with commas between them."
)

_STATED = re.compile(r"\banswers?(?: to the question)?(?: is| are|:)\s*(.+)", re.IGNORECASE)
_PARTED = re.compile(r",|;|\band\b(?!\s+touch)")  # "inside and touching" is one relation
_STEP_END = re.compile(r"(?<=\S)\s+(?=Step \d+:)|\n\s*")


def task() -> Task:
    """The task's texts and functions."""
    return Task(
        name="sparp",
        instruction=INSTRUCTION,
        guidelines=stepgame.GUIDELINES,
        error_categories=stepgame.ERROR_CATEGORIES,
        extract_answer=extract_answer,
        answers_equal=lambda answer, accepted: answer in accepted,
        split_steps=split_steps,
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
    """One piece per line, or per "Step 2:"; joining them gives `text` back."""
    return cut_behind(_STEP_END, text)


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
    file = split_file("sparp", SPLITS, split)
    for number, (question, context, steps, answer) in read_split(path, file, _parse, on_error, malformed):
        problem_id = f"sparp-{split}-{number:05d}"
        yield Problem(problem_id, question, context), Gold(problem_id, (answer,), steps)


def _parse(row: Any) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
    """A decoded row as question, context, reference steps and answer."""
    question = " ".join(required(row, "question").split())
    if choices := optional(row, "target_choices", tuple[str, ...]):
        question = f"{question} Choose among: {', '.join(choices)}."
    sentences = split_sentences(required(row, "context"))
    steps = step_texts(split_steps(required(row, "reasoning")))
    answer = canonical(required(row, "targets", tuple[str, ...]))
    if not answer:
        raise RecordError("field 'targets' names no relation: give one or more")
    context = tuple(" ".join(sentence.split()) for sentence in sentences)
    if extract_answer(steps) != answer:
        steps = (*steps, f"The answer is {answer}.")
    return question, context, steps, answer
