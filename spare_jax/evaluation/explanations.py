"""Whether a judge believes itself: its labels beside its own explanations, and its word on the reference."""

from collections.abc import Iterable
from typing import Any

from spare_jax.evaluation.statistics import ratio_or_none
from spare_jax.records import Judgement
from spare_jax.worlds.verdict import SAID_IS


def says_right(explanation: str) -> bool | None:
    """Whether an explanation "said X, is Y" finds that the step says what is right: Y is "so", or X once more. None for
    an explanation of any other form."""
    match = SAID_IS.fullmatch(explanation.strip())
    return None if match is None else match["right"] in ("so", match["said"])


def explanation_agreement(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """How often a label says what the explanation beside it says.

    Args:
      judgements: with the judge's own labels, before the outcome overwrites the last one.

    Returns:
      {"explanation_agreement": the share, of the labelled steps whose explanation has the form "said X, is Y", of those
      called right exactly where it says so, None where there are none; "explanations": how many there are}.
    """
    pairs = [
        (step.label, says)
        for judgement in judgements
        for step in judgement.steps
        if step.label is not None and (says := says_right(step.explanation)) is not None
    ]
    agreeing = sum(label is says for label, says in pairs)
    return {"explanation_agreement": ratio_or_none(agreeing, len(pairs)), "explanations": len(pairs)}


def reference_right(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """What a judge says of references that it is given as solutions too, word for word.

    Returns:
      {"reference_right": the share of their labelled steps that it calls right, None where there are none;
      "reference_steps": how many there are}.
    """
    labels = [step.label for judgement in judgements for step in judgement.steps if step.label is not None]
    return {"reference_right": ratio_or_none(sum(labels), len(labels)), "reference_steps": len(labels)}
