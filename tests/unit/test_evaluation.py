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

from spare_jax.evaluation import statistics
from spare_jax.evaluation.accuracy import (
    Pool,
    aggregate_all,
    chosen_right,
    oracle,
    pass_at_1,
    pass_at_n,
    selection_metrics,
)
from spare_jax.evaluation.approvals import approvals
from spare_jax.evaluation.baselines import (
    fit_length_baseline,
    fit_position_baseline,
    length_first_error,
    length_scores,
    position_first_error,
    position_scores,
)
from spare_jax.evaluation.calibration import calibration
from spare_jax.evaluation.curves import accuracy_by_n, accuracy_curves, tokens_by_n
from spare_jax.evaluation.process_errors import (
    choose_threshold,
    first_error,
    first_error_interval,
    first_error_metrics,
    judge_metrics,
    right_answer_wrong_process,
    threshold_sweep,
)
from spare_jax.evaluation.statistics import paired_bootstrap
from spare_jax.evaluation.step_scores import Part, baseline_guesses, choose_on, measure, measure_scores
from spare_jax.records import Judgement, Solution, StepJudgement
from spare_jax.selection.best_of_n import best_of_n
from spare_jax.selection.voting import majority, weighted

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
    curves = accuracy_curves(pools, {"prm": scores})
    json.dumps(curves, allow_nan=False)
    every = [curves["majority"]["accuracy"], *curves["prm"]["weighted"].values(), *curves["prm"]["best_of_n"].values()]
    assert len(every) == 9
    for curve in every:
        assert all(a <= b + 1e-12 for a, b in zip(curve, curves["pass_at_n"], strict=True))
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(curves["pass_at_n"]))


def test_curves_are_those_of_each_rule_under_each_aggregation():
    pools, scores = world(30, 5)
    cost = [[100 + i for i in range(5)]] * 30
    curves = accuracy_curves(pools, {"prm": scores, "one": [[[s[-1]] for s in p] for p in scores]}, {"prm": cost}, 2)
    for rule in ("weighted", "best_of_n"):
        for how, curve in curves["prm"][rule].items():
            assert curve == accuracy_by_n(pools, rule, aggregate_all(scores, how), 2)
            assert curves["one"][rule][how] == curves["prm"][rule]["last"]  # one score is the same under each
        assert len({tuple(curve) for curve in curves["prm"][rule].values()}) > 1
    assert curves["n"] == [1, 2, 3, 4, 5]
    # The policy's tokens alone, and with what the reward model read: 102 a sample.
    assert curves["one"]["tokens"] == curves["majority"]["tokens"]
    spent = np.array(curves["prm"]["tokens"]) - curves["majority"]["tokens"]
    assert spent == pytest.approx([102, 204, 306, 408, 510])


@given(pools_and_scores(), st.sampled_from(["majority", "weighted", "best_of_n"]))
@settings(max_examples=40, deadline=None)
def test_a_curve_is_the_mean_over_every_subset_of_every_pool(case, rule):
    pools, steps = case
    # Halves alone: their sums are exact, so that a tie is one in every subset.
    scores = [[s if s is None else (0.25, 0.5, 1.0)[int(2.9 * s)] for s in own] for own in aggregate_all(steps, "min")]
    for n, value in enumerate(accuracy_by_n(pools, rule, scores, 7), start=1):
        expected = []
        for pool, own in zip(pools, scores, strict=True):
            chosen = []
            for c in _subsets(len(pool.answers), min(n, len(pool.answers))):
                part = Pool(pool.problem_id, tuple(pool.answers[i] for i in c), tuple(pool.outcomes[i] for i in c))
                chosen.append(_by_hand(part, rule, [own[i] for i in c], 7))
            if pool.answers:  # sampling failed where there is no candidate: the problem is missing
                expected.append(np.mean(chosen))
        assert value == (pytest.approx(np.mean(expected)) if expected else None)


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
    pools = [Pool("p", (None, " "), (True, True))]
    assert chosen_right(pools, "majority").tolist() == [0.0]
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
    names = {"majority", "oracle", "prm", "likelihood"}
    assert set(metrics) == {*names, "n", "intervals", "prm_minus_majority", "prm_minus_likelihood"}
    assert metrics["n"]["prm"]["weighted"]["last"] == metrics["n"]["majority"] == metrics["n"]["oracle"] == 80
    assert set(metrics["intervals"]) == {"one_sample", *names}
    for name, value in (("majority", metrics["majority"]), ("prm", metrics["prm"]["weighted"]["last"])):
        interval = metrics["intervals"][name]
        error = math.sqrt(value * (1 - value) / 80)  # of a share of 80 problems
        assert interval["mean"] == pytest.approx(value)
        assert interval["low"] == pytest.approx(value - 1.96 * error, abs=0.02)
        assert interval["high"] == pytest.approx(value + 1.96 * error, abs=0.02)
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


def test_bootstrap_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 600)
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        ours, theirs = rng.random(120) < 0.6, rng.random(120) < 0.5
        interval = paired_bootstrap(ours, theirs, seed=seed)
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
        "missing": {},
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
    swept = [row["f1"] for row in threshold_sweep(scores, truth, grid) if row["threshold"] <= 1]
    assert max(f1 for f1 in swept if f1 is not None) <= at_chosen + 1e-9


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


