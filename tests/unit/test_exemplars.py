"""Guidelines and exemplars of every task: well-formed, true, of both classes, and nobody else's."""

import dataclasses
import itertools
import json
import re
from collections import Counter
from fractions import Fraction
from math import comb, pi, sin, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_data import folder

from spare_jax.prompts import annotate
from spare_jax.runs.splits import WORLDS, task_of
from spare_jax.tasks import competition, math
from spare_jax.tasks.task import choose_exemplars, world_of

TASKS = {name: task_of(name) for name in ("gsm8k", "math", "musique", "stepgame", "sparp", *WORLDS)}
POOL, MATH_POOL = TASKS["gsm8k"].exemplars(), TASKS["math"].exemplars()
MATH_SUBJECTS = (
    "algebra",
    "counting",
    "geometry",
    "intermediate-algebra",
    "number-theory",
    "prealgebra",
    "precalculus",
)
WRITTEN = {name: task for name, task in TASKS.items() if task.world is None}  # their grades are ours, not a world's
EXEMPLARS = [pytest.param(task, e, id=e.id) for task in WRITTEN.values() for e in task.exemplars()]
GRADED = [pytest.param(task, e, id=f"{task.name}-{e.id}") for task in TASKS.values() for e in task.exemplars()]

_LATEX = (
    (r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))"),
    (r"\\sqrt\{([^{}]*)\}", r"((\1)**0.5)"),
    (r"\\binom\{([^{}]*)\}\{([^{}]*)\}", r"comb(\1,\2)"),
    (r"\\boxed\{([^{}]*)\}", r"\1"),
    (r"\\boxed\{([^{}]*\{[^{}]*\}[^{}]*)\}", r"\1"),
    (r"\\cdot|\\times", "*"),
    (r"\^\{?([0-9]+)\}?", r"**\1"),
    (r"\\%|\\,|\$", ""),
)
_VALUE = re.compile(r"(?:[0-9 ()/*+.,-]|comb\()+")


def equations(text: str) -> list[bool]:
    """For each "3 * (4 + 5) = 27" in one of our own texts, in plain signs or LaTeX or of pairs "1,0 + 0,1 = 1,1",
    whether it holds."""
    if re.search(r"\d,-?\d+ \+ ", text):
        ((left, right),) = [side.split(" = ") for side in re.findall(r"-?\d+,-?\d+ \+ .*? = -?\d+,-?\d+", text)]
        pairs = [tuple(map(int, pair.split(","))) for pair in left.split(" + ")]
        return [tuple(map(sum, zip(*pairs, strict=True))) == tuple(map(int, right.split(",")))]
    if "\\" in text or re.search(r"\$[^$]*[=^]", text):
        parts = re.findall(r"\$([^$]+)\$", re.sub(r"\\pmod\{\d+\}", "", text))
    else:
        found = re.findall(r"(?:[0-9(][0-9 ()/*+.-]*?[0-9)])(?: = \$?[0-9.]+(?![0-9]))+", text.replace("$", ""))
        parts = [part.rstrip(".") for part in found]
    holds = []
    for part in parts:
        values = [_value_of(side) for side in part.split("=")]
        holds += [abs(a - b) < 1e-9 for a, b in itertools.pairwise(values) if a is not None and b is not None]
    return holds


def _value_of(expression: str) -> float | None:
    """What an expression of digits and signs of our own exemplars comes to; None for one with letters."""
    for _ in range(3):  # inner braces first
        for pattern, plain in _LATEX:
            expression = re.sub(pattern, plain, expression)
    expression = re.sub(r"(?<=\d) ?\(", "*(", expression)
    if not _VALUE.fullmatch(expression.strip()):
        return None
    return eval(expression.strip(), {"__builtins__": {}, "comb": comb})


