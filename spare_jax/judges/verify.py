"""Verification: a generative judge that sees no reference (SPARK, arXiv 2512.03244, stages I and II)."""

import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spare_jax.judges import votes
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
    """How a model is asked to verify.

    `max_length` is its context in tokens, prompt and answer together; `max_tokens` bounds the answer. `votes`
    texts are sampled per solution (at `temperature` 0 one of them says it all) and the majority counts, step by step.
    `kind` is what the model writes (prompts/generative.py); with `grammar` every text of it has every verdict, whatever
    the model prefers. `guidelines` stand in for those of the kind unless empty. `judge` names the judgements, `model`
    the engine.

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
    """The program that verifies one solution, by a single `Sample`, and returns its Judgement (`majority`). Raises as
    `written` does."""
    if not solution.steps:
        return Judgement(solution.id, settings.judge)
    _, _, found = yield from written(task, problem, solution, tokenizer, settings)
    return majority(solution, found, settings.judge)


def verifications(
    task: "Task",
    problem: Problem,
    solution: Solution,
    tokenizer: "Tokenizer",
    settings: VerifySettings,
    answers: Sequence[str] = (),
) -> Generator[list[Request], list[tuple[Completion, ...]], tuple[Judgement, ...]]:
    """The program that verifies one solution, which has steps, `settings.votes` times by a single `Sample`, and returns
    a Judgement of each. Raises as `written` does."""
    _, _, found = yield from written(task, problem, solution, tokenizer, settings, answers)
    return found


def majority(solution: Solution, found: Sequence[Judgement], judge: str) -> Judgement:
    """Several verifications of a solution as one Judgement.

    The label of a step, and the outcome, is the majority's verdict, and its score their share (judges/votes.py); nobody
    has checked either. A step without a verdict has neither and is `missed`. Verifications that failed do not vote;
    where all did, the solution is not judged. The text is that of the verifications that voted, one behind the other.
    """
    voters = [said for said in found if not said.failure]
    read, written = sum(said.prompt_tokens for said in found), sum(said.generated_tokens for said in found)
    if not voters:
        return not_judged(solution, judge, found[0].failure, found[0].text, read, written)
    answers = [StepJudgement(said.outcome, missed=said.outcome is None) for said in voters]
    *steps, answer = votes.majority([(*said.steps, answer) for said, answer in zip(voters, answers, strict=True)])
    return Judgement(
        solution_id=solution.id,
        judge=judge,
        steps=tuple(steps),
        outcome=answer.label,
        outcome_score=answer.score,
        text="\n\n".join(said.text for said in voters),
        surplus=sum(said.surplus for said in voters),
        prompt_tokens=read,
        generated_tokens=written,
    )


# What is asked, and how an answer is read


def written(
    task: "Task",
    problem: Problem,
    solution: Solution,
    tokenizer: "Tokenizer",
    settings: VerifySettings,
    answers: Sequence[str] = (),
) -> Generator[
    list[Request], list[tuple[Completion, ...]], tuple[Prefix, tuple[Completion, ...], tuple[Judgement, ...]]
]:
    """Ask for `settings.votes` texts about one solution behind one prompt; returns the prompt, what was written, and a
    Judgement of each text, whose judges are `settings.judge` with a number from 000.

    The prompt is read once, and its tokens are the first one's. The accepted `answers` are shown to the verifier where
    any are given: the reference-guided control.

    Raises:
      RequestFailed: the model could not be asked, or its prompt leaves no room for an answer.
    """
    guidelines, n_steps = settings.guidelines or prompt.GUIDELINES[settings.kind], len(solution.steps)
    asked = Prefix(tuple(encode_chat(tokenizer, render(task, problem, solution.steps, guidelines, answers))))
    grammar = prompt.grammar(settings.kind, n_steps) if settings.grammar else None
    completions, read = yield from sample(tokenizer, asked, (), settings, grammar)
    return (
        asked,
        completions,
        tuple(
            verification(solution, name, tokenizer, completion, 0 if k else read, settings.kind)
            for k, (name, completion) in enumerate(zip(_names(settings), completions, strict=True))
        ),
    )


def sample(
    tokenizer: "Tokenizer", prefix: Prefix, ids: Sequence[int], settings: VerifySettings, grammar: Grammar | None
) -> Generator[list[Request], list[tuple[Completion, ...]], tuple[tuple[Completion, ...], int]]:
    """The completions of one `Sample` behind prefix + ids, and the tokens of its prompt. Raises as `written` does."""
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


def verification(
    solution: Solution,
    judge: str,
    tokenizer: "Tokenizer",
    completion: Completion,
    prompt_tokens: int,
    kind: str = "prm_cot",
) -> Judgement:
    """What one completion says of the solution, which has steps. A step without a verdict is `missed`; kind "orm" has
    none on any step. A text that was cut off, or has no verdict at all, is a failure."""
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
    """The ids of a completion's text, without the one that ends it."""
    ends = end_ids(tokenizer)
    return [token for token in completion.ids if token not in ends]


def _names(settings: VerifySettings) -> list[str]:
    return [f"{settings.judge}_{k:03d}" for k in range(settings.votes)]


def _steps(parsed: ParsedVerification, n_steps: int) -> tuple[StepJudgement, ...]:
    steps = []
    for number in range(1, n_steps + 1):
        said = parsed.steps.get(number)
        if said is None or said.correct is None:
            steps.append(StepJudgement(missed=True))
        else:
            explanation = ": ".join(part for part in (said.title, said.analysis) if part)
            steps.append(StepJudgement(label=said.correct, explanation=explanation))
    return tuple(steps)