def test_the_length_baseline_learns_what_lengths_tell():
    # Steps of more than 20 characters are wrong, and nothing else is.
    lengths = [[5, 30, 8], [9, 20], [25], [7, 7]]
    truth = [1, None, 0, None]
    baseline = fit_length_baseline(truth, lengths)
    assert baseline is not None and baseline.long_is_wrong
    assert [length_first_error(baseline, steps) for steps in lengths] == truth
    assert length_first_error(baseline, [9, 90, 90]) == 1
    # The other way round: short steps are wrong.
    short = fit_length_baseline([1, None], [[30, 2], [30, 30]])
    assert short is not None and not short.long_is_wrong and length_first_error(short, [1, 40]) == 0
    assert fit_length_baseline([None, None], lengths[:2]) is None  # nothing to be found
    assert length_first_error(None, [1, 2]) is None and length_first_error(baseline, []) is None


@given(
    st.lists(
        st.lists(st.integers(0, 6), min_size=1, max_size=3).flatmap(
            lambda steps: st.tuples(st.just(steps), st.none() | st.integers(0, len(steps) - 1))
        ),
        max_size=8,
    )
)
@settings(deadline=None)
def test_no_limit_of_length_beats_the_length_baseline(solutions):
    lengths, truth = [steps for steps, _ in solutions], [error for _, error in solutions]
    baseline = fit_length_baseline(truth, lengths)
    ours = first_error_metrics([length_first_error(baseline, steps) for steps in lengths], truth)["f1"]
    assert (baseline is None) == (ours is None)
    for limit in range(8):
        for wrong in (lambda n, limit=limit: n >= limit, lambda n, limit=limit: n < limit):
            guesses = [next((i for i, n in enumerate(steps) if wrong(n)), None) for steps in lengths]
            f1 = first_error_metrics(guesses, truth)["f1"]
            assert ours is None or f1 <= ours + 1e-12


def test_ranking_by_position_and_length_by_hand():
    # Laplace: (right + 1) / (seen + 2). Of solutions of two steps the first is right 2 times of 2, the second 1 of 2.
    seen = [[True, False], [True, True], [False], [None]]
    assert position_scores(seen, [2, 1, 3]) == [[0.75, 0.5], [pytest.approx(1 / 3)], [0.5, 0.5, 0.5]]
    assert length_scores([(2, True), (2, True), (1, False)], [2, 1, 5]) == [0.75, pytest.approx(1 / 3), 0.5]


def test_right_answers_with_a_wrong_process_by_hand():
    truth, said = [1, 0, 2, None, 0], [1, 1, None, 0, 0]
    found = right_answer_wrong_process(said, truth, [True, True, True, True, False])
    rates = {"share": 0.75, "found": pytest.approx(2 / 3), "exact": pytest.approx(1 / 3)}
    assert found == {"n": 3, **rates, "missing": {}}
    nothing = {"n": 0, "share": None, "found": None, "exact": None, "missing": {}}
    assert right_answer_wrong_process([], [], []) == nothing


def test_approvals_by_hand():
    def said(outcome, *labels):
        return Judgement("", "j", tuple(StepJudgement(label) for label in labels), outcome)

    steps = [("a", "b"), ("a", "b"), ("a", "b", "a"), ("b", "b"), ("a", "b", "a"), ("c",)]
    solutions = [Solution(str(i), "p", of, None, "stop") for i, of in enumerate(steps)]
    judged = [said(True, True, True), said(False, True, True), said(True, True, None, True),
              said(True, False, True), said(True, True, True, True), said(None, True)]  # fmt: skip
    found = approvals(solutions, judged, [True, True, False, False, True, False])
    assert found == {
        "right": {"n": 3, "yes": 2, "sound": 2},
        "wrong": {"n": 2, "yes": 2, "sound": 1},
        "wrong_repeating": {"n": 2, "yes": 2, "sound": 1},
        "missing": {"unlabelled": 1},  # the last one says nothing of the answer, which is no "no"
    }
    with pytest.raises(ValueError):
        approvals(solutions, judged, [True])


def test_the_interval_of_f1_holds_f1_and_resamples_problems():
    rng = np.random.default_rng(0)
    truth = [None if rng.random() < 0.5 else int(rng.integers(3)) for _ in range(120)]
    said = [t if rng.random() < 0.6 else 0 for t in truth]
    f1 = first_error_metrics(said, truth)["f1"]
    alone = first_error_interval(said, truth, list(map(str, range(120))), seed=1)
    assert alone["low"] < f1 < alone["high"]
    assert alone == first_error_interval(said, truth, list(map(str, range(120))), seed=1)
    # Every solution four times under the same problem: no more is known than before.
    again = first_error_interval(said * 4, truth * 4, list(map(str, range(120))) * 4, seed=1)
    assert again == pytest.approx(alone)
    apart = first_error_interval(said * 4, truth * 4, list(map(str, range(480))), seed=1)
    assert apart["high"] - apart["low"] < 0.7 * (alone["high"] - alone["low"])
    # All solutions of one problem come and go together: no spread.
    together = first_error_interval(said, truth, ["p"] * 120, seed=1)
    assert together["low"] == together["high"] == pytest.approx(f1)
    assert first_error_interval([0], [0], ["p"], 0) == {"low": None, "high": None}


