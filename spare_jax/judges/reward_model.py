"""Reward models as judges: a score per step (PRM) or one for the whole solution (ORM)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spare_jax.programs import Prefix, Program, RequestFailed, Score
from spare_jax.records import Judgement, Problem, Solution, StepJudgement

LayOut = Callable[[Problem, Solution], tuple[list[int], list[int]]]


@dataclass(frozen=True)
class RewardModelSettings:
    """`max_length` is the context in tokens, `max_tokens` the most of a critique, where the model writes one; `model`
    names the engine, `judge` the judgements."""

    max_length: int
    max_tokens: int = 4096
    model: str = "prm"
    judge: str = "prm"


def scores(lay_out: LayOut, problem: Problem, solution: Solution, settings: RewardModelSettings) -> Program:
    """The program that scores a solution. Labels are left open: a threshold belongs to the evaluation.

    `lay_out` (judges/conventions.py) gives the ids that the model reads, and positions of scores in them that do not
    decrease. They belong to the last steps: a single one, an outcome reward model's, to the last, and the others have
    none. Positions beyond the context are not read: their steps have no score.

    Raises:
      RequestFailed: the model could not be asked, or the first position already lies beyond the context.
    """
    if not solution.steps:
        return Judgement(solution.id, settings.judge)
    ids, positions = lay_out(problem, solution)
    inside = [position for position in positions if position < settings.max_length]
    _require_room(inside, settings)
    length = inside[-1] + 1  # what follows the last position cannot change its score
    ((completion,),) = yield [Score(model=settings.model, ids=tuple(ids[:length]), positions=tuple(inside))]
    n_steps = len(solution.steps)
    steps = [StepJudgement() for _ in range(n_steps - len(positions))]
    steps += [StepJudgement(score=score) for score in completion.scores]
    steps += [StepJudgement() for _ in range(n_steps - len(steps))]
    return Judgement(solution_id=solution.id, judge=settings.judge, steps=tuple(steps), prompt_tokens=length)


def prefix_scores(
    prompt: Sequence[int], answers: Sequence[Sequence[int]], solution: Solution, settings: RewardModelSettings
) -> Program:
    """The program that scores a solution prefix by prefix: `answers` has the ids of the first 1, 2, ... steps, read at
    the last of them behind `prompt`, which they share. Steps whose prefix exceeds the context have no score. Raises as
    `scores` does."""
    if not solution.steps:
        return Judgement(solution.id, settings.judge)
    shared = Prefix(tuple(prompt))
    inside = [tuple(ids) for ids in answers if len(prompt) + len(ids) <= settings.max_length]
    _require_room(inside, settings)
    completions = yield [Score(settings.model, ids, (len(prompt) + len(ids) - 1,), shared) for ids in inside]
    steps = [StepJudgement(score=completion.scores[0]) for (completion,) in completions]
    steps += [StepJudgement() for _ in range(len(solution.steps) - len(steps))]
    tokens = len(prompt) + sum(map(len, inside))
    return Judgement(solution_id=solution.id, judge=settings.judge, steps=tuple(steps), prompt_tokens=tokens)


def _require_room(inside: Sequence[object], settings: RewardModelSettings) -> None:
    """Raises RequestFailed where nothing of a solution lies inside the context."""
    if not inside:
        raise RequestFailed(f"the first step ends beyond the context of {settings.max_length} tokens")
