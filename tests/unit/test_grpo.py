"""The GRPO loop: it learns, with one set of weights, and a run that is killed goes on in the same bits."""

import dataclasses
import itertools
import json
import signal

import grpo_runs
import jax
import numpy as np
import own_process
import pytest
from grpo_runs import rows, train
from test_training import assert_equal

from spare_jax.models import adapters
from spare_jax.records import Judgement, Solution, not_judged
from spare_jax.training import grpo, setup, watch
from spare_jax.training.advantages import REWARDS, Graded, advantages
from spare_jax.training.format_rules import FormatRules, Parts, check
from spare_jax.training.watch import Alarm

pytestmark = pytest.mark.optimized

OBJECTIVE = grpo_runs.losses.GRPOLoss(kl_weight=0.0)
NOTHING_FORBIDDEN = grpo_runs.format_rules.rules_of(grpo_runs.TASK, ())  # what is cut off earns something, too
ANY_FORM = FormatRules(lambda text: Parts((text,), 1, ""), boxed=False)


def short(name, groups):
    """A judge that pays solutions of twenty tokens or fewer."""
    return [[Judgement(s.id, "short", outcome=len(s.token_ids) <= 20) for s in solutions] for _, solutions in groups]


def odd(name, groups):
    """A judge that divides most groups."""
    return [[Judgement(s.id, "odd", outcome=sum(s.token_ids) % 2 == 1) for s in of] for _, of in groups]


@pytest.fixture(scope="module")
def steps_made():
    """The jitted train steps that the runs of this module make."""
    made = []

    def recorded(*args):
        made.append((found := setup.set_up(*args)).train_step)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "set_up", recorded)
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
    killed = own_process.run(grpo_runs.__file__, "kill", tmp_path, 3)
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
    train(
        tmp_path, judge=short, model=model, rules=ANY_FORM, iterations=6, prompts=4, samples=8,
        reward="process_aware", updates=2, checkpoint_every=6, watch_every=9,
        train=grpo_runs.dataclasses.replace(grpo_runs.CONFIG.train, learning_rate=1e-3),
    )  # fmt: skip
    paid = [row["reward"] for row in rows(tmp_path)]
    assert np.mean(paid[-2:]) > np.mean(paid[:2]) + 0.2


def failing(fails, judge=grpo_runs.right_answers):
    """`judge`, which fails on a solution where `fails` says so of the asking's name, and of its place there."""

    def asked(name, groups):
        places = itertools.count()
        return [
            [not_judged(s, "j", "the server is away") if fails(name, next(places)) else one for s, one in both]
            for both in (zip(of, said, strict=True) for (_, of), said in zip(groups, judge(name, groups), strict=True))
        ]

    return asked


UNJUDGED = Alarm("judge/failed", 0.5, patience=2, action="abort")


def test_what_was_not_judged_is_no_part_of_an_update(tmp_path):
    """Two thirds of the solutions are judged: the update is that of a run in which the others were never sampled."""
    changes = dict(iterations=3, loss=OBJECTIVE, reward="process_aware", rules=NOTHING_FORBIDDEN)
    third = failing(lambda name, place: place % 3 == 1, odd)
    result = train(tmp_path / "failing", judge=third, alarms={"any": UNJUDGED}, **changes)
    assert (result.judged, result.failed, result.stopped_by) == (3 * 5, 3 * 3, "")
    for row in rows(tmp_path / "failing"):
        assert (row["judged"], row["judge/failed"], row["judge/no_verdict"]) == (5, 3 / 8, 0.0)
    sample, pack, kept = grpo.sample, grpo.batches.pack_samples, []

    def sampled(*arguments):
        groups, places = sample(*arguments), itertools.count()
        if arguments[2].endswith("held_out"):
            return groups
        return [[one for one in group if next(places) % 3 != 1] for group in groups]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "sample", sampled)
        patch.setattr(grpo.batches, "pack_samples", lambda made, *rest: kept.append(len(made)) or pack(made, *rest))
        alone = train(tmp_path / "alone", judge=odd, **changes)
    assert kept == [5, 5, 5]
    assert_equal(result.model, alone.model)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), result.model, grpo_runs.start().model)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_a_judge_that_is_down_moves_nothing_and_ends_in_an_error(tmp_path):
    down = failing(lambda name, place: True)
    with pytest.raises(ValueError, match=r"judge/failed was above 0.5 in 2 iterations in a row .*the server is away"):
        train(tmp_path, judge=down, alarms={"any": UNJUDGED}, checkpoint_every=1)
    first, second = rows(tmp_path)
    assert first["judge/failed"] == second["judge/failed"] == first["flat"] == 1.0 and first["judged"] == 0
    unknown = ("reward", "reward_std", "correct", "void", "loss", "grad_norm", "kl", "held_out/disagreement")
    assert [first[name] for name in unknown] == [None] * len(unknown)
    assert first["held_out/missing"] == 1.0 and first["held_out/correct"] is not None and first["tokens"] > 0
    assert 1.0 > first["valid"] >= 0.0  # the form needs no judge
    assert not any(step.name not in ("0",) for step in (tmp_path / "latest").iterdir() if step.name.isdigit())


