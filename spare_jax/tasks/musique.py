"""MuSiQue-Ans: questions of two to four hops over twenty paragraphs (arXiv 2108.00573).

Read from a directory with train.jsonl and dev.jsonl as published (github.com/StonyBrookNLP/musique): `question`,
`paragraphs`, `question_decomposition`, `answer`, `answer_aliases`. Every paragraph is one context sentence; the
decomposition is the reference, a step per hop. Answers are compared by the official script's rules: exact match and
token F1 after normalisation, the best over all aliases.
"""

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spare_jax.formats.fields import field, optional
from spare_jax.records import Gold, Problem
from spare_jax.steps.split import split_steps
from spare_jax.tasks import musique_exemplars
from spare_jax.tasks.exemplars import answer_form
from spare_jax.tasks.source import Fields, read_problems, required
from spare_jax.tasks.task import Task

SPLITS = {"train": "train.jsonl", "test": "dev.jsonl"}  # the published test split has no answers

INSTRUCTION = (
    "Answer the question from the paragraphs, step by step. Write one step on each line: what you look up, and what "
    "the paragraphs say. End with a line that says: The answer is X."
)

GUIDELINES = """\
You are a teacher of reading. A student has answered a question from a set of paragraphs, and you grade the answer \
step by step with the help of a reference.

What you are given, one item on each line:
[c1], [c2], ... the paragraphs (the context); most of them do not matter
[q] the question
[r1], [r2], ... the steps of the reference
[s1], [s2], ... the steps of the student

How to grade each step, in the student's order:
1. Match it with the paragraphs, the reference steps and the student's own earlier steps that it rests on. Look at \
whom or what it is about, at the relation it states, and at its place in the chain.
2. A step that agrees with a paragraph and with the matched reference steps is CORRECT. Do not mark a step down for \
another order, another wording, or for saying more than is needed; check what it adds against the paragraphs.
3. A step that contradicts them, that no paragraph supports, or that builds on a wrong step of the student, is \
INCORRECT.

Kinds of error:
ENTITY: the wrong person, place or thing.
RELATION: another relation than the one that is asked.
UNSUPPORTED: no paragraph says so.
PROPAGATED: it builds on a wrong step.
ANSWER: the final answer does not answer the question.

""" + answer_form("paragraphs")

ERROR_CATEGORIES = ("ENTITY", "RELATION", "UNSUPPORTED", "PROPAGATED", "ANSWER")

_STATED = re.compile(r"\banswer(?: to the question)?(?: is|:)\s*(.+)", re.IGNORECASE)
_HOP = re.compile(r"#([1-9])")


def task() -> Task:
    """The task's texts and functions."""
    return Task(
        name="musique",
        instruction=INSTRUCTION,
        guidelines=GUIDELINES,
        error_categories=ERROR_CATEGORIES,
        extract_answer=extract_answer,
        answers_equal=exact_match,
        split_steps=split_steps,
        exemplars=musique_exemplars.exemplars,
        credit=token_f1,
    )


def extract_answer(steps: Sequence[str]) -> str | None:
    """What the last step that says "the answer is" says, normalised; None where none does."""
    for step in reversed(steps):
        if match := _STATED.search(step):
            return normalise(match[1]) or None
    return None


def normalise(text: str) -> str:
    """An answer in the official form: lower case, no punctuation, no articles, single blanks."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(predicted: str | None, accepted: Sequence[str]) -> bool:
    """Whether an answer equals one of the accepted ones after normalisation."""
    return predicted is not None and normalise(predicted) in {normalise(answer) for answer in accepted}


def token_f1(predicted: str | None, accepted: Sequence[str]) -> float:
    """The F1 of the words that an answer shares with an accepted one, the best over the accepted answers; in [0, 1]."""
    return max((_f1(normalise(predicted or "").split(), normalise(answer).split()) for answer in accepted), default=0.0)


def _f1(predicted: Sequence[str], accepted: Sequence[str]) -> float:
    if not predicted or not accepted:
        return float(list(predicted) == list(accepted) and bool(predicted))
    common = sum((Counter(predicted) & Counter(accepted)).values())
    return 2 * common / (len(predicted) + len(accepted))


def load(
    path: str | Path, split: str, on_error: str = "raise", malformed: list[str] | None = None
) -> Iterator[tuple[Problem, Gold]]:
    """Read the split "train", or "test", which is the published dev split; arguments and errors are those of
    `source.read_problems`."""
    return read_problems("musique", SPLITS, path, split, _parse, on_error, malformed)


def _parse(row: Any) -> Fields:
    question, answer = required(row, "question"), required(row, "answer")
    paragraphs = _pairs(row, "paragraphs", "title", "paragraph_text")
    context = tuple(" ".join(f"{title}: {text}".split()) for title, text in paragraphs)
    hops = _pairs(row, "question_decomposition", "question", "answer")
    steps = []
    for hop, answer_to_hop in hops:
        asked = _HOP.sub(lambda m: hops[int(m[1]) - 1][1] if int(m[1]) <= len(hops) else m[0], hop)
        steps.append(f"{' '.join(asked.replace('>>', '-').split())}: {answer_to_hop}")
    accepted = (answer, *(optional(row, "answer_aliases", tuple[str, ...]) or ()))
    return question, context, (*steps, f"The answer is {answer}."), accepted


def _pairs(row: Any, name: str, first: str, second: str) -> list[tuple[str, str]]:
    """Two texts of every object of a list."""
    items = enumerate(required(row, name, tuple[object, ...]))
    return [(field(item, first, str, f"{name}[{i}]"), field(item, second, str, f"{name}[{i}]")) for i, item in items]
