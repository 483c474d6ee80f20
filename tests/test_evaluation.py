"""Metrics against values by hand, brute force and other people's implementations."""

import itertools
import json
import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from spare_jax.evaluation.accuracy import (
    Pool,
    accuracy_by_n,
    accuracy_curves,
    chosen_right,
    oracle,
    pass_at_1,
    pass_at_n,
    selection_metrics,
    tokens_by_n,
)
from spare_jax.evaluation.calibration import calibration
from spare_jax.evaluation.process_errors import (
    choose_threshold,
    first_error,
    first_error_metrics,
    first_error_report,
    fit_position_baseline,
    judge_metrics,
    position_first_error,
    threshold_sweep,
)
from spare_jax.evaluation.statistics import paired_bootstrap
from spare_jax.records import Judgement, StepJudgement
from spare_jax.selection.voting import majority

pytestmark = pytest.mark.filterwarnings("error")  # a division by an empty class must not even warn


@st.composite
def pools_and_scores(draw):
    """Problems whose right answer is "1", and a step score list per candidate."""
    sizes = draw(st.lists(st.integers(0, 5), max_size=5))
    pools, scores = [], []
    for i, size in enumerate(sizes):
        answers = tuple(draw(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=size, max_size=size)))
        pools.append(Pool(f"p{i}", answers, tuple(a == "1" for a in answers), (10,) * size, 5))
        steps = st.lists(st.none() | st.floats(0, 1), max_size=3)
        scores.append(draw(st.lists(steps, min_size=size, max_size=size)))
    return pools, scores


def world(n_problems: int, n_samples: int, seed: int = 0):
    """Problems of random difficulty with a ranker that knows something."""
    rng = np.random.default_rng(seed)
    pools, scores = [], []
    for i in range(n_problems):
        right = rng.random(n_samples) < rng.random()
        answers = tuple("1" if r else str(rng.integers(2, 5)) for r in right)
        pools.append(Pool(f"p{i}", answers, tuple(map(bool, right)), tuple(map(int, rng.integers(5, 9, n_samples))), 3))
        scores.append([[float(rng.random()), float(rng.beta(3, 2) if r else rng.beta(2, 3))] for r in right])
    return pools, scores


@given(pools_and_scores())
@settings(max_examples=60, deadline=None)
def test_nothing_beats_the_oracle_and_pass_at_1_is_the_mean(case):
    pools, scores = case
    metrics = selection_metrics(pools, {"prm": scores}, seed=3)
    json.dumps(metrics, allow_nan=False)
    sampled = [pool for pool in pools if pool.outcomes]
    if not sampled:
        assert pass_at_1(pools) is None
        assert metrics["oracle"] is None
        return
    assert pass_at_1(pools) == pytest.approx(np.mean([np.mean(pool.outcomes) for pool in sampled]))
    bound = metrics["oracle"] + 1e-12
    assert pass_at_1(pools) <= bound
    assert metrics["majority"] <= bound
    assert all(value <= bound for rule in metrics["prm"].values() for value in rule.values())
    curves = accuracy_curves(pools, {"prm": scores})["accuracy_by_n"]
    for key in ("majority", "prm"):
        assert all(a <= b + 1e-12 for a, b in zip(curves[key], curves["oracle"], strict=True))
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(curves["oracle"]))


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.integers(1, 8))
@settings(deadline=None)
def test_pass_at_n_counts_subsets(outcomes, n):
    pool = Pool("p", tuple("1" if right else "2" for right in outcomes), tuple(outcomes))
    subsets = list(itertools.combinations(outcomes, min(n, len(outcomes))))
    assert pass_at_n([pool], n) == pytest.approx(np.mean([any(subset) for subset in subsets]))
    assert pass_at_n([pool], len(outcomes)) == oracle([pool])


def test_accuracy_by_n_averages_over_all_subsets_and_ends_at_the_full_choice():
    pools, scores = world(40, 6)
    curve = accuracy_by_n(pools, "majority", seed=5)
    for n in (1, 2, 3, 6):
        expected = [
            np.mean([majority([p.answers[i] for i in c], p.problem_id, 5) == "1" for c in _subsets(6, n)])
            for p in pools
        ]
        assert curve[n - 1] == pytest.approx(np.mean(expected))
    assert curve[0] == pytest.approx(pass_at_1(pools))
    last = [[steps[-1] for steps in candidates] for candidates in scores]
    for rule in ("weighted", "best_of_n"):
        assert accuracy_by_n(pools, rule, last, 5)[-1] == pytest.approx(chosen_right(pools, rule, last, 5).mean())


