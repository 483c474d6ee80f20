"""Exact truth of candidate steps in the arithmetic world, by ProcessBench's rule.

A step is right if it says a true thing of a person and derives it: by a fact, from counts that are given or that
earlier right steps have established, operands in any order, several facts merged into one expression if wished
("Cal has (7 + 5) * 3 = 36"). A true step that the answer does not need is right. Wrong are: a slip of arithmetic, an
operand's wrong value, a relation that no fact tells (also where the value happens to be right), a count used before
anything established it, a wrong value restated or built upon (an error makes the later steps that build on it wrong;
one that does not build on it stays right), and text that states no value.

An explanation gives the reason for the label. It repeats a right step whole, "Ben: said Ada + 5 = 7 + 5 = 12, is so",
and a wrong one up to the first wrong word, followed by the right one, "Ben: said Ada + 5 = 8, is 7". Where the step
uses a count that nothing has established the right word is the name, "Ben: said Ada + 5 = 7, is Ada".
"""

import dataclasses
import re
from collections.abc import Sequence

from spare_jax.records import Gold, Problem
from spare_jax.worlds.arithmetic import Story, story_of
from spare_jax.worlds.expressions import (
    Expression,
    Name,
    Number,
    Operation,
    evaluate,
    leaves,
    names,
    parse,
    with_values,
)  # fmt: skip
from spare_jax.worlds.verdict import Verdict

ERRORS = ("NUMERIC", "OPERAND", "COMPREHENSION", "PREMISE", "PROPAGATED", "ANSWER", "FORMAT")
"""Categories of wrong steps, in this order: a slip of arithmetic; a wrong value of a name; a relation that no fact
tells; a count used before it was established; an earlier error built upon; a wrong answer; text without a value."""

HELD_OUT_ERRORS = ("NUMERIC",)
"""Categories kept out of all training of judges."""

_STEP = re.compile(r"^\s*(?:([A-Z][a-z]+)(?:\s+(?:has|owns|scored|read)|\s*:|\s*=)\s+)?(.+?)(?:\s+[a-z]+)?\s*\.?\s*$")
_WORD = re.compile(r"\d+|[^\W\d]+|\S")
_ANSWER = re.compile(r"^\s*The answer is\s+(\d{1,6})\s*\.?\s*$")


def stated_answer(step: str) -> str | None:
    """The number of a step "The answer is 12.", None for any other step."""
    match = _ANSWER.match(step)
    return str(int(match[1])) if match else None


@dataclasses.dataclass
class _Known:
    """From the candidate's earlier steps: whose count is established, by the number of the right step that did so (0:
    given from the start), and the wrong counts that were claimed for each name."""

    established: dict[str, int]
    claimed: dict[str, set[int]]


def judge(problem: Problem, gold: Gold, steps: Sequence[str]) -> list[Verdict]:
    """One verdict per step; see the module's docstring for the rule."""
    story = story_of(gold)
    reference = {name: i for i, step in enumerate(gold.steps, 1) if (name := _subject(step))}
    known = _Known(dict.fromkeys(story.given(), 0), {})
    verdicts = []
    for number, step in enumerate(steps, 1):
        answer = stated_answer(step)
        if answer is not None:
            verdict = _judge_answer(int(answer), story, known, len(gold.steps))
        else:
            verdict = _judge_step(step, number, story, known, reference)
        verdicts.append(verdict)
    return verdicts


def _subject(step: str) -> str | None:
    match = _STEP.match(step)
    return match[1] if match and stated_answer(step) is None else None


def _judge_answer(answer: int, story: Story, known: _Known, last_reference: int) -> Verdict:
    target = story.target
    at = known.established.get(target)
    error = None
    if answer != story.values[target]:
        error = "PROPAGATED" if answer in known.claimed.get(target, ()) else "ANSWER"
    elif at is None:
        error = "PREMISE"
    context = _context(story, (target,)) if at == 0 else ()
    right = {None: "so", "PREMISE": target}.get(error, story.values[target])
    explanation = f"answer: said {answer}, is {right}"
    return Verdict(error is None, error, explanation, context, (at,) if at else (), (last_reference,))