def test_equations_are_seen_in_every_dress():
    assert equations("So 3 * 4 = 12 and 2 + 2 = 5.") == [True, False]
    assert equations(r"$\frac{1}{2} \cdot \sqrt{16} = 2 = \boxed{3}$ and $x = 4$") == [True, False]
    assert equations(r"$\binom{5}{2} = 10$, $3^2 = 9$, $7^{2} = 48$") == [True, True, False]
    assert equations("A is left of B: 1,0 + -1,0 = 0,0.") == [True]
    assert equations("A is left of B: 1,0 + -1,0 + 0,1 = 0,0.") == [False]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_pool_holds_enough_of_every_kind(name):
    task, pool = TASKS[name], TASKS[name].exemplars()
    assert len(pool) == len({e.id for e in pool}) >= 6
    assert min(sum(e.is_correct for e in pool), sum(not e.is_correct for e in pool)) >= 3
    steps = [step for e in pool for step in e.judgements]
    assert sum(len(step.reference) > 1 for step in steps) / len(steps) > 0.05
    assert any(not step.reference for step in steps if step.label)  # a valid step that the reference lacks
    assert set(task.error_categories) == {error for step in steps for error in step.errors}
    # An error need not spoil what follows, nor the final answer.
    assert any(not e.is_correct and e.judgements[-1].label for e in pool)


def test_the_pools_of_gsm8k_and_math_are_as_large_as_they_should_be():
    steps = [step for e in POOL for step in e.judgements]
    assert len(POOL) >= 12
    assert sum(len(step.reference) > 1 for step in steps) / len(steps) > 0.15  # the paper has about 20 %
    subjects = Counter(next(s for s in MATH_SUBJECTS if e.id.startswith(f"math-exemplar-{s}")) for e in MATH_POOL)
    assert set(subjects) == set(MATH_SUBJECTS) and min(subjects.values()) == 2
    for subject in MATH_SUBJECTS:  # one of each kind per subject
        assert {e.is_correct for e in MATH_POOL if e.id.startswith(f"math-exemplar-{subject}")} == {True, False}


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_s_pool_is_graded_by_the_world_and_shows_no_held_out_error(name):
    world, pool = world_of(TASKS[name]), TASKS[name].exemplars()
    middling = dataclasses.replace(world.train, lengths=(2, 3, 4))
    assert len(pool) == len({e.id for e in pool}) >= 8
    assert min(sum(e.is_correct for e in pool), sum(not e.is_correct for e in pool)) >= 3
    errors = {error for e in pool for step in e.judgements for error in step.errors}
    assert len(errors) >= 3 and not errors & set(world.held_out_errors)
    drawn = {e.id: e.problem for e in pool}
    for problem, gold in world.generate(0, "exemplars", len(pool), middling):
        assert drawn[problem.id] == problem
        (e,) = [e for e in pool if e.id == problem.id]
        assert e.judgements == world.truth(problem, gold, e.candidate)


@pytest.mark.parametrize(("task", "exemplar"), GRADED)
def test_an_exemplar_is_well_formed(task, exemplar):
    assert len(exemplar.candidate) == len(exemplar.judgements)
    for number, step in enumerate(exemplar.judgements, 1):
        assert step.label is (not step.errors) and step.explanation
        assert set(step.errors) <= set(task.error_categories)
        assert all(1 <= i <= len(task.context_sentences(exemplar.problem)) for i in step.context)
        assert all(1 <= i <= len(exemplar.reference) for i in step.reference)
        assert all(1 <= i < number for i in step.steps)
        for ids in (step.context, step.steps, step.reference):
            assert list(ids) == sorted(set(ids))
    # What the annotator is shown as an answer is one that our own parser and grammar read whole.
    text = annotate.format_records(exemplar.judgements)
    parsed = annotate.parse(text, len(exemplar.candidate))
    assert tuple(parsed.records[i] for i in range(1, len(exemplar.candidate) + 1)) == exemplar.judgements
    assert (parsed.surplus, parsed.duplicates) == (0, 0)
    assert re.fullmatch(annotate.grammar(len(exemplar.candidate)).pattern, text)
    shown = annotate.instance(task, exemplar.problem, exemplar.reference, exemplar.candidate).split("\n")
    assert sum(line.startswith("[s") for line in shown) == len(exemplar.candidate)
    assert f"[s1] {exemplar.candidate[0]}" in shown
    gold = task.extract_answer(exemplar.reference)
    assert gold is not None
    assert task.answers_equal(gold, [gold])
    if task.world is None:  # a world calls a right answer wrong where nothing has established it
        right = task.answers_equal(task.extract_answer(exemplar.candidate), [gold])
        assert right is exemplar.judgements[-1].label


