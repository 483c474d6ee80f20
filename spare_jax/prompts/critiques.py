"""Prompts of reward models that write a critique first: ThinkPRM (arXiv 2504.16828) and GenPRM (arXiv 2504.00891).

A critique is cut where the model would go on beyond it, and searched for verdicts. GenPRM's own recipe executes Python
that the model writes; here the judgement follows the analysis at once, and nothing is executed.
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
    """The prompt of ThinkPRM as ids: problem, numbered steps, and the first words of the critique."""
    solution = "\n".join(numbered(unnumbered(step, i), i) for i, step in enumerate(steps, 1))
    content = _THINK_TASK.format(problem=_question(problem), solution=solution)
    return encode_chat(tokenizer, [{"role": "user", "content": content}]) + encode(tokenizer, _THINK_START)


def think_marks(n_steps: int) -> tuple[str, ...]:
    """Texts at which a critique of ThinkPRM is cut: it decides, ends its thinking, or invents another step."""
    return (THINK_DECISION.strip(), "</think>", f"Step {n_steps + 1}:")


def think_verdicts(text: str, n_steps: int) -> list[bool | None]:
    """The verdict of a critique on each step, from its boxes in order; None for steps without one."""
    verdicts: list[bool | None] = [word.lower() == "correct" for word in _VERDICT.findall(text)[:n_steps]]
    return verdicts + [None] * (n_steps - len(verdicts))


def gen_prompt(
    tokenizer: "Tokenizer", problem: Problem, steps: Sequence[str], judged: Sequence[tuple[str, bool]]
) -> list[int]:
    """The prompt for GenPRM's analysis of step len(judged), from 0, as ids; `judged` has the analysis of every step
    before it and whether the step was found right. Later steps are not shown."""
    messages: list[Message] = [{"role": "system", "content": _GEN_SYSTEM}]
    for number, step in enumerate(steps[: len(judged) + 1]):
        messages.append({"role": "user", "content": step if number else f"{_question(problem)}\n{step}"})
        if number < len(judged):
            analysis, right = judged[number]
            end = f"{GEN_DECISION}{GEN_ANSWERS[right]}}}$\n</output>"
            messages.append({"role": "assistant", "content": _gen_start(number) + analysis + end})
    return encode_chat(tokenizer, messages) + encode(tokenizer, _gen_start(len(judged)))


def cut(tokenizer: "Tokenizer", ids: Sequence[int], marks: Sequence[str]) -> list[int]:
    """The ids before the first of `marks` in their text; all ids where there is none."""
    text = decode(tokenizer, ids)
    end = min((at for mark in marks if (at := text.find(mark)) >= 0), default=len(text))
    kept = len(ids)
    while kept and len(decode(tokenizer, ids[:kept])) > end:
        kept -= 1
    return list(ids[:kept])


def _gen_start(number: int) -> str:
    return f"<analyze>\nLet's analyze the Paragraph {number + 1} step by step: "


def _question(problem: Problem) -> str:
    return "\n".join((*problem.context, problem.question))
