"""What reward models read that write before they judge: ThinkPRM (arXiv 2504.16828) and GenPRM (arXiv 2504.00891).

A critique is the model's text and so is hostile: it is cut at the marks where it would go on by itself, searched for
its verdicts, and never run. GenPRM's own recipe executes the Python that the model writes; here its analysis is
followed by the judgement at once.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spare_jax.formats.numbered_steps import numbered, unnumbered
from spare_jax.prompts.chat import Message, encode, encode_chat
from spare_jax.prompts.solve import decode
from spare_jax.records import Problem

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer

THINK_DECISION = "\nIs the solution correct? "
THINK_ANSWERS = ("no", "yes")
GEN_DECISION = "</analyze>\n<output>\n**Judgement**: $\\boxed{"
GEN_ANSWERS = ("No", "Yes")
GEN_MARKS = ("</analyze>", "<verify>", "<output>")
_THINK_START = "\nLet's verify step by step:"
_THINK_TASK = (
    "You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n{problem}\n\n[Solution]"
    "\n\n{solution}\n\nReview and critique each step in the proposed solution to determine whether each step is "
    "correct. If the solution is incomplete, only verify the provided steps."
)
_GEN_SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
_VERDICT = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*(correct|incorrect)\s*\}", re.IGNORECASE)


def think_prompt(tokenizer: "Tokenizer", problem: Problem, steps: Sequence[str]) -> list[int]:
    """The ids before a critique of ThinkPRM: the numbered steps, and the words with which it begins."""
    solution = "\n".join(numbered(unnumbered(step, i), i) for i, step in enumerate(steps, 1))
    content = _THINK_TASK.format(problem=_question(problem), solution=solution)
    return encode_chat(tokenizer, [{"role": "user", "content": content}]) + encode(tokenizer, _THINK_START)


def think_marks(n_steps: int) -> tuple[str, ...]:
    """Where a critique of ThinkPRM has gone too far: it decides, stops thinking, or invents another step."""
    return (THINK_DECISION.strip(), "</think>", f"Step {n_steps + 1}:")


def think_verdicts(text: str, n_steps: int) -> list[bool | None]:
    """What a critique says of each step: its boxes in order; None for steps that it says nothing of."""
    found: list[bool | None] = [word.lower() == "correct" for word in _VERDICT.findall(text)[:n_steps]]
    return found + [None] * (n_steps - len(found))


def gen_prompt(
    tokenizer: "Tokenizer", problem: Problem, steps: Sequence[str], judged: Sequence[tuple[str, bool]]
) -> list[int]:
    """The ids before GenPRM's analysis of the next step; `judged` has the analyses of the steps before it and whether
    each was found right. Of `steps` the first len(judged) + 1 are shown."""
    messages: list[Message] = [{"role": "system", "content": _GEN_SYSTEM}]
    for number, step in enumerate(steps[: len(judged) + 1]):
        messages.append({"role": "user", "content": step if number else f"{_question(problem)}\n{step}"})
        if number < len(judged):
            analysis, right = judged[number]
            end = f"{GEN_DECISION}{GEN_ANSWERS[right]}}}$\n</output>"
            messages.append({"role": "assistant", "content": _gen_start(number) + analysis + end})
    return encode_chat(tokenizer, messages) + encode(tokenizer, _gen_start(len(judged)))


def cut(tokenizer: "Tokenizer", ids: Sequence[int], marks: Sequence[str]) -> list[int]:
    """The ids before the first of `marks` in their text, all of them where there is none."""
    text = decode(tokenizer, ids)
    end = min((found for mark in marks if (found := text.find(mark)) >= 0), default=len(text))
    kept = len(ids)
    while kept and len(decode(tokenizer, ids[:kept])) > end:
        kept -= 1
    return list(ids[:kept])


def _gen_start(number: int) -> str:
    return f"<analyze>\nLet's analyze the Paragraph {number + 1} step by step: "


def _question(problem: Problem) -> str:
    return "\n".join((*problem.context, problem.question))
