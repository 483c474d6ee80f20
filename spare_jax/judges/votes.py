"""The majority of several judgements of the same steps by one judge."""

from collections.abc import Sequence

from spare_jax.records import StepJudgement


def majority_of_steps(votes: Sequence[Sequence[StepJudgement]]) -> tuple[StepJudgement, ...]:
    """Per step the label that most votes have.

    Its score is the share of the votes with a label that say right; explanation and references are those of the first
    vote with the majority's label. A tie gets the label of the first vote that has one. A step that no vote labels is
    the first vote's StepJudgement.

    Args:
      votes: [vote][step], at least one vote, each with the same number of steps.
    """
    steps = []
    for of_step in zip(*votes, strict=True):
        known = [step for step in of_step if step.label is not None]
        if not known:
            steps.append(of_step[0])
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