def test_nothing_is_chosen_on_the_part_that_is_measured():
    dev = Part(["a", "b"], [[True, False], [True, True]], [[3, 9], [3, 3]], [False, True])
    test = Part(["c", "d", "e"], [[False], [True, True], [True, False]], [[3], [9, 3], [1, 2]], [True, True, False])
    threshold, chosen_on = choose_on(dev, "dev", [[0.9, 0.2], [0.8, 0.7]])
    assert 0.2 < threshold < 0.7 and chosen_on == {"part": "dev", "n": 2, "missing": {}, "f1": 1.0}
    assert choose_on(Part([], [], [], []), "dev", []) == (0.5, None)
    guesses = baseline_guesses(dev, test)
    assert guesses["length_only"] == [None, 0, None]  # beyond 3 characters, as dev says
    assert guesses["final_answer_only"] == [None, None, 1]
    assert guesses["always_first"] == [0, 0, 0] and guesses["never_wrong"] == [None] * 3
    found = measure([0, None, None], test, guesses, seed=0)
    assert found["judge"] | {"low": 0, "high": 0} == first_error_metrics([0, None, None], [0, None, 1]) | {
        "low": 0,
        "high": 0,
    }
    hidden = {"n": 1, "share": 0.5, "found": 1.0, "exact": 1.0, "missing": {}}
    assert found["right_answer_wrong_process"] == hidden
    assert found["judge_minus"]["length_only"]["mean"] == pytest.approx(2 / 3)  # 2/3 (a = 1/2, b = 1) against 0


def test_scores_are_measured_where_the_truth_is_known():
    part = Part(["a", "b"], [[True, False, None], [True, True]], [[1, 1, 1], [1, 1]], [False, True])
    found = measure_scores([[0.9, 0.4, 0.0], [0.8, None]], part)
    # The second solution's end was not scored: that none of its steps is wrong was not said.
    assert found["at_half"]["correct_accuracy"] is None and found["at_half"]["missing"] == {"unlabelled": 1}
    assert found["at_half"]["error_accuracy"] == 1.0
    # Steps scored 0.9, 0.4 and 0.8 have a truth: right, wrong, right; a bin each.
    assert found["calibration"]["n"] == 3
    assert found["calibration"]["ece"] == pytest.approx((0.1 + 0.4 + 0.2) / 3)
    assert [row["threshold"] for row in found["threshold_sweep"]][::24] == [0.02, 0.5, 0.98]


def test_measures_of_nothing_are_null():
    empty = Part([], [], [], [])
    found = measure([], empty, baseline_guesses(empty, empty), 0) | measure_scores([], empty)
    json.dumps(found, allow_nan=False)
    assert found["judge"]["f1"] is None and found["calibration"]["ece"] is None
    all_wrong = Part(["p"], [[False, True]], [[4, 4]], [False])
    one_sided = measure([0], all_wrong, baseline_guesses(all_wrong, all_wrong), 0)
    assert one_sided["judge"]["f1"] is None and one_sided["judge"]["error_accuracy"] == 1.0
    assert one_sided["judge_minus"]["position_only"]["mean"] is None


def test_calibration_by_hand():
    result = calibration([0.95, 0.95, 0.05, 1.0], [True, False, False, True])
    assert result["n"] == 4
    # Bin 0: score 0.05, right 0. Bin 9: mean score 2.9 / 3, right 2 / 3.
    assert result["ece"] == pytest.approx(0.25 * 0.05 + 0.75 * (2.9 / 3 - 2 / 3))
    assert result["brier"] == pytest.approx((0.05**2 + 0.95**2 + 0.05**2 + 0) / 4)
    assert [row["n"] for row in result["bins"]] == [1, 3]
    # Against every score looked at by itself.
    rng = np.random.default_rng(3)
    scores = [*rng.random(60), 0.0, 0.1, 0.3, 1.0]
    labels = [bool(rng.random() < score) for score in scores]
    bins = [[i for i, s in enumerate(scores) if k <= s * 10 < k + 1 or (k == 9 and s == 1)] for k in range(10)]
    gaps = [abs(sum(scores[i] - labels[i] for i in of)) for of in bins]
    assert calibration(scores, labels)["ece"] == pytest.approx(sum(gaps) / len(scores))
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


def _by_hand(pool, rule, scores, seed):
    """Whether a rule chooses right, by the functions for one choice at a time."""
    if rule == "majority":
        return majority(pool.answers, pool.problem_id, seed) == "1"
    if rule == "best_of_n":
        return best_of_n(pool.answers, scores, pool.problem_id, seed) == "1"
    return weighted(pool.answers, scores, pool.problem_id, seed) == "1"


def _subsets(total, size):
    return list(itertools.combinations(range(total), size))