def test_where_not_one_solution_was_judged_nothing_is_returned(tmp_path):
    """Too few iterations for an alarm, or none set."""
    down = failing(lambda name, place: True)
    with pytest.raises(ValueError, match=r"not one of 8 solutions was judged, .*\(the server is away\): mend"):
        train(tmp_path / "one", judge=down, iterations=1)
    with pytest.raises(ValueError, match=r"not one of 16 solutions was judged"):
        train(tmp_path / "stopped", judge=down, alarms={"any": Alarm("tokens", 0.0, patience=2)})


def test_a_run_whose_judge_came_back_ends_as_one_whose_judge_was_never_away(unbroken, tmp_path):
    directory, result, _ = unbroken
    away = failing(lambda name, place: "000002" <= name < "000004")
    with pytest.raises(ValueError, match="judge/failed was above"):
        train(tmp_path, judge=away, alarms={"any": UNJUDGED})
    assert len(rows(tmp_path)) == 4
    asked = []
    again = failing(lambda name, place: asked.append(name))
    assert_equal(train(tmp_path, judge=again, alarms={"any": UNJUDGED}).model, result.model)
    assert asked[0].startswith("000002")  # the checkpoint before the first failure is kept: nothing doubts its weights
    assert (tmp_path / "steps.jsonl").read_bytes() == (directory / "steps.jsonl").read_bytes()


def test_a_policy_that_is_not_finite_never_trains(tmp_path):
    model = grpo_runs.start().model
    model.final_norm.set_value(np.nan * model.final_norm.get_value())
    with pytest.raises(ValueError, match=r"grpo: no solutions of 000000/.*not finite"):
        train(tmp_path, model=model, iterations=1)


def test_an_alarm_stops_the_run_where_all_was_well(tmp_path):
    always = Alarm("tokens", 0.0, patience=2)
    result = train(tmp_path, alarms={"any": always}, checkpoint_every=1)
    assert result.stopped_by == "tokens" and result.iterations == 2 and result.rollbacks == 0
    assert_equal(result.model, grpo_runs.start().model)


def test_an_alarm_goes_back_to_before_what_set_it_off(tmp_path):
    """The weights that disagree with the truth at iteration 4 have been saved by then: they are not what is taken."""

    def judge(name, groups):
        if not name.endswith("held_out"):  # something to learn from
            return odd(name, groups)
        said = grpo_runs.right_answers(name, groups)
        if name != "000004-held_out":
            return said
        return [[grpo_runs.dataclasses.replace(one, outcome=not one.outcome) for one in group] for group in said]

    alarm = Alarm("held_out/disagreement", 0.5)
    result = train(tmp_path / "alarm", judge=judge, rules=NOTHING_FORBIDDEN, alarms={"any": alarm})
    assert result.stopped_by == "held_out/disagreement" and result.iterations == 5
    before = train(tmp_path / "before", judge=judge, rules=NOTHING_FORBIDDEN, iterations=2).model
    assert_equal(result.model, before)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, grpo_runs.start().model)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_an_alarm_rolls_back_and_goes_on_with_other_problems(tmp_path):
    always = Alarm("tokens", 0.0, action="roll_back")
    result = train(tmp_path, alarms={"any": always}, iterations=3)
    assert result.rollbacks == 3 and result.iterations == 3 and not result.stopped_by
    assert_equal(result.model, grpo_runs.start().model)
    assert len({row["entropy"] for row in rows(tmp_path)}) == 3
    assert_equal(train(tmp_path, alarms={"any": always}, iterations=3).model, result.model)


def test_adapters_learn_over_a_base_that_is_the_reference(tmp_path):
    config = adapters.AdapterConfig(rank=2, dropout=0.0)
    model = adapters.adapt(grpo_runs.start().model, config, jax.random.key(0))
    result = train(tmp_path, model=model, judge=short, iterations=2, samples=8, prompts=4, updates=2)
    before, after = (adapters.split(of) for of in (model, result.model))
    assert_equal(before[1], after[1])
    assert any((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, (before[0], after[0])), strict=True))
    assert rows(tmp_path)[0]["kl"] > 0 and max(row["engine_gap"] for row in rows(tmp_path)) < 5e-6


def test_four_devices_do_what_one_does(tmp_path):
    result = own_process.run(grpo_runs.__file__, "meshes", tmp_path, devices=4)
    assert result.returncode == 0, result.stderr[-3000:]
    one, four = (next(iter(json.loads(line).values())) for line in result.stdout.splitlines()[-2:])
    for ours, theirs in zip(four, one, strict=True):
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
    with pytest.raises(ValueError, match="action='mail', patience=1: use stop, roll_back or abort"):
        Alarm("tokens", 0.0, action="mail")


