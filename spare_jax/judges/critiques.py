"""Reward models that write a critique and are then scored behind it: ThinkPRM (arXiv 2504.16828), GenPRM (arXiv
2504.00891).

One critique is sampled at temperature 0. The score behind it is the probability of the second of two answers, such as
"No" and "Yes", against the first; the engine's read-out must be that of the model's two answers.
"""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from spare_jax.judges.reward_model import RewardModelSettings
from spare_jax.programs import Completion, Prefix, Program, Request, RequestFailed, Sample, Score
from spare_jax.prompts import critiques
from spare_jax.prompts.chat import encode, end_ids
from spare_jax.prompts.solve import decode
from spare_jax.records import Judgement, Problem, Solution, StepJudgement

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer


def think_prm(tokenizer: "Tokenizer", problem: Problem, solution: Solution, settings: RewardModelSettings) -> Program:
    """ThinkPRM: one critique of the whole solution. Its score, the probability of "Yes", stands at the last step.

    A step's label is what the critique's \\boxed{} says of it; a step without one is `missed`.

    Raises:
      RequestFailed: the model could not be asked, the context leaves no room for a critique, or it was cut off.
    """
    n_steps = len(solution.steps)
    if not n_steps:
        return Judgement(solution.id, settings.judge)
    prompt = critiques.think_prompt(tokenizer, problem, solution.steps)
    marks = critiques.think_marks(n_steps)
    text, score, generated = yield from _criticise(tokenizer, prompt, marks, critiques.THINK_DECISION, settings)
    labels = critiques.think_verdicts(text, n_steps)
    steps = [
        StepJudgement(label=label, missed=label is None, score=score if number == n_steps else None)
        for number, label in enumerate(labels, 1)
    ]
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=tuple(steps),
        text=text,
        prompt_tokens=len(prompt),
        generated_tokens=generated,
    )


def gen_prm(tokenizer: "Tokenizer", problem: Problem, solution: Solution, settings: RewardModelSettings) -> Program:
    """GenPRM without executing its code: an analysis per step, behind the analyses of the steps before it. A step's
    score is the probability of "Yes" behind its analysis.

    If an analysis was cut off, or there is no room for it in the context, its step and those behind it have no score.

    Raises:
      RequestFailed: the model could not be asked, or the first step already has no analysis.
    """
    steps: list[StepJudgement] = []
    judged: list[tuple[str, bool]] = []
    prompt_tokens = generated_tokens = 0
    for _ in solution.steps:
        prompt = critiques.gen_prompt(tokenizer, problem, solution.steps, judged)
        try:
            text, score, generated = yield from _criticise(
                tokenizer, prompt, critiques.GEN_MARKS, critiques.GEN_DECISION, settings
            )
        except RequestFailed as failed:
            if failed.passing or not steps:
                raise
            break  # asked again it would fail again: keep the steps that have been judged
        judged.append((text, score >= 0.5))
        steps.append(StepJudgement(score=score, explanation=text))
        prompt_tokens += len(prompt)
        generated_tokens += generated
    steps += [StepJudgement()] * (len(solution.steps) - len(steps))
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=tuple(steps),
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
    )


def _criticise(
    tokenizer: "Tokenizer", prompt: Sequence[int], marks: Sequence[str], decision: str, settings: RewardModelSettings
) -> Generator[list[Request], list[tuple[Completion, ...]], tuple[str, float, int]]:
    """Ask for a critique, and behind it and the text `decision` for the score: (critique, score, tokens generated).

    A critique ends where the model ends it, or before the first of `marks`.
    """
    question = encode(tokenizer, decision)
    room = min(settings.max_tokens, settings.max_length - len(prompt) - len(question))
    if room < 1:
        raise RequestFailed(f"the prompt of {len(prompt)} tokens leaves no room for a critique")
    prefix, stop = Prefix(tuple(prompt)), end_ids(tokenizer)
    ((completion,),) = yield [Sample(settings.model, (), room, prefix, temperature=0.0, stop=stop)]
    written = [token for token in completion.ids if token not in stop]
    kept = critiques.cut(tokenizer, written, marks)
    if completion.finish_reason != "stop" and len(kept) == len(written):
        raise RequestFailed(f"the critique was cut off after {len(written)} tokens")
    ids = (*kept, *question)
    ((answer,),) = yield [Score(settings.model, ids, (len(prompt) + len(ids) - 1,), prefix)]
    return decode(tokenizer, kept), answer.scores[0], len(completion.ids)
