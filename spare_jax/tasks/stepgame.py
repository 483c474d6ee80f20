"""StepGame: where is one agent, seen from another, over a story of one to ten sentences (arXiv 2204.08292).

Read from a directory of JSON lines as published (github.com/ZhengxiangShi/StepGame), where files with "test" in their
names are the test split and those with "train" or "valid" the train split, or from Parquet files or the hub: `story`,
`question`, `label`. The data set has no reasoning: a solver reads the sentences and walks on a grid from the second
agent of the question to the first, and its path is the reference. Some published sentences state another relation than
their labels (`_MISWORDED`).
"""

import functools
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spare_jax.records import Gold, Problem, RecordError
from spare_jax.steps.split import split_steps
from spare_jax.tasks import stepgame_exemplars
from spare_jax.tasks.exemplars import answer_form
from spare_jax.tasks.source import read_split, required, split_file
from spare_jax.tasks.task import Exemplar, Task

SPLITS = {"train": "train.jsonl", "test": "test.jsonl"}
_NAMES = {"train": ("train", "valid"), "test": ("test",)}  # the name of a split's file holds one of these

INSTRUCTION = (
    "Find the relation from the story, step by step. Write one step on each line: where an agent is, seen from the one "
    "before, and the way so far. End with a line that says: The answer is R, where R is left, right, above, below, "
    "upper-left, upper-right, lower-left, lower-right or overlap."
)

GUIDELINES = """\
You are a teacher of geometry. A student has found out from a story where one agent is, seen from another, and you \
grade the solution step by step with the help of a reference.

What you are given, one item on each line:
[c1], [c2], ... the sentences of the story (the context); some of them may not matter
[q] the question
[r1], [r2], ... the steps of the reference
[s1], [s2], ... the steps of the student

How to grade each step, in the student's order:
1. Match it with the sentences, the reference steps and the student's own earlier steps that it rests on. Look at the \
two agents, at the direction, and at the sum of the way so far.
2. A step that agrees with a sentence, read in either direction, and adds it rightly to a right step is CORRECT, also \
where it takes another way or another order than the reference.
3. A step that turns a direction round, that no sentence tells, that adds wrongly, or that builds on a wrong step of \
the student, is INCORRECT.

Kinds of error:
RELATION: another direction than the sentence tells, or no sentence tells of these two.
NUMERIC: the sum of the way is wrong.
PROPAGATED: it builds on a wrong step.
ANSWER: the final answer is not the direction of the way.

""" + answer_form("sentences")

ERROR_CATEGORIES = ("RELATION", "NUMERIC", "PROPAGATED", "ANSWER")

Offset = tuple[int, int]  # to the right, upwards

LABELS: dict[Offset, str] = {
    (-1, 0): "left", (1, 0): "right", (0, 1): "above", (0, -1): "below", (-1, 1): "upper-left",
    (1, 1): "upper-right", (-1, -1): "lower-left", (1, -1): "lower-right", (0, 0): "overlap",
}  # fmt: skip

_WORDS: dict[str, Offset] = {
    **dict.fromkeys(("above", "upper", "top", "over", "up", "north", "front"), (0, 1)),
    **dict.fromkeys(("below", "lower", "bottom", "under", "down", "south"), (0, -1)),
    **dict.fromkeys(("left", "lefthand", "west"), (-1, 0)),
    **dict.fromkeys(("right", "righthand", "east"), (1, 0)),
}
_CLOCK: dict[int, Offset] = {
    12: (0, 1), 1: (1, 1), 2: (1, 1), 3: (1, 0), 4: (1, -1), 5: (1, -1),
    6: (0, -1), 7: (-1, -1), 8: (-1, -1), 9: (-1, 0), 10: (-1, 1), 11: (-1, 1),
}  # fmt: skip

# Sentences that the data set labels with other directions than they say, found by comparing the two over the test
# files with k = 1; "~" is an agent. The first two stand for several directions.
_MISWORDED: tuple[tuple[str, tuple[Offset, ...]], ...] = (
    ("~ is to the right and above ~ at an angle of about 45 degrees", ((1, -1), (-1, 1))),
    ("~ is there and ~ is at the 10 position of a clock face", ((-1, -1),)),
    ("~ and ~ are both there with the object ~ is to the right of object ~", ((-1, 0),)),
    ("~ and ~ are horizontal and ~ is to the right of ~", ((-1, 0),)),
    ("~ and ~ are parallel, and ~ is to the right of ~", ((-1, 0),)),
    ("~ and ~ are parallel, and ~ on the right of ~", ((-1, 0),)),
    ("~ is positioned below ~ and to the left", ((1, 1),)),
    ("~ is placed at the bottom of ~", ((0, 1),)),
)

