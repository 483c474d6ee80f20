"""Alignment without a language model: a wrong solution's first error is where its numbers and words leave the
reference.

This stands in for the SPARE paper's baseline (arXiv 2506.15498), which aligns steps as DiVeRSe does, by an entailment
model. In a solution with the right answer every step is right. In one with a wrong answer each step gets points, a
weighted sum of features that compare its statements with the reference (judges/statements.py), and the step with the
most points is the first error. WEIGHTS were fitted on 100 solutions of each of two parts of ProcessBench
(docs/judges.md).
"""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import scipy.optimize

from spare_jax.formats.fields import prompt
from spare_jax.judges import statements
from spare_jax.judges.outcome import is_correct, require_answers
from spare_jax.records import UNDECIDED, Gold, Judgement, Problem, Solution, StepJudgement, not_judged
from spare_jax.steps.lines import split_sentences

if TYPE_CHECKING:
    from spare_jax.tasks.task import Task

# How a number may be computed from those of the problem and the reference without counting as unsupported: each level
# allows more than the one before it (`_support`).
_LEVELS = ("stated", "partial", "rescaled", "combined")

FEATURES = (
    *(f"{what}_{level}" for level in _LEVELS for what in ("first_unsupported", "unsupported")),
    "false_equation", "unsupported_result", "several_unsupported", "before_unsupported", "new_number", "has_result",
    "first_says_answer", "overlap", "foreign_words", "last", "first", "after_unsupported", "after_uncombined",
    "no_number", "length", "doubtful",
)  # fmt: skip

WEIGHTS = {
    "first_unsupported_stated": 0.298,
    "unsupported_stated": 0.281,
    "first_unsupported_partial": 0.348,
    "unsupported_partial": 0.152,
    "first_unsupported_rescaled": -0.423,
    "unsupported_rescaled": -0.678,
    "first_unsupported_combined": 0.208,
    "unsupported_combined": 0.137,
    "false_equation": 0.209,
    "unsupported_result": 0.317,
    "several_unsupported": 0.189,
    "before_unsupported": 0.038,
    "new_number": 0.495,
    "has_result": -0.011,
    "first_says_answer": -0.123,
    "overlap": -0.039,
    "foreign_words": 0.422,
    "last": -0.281,
    "first": -0.405,
    "after_unsupported": -0.245,
    "after_uncombined": -0.189,
    "no_number": -0.244,
    "length": 0.745,
    "doubtful": 0.311,
}
"""What `fit` gives on the dev rows of ProcessBench's gsm8k and math parts; a test fits them again."""


def alignment(task: "Task", problem: Problem, gold: Gold, solution: Solution) -> Judgement:
    """The Judgement of a solution. Steps before the first error are right, it and all steps behind it wrong.

    A softmax over the steps' points is the probability of each being the first error. A step's score is the probability
    that the first error is behind it, or 1 if the answer is right. The explanation names the features that speak
    against the step. If the comparison of the answer is undecided, the solution is not judged.

    Raises:
      ValueError: no accepted answer is known.
    """
    require_answers(gold, "alignment")
    outcome, n_steps = is_correct(task, gold, solution), len(solution.steps)
    if outcome is None:
        return not_judged(solution, "alignment", UNDECIDED)
    if outcome or not n_steps:
        steps = (StepJudgement(label=True, score=1.0),) * n_steps
        return Judgement(solution.id, "alignment", steps, outcome)
    table = features(problem, gold.steps, solution.steps)
    points = table @ np.array([WEIGHTS[name] for name in FEATURES])
    weight = np.exp(points - points.max())
    unharmed = 1 - np.cumsum(weight) / weight.sum()
    first_error = int(points.argmax())
    return Judgement(
        solution.id,
        "alignment",
        tuple(
            StepJudgement(i < first_error, min(1.0, max(0.0, float(unharmed[i]))), _evidence(table[i]))
            for i in range(n_steps)
        ),
        outcome,
    )


