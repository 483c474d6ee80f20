"""Meta-critique: a verifier criticises a verification and writes it anew (SPARK, arXiv 2512.03244, stage I)."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spare_jax.judges.verify import VerifySettings, verification
from spare_jax.programs import (
    Completion,
    Grammar,
    Prefix,
    Request,
    RequestFailed,
    Sample,
    tokens_read,
    tokens_written,
)
from spare_jax.prompts import meta_critique as prompt
from spare_jax.prompts import verify
from spare_jax.prompts.chat import encode_chat, end_ids
from spare_jax.prompts.solve import decode
from spare_jax.records import Judgement, Problem, Solution, not_judged

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task


@dataclass(frozen=True)
class MetaCritiqueSettings:
    """How the verifier is asked for the critique and for the merged verification: greedily, else as `verify` says.

    `critique` and `merge` stand in for the instructions of prompts/meta_critique.py unless empty.
    """

    verify: VerifySettings
    critique: str = ""
    merge: str = ""


def meta_critique(
    task: "Task",
    problem: Problem,
    solution: Solution,
    initial: Judgement,
    tokenizer: "Tokenizer",
    settings: MetaCritiqueSettings,
) -> Generator[list[Request], list[tuple[Completion, ...]], tuple[Judgement, ...]]:
    """The program that criticises a verification, by two `Sample`s one behind the other; returns what was written, the
    critique and the merged verification, each with its own text and tokens.

    Their judges are that of `initial` with "_critique" and "_merged". The critique judges no step. Where the verifier
    could not be asked, the merged verification says why.
    """
    merged = f"{initial.judge}_merged"
    asked = verify.render(task, problem, solution.steps, settings.verify.guidelines or verify.GUIDELINES)
    messages = prompt.go_on(asked, initial.text, settings.critique or prompt.CRITIQUE)
    first = encode_chat(tokenizer, messages)
    written: tuple[Judgement, ...] = ()
    try:
        completion, read = yield from _greedy(tokenizer, Prefix(tuple(first)), (), settings.verify)
        critique = decode(tokenizer, [token for token in completion.ids if token not in end_ids(tokenizer)])
        written = (
            Judgement(
                solution.id,
                f"{initial.judge}_critique",
                text=critique,
                prompt_tokens=read,
                generated_tokens=tokens_written([completion]),
            ),
        )
        second = encode_chat(tokenizer, prompt.go_on(messages, critique, settings.merge or prompt.MERGE))
        shared = first if second[: len(first)] == first else second  # what the critique's prompt has been read for
        grammar = verify.grammar(len(solution.steps)) if settings.verify.grammar else None
        completion, read = yield from _greedy(
            tokenizer, Prefix(tuple(shared)), tuple(second[len(shared) :]), settings.verify, grammar
        )
    except RequestFailed as failed:
        return (*written, not_judged(solution, merged, str(failed)))
    return (*written, verification(solution, merged, tokenizer, completion, read))


def _greedy(
    tokenizer: "Tokenizer",
    prefix: Prefix,
    ids: Sequence[int],
    settings: VerifySettings,
    grammar: Grammar | None = None,
) -> Generator[list[Request], list[tuple[Completion, ...]], tuple[Completion, int]]:
    """The most likely answer, and how many tokens its prompt has. Raises RequestFailed, also without room for it."""
    length = len(prefix.ids) + len(ids)
    room = min(settings.max_tokens, settings.max_length - length)
    if room < 1:
        raise RequestFailed(f"the prompt of {length} tokens leaves no room for an answer")
    request = Sample(
        model=settings.model,
        ids=tuple(ids),
        prefix=prefix,
        max_tokens=room,
        temperature=0.0,
        stop=() if grammar else end_ids(tokenizer),
        grammar=grammar,
    )
    (completions,) = yield [request]
    return completions[0], tokens_read(request, completions)
