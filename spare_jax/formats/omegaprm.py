"""OmegaPRM's search trees (arXiv:2406.06592) as OpenR's MATH-APS lists them: a question, and prefixes with values.

{"question", "final_answer", "reasoning_steps": [{"solution_prefix", "mc_value"}]}. A prefix is the question and the
steps so far, joined by blank lines; `mc_value` is the share of rollouts from it that reached the answer. The parent of
a prefix is the longest other prefix that it begins with; what it adds to its parent is one step. Every leaf ends a
solution, which holds all steps from the root.
"""

import statistics
from collections.abc import Collection

from spare_jax.formats.fields import Row, field, ids_of, labelled, optional, prompt
from spare_jax.records import LabelledSolution, RecordError, StepJudgement

JUDGE = "omegaprm"

_JOINT = "\n\n"


def records_of(row: Row, default_id: str) -> tuple[LabelledSolution, ...]:
    """The labelled solutions of a row, in the order of their leaves.

    A step's score is the `mc_value` of the prefix that ends with it, the mean where the prefix occurs more than once;
    its label is True where any rollout succeeded (Math-Shepherd's hard label). The value of the question alone is left
    out.

    Raises:
      RecordError: a field is missing or does not fit, a prefix does not begin with the question, or a value is no
        fraction.
    """
    question, answer = field(row, "question", str), optional(row, "final_answer", str)
    estimates: dict[str, list[float]] = {}
    for i, entry in enumerate(field(row, "reasoning_steps", tuple[dict, ...])):
        within = f"reasoning_steps[{i}]"
        prefix, value = field(entry, "solution_prefix", str, within), field(entry, "mc_value", float, within)
        if prefix != question and not prefix.startswith(question + _JOINT):
            raise RecordError(f"{within}.solution_prefix: does not begin with the question and a blank line")
        if not 0 <= value <= 1:
            raise RecordError(f"{within}.mc_value: {value} is no fraction")
        estimates.setdefault(prefix, []).append(value)
    estimates.pop(question, None)
    values = {prefix: statistics.fmean(several) for prefix, several in estimates.items()}
    lengths = set(map(len, values))
    parents = {prefix: _parent(prefix, question, values, lengths) for prefix in values}
    continued = set(parents.values())
    leaves = [prefix for prefix in values if prefix not in continued]
    records = []
    for ids, leaf in zip(ids_of(row, default_id, len(leaves)), leaves, strict=True):
        path = [leaf]
        while (parent := parents[path[0]]) != question:
            path.insert(0, parent)
        steps = [prefix[len(parents[prefix]) + len(_JOINT) :] for prefix in path]
        judged = [StepJudgement(label=values[prefix] > 0, score=values[prefix]) for prefix in path]
        answers = () if answer is None else (answer,)
        records.append(labelled(JUDGE, ids, question, steps, judged, answers=answers))
    return tuple(records)


def row_of(record: LabelledSolution) -> Row | None:
    """A labelled solution as a row; a step without score has its label, 1 or 0, as its value.

    None where there are no steps, a step has neither score nor label, a score lies outside [0, 1], or a label is not
    "score above 0" and would be read back as another one.
    """
    if not record.solution.steps:
        return None
    question = prompt(record.problem)
    entries, prefix = [], question
    for step, judged in zip(record.solution.steps, record.judgement.steps, strict=True):
        value = judged.score if judged.score is not None else judged.label
        if value is None or not 0 <= value <= 1 or judged.label not in (None, value > 0):
            return None
        prefix += _JOINT + step
        entries.append({"solution_prefix": prefix, "mc_value": float(value)})
    answer = record.gold.answers[0] if record.gold and record.gold.answers else None
    return {"id": record.solution.id, "question": question, "final_answer": answer, "reasoning_steps": entries}


def _parent(prefix: str, question: str, prefixes: Collection[str], lengths: Collection[int]) -> str:
    """The longest of `prefixes`, whose lengths are `lengths`, that `prefix` continues; else the question."""
    at = prefix.rfind(_JOINT)
    while at > len(question):
        if at in lengths and prefix[:at] in prefixes:
            return prefix[:at]
        at = prefix.rfind(_JOINT, 0, at + len(_JOINT) - 1)
    return question
