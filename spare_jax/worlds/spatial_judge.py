"""Exact truth of candidate steps in the spatial world, by ProcessBench's rule.

A step is right if it says where somebody stands and derives it: by a relation that is told, of either of the two, from
a position that earlier right steps have established (the one who looks is at 0,0), with the right sum. True steps that
the answer does not need are right, and so is a position said again. Wrong are: a relation that nobody tells, a wrong
position or direction in the sum, a slip in it, a position used before anything established it, what builds on an
earlier error, and text that states no position.

An explanation "Dan: said X, Dan is Y" gives the reason for the label: X and Y are the same if and only if the step is
right. In a true step that uses a position which nothing has established, Y is the relation without the sum; in a true
answer that nothing has established, Y is the person asked for.
"""

import dataclasses
import re
from collections.abc import Sequence

from spare_jax.records import Gold, Problem
from spare_jax.worlds.spatial import (
    DIRECTIONS,
    SAME_PLACE,
    Fact,
    Point,
    Story,
    direction_of,
    plus,
    step_of,
    story_of,
    written,
)
from spare_jax.worlds.verdict import Verdict

ERRORS = ("NUMERIC", "OPERAND", "RELATION", "PREMISE", "PROPAGATED", "ANSWER", "FORMAT")
"""Categories of wrong steps: a slip in the sum; a wrong position or direction in it; a relation that nobody tells; a
position used before it was established; an earlier error built upon; a wrong answer; text that states no position."""

HELD_OUT_ERRORS = ("NUMERIC",)
"""Categories kept out of all training of judges."""

_POINT = r"(-?[0-9]{1,3}),(-?[0-9]{1,3})"
_DIRECTION = "|".join(sorted(DIRECTIONS, key=len, reverse=True))
_STEP = re.compile(
    rf"\s*([A-Z][a-z]+) is ({_DIRECTION}) of ([A-Z][a-z]+): (?:{_POINT} \+ {_POINT} = )?{_POINT}\s*\.?\s*"
)
_AT = re.compile(rf"\s*([A-Z][a-z]+) is at {_POINT}\s*\.?\s*")
_ANSWER = re.compile(rf"\s*The answer is ({_DIRECTION}|{SAME_PLACE})\s*\.?\s*")


def stated_answer(step: str) -> str | None:
    """The direction of a step "The answer is northwest.", None for any other step."""
    match = _ANSWER.fullmatch(step)
    return match[1] if match else None


@dataclasses.dataclass
class _Known:
    """From the candidate's earlier steps: whose position is established, by the number of the right step that did so
    (0: given from the start), and the wrong positions that were claimed for each person."""

    established: dict[str, int]
    claimed: dict[str, set[Point]]


def judge(problem: Problem, gold: Gold, steps: Sequence[str]) -> list[Verdict]:
    """One verdict per step; see the module's docstring for the rule."""
    story = story_of(gold)
    reference = {match[1]: i for i, step in enumerate(gold.steps, 1) if (match := _STEP.fullmatch(step))}
    known, verdicts = _Known({story.looker: 0}, {}), []
    for number, step in enumerate(steps, 1):
        answer = stated_answer(step)
        if answer is not None:
            verdict = _judge_answer(answer, story, known, len(gold.steps))
        elif match := _STEP.fullmatch(step):
            verdict = _judge_step(match, number, story, known, reference)
        elif match := _AT.fullmatch(step):
            verdict = _judge_position(match[1], (int(match[2]), int(match[3])), number, story, known, reference)
        else:
            verdict = Verdict(False, "FORMAT", "no position is stated")
        verdicts.append(verdict)
    return verdicts


def _judge_step(match: re.Match[str], number: int, story: Story, known: _Known, reference: dict[str, int]) -> Verdict:
    x, direction, y = match[1], match[2], match[3]
    shown = [int(value) for value in match.groups()[3:] if value is not None]
    *operands, claim = list(zip(shown[::2], shown[1::2], strict=True))
    relation = Fact(x, direction, y)
    is_told = any(relation in (fact, fact.turned()) for fact in story.facts)
    of_two = next((f for fact in story.facts for f in (fact, fact.turned()) if (f.x, f.y) == (x, y)), None)
    error = _error(relation, is_told, operands, claim, story, known)
    right = of_two or next((f for fact in story.facts for f in (fact, fact.turned()) if f.x == x), None)
    words = match[0].strip().removesuffix(".").strip()
    if error is None:
        is_so = words
    elif right is not None and right.y in story.positions:
        is_so = step_of(right, story.positions[right.y]).removesuffix(".")
        is_so = is_so.partition(":")[0] if is_so == words else is_so
    else:
        is_so = f"{x} is not told"
    sentences = {i for i, fact in enumerate(story.facts, 1) if right in (fact, fact.turned())}
    verdict = Verdict(
        error is None,
        error,
        f"{x}: said {words.removeprefix(f'{x} is ')}, {is_so}",
        tuple(sorted(sentences)),
        (known.established[y],) if known.established.get(y) else (),
        (reference[x],) if x in reference else (),
    )
    _note(x, claim, number, error, known)
    return verdict


def _error(
    relation: Fact, is_told: bool, operands: Sequence[Point], claim: Point, story: Story, known: _Known
) -> str | None:
    if not is_told:
        return "RELATION"
    vector = DIRECTIONS[relation.direction]
    start = operands[0] if operands else (claim[0] - vector[0], claim[1] - vector[1])
    if relation.y not in known.established:
        if start in known.claimed.get(relation.y, ()):
            return "PROPAGATED"
        return "PREMISE"
    if start != story.positions[relation.y]:
        if start in known.claimed.get(relation.y, ()):
            return "PROPAGATED"
        return "OPERAND" if operands else "NUMERIC"
    if operands and operands[1] != vector:
        return "OPERAND"
    return None if claim == plus(start, vector) else "NUMERIC"


def _judge_position(
    x: str, claim: Point, number: int, story: Story, known: _Known, reference: dict[str, int]
) -> Verdict:
    """A position without a derivation is right where it repeats one that is established."""
    right = story.positions.get(x)
    error = None
    if claim != right:
        error = "PROPAGATED" if claim in known.claimed.get(x, ()) else "NUMERIC"
    elif x not in known.established:
        error = "PREMISE"
    is_so = "not told" if right is None or error == "PREMISE" else f"at {written(right)}"
    at = known.established.get(x)
    _note(x, claim, number, error, known)
    return Verdict(
        error is None,
        error,
        f"{x}: said at {written(claim)}, {x} is {is_so}",
        (),
        (at,) if at else (),
        (reference[x],) if x in reference else (),
    )


def _note(x: str, claim: Point, number: int, error: str | None, known: _Known) -> None:
    if error is None:
        known.established.setdefault(x, number)
    else:
        known.claimed.setdefault(x, set()).add(claim)


def _judge_answer(answer: str, story: Story, known: _Known, last_reference: int) -> Verdict:
    right = direction_of(story.positions[story.target])
    error = None
    if answer != right:
        claims = known.claimed.get(story.target, ())
        error = "PROPAGATED" if answer in map(direction_of, claims) else "ANSWER"
    elif story.target not in known.established:
        error, right = "PREMISE", story.target
    at = known.established.get(story.target)
    return Verdict(
        error is None, error, f"answer: said {answer}, is {right}", (), (at,) if at else (), (last_reference,)
    )
