"""Verdicts that no verifier gave: how the solutions of a problem agree. A control of SPARK's (arXiv 2512.03244).

An answer is right where most solutions of the problem give it (arXiv 2504.16084), and a step where what it states also
stands in a solution with that answer, be it its own: so every step of those solutions is. Nothing of the gold is seen,
and nothing of a world's truth.
"""

import re
from collections.abc import Callable, Sequence

from spare_jax.prompts.solve import one_line
from spare_jax.prompts.verify import StepVerification, format_verification
from spare_jax.records import Judgement, Solution, StepJudgement
from spare_jax.selection import voting

_RESULT = re.compile(r"\s*\$?(-?[0-9](?:[0-9.,/-]*[0-9])?)")


def agreement(
    solutions: Sequence[Solution], seed: int, equal: Callable[[str | None, Sequence[str]], bool | None]
) -> list[Judgement]:
    """A verification, in the grammar of prompts/verify.py, of each of a problem's solutions that has steps.

    Answers that are `equal` (the task's `answers_equal`) are one. Ties between answers are broken as in
    selection/voting.py; where nobody has an answer, nobody and nothing is right.
    """
    answers = voting.candidates([s.answer for s in solutions], equal)
    usual = voting.majority(answers, solutions[0].problem_id, seed)
    agreeing = [s for s, answer in zip(solutions, answers, strict=True) if answer == usual is not None]
    stated = {states(step) for solution in agreeing for step in solution.steps}
    return [_verification(s, s in agreeing, stated) for s in solutions if s.steps]


def states(step: str) -> str:
    """What a step states: the result behind its last equals sign, the whole of it where there is none."""
    return _result(step) or one_line(step).lower().rstrip(".")


def _result(step: str) -> str | None:
    found = _RESULT.match(step.rpartition("=")[2]) if "=" in step else None
    return found[1] if found else None


def _verification(solution: Solution, right: bool, stated: set[str]) -> Judgement:
    said = []
    for number, step in enumerate(solution.steps, 1):
        agrees = states(step) in stated
        analysis = (
            f"It states {_result(step) or 'this'}, as {'a' if agrees else 'no'} solution with the usual answer does."
        )
        said.append(StepVerification(f"step {number}", analysis, agrees))
    return Judgement(
        solution.id,
        "agreement",
        tuple(StepJudgement(step.correct, explanation=f"{step.title}: {step.analysis}") for step in said),
        right,
        format_verification(said, right),
    )
