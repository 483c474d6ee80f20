"""PRM800K (arXiv:2305.20050): labelled trees of steps, rated -1, 0 or 1 by people.

A row has `question.problem` and `label.steps`. A step has `completions` ({"text", "rating", "flagged"}); the solution
went on from the one with the index `chosen_completion`, or from the labeller's own `human_completion`. As in TRL's
version of the data, every completion that was not chosen ends a solution of its own, after the steps chosen before it;
the chosen path is the last solution. Where that ends without a chosen step it is left out: it is the beginning of the
alternatives.

Whether a rating of 0 ("neutral") is right is disputed: TRL counts it as wrong, Qwen2.5-Math-PRM and PURE as right. So
the caller must choose. Scores are (rating + 1) / 2, which keeps the three ratings apart.
"""

from collections.abc import Iterator
from typing import Any

from spare_jax.formats.fields import Row, field, ids_of, labelled, optional, prompt
from spare_jax.records import LabelledSolution, RecordError, StepJudgement

JUDGE = "prm800k"
ALTERNATIVE = "alternative"

_Path = list[tuple[str, StepJudgement]]


def records_of(row: Row, default_id: str, *, neutral: bool | None) -> tuple[LabelledSolution, ...]:
    """All labelled solutions of a row: alternatives in the order of the tree, then the chosen path.

    `finish_reason` is the row's own for the chosen path and "alternative" for the others.

    Args:
      neutral: the label of a step rated 0; None masks it. A step without rating has no label; the labeller's own steps
        are right.

    Raises:
      RecordError: a field is missing or does not fit.
    """
    question, label = field(row, "question", dict), field(row, "label", dict)
    problem = field(question, "problem", str, "question")
    answer = optional(question, "ground_truth_answer", str, "question")
    reference = optional(question, "ground_truth_solution", str, "question")
    reason = optional(label, "finish_reason", str, "label") or ""
    paths = list(_paths(field(label, "steps", tuple[dict, ...], "label"), neutral, reason))
    return tuple(
        labelled(
            JUDGE,
            ids,
            problem,
            [text for text, _ in path],
            [judged for _, judged in path],
            answers=() if answer is None else (answer,),
            reference=() if reference is None else (reference,),
            finish_reason=finish_reason,
        )
        for ids, (path, finish_reason) in zip(ids_of(row, default_id, len(paths)), paths, strict=True)
    )


def row_of(record: LabelledSolution) -> Row | None:
    """A labelled solution as a row whose every step is chosen; None where it has no steps.

    The rating of a step with a score of exactly 1/2 is 0, of others 1 or -1 by their label, null without one.
    """
    if not record.solution.steps:
        return None
    steps = [
        {
            "completions": [{"text": text, "rating": _rating(judged), "flagged": None}],
            "human_completion": None,
            "chosen_completion": 0,
        }
        for text, judged in zip(record.solution.steps, record.judgement.steps, strict=True)
    ]
    answers, reference = (record.gold.answers, record.gold.steps) if record.gold else ((), ())
    return {
        "id": record.solution.id,
        "question": {
            "problem": prompt(record.problem),
            "ground_truth_answer": answers[0] if answers else None,
            "ground_truth_solution": "\n".join(reference) if reference else None,
        },
        "label": {"steps": steps, "finish_reason": record.solution.finish_reason},
    }


def _paths(steps: tuple[dict, ...], neutral: bool | None, reason: str) -> Iterator[tuple[_Path, str]]:
    chosen: _Path = []
    for i, step in enumerate(steps):
        within = f"label.steps[{i}]"
        completions = optional(step, "completions", tuple[dict, ...], within) or ()
        rated = [_completion(c, neutral, f"{within}.completions[{k}]") for k, c in enumerate(completions)]
        choice = optional(step, "chosen_completion", int, within)
        if choice is not None and not 0 <= choice < len(rated):
            raise RecordError(f"{within}.chosen_completion: {choice} for {len(rated)} completions")
        yield from (([*chosen, alternative], ALTERNATIVE) for k, alternative in enumerate(rated) if k != choice)
        human = optional(step, "human_completion", dict, within)
        if choice is not None:
            chosen = [*chosen, rated[choice]]
        elif human is not None:
            text = field(human, "text", str, f"{within}.human_completion")
            chosen = [*chosen, (text, StepJudgement(label=True, score=1.0))]
        elif rated:
            return
        else:
            break
    if chosen:
        yield chosen, reason


def _completion(value: Any, neutral: bool | None, within: str) -> tuple[str, StepJudgement]:
    text, rating = field(value, "text", str, within), optional(value, "rating", int, within)
    if rating not in (None, -1, 0, 1):
        raise RecordError(f"{within}.rating: {rating} is none of -1, 0, 1")
    if rating is None:
        return text, StepJudgement()
    return text, StepJudgement(label=neutral if rating == 0 else rating == 1, score=(rating + 1) / 2)


def _rating(judged: StepJudgement) -> int | None:
    if judged.score == 0.5:
        return 0
    return None if judged.label is None else 1 if judged.label else -1
