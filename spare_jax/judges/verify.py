"""Verification: a judge that writes its verdicts and sees no reference (SPARK, arXiv 2512.03244, stages I and II)."""

import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from spare_jax.judges.votes import majority_of_steps
from spare_jax.keys import unlisted
from spare_jax.programs import (
    Completion,
    Grammar,
    Prefix,
    Program,
    Request,
    RequestFailed,
    Sample,
    tokens_read,
    tokens_written,
)
from spare_jax.prompts import generative as prompt
from spare_jax.prompts.chat import encode_chat, end_ids
from spare_jax.prompts.solve import decode
from spare_jax.prompts.verify import ParsedVerification, render
from spare_jax.records import Judgement, Problem, Solution, StepJudgement, not_judged

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task


@dataclass(frozen=True)
class VerifySettings:
    """How a model is asked to verify solutions.

    Attributes:
      max_length: the model's context in tokens, prompt and answer together.
      max_tokens: most tokens of an answer.
      votes: how many verifications are sampled per solution; each step gets the majority's label. At temperature 0 all
        would be the same, so use 1.
      grammar: whether the engine allows only texts that have every verdict.
      guidelines: the system message; empty for that of the kind.
      kind: what the model writes, one of prompts/generative.py's KINDS.
      model, judge: the name of the engine, and of the judgements.

    Raises:
      ValueError: `kind` is unknown.
    """

    max_length: int = unlisted(sys.maxsize)
    max_tokens: int = 1024
    votes: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    grammar: bool = True
    guidelines: str = ""
    kind: str = unlisted("prm_cot")
    model: str = unlisted("judge")
    judge: str = unlisted("verify")

    def __post_init__(self):
        if self.kind not in ("", *prompt.KINDS):
            raise ValueError(f"config.generative.kind={self.kind!r}: choose among {', '.join(prompt.KINDS)}")


def verify(
    task: "Task", problem: Problem, solution: Solution, tokenizer: "Tokenizer", settings: VerifySettings
) -> Program:
    """The program that verifies a solution and returns its Judgement, the majority of `settings.votes` verifications.

    Raises:
      RequestFailed: the model could not be asked, or its prompt leaves no room for an answer.
    """
    if not solution.steps:
        return Judgement(solution.id, settings.judge)
    sampled = yield from sample_verifications(task, problem, solution, tokenizer, settings)
    return majority_of_verifications(solution, sampled.judgements, settings.judge)


def verifications(
    task: "Task",
    problem: Problem,
    solution: Solution,
    tokenizer: "Tokenizer",
    settings: VerifySettings,
    answers: Sequence[str] = (),
) -> Generator[list[Request], list[tuple[Completion, ...]], tuple[Judgement, ...]]:
    """The program that returns `settings.votes` verifications of a solution that has steps, a Judgement of each.
    Arguments and errors are those of `sample_verifications`."""
    sampled = yield from sample_verifications(task, problem, solution, tokenizer, settings, answers)
    return sampled.judgements


def majority_of_verifications(solution: Solution, votes: Sequence[Judgement], judge: str) -> Judgement:
    """Several verifications of a solution as one Judgement by `judge`.

    A step's label is the majority's verdict and its score the share that says right (judges/votes.py); likewise the
    outcome and its score. A step on which no vote has a verdict is `missed`. Failed verifications have no vote; if all
    failed, the solution is not judged. The text is that of all votes, tokens are summed over all verifications.
    """
    voters = [vote for vote in votes if not vote.failure]
    read, written = sum(vote.prompt_tokens for vote in votes), sum(vote.generated_tokens for vote in votes)
    if not voters:
        return not_judged(solution, judge, votes[0].failure, votes[0].text, read, written)
    outcomes = [StepJudgement(vote.outcome, missed=vote.outcome is None) for vote in voters]
    *steps, outcome = majority_of_steps([(*vote.steps, last) for vote, last in zip(voters, outcomes, strict=True)])
    return Judgement(
        solution_id=solution.id,
        judge=judge,
        steps=tuple(steps),
        outcome=outcome.label,
        outcome_score=outcome.score,
        text="\n\n".join(vote.text for vote in voters),
        surplus=sum(vote.surplus for vote in voters),
        prompt_tokens=read,
        generated_tokens=written,
    )


class Sampled(NamedTuple):
    """Verifications of one solution: the prompt that they share, what was written behind it, and what that says."""

    prompt: Prefix
    completions: tuple[Completion, ...]
    judgements: tuple[Judgement, ...]


