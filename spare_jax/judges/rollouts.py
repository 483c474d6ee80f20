"""Rollouts: a step is scored by how often a policy that continues behind it reaches the right answer.

Math-Shepherd's automatic labels (arXiv 2312.08935, section 3.3): K continuations behind every step. The share that
reaches an accepted answer is the step's score (soft estimation), and the step is right if any does (hard estimation).
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
    """How a policy continues solutions.

    Attributes:
      max_length: the policy's context in tokens, prompt and continuation together.
      max_tokens: most tokens of a continuation.
      samples: continuations behind each step (K).
      threshold: a step is right if more than this share of its continuations end right; 0 is hard estimation.
      model, judge: the name of the engine, and of the judgements.
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
    """A policy that continues solutions of one problem behind any of their steps."""

    task: "Task"
    gold: Gold
    tokenizer: "Tokenizer"
    settings: RolloutSettings
    prompt: Prefix

    def request(self, pieces: Sequence[Sequence[int]]) -> Sample | None:
        """The request for `samples` rollouts behind some steps, each given by the ids of its piece (prompts/solve.py,
        `piece_ids`); None where the context is full. Each piece is declared as a prefix, so it is prefilled once."""
        prefix = self.prompt
        for piece in pieces:
            prefix = Prefix(tuple(piece), prefix)
        s = self.settings
        room = min(s.max_tokens, s.max_length - len(prefix.all_ids()))
        if room < 1:
            return None
        return Sample(s.model, (), room, prefix, s.samples, s.temperature, s.top_p, stop=end_ids(self.tokenizer))

    def ended_right(self, completion: Completion) -> bool | None:
        """Whether a rollout's own steps, not those before it, end in an accepted answer. None if it does not count: it
        was cut off, has no step, or the comparison of answers is undecided."""
        more, _, _ = solve.split_solution(
            self.tokenizer, completion.ids, end_ids(self.tokenizer), self.task.split_steps
        )
        if completion.finish_reason != "stop" or not more:
            return None
        return self.task.answers_equal(self.task.extract_answer(more), self.gold.answers)


def continuation(
    task: "Task", problem: Problem, gold: Gold, tokenizer: "Tokenizer", settings: RolloutSettings
) -> Continuation:
    """The policy for solutions of `problem`."""
    prompt = Prefix(tuple(encode_chat(tokenizer, solve.render(task, problem))))
    return Continuation(task, gold, tokenizer, settings, prompt)


def share_right(policy: Continuation, completions: Sequence[Completion]) -> float | None:
    """The share that ends right of the rollouts that count; None if none counts."""
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
    """The program that labels a solution's steps by rollouts, all asked for at once, and returns its Judgement.

    The last step needs no rollout: its label is the outcome, its score 1 or 0. A step none of whose rollouts counts
    (`Continuation.ended_right`), or behind which the context is full, has no label; a solution without any labelled
    step is not judged. Only the answers of `gold` are used. `tokenizer_digest` says whether the solution's ids are this
    tokenizer's.

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
