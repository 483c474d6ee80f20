"""Verification: a generative judge that sees no reference (SPARK, arXiv 2512.03244, stage I)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spare_jax.judges import votes
from spare_jax.programs import Prefix, Program, RequestFailed, Sample, tokens_read, tokens_written
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
    ids = encode_chat(tokenizer, prompt.render(task, problem, solution.steps, settings.guidelines or prompt.GUIDELINES))
    room = min(settings.max_tokens, settings.max_length - len(ids))
    if room < 1:
        return not_judged(solution, settings.judge, f"the prompt of {len(ids)} tokens leaves no room for an answer")
    stop, n_steps = end_ids(tokenizer), len(solution.steps)
    request = Sample(
        model=settings.model,
        ids=(),
        prefix=Prefix(tuple(ids)),
        max_tokens=room,
        n=settings.votes,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=() if settings.grammar else stop,
        grammar=prompt.grammar(n_steps) if settings.grammar else None,
    )
    try:
        (completions,) = yield [request]
    except RequestFailed as failed:
        return not_judged(solution, settings.judge, str(failed))
    texts = [decode(tokenizer, [token for token in c.ids if token not in stop]) for c in completions]
    parsed = [prompt.parse(text, n_steps) for text in texts]
    answers = [p.answer for p in parsed if p.answer is not None]
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=votes.majority([_steps(p, n_steps) for p in parsed]),
        outcome=2 * sum(answers) > len(answers) if answers else None,
        text="\n\n".join(texts),
        parsed=any(p.steps for p in parsed),
        surplus=sum(p.surplus for p in parsed),
        prompt_tokens=tokens_read(request, completions),
        generated_tokens=tokens_written(completions),
    )


def _steps(parsed: prompt.ParsedVerification, n_steps: int) -> Sequence[StepJudgement]:
    steps = []
    for number in range(1, n_steps + 1):
        said = parsed.steps.get(number)
        if said is None or said.correct is None:
            steps.append(StepJudgement(missed=True))
        else:
            steps.append(StepJudgement(label=said.correct, explanation=f"{said.title}: {said.analysis}"))
    return steps
