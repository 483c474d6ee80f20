"""Solutions in the arithmetic world with the mistakes that a small policy makes, made without one."""

import random

from spare_jax.records import Gold, Problem
from spare_jax.worlds.arithmetic import MAX_VALUE, Story, in_order, story_of, template_of, work
from spare_jax.worlds.expressions import Expression, Name, Number, Operation, evaluate, leaves, names


def mistaken_solution(problem: Problem, gold: Gold, rng: random.Random) -> list[str]:
    """A solution that goes wrong as a small policy does; now and then nothing goes wrong.

    It follows the story's facts, mostly those that the answer needs, in an order that forgets or postpones some;
    guesses a count where it has not said it, and goes on from its guess; and here and there takes a relation that no
    fact tells, copies a count wrongly, or loses a word. What it works out is right for the counts that it writes: the
    slips of arithmetic that training holds out are not made here.
    """
    story = story_of(gold)
    needed = _needed(story)
    facts = [f for f in story.facts if isinstance(f[1], Operation) and (f[0] in needed or rng.random() < 0.25)]
    facts = in_order(rng, list(dict(rng.sample(facts, len(facts))).items()))  # one fact of those who are told twice
    for _ in range(rng.choice((0, 1, 1, 2))):
        if len(facts) > 1:
            at = rng.randrange(len(facts) - 1)
            postponed = facts.pop(at)
            if rng.random() < 0.5:
                facts.insert(rng.randrange(at, len(facts)), postponed)
    believed = {name: story.values[name] for name in story.given()}
    template, steps = template_of(problem, story), []
    for name, expression in facts:
        if isinstance(expression, Operation) and rng.random() < 0.06:
            name, expression = _untold(name, expression, story, rng)
        for operand in names(expression):
            if operand not in believed:
                believed[operand] = _guess(operand, story, rng)
        shown = dict(believed)
        if rng.random() < 0.03:
            wrong = rng.choice(names(expression))
            shown[wrong] = _guess(wrong, story, rng)
        value = evaluate(expression, shown)
        if value is None or value < 0:  # a negative count is no number that a step could state
            continue
        believed[name] = value
        step = template.step.format(x=name, work=work(expression, shown))
        if rng.random() < 0.01:
            words = step.split()
            del words[rng.randrange(len(words) - 1)]
            step = " ".join(words)
        steps.append(step)
    answer = believed.get(story.target)
    if answer is None or rng.random() < 0.02:
        answer = _guess(story.target, story, rng)
    return [*steps, f"The answer is {answer}."]


def _needed(story: Story) -> set[str]:
    """Names whose counts lead to the answer by any of the routes."""
    needed, waiting = set(), [story.target]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [other for told, expression in story.facts if told == name for other in names(expression)]
    return needed


def _untold(name: str, expression: Operation, story: Story, rng: random.Random) -> tuple[str, Expression]:
    """A relation that is near to a fact, and mostly none."""
    operator, one, other = expression.operator, expression.left, expression.right
    match rng.randrange(4):
        case 0:
            one = Name(rng.choice(sorted(story.values)))
        case 1:
            operator = rng.choice("+-*")
        case 2:
            name, other = rng.choice([fact for fact in story.facts if isinstance(fact[1], Number)])
        case _:
            name = rng.choice(sorted(story.values))
    return name, Operation(operator, one, other)


def _guess(name: str, story: Story, rng: random.Random) -> int:
    """A count for somebody whose count has not been said: another's, a number of the story, any, or the true one."""
    return rng.choice(
        (
            rng.choice(sorted(story.values.values())),
            rng.choice([leaf.value for _, e in story.facts for leaf in leaves(e) if isinstance(leaf, Number)]),
            max(1, story.values[name] + rng.randint(-9, 9)),
            rng.randint(2, MAX_VALUE),
            story.values[name],
        )
    )
