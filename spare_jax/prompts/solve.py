"""The prompt for a solution, the steps of sampled solutions, and the text with step tags that a reward model reads.

The task cuts text into steps (`Task.split_steps`). The span of a step over the sampled ids is found from these ids, and
not by encoding its text again, which may give other ids.
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
    """The task's instruction, then the context sentences and the question, each on a line."""
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

    The solution ends before the first id of `stop_ids`. An id that holds the end of a step and what follows it, as the
    newline and the first characters of the next step, belongs to the step that it ends. Ids of blanks alone belong to
    no step where a newline is among them.

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
    """For each step the index of the id at which it stops and of that at which the next one starts.

    Args:
      texts: of each id.
      reached, cuts: the characters of the text, without blanks, up to the end of every id and up to every cut.
    """
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
    """How many characters, without blanks, end with each id. Of several ids that make up a character it is the last."""
    counts, i = [_solid(text) for text in texts], 0
    while i < len(ids):
        if _BROKEN not in texts[i]:
            i += 1
            continue
        end = i + 1
        while end < len(ids) and _BROKEN in texts[end]:
            end += 1
        while i < end:
            # A character has at most four bytes; ids of which no four make a character are taken together.
            sizes = range(1, min(4, end - i) + 1)
            size = next((n for n in sizes if not decode(tokenizer, ids[i : i + n]).endswith(_BROKEN)), end - i)
            counts[i : i + size] = [0] * (size - 1) + [_solid(decode(tokenizer, ids[i : i + size]))]
            i += size
    return counts


_BROKEN = "\ufffd"  # a part of a character decodes to this


def _solid(text: str) -> int:
    return len("".join(text.split()))


def decode(tokenizer: "Tokenizer", token_ids: Sequence[int]) -> str:
    """The text of ids, with special tokens, and with blanks as they are."""
    return cast(str, tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def one_line(text: str) -> str:
    """`text` on one line: every run of white space becomes one blank."""
    return " ".join(text.split())


def step_ids(tokenizer: "Tokenizer", steps: Sequence[str]) -> list[list[int]]:
    """Ids of steps that were not sampled, cut as a sampled solution is.

    The steps are encoded together: a token such as ".\\n" then ends a step as in a sampled solution, so that a reward
    model cannot tell the two apart by it.
    """
    lines = [one_line(step) for step in steps]
    ids = encode(tokenizer, "\n".join(lines))
    _, spans, _ = split_solution(tokenizer, ids)
    if len(spans) != len(lines):  # an empty step
        return [encode(tokenizer, line) for line in lines]
    return [ids[start:stop] for start, stop in spans]


def solution_ids(tokenizer: "Tokenizer", solution: Solution, tokenizer_digest: str) -> list[list[int]]:
    """Ids of every step of `solution`: the sampled ones if they are of this tokenizer, else `step_ids` of its text."""
    if solution.tokenizer == tokenizer_digest and len(solution.spans) == len(solution.steps):
        return [list(solution.token_ids[start:stop]) for start, stop in solution.spans]
    return step_ids(tokenizer, solution.steps)


def piece_ids(tokenizer: "Tokenizer", solution: Solution, tokenizer_digest: str) -> list[list[int]]:
    """Ids of every step with those between it and the next one, so that a policy can continue after any of them: the
    sampled ids if they are of this tokenizer, else each step's and, but for the last one, a newline.
    """
    if solution.tokenizer == tokenizer_digest and len(solution.spans) == len(solution.steps):
        return cut_pieces(solution.token_ids, solution.spans)
    newline, steps = encode(tokenizer, "\n"), step_ids(tokenizer, solution.steps)
    return [[*ids, *([] if _ends_line(tokenizer, ids) else newline)] for ids in steps[:-1]] + steps[-1:]


def cut_pieces(token_ids: Sequence[int], spans: Sequence[Span]) -> list[list[int]]:
    """Sampled ids up to the end of the last step, cut where each step but the first begins: one piece per step."""
    ends = [*(start for start, _ in spans[1:]), *(end for _, end in spans[-1:])]
    return [list(token_ids[a:b]) for a, b in itertools.pairwise([0, *ends])]


def _ends_line(tokenizer: "Tokenizer", ids: Sequence[int]) -> bool:
    return bool(ids) and decode(tokenizer, ids[-1:]).endswith("\n")


def prm_ids(
    tokenizer: "Tokenizer", task: "Task", problem: Problem, steps: Sequence[Sequence[int]], tag_id: int
) -> tuple[list[int], list[int]]:
    """The text that a process reward model reads (arXiv 2506.15498), as ids, and the index of every step's tag in it.

    Solve prompt, then per step its ids, the tag, a newline. `steps` are ids (`solution_ids`). Ids are joined and not
    strings, so that there is one tag per step whatever the text.
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
    """The text that an outcome reward model reads: as `prm_ids`, but with one tag, after the last step."""
    newline = encode(tokenizer, "\n")
    joined = [token for step in steps[:-1] for token in (*step, *newline)] + [*(steps[-1] if steps else ())]
    return prm_ids(tokenizer, task, problem, [joined], tag_id)
