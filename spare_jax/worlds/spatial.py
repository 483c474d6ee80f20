"""The spatial world: people stand on a square grid, told pair by pair; where is one of them, seen from another?

A fact tells that one person is one step in one of eight directions from another ("Ada is west of Ben."). The question
asks in which direction one person lies, seen from another several such steps away. Facts are shuffled, some people are
not needed, and a further fact may open a shorter route. A solution walks from the person who looks, at 0,0, and states
every position on the way. (StepGame's stories, arXiv 2204.08292, are of this kind.)
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Sequence

from spare_jax.records import Gold, Problem
from spare_jax.worlds.world import Distribution, Redraw

Point = tuple[int, int]

DIRECTIONS: dict[str, Point] = {
    "north": (0, 1), "northeast": (1, 1), "east": (1, 0), "southeast": (1, -1), "south": (0, -1), "southwest": (-1, -1),
    "west": (-1, 0), "northwest": (-1, 1),
}  # fmt: skip
SAME_PLACE = "same place"

TRAIN = Distribution()


@dataclasses.dataclass(frozen=True)
class Template:
    """How one kind of story tells, and asks, that `{x}` is in direction `{d}` from `{y}`."""

    told: str
    ask: str


TEMPLATES = (
    Template("{x} is {d} of {y}.", "Where is {x}, seen from {y}?"),
    Template("From {y}, {x} is {d}.", "From {y}, where is {x}?"),
    Template("{x} stands {d} of {y}.", "Where does {x} stand from {y}?"),
    Template("{y} sees {x} {d}.", "Where does {y} see {x}?"),
    Template("Go {d} from {y} to reach {x}.", "Which way from {y} to {x}?"),
    Template("{x} sits {d} of where {y} sits.", "Where does {x} sit from where {y} sits?"),
)


@dataclasses.dataclass(frozen=True)
class Fact:
    """`x` is one step in `direction` from `y`."""

    x: str
    direction: str
    y: str

    def __str__(self) -> str:
        return f"{self.x} = {self.direction} {self.y}"

    def turned(self) -> "Fact":
        """The same relation, told about the other person."""
        return Fact(self.y, direction_of(minus((0, 0), DIRECTIONS[self.direction])), self.x)


@dataclasses.dataclass(frozen=True)
class Story:
    """A problem's facts, `facts[i]` told by context sentence i; its question, where `target` is, seen from `looker`;
    and the `positions` of all whom facts connect with `looker`, who stands at (0, 0)."""

    facts: tuple[Fact, ...]
    looker: str
    target: str
    positions: dict[str, Point]


def plus(a: Point, b: Point) -> Point:
    """The sum of two vectors."""
    return a[0] + b[0], a[1] + b[1]


def minus(a: Point, b: Point) -> Point:
    """The difference of two vectors."""
    return a[0] - b[0], a[1] - b[1]


def direction_of(offset: Point) -> str:
    """Which of the eight directions has the signs of an offset of any length; SAME_PLACE for (0, 0)."""
    signs = tuple((value > 0) - (value < 0) for value in offset)
    return next((name for name, vector in DIRECTIONS.items() if vector == signs), SAME_PLACE)


def written(point: Point) -> str:
    """A vector as steps write it: "-1,2"."""
    return f"{point[0]},{point[1]}"


def step_of(fact: Fact, at: Point) -> str:
    """The step that derives `fact.x`'s position from `fact.y`'s, `at`: "Ada is west of Ben: 0,1 + -1,0 = -1,1."."""
    vector = DIRECTIONS[fact.direction]
    return f"{fact.x} is {fact.direction} of {fact.y}: {written(at)} + {written(vector)} = {written(plus(at, vector))}."


def story_of(gold: Gold) -> Story:
    """Read `gold.facts`: lines as "Ada = northwest Ben", and the last one, "? = Dan Eve" (Dan, seen from Eve).

    Raises:
      ValueError: a line is none of these.
    """
    *lines, asked = gold.facts
    facts = []
    for line in lines:
        match = re.fullmatch(r"(\w+) = ([a-z]+) (\w+)", line)
        if match is None or match[2] not in DIRECTIONS:
            raise ValueError(f"gold of {gold.problem_id}: {line!r} is no fact of the spatial world")
        facts.append(Fact(match[1], match[2], match[3]))
    target, looker = asked.removeprefix("? = ").split()
    return Story(tuple(facts), looker, target, positions_of(facts, looker))


def positions_of(facts: Sequence[Fact], looker: str) -> dict[str, Point]:
    """Positions of all whom facts connect with `looker`, who is at (0, 0); in the order in which they follow."""
    both = [either for fact in facts for either in (fact, fact.turned())]
    positions, grown = {looker: (0, 0)}, True
    while grown:
        grown = False
        for fact in both:
            if fact.y in positions and fact.x not in positions:
                positions[fact.x] = plus(positions[fact.y], DIRECTIONS[fact.direction])
                grown = True
    return positions


def draw(rng: random.Random, problem_id: str, length: int, distribution: Distribution) -> tuple[Problem, Gold]:
    """One problem whose reference takes `length` steps on the grid. Raises Redraw."""
    template = TEMPLATES[rng.choice(distribution.templates)]
    people = rng.sample(distribution.names, len(distribution.names))
    if length + 1 > len(people):
        raise Redraw
    way, others = people[: length + 1], people[length + 1 :]
    needed = [Fact(x, rng.choice(list(DIRECTIONS)), y) for y, x in itertools.pairwise(way)]
    positions = positions_of(needed, way[0])
    facts = [fact.turned() if rng.random() < 0.4 else fact for fact in needed]
    if rng.random() < distribution.second_route:
        shortcuts = [
            Fact(x, direction_of(offset), y)
            for i, y in enumerate(way)
            for x in way[i + 2 :]
            if (offset := minus(positions[x], positions[y])) in DIRECTIONS.values()
        ]
        if shortcuts:
            facts.append(rng.choice(shortcuts))
    there = list(way)
    for _ in range(min(len(others), rng.randint(0, distribution.max_distractors))):
        name = others.pop()
        facts.append(Fact(name, rng.choice(list(DIRECTIONS)), rng.choice(there)))
        there.append(name)
    rng.shuffle(facts)
    steps = [step_of(fact, positions[fact.y]) for fact in needed]
    answer = direction_of(positions[way[-1]])
    context = tuple(template.told.format(x=fact.x, d=fact.direction, y=fact.y) for fact in facts)
    problem = Problem(problem_id, template.ask.format(x=way[-1], y=way[0]), context)
    fact_lines = (*map(str, facts), f"? = {way[-1]} {way[0]}")
    return problem, Gold(problem_id, (answer,), (*steps, f"The answer is {answer}."), fact_lines)


def every_fact(problem: Problem, gold: Gold, rng: random.Random) -> list[str]:
    """A longer solution than the reference: the position of everybody in the story, each from one that came before."""
    story = story_of(gold)
    return _walk(story, set(story.positions), rng)


def another_solution(problem: Problem, gold: Gold, rng: random.Random) -> list[str]:
    """A right solution, perhaps another than the reference: by any route, perhaps with a needless person."""
    story = story_of(gold)
    while True:
        wanted = {name for name in story.positions if rng.random() < 0.85} | {story.looker, story.target}
        if story.target in positions_of([f for f in story.facts if {f.x, f.y} <= wanted], story.looker):
            break
    return _walk(story, wanted, rng)


def _walk(story: Story, wanted: set[str], rng: random.Random) -> list[str]:
    """Steps to the `wanted` people that can be reached through wanted people, in a random order; then the answer."""
    both = [either for fact in story.facts for either in (fact, fact.turned())]
    there, steps = {story.looker}, []
    while ready := [f for f in both if f.y in there and f.x in wanted - there]:
        fact = rng.choice(ready)
        there.add(fact.x)
        steps.append(step_of(fact, story.positions[fact.y]))
    return [*steps, f"The answer is {direction_of(story.positions[story.target])}."]