_AGENT = re.compile(r"\b[A-Z]\b")
_TIME = re.compile(r"\b(\d+)(?::00)?\b")
# Words before the direction that do not tell it.
_IDLE = re.compile(
    r"\b(?:over )?there\b|\bat (?:approximately )?an? (?:angle of about )?45 degrees?(?: angle)?(?: to [A-Z],)?"
)
_STATED = re.compile(r"\banswer(?: to the question)?(?: is|:)\s*(.+)", re.IGNORECASE)


class Fact(NamedTuple):
    """`agent` is at one of `offsets` from `other`: the first is what the sentence states, the others what its label may
    mean. `other` is None in a sentence that names one agent twice, a mistake in the data set.
    """

    agent: str
    other: str | None
    offsets: tuple[Offset, ...]


def task() -> Task:
    """The task's texts and functions."""
    return Task(
        name="stepgame",
        instruction=INSTRUCTION,
        guidelines=GUIDELINES,
        error_categories=ERROR_CATEGORIES,
        extract_answer=extract_answer,
        answers_equal=lambda answer, accepted: answer in accepted,
        split_steps=split_steps,
        exemplars=exemplars,
    )


@functools.cache
def exemplars() -> tuple[Exemplar, ...]:
    """The exemplars of stepgame_exemplars.py, with references made by `solve`."""
    return stepgame_exemplars.exemplars(solve)


def extract_answer(steps: Sequence[str]) -> str | None:
    """The relation after the last "the answer is", in the data set's word for it; None where there is none."""
    for step in reversed(steps):
        if match := _STATED.search(step):
            return relation(match[1])
    return None


def relation(text: str) -> str | None:
    """The data set's word for a relation in other words ("to the upper left", "north-west"); None where it is none."""
    if "overlap" in text.lower():
        return "overlap"
    offset = _direction(text)
    return None if offset == (0, 0) else LABELS[offset]


def _direction(text: str) -> Offset:
    """The first horizontal and the first vertical direction among the words."""
    named = [_WORDS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _WORDS]
    return next((x for x, _ in named if x), 0), next((y for _, y in named if y), 0)


def read_fact(sentence: str) -> Fact:
    """Read a sentence of a story.

    Raises:
      ValueError: it names no agent or no direction.
    """
    text, agents = _IDLE.sub("", sentence), dict.fromkeys(_AGENT.findall(sentence))
    time = _TIME.search(text)
    starts = [m.start() for m in re.finditer(r"[A-Za-z]+", text) if m[0].lower() in _WORDS]
    starts += [time.start()] if time else []
    # The agent of the fact is the last one named before the first direction, unless in the form "X's".
    before = [m[0] for m in _AGENT.finditer(text, 0, min(starts, default=0)) if text[m.end() : m.end() + 2] not in _OF]
    if not before:
        raise ValueError(f"no agent and direction in {sentence[:60]!r}")
    offset = _CLOCK.get(int(time[1]), (0, 0)) if time else _direction(text)
    pattern = _AGENT.sub("~", sentence).removesuffix(".")
    others = next((offsets for misworded, offsets in _MISWORDED if misworded == pattern), ())
    return Fact(before[-1], next((a for a in agents if a != before[-1]), None), (offset, *others))


_OF = ("'s", "’s")


def solve(story: Sequence[str], agent: str, origin: str, label: str) -> tuple[str, ...]:
    """The steps from `origin` to `agent`, one per sentence on the path. As few sentences as possible are read by
    another offset than the one that they state, so that the path ends at `label`.

    Raises:
      ValueError: a sentence cannot be read, or no reading of the story comes to `label`.
    """
    facts = [read_fact(sentence) for sentence in story]
    for whole in _completed(facts, (agent, origin)):
        if not (way := _way(whole, agent, origin)):
            continue
        for readings in sorted(itertools.product(*(range(len(fact.offsets)) for fact, _ in way)), key=sum):
            steps, reached = _walk(way, readings, origin)
            if LABELS[reached] == label:
                return (*steps, f"The answer is {label}.")
    raise ValueError(f"no reading of the story puts {agent} {label!r} of {origin}")