def test_accuracy_by_n_draws_subsets_where_there_are_too_many():
    pools, _ = world(60, 12)
    curve = accuracy_by_n(pools, "majority", seed=1)
    exact = np.mean(
        [
            np.mean([majority([p.answers[i] for i in c], p.problem_id, 1) == "1" for c in _subsets(12, 3)])
            for p in pools[:20]
        ]
    )
    assert abs(accuracy_by_n(pools[:20], "majority", seed=1)[2] - exact) < 0.05
    assert curve == accuracy_by_n(pools, "majority", seed=1)


def test_drawn_subsets_have_the_size_they_should():
    # One of 12 candidates answers, another one in each problem: it is drawn in exactly n of 12 problems.
    pools = [
        Pool(f"p{i}", (None,) * i + ("1",) + (None,) * (11 - i), (False,) * i + (True,) + (False,) * (11 - i))
        for i in range(12)
    ]
    assert accuracy_by_n(pools, "majority") == pytest.approx([n / 12 for n in range(1, 13)])


def test_no_answer_is_never_right():
    pools = [Pool("p", (None, " "), (True, True)), Pool("q", (), ())]
    assert chosen_right(pools, "majority").tolist() == [0.0, 0.0]
    assert accuracy_by_n([], "majority") == []


def test_tokens_count_the_prompt_once_and_scoring_for_each():
    pools = [Pool("a", ("1", "2"), (True, False), (10, 20), 7), Pool("b", ("1",), (True,), (40,), 5)]
    assert tokens_by_n(pools) == pytest.approx([(22 + 45) / 2, (37 + 45) / 2])
    assert tokens_by_n(pools, [[100, 200], [10]]) == pytest.approx([(172 + 55) / 2, (337 + 55) / 2])
    assert tokens_by_n([Pool("a", ("1",), (True,))]) is None


def test_selection_metrics_hold_the_promised_keys():
    pools, scores = world(80, 8)
    likelihood = [[[0.5]] * 8] * 80
    metrics = selection_metrics(pools, {"prm": scores, "likelihood": likelihood}, seed=0)
    assert set(metrics) == {"majority", "oracle", "prm", "likelihood", "prm_minus_majority", "prm_minus_likelihood"}
    difference = metrics["prm_minus_majority"]
    assert difference["mean"] == pytest.approx(metrics["prm"]["weighted"]["last"] - metrics["majority"])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    # Equal weights: the likelihood vote is the majority vote.
    assert metrics["likelihood"]["weighted"]["last"] == metrics["majority"]


def test_wrong_lengths_and_rules_are_errors():
    with pytest.raises(ValueError, match="problem p: 1 answers, 2 outcomes"):
        Pool("p", ("1",), (True, False))
    with pytest.raises(ValueError, match="unknown rule 'vote'"):
        chosen_right([], "vote")
    with pytest.raises(ValueError, match="needs scores for all 1 problems"):
        chosen_right([Pool("p", ("1",), (True,))], "weighted")


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        ours, theirs = rng.random(120) < 0.6, rng.random(120) < 0.5
        interval = paired_bootstrap(ours, theirs, seed=seed, n_resamples=600)
        covered += interval["low"] <= 0.1 <= interval["high"]
    assert 178 <= covered <= 200  # expected 190, standard deviation 3.1


def test_bootstrap_is_paired_seeded_and_near_the_normal_interval():
    rng = np.random.default_rng(1)
    base = rng.random(400) < 0.5
    better = base | (rng.random(400) < 0.1)
    interval = paired_bootstrap(better, base, seed=4)
    assert interval == paired_bootstrap(better, base, seed=4)
    difference = better.astype(float) - base
    error = scipy.stats.sem(difference)
    assert interval["mean"] == pytest.approx(difference.mean())
    assert interval["low"] == pytest.approx(difference.mean() - 1.96 * error, abs=0.25 * error)
    assert interval["high"] == pytest.approx(difference.mean() + 1.96 * error, abs=0.25 * error)
    assert paired_bootstrap(base, base)["high"] == 0.0


def test_bootstrap_of_little():
    assert paired_bootstrap([], []) == {"mean": None, "low": None, "high": None, "p": None, "n": 0}
    assert paired_bootstrap([1.0], [0.0]) == {"mean": 1.0, "low": None, "high": None, "p": None, "n": 1}
    assert paired_bootstrap([1.0, 1.0], [0.0, 0.0])["p"] is None  # a t-test knows nothing of what does not vary
    with pytest.raises(ValueError, match="one of each per problem"):
        paired_bootstrap([1.0], [])


