"""Generative reward models as judges (SPARK, arXiv 2512.03244, stage II): scored by their verdicts or the verdicts'
probabilities."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from spare_jax.judges.verify import Sampled, VerifySettings, majority_of_verifications, sample_verifications, text_ids
from spare_jax.keys import unlisted
from spare_jax.programs import Completion, Prefix, Program, Request, Score
from spare_jax.prompts import generative as prompt
from spare_jax.records import Judgement, Problem, Solution, StepJudgement

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task

SCORINGS = ("verdict", "probability")

_ANSWER = 0  # the number of the final answer, where steps are numbered from 1


@dataclass(frozen=True)
class GenerativeSettings(VerifySettings):
    """How a generative reward model is asked.

    Attributes:
      kind: what the model writes; empty for what its directory says, where its guidelines are too.
      scoring: what the score of a step, or of the final answer, is. "verdict": the share of the votes that say right.
        "probability": the model's probability of the verdict that says right, against the one that says wrong, behind
        the text before it; the mean over the votes.

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
    """The program that judges a solution and returns its Judgement.

    Labels are those of `majority_of_verifications` (judges/verify.py), scores those of `settings.scoring`. A verdict
    whose text is not made of the tokens that the tokenizer gives it has no probability. Kind "orm" labels no step: the
    score of the answer stands at the last step, as an outcome reward model's does (judges/reward_model.py).

    Raises:
      RequestFailed: the model could not be asked, or its prompt leaves no room for an answer.
    """
    if not solution.steps:
        return Judgement(solution.id, settings.judge)
    sampled = yield from sample_verifications(task, problem, solution, tokenizer, settings)
    judgement = majority_of_verifications(solution, sampled.judgements, settings.judge)
    if judgement.failure:
        return judgement
    if settings.scoring == "probability":
        probabilities = yield from _probabilities(tokenizer, sampled, settings)
        steps = (replace(step, score=_mean(probabilities, number)) for number, step in enumerate(judgement.steps, 1))
        judgement = replace(judgement, steps=tuple(steps), outcome_score=_mean(probabilities, _ANSWER))
    if settings.kind != "orm":
        return judgement
    last = StepJudgement(score=judgement.outcome_score)
    return replace(judgement, steps=(*(StepJudgement() for _ in judgement.steps[1:]), last))


def _probabilities(
    tokenizer: "Tokenizer", sampled: Sampled, settings: GenerativeSettings
) -> Generator[list[Request], list[tuple[Completion, ...]], list[dict[int, float]]]:
    """Per verification the probability that a verdict says right, by the number of its step; empty where it failed."""
    step_tokens, answer_tokens = prompt.verdict_tokens(tokenizer, settings.kind)
    requests: list[Request] = []
    scored_by: list[tuple[int, list[int]]] = []  # per request: the verification, and the numbers of its verdicts
    for vote, (completion, judgement) in enumerate(zip(sampled.completions, sampled.judgements, strict=True)):
        if judgement.failure:
            continue
        ids, parsed = text_ids(tokenizer, completion), prompt.parse(settings.kind, judgement.text, len(judgement.steps))
        # By number, where the verdict begins in the text, and whether it says right.
        of_steps = {number: (begins, bool(parsed.steps[number].correct)) for number, begins in parsed.verdicts.items()}
        of_whole = {} if parsed.answer_verdict is None else {_ANSWER: (parsed.answer_verdict, bool(parsed.answer))}
        prefix, start = sampled.prompt, 0  # the answer's verdict is scored behind the text that the steps' share
        for tokens, verdicts in ((step_tokens, of_steps), (answer_tokens, of_whole)):
            places = {
                number: place
                for number, (begins, right) in verdicts.items()
                if tokens and (place := prompt.verdict_place(tokenizer, ids, begins, right, tokens)) is not None
            }
            if not tokens or not places:
                continue
            more = tuple(ids[start : max(places.values())])
            positions = tuple(len(sampled.prompt.ids) + place - 1 for place in places.values())
            requests.append(Score(settings.model, more, positions, prefix, (tokens.wrong, tokens.right)))
            scored_by.append((vote, list(places)))
            prefix, start = Prefix(more, prefix), start + len(more)
    probabilities: list[dict[int, float]] = [{} for _ in sampled.judgements]
    if requests:
        answers = yield requests
        for (vote, numbers), (completion,) in zip(scored_by, answers, strict=True):
            probabilities[vote].update(zip(numbers, completion.scores, strict=True))
    return probabilities


def _mean(probabilities: Sequence[dict[int, float]], number: int) -> float | None:
    """The mean over the verifications that have a probability for a step; None where none has."""
    known = [of_vote[number] for of_vote in probabilities if number in of_vote]
    return fmean(known) if known else None
