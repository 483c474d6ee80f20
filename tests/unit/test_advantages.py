"""The rewards of stage III on examples worked by hand, and what holds of all of them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spare_jax.records import Judgement, Solution, StepJudgement
from spare_jax.training import advantages as adv
from spare_jax.training.advantages import REWARDS, Graded, advantages
from spare_jax.training.format_rules import FormatCheck

# Two tokens a step, a line end behind each step but the last, and the end of the text: "ab\nab\nab$" for three steps.


def graded(verdicts, correct=True, valid=True, name="p/0", judged=None, **said):
    """A solution with a step per verdict; `judged` are the judge's where they are others."""
    steps = len(verdicts)
    spans = tuple((3 * i, 3 * i + 2) for i in range(steps))
    solution = Solution(name, "p", ("s",) * steps, "8", "stop", tuple(range(3 * steps)), spans)
    labels = verdicts if judged is None else judged
    judgement = Judgement(name, "j", tuple(StepJudgement(label=label) for label in labels), outcome=correct, **said)
    return Graded(solution, judgement, FormatCheck((), valid, boxes=0))


RIGHT, WRONG = graded([True, True]), graded([True, False], correct=False)
FREE = {name: dataclasses.replace(reward, least_steps=None, most_steps=None) for name, reward in REWARDS.items()}
UP, DOWN = 0.5 / (np.sqrt(0.5) + 1e-4), -0.5 / (np.sqrt(0.5) + 1e-4)  # rewards 1 and 0: mean .5, std sqrt(.5)


def tokens(name, *group, baseline="grpo", rewards=FREE):
    return [of.tolist() for of in advantages(rewards[name], group, baseline).tokens]


