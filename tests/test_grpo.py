"""The GRPO loop: it learns, with one set of weights, and a run that is killed goes on in the same bits."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import grpo_runs
import jax
import numpy as np
import pytest
from grpo_runs import rows, train
from test_training import assert_equal

from spare_jax.models import adapters
from spare_jax.records import Judgement, Solution
from spare_jax.training import loop, watch
from spare_jax.training.advantages import REWARDS, Graded, advantages
from spare_jax.training.format_rules import FormatRules, Parts, check
from spare_jax.training.watch import Alarm

SCRIPT = pathlib.Path(__file__).parent / "grpo_runs.py"


def short(name, groups):
    """A judge that pays solutions of twenty tokens or fewer."""
    return [[Judgement(s.id, "short", outcome=len(s.token_ids) <= 20) for s in solutions] for _, solutions in groups]


def script(*arguments, **environment):
    path = os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def steps_made():
    """The jitted train steps that the runs of this module make."""
    made, make = [], loop.make_train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_step", lambda *args: made.append(make(*args)) or made[-1])
        yield made


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, steps_made):
    """A run of CONFIG: its directory, its result, its train step."""
    directory = tmp_path_factory.mktemp("unbroken")
    return directory, train(directory), steps_made[-1]


def test_the_engine_samples_with_the_weights_that_are_trained(unbroken):
    directory, result, step = unbroken
    found = rows(directory)
    assert len(found) == result.iterations == 5 and not result.stopped_by
    assert max(row["grad_norm"] for row in found) > 0.1 and found[-1]["kl"] > 1e-6  # it has moved
    assert max(row["engine_gap"] for row in found) < 5e-6
    assert step._cache_size() == 1
    assert ["held_out/disagreement" in row for row in found] == [True, False, True, False, True]
    assert {row["held_out/disagreement"] for row in found if "held_out/disagreement" in row} == {0.0}


def test_killed_and_resumed_equals_unbroken_bit_for_bit(unbroken, tmp_path):
    directory, result, _ = unbroken
    killed = script("kill", tmp_path, 3)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert len(rows(tmp_path)) == 3
    resumed = train(tmp_path)
    assert_equal(resumed.model, result.model)
    assert (tmp_path / "steps.jsonl").read_bytes() == (directory / "steps.jsonl").read_bytes()


def test_a_finished_run_is_read_and_not_run_again(unbroken):
    directory, result, _ = unbroken

    def never(name, groups):
        raise AssertionError("a finished run asks nobody")

    assert_equal(train(directory, judge=never).model, result.model)


def test_the_order_of_the_problems_does_not_matter(unbroken, tmp_path):
    directory, _, _ = unbroken
    train(tmp_path, problems=grpo_runs.PROBLEMS[::-1], iterations=3)
    for ours, theirs in zip(rows(tmp_path), rows(directory), strict=False):
        assert {k: v for k, v in ours.items() if "held_out" not in k} == {
            k: v for k, v in theirs.items() if "held_out" not in k
        }


def test_a_policy_learns_what_it_is_paid_for(tmp_path):
    model = grpo_runs.start().model
    model.final_norm.set_value(0.6 * model.final_norm.get_value())  # less sure of itself: groups differ within
    any_form = FormatRules(lambda text: Parts((text,), 1, ""), boxed=False)
    train(
        tmp_path, judge=short, model=model, rules=any_form, iterations=6, prompts=4, samples=8,
        reward="process_aware", updates=2, checkpoint_every=6, watch_every=9,
        train=grpo_runs.dataclasses.replace(grpo_runs.CONFIG.train, learning_rate=1e-3),
    )  # fmt: skip
    paid = [row["reward"] for row in rows(tmp_path)]
    assert np.mean(paid[-2:]) > np.mean(paid[:2]) + 0.2


def test_a_reward_nobody_can_give_moves_nothing_and_is_counted(tmp_path):
    def silent(name, groups):
        return [[Judgement(s.id, "silent", failure="no room") for s in solutions] for _, solutions in groups]

    result = train(tmp_path, judge=silent, iterations=1, loss=grpo_runs.losses.GRPOLoss(kl_weight=0.0))
    (row,) = rows(tmp_path)
    assert row["judge/no_verdict"] == row["flat"] == 1 and row["reward"] == row["grad_norm"] == 0
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), result.model, grpo_runs.start().model)
    assert max(jax.tree.leaves(moved)) < 1e-5  # but for weight decay


def test_an_alarm_stops_the_run_where_all_was_well(tmp_path):
    always = Alarm("tokens", 0.0, patience=2)
    result = train(tmp_path, alarms=(always,), checkpoint_every=1)
    assert result.stopped_by == "tokens" and result.iterations == 2 and result.rollbacks == 0
    assert_equal(result.model, grpo_runs.start().model)


def test_an_alarm_goes_back_to_before_what_set_it_off(tmp_path):
    """The weights that disagree with the truth at iteration 4 have been saved by then: they are not what is taken."""

    def judge(name, groups):
        if not name.endswith("held_out"):  # something to learn from
            return [[Judgement(s.id, "odd", outcome=sum(s.token_ids) % 2 == 1) for s in of] for _, of in groups]
        said = grpo_runs.right_answers(name, groups)
        if name != "000004-held_out":
            return said
        return [[grpo_runs.dataclasses.replace(one, outcome=not one.outcome) for one in group] for group in said]

    rules = grpo_runs.format_rules.rules_of(grpo_runs.TASK, ())  # what is cut off earns something, too
    alarm = Alarm("held_out/disagreement", 0.5)
    result = train(tmp_path / "alarm", judge=judge, rules=rules, alarms=(alarm,))
    assert result.stopped_by == "held_out/disagreement" and result.iterations == 5
    before = train(tmp_path / "before", judge=judge, rules=rules, iterations=2).model
    assert_equal(result.model, before)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, grpo_runs.start().model)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_an_alarm_rolls_back_and_goes_on_with_other_problems(tmp_path):
    always = Alarm("tokens", 0.0, action="roll_back")
    result = train(tmp_path, alarms=(always,), iterations=3)
    assert result.rollbacks == 3 and result.iterations == 3 and not result.stopped_by
    assert_equal(result.model, grpo_runs.start().model)
    assert len({row["entropy"] for row in rows(tmp_path)}) == 3
    assert_equal(train(tmp_path, alarms=(always,), iterations=3).model, result.model)


def test_adapters_learn_over_a_base_that_is_the_reference(tmp_path):
    config = adapters.AdapterConfig(rank=2, dropout=0.0)
    model = adapters.adapt(grpo_runs.start().model, config, jax.random.key(0))
    result = train(tmp_path, model=model, judge=short, iterations=2, samples=8, prompts=4, updates=2)
    before, after = (adapters.split(of) for of in (model, result.model))
    assert_equal(before[1], after[1])
    assert any((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, (before[0], after[0])), strict=True))
    assert rows(tmp_path)[0]["kl"] > 0 and max(row["engine_gap"] for row in rows(tmp_path)) < 5e-6


def test_eight_devices_do_what_one_does(tmp_path):
    result = script("meshes", tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    assert result.returncode == 0, result.stderr[-3000:]
    one, eight = (next(iter(json.loads(line).values())) for line in result.stdout.splitlines()[-2:])
    for ours, theirs in zip(eight, one, strict=True):
        assert ours.keys() == theirs.keys() and ours["engine_gap"] < 5e-6
        assert ours["tokens"] == theirs["tokens"] and ours["reward"] == theirs["reward"]
        np.testing.assert_allclose(ours["entropy"], theirs["entropy"], rtol=1e-4)
        np.testing.assert_allclose(ours["grad_norm"], theirs["grad_norm"], rtol=1e-3, atol=1e-6)


def test_settings_that_cannot_be_are_told():
    with pytest.raises(ValueError, match="reward='gold' is unknown: choose among process_aware"):
        grpo_runs.dataclasses.replace(grpo_runs.CONFIG, reward="gold")
    with pytest.raises(ValueError, match="baseline='mean' is unknown: choose among grpo, dr_grpo, leave_one_out"):
        grpo_runs.dataclasses.replace(grpo_runs.CONFIG, baseline="mean")
    with pytest.raises(ValueError, match="samples=0: set it to 1 or more"):
        grpo_runs.dataclasses.replace(grpo_runs.CONFIG, samples=0)
    with pytest.raises(ValueError, match="action='mail', patience=1: use stop or roll_back"):
        Alarm("tokens", 0.0, action="mail")


def test_alarms_count_iterations_in_a_row():
    high, low = Alarm("steps", 5.0, patience=2), Alarm("steps", 3.0, below=True)
    assert [high.count({"steps": v}, 1) for v in (5.0, 5.1)] == [0, 2]
    assert [low.count({"steps": v}, 0) for v in (3.0, 2.9)] == [0, 1]
    assert high.count({}, 1) == 1  # not measured: nothing changes
    alarms = watch.Alarms([high, low])
    assert [alarms.hear({"steps": v}) for v in (4.0, 5.1, 5.0, 5.1)] == [[]] * 4 and alarms.counting
    assert alarms.hear({"steps": 6.0}) == [high] and alarms.hear({"steps": 2.0}) == [low]
    alarms.reset()
    assert not alarms.counting and alarms.hear({"steps": 5.1}) == []


def test_an_alarm_that_nothing_can_set_off_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"alarm on 'stepz': .* choose among reward, .*held_out/"):
        train(tmp_path, alarms=(Alarm("stepz", 1.0),), iterations=1)
    assert watch.Alarms([Alarm("held_out/false_reward", 0.5)]).hear({"reward": 0.0}) == []  # waits for such problems


def test_held_out_problems_are_paid_as_the_others_are(tmp_path):
    """A judge that likes everything is believed where the form is right, and a vote is one of a group."""
    asked = {}

    def kind(name, groups):
        asked[name] = [len(solutions) for _, solutions in groups]
        return [[Judgement(s.id, "kind", outcome=True) for s in solutions] for _, solutions in groups]

    formed, formless = (FormatRules(lambda text, n=n: Parts(("a",), n, ""), boxed=False) for n in (1, 2))
    for name, rules, reward in (("formed", formed, "process_aware"), ("formless", formless, "majority_vote")):
        train(tmp_path / name, judge=kind, rules=rules, reward=reward, iterations=1)
        assert asked["000000-held_out"] == [4 if reward == "majority_vote" else 1] * 2
        (row,) = rows(tmp_path / name)
        paid_wrongly = (1 - row["held_out/correct"]) * (rules is formed)
        assert row["held_out/false_reward"] == paid_wrongly
        assert row["held_out/disagreement"] == (paid_wrongly if rules is formed else row["held_out/correct"])


def test_what_is_watched_is_counted_over_all_solutions_of_an_iteration():
    boxed = FormatRules(lambda text: Parts((text,), 1, ""), boxed=True, forbidden=("no_box", "several_boxes"))

    def solution(text, tokens, steps, outcome, **judgement):
        made = Solution("p/0", "p", ("s",) * steps, "8", "stop", (1,) * tokens, ((0, 1),) * steps)
        return Graded(made, Judgement("p/0", "j", outcome=outcome, **judgement), check(boxed, text))

    groups = [
        [solution("\\boxed{1}", 8, 2, True, generated_tokens=5), solution("\\boxed{1} \\boxed{2}", 4, 1, None)],
        [solution("", 6, 2, True), solution("Problem 2: \\boxed{1}", 6, 2, False)],
    ]
    found = [advantages(REWARDS["process_aware"], group) for group in groups]
    seen = watch.of_solutions(groups, found, reads_steps=False)
    named = {
        "format/several_boxes": 0.25,
        "format/no_box": 0.25,
        "format/second_problem": 0.25,
        "judge/no_verdict": 0.25,
    }
    assert {name: rate for name, rate in seen.items() if "/" in name and rate} == named
    assert (seen["reward"], seen["reward_std"], seen["correct"], seen["flat"]) == (0.25, 0.25, 0.5, 0.5)
    assert (seen["valid"], seen["void"]) == (0.5, 0.5)
    assert (seen["steps"], seen["tokens"], seen["tokens_per_step"]) == (7 / 4, 6.0, 24 / 7)
    assert (seen["boxes"], seen["judge_tokens"]) == (1.0, 1.25)


def test_disagreement_is_of_the_reward_with_the_truth():
    found = watch.disagreement([True, True, False, False], [True, False, True, False])
    assert found == {"held_out/correct": 0.5, "held_out/disagreement": 0.5, "held_out/false_reward": 0.25}


def test_a_course_counts_what_was_generated_and_means_over_its_ends():
    rows = [{"step": i + 1, "tokens": 10.0 + i, "judge_tokens": 100.0, "steps": float(i)} for i in range(5)]
    rows[2] |= {"held_out/correct": 0.5, "held_out/disagreement": 0.25, "held_out/false_reward": 0.125}
    course = watch.course(rows, solutions=4, span=2)
    assert (course["tokens"], course["judge_tokens"]) == (4 * 60.0, 4 * 500.0)
    assert course["first"] == {"tokens": 10.5, "judge_tokens": 100.0, "steps": 0.5}
    assert course["last"]["steps"] == 3.5
    seen = {"correct": 0.5, "disagreement": 0.25, "false_reward": 0.125}
    assert course["held_out"] == [{"step": 3, "tokens": 4 * 33.0, "judge_tokens": 1200.0} | seen]
