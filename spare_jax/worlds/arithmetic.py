"""The arithmetic world: who has how many, told in shuffled facts, asked of one of them.

A problem is a graph. Some people's counts are given, others follow from them by one operation each; `steps` of the
derived counts are needed for the answer. Facts are shuffled, some are not needed (distractors), and one count may be
told twice, in two ways that are both true, so that a second route leads to the answer. All random choices depend only
on (seed, split, index).
"""

import dataclasses
import random
from collections.abc import Sequence

from spare_jax.records import Gold, Problem
from spare_jax.worlds.expressions import Expression, Name, Number, Operation, evaluate, names, parse, with_values
from spare_jax.worlds.world import Distribution, Redraw

MAX_VALUE = 99


@dataclasses.dataclass(frozen=True)
class Template:
    """How one kind of story words its facts, its question and its steps: `{x}` is the person that a sentence is about,
    `{y}` and `{z}` are others that it names, `{n}` is a number, `{work}` a step's calculation."""

    given: str
    more: str
    fewer: str
    times: str
    together: str
    ask: str
    step: str

    def fact(self, name: str, expression: Expression) -> str:
        """The sentence that tells `name = expression`. Raises ValueError for an expression of another form."""
        match expression:
            case Number(n):
                return self.given.format(x=name, n=n)
            case Operation(operator, Name(y), Number(n)):
                return {"+": self.more, "-": self.fewer, "*": self.times}[operator].format(x=name, y=y, n=n)
            case Operation("+", Name(y), Name(z)):
                return self.together.format(x=name, y=y, z=z)
        raise ValueError(f"no sentence tells {name} = {expression}")


