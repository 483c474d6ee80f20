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
from spare_jax.tasks.source import Fields, read_problems, required
from spare_jax.tasks.task import Task

NAMES = ("aime24", "aime25", "amc23", "olympiadbench", "minerva_math")
SPLITS = {"test": "test.jsonl"}


def task(name: str, verifier: MathVerifier | None = None) -> Task:
    """The task of that name: MATH's texts and functions."""
    return dataclasses.replace(math.task(verifier), name=name)


def load(
    name: str, path: str | Path, split: str, on_error: str = "raise", malformed: list[str] | None = None
) -> Iterator[tuple[Problem, Gold]]:
    """Read the split "test" of `name`, one of NAMES; other arguments and errors are those of `source.read_problems`.

    Of several worked solutions the first is the reference; some rows have none. A reference that does not box its
    answer gets a last step that states it.
    """
    return read_problems(name, SPLITS, path, split, _parse, on_error, malformed)


def _parse(row: Any) -> Fields:
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
    return question, (), steps, answers
