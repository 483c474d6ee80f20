"""Benchmarks beside MATH, for tests only: AIME 2024 and 2025, AMC 2023, OlympiadBench and Minerva-Math.

Read from a directory with test.jsonl as github.com/QwenLM/Qwen2.5-Math lays them out: `question` or `problem`, perhaps
`context`, `solution` (a text, or several), and `answer` or `final_answer`; Minerva's answer stands in its solution.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spare_jax.records import Gold, Problem, RecordError
from spare_jax.steps.lines import step_texts
from spare_jax.steps.split import split_steps
from spare_jax.tasks import math
from spare_jax.tasks.answers import MathVerifier, boxed_answer
from spare_jax.tasks.source import read_split, required, split_file
from spare_jax.tasks.task import Task

NAMES = ("aime24", "aime25", "amc23", "olympiadbench", "minerva_math")
SPLITS = {"test": "test.jsonl"}


def task(name: str, verifier: MathVerifier | None = None) -> Task:
    """The task of that name: MATH's texts and functions."""
    return dataclasses.replace(math.task(verifier), name=name)


def load(
    name: str, path: str | Path, split: str, on_error: str = "raise", malformed: list[str] | None = None
) -> Iterator[tuple[Problem, Gold]]:
    """Read the one split in the file's order; a problem's id holds its line number, "aime24-test-00001".

    Where a file has several worked solutions the first is the reference; some have none. One that states its answer in
    no box has a last step that does.

    Args:
      name: one of NAMES.
      path, on_error, malformed: as for `source.read_split`; the file is test.jsonl.
      split: "test".

    Raises:
      StoreError: no such split or file, or a malformed line; names file, line and field.
    """
    file = split_file(name, SPLITS, split)
    for number, (question, steps, answers) in read_split(path, file, _parse, on_error, malformed):
        problem_id = f"{name}-{split}-{number:05d}"
        yield Problem(problem_id, question), Gold(problem_id, answers, steps)


def _parse(row: Any) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """A decoded line as question, reference steps and accepted answers."""
    named_problem = isinstance(row, dict) and not row.get("question") and row.get("problem")
    question = required(row, "problem" if named_problem else "question")
    if isinstance(row.get("context"), str):
        question = f"{row['context']}\n{question}"
    solutions = row.get("solution") or ""
    text = solutions[0] if isinstance(solutions, list) and solutions else solutions
    if not isinstance(text, str):
        raise RecordError(f"field 'solution': expected a text or texts, found {type(text).__name__}")
    steps = step_texts(split_steps(text))
    stated = row.get("final_answer", row.get("answer"))
    if stated is None:
        stated = math.extract_answer(steps)
    several = stated if isinstance(stated, list) else [stated]
    boxes = [f"\\boxed{{{value}}}" for value in several if value is not None]
    answers = tuple(answer for box in boxes if (answer := math.extract_answer([box])))
    if not answers:
        raise RecordError("field 'answer' is missing: give it, 'final_answer', or a 'solution' that states the answer")
    if steps and boxed_answer(text) is None:
        steps = (*steps, f"The answer is ${boxes[0]}$.")
    return question, steps, answers
