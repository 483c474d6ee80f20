"""Solving a problem step by step, and the same text with step tags for a reward model.

What a step is the task says (`Task.split_steps`). Its span over the sampled ids is found from those ids and never by
encoding the text again: encoding what was decoded gives other ids.
"""

import bisect
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from spare_jax.prompts.chat import Message, encode, encode_chat
from spare_jax.records import Problem, Solution
from spare_jax.steps.lines import split_lines, step_texts

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
    tokenizer: "Tokenizer",
    token_ids: Sequence[int],
    stop_ids: Collection[int] = (),
    split: Callable[[str], tuple[str, ...]] = split_lines,
) -> tuple[tuple[str, ...], tuple[Span, ...], str]:
    """Cut sampled ids into steps, where `split` (such as `Task.split_steps`) cuts their text.

    The answer ends before the first id of `stop_ids`. No id is cut: one that holds the end of a step and what follows
    belongs to the step that it ends, and so does one that holds the newline before the next step and its first
    characters. An id that is all blank belongs to no step where it, or one like it, holds a newline between two steps.

    Returns:
      The steps' texts, one half-open span over `token_ids` per step, and the whole text. A step's text is what its
      span decodes to, on one line and without blanks around it.
    """
    end = next((i for i, token in enumerate(token_ids) if token in stop_ids), len(token_ids))
    ids, text = token_ids[:end], decode(tokenizer, token_ids[:end])
    pieces = {token: decode(tokenizer, [token]) for token in set(ids)}
    texts = [pieces[token] for token in ids]
    reached = list(itertools.accumulate(_characters(tokenizer, ids, texts)))
    wanted = itertools.accumulate(_solid(piece) for piece in split(text))
    steps, spans, start = [], [], 0
    for stop, following in _stretches(texts, reached, [0, *wanted]):
        step = " ".join(step_texts((decode(tokenizer, ids[start:stop]),)))
        if step:
            steps.append(step)
            spans.append((start, stop))
        start = following
    return tuple(steps), tuple(spans), text


def _stretches(texts: Sequence[str], reached: Sequence[int], cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """For each step where it stops and the next one starts, from ids' texts and how many characters, blanks aside, the
    text has up to every id's end and up to every cut."""
    behind = 0
    for cut in cuts:
        last = bisect.bisect_left(reached, cut) if cut else -1  # the id that ends the step
        if last < behind - 1:  # an earlier step ended inside the same id
            continue
        following = min(last, len(texts) - 1) + 1
        while following < len(texts) and not texts[following].strip():
            following += 1
        newlines = [i for i in range(max(last, 0), following) if "\n" in texts[i]]
        lead = texts[following] if following < len(texts) else ""
        if "\n" in lead[: len(lead) - len(lead.lstrip())]:
            behind = following + 1
            yield behind, behind
        elif newlines:
            behind = newlines[-1] + 1
            yield max(newlines[0], last + 1), behind
        elif following == len(texts):
            behind = following
            yield behind, behind
        else:
            behind = last + 1
            yield behind, behind


def _characters(tokenizer: "Tokenizer", ids: Sequence[int], texts: Sequence[str]) -> list[int]:
    """How many characters that are no blanks each id ends. Several ids may make one character: the last one ends it."""
    found, i = [_solid(text) for text in texts], 0
    while i < len(ids):
        if _BROKEN not in texts[i]:
            i += 1
            continue
        end = i + 1
        while end < len(ids) and _BROKEN in texts[end]:
            end += 1
        while i < end:
            # At most four bytes make a character; what no four ids make whole is no character, and is taken together.
            sizes = range(1, min(4, end - i) + 1)
            size = next((n for n in sizes if not decode(tokenizer, ids[i : i + n]).endswith(_BROKEN)), end - i)
            found[i : i + size] = [0] * (size - 1) + [_solid(decode(tokenizer, ids[i : i + size]))]
            i += size
    return found


_BROKEN = "\ufffd"  # what a part of a character decodes to


def _solid(text: str) -> int:
    return len("".join(text.split()))


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
