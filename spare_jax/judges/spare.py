"""SPARE: one generation that aligns every step with a reference solution and labels it (arXiv 2506.15498, section
3)."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spare_jax.judges.outcome import is_correct
from spare_jax.judges.votes import majority_of_steps
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

    Attributes:
      max_length: the annotator's context in tokens, prompt and answer together.
      max_tokens: most tokens of an answer.
      model, judge: the name of the engine, and of the judgements.
      votes: how many annotations are sampled per solution. With several, each step gets the majority's label, and the
        text that is kept is the majority's records.
      stop: ids that end an answer; empty for the tokenizer's end-of-sequence tokens.
      guidelines: of the prompt; empty for the task's.
      exemplars: how many solved examples the prompt shows (the paper: 5), drawn by `seed` and the solution's id.
      draws: 0 draws the exemplars of each solution anew. Otherwise there are so many draws in all, and solutions with
        the same draw share their prompts up to the problem, which is prefilled once.
      grammar: whether the engine allows only texts with one complete record per step.
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
    """The program that annotates a solution by a single `Sample` and returns its Judgement.

    Exemplars are left out, the last ones first, until prompt and answer fit the context; the Judgement counts them as
    `exemplars_dropped`. A text that was cut off, or has no record of any step, has no vote; if there is no other text,
    the solution is not judged.

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
        majority = _majority_of_texts(readable, n_steps)
        text, shares = annotate.format_records(majority), [step.score for step in majority]
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


def _majority_of_texts(texts: Sequence[str], n_steps: int) -> tuple[StepJudgement, ...]:
    """The majority of several annotations; a step that a text has no record of is missed there."""
    annotations = [annotate.parse(text, n_steps).records for text in texts]
    missed = StepJudgement(missed=True)
    return majority_of_steps([[records.get(i, missed) for i in range(1, n_steps + 1)] for records in annotations])


def _prompt(
    task: "Task",
    problem: Problem,
    reference: Sequence[str],
    solution: Solution,
    tokenizer: "Tokenizer",
    settings: SpareSettings,
) -> tuple[list[int], Prefix | None, int]:
    """The prompt with the most exemplars that leaves room for `max_tokens`; the prefix that other solutions share; and
    how many exemplars were left out.

    A prompt without exemplars is returned whatever its length: a shorter answer may still be enough.
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