def _judge_step(step: str, number: int, story: Story, known: _Known, reference: dict[str, int]) -> Verdict:
    match = _STEP.match(step)
    parts = [parse(part) for part in match[2].split("=")] if match else [None]
    value = parts[-1]
    if match is None or not isinstance(value, Number) or any(part is None for part in parts):
        return Verdict(False, "FORMAT", "no value is stated")
    ways = [part for part in parts[:-1] if part is not None]
    subject = match[1] or _derived(ways, story, known)
    if subject not in story.values or any(name not in story.values for part in ways for name in names(part)):
        if match[1] is None or subject is None:
            return Verdict(False, "FORMAT", "no value is stated")
        return Verdict(False, "COMPREHENSION", f"{subject}: said {match[2]}, is not told")
    facts = [expression for name, expression in story.facts if name == subject]
    merged = {name for part in ways for name in _expanded(part, subject, story, known)}
    error = _error(ways, value.value, subject, story, known)
    fact = next((e for e in facts if ways and _matches_fact(ways[0], e, story, set(story.values))), None)
    aligned = sorted(reference[name] for name in merged | {subject} if name in reference)
    if fact is None and subject in reference:
        fact = _reference_fact(facts, known, story)
    fact = fact or facts[0]
    operands = names(fact)
    claim, right = match[2], "so"
    if error is not None:
        claim, right = _first_difference(claim, subject, fact, ways, story, known)
    verdict = Verdict(
        error is None,
        error,
        f"{subject}: said {claim}, is {right}",
        tuple(sorted({story.facts.index((subject, fact)) + 1, *_context(story, operands)})),
        tuple(sorted({known.established[name] for name in operands if known.established.get(name)})),
        tuple(aligned),
    )
    if error is None:
        known.established.setdefault(subject, number)
    else:
        known.claimed.setdefault(subject, set()).add(value.value)
    return verdict


def _first_difference(
    claim: str, subject: str, fact: Expression, ways: Sequence[Expression], story: Story, known: _Known
) -> tuple[str, str]:
    """A wrong step up to the end of its first wrong word, and the right word there, when `fact` is to be used."""
    established = {name: value for name, value in story.values.items() if name in known.established}
    facts = [fact]
    if isinstance(fact, Operation) and fact.operator in "+*":
        facts.append(Operation(fact.operator, fact.right, fact.left))
    value = subject if not ways and subject not in established else story.values[subject]
    furthest = (0, subject)
    for order in facts:  # of the two orders of the operands the step follows the one that agrees with it for longer
        right = [order if names(part) else with_values(order, established) for part in ways]
        furthest = max(furthest, _differs(claim, " = ".join(map(str, [*right, value]))) or (len(claim), subject))
    return claim[: furthest[0]], furthest[1]


def _differs(claim: str, right: str) -> tuple[int, str] | None:
    """The end of the first word of `claim` that differs from `right`, and the word of `right` in its place; None where
    the two are equal."""
    words, wanted = list(_WORD.finditer(claim)), _WORD.findall(right)
    for word, expected in zip(words, wanted, strict=False):
        if word[0] != expected:
            return word.end(), expected
    return None if len(words) == len(wanted) else (len(claim), wanted[-1])


def _reference_fact(facts, known: _Known, story: Story) -> Expression:
    """Of the facts about a name the first whose operands are established, else the first."""
    return next((e for e in facts if all(name in known.established for name in names(e))), facts[0])


def _context(story: Story, wanted: tuple[str, ...]) -> tuple[int, ...]:
    """Ids, from 1, of the sentences that give the count of a wanted name outright."""
    return tuple(
        i for i, (name, expression) in enumerate(story.facts, 1) if name in wanted and isinstance(expression, Number)
    )


def _derived(work: list[Expression], story: Story, known: _Known) -> str | None:
    """The name that an equation without a subject is about: the first one that one of its sides derives."""
    for name in story.values:
        if any(_matches_name(part, name, story, set(known.established)) for part in work):
            return name
    return None


def _error(work: list[Expression], value: int, subject: str, story: Story, known: _Known) -> str | None:
    established = set(known.established)
    if not work:  # a bare restatement
        if value != story.values[subject]:
            return "PROPAGATED" if value in known.claimed.get(subject, ()) else "NUMERIC"
        return None if subject in established else "PREMISE"
    for part in work:
        if _matches_name(part, subject, story, established):
            continue
        if _matches_name(part, subject, story, set(story.values)):
            wrong_before = any(name in known.claimed for name in _unestablished(part, subject, story, established))
            return "PROPAGATED" if wrong_before else "PREMISE"
        if _matches_claims(part, subject, story, known):
            return "PROPAGATED"
        symbolic = any(names(p) for p in work)
        return "OPERAND" if symbolic and not names(part) and evaluate(part, {}) is not None else "COMPREHENSION"
    return None if value == story.values[subject] else "NUMERIC"


