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
from spare_jax.steps.lines import cut_behind, split_sentences, step_texts
from spare_jax.tasks import sparp_exemplars
from spare_jax.tasks.exemplars import answer_form
from spare_jax.tasks.numbers import LONGEST_ANSWER
from spare_jax.tasks.source import Fields, read_problems, required
from spare_jax.tasks.task import Task

SPLITS = {"train": "train.json", "test": "test.json"}

INSTRUCTION = (
    "Find all relations that hold, step by step. Write one step on each line: what you take from the context, or what "
    "follows from earlier steps. End with a line that says: The answer is, and all relations, with commas between them."
)

GUIDELINES = """\
You are a teacher of logic. A student has worked out which spatial relations hold between two things of a scene, and \
you grade the reasoning step by step with the help of a reference.

What you are given, one item on each line:
[c1], [c2], ... the sentences of the scene (the context)
[q] the question, perhaps with the relations to choose among
[r1], [r2], ... the steps of the reference
[s1], [s2], ... the steps of the student

How to grade each step, in the student's order:
1. Match it with the sentences, the reference steps and the student's own earlier steps that it rests on. Look at the \
two things, at which of them is seen from which, and at the relation.
2. A step that says a relation of the context, or one that follows, is CORRECT, also where it turns a relation round \
(A is left of B, so B is right of A), takes another way than the reference, or is not needed. Directions are handed on \
from one thing to the next, and so is being inside; what is inside a box lies where the box lies. Being near, far or \
in touch is not handed on.
3. A step that states another relation than the context, that does not follow, or that builds on a wrong step of the \
student, is INCORRECT. The final answer is right only if it names all relations that hold and no other.

Kinds of error:
RELATION: another relation than the context tells of the two.
RULE: it does not follow from the relations that it rests on.
UNSUPPORTED: nothing in the context says so.
PROPAGATED: it builds on a wrong step.
ANSWER: the final answer lacks a relation that was found, or has one too many.

""" + answer_form("sentences")

ERROR_CATEGORIES = ("RELATION", "RULE", "UNSUPPORTED", "PROPAGATED", "ANSWER")

_STATED = re.compile(r"\banswers?(?: to the question)?(?: is| are|:)\s*(.+)", re.IGNORECASE)
_PARTED = re.compile(r",|;|\band\b(?!\s+touch)")  # "inside and touching" is one relation
_STEP_END = re.compile(r"(?<=\S)\s+(?=Step \d+:)|\n\s*")


def task() -> Task:
    """The task's texts and functions."""
    return Task(
        name="sparp",
        instruction=INSTRUCTION,
        guidelines=GUIDELINES,
        error_categories=ERROR_CATEGORIES,
        extract_answer=extract_answer,
        answers_equal=lambda answer, accepted: answer in accepted,
        split_steps=split_steps,
        exemplars=sparp_exemplars.exemplars,
        classes=classes,
    )


def extract_answer(steps: Sequence[str]) -> str | None:
    """The relations after the last "the answer is", in alphabetical order: "above, left"; None where there are none."""
    for step in reversed(steps):
        if match := _STATED.search(step):
            return canonical(_PARTED.split(match[1][:LONGEST_ANSWER])) or None
    return None


def canonical(relations: Sequence[str]) -> str:
    """A set of relations as one text: in lower case, without signs but "-", in alphabetical order."""
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
    """Read the split "train" or "test"; arguments and errors are those of `source.read_problems`.

    The choices are put behind the question. A reasoning that does not state the targets gets a last step that does.
    """
    return read_problems("sparp", SPLITS, path, split, _parse, on_error, malformed)


def _parse(row: Any) -> Fields:
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
    return question, context, steps, (answer,)
