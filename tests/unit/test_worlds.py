"""What holds of every world: it draws from its seed alone, holds out what it says, and knows its solutions right."""

import dataclasses
import random

import pytest

from spare_jax.evaluation.explanations import says_right
from spare_jax.runs.splits import WORLDS
from spare_jax.tasks.task import world_of

WORLD = pytest.mark.parametrize("world", [world_of(task) for task in WORLDS.values()], ids=list(WORLDS))


@WORLD
@pytest.mark.parametrize("kind", ["train", "lengths", "templates", "names"])
def test_every_reference_is_right(world, kind):
    distribution = {"train": world.train, **world.held_out}[kind]
    for problem, gold in world.generate(3, "check", 100, distribution):
        found = world.judge(problem, gold, gold.steps)
        assert all(verdict.correct for verdict in found), (problem, gold, found)
        assert [verdict.reference for verdict in found] == [(i,) for i in range(1, len(gold.steps) + 1)]
        assert len(gold.steps) - 1 in distribution.lengths
        assert WORLDS[world.name].extract_answer(gold.steps) == gold.answers[0]


@WORLD
def test_every_fact_as_a_step_is_right(world):
    for problem, gold in world.generate(8, "x", 100, dataclasses.replace(world.train, lengths=(1, 2, 3))):
        steps = world.every_fact(problem, gold, random.Random(problem.id))
        assert all(verdict.correct for verdict in world.judge(problem, gold, steps))
        assert steps[-1] == gold.steps[-1]


@WORLD
def test_other_solutions_are_right_and_differ(world):
    others = 0
    for problem, gold in world.generate(9, "x", 200):
        steps = world.another_solution(problem, gold, random.Random(problem.id))
        assert all(verdict.correct for verdict in world.judge(problem, gold, steps)), (problem, gold, steps)
        assert steps[-1] == gold.steps[-1]
        others += tuple(steps) != gold.steps
    assert others > 50


@WORLD
def test_steps_of_another_problem_are_hardly_ever_right(world):
    (first, gold), *others = world.generate(10, "x", 100, dataclasses.replace(world.train, lengths=(3,)))
    right = [verdict.correct for _, other in others for verdict in world.judge(first, gold, other.steps)]
    assert sum(right) < 0.1 * len(right)


@WORLD
def test_held_out_means_held_out(world):
    assert not set(world.train.names) & set(world.held_out["names"].names)
    assert not set(world.train.lengths) & set(world.held_out["lengths"].lengths)
    assert not set(world.train.templates) & set(world.held_out["templates"].templates)
    for kind, distribution in world.held_out.items():  # each differs from the train distribution in one thing
        assert dataclasses.replace(distribution, **{kind: getattr(world.train, kind)}) == world.train
    assert set(world.held_out_errors) < set(world.errors)


def texts(pairs):
    return [" ".join((*problem.context, problem.question)) for problem, _ in pairs]


@WORLD
def test_problems_follow_from_the_seed_alone(world):
    first = list(world.generate(5, "a", 50))
    assert first == list(world.generate(5, "a", 50))
    assert first[:20] == list(world.generate(5, "a", 20))
    for other in (world.generate(6, "a", 50), world.generate(5, "b", 50)):
        assert not set(texts(first)) & set(texts(other))


@WORLD
def test_no_text_is_in_two_splits(world):
    # One-step problems of few names and one template soon repeat themselves; the shared set must not let them.
    tight = dataclasses.replace(
        world.train, lengths=(1,), templates=(0,), names=("Ada", "Ben", "Cal"), max_distractors=0, second_route=0.0
    )
    seen: set[str] = set()
    train = texts(world.generate(0, "train", 12, tight, seen))
    test = texts(world.generate(0, "test", 12, tight, seen))
    assert len(set(train) | set(test)) == 24


@WORLD
def test_too_many_problems_are_an_error(world):
    tight = dataclasses.replace(
        world.train, lengths=(1,), templates=(0,), names=("Ada", "Ben"), max_distractors=0, second_route=0.0
    )
    with pytest.raises(ValueError, match="ask for fewer than 100000 problems"):
        list(world.generate(0, "train", 100_000, tight))


@WORLD
def test_an_explanation_gives_the_reason_for_its_label(world):
    """Right solutions, some without a step, some with another problem's: a right step has X or "so" as its Y."""
    drawn, seen = list(world.generate(11, "x", 100)), set()
    for i, (problem, gold) in enumerate(drawn):
        rng = random.Random(problem.id)
        whole = world.another_solution(problem, gold, rng)
        without, foreign = list(whole), list(whole)
        del without[rng.randrange(len(without))]
        foreign[rng.randrange(len(foreign))] = rng.choice(drawn[i - 1][1].steps)
        for steps in (whole, without, foreign):
            for verdict in world.judge(problem, gold, steps):
                says = says_right(verdict.explanation)
                assert says in (None, verdict.correct), (steps, verdict)
                seen.add(says)
    assert {True, False} <= seen
