"""Reward models that write before they judge: a critique is sampled, then two answers are compared behind it.

The engine's read-out must be that of the two answers. Sampling is greedy, one critique each.
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
    """ThinkPRM: one critique of the whole solution; its score, p(yes), stands at the last step.

    The labels of the steps are the critique's boxes; a step without one is `missed`.

    Raises:
      RequestFailed: the model could not be asked, the context leaves no room for a critique, or it was cut off.
    """
    n_steps = len(solution.steps)
    if not n_steps:
        return Judgement(solution.id, settings.judge)
    prompt = critiques.think_prompt(tokenizer, problem, solution.steps)
    marks = critiques.think_marks(n_steps)
    text, score, generated = yield from _criticise(tokenizer, prompt, marks, critiques.THINK_DECISION, settings)
    said = critiques.think_verdicts(text, n_steps)
    steps = [
        StepJudgement(label=label, missed=label is None, score=score if number == n_steps else None)
        for number, label in enumerate(said, 1)
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
    """GenPRM without execution: an analysis per step, each behind those of the steps before; its score is p(Yes).

    Where one has no room in the context, or was cut off, its step and those behind it have no score.

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
            break  # it would fail again; what has been judged stays
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
    """Ask for a critique and for the decision behind it: (text, score, tokens generated)."""
    asked = encode(tokenizer, decision)
    room = min(settings.max_tokens, settings.max_length - len(prompt) - len(asked))
    if room < 1:
        raise RequestFailed(f"the prompt of {len(prompt)} tokens leaves no room for a critique")
    prefix, stop = Prefix(tuple(prompt)), end_ids(tokenizer)
    ((completion,),) = yield [Sample(settings.model, (), room, prefix, temperature=0.0, stop=stop)]
    written = [token for token in completion.ids if token not in stop]
    kept = critiques.cut(tokenizer, written, marks)
    if completion.finish_reason != "stop" and len(kept) == len(written):
        raise RequestFailed(f"the critique was cut off after {len(written)} tokens")
    ids = (*kept, *asked)
    ((answer,),) = yield [Score(settings.model, ids, (len(prompt) + len(ids) - 1,), prefix)]
    return decode(tokenizer, kept), answer.scores[0], len(completion.ids)