def features(problem: Problem, reference: Sequence[str], steps: Sequence[str]) -> np.ndarray:
    """The features of each step: float64 [steps, FEATURES]. `reference` and `steps` are texts of steps."""
    question, known_steps = prompt(problem), "\n".join(reference)
    stated = statements.numbers(question) | statements.numbers(known_steps)
    support = _support(question, known_steps, stated)
    reference_words = [statements.words(s) for line in reference for s in split_sentences(line) if s.strip()]
    known_words = statements.words(question) | set().union(*reference_words)
    spoken = statements.said(question)
    seen = {level: set(statements.numbers(question) if level == "stated" else spoken) for level in _LEVELS}
    unsupported = []
    for step in steps:
        here = {}
        for level in _LEVELS:
            present = statements.numbers(step) if level == "stated" else statements.said(step)
            known = seen[level] | support[level]
            here[level] = present - known - statements.on_the_way(step, known)
            seen[level] |= present
        unsupported.append(here)
    at_end = list(statements.numbers(steps[-1])) if steps else []
    answer_seen, so_far, before, rows = False, set(spoken), dict.fromkeys(_LEVELS, False), []
    for i, (step, here) in enumerate(zip(steps, unsupported, strict=True)):
        words, results, said = statements.words(step), statements.results(step), statements.said(step)
        says_answer = len(at_end) == 1 and at_end[0] in said
        following = bool(i + 1 < len(steps) and unsupported[i + 1]["stated"])
        row = {f"first_unsupported_{level}": float(bool(here[level]) and not before[level]) for level in _LEVELS}
        row |= {f"unsupported_{level}": float(bool(here[level])) for level in _LEVELS}
        row |= {
            "false_equation": float(bool(statements.false_equations(step))),
            "unsupported_result": float(bool(here["partial"] & results)),
            "several_unsupported": float(len(here["partial"]) > 1),
            "before_unsupported": float(following and not before["stated"] and not here["stated"]),
            "new_number": float(bool(said - so_far) and not before["stated"]),
            "has_result": float(bool(results) and not before["stated"]),
            "first_says_answer": float(says_answer and not answer_seen),
            "overlap": max((len(words & other) / (len(other) + 1) for other in reference_words), default=0.0),
            "foreign_words": len(words - known_words) / (len(words) + 1),
            "last": float(i == len(steps) - 1),
            "first": float(i == 0),
            "after_unsupported": float(before["stated"]),
            "after_uncombined": float(before["combined"]),
            "no_number": float(not said),
            "length": min(len(step), 4000) / 500,
            "doubtful": float(any(word in step.lower() for word in _DOUBT)),
        }
        rows.append([row[name] for name in FEATURES])
        answer_seen |= says_answer
        so_far |= said
        before = {level: before[level] or bool(here[level]) for level in _LEVELS}
    return np.array(rows, dtype=np.float64).reshape(len(steps), len(FEATURES))


_DOUBT = ("assum", "since it is not", "however", "let's re", "must be", "cannot", "can't")


def _support(question: str, reference: str, stated: set[Fraction]) -> dict[str, set[Fraction]]:
    """By level, the numbers that can be computed from those of the problem and the reference."""
    spoken = statements.said(question)
    base = stated | spoken
    partial = set(base)
    for sign, terms in statements.operands(reference):
        for size in range(2, len(terms)):
            for chosen in itertools.combinations(terms[:6], size):
                partial.add(sum(chosen, Fraction(0)) if sign == "+" else math.prod(chosen, start=Fraction(1)))
    rescaled = partial | {y for x in base for y in (x * 100, x / 100, 100 - x, 1 - x, 1 + x, 100 + x)}
    rescaled |= {1 / x for x in base if x}
    few = sorted(spoken)[:40]
    combined = rescaled | {y for a in few for b in few for y in (a * b, a + b, abs(a - b), *([a / b] if b else []))}
    return {"stated": set(stated), "partial": partial, "rescaled": rescaled, "combined": combined}


def _evidence(row: np.ndarray) -> str:
    named = ("unsupported_stated", "unsupported_result", "false_equation", "doubtful")
    return ", ".join(name.replace("_", " ") for name in named if row[FEATURES.index(name)])


def fit(cases: Sequence[tuple[np.ndarray, int]], strength: float = 3.0) -> dict[str, float]:
    """The WEIGHTS under which the known first errors are most probable: a conditional logit with an L2 penalty of
    `strength`.

    Args:
      cases: per wrong solution its `features` and the index of its first error, from 0.
    """

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = strength * float(weights @ weights), 2 * strength * weights
        for table, first_error in cases:
            points = table @ weights
            log_p = points - points.max() - np.log(np.exp(points - points.max()).sum())
            value -= float(log_p[first_error])
            slope = slope - table[first_error] + np.exp(log_p) @ table
        return value, slope

    fitted = scipy.optimize.minimize(loss, np.zeros(len(FEATURES)), jac=True, method="L-BFGS-B").x
    return {name: round(float(weight), 3) for name, weight in zip(FEATURES, fitted, strict=True)}
