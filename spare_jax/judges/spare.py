"""SPARE: one generation that compares every step with a reference solution and labels it (arXiv 2506.15498)."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spare_jax.judges import votes
from spare_jax.judges.outcome import is_correct
from spare_jax.keys import unlisted
from spare_jax.programs import Prefix, Program, RequestFailed, Sample, tokens_read, tokens_written
from spare_jax.prompts import annotate
from spare_jax.prompts.chat import encode_chat, end_ids, shared_prefix
from spare_jax.prompts.solve import decode
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement, not_judged
from spare_jax.targets.labels import LabelPolicy, label_steps
from spare_jax.tasks.task import choose_exemplars

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task


@dataclass(frozen=True)
class SpareSettings(LabelPolicy):
    """How the annotator is asked, and which labels are made of what it writes.

    `max_length` is its context in tokens, prompt and answer together; `max_tokens` bounds the answer. `exemplars` are
    drawn per solution, from `seed` and the solution's id alone (the paper: 5); with `draws` above 0 a solution has one
    of so many draws, and those with the same one share all of their prompts before the instance. `stop` are the ids
    that end an answer; where it is empty, the tokenizer's end-of-sequence token. With `grammar` every answer is one
    whole record per step, whatever the model prefers. `votes` annotations are sampled per solution and the majority
    counts, step by step; the kept text is then the majority's records. `guidelines` stand in for the task's unless
    empty. `judge` names the judgements, `model` the engine.
    """

    max_length: int = unlisted(sys.maxsize)
    max_tokens: int = 1024
    model: str = unlisted("annotator")
    judge: str = unlisted("spare")
    votes: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[int, ...] = unlisted(())
    guidelines: str = ""
    exemplars: int = 5
    draws: int = 0
    seed: int = unlisted(0)
    grammar: bool = True


def spare(
    task: "Task",
    problem: Problem,
    gold: Gold,
    solution: Solution,
    tokenizer: "Tokenizer",
    settings: SpareSettings,
) -> Program:
    """The program that annotates one solution by a single `Sample` and returns its Judgement.

    Exemplars are dropped from the end until prompt and answer fit the context (`exemplars_dropped`). The labels are
    those of the policy; the annotator's text is kept. A text that was cut off, or has no record of any step, is
    no annotation: it does not vote, and where no other is there the solution is not judged.

    Args:
      gold: its steps are the reference, its answers decide the outcome (None where it has none, or where the comparison
        with them is undecided). The controls have other steps there: none, or another problem's.

    Raises:
      RequestFailed: the annotator could not be asked, or the prompt fills its context.
    """
    outcome = is_correct(task, gold, solution) if gold.answers else None
    n_steps = len(solution.steps)
    if not n_steps:
        return Judgement(solution.id, settings.judge, outcome=outcome)
    ids, prefix, dropped = _prompt(task, problem, gold.steps, solution, tokenizer, settings)
    room, stop = settings.max_length - len(ids), settings.stop or end_ids(tokenizer)
    if room < 1:
        raise RequestFailed(f"the prompt of {len(ids)} tokens leaves no room for an answer")
    request = Sample(
        model=settings.model,
        ids=tuple(ids[len(prefix.ids) if prefix else 0 :]),
        prefix=prefix,
        max_tokens=min(settings.max_tokens, room),
        n=settings.votes,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=() if settings.grammar else stop,
        grammar=annotate.grammar(n_steps) if settings.grammar else None,
    )
    (completions,) = yield [request]
    read, written = tokens_read(request, completions), tokens_written(completions)
    texts = [decode(tokenizer, [token for token in c.ids if token not in stop]) for c in completions]
    whole = [text for text, c in zip(texts, completions, strict=True) if c.finish_reason == "stop"]
    readable = [text for text in whole if annotate.parse(text, n_steps).records]
    if not readable:
        why = "has no readable record of a step" if whole else f"was cut off after {written} tokens"
        return not_judged(solution, settings.judge, f"the annotator's text {why}", texts[0], read, written)
    text, shares = readable[0], [None] * n_steps
    if settings.votes > 1:
        voted = _majority(readable, n_steps)
        text, shares = annotate.format_records(voted), [step.score for step in voted]
    annotation = annotate.parse(text, n_steps)
    steps, _ = label_steps(annotation, n_steps, outcome, settings)
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=tuple(replace(step, score=share) for step, share in zip(steps, shares, strict=True)),
        outcome=outcome,
        text=text,
        surplus=annotation.surplus,
        exemplars_dropped=dropped,
        prompt_tokens=read,
        generated_tokens=written,
    )


def _majority(texts: Sequence[str], n_steps: int) -> tuple[StepJudgement, ...]:
    """One annotation from several: each step's majority; a step that no text has a record of is missed."""
    annotations = [annotate.parse(text, n_steps).records for text in texts]
    nothing = StepJudgement(missed=True)
    return votes.majority([[records.get(i, nothing) for i in range(1, n_steps + 1)] for records in annotations])


def _prompt(
    task: "Task",
    problem: Problem,
    reference: Sequence[str],
    solution: Solution,
    tokenizer: "Tokenizer",
    settings: SpareSettings,
) -> tuple[list[int], Prefix | None, int]:
    """The longest prompt that leaves room for `max_tokens`, what it shares with others, and how many exemplars it
    lacks.

    Without exemplars the prompt is returned whatever its length: a shorter answer may still do.
    """
    chosen = ()
    if settings.exemplars:
        digest = hashlib.blake2b(solution.id.encode(errors="surrogatepass"), digest_size=4).digest()
        draw = int.from_bytes(digest, "big") % settings.draws if settings.draws else solution.id
        chosen = choose_exemplars(task.exemplars(), settings.exemplars, f"{settings.seed}/{draw}")
    kept = len(chosen)
    while True:
        guidelines = settings.guidelines or task.guidelines
        messages = annotate.render(task, problem, reference, solution.steps, guidelines, chosen[:kept])
        ids = encode_chat(tokenizer, messages)
        if kept == 0 or len(ids) + settings.max_tokens <= settings.max_length:
            return ids, shared_prefix(tokenizer, messages, ids), len(chosen) - kept
        kept -= 1
