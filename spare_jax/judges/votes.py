"""Several answers of one judge about the same steps, made into one."""

from collections.abc import Sequence

from spare_jax.records import StepJudgement


def majority(answers: Sequence[Sequence[StepJudgement]]) -> tuple[StepJudgement, ...]:
    """Per step the label that most answers give, with their share as `score`, and the first of them as the evidence.

    A tie is decided by the first answer that has a label. A step that no answer labels is the first answer's.

    Args:
      answers: [answer][step], the same number of steps each; at least one answer.
    """
    steps = []
    for said in zip(*answers, strict=True):
        known = [step for step in said if step.label is not None]
        if not known:
            steps.append(said[0])
            continue
        right = sum(step.label is True for step in known)
        label = known[0].label if 2 * right == len(known) else 2 * right > len(known)
        chosen = next(step for step in known if step.label == label)
        steps.append(
            StepJudgement(
                label=label,
                score=right / len(known),
                explanation=chosen.explanation,
                context=chosen.context,
                steps=chosen.steps,
                reference=chosen.reference,
                errors=chosen.errors,
            )
        )
    return tuple(steps)
