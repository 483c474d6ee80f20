"""Meta-critique: a verifier criticises a verification and writes it anew (SPARK, arXiv 2512.03244, stage I)."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spare_jax.judges.verify import VerifySettings, read_verification, sample_texts, text_ids
from spare_jax.programs import Completion, Prefix, Request, tokens_written
from spare_jax.prompts import meta_critique as prompt
from spare_jax.prompts import verify
from spare_jax.prompts.chat import encode_chat
from spare_jax.prompts.solve import decode
from spare_jax.records import Judgement, Problem, Solution, not_judged

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task


@dataclass(frozen=True)
class MetaCritiqueSettings:
    """How the verifier is asked for the critique and for the merged verification: as `verify` says, but one text at
    temperature 0. `critique` and `merge` replace the instructions of prompts/meta_critique.py unless empty."""

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
    """The program that has a verification criticised and then written anew, by two `Sample`s; returns two Judgements.

    The first, whose judge is that of `initial` with "_critique", holds the critique's text and tokens and judges no
    step. The second, with "_merged", is the new verification; it failed if the critique was cut off.

    Raises:
      RequestFailed: the verifier could not be asked, or its prompt leaves no room for an answer.
    """
    merged, greedy = f"{initial.judge}_merged", replace(settings.verify, votes=1, temperature=0.0)
    asked = verify.render(task, problem, solution.steps, settings.verify.guidelines or verify.GUIDELINES)
    messages = prompt.go_on(asked, initial.text, settings.critique or prompt.CRITIQUE)
    first = encode_chat(tokenizer, messages)
    (completion,), read = yield from sample_texts(tokenizer, Prefix(tuple(first)), (), greedy, None)
    text, spent = decode(tokenizer, text_ids(tokenizer, completion)), tokens_written([completion])
    critique = Judgement(
        solution.id, f"{initial.judge}_critique", text=text, prompt_tokens=read, generated_tokens=spent
    )
    if completion.finish_reason != "stop":
        return critique, not_judged(solution, merged, f"the critique was cut off after {spent} tokens")
    second = encode_chat(tokenizer, prompt.go_on(messages, text, settings.merge or prompt.MERGE))
    shared = first if second[: len(first)] == first else second  # the critique's prompt, which is cached
    grammar = verify.grammar(len(solution.steps)) if greedy.grammar else None
    (completion,), read = yield from sample_texts(
        tokenizer, Prefix(tuple(shared)), second[len(shared) :], greedy, grammar
    )
    return critique, read_verification(solution, merged, tokenizer, completion, read)