def test_alarms_count_iterations_in_a_row():
    high, low = Alarm("steps", 5.0, patience=2), Alarm("steps", 3.0, below=True)
    assert [high.count({"steps": v}, 1) for v in (5.0, 5.1)] == [0, 2]
    assert [low.count({"steps": v}, 0) for v in (3.0, 2.9)] == [0, 1]
    assert high.count({}, 1) == high.count({"steps": None}, 1) == 1  # not measured: nothing changes
    alarms = watch.Alarms([high, low])
    assert [alarms.hear({"steps": v}) for v in (4.0, 5.1, 5.0, 5.1)] == [[]] * 4 and alarms.counting
    assert alarms.hear({"steps": 6.0}) == [high] and alarms.hear({"steps": 2.0}) == [low]
    alarms.reset()
    assert not alarms.counting and alarms.hear({"steps": 5.1}) == []
    aside = watch.Alarms([dataclasses.replace(high, action="abort")])
    assert aside.hear({"steps": 6.0}) == [] and aside.counting and not aside.doubts_policy and alarms.doubts_policy
    assert watch.Alarms([high]).hear({"steps": None}) == []  # known, with nothing to measure it on


def test_an_alarm_that_nothing_can_set_off_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"alarm on 'stepz': .* choose among reward, .*held_out/"):
        train(tmp_path, alarms={"any": Alarm("stepz", 1.0)}, iterations=1)
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


def test_means_are_over_what_was_judged_with_the_number_beside():
    def solution(outcome, failure="", tokens=4):
        made = Solution("p/0", "p", ("s",), "8", "stop", (1,) * tokens, ((0, 1),))
        judgement = Judgement("p/0", "j", outcome=outcome, failure=failure, generated_tokens=3)
        return Graded(made, judgement, check(ANY_FORM, "text"))

    lost = solution(None, "cut off", tokens=10)
    groups = [[solution(True), lost, solution(False)], [solution(None), lost, lost], [lost, lost, lost]]
    found = [advantages(REWARDS["process_aware"], group) for group in groups]
    seen = watch.of_solutions(groups, found, reads_steps=False)
    assert (seen["judged"], seen["judge/failed"]) == (3, 6 / 9)
    assert (seen["reward"], seen["correct"], seen["void"], seen["judge/no_verdict"]) == (1 / 3,) * 4
    assert seen["reward_std"] == 0.5 and seen["flat"] == 2 / 3  # one group has two to compare
    assert (seen["tokens"], seen["judge_tokens"], seen["valid"]) == (72 / 9, 3.0, 1.0)  # what was spent was spent
    nobody = watch.of_solutions(groups[2:], found[2:], reads_steps=False)
    assert (nobody["judged"], nobody["judge/failed"], nobody["flat"]) == (0, 1.0, 1.0)
    assert {name for name, value in nobody.items() if value is None} == {
        "reward", "reward_std", "correct", "void", "judge/no_verdict", "judge/step_mismatch",
    }  # fmt: skip
    assert "NaN" not in json.dumps(nobody) and nobody.keys() == seen.keys()


def test_a_course_passes_over_what_was_not_measured():
    rows = [
        {"step": 1, "tokens": 2.0, "judge_tokens": 1.0, "judge/failed": 0.0, "reward": 0.5, "kl": None},
        {"step": 2, "tokens": 4.0, "judge_tokens": 1.0, "judge/failed": 1.0, "reward": None, "kl": None},
    ]
    course = watch.course(rows, solutions=4)
    assert course["failed"] == 0.5 and course["tokens"] == 24.0
    assert course["first"] == {"tokens": 3.0, "judge_tokens": 1.0, "judge/failed": 0.5, "reward": 0.5, "kl": None}


def test_disagreement_is_of_the_reward_with_the_truth():
    found = watch.disagreement([True, True, False, False], [True, False, True, False])
    known = {"held_out/correct": 0.5, "held_out/disagreement": 0.5, "held_out/false_reward": 0.25}
    assert found == known | {"held_out/missing": 0.0}
    missing = watch.disagreement([True, True, False, False, None, True], [True, False, True, False, True, None])
    assert missing == known | {"held_out/correct": 0.6, "held_out/missing": 1 / 3}
    nothing = watch.disagreement([None, True], [True, None])
    assert nothing == dict.fromkeys(known) | {"held_out/correct": 1.0, "held_out/missing": 1.0}


def test_a_course_counts_what_was_generated_and_means_over_its_ends():
    rows = [{"step": i + 1, "tokens": 10.0 + i, "judge_tokens": 100.0, "steps": float(i)} for i in range(12)]
    rows[2] |= {"held_out/correct": 0.5, "held_out/disagreement": 0.25, "held_out/false_reward": 0.125}
    course = watch.course(rows, solutions=4)
    assert (course["tokens"], course["judge_tokens"]) == (4 * 186.0, 4 * 1200.0)
    assert course["first"] == {"tokens": 14.5, "judge_tokens": 100.0, "steps": 4.5}
    assert course["last"]["steps"] == 6.5
    seen = {"correct": 0.5, "disagreement": 0.25, "false_reward": 0.125}
    assert course["held_out"] == [{"step": 3, "tokens": 4 * 33.0, "judge_tokens": 1200.0} | seen]
