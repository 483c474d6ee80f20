"""The program that samples n solutions of a problem from a policy, by one request."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spare_jax.keys import unlisted
from spare_jax.programs import Program, Sample, tokens_read
from spare_jax.prompts import solve
from spare_jax.prompts.chat import encode_chat, end_ids, shared_prefix
from spare_jax.records import Problem, Solution

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class SolveSettings:
    """How solutions are sampled (SPARE, arXiv 2506.15498: 20 per problem, temperature 1, top-p 1, 500 tokens at most).
    `tokenizer_digest` is noted in the solutions; `model` names the engine."""

    samples: int = 20
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 500
    tokenizer_digest: str = unlisted("")
    model: str = unlisted("generator")


def solutions(
    task: "Task", problem: Problem, tokenizer: "Tokenizer", settings: SolveSettings, begun: Sequence[int] = ()
) -> Program:
    """The program that samples `settings.samples` solutions of `problem` and returns them as a list.

    Solution k, from 0, has the id "<problem>/<k>" with k in three digits. Every solution begins with the token ids
    `begun`, which count as prompt tokens and not in the mean log-probability.
    """
    messages = solve.render(task, problem)
    prompt = [*encode_chat(tokenizer, messages), *begun]
    prefix = shared_prefix(tokenizer, messages, prompt)
    stop = end_ids(tokenizer)
    request = Sample(
        model=settings.model,
        ids=tuple(prompt[len(prefix.ids) if prefix else 0 :]),
        prefix=prefix,
        max_tokens=settings.max_tokens,
        n=settings.samples,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=stop,
    )
    (completions,) = yield [request]
    sampled, read = [], tokens_read(request, completions)
    for k, completion in enumerate(completions):
        ids = (*begun, *completion.ids)
        steps, spans, _ = solve.split_solution(tokenizer, ids, stop, task.split_steps)
        sampled.append(
            Solution(
                id=f"{problem.id}/{k:03d}",
                problem_id=problem.id,
                steps=steps,
                answer=task.extract_answer(steps),
                finish_reason=completion.finish_reason,
                token_ids=ids,
                spans=spans,
                tokenizer=settings.tokenizer_digest,
                mean_logprob=math.fsum(completion.logprobs) / len(completion.logprobs) if completion.logprobs else None,
                prompt_tokens=read,
            )
        )
    return sampled