@pytest.mark.parametrize(("task", "exemplar"), EXEMPLARS)
def test_an_exemplar_says_what_is_so(task, exemplar):
    for text, step in zip(exemplar.candidate, exemplar.judgements, strict=True):
        # A wrong step's calculation is wrong exactly where the error is said to be numeric.
        assert all(equations(text)) is ("NUMERIC" not in step.errors)
        # Propagation is from a wrong step that is named; and whatever uses a wrong step is wrong.
        uses_wrong = any(not exemplar.judgements[i - 1].label for i in step.steps)
        assert ("PROPAGATED" in step.errors) is uses_wrong
        assert all(equations(step.explanation))
    assert all(all(equations(text)) for text in exemplar.reference)
    if task.name in ("gsm8k", "math", "stepgame"):
        assert any(equations(text) for text in (*exemplar.reference, *exemplar.candidate))


def test_the_answers_of_the_exemplars_of_math_are_found_by_counting_and_trying():
    """Every reference's answer, computed in another way than its text does."""
    digits = [p for p in itertools.permutations(range(1, 7), 4) if p[3] % 2 == 0 and p[0] % 2]
    gloves = list(itertools.combinations("LLLLLRRRR", 3))
    grid = [x / 4 for x in range(-400, 401)]
    angles = [i for i in range(12) if abs(2 * sin(i * pi / 6) ** 2 - sin(i * pi / 6)) < 1e-9]  # multiples of 30 degrees
    found = {
        "algebra-absolute-value": sum(x for x in grid if abs(2 * x - 7) == x + 4),
        "algebra-square-root": sum(x for x in grid if 3 * x + 10 >= 0 and sqrt(3 * x + 10) == x + 2),
        "counting-even": len(digits),
        "counting-gloves": Fraction(sum(g.count("L") == 2 for g in gloves), len(gloves)),
        "geometry-chord": 10 - max(d for d in range(11) if d * d + 8 * 8 <= 100),
        "geometry-altitude": Fraction(9 * 12, 15),
        "intermediate-algebra-minimum": min((10 - 2 * y) ** 2 + y * y for y in grid),
        "intermediate-algebra-roots": 1 * 4,  # x^3 - 8x^2 + 19x - 12 = (x - 1)(x - 3)(x - 4)
        "number-theory-power": 7**102 % 25,
        "number-theory-divisible": sum((n * n + n + 7) % 9 == 0 for n in range(1, 31)),
        "prealgebra-average": next(x for x in range(100) if 4 * 15 + x == 5 * 18),
        "prealgebra-rectangle": 100 - Fraction(100 * 24 * 15 * 3 * 6, 4 * 5 * 24 * 15),
        "precalculus-angle": Fraction(3 * 5 - 4 * 12, 5 * 13),
        "precalculus-equation": len(angles),
    }
    assert all((x - 1) * (x - 3) * (x - 4) == x**3 - 8 * x**2 + 19 * x - 12 for x in range(4))
    task = math.task()
    for e in MATH_POOL:
        stated = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", task.extract_answer(e.reference) or "")
        assert Fraction(stated) == Fraction(found.pop(e.id.removeprefix("math-exemplar-")))
    assert not found


def word_runs(*texts: str) -> set[tuple[str, ...]]:
    """All runs of eight words."""
    words = [re.findall(r"[a-z0-9]+", text.lower()) for text in texts]
    return {tuple(several[i : i + 8]) for several in words for i in range(len(several) - 7)}


