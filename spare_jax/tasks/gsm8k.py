"""GSM8K (arXiv 2110.14168): word problems of primary school with reference solutions.

Read from a directory with train.jsonl and test.jsonl as published (github.com/openai/grade-school-math): `question`,
and `answer`, whose lines are the reference's steps with marks such as <<3*4=12>> and whose last line is "#### 12".
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from spare_jax.records import Gold, Problem, RecordError
from spare_jax.steps.lines import line_steps
from spare_jax.steps.split import split_steps
from spare_jax.tasks import gsm8k_exemplars
from spare_jax.tasks.answers import MathVerifier, answers_equal, extract_number
from spare_jax.tasks.exemplars import answer_form
from spare_jax.tasks.numbers import canonical_number, parse_number
from spare_jax.tasks.source import Fields, read_problems, required
from spare_jax.tasks.task import Task

SPLITS = {"train": "train.jsonl", "test": "test.jsonl"}

INSTRUCTION = (
    "Solve the problem step by step. Write one step on each line, with the calculation that it needs. "
    "End with a line that says: The answer is N."
)

GUIDELINES = """\
You are a mathematics teacher. A student has solved a problem, and you grade the solution step by step with the help \
of a reference solution.

What you are given, one item on each line:
[c1], [c2], ... the sentences of the problem (the context)
[r1], [r2], ... the steps of the reference solution
[s1], [s2], ... the steps of the student

How to grade each step, in the student's order:
1. Match it with the context sentences, the reference steps and the student's own earlier steps that it rests on. \
Look at what it is about, at its numbers and calculations, at the people and things it names, and at its place in the \
argument. A step may match no reference step, one, or several: the student may merge steps, split them, or take them \
in another order.
2. A step that agrees with one or more of the matched sentences and steps is CORRECT. Do not mark a step down for \
taking a valid route that the reference does not take, for saying more than is needed, or for its wording. Check such \
a step against the context, and redo its calculation.
3. A step that contradicts them, or that builds on a wrong step of the student, is INCORRECT. A later step that does \
not use the wrong one is graded on its own merits.

Kinds of error:
NUMERIC: the right calculation with a wrong result.
COMPREHENSION: the problem is misread.
OPERATION: the wrong operation or the wrong quantities are combined.
MISSING: a quantity or a part that is needed is left out.
UNSUPPORTED: it uses something that neither the problem nor an earlier step says.
PROPAGATED: it builds on a wrong step.
ANSWER: the final answer does not answer the question.

""" + answer_form("context sentences")

ERROR_CATEGORIES = ("NUMERIC", "COMPREHENSION", "OPERATION", "MISSING", "UNSUPPORTED", "PROPAGATED", "ANSWER")

_MARK = re.compile(r"<<[^<>\n]*>>")
_FINAL = re.compile(r"####\s*(.+)")


def task(verifier: MathVerifier | None = None) -> Task:
    """The task's texts and functions.

    Args:
      verifier: compares answers that are no plain number ("2\\\\sqrt{4}"); without one they count as wrong.
    """
    return Task(
        name="gsm8k",
        instruction=INSTRUCTION,
        guidelines=GUIDELINES,
        error_categories=ERROR_CATEGORIES,
        extract_answer=extract_number,
        answers_equal=partial(answers_equal, verifier=verifier),
        split_steps=split_steps,
        exemplars=gsm8k_exemplars.exemplars,
    )


def load(
    path: str | Path, split: str, on_error: str = "raise", malformed: list[str] | None = None
) -> Iterator[tuple[Problem, Gold]]:
    """Read the split "train" or "test"; arguments and errors are those of `source.read_problems`.

    The reference has no calculator marks, and its last step is "The answer is N." in place of the file's "#### N".
    """
    return read_problems("gsm8k", SPLITS, path, split, _parse, on_error, malformed)


def strip_marks(text: str) -> str:
    """`text` without the calculator marks, such as <<3*4=12>>."""
    return _MARK.sub("", text)


def _parse(row: Any) -> Fields:
    question, text = required(row, "question"), strip_marks(required(row, "answer"))
    *steps, last = line_steps(text) or ("",)
    final = _FINAL.fullmatch(last)
    number = None if final is None else parse_number(final[1])
    if number is None:
        raise RecordError(f"field 'answer': the last line is {last[:40]!r}, not '#### ' and a number")
    if not steps:
        raise RecordError("field 'answer' has no steps before its last line")
    answer = canonical_number(number)
    return question, (), (*steps, f"The answer is {answer}."), (answer,)
