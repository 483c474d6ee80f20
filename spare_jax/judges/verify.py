"""Verification: a generative judge that sees no reference (SPARK, arXiv 2512.03244, stage I)."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spare_jax.judges import votes
from spare_jax.programs import (
    Completion,
    Prefix,
    Program,
    Request,
    RequestFailed,
    Sample,
    tokens_read,
    tokens_written,
)
from spare_jax.prompts import verify as prompt
from spare_jax.prompts.chat import encode_chat, end_ids
from spare_jax.prompts.solve import decode
from spare_jax.records import Judgement, Problem, Solution, StepJudgement, not_judged

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task


@dataclass(frozen=True)
class VerifySettings:
    """How the verifier is asked.

    `max_length` is its context in tokens, prompt and answer together; `max_tokens` bounds the answer. `votes`
    verifications are sampled per solution (at `temperature` 0 one of them says it all) and the majority counts, step by
    step. With `grammar` every verification has a verdict per step, whatever the model prefers. `guidelines` stand in
    for prompts/verify.py's unless empty. `judge` names the judgements, `model` the engine.
    """

    max_length: int
    max_tokens: int = 1024
    votes: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    grammar: bool = False
    guidelines: str = ""
    model: str = "judge"
    judge: str = "verify"


def verify(
    task: "Task", problem: Problem, solution: Solution, tokenizer: "Tokenizer", settings: VerifySettings
) -> Program:
    """The program that verifies one solution, by a single `Sample`, and returns its Judgement.

    The outcome is the majority's word on the answer, which nobody has checked. A step without a verdict has no label
    and is `missed`. The text is that of the verifications, one behind the other.
    """
    if not solution.steps:
        return Judgement(solution.id, settings.judge)
    found = yield from verifications(task, problem, solution, tokenizer, settings)
    if found[0].failure:
        return replace(found[0], judge=settings.judge)
    answers = [said.outcome for said in found if said.outcome is not None]
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=votes.majority([said.steps for said in found]),
        outcome=2 * sum(answers) > len(answers) if answers else None,
        text="\n\n".join(said.text for said in found),
        parsed=any(said.parsed for said in found),
        surplus=sum(said.surplus for said in found),
        prompt_tokens=sum(said.prompt_tokens for said in found),
        generated_tokens=sum(said.generated_tokens for said in found),
    )


def verifications(
    task: "Task",
    problem: Problem,
    solution: Solution,
    tokenizer: "Tokenizer",
    settings: VerifySettings,
    answers: Sequence[str] = (),
) -> Generator[list[Request], list[tuple[Completion, ...]], tuple[Judgement, ...]]:
    """The program that verifies one solution `settings.votes` times, by a single `Sample`, and returns a Judgement of
    each; their judges are `settings.judge` with a number from 000.

    The prompt is read once, and its tokens are the first one's. The accepted `answers` are shown to the verifier where
    any are given: the reference-guided control. Where the verifier could not be asked, every judgement says why.
    """
    names = [f"{settings.judge}_{k:03d}" for k in range(settings.votes)]
    guidelines = settings.guidelines or prompt.GUIDELINES
    ids = encode_chat(tokenizer, prompt.render(task, problem, solution.steps, guidelines, answers))
    room = min(settings.max_tokens, settings.max_length - len(ids))
    if room < 1:
        why = f"the prompt of {len(ids)} tokens leaves no room for an answer"
        return tuple(not_judged(solution, name, why) for name in names)
    stop = end_ids(tokenizer)
    request = Sample(
        model=settings.model,
        ids=(),
        prefix=Prefix(tuple(ids)),
        max_tokens=room,
        n=settings.votes,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=() if settings.grammar else stop,
        grammar=prompt.grammar(len(solution.steps)) if settings.grammar else None,
    )
    try:
        (completions,) = yield [request]
    except RequestFailed as failed:
        return tuple(not_judged(solution, name, str(failed)) for name in names)
    read = tokens_read(request, completions)
    return tuple(
        verification(solution, name, tokenizer, completion, 0 if k else read)
        for k, (name, completion) in enumerate(zip(names, completions, strict=True))
    )


def verification(
    solution: Solution, judge: str, tokenizer: "Tokenizer", completion: Completion, prompt_tokens: int
) -> Judgement:
    """What one completion says of the solution, which has steps."""
    stop = end_ids(tokenizer)
    text = decode(tokenizer, [token for token in completion.ids if token not in stop])
    parsed = prompt.parse(text, len(solution.steps))
    return Judgement(
        solution_id=solution.id,
        judge=judge,
        steps=_steps(parsed, len(solution.steps)),
        outcome=parsed.answer,
        text=text,
        parsed=bool(parsed.steps),
        surplus=parsed.surplus,
        prompt_tokens=prompt_tokens,
        generated_tokens=tokens_written([completion]),
    )


def _steps(parsed: prompt.ParsedVerification, n_steps: int) -> tuple[StepJudgement, ...]:
    steps = []
    for number in range(1, n_steps + 1):
        said = parsed.steps.get(number)
        if said is None or said.correct is None:
            steps.append(StepJudgement(missed=True))
        else:
            steps.append(StepJudgement(label=said.correct, explanation=f"{said.title}: {said.analysis}"))
    return tuple(steps)
