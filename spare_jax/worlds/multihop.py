"""The multihop world: who is whose teacher, boss or friend, and a question that follows several such relations in turn.

A story is a table from (person, relation) to a person. A fact tells one entry ("Ada's boss is Ben."), or that two
entries are equal ("Ada's boss is Cal's boss."), which makes a second route where one of the two is told as well. The
question names a person and the relations to follow: "Who is Ada's boss's friend?". Facts are shuffled; most distractors
tell another relation of somebody on the way, or the same relation of somebody else.
"""

import dataclasses
import random
import re
from collections.abc import Iterable, Sequence

from spare_jax.records import Gold, Problem
from spare_jax.worlds.world import Distribution, Redraw

RELATIONS = ("teacher", "boss", "friend", "doctor", "coach", "tutor")

TRAIN = Distribution(max_distractors=6)

Entry = tuple[str, str]
"""A person and a relation: ("Ada", "boss") is whoever is Ada's boss."""


@dataclasses.dataclass(frozen=True)
class Fact:
    """The person at `entry` is `value` or, with `same`, whoever is at that other entry."""

    entry: Entry
    value: str = ""
    same: Entry | None = None

    def __str__(self) -> str:
        return f"{' '.join(self.entry)} = {' '.join(self.same) if self.same else self.value}"


@dataclasses.dataclass(frozen=True)
class Template:
    """How one kind of story words its facts, question and steps: `{y}` is `{x}`'s `{r}`, and so is `{z}`'s. A path is
    "Ada's boss's friend" if `forward`, else "the friend of the boss of Ada"."""

    told: str
    same: str
    forward: bool

    def sentence(self, fact: Fact) -> str:
        """The sentence that tells `fact`."""
        x, relation = fact.entry
        if fact.same:
            return self.same.format(x=x, r=relation, z=fact.same[0])
        return self.told.format(x=x, r=relation, y=fact.value)

    def path(self, start: str, relations: Sequence[str]) -> str:
        """A path in words, for questions and steps."""
        if self.forward:
            return "'s ".join((start, *relations))
        return "".join(f"the {relation} of " for relation in reversed(relations)) + start

    def step(self, start: str, relations: Sequence[str], value: str, via: Entry | None = None) -> str:
        """A step that says that a path leads to `value`; with `via`, because that entry has the same value."""
        path = self.path(start, relations)
        way = f"{self.path(via[0], via[1:])}: " if via else ""
        return f"{path[0].upper()}{path[1:]} is {way}{value}."

    def question(self, start: str, relations: Sequence[str]) -> str:
        """The question where a path leads."""
        return f"Who is {self.path(start, relations)}?"


TEMPLATES = (
    Template("{x}'s {r} is {y}.", "{x}'s {r} is {z}'s {r}.", True),
    Template("{x} has {y} as {r}.", "{x} has {z}'s {r} as {r}.", True),
    Template("{y} is {x}'s {r}.", "{z}'s {r} is {x}'s {r}.", True),
    Template("{x} took {y} as {r}.", "{x} took {z}'s {r} as {r}.", True),
    Template("As {r}, {x} has {y}.", "As {r}, {x} has whom {z} has.", True),
    Template("{y} serves {x} as {r}.", "Whoever serves {z} as {r} serves {x} too.", False),
)


@dataclasses.dataclass(frozen=True)
class Story:
    """A problem's facts, `facts[i]` told by context sentence i, all entries that follow from them (`values`), and its
    question: to follow `relations` from `start`."""

    facts: tuple[Fact, ...]
    start: str
    relations: tuple[str, ...]
    values: dict[Entry, str]

    @property
    def way(self) -> list[Entry]:
        """The entries that the question's path goes through; the value of the last one is the answer."""
        entries, at = [], self.start
        for relation in self.relations:
            entries.append((at, relation))
            at = self.values[at, relation]
        return entries


def story_of(gold: Gold) -> Story:
    """Read `gold.facts`: lines as "Ada boss = Ben" and "Ada boss = Cal boss", and the last one, "? = Ada boss friend".

    Raises:
      ValueError: a line is none of these.
    """
    *lines, asked = gold.facts
    facts = []
    for line in lines:
        match = re.fullmatch(r"(\w+) (\w+) = (\w+)(?: (\w+))?", line)
        if match is None:
            raise ValueError(f"gold of {gold.problem_id}: {line!r} is no fact of the multihop world")
        entry, same = (match[1], match[2]), (match[3], match[4]) if match[4] else None
        facts.append(Fact(entry, "" if same else match[3], same))
    start, *relations = asked.removeprefix("? = ").split()
    return Story(tuple(facts), start, tuple(relations), values_of(facts))


def values_of(facts: Iterable[Fact]) -> dict[Entry, str]:
    """All entries that follow from the facts: told outright, or told to be the same as one that follows."""
    values = {fact.entry: fact.value for fact in facts if not fact.same}
    links = [fact for fact in facts if fact.same]
    for _ in links:
        for fact in links:
            for entry, twin in ((fact.entry, fact.same), (fact.same, fact.entry)):
                if entry and entry not in values and twin in values:
                    values[entry] = values[twin]
    return values


