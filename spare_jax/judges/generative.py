"""Generative reward models as judges (SPARK, arXiv 2512.03244, stage II): their verdicts, or how likely these were."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from spare_jax.judges import votes
from spare_jax.programs import Completion, Prefix, Program, Request, Sample, Score, tokens_read, tokens_written
from spare_jax.prompts import generative as prompt
from spare_jax.prompts import verify
from spare_jax.prompts.chat import encode_chat, end_ids
from spare_jax.prompts.solve import decode
from spare_jax.prompts.verify import ParsedVerification
from spare_jax.records import Judgement, Problem, Solution, StepJudgement, not_judged

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task

SCORINGS = ("verdict", "probability")

_ANSWER = 0  # stands for the answer where steps are counted from 1


@dataclass(frozen=True)
class GenerativeSettings:
    """How a generative reward model is asked.

    `max_length` is its context in tokens, prompt and answer together; `max_tokens` bounds the answer. `kind` is what it
    writes (prompts/generative.py) and `guidelines` the system message that asks for it. `votes` texts are sampled per
    solution (at `temperature` 0 one of them says it all). `scoring`: what a text makes of a step and of the answer is
    its "verdict", 0 or 1, or the "probability" of the verdict that says right against the one that says wrong, behind
    what the text had said by then. With `grammar` every text has every verdict. `judge` names the judgements, `model`
    the engine.

    Raises:
      ValueError: `kind` or `scoring` is unknown.
    """

    max_length: int
    kind: str
    guidelines: str
    max_tokens: int = 1024
    votes: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    scoring: Literal["verdict", "probability"] = "verdict"
    grammar: bool = False
    model: str = "verifier"
    judge: str = "generative"

    def __post_init__(self):
        for name, known in (("kind", prompt.KINDS), ("scoring", SCORINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"config.generative.{name}={getattr(self, name)!r}: choose among {', '.join(known)}")


def generative(
    task: "Task", problem: Problem, solution: Solution, tokenizer: "Tokenizer", settings: GenerativeSettings
) -> Program:
    """The program that judges one solution and returns its Judgement.

    A step's label, and the outcome, is the majority's verdict; its score, and `outcome_score`, the mean over the votes
    that have one. A step without a verdict has neither and is `missed`; one whose verdict was not written in the
    tokenizer's own tokens has no probability. Kind "orm" labels no step: its score is that of the answer and stands at
    the last step, as an outcome reward model's does (judges/reward_model.py). The text is that of the votes, one behind
    the other.
    """
    n_steps = len(solution.steps)
    if not n_steps:
        return Judgement(solution.id, settings.judge)
    messages = verify.render(task, problem, solution.steps, settings.guidelines)
    asked, stop = Prefix(tuple(encode_chat(tokenizer, messages))), end_ids(tokenizer)
    room = min(settings.max_tokens, settings.max_length - len(asked.ids))
    if room < 1:
        return not_judged(
            solution, settings.judge, f"the prompt of {len(asked.ids)} tokens leaves no room for an answer"
        )
    request = Sample(
        model=settings.model,
        ids=(),
        prefix=asked,
        max_tokens=room,
        n=settings.votes,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=() if settings.grammar else stop,
        grammar=prompt.grammar(settings.kind, n_steps) if settings.grammar else None,
    )
    (completions,) = yield [request]
    written = [[token for token in completion.ids if token not in stop] for completion in completions]
    texts = [decode(tokenizer, ids) for ids in written]
    parsed = [prompt.parse(settings.kind, text, n_steps) for text in texts]
    *steps, answer = votes.majority([_verdicts(said, n_steps) for said in parsed])
    if settings.scoring == "probability":
        found = yield from _probabilities(tokenizer, asked, written, parsed, settings)
        steps = [replace(step, score=_mean(found, number)) for number, step in enumerate(steps, 1)]
        answer = replace(answer, score=_mean(found, _ANSWER))
    if settings.kind == "orm":
        steps = [*(StepJudgement() for _ in steps[1:]), StepJudgement(score=answer.score, missed=answer.missed)]
    return Judgement(
        solution_id=solution.id,
        judge=settings.judge,
        steps=tuple(steps),
        outcome=answer.label,
        outcome_score=answer.score,
        text="\n\n".join(texts),
        parsed=any(said.verdicts or said.answer is not None for said in parsed),
        surplus=sum(said.surplus for said in parsed),
        prompt_tokens=tokens_read(request, completions),
        generated_tokens=tokens_written(completions),
    )


def _verdicts(parsed: ParsedVerification, n_steps: int) -> list[StepJudgement]:
    """What one text says of every step, and of the answer behind them."""
    found = []
    for number in range(1, n_steps + 1):
        said = parsed.steps.get(number)
        if said is None or said.correct is None:
            found.append(StepJudgement(missed=True))
        else:
            explanation = ": ".join(part for part in (said.title, said.analysis) if part)
            found.append(StepJudgement(label=said.correct, explanation=explanation))
    return [*found, StepJudgement(label=parsed.answer, missed=parsed.answer is None)]


def _probabilities(
    tokenizer: "Tokenizer",
    asked: Prefix,
    written: Sequence[Sequence[int]],
    parsed: Sequence[ParsedVerification],
    settings: GenerativeSettings,
) -> Generator[list[Request], list[tuple[Completion, ...]], list[dict[int, float]]]:
    """Per vote the probability that a verdict says right, by the number of its step."""
    of_step, of_answer = prompt.verdict_tokens(tokenizer, settings.kind)
    requests: list[Request] = []
    read: list[tuple[int, list[int]]] = []  # by request: the vote, and the steps whose verdicts it scores
    for vote, (ids, said) in enumerate(zip(written, parsed, strict=True)):
        of_steps = {number: (begins, bool(said.steps[number].correct)) for number, begins in said.verdicts.items()}
        of_whole = {} if said.answer_verdict is None else {_ANSWER: (said.answer_verdict, bool(said.answer))}
        behind, start = asked, 0  # the answer's verdict is read behind what the steps' have read
        for tokens, verdicts in ((of_step, of_steps), (of_answer, of_whole)):
            places = {
                number: place
                for number, (begins, right) in verdicts.items()
                if tokens and (place := prompt.verdict_place(tokenizer, ids, begins, right, tokens)) is not None
            }
            if not tokens or not places:
                continue
            more = tuple(ids[start : max(places.values())])
            positions = tuple(len(asked.ids) + place - 1 for place in places.values())
            requests.append(Score(settings.model, more, positions, behind, (tokens.wrong, tokens.right)))
            read.append((vote, list(places)))
            behind, start = Prefix(more, behind), start + len(more)
    found: list[dict[int, float]] = [{} for _ in written]
    if requests:
        answers = yield requests
        for (vote, numbers), (completion,) in zip(read, answers, strict=True):
            found[vote].update(zip(numbers, completion.scores, strict=True))
    return found


def _mean(found: Sequence[dict[int, float]], number: int) -> float | None:
    """The mean over the votes that have a probability for a step."""
    known = [probabilities[number] for probabilities in found if number in probabilities]
    return fmean(known) if known else None