def _matches_claims(part: Expression, subject: str, story: Story, known: _Known) -> bool:
    """Whether `part` would derive `subject` if earlier wrong claims were the truth."""
    for name, claims in known.claimed.items():
        for claim in claims:
            supposed = dataclasses.replace(story, values={**story.values, name: claim})
            if _matches_name(part, subject, supposed, set(story.values)):
                return True
    return False


def _unestablished(part: Expression, subject: str, story: Story, established: set[str]) -> set[str]:
    """Names whose counts `part` uses though nothing has established them."""
    operands = {n for name, e in story.facts if name == subject for n in names(e)}
    numbers = {v.value for v in leaves(part) if isinstance(v, Number)}
    return {n for n in operands - established if n in names(part) or story.values[n] in numbers}


def _expanded(part: Expression, subject: str, story: Story, known: _Known) -> set[str]:
    """Names that a merged expression derives on its way, beside its subject."""
    if len(list(leaves(part))) < 3:
        return set()
    derived = set()
    for name, expression in story.facts:
        if isinstance(expression, Operation) and name != subject:
            for inner in _inner(part):
                if _matches_fact(inner, expression, story, set(known.established)):
                    derived.add(name)
    return derived


def _inner(expression: Expression):
    if isinstance(expression, Operation):
        for child in (expression.left, expression.right):
            if isinstance(child, Operation):
                yield child
            yield from _inner(child)


def _matches_name(expression: Expression, name: str, story: Story, usable: set[str]) -> bool:
    """Whether `expression` derives `name` by one of its facts, from the counts of `usable` names."""
    return any(_matches_fact(expression, fact, story, usable) for n, fact in story.facts if n == name)


def _matches_operand(terms: list[Expression], operand: Expression, story: Story, usable: set[str]) -> bool:
    """Whether the sum of `terms` stands for `operand`: its number, its name, its value, or its own derivation."""
    if isinstance(operand, Name) and operand.name in usable and len(terms) == 1:
        return terms[0] in (operand, Number(story.values[operand.name])) or _derives(terms, operand.name, story, usable)
    if isinstance(operand, Number):
        return terms == [operand]
    return isinstance(operand, Name) and _derives(terms, operand.name, story, usable)


def _derives(terms: list[Expression], name: str, story: Story, usable: set[str]) -> bool:
    """Whether the sum of `terms` is one of the derivations of `name`."""
    return any(
        isinstance(fact, Operation) and _matches_terms(terms, fact, story, usable)
        for owner, fact in story.facts
        if owner == name
    )


def _matches_fact(expression: Expression, fact: Expression, story: Story, usable: set[str]) -> bool:
    if isinstance(fact, Operation):
        return _matches_terms(_terms(expression, "+"), fact, story, usable)
    return expression == fact


def _matches_terms(terms: list[Expression], fact: Operation, story: Story, usable: set[str]) -> bool:
    if len(terms) > 6:
        return False
    if fact.operator == "+":
        for chosen in range(1, 2 ** len(terms) - 1):
            some = [t for i, t in enumerate(terms) if chosen >> i & 1]
            others = [t for i, t in enumerate(terms) if not chosen >> i & 1]
            if _matches_operand(some, fact.left, story, usable) and _matches_operand(others, fact.right, story, usable):
                return True
        return False
    if len(terms) != 1 or not isinstance(terms[0], Operation) or terms[0].operator != fact.operator:
        return False
    term = terms[0]
    sides = [(term.left, term.right)] + ([(term.right, term.left)] if fact.operator == "*" else [])
    return any(_matches_operand(_terms(a, "+"), fact.left, story, usable) and b == fact.right for a, b in sides)


def _terms(expression: Expression, operator: str) -> list[Expression]:
    """The operands of a chain of `operator`, flattened."""
    if isinstance(expression, Operation) and expression.operator == operator:
        return _terms(expression.left, operator) + _terms(expression.right, operator)
    return [expression]