def close(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_process_aware_is_the_same_on_all_tokens():
    close(tokens("process_aware", RIGHT, WRONG), [[UP] * 6, [DOWN] * 6])
    two_of_three = advantages(REWARDS["process_aware"], [RIGHT, RIGHT, WRONG])
    np.testing.assert_array_equal(two_of_three.rewards, [1, 1, 0])
    std = np.sqrt(1 / 3)  # (1/9 + 1/9 + 4/9) / 2
    np.testing.assert_allclose(
        [of[0] for of in two_of_three.tokens], np.array([1, 1, -2]) / 3 / (std + 1e-4), rtol=1e-6
    )


def test_step_augmented_counts_right_steps():
    found = advantages(REWARDS["step_augmented"], [RIGHT, WRONG, graded([True, False, False, True], correct=True)])
    np.testing.assert_allclose(found.rewards, [1.0, 0.2, 0.8])


def test_sound_pays_for_no_answer_beside_a_wrong_step():
    lucky, silent = graded([False, True]), graded([True, True], correct=False)
    found = advantages(REWARDS["sound"], [RIGHT, lucky, silent, WRONG])
    np.testing.assert_array_equal(found.rewards, [1, 0, 0, 0])
    assert found.void == (False,) * 4
    np.testing.assert_allclose([of[0] for of in found.tokens], np.array([3, -1, -1, -1]) / 4 / (0.5 + 1e-4), rtol=1e-6)


def test_selective_keeps_what_agrees_with_the_steps():
    close(tokens("selective", RIGHT, WRONG), [[UP] * 6, [0, 0, 0, DOWN, DOWN, DOWN]])
    lucky = graded([False, True])  # the right answer with a wrong first step
    close(tokens("selective", lucky, WRONG), [[0, 0, 0, UP, UP, UP], [0, 0, 0, DOWN, DOWN, DOWN]])
    close(tokens("half_discount", lucky, WRONG), [[UP / 2] * 3 + [UP] * 3, [DOWN / 2] * 3 + [DOWN] * 3])


def test_global_steps_by_hand():
    # Steps +1/2 +1/2 of the first, +1/2 -1/2 of the second: mean 1/4, std sqrt(3 * 1/16 + 9/16) / sqrt(3) = 1/2.
    high, low = 0.25 / 0.5001, -0.75 / 0.5001
    first = [0.8 * UP + 0.2 * step for step in [2 * high, 2 * high, high, high, high, 0]]
    second = [0.8 * DOWN + 0.2 * step for step in [high + low, high + low, low, low, low, 0]]
    close(tokens("global", RIGHT, WRONG), [first, second])


def test_controls_are_the_outcome_of_somebody_else():
    for name in ("rlvr", "random", "majority_vote"):
        close(tokens(name, RIGHT, WRONG), [[UP] * 6, [DOWN] * 6])
    assert [REWARDS[name].verdicts for name in ("rlvr", "random", "majority_vote")] == ["gold", "coin", "vote"]


def test_baselines():
    close(tokens("process_aware", RIGHT, RIGHT, WRONG, baseline="dr_grpo"), [[1 / 3] * 6, [1 / 3] * 6, [-2 / 3] * 6])
    close(tokens("process_aware", RIGHT, RIGHT, WRONG, baseline="leave_one_out"), [[0.5] * 6, [0.5] * 6, [-1] * 6])


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize(
    "broken",
    [
        graded([True, True], valid=False),
        graded([True, True], correct=None),
        graded([]),
    ],
)
def test_a_void_solution_earns_nothing_and_keeps_its_advantage_on_all_tokens(name, broken):
    found = advantages(FREE[name], [RIGHT, broken])
    assert found.void == (False, True) and found.rewards.tolist() == [1, 0]
    scale = 0.8 if name.startswith("global") else 1
    np.testing.assert_allclose(found.tokens[1], scale * DOWN, rtol=1e-6)


@pytest.mark.parametrize("judged", [[True], [True] * 3, [True, None], []])
@pytest.mark.parametrize("name", REWARDS)
def test_another_number_of_verdicts_than_steps_is_void_where_steps_are_read(name, judged):
    reads_steps, odd = REWARDS[name].reads_steps, graded([True, True], judged=judged)
    assert adv.judge_fault(odd, reads_steps) == ("step_mismatch" if reads_steps else None)
    assert advantages(FREE[name], [odd, WRONG]).void[0] is reads_steps


def test_verdicts_on_steps_that_do_not_exist_are_a_mismatch():
    assert adv.judge_fault(graded([True], surplus=1), reads_steps=True) == "step_mismatch"
    assert adv.judge_fault(graded([True], correct=None), reads_steps=True) == "no_verdict"


@pytest.mark.parametrize(
    "name, least, most", [("selective", 4, 20), ("half_discount", 4, 20), ("global_with_penalty", 3, 20)]
)
def test_limits_on_the_number_of_steps(name, least, most):
    group = [graded([True] * n) for n in (least - 1, least, most, most + 1)]
    found = advantages(REWARDS[name], group)
    assert found.void == (True, False, False, True) and found.rewards.tolist() == [0, 1, 1, 0]
    assert (found.tokens[0] < 0).all() and (found.tokens[3] < 0).all()  # though every step is right
    assert all(REWARDS[other].least_steps is None for other in ("process_aware", "step_augmented", "global", "rlvr"))


VERDICTS = st.lists(st.booleans(), min_size=1, max_size=5)
GROUPS = st.lists(st.builds(graded, VERDICTS, st.booleans(), st.booleans()), min_size=1, max_size=5)


@given(st.sampled_from(sorted(FREE)), st.sampled_from(sorted(adv.BASELINES)), GROUPS)
def test_of_any_group(name, baseline, group):
    found = advantages(FREE[name], group, baseline)
    assert [len(of) for of in found.tokens] == [len(g.solution.token_ids) for g in group]
    assert all(np.isfinite(of).all() and of.dtype == np.float32 for of in found.tokens)
    if np.ptp(found.rewards) == 0 and not name.startswith("global"):
        assert all((of == 0).all() for of in found.tokens)
    turned = advantages(FREE[name], group[::-1], baseline).tokens[::-1]
    close(found.tokens, turned)


def failed(n_steps, valid=True):
    """A solution that its judge could not judge, as records.not_judged leaves it."""
    return graded([None] * n_steps, correct=None, valid=valid, failure="the server does not answer")


FAILED = st.builds(failed, st.integers(0, 5), st.booleans())
WITHOUT_VERDICTS = st.builds(lambda n: graded([None] * n, correct=None), st.integers(0, 3))
EVERY_REWARD = st.sampled_from(sorted(FREE)), st.sampled_from(sorted(adv.BASELINES))
MIXED = st.lists(st.one_of(st.builds(graded, VERDICTS, st.booleans()), WITHOUT_VERDICTS, FAILED), max_size=7)


@given(*EVERY_REWARD, MIXED, st.randoms())
def test_what_was_not_judged_takes_no_part_in_its_group(name, baseline, group, random):
    """The others have the advantages that they have without it, whatever their order."""
    judged = [one for one in group if one.judged]
    found, alone = (advantages(FREE[name], of, baseline) for of in (group, judged))
    assert found.rewards.tolist() == alone.rewards.tolist() and found.void == alone.void
    expected = iter(alone.tokens)
    for one, tokens in zip(group, found.tokens, strict=True):
        assert tokens.dtype == np.float32 and len(tokens) == len(one.solution.token_ids)
        assert tokens.tolist() == (next(expected).tolist() if one.judged else [0.0] * len(tokens))
    order = random.sample(range(len(group)), len(group))
    close(advantages(FREE[name], [group[i] for i in order], baseline).tokens, [found.tokens[i] for i in order])


@given(*EVERY_REWARD, st.lists(FAILED, max_size=4), st.lists(st.builds(graded, VERDICTS, st.booleans()), max_size=1))
def test_a_group_without_two_that_were_judged_teaches_nothing(name, baseline, unjudged, judged):
    for group in (unjudged + judged, judged + unjudged):
        found = advantages(FREE[name], group, baseline)
        assert len(found.rewards) == len(found.void) == len(judged)
        assert not any(of.any() for of in found.tokens)


def test_a_judge_that_failed_is_not_one_that_left_something_out():
    assert adv.judge_fault(failed(2), reads_steps=True) is None and not failed(2).judged
    assert adv.judge_fault(graded([True], correct=None), reads_steps=False) == "no_verdict"
    close(tokens("process_aware", RIGHT, failed(2), WRONG), [[UP] * 6, [0] * 6, [DOWN] * 6])
    lost = graded([True, True], correct=None)  # read, and without a word on the answer: void, as the paper has it
    close(tokens("process_aware", RIGHT, lost), [[UP] * 6, [DOWN] * 6])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_equal_rewards_have_no_advantage_and_advantages_sum_to_nothing(rewards):
    for baseline in adv.BASELINES.values():
        assert (baseline(np.full(7, rewards[0])) == 0).all()
        assert abs(baseline(np.array(rewards)).sum()) < 1e-6


def test_whose_token_is_whose():
    solution = dataclasses.replace(RIGHT.solution, token_ids=tuple(range(9)), spans=((1, 3), (5, 7)))
    assert adv.step_of_token(solution).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_coins_are_fair_and_depend_on_seed_draw_and_id_alone():
    def toss(seed, draw):
        return [adv.coin(seed, graded([True], name=f"p/{k}").solution, draw).outcome for k in range(1000)]

    assert toss(0, "1") == toss(0, "1")
    assert 450 < sum(toss(0, "1")) < 550
    for other in (toss(1, "1"), toss(0, "2")):
        assert 400 < sum(a == b for a, b in zip(toss(0, "1"), other, strict=True)) < 600


def test_the_vote_is_the_groups():
    def same(answer, accepted):
        return answer in accepted or (answer == "8.0" and "8" in accepted)

    solutions = [
        dataclasses.replace(RIGHT.solution, id=f"p/{i}", answer=a) for i, a in enumerate(["8", None, "8.0", "7"])
    ]
    assert [j.outcome for j in adv.vote("p", solutions, 0, same)] == [True, False, True, False]
    assert [j.solution_id for j in adv.vote("p", solutions, 0, same)] == [s.id for s in solutions]
    assert not any(j.outcome for j in adv.vote("p", solutions[1:2] * 2, 0, same))
