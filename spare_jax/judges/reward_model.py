"""Reward models as judges: a score per step (PRM) or one for the whole solution (ORM)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spare_jax.programs import Prefix, Program, RequestFailed, Score
from spare_jax.records import Judgement, Problem, Solution, StepJudgement

LayOut = Callable[[Problem, Solution], tuple[list[int], list[int]]]


@dataclass(frozen=True)
class RewardModelSettings:
    """How a reward model is asked: its context in tokens, the most tokens of a critique if the model writes one, and
    the names of the engine and of the judgements."""

    max_length: int
    max_tokens: int = 4096
    model: str = "prm"
    judge: str = "prm"


def scores(lay_out: LayOut, problem: Problem, solution: Solution, settings: RewardModelSettings) -> Program:
    """The program that scores a solution by one `Score` request. Steps get scores and no labels: a threshold is chosen
    by the evaluation.

    Args:
      lay_out: gives the ids that the model reads and the positions of scores in them, in increasing order
        (judges/conventions.py). With fewer positions than steps they are the last steps': an outcome reward model has
        one, for the last step. A position beyond the context is not read, so its step has no score.

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
    """The program that scores every step by a request of its own, for models that give one score per text.

    Args:
      prompt: the ids before the solution, which all requests share.
      answers: the ids of the first step, of the first two, and so on; the score is read at the last id. A step whose
        text exceeds the context has no score.

    Raises:
      RequestFailed: the model could not be asked, or the first step already exceeds the context.
    """
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
