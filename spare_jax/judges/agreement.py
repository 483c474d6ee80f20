"""Verifications made of how the solutions of a problem agree, without any model: a control for SPARK (arXiv
2512.03244).

A solution's answer counts as right if it is the most frequent one (as in TTRL, arXiv 2504.16084). A step counts as
right if a solution with that answer states the same result; so every step of such a solution does. Neither the gold nor
a world's truth is read.
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
    """A verification, written as prompts/verify.py asks for, of each of a problem's solutions that has steps.

    Args:
      equal: the task's `answers_equal`; equal answers are counted as one. Ties between answers are broken as in
        selection/voting.py. If no solution has an answer, none is right and no step is.
    """
    answers = voting.candidates([s.answer for s in solutions], equal)
    usual = voting.majority(answers, solutions[0].problem_id, seed)
    agreeing = [s for s, answer in zip(solutions, answers, strict=True) if answer == usual is not None]
    stated = {states(step) for solution in agreeing for step in solution.steps}
    return [_verification(s, s in agreeing, stated) for s in solutions if s.steps]


def states(step: str) -> str:
    """What a step states: the number behind its last equals sign, or where there is none the whole step in lower
    case."""
    return _result(step) or one_line(step).lower().rstrip(".")


def _result(step: str) -> str | None:
    match = _RESULT.match(step.rpartition("=")[2]) if "=" in step else None
    return match[1] if match else None


def _verification(solution: Solution, right: bool, stated: set[str]) -> Judgement:
    verdicts = []
    for number, step in enumerate(solution.steps, 1):
        agrees = states(step) in stated
        analysis = (
            f"It states {_result(step) or 'this'}, as {'a' if agrees else 'no'} solution with the usual answer does."
        )
        verdicts.append(StepVerification(f"step {number}", analysis, agrees))
    return Judgement(
        solution.id,
        "agreement",
        tuple(StepJudgement(step.correct, explanation=f"{step.title}: {step.analysis}") for step in verdicts),
        right,
        format_verification(verdicts, right),
    )
