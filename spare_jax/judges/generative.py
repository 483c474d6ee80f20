"""Generative reward models as judges (SPARK, arXiv 2512.03244, stage II): their verdicts, or how likely these were."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from spare_jax.judges.verify import VerifySettings, majority, text_ids, written
from spare_jax.keys import unlisted
from spare_jax.programs import Completion, Prefix, Program, Request, Score
from spare_jax.prompts import generative as prompt
from spare_jax.records import Judgement, Problem, Solution, StepJudgement

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task

SCORINGS = ("verdict", "probability")

_ANSWER = 0  # stands for the answer where steps are counted from 1


@dataclass(frozen=True)
class GenerativeSettings(VerifySettings):
    """How a generative reward model is asked.

    `kind` is what the model writes; empty: what its directory says, where its guidelines are too. `scoring`: what a
    text makes of a step and of the answer is its "verdict", 0 or 1, or the "probability" of the verdict that says right
    against the one that says wrong, behind what the text had said by then.

    Raises:
      ValueError: `kind` or `scoring` is unknown.
    """

    guidelines: str = unlisted("")
    kind: str = ""
    scoring: Literal["verdict", "probability"] = "verdict"
    model: str = unlisted("generative")
    judge: str = unlisted("generative")

    def __post_init__(self):
        super().__post_init__()
        if self.scoring not in SCORINGS:
            raise ValueError(f"config.generative.scoring={self.scoring!r}: choose among {', '.join(SCORINGS)}")


def generative(
    task: "Task", problem: Problem, solution: Solution, tokenizer: "Tokenizer", settings: GenerativeSettings
) -> Program:
    """The program that judges one solution and returns its Judgement.

    It is that of `majority` (judges/verify.py), with the mean over the votes that have one as score. A verdict that was
    not written in the tokenizer's own tokens has no probability. Kind "orm" labels no step: its score is that of the
    answer and stands at the last step, as an outcome reward model's does (judges/reward_model.py). Raises as `written`
    does.
    """
    if not solution.steps:
        return Judgement(solution.id, settings.judge)
    asked, completions, found = yield from written(task, problem, solution, tokenizer, settings)
    judgement = majority(solution, found, settings.judge)
    if judgement.failure:
        return judgement
    if settings.scoring == "probability":
        scored = yield from _probabilities(tokenizer, asked, completions, found, settings)
        steps = (replace(step, score=_mean(scored, number)) for number, step in enumerate(judgement.steps, 1))
        judgement = replace(judgement, steps=tuple(steps), outcome_score=_mean(scored, _ANSWER))
    if settings.kind != "orm":
        return judgement
    last = StepJudgement(score=judgement.outcome_score)
    return replace(judgement, steps=(*(StepJudgement() for _ in judgement.steps[1:]), last))


def _probabilities(
    tokenizer: "Tokenizer",
    asked: Prefix,
    completions: Sequence[Completion],
    found: Sequence[Judgement],
    settings: GenerativeSettings,
) -> Generator[list[Request], list[tuple[Completion, ...]], list[dict[int, float]]]:
    """Per vote the probability that a verdict says right, by the number of its step; nothing of one that failed."""
    of_step, of_answer = prompt.verdict_tokens(tokenizer, settings.kind)
    requests: list[Request] = []
    read: list[tuple[int, list[int]]] = []  # by request: the vote, and the steps whose verdicts it scores
    for vote, (completion, judgement) in enumerate(zip(completions, found, strict=True)):
        if judgement.failure:
            continue
        ids, said = text_ids(tokenizer, completion), prompt.parse(settings.kind, judgement.text, len(judgement.steps))
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
    scored: list[dict[int, float]] = [{} for _ in found]
    if requests:
        answers = yield requests
        for (vote, numbers), (completion,) in zip(read, answers, strict=True):
            scored[vote].update(zip(numbers, completion.scores, strict=True))
    return scored


def _mean(scored: Sequence[dict[int, float]], number: int) -> float | None:
    """The mean over the votes that have a probability for a step."""
    known = [probabilities[number] for probabilities in scored if number in probabilities]
    return fmean(known) if known else None