def sample_verifications(
    task: "Task",
    problem: Problem,
    solution: Solution,
    tokenizer: "Tokenizer",
    settings: VerifySettings,
    answers: Sequence[str] = (),
) -> Generator[list[Request], list[tuple[Completion, ...]], Sampled]:
    """Ask for `settings.votes` verifications of a solution that has steps, by one `Sample`.

    Args:
      answers: accepted answers to show to the verifier, for the control that is guided by a reference; usually none.

    Returns:
      also a Judgement per verification, whose judges are `settings.judge` with a number from 000. The prompt is read
      once for all: its tokens are counted by the first Judgement.

    Raises:
      RequestFailed: the model could not be asked, or its prompt leaves no room for an answer.
    """
    guidelines, n_steps = settings.guidelines or prompt.GUIDELINES[settings.kind], len(solution.steps)
    messages = render(task, problem, solution.steps, guidelines, answers)
    prefix = Prefix(tuple(encode_chat(tokenizer, messages)))
    grammar = prompt.grammar(settings.kind, n_steps) if settings.grammar else None
    completions, read = yield from sample_texts(tokenizer, prefix, (), settings, grammar)
    judgements = (
        read_verification(solution, f"{settings.judge}_{k:03d}", tokenizer, completion, 0 if k else read, settings.kind)
        for k, completion in enumerate(completions)
    )
    return Sampled(prefix, completions, tuple(judgements))


def sample_texts(
    tokenizer: "Tokenizer", prefix: Prefix, ids: Sequence[int], settings: VerifySettings, grammar: Grammar | None
) -> Generator[list[Request], list[tuple[Completion, ...]], tuple[tuple[Completion, ...], int]]:
    """Ask for `settings.votes` texts behind prefix + ids by one `Sample`; returns them and the tokens of the prompt.

    Raises:
      RequestFailed: the model could not be asked, or the prompt leaves no room for an answer.
    """
    length = len(prefix.all_ids()) + len(ids)
    room = min(settings.max_tokens, settings.max_length - length)
    if room < 1:
        raise RequestFailed(f"the prompt of {length} tokens leaves no room for an answer")
    request = Sample(
        model=settings.model,
        ids=tuple(ids),
        prefix=prefix,
        max_tokens=room,
        n=settings.votes,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=() if grammar else end_ids(tokenizer),
        grammar=grammar,
    )
    (completions,) = yield [request]
    return completions, tokens_read(request, completions)


def read_verification(
    solution: Solution,
    judge: str,
    tokenizer: "Tokenizer",
    completion: Completion,
    prompt_tokens: int,
    kind: str = "prm_cot",
) -> Judgement:
    """The Judgement that one completion states of a solution that has steps.

    A step without a verdict is `missed`; kind "orm" has none on any step. A text that was cut off, or has no verdict at
    all, is a failure.
    """
    text, spent = decode(tokenizer, text_ids(tokenizer, completion)), tokens_written([completion])
    parsed = prompt.parse(kind, text, len(solution.steps))
    cut = completion.finish_reason != "stop"
    if cut or not (parsed.verdicts or parsed.answer is not None):
        why = f"was cut off after {spent} tokens" if cut else "has no verdict"
        return not_judged(solution, judge, f"the verifier's text {why}", text, prompt_tokens, spent)
    return Judgement(
        solution_id=solution.id,
        judge=judge,
        steps=_steps(parsed, len(solution.steps)),
        outcome=parsed.answer,
        text=text,
        surplus=parsed.surplus,
        prompt_tokens=prompt_tokens,
        generated_tokens=spent,
    )


def text_ids(tokenizer: "Tokenizer", completion: Completion) -> list[int]:
    """The ids of a completion without end-of-text tokens."""
    ends = end_ids(tokenizer)
    return [token for token in completion.ids if token not in ends]


def _steps(parsed: ParsedVerification, n_steps: int) -> tuple[StepJudgement, ...]:
    steps = []
    for number in range(1, n_steps + 1):
        verdict = parsed.steps.get(number)
        if verdict is None or verdict.correct is None:
            steps.append(StepJudgement(missed=True))
        else:
            explanation = ": ".join(part for part in (verdict.title, verdict.analysis) if part)
            steps.append(StepJudgement(label=verdict.correct, explanation=explanation))
    return tuple(steps)
