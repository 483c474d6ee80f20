"""Rollouts: what a step is worth is how often a policy that goes on behind it ends at the right answer.

Math-Shepherd's labels (arXiv 2312.08935): K solutions from every step; a step's score is the share of them that end
right (the soft label), and it is right where any of them does (the hard one).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spare_jax.judges.outcome import is_correct, require_answers
from spare_jax.keys import unlisted
from spare_jax.programs import Completion, Prefix, Program, Request, Sample, tokens_read, tokens_written
from spare_jax.prompts import solve
from spare_jax.prompts.chat import encode_chat, end_ids
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement, not_judged

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task

NO_ROLLOUT = "no rollout came to an end: raise config.rollouts.max_tokens or the context"


@dataclass(frozen=True)
class RolloutSettings:
    """How a policy goes on: `samples` times (K) behind each step, for `max_tokens` at most.

    `max_length` is its context. A step is right where more than `threshold` of its rollouts end right: 0 is
    Math-Shepherd's hard label.
    """

    max_length: int = unlisted(sys.maxsize)
    max_tokens: int = 500
    samples: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    threshold: float = 0.0
    model: str = unlisted("generator")
    judge: str = unlisted("rollouts")


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

    def ended_right(self, completion: Completion) -> bool | None:
        """Whether what was sampled ends at an accepted answer; the steps before it do not speak for it. None where it
        is no rollout: it was cut off, or says nothing, or the comparison is undecided."""
        more, _, _ = solve.split_solution(
            self.tokenizer, completion.ids, end_ids(self.tokenizer), self.task.split_steps
        )
        if completion.finish_reason != "stop" or not more:
            return None
        return self.task.answers_equal(self.task.extract_answer(more), self.gold.answers)


def continuation(
    task: "Task", problem: Problem, gold: Gold, tokenizer: "Tokenizer", settings: RolloutSettings
) -> Continuation:
    """A policy that goes on behind steps of solutions of `problem`."""
    prompt = Prefix(tuple(encode_chat(tokenizer, solve.render(task, problem))))
    return Continuation(task, gold, tokenizer, settings, prompt)


def share_right(policy: Continuation, completions: Sequence[Completion]) -> float | None:
    """The share of rollouts that end right, of those that are any; None without one."""
    right = [ended for completion in completions if (ended := policy.ended_right(completion)) is not None]
    return sum(right) / len(right) if right else None


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

    Behind the last step there is nothing to go on with: its label is the outcome, its score 1 or 0. A rollout that was
    cut off, or says nothing, is none; a step without any rollout, as where the context is full, has no label, and a
    solution without any labelled step is not judged. Of the gold its answers are used alone.

    Raises:
      RequestFailed: the policy could not be asked.
      ValueError: no accepted answer is known.
    """
    require_answers(gold, settings.judge)
    outcome = is_correct(task, gold, solution)
    policy = continuation(task, problem, gold, tokenizer, settings)
    pieces = solve.piece_ids(tokenizer, solution, tokenizer_digest)
    asked = [policy.request(pieces[: i + 1]) for i in range(len(pieces) - 1)]
    requests: list[Request] = [request for request in asked if request is not None]
    answers = iter((yield requests) if requests else ())
    steps, read, written = [], 0, 0
    for request in asked:
        completions = next(answers) if request else ()
        if request:
            read, written = read + tokens_read(request, completions), written + tokens_written(completions)
        share = share_right(policy, completions)
        steps.append(StepJudgement() if share is None else StepJudgement(label=share > settings.threshold, score=share))
    if solution.steps:
        steps.append(StepJudgement() if outcome is None else StepJudgement(label=outcome, score=float(outcome)))
        if all(step.label is None for step in steps):
            return not_judged(solution, settings.judge, NO_ROLLOUT, "", read, written)
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=tuple(steps),
        outcome=outcome,
        prompt_tokens=read,
        generated_tokens=written,
    )
