"""Reward models as judges: a score per step (PRM) or one for the whole solution (ORM), read at step tags."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spare_jax.programs import Program, Score
from spare_jax.prompts.solve import orm_ids, prm_ids, solution_ids
from spare_jax.records import Judgement, Problem, Solution, StepJudgement

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task


@dataclass(frozen=True)
class RewardModelSettings:
    """`tag_id` is the step tag (methods.md 1.3), `max_length` the context in tokens.

    `tokenizer_digest` says whose ids the model reads: sampled ids of the same tokenizer are used as they are.
    """

    tag_id: int
    max_length: int
    tokenizer_digest: str
    model: str = "prm"
    judge: str = "prm"


def process_scores(
    task: "Task", problem: Problem, solution: Solution, tokenizer: "Tokenizer", settings: RewardModelSettings
) -> Program:
    """The program that scores every step. Labels are left open: a threshold belongs to the evaluation.

    Tags beyond the context are not scored: their steps have no score and are `missed`.
    """
    ids, tags = prm_ids(
        tokenizer, task, problem, solution_ids(tokenizer, solution, settings.tokenizer_digest), settings.tag_id
    )
    return (yield from _score(ids, tags, solution, settings))


def outcome_score(
    task: "Task", problem: Problem, solution: Solution, tokenizer: "Tokenizer", settings: RewardModelSettings
) -> Program:
    """The program that scores a solution as a whole: the score stands at the last step, the other steps have none."""
    ids, tags = orm_ids(
        tokenizer, task, problem, solution_ids(tokenizer, solution, settings.tokenizer_digest), settings.tag_id
    )
    return (yield from _score(ids, tags, solution, settings))


def _score(ids: list[int], tags: list[int], solution: Solution, settings: RewardModelSettings) -> Program:
    """Score the tags that fit the context; `tags` belong to the last steps of `solution`."""
    inside = [tag for tag in tags if tag < settings.max_length] if solution.steps else []
    scores: tuple[float, ...] = ()
    length = 0
    if inside:
        length = inside[-1] + 1  # what follows the last tag cannot change its score
        ((completion,),) = yield [Score(model=settings.model, ids=tuple(ids[:length]), positions=tuple(inside))]
        scores = completion.scores
    n_steps = len(solution.steps)
    steps = [StepJudgement() for _ in range(n_steps - len(tags))]
    steps += [StepJudgement(score=score) for score in scores]
    steps += [StepJudgement(missed=True) for _ in range(n_steps - len(steps))]
    return Judgement(solution_id=solution.id, judge=settings.judge, steps=tuple(steps), prompt_tokens=length)
