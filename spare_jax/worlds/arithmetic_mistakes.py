"""Solutions in the arithmetic world with the kinds of mistakes that a small policy makes, drawn without a model."""

import random

from spare_jax.records import Gold, Problem
from spare_jax.worlds.arithmetic import MAX_VALUE, Story, in_order, story_of, template_of, work
from spare_jax.worlds.expressions import Expression, Name, Number, Operation, evaluate, leaves, names


def mistaken_solution(problem: Problem, gold: Gold, rng: random.Random) -> list[str]:
    """A solution with mistakes as a small policy makes them, sometimes none.

    It follows the story's facts, mostly the needed ones, leaves out or postpones some, guesses a count that it has not
    derived and goes on from the guess, and now and then uses a relation that no fact tells, copies a count wrongly, or
    loses a word. Its calculations are right for the counts that it writes: NUMERIC errors are held out of training.
    """
    story = story_of(gold)
    needed = _needed(story)
    facts = [f for f in story.facts if isinstance(f[1], Operation) and (f[0] in needed or rng.random() < 0.25)]
    facts = in_order(rng, list(dict(rng.sample(facts, len(facts))).items()))  # of a count told twice, one fact
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
    """Names whose counts are used by any route to the answer."""
    needed, waiting = set(), [story.target]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [operand for owner, expression in story.facts if owner == name for operand in names(expression)]
    return needed


def _untold(name: str, expression: Operation, story: Story, rng: random.Random) -> tuple[str, Expression]:
    """A fact with one part changed, which is mostly a relation that no fact tells."""
    operator, left, right = expression.operator, expression.left, expression.right
    match rng.randrange(4):
        case 0:
            left = Name(rng.choice(sorted(story.values)))
        case 1:
            operator = rng.choice("+-*")
        case 2:
            name, right = rng.choice([fact for fact in story.facts if isinstance(fact[1], Number)])
        case _:
            name = rng.choice(sorted(story.values))
    return name, Operation(operator, left, right)


def _guess(name: str, story: Story, rng: random.Random) -> int:
    """A guess at somebody's count: another one's, a number of the story, a near one, any, or the true one."""
    return rng.choice(
        (
            rng.choice(sorted(story.values.values())),
            rng.choice([leaf.value for _, e in story.facts for leaf in leaves(e) if isinstance(leaf, Number)]),
            max(1, story.values[name] + rng.randint(-9, 9)),
            rng.randint(2, MAX_VALUE),
            story.values[name],
        )
    )
