"""The step view: a solution step by step, with the truth, the judge's labels and the reward model's scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.records import LabelledSolution, StepJudgement
from spare_jax.report.markup import decimal, is_number, text


def example_of(item: LabelledSolution, scorer: str, steps: Sequence[Mapping[str, Any]], failure: str) -> dict[str, Any]:
    """A labelled solution as an example for `solution_view`.

    Args:
      scorer: the name of the judge whose labels and scores `steps` hold.
      failure: why it did not judge the solution, "" where it did.
    """
    gold = item.gold
    return {
        "question": item.problem.question,
        "context": item.problem.context,
        "reference": gold.steps if gold else (),
        "answer": item.solution.answer,
        "gold_answer": gold.answers[0] if gold and gold.answers else None,
        "outcome": item.judgement.outcome,
        "scorer": scorer,
        "failure": failure,
        "steps": steps,
    }


def judged_step(step: str, judged: StepJudgement, **shown: Any) -> dict[str, Any]:
    """A step of an example with all of its judgement, of which `shown` replaces some fields or adds "truth"."""
    names = ("label", "score", "explanation", "context", "steps", "reference", "errors")
    return {"text": step, **{name: getattr(judged, name) for name in names}, **shown}


def solution_view(example: Mapping[str, Any], is_open: bool) -> str:
    """One solution as HTML, folded unless `is_open`. `example` is as `page.render` takes it, or with "scorer" and
    "failure" from `example_of`; anything may be missing."""
    outcome = example.get("outcome")
    answer = example.get("answer")
    head = [f"answer {_model(answer)}" if answer not in (None, "") else "no answer"]
    head.append(_verdict(outcome, "right", "wrong") if isinstance(outcome, bool) else "outcome unknown")
    if failure := example.get("failure"):
        head.append(f"not judged: {_model(failure)}")
    if isinstance(outcome, bool) and not outcome and example.get("gold_answer") is not None:
        head.append(f"gold {_model(example['gold_answer'])}")

    if is_number(example.get("score")):
        head.append(f"solution score {decimal(example['score'])}")
    given = "".join(
        f"<div><h3>{title}</h3><ol>{items}</ol></div>"
        for title, letter, key in (("Context", "c", "context"), ("Reference solution", "r", "reference"))
        if (items := _numbered(letter, _list(example.get(key))))
    )
    scorer = str(example.get("scorer") or "PRM")
    steps = "".join(_step(i, step, scorer) for i, step in enumerate(_list(example.get("steps")), start=1))
    body = f'<h3>Solution</h3><ol class="steps">{steps}</ol>' if steps else "<p>The solution has no steps.</p>"
    return (
        f'<details class="solution"{" open" if is_open else ""}><summary>'
        f'<span class="question model">{text(example.get("question", ""))}</span>'
        f"<small>{' &middot; '.join(head)}</small></summary>"
        f'<div class="inside">{f"""<div class="given">{given}</div>""" if given else ""}{body}</div></details>'
    )


def _step(number: int, step: Mapping[str, Any], scorer: str) -> str:
    truth, label, score = step.get("truth"), step.get("label"), step.get("score")
    shown = truth if isinstance(truth, bool) else label
    kind = {True: " right", False: " wrong"}.get(shown, "") if isinstance(shown, bool) else ""
    verdicts = []
    if isinstance(truth, bool):
        verdicts.append(f"<span>truth {_verdict(truth)}</span>")
    verdicts.append(f"<span>judge {_verdict(label) if isinstance(label, bool) else 'silent'}</span>")
    if is_number(score):
        width = 100 * min(max(score, 0.0), 1.0)
        verdicts.append(
            f'<span><span class="meter" aria-hidden="true"><i style="width:{width:.1f}%"></i></span>'
            f"{text(scorer)} {decimal(score)}</span>"
        )
    if isinstance(truth, bool) and isinstance(label, bool) and truth != label:
        verdicts.append('<span class="differ">judge and truth differ</span>')
    explanation = step.get("explanation")
    aligned = [
        f"<span>{words} {', '.join(f'{letter}{text(i)}' for i in ids)}</span>"
        for words, letter, ids in (
            ("rests on context", "c", _list(step.get("context"))),
            ("on steps", "s", _list(step.get("steps"))),
            ("matches reference", "r", _list(step.get("reference"))),
        )
        if ids
    ]
    if errors := _list(step.get("errors")):
        aligned.append(f"<span>errors: {', '.join(_model(e) for e in errors)}</span>")
    return (
        f'<li class="step{kind}"><div class="said"><span class="id">s{number}</span>'
        f'<span class="model">{text(step.get("text", ""))}</span></div>'
        f'<div class="verdicts">{"".join(verdicts)}</div>'
        + (f'<p class="explanation model">{text(explanation)}</p>' if explanation else "")
        + (f'<p class="aligned">{"".join(aligned)}</p>' if aligned else "")
        + "</li>"
    )


def _verdict(is_right: bool, yes: str = "correct", no: str = "incorrect") -> str:
    """A verdict as a word in a colour, with a sign."""
    return f'<b class="right">&#10003; {yes}</b>' if is_right else f'<b class="wrong">&#10007; {no}</b>'


def _numbered(letter: str, items: Sequence[Any]) -> str:
    return "".join(
        f'<li><span class="id">{letter}{i}</span><span class="model">{text(item)}</span></li>'
        for i, item in enumerate(items, start=1)
    )


def _model(value: Any) -> str:
    return f'<span class="model">{text(value)}</span>'


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
