"""Solving a problem step by step, one step per line, and the same text with step tags for a reward model.

A step is a line of the answer. Its span over the sampled ids is found from those ids and never by encoding the
text again: encoding what was decoded gives other ids.
"""

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, cast

from spare_jax.prompts.chat import Message, encode, encode_chat
from spare_jax.records import Problem, Solution

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task

Span = tuple[int, int]


def render(task: "Task", problem: Problem) -> list[Message]:
    """The task's instruction, then the context sentences and the question, each on its line."""
    return [
        {"role": "system", "content": task.instruction},
        {"role": "user", "content": "\n".join((*problem.context, problem.question))},
    ]


def split_solution(
    tokenizer: "Tokenizer", token_ids: Sequence[int], stop_ids: Collection[int] = ()
) -> tuple[tuple[str, ...], tuple[Span, ...], str]:
    """Cut sampled ids into steps.

    The answer ends before the first id of `stop_ids`. A token that holds a newline ends the line: one that holds
    other text too belongs to the step that it ends, one that is all blank belongs to no step. Blank lines are no
    steps. A newline never hides inside a character: its byte is a character of its own in UTF-8.

    Returns:
      The steps' texts, one half-open span over `token_ids` per step, and the whole text. A step's text is what its
      span decodes to, without blanks around it and with blanks in place of newlines.
    """
    end = next((i for i, token in enumerate(token_ids) if token in stop_ids), len(token_ids))
    steps, spans, start = [], [], 0
    pieces = {token: decode(tokenizer, [token]) for token in set(token_ids[:end])}
    for i in range(end + 1):
        piece = pieces[token_ids[i]] if i < end else "\n"
        if "\n" not in piece:
            continue
        stop = i if not piece.strip() else i + 1
        step = decode(tokenizer, token_ids[start:stop]).replace("\n", " ").strip()
        if step:
            steps.append(step)
            spans.append((start, stop))
        start = i + 1
    return tuple(steps), tuple(spans), decode(tokenizer, token_ids[:end])


def decode(tokenizer: "Tokenizer", token_ids: Sequence[int]) -> str:
    """The text of ids as it is: special tokens shown, blanks untouched."""
    return cast(str, tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def one_line(text: str) -> str:
    """`text` with a single blank for every run of white space, newlines of every kind among it."""
    return " ".join(text.split())


def step_ids(tokenizer: "Tokenizer", steps: Sequence[str]) -> list[list[int]]:
    """Ids of steps that nobody sampled, cut as a sampled solution is.

    The steps are encoded together: a token such as ".\\n" then ends a step here as it does in a sampled solution, and
    a reward model cannot tell the two apart by it.
    """
    lines = [one_line(step) for step in steps]
    ids = encode(tokenizer, "\n".join(lines))
    _, spans, _ = split_solution(tokenizer, ids)
    if len(spans) != len(lines):  # an empty step
        return [encode(tokenizer, line) for line in lines]
    return [ids[start:stop] for start, stop in spans]


def solution_ids(tokenizer: "Tokenizer", solution: Solution, tokenizer_digest: str) -> list[list[int]]:
    """Ids of every step of `solution`: those sampled, where they are this tokenizer's; `step_ids` of its text else."""
    if solution.tokenizer == tokenizer_digest and len(solution.spans) == len(solution.steps):
        return [list(solution.token_ids[start:stop]) for start, stop in solution.spans]
    return step_ids(tokenizer, solution.steps)


def piece_ids(tokenizer: "Tokenizer", solution: Solution, tokenizer_digest: str) -> list[list[int]]:
    """Ids of every step with what stands between it and the next one, so that a policy can go on behind any of them.

    The sampled ids where they are this tokenizer's, up to the end of the last step; else each step's and a newline,
    which the last step has not.
    """
    if solution.tokenizer == tokenizer_digest and len(solution.spans) == len(solution.steps):
        return cut_pieces(solution.token_ids, solution.spans)
    newline, steps = encode(tokenizer, "\n"), step_ids(tokenizer, solution.steps)
    return [[*ids, *([] if _ends_line(tokenizer, ids) else newline)] for ids in steps[:-1]] + steps[-1:]


def cut_pieces(token_ids: Sequence[int], spans: Sequence[Span]) -> list[list[int]]:
    """Sampled ids cut where a step's span begins, up to the end of the last one: one piece per step."""
    ends = [*(start for start, _ in spans[1:]), *(end for _, end in spans[-1:])]
    return [list(token_ids[a:b]) for a, b in itertools.pairwise([0, *ends])]


def _ends_line(tokenizer: "Tokenizer", ids: Sequence[int]) -> bool:
    return bool(ids) and decode(tokenizer, ids[-1:]).endswith("\n")


def prm_ids(
    tokenizer: "Tokenizer", task: "Task", problem: Problem, steps: Sequence[Sequence[int]], tag_id: int
) -> tuple[list[int], list[int]]:
    """The text of a process reward model (arXiv 2506.15498) as ids, and the index of every step's tag in it.

    Solve prompt, then per step its ids, the tag, a newline. `steps` are ids: the spans of a sampled solution, or
    what `step_ids` makes of text. Ids are joined, not strings, so there is one tag per step whatever the text.
    """
    ids = encode_chat(tokenizer, render(task, problem))
    newline = encode(tokenizer, "\n")
    positions = []
    for step in steps:
        ids += step
        positions.append(len(ids))
        ids += [tag_id, *newline]
    return ids, positions


def orm_ids(
    tokenizer: "Tokenizer", task: "Task", problem: Problem, steps: Sequence[Sequence[int]], tag_id: int
) -> tuple[list[int], list[int]]:
    """The text of an outcome reward model: as `prm_ids`, with a single tag, at the end of the last step."""
    newline = encode(tokenizer, "\n")
    joined = [token for step in steps[:-1] for token in (*step, *newline)] + [*(steps[-1] if steps else ())]
    return prm_ids(tokenizer, task, problem, [joined], tag_id)