def test_the_t_test_is_one_tailed_and_paired():
    # Differences 1, 2, 3, 6: mean 3, standard error 2.160247 / 2, t = 2.777460; with 3 degrees of freedom
    # p = 1/2 - (x / (1 + x^2) + atan x) / pi where x = t / sqrt 3.
    ours, theirs = np.array([2.0, 4.0, 1.0, 9.0]), np.array([1.0, 2.0, -2.0, 3.0])
    assert paired_bootstrap(ours, theirs)["p"] == pytest.approx(0.034568, abs=1e-5)
    assert paired_bootstrap(theirs, ours)["p"] == pytest.approx(1 - 0.034568, abs=1e-5)


def test_first_error_f1_by_hand():
    metrics = first_error_metrics([1, 0, None, None, 2], [1, 2, None, None, None])
    assert metrics == {
        "f1": pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3)),
        "error_accuracy": 0.5,
        "correct_accuracy": pytest.approx(2 / 3),
        "n_error": 2,
        "n_correct": 3,
    }
    assert first_error_metrics([0, 0], [1, None])["f1"] == 0.0  # both classes are there, nothing is right
    assert first_error_metrics([None], [None])["f1"] is None  # no erroneous solution to ask about


scored_solutions = st.lists(
    st.lists(st.none() | st.sampled_from([0.1, 0.3, 0.5, 0.7]) | st.floats(0, 1), min_size=1, max_size=4).flatmap(
        lambda scores: st.tuples(st.just(scores), st.none() | st.integers(0, len(scores) + 1))
    ),
    max_size=12,
)


@given(scored_solutions, st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7]) | st.floats(0, 1), min_size=1, max_size=5))
@settings(deadline=None)
def test_the_sweep_is_the_metric_at_each_threshold(solutions, thresholds):
    scores, truth = [s for s, _ in solutions], [t for _, t in solutions]
    for row in threshold_sweep(scores, truth, thresholds):
        expected = first_error_metrics([first_error(s, row["threshold"]) for s in scores], truth)
        for key in ("f1", "error_accuracy", "correct_accuracy"):
            assert row[key] == (None if expected[key] is None else pytest.approx(expected[key]))


@given(scored_solutions)
@settings(deadline=None)
def test_no_threshold_beats_the_chosen_one(solutions):
    scores, truth = [s for s, _ in solutions], [t for _, t in solutions]
    chosen = choose_threshold(scores, truth)
    at_chosen = first_error_metrics([first_error(s, chosen) for s in scores], truth)["f1"]
    if at_chosen is None:
        assert chosen == 0.5
        return
    known = sorted({0.0, 1.0} | {s for steps in scores for s in steps if s is not None})
    grid = [*np.linspace(0, 1, 41), *(np.nextafter(k, 2) for k in known if k < 1)]
    assert max(row["f1"] for row in threshold_sweep(scores, truth, grid) if row["threshold"] <= 1) <= at_chosen + 1e-9


def test_a_threshold_exists_between_neighbouring_floats():
    scores, truth = [[0.0], [5e-324]], [0, None]
    chosen = choose_threshold(scores, truth)
    assert first_error_metrics([first_error(s, chosen) for s in scores], truth)["f1"] == 1.0


def test_the_position_baseline_learns_what_positions_tell():
    # Two-step solutions mostly fail at step 0, three-step ones never: nothing else needs to be read.
    truth = [0] * 8 + [None] * 2 + [None] * 10
    n_steps = [2] * 10 + [3] * 10
    baseline = fit_position_baseline(truth, n_steps)
    assert baseline == {2: 0, 3: None}
    guesses = [position_first_error(baseline, n) for n in n_steps]
    assert first_error_metrics(guesses, truth)["f1"] == pytest.approx(2 * 1 * (10 / 12) / (1 + 10 / 12))
    assert position_first_error(baseline, 1) == 0  # nearest known length, within the solution
    assert position_first_error(baseline, 9) is None
    assert position_first_error(fit_position_baseline([], []), 3) is None


@given(st.lists(st.integers(1, 3).flatmap(lambda n: st.tuples(st.just(n), st.none() | st.integers(0, n - 1)))))
@settings(deadline=None)
def test_no_table_of_positions_beats_the_baseline_on_dev(solutions):
    n_steps, truth = [n for n, _ in solutions], [t for _, t in solutions]
    baseline = fit_position_baseline(truth, n_steps)
    ours = first_error_metrics([position_first_error(baseline, n) for n in n_steps], truth)["f1"]
    for guesses in itertools.product((None, 0), (None, 0, 1), (None, 0, 1, 2)):
        other = dict(zip((1, 2, 3), guesses, strict=True))
        f1 = first_error_metrics([other[n] for n in n_steps], truth)["f1"]
        if f1 is not None:
            assert ours is not None
            assert ours >= f1 - 1e-12


