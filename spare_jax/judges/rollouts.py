"""Rollouts: what a step is worth is how often a policy that goes on behind it ends at the right answer.

Math-Shepherd's labels (arXiv 2312.08935): K solutions from every step; a step's score is the share of them that end
right (the soft label), and it is right where any of them does (the hard one).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spare_jax.judges.outcome import is_correct, require_answers
from spare_jax.programs import Completion, Prefix, Program, Request, Sample, tokens_read, tokens_written
from spare_jax.prompts import solve
from spare_jax.prompts.chat import encode_chat, end_ids
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task


@dataclass(frozen=True)
class RolloutSettings:
    """How a policy goes on: `samples` times (K) behind each step, for `max_tokens` at most.

    `max_length` is its context. A step is right where more than `threshold` of its rollouts end right: 0 is
    Math-Shepherd's hard label.
    """

    max_length: int
    max_tokens: int
    samples: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    threshold: float = 0.0
    model: str = "generator"
    judge: str = "rollouts"


@dataclass(frozen=True)
class Continuation:
    """A policy that can go on behind the first steps of solutions of one problem."""

    task: "Task"
    gold: Gold
    tokenizer: "Tokenizer"
    settings: RolloutSettings
    prompt: Prefix

    def request(self, pieces: Sequence[Sequence[int]]) -> Sample | None:
        """The request for `samples` rollouts behind `pieces` (prompts/solve.py, `piece_ids`); None where the context is
        full. Every piece is shared with whoever begins with it too."""
        prefix = self.prompt
        for piece in pieces:
            prefix = Prefix(tuple(piece), prefix)
        how = self.settings
        room = min(how.max_tokens, how.max_length - len(prefix.all_ids()))
        if room < 1:
            return None
        stop = end_ids(self.tokenizer)
        return Sample(how.model, (), room, prefix, how.samples, how.temperature, how.top_p, stop=stop)

    def ended_right(self, steps: Sequence[str], completion: Completion) -> bool:
        """Whether `steps` and what was sampled behind them end at an accepted answer."""
        more, _, _ = solve.split_solution(self.tokenizer, completion.ids, end_ids(self.tokenizer))
        return bool(self.task.answers_equal(self.task.extract_answer((*steps, *more)), self.gold.answers))


def continuation(
    task: "Task", problem: Problem, gold: Gold, tokenizer: "Tokenizer", settings: RolloutSettings
) -> Continuation:
    """A policy that goes on behind steps of solutions of `problem`."""
    prompt = Prefix(tuple(encode_chat(tokenizer, solve.render(task, problem))))
    return Continuation(task, gold, tokenizer, settings, prompt)


def rollouts(
    task: "Task",
    problem: Problem,
    gold: Gold,
    solution: Solution,
    tokenizer: "Tokenizer",
    tokenizer_digest: str,
    settings: RolloutSettings,
) -> Program:
    """The program that labels a solution's steps by rollouts, all asked for at once; returns its Judgement.

    Behind the last step there is nothing to go on with: its label is the outcome, its score 1 or 0. Steps at which the
    context is full are `missed`. Of the gold its answers are used alone.
    """
    require_answers(gold, settings.judge)
    outcome = is_correct(task, gold, solution)
    policy = continuation(task, problem, gold, tokenizer, settings)
    pieces = solve.piece_ids(tokenizer, solution, tokenizer_digest)
    asked = [policy.request(pieces[: i + 1]) for i in range(len(pieces) - 1)]
    requests: list[Request] = [request for request in asked if request is not None]
    answers = iter((yield requests) if requests else ())
    steps, read, written = [], 0, 0
    for i, request in enumerate(asked):
        if request is None:
            steps.append(StepJudgement(missed=True))
            continue
        completions = next(answers)
        read, written = read + tokens_read(request, completions), written + tokens_written(completions)
        right = [policy.ended_right(solution.steps[: i + 1], completion) for completion in completions]
        share = sum(right) / len(right)
        steps.append(StepJudgement(label=share > settings.threshold, score=share))
    if solution.steps:
        steps.append(StepJudgement(label=outcome, score=None if outcome is None else float(outcome)))
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=tuple(steps),
        outcome=outcome,
        prompt_tokens=read,
        generated_tokens=written,
    )