def draw(rng: random.Random, problem_id: str, length: int, distribution: Distribution) -> tuple[Problem, Gold]:
    """One problem of `length` relations to follow. Raises Redraw."""
    template = TEMPLATES[rng.choice(distribution.templates)]
    people = rng.sample(distribution.names, len(distribution.names))
    if length + 1 > len(people):
        raise Redraw
    way, others = people[: length + 1], people[length + 1 :]
    relations = [rng.choice(RELATIONS) for _ in range(length)]
    facts: list[Fact] = []
    known: dict[Entry, str] = {}

    def tell(fact: Fact) -> None:
        """Add a fact. Raises Redraw where its entry is known already."""
        if fact.entry in known:
            raise Redraw
        known[fact.entry] = fact.value or known[fact.same or fact.entry]
        facts.append(fact)

    def link(entry: Entry, value: str) -> tuple[Fact, Fact]:
        """Two facts: another person's entry with this value, and that `entry` is the same as that one."""
        free = [name for name in (*others, *way) if name not in (entry[0], value) and (name, entry[1]) not in known]
        if not free:
            raise Redraw
        same = (rng.choice(free), entry[1])
        return Fact(same, value), Fact(entry, same=same)

    on_the_way = []
    for person, relation, following in zip(way, relations, way[1:], strict=False):
        known[person, relation] = following  # so that no link takes it
        on_the_way.append(((person, relation), following))
    for entry, value in on_the_way:
        del known[entry]
        if rng.random() < distribution.second_route / 2:
            for fact in link(entry, value):
                tell(fact)
        else:
            tell(Fact(entry, value))
    if rng.random() < distribution.second_route:
        direct = [fact for fact in facts if fact.entry in dict(on_the_way) and not fact.same]
        if direct:
            chosen = rng.choice(direct)
            source, bridge = link(chosen.entry, chosen.value)
            tell(source)
            facts.append(bridge)
    needed = dict.fromkeys(fact.entry for fact in facts)
    for _ in range(rng.randint(0, distribution.max_distractors)):
        entry = rng.choice((*way, *others)), rng.choice((*relations, *RELATIONS))
        person = rng.choice([name for name in people if name != entry[0]])
        if entry not in known:
            tell(Fact(entry, person))
    steps = _reference(template, on_the_way, [fact for fact in facts if fact.entry in needed])
    rng.shuffle(facts)
    context = tuple(template.sentence(fact) for fact in facts)
    fact_lines = (*map(str, facts), f"? = {' '.join((way[0], *relations))}")
    problem = Problem(problem_id, template.question(way[0], relations), context)
    return problem, Gold(problem_id, (way[-1],), tuple(steps), fact_lines)


def _reference(template: Template, on_the_way: Sequence[tuple[Entry, str]], facts: Sequence[Fact]) -> list[str]:
    """A step per relation, via another entry only where no fact tells it outright; then the answer."""
    direct = {fact.entry for fact in facts if not fact.same}
    same = {fact.entry: fact.same for fact in facts if fact.same}
    steps = [
        template.step(person, [relation], value, None if (person, relation) in direct else same[person, relation])
        for (person, relation), value in on_the_way
    ]
    return [*steps, f"The answer is {on_the_way[-1][1]}."]


def every_fact(problem: Problem, gold: Gold, rng: random.Random) -> list[str]:
    """A longer solution than the reference: a step per fact of the story, in a random order, then what the reference
    has besides."""
    story, template = story_of(gold), _template(problem, gold)
    steps = [template.step(f.entry[0], f.entry[1:], story.values[f.entry], f.same) for f in story.facts]
    rng.shuffle(steps)
    return [*steps, *(s for s in gold.steps if s not in steps)]


def another_solution(problem: Problem, gold: Gold, rng: random.Random) -> list[str]:
    """A right solution, perhaps another than the reference: any route, some steps merged, a needless step now and
    then."""
    story, template = story_of(gold), _template(problem, gold)
    way, steps, at = story.way, [], 0
    while at < len(way):
        person, relation = way[at]
        routes: list[Entry | None] = [f.same for f in story.facts if f.entry == way[at]]
        if at + 1 < len(way) and rng.random() < 0.2:
            steps.append(template.step(person, [relation, way[at + 1][1]], story.values[way[at + 1]]))
            at += 2
            continue
        steps.append(template.step(person, [relation], story.values[way[at]], rng.choice(routes)))
        at += 1
    if rng.random() < 0.3:
        fact = rng.choice(story.facts)
        extra = template.step(fact.entry[0], fact.entry[1:], story.values[fact.entry], fact.same)
        steps.insert(rng.randrange(len(steps) + 1), extra)
    return [*steps, f"The answer is {story.values[way[-1]]}."]


def _template(problem: Problem, gold: Gold) -> Template:
    story = story_of(gold)
    return next(t for t in TEMPLATES if tuple(map(t.sentence, story.facts)) == problem.context)
