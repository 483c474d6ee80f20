"""Whether a judge is consistent: its labels against its own explanations, and its labels on the reference itself."""

from collections.abc import Iterable
from typing import Any

from spare_jax.evaluation.statistics import ratio_or_none
from spare_jax.records import Judgement
from spare_jax.worlds.verdict import SAID_IS


def says_right(explanation: str) -> bool | None:
    """Whether an explanation of the form "said X, is Y" calls the step right: Y is "so" or equal to X. None for an
    explanation of another form."""
    match = SAID_IS.fullmatch(explanation.strip())
    return None if match is None else match["right"] in ("so", match["said"])


def explanation_agreement(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """How often a label agrees with its explanation.

    Args:
      judgements: with the judge's own labels, before the outcome overwrites the last one.

    Returns:
      {"explanations": the number of labelled steps whose explanation `says_right` can read, "explanation_agreement":
      the share of them whose label is what it says, None where there are none}.
    """
    pairs = [
        (step.label, claimed)
        for judgement in judgements
        for step in judgement.steps
        if step.label is not None and (claimed := says_right(step.explanation)) is not None
    ]
    agreeing = sum(label is claimed for label, claimed in pairs)
    return {"explanation_agreement": ratio_or_none(agreeing, len(pairs)), "explanations": len(pairs)}


def reference_right(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """How a judge labels the reference when it is given as the candidate solution too.

    Returns:
      {"reference_steps": the number of labelled steps, "reference_right": the share of them that are labelled right,
      None where there are none}.
    """
    labels = [step.label for judgement in judgements for step in judgement.steps if step.label is not None]
    return {"reference_right": ratio_or_none(sum(labels), len(labels)), "reference_steps": len(labels)}