TEMPLATES = (
    Template(
        "{x} has {n} apples.", "{x} has {n} more apples than {y}.", "{x} has {n} fewer apples than {y}.",
        "{x} has {n} times as many apples as {y}.", "{x} has as many apples as {y} and {z} together.",
        "How many apples does {x} have?", "{x} has {work}.",
    ),
    Template(
        "{x} owns {n} coins.", "{x} owns {y}'s coins plus {n}.", "{x} owns {y}'s coins minus {n}.",
        "{x} owns {y}'s coins times {n}.", "{x} owns {y}'s coins plus {z}'s.",
        "How many coins does {x} own?", "{x} owns {work}.",
    ),
    Template(
        "{x} scored {n} points.", "{x} scored {n} more points than {y}.", "{x} scored {n} fewer points than {y}.",
        "{x} scored {n} times as many points as {y}.", "{x} scored as many points as {y} and {z} together.",
        "How many points did {x} score?", "{x} scored {work}.",
    ),
    Template(
        "{x} read {n} books.", "{x} read {y}'s books plus {n}.", "{x} read {y}'s books minus {n}.",
        "{x} read {y}'s books times {n}.", "{x} read {y}'s books plus {z}'s.",
        "How many books did {x} read?", "{x} read {work}.",
    ),
    Template(
        "{x} keeps {n} pears.", "{x} keeps {n} pears beyond {y}.", "{x} keeps {n} pears short of {y}.",
        "{x} keeps {y}'s pears {n} times over.", "{x} keeps what {y} and {z} keep.",
        "How many pears does {x} keep?", "{x} has {work}.",
    ),
    Template(
        "{x} found {n} shells.", "Add {n} to {y}'s shells to get {x}'s.", "Remove {n} from {y}'s shells to get {x}'s.",
        "Take {n} times {y}'s shells to get {x}'s.", "Add {y}'s shells to {z}'s to get {x}'s.",
        "How many shells did {x} find?", "{x} has {work}.",
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Story:
    """The facts of a problem: `facts[i]` = (name, expression) is what context sentence i tells; `target` is the name
    that is asked for; `values` has every name's true count."""

    facts: tuple[tuple[str, Expression], ...]
    target: str
    values: dict[str, int]

    def given(self) -> set[str]:
        """Names whose count is told outright."""
        return {name for name, expression in self.facts if isinstance(expression, Number)}


def story_of(gold: Gold) -> Story:
    """Read `gold.facts`: lines as "Ben = Ada + 5", and the last one "? = Dan". Raises ValueError for any other line."""
    facts, target = [], ""
    for line in gold.facts:
        name, _, text = line.partition(" = ")
        expression = parse(text)
        if expression is None:
            raise ValueError(f"gold of {gold.problem_id}: {line!r} is no fact of the arithmetic world")
        if name == "?":
            target = text
        else:
            facts.append((name, expression))
    values: dict[str, int] = {}
    while len(values) < len({name for name, _ in facts}):
        known = len(values)
        for name, expression in facts:
            if name not in values and (value := evaluate(expression, values)) is not None:
                values[name] = value
        if len(values) == known:
            raise ValueError(f"gold of {gold.problem_id}: some facts rest on nothing")
    return Story(tuple(facts), target, values)


def template_of(problem: Problem, story: Story) -> Template:
    """The template in whose words the problem is told."""
    return next(t for t in TEMPLATES if t.ask.format(x=story.target) == problem.question)


def work(expression: Expression, values: dict[str, int]) -> str:
    """The calculation in a step: "Ada + 5 = 7 + 5 = 12"."""
    return f"{expression} = {with_values(expression, values)} = {evaluate(expression, values)}"


def every_count(problem: Problem, gold: Gold, rng: random.Random) -> list[str]:
    """A longer solution than the reference: a step for every count of the story, given and needless ones too, in a
    random order in which each comes after the counts that it uses; then the answer."""
    story = story_of(gold)
    return _tell(problem, story, story.facts, rng)


def another_solution(problem: Problem, gold: Gold, rng: random.Random) -> list[str]:
    """A right solution, perhaps another than the reference: any route, any valid order, operands of sums swapped or
    not."""
    story = story_of(gold)
    facts, wanted = {}, [story.target]
    order = {name: i for i, name in enumerate(story.values)}  # each name after those that it is derived from
    while wanted:
        name = wanted.pop()
        routes = [e for n, e in story.facts if n == name and all(order[other] < order[name] for other in names(e))]
        expression = rng.choice(routes)
        if isinstance(expression, Operation) and expression.operator == "+" and rng.random() < 0.3:
            expression = Operation("+", expression.right, expression.left)
        if name not in facts and isinstance(expression, Operation):
            facts[name] = expression
            wanted += names(expression)
    return _tell(problem, story, list(facts.items()), rng)


def _tell(problem: Problem, story: Story, facts: Sequence[tuple[str, Expression]], rng: random.Random) -> list[str]:
    """`_steps` for `facts` of the problem, in the problem's own words."""
    return _steps(template_of(problem, story), facts, story.values, story.target, rng)


def _steps(
    template: Template,
    facts: Sequence[tuple[str, Expression]],
    values: dict[str, int],
    target: str,
    rng: random.Random,
) -> list[str]:
    """A step per fact, in a random order in which each comes after the facts that it uses, and the answer."""
    steps = [
        template.fact(name, expression)
        if isinstance(expression, Number)
        else template.step.format(x=name, work=work(expression, values))
        for name, expression in in_order(rng, facts)
    ]
    return [*steps, f"The answer is {values[target]}."]


def draw(rng: random.Random, problem_id: str, length: int, distribution: Distribution) -> tuple[Problem, Gold]:
    """One problem whose reference has `length` steps before the answer. Raises Redraw."""
    template = TEMPLATES[rng.choice(distribution.templates)]
    free = rng.sample(distribution.names, len(distribution.names))
    values: dict[str, int] = {}
    facts: list[tuple[str, Expression]] = []

    def tell(expression: Expression) -> str:
        value = evaluate(expression, values)
        if not free or value is None or not 1 <= value <= MAX_VALUE:
            raise Redraw
        name = free.pop()
        values[name] = value
        facts.append((name, expression))
        return name

    def give() -> str:
        return tell(Number(rng.randint(2, 30)))

    def derive(y: str, z: str | None) -> str:
        """Tell a new name by an operation on `y` (and `z`)."""
        if z is not None:
            expression = Operation("+", Name(y), Name(z)) if rng.random() < 0.5 else Operation("+", Name(z), Name(y))
        else:
            operator = rng.choice("++--*")
            expression = Operation(operator, Name(y), Number(rng.randint(2, 4 if operator == "*" else 20)))
        return tell(expression)

    # Names that no fact uses yet; each must be used on the way to the last one, which is asked for.
    loose = [give()]
    for step in range(length):
        left = length - step
        if len(loose) > 1 and (len(loose) > left or rng.random() < 0.5):
            y, z = loose.pop(), loose.pop()
        elif rng.random() < 0.25 and len(loose) < left:
            y, z = give(), None
        else:
            y = loose.pop(rng.randrange(len(loose)))
            others = [name for name in values if name != y]
            z = None
            if rng.random() < 0.3:
                z = rng.choice(others) if others and rng.random() < 0.5 else give()
        loose.append(derive(y, z))
    target = facts[-1][0]
    needed = [fact for fact in facts if isinstance(fact[1], Operation)]
    if rng.random() < distribution.second_route:
        facts.extend(_second_route(rng, needed, facts, values))
    for _ in range(rng.randint(0, distribution.max_distractors)):
        try:
            give() if rng.random() < 0.4 else derive(rng.choice(sorted(values)), None)
        except Redraw:  # one distractor fewer
            continue
    rng.shuffle(facts)
    steps = _steps(template, needed, values, target, rng)
    problem = Problem(
        problem_id, template.ask.format(x=target), tuple(template.fact(name, expression) for name, expression in facts)
    )
    fact_lines = (*(f"{name} = {expression}" for name, expression in facts), f"? = {target}")
    return problem, Gold(problem_id, (str(values[target]),), tuple(steps), fact_lines)


def _second_route(rng, needed, facts, values) -> list[tuple[str, Expression]]:
    """Tell one needed name a second time, from a name that was told before it."""
    options = []
    for name, expression in needed:
        before = facts[: facts.index((name, expression))]
        for other, _ in before:
            difference = values[name] - values[other]
            if other not in names(expression) and 1 <= abs(difference) <= 20:
                operator = "+" if difference > 0 else "-"
                options.append((name, Operation(operator, Name(other), Number(abs(difference)))))
    return [rng.choice(options)] if options else []


def in_order(rng: random.Random, facts: Sequence[tuple[str, Expression]]) -> list[tuple[str, Expression]]:
    """The facts in a random order in which each comes after the facts that it uses."""
    waiting, done = list(facts), []
    while waiting:
        undone = {name for name, _ in waiting}
        ready = [fact for fact in waiting if not undone & set(names(fact[1]))]
        done.append(rng.choice(ready))
        waiting.remove(done[-1])
    return done