def texts_of(value: Any) -> list[str]:
    """Every text inside a JSON value."""
    if isinstance(value, dict | list):
        return [text for item in (value.values() if isinstance(value, dict) else value) for text in texts_of(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("gsm8k", ("gsm8k/*.jsonl", "processbench/*.jsonl")),
        ("math", ("math/*.jsonl", "competition/*/*.jsonl", "processbench/*.jsonl")),
        ("musique", ("musique/*.json*",)),
        ("stepgame", ("stepgame/*.jsonl",)),
    ],
)
def test_no_exemplar_comes_from_the_files(name, patterns):
    """No run of eight words of the pool stands in a row of any file, the test splits above all."""
    pool = set()
    for e in TASKS[name].exemplars():
        pool |= word_runs(*e.problem.context, e.problem.question, *e.reference, *e.candidate)
    assert pool
    rows = 0
    for pattern in patterns:
        for path in folder(pattern.split("/")[0]).glob(pattern.partition("/")[2]):
            text = path.read_text()
            for row in json.loads(text) if text[0] == "[" else map(json.loads, text.splitlines()):
                rows += 1
                assert word_runs(*texts_of(row)) & pool == set()
    assert rows > 1000


@given(st.text(st.characters()), st.integers(0, len(POOL)))
def test_a_draw_depends_on_its_key_alone_and_holds_both_classes(key, k):
    chosen = choose_exemplars(POOL, k, key)
    assert chosen == choose_exemplars(POOL[::-1], k, key)
    assert len(chosen) == len({e.id for e in chosen}) == k
    if k >= 2:  # and still does when all but two are dropped from the end
        assert {e.is_correct for e in chosen[:2]} == {True, False}


def test_draws_differ_and_use_the_whole_pool():
    draws = [choose_exemplars(POOL, 5, f"0/p{i}") for i in range(400)]
    assert len(set(draws)) > 390
    counts = Counter(e.id for draw in draws for e in draw)
    assert len(counts) == len(POOL)
    # 5 of 12 each on average, 1 of 5 right ones and 1 of 7 wrong ones being sure: between a third and a half.
    assert all(0.3 < count / len(draws) < 0.55 for count in counts.values())
    first = Counter(draw[0].is_correct for draw in draws)
    assert min(first.values()) > 120  # neither class always leads


def test_a_pool_that_cannot_serve_is_an_error():
    with pytest.raises(ValueError, match="13 exemplars asked of a pool of 12"):
        choose_exemplars(POOL, 13, "")
    with pytest.raises(ValueError, match="all correct and one with an error"):
        choose_exemplars([e for e in POOL if e.is_correct], 2, "")


@pytest.mark.parametrize("name", TASKS)
def test_the_guidelines_name_every_error_and_key(name):
    task = TASKS[name]
    for word in (*task.error_categories, "CORRECT", "INCORRECT"):
        assert re.search(rf"\b{word}\b", task.guidelines)
    keys = ("student_step", "explanation", "context", "steps", "reference", "errors", "label")
    answer = task.guidelines[task.guidelines.index("Answer with a JSON list") :]
    places = [re.search(rf"\b{key}\b", answer).start() for key in keys]  # pyright: ignore[reportOptionalMemberAccess]
    assert places[0] < places[1] and places[-2] < places[-1] and len(set(places)) == len(keys)


def test_every_task_has_guidelines_and_exemplars_of_its_own():
    assert len({task.guidelines for task in TASKS.values()}) == len(TASKS)
    pools = [{e.problem.question for e in task.exemplars()} for task in TASKS.values()]
    assert len(set.union(*pools)) == sum(map(len, pools))
    for name in (*competition.NAMES, "math500"):
        assert task_of(name).guidelines == TASKS["math"].guidelines and task_of(name).exemplars() == MATH_POOL


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("k", [2, 5])
def test_what_is_drawn_holds_both_classes(name, k):
    pool = TASKS[name].exemplars()
    for i in range(50):
        assert {e.is_correct for e in choose_exemplars(pool, k, f"0/{i}")} == {True, False}
