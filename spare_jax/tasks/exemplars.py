"""What the graded exemplars of all tasks have in common: how they are written, and the form of an annotation."""

from collections.abc import Sequence

from spare_jax.records import Problem, StepJudgement
from spare_jax.tasks.task import Exemplar

# step, explanation, context ids, ids of the candidate's steps, reference ids, errors
Graded = tuple[str, str, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[str, ...]]


def exemplar(
    name: str, question: str, reference: Sequence[str], *graded: Graded, context: Sequence[str] = ()
) -> Exemplar:
    """A candidate with its grades; a step is correct if and only if it has no errors.

    Args:
      name: the id, "<task>-exemplar-<topic>".
      context: the numbered sentences, where these are not the question's own.
    """
    return Exemplar(
        id=name,
        problem=Problem(id=name, question=question, context=tuple(context)),
        reference=tuple(reference),
        candidate=tuple(step for step, *_ in graded),
        judgements=tuple(
            StepJudgement(not errors, None, explanation, used, steps, matched, errors)
            for _, explanation, used, steps, matched, errors in graded
        ),
    )


def answer_form(sentences: str) -> str:
    """The end of a task's guidelines, which describes the annotator's answer (prompts/annotate.py). `sentences` names
    what c1, c2, ... are."""
    return _ANSWER_FORM.format(sentences=sentences)


_ANSWER_FORM = """\
Answer with a JSON list and nothing else, with one object for each student step. Its keys, in this order:
"student_step": the number of the step
"explanation": why the step is right or wrong, in a sentence
"context": the numbers of the {sentences} that it uses
"steps": the numbers of the student's earlier steps that it uses
"reference": the numbers of the reference steps that it matches
"errors": the kinds of error in it, an empty list if there is none
"label": "CORRECT" or "INCORRECT\""""