def _walk(way: Sequence[tuple[Fact, bool]], readings: Sequence[int], origin: str) -> tuple[list[str], Offset]:
    """The steps of a path, and the signs of the offset at its end."""
    steps, here, at = [], origin, (0, 0)
    for (fact, turned), reading in zip(way, readings, strict=True):
        x, y = fact.offsets[reading]
        move, there = ((-x, -y), str(fact.other)) if turned else ((x, y), fact.agent)
        after = at[0] + move[0], at[1] + move[1]
        steps.append(f"{there} is {_from(move)} {here}: {_pair(at)} + {_pair(move)} = {_pair(after)}.")
        here, at = there, after
    return steps, (_sign(at[0]), _sign(at[1]))


def _from(move: Offset) -> str:
    word = LABELS[move]
    return word if move[0] == 0 else f"{word} of"


def _pair(offset: Offset) -> str:
    return f"{offset[0]},{offset[1]}"


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _completed(facts: list[Fact], asked: tuple[str, str]) -> Iterator[list[Fact]]:
    """The facts, in several ways where one of them names an agent twice: its other agent may be any that no other fact
    connects with that one. The likeliest come first, which are not asked for and have few facts."""
    whole = [fact for fact in facts if fact.other is not None]
    broken = next((fact for fact in facts if fact.other is None), None)
    if broken is None:
        yield whole
        return
    degree = Counter(name for fact in whole for name in (fact.agent, str(fact.other)))
    apart = {*degree, *asked} - _reached(whole, broken.agent)
    for name in sorted(apart, key=lambda name: (name in asked, degree[name], name)):
        yield [*whole, broken._replace(other=name)]
    yield whole


def _reached(facts: Sequence[Fact], start: str) -> set[str]:
    reached, before = {start}, 0
    while len(reached) > before:
        before = len(reached)
        for fact in facts:
            if fact.agent in reached or fact.other in reached:
                reached |= {fact.agent, str(fact.other)}
    return reached


def _way(facts: Sequence[Fact], agent: str, origin: str) -> list[tuple[Fact, bool]]:
    """The shortest path from `origin` to `agent`: facts, each with whether it leads from its agent to its other one;
    empty where there is no path."""
    leading: dict[str, list[tuple[Fact, bool]]] = defaultdict(list)
    for fact in facts:
        leading[str(fact.other)].append((fact, False))
        leading[fact.agent].append((fact, True))
    ways: dict[str, list[tuple[Fact, bool]]] = {origin: []}
    for here in (queue := [origin]):
        for fact, turned in leading[here]:
            there = str(fact.other) if turned else fact.agent
            if there not in ways:
                ways[there] = [*ways[here], (fact, turned)]
                queue.append(there)
    return ways.get(agent, [])


def load(
    path: str | Path, split: str, on_error: str = "raise", malformed: list[str] | None = None
) -> Iterator[tuple[Problem, Gold]]:
    """Read one split, file by file; a problem's id holds file and line, "stepgame-clean_qa3_test-00001".

    Args:
      path, on_error, malformed: as for `source.read_split`; all files of the split in the directory are read.
      split: "train" or "test".

    Raises:
      StoreError: no such split or file, or a malformed line; names file, line and field.
    """
    whole = split_file("stepgame", SPLITS, split)
    files = sorted(p.name for p in Path(path).glob("*.jsonl") if any(name in p.stem for name in _NAMES[split]))
    for file in files or (whole,):
        for number, (question, story, steps, label) in read_split(path, file, _parse, on_error, malformed):
            problem_id = f"stepgame-{Path(file).stem}-{number:05d}"
            yield Problem(problem_id, question, story), Gold(problem_id, (label,), steps)


def _parse(row: Any) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
    """A decoded line as question, story, reference steps and label."""
    story, question, label = required(row, "story", tuple[str, ...]), required(row, "question"), required(row, "label")
    if label not in LABELS.values():
        raise RecordError(f"field 'label': {label!r} is none of {', '.join(LABELS.values())}")
    agents = _AGENT.findall(question)
    if len(agents) != 2:
        raise RecordError("field 'question': expected a text that names two agents, each by a capital letter")
    return question, story, solve(story, agents[0], agents[1], label), label
