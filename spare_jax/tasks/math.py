"""MATH (arXiv 2103.03874) and MATH-500: competition problems with worked solutions that box the answer.

Read from a directory with train.jsonl, test.jsonl and math500.jsonl: `problem`, `solution`, and perhaps `answer`,
`level` and `type` or `subject` (github.com/hendrycks/math, as most copies lay it out).
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spare_jax.records import Gold, Problem
from spare_jax.steps.lines import step_texts
from spare_jax.steps.split import split_prose, split_steps
from spare_jax.tasks import math_exemplars
from spare_jax.tasks.answers import (
    MathVerifier,
    answers_equal,
    boxed_answer,
    boxes,
    formula_of,
    result_of_equation,
    stated_answer,
)
from spare_jax.tasks.exemplars import answer_form
from spare_jax.tasks.normalization import ascii_text
from spare_jax.tasks.numbers import canonical_number, parse_number
from spare_jax.tasks.source import Fields, read_problems, required
from spare_jax.tasks.task import Task

SPLITS = {"train": "train.jsonl", "test": "test.jsonl", "math500": "math500.jsonl"}

INSTRUCTION = (
    "Solve the problem step by step. Write one step on each line, with the reasoning that it needs. "
    r"End with a line that puts the final answer in \boxed{}."
)

GUIDELINES = """\
You are a teacher of mathematics. A student has solved a problem of a competition, and you grade the solution step by \
step with the help of a reference solution.

What you are given, one item on each line:
[c1], [c2], ... the sentences of the problem (the context)
[r1], [r2], ... the steps of the reference solution
[s1], [s2], ... the steps of the student

How to grade each step, in the student's order:
1. Match it with the context sentences, the reference steps and the student's own earlier steps that it rests on. \
Look at its formulas and values, at the objects and names in it, at the theorem that it uses, and at its place in the \
argument. A student may call things by other names, and write the same expression in another form. A step may match \
no reference step, one, or several.
2. A step that follows from them is CORRECT. There is often another way than the reference's: algebra in place of \
geometry, cases in place of a formula. Do not mark such a step down. Check it by yourself: redo the calculation, ask \
whether the theorem holds here, and whether every case is covered.
3. A step is INCORRECT if its mathematics is wrong, if it claims what has not been shown, or if it builds on a wrong \
step of the student. A later step that does not use the wrong one is graded on its own merits, even if it comes to a \
right answer.

Kinds of error:
NUMERIC: the right calculation or transformation with a wrong result.
COMPREHENSION: the problem is misread.
THEOREM: a formula, definition or theorem that is wrong, or that does not hold here.
CASE: a case, solution or condition is lost, counted twice, or kept although it is excluded.
UNSUPPORTED: a claim that does not follow from the problem or an earlier step.
PROPAGATED: it builds on a wrong step.
ANSWER: the final answer does not answer the question.

""" + answer_form("context sentences")

ERROR_CATEGORIES = ("NUMERIC", "COMPREHENSION", "THEOREM", "CASE", "UNSUPPORTED", "PROPAGATED", "ANSWER")

_FORMULA = re.compile(
    r"\\[(\[]\s*(.{1,200}?)\s*\\[)\]]|\$((?:[^$\\]|\\.){1,200})\$|(?<![\w.^{])(-?[0-9][0-9,]*(?:\.[0-9]+)?)(?![\w^])",
    re.DOTALL,
)
_BOLD = re.compile(r"^\\(?:text|math)bf\s?\{\(?(-?[0-9.,]+)\)?\}$")


def task(verifier: MathVerifier | None = None) -> Task:
    """The task's texts and functions.

    Args:
      verifier: decides on answers that are no plain number; without one only equal texts are equal.
    """
    return Task(
        name="math",
        instruction=INSTRUCTION,
        guidelines=GUIDELINES,
        error_categories=ERROR_CATEGORIES,
        extract_answer=extract_answer,
        answers_equal=partial(answers_equal, verifier=verifier),
        split_steps=split_steps,
        context_sentences=context_sentences,
        exemplars=math_exemplars.exemplars,
    )


def extract_answer(steps: Sequence[str]) -> str | None:
    r"""What stands in the last box (or the boxes side by side in one statement), else behind the last "the answer is",
    else the last formula or number of the last step (of an equation, its result); None where there is none of these, or
    nothing in the box.

    A plain number is returned in its canonical form, anything else without dollar signs and the final full stop.
    """
    text = "\n".join(steps)
    answer = boxed_answer(text)
    if answer is None and not boxes(text):
        stated = stated_answer(text)
        answer = _result(formula_of(stated)) if stated else _last_formula(steps[-1]) if steps else None
    if not answer:
        return None
    answer = re.sub(r"\\?\$", "", answer).strip().removesuffix(".").strip()
    answer = _BOLD.sub(r"\1", answer)
    number = parse_number(answer)
    return canonical_number(number) if number is not None and not re.search(r"[A-Za-z]", answer) else answer or None


def _result(stated: str) -> str:
    """The number that an equation of numbers comes to ("18 = 3 * 6"); anything else as it stands."""
    letters = re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", stated))
    return stated if letters else result_of_equation(stated)


def _last_formula(step: str) -> str | None:
    if "\\boxed" in step:  # a box that is never closed: the text is cut off
        return None
    formulas = [next(filter(None, match.groups())) for match in _FORMULA.finditer(ascii_text(step[-4000:]))]
    return result_of_equation(formulas[-1]).strip() if formulas else None


def context_sentences(problem: Problem) -> tuple[str, ...]:
    """The problem's own sentences, none of them cut inside mathematics or a drawing."""
    return problem.context or step_texts(split_prose(problem.question))


def load(
    path: str | Path, split: str, on_error: str = "raise", malformed: list[str] | None = None
) -> Iterator[tuple[Problem, Gold]]:
    """Read a split, a key of SPLITS; arguments and errors are those of `source.read_problems`."""
    return read_problems("math", SPLITS, path, split, _parse, on_error, malformed)


def load_500(
    path: str | Path, split: str, on_error: str = "raise", malformed: list[str] | None = None
) -> Iterator[tuple[Problem, Gold]]:
    """As `load`, with MATH-500 as the test split: where the paper samples several solutions (arXiv 2506.15498)."""
    return load(path, "math500" if split == "test" else split, on_error, malformed)


def _parse(row: Any) -> Fields:
    """The answer is that of the solution: in some copies of the data a program has changed the field `answer`."""
    question, steps = required(row, "problem"), step_texts(split_steps(required(row, "solution")))
    field = row["answer"] if isinstance(row.get("answer"), str) else None
    answer = extract_answer(steps) or field
    return question, (), steps, (answer,) if answer else ()
