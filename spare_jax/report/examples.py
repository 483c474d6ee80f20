"""A handful of solutions for the report's step view."""

from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement
from spare_jax.report.steps import judged_step
from spare_jax.selection.aggregate import aggregate

SHOWN = 6


def choose(
    problems: Mapping[str, Problem],
    gold: Mapping[str, Gold],
    solutions: Sequence[Solution],
    judgements: Mapping[str, Mapping[str, Judgement]],
    aggregation: str,
) -> list[dict[str, Any]]:
    """`SHOWN` annotated test solutions, one per problem, wrong ones first; none that was not judged, whose outcome is
    undecided, or that has fewer than three steps.

    Args:
      judgements: by judge, then by solution id.
      aggregation: how step scores become the solution's score.
    """
    annotated = [
        s
        for s in solutions
        if s.problem_id.startswith("test")
        and (judgement := judgements["spare"].get(s.id)) is not None
        and not judgement.failure
        and len(s.steps) > 2
    ]
    picked: list[Solution] = []
    for wanted in (False, True):
        seen = {s.problem_id for s in picked}
        for s in annotated:
            if judgements["outcome"][s.id].outcome is wanted and s.problem_id not in seen:
                seen.add(s.problem_id)
                picked.append(s)
                if len(picked) == (SHOWN // 2 if not wanted else SHOWN):
                    break
    return [_example(problems[s.problem_id], gold[s.problem_id], s, judgements, aggregation) for s in picked]


def _example(problem: Problem, gold: Gold, solution: Solution, judgements, aggregation: str) -> dict[str, Any]:
    spare = judgements["spare"][solution.id]
    truth = judgements["truth"].get(solution.id)
    prm = judgements["prm"].get(solution.id)
    nothing = (StepJudgement(),) * len(solution.steps)
    steps = [
        judged_step(step, judged, truth=real.label, score=scored.score)
        for step, judged, real, scored in zip(
            solution.steps, spare.steps, truth.steps if truth else nothing, prm.steps if prm else nothing, strict=True
        )
    ]
    return {
        "question": problem.question,
        "context": problem.context,
        "reference": gold.steps,
        "answer": solution.answer,
        "gold_answer": gold.answers[0],
        "outcome": judgements["outcome"][solution.id].outcome,
        "score": aggregate([step.score for step in prm.steps], aggregation) if prm else None,
        "steps": steps,
    }