def test_first_error_report_on_empty_and_one_sided_data():
    report = first_error_report([], [], [], [])
    json.dumps(report, allow_nan=False)
    assert (report["first_error_f1"], report["position_only_f1"], report["threshold"]) == (None, None, 0.5)
    all_wrong = first_error_report([[0.2, 0.9]], [0], [[0.2, 0.9]], [0])
    assert all_wrong["first_error_f1"] is None
    assert all_wrong["error_accuracy"] == 1.0


def test_calibration_by_hand():
    result = calibration([0.95, 0.95, 0.05, 1.0], [True, False, False, True])
    assert result["n"] == 4
    # Bin 0: score 0.05, right 0. Bin 9: mean score 2.9 / 3, right 2 / 3.
    assert result["ece"] == pytest.approx(0.25 * 0.05 + 0.75 * (2.9 / 3 - 2 / 3))
    assert result["brier"] == pytest.approx((0.05**2 + 0.95**2 + 0.05**2 + 0) / 4)
    assert [row["n"] for row in result["bins"]] == [1, 3]
    assert calibration([], []) == {"ece": None, "brier": None, "n": 0, "bins": []}
    with pytest.raises(ValueError, match="outside"):
        calibration([math.nan], [True])


def _judgement(i, labels, **changes):
    return Judgement(f"s{i}", "j", tuple(StepJudgement(label=label) for label in labels), **changes)


def test_judge_metrics_by_hand():
    truths = [_judgement(0, [True, False, False, False]), _judgement(1, [True, True])]
    said = [
        _judgement(0, [True, False, True, True], prompt_tokens=100, generated_tokens=20),
        Judgement("s1", "j", (StepJudgement(label=False),), parsed=False, surplus=2, prompt_tokens=80),
    ]
    metrics = judge_metrics(said, truths)
    assert metrics["step_accuracy"] == 0.4  # right on s0's first two; wrong on its last two and on s1's first
    assert metrics["error_precision"] == 0.5
    assert metrics["error_recall"] == pytest.approx(1 / 3)
    chance = 0.6 * 0.4 + 0.4 * 0.6  # 3 of 5 called right, 2 of 5 are
    assert metrics["kappa"] == pytest.approx((0.4 - chance) / (1 - chance))
    assert metrics["parse_failure_rate"] == 0.5
    assert (
        metrics["missed_step_rate"] == metrics["unlabelled_rate"] == pytest.approx(1 / 6)
    )  # s1's second step has no record
    assert metrics["surplus_per_solution"] == 1.0
    assert metrics["tokens_per_solution"] == 100.0
    assert metrics["first_error_f1"] == 0.0  # s0 exactly right, s1 accused: a = 1, b = 0


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), max_size=5))
@settings(deadline=None)
def test_the_truth_judges_itself_perfectly(solutions):
    truths = [_judgement(i, labels) for i, labels in enumerate(solutions)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = judge_metrics(truths, truths)
    json.dumps(metrics, allow_nan=False)
    perfect = {"step_accuracy", "error_precision", "error_recall", "kappa", "first_error_f1"}
    assert all(metrics[key] in (None, 1.0) for key in perfect)
    assert (metrics["error_recall"] is None) == all(label for labels in solutions for label in labels)


def test_unknown_truth_leaves_only_what_needs_none():
    metrics = judge_metrics([_judgement(0, [True, False])], [_judgement(0, [None, None])])
    assert metrics["missed_step_rate"] == metrics["parse_failure_rate"] == 0.0
    assert all(metrics[key] is None for key in ("step_accuracy", "error_recall", "kappa", "first_error_f1"))
    said = [_judgement(0, [True]), _judgement(1, [False]), _judgement(2, [False])]
    mixed = judge_metrics(said, [_judgement(0, [True]), _judgement(1, [False]), _judgement(2, [None])])
    assert mixed["step_accuracy"] == 1.0
    assert mixed["first_error_f1"] == 1.0  # the unknown one is no correct solution


def test_a_judgement_without_truth_is_an_error():
    with pytest.raises(ValueError, match="no truth for solution 's0'"):
        judge_metrics([_judgement(0, [True])], [])


def _subsets(total, size):
    return list(itertools.combinations(range(total), size))
