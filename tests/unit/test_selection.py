"""Selection: what the rules promise, for any answers and scores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spare_jax.selection.aggregate import AGGREGATIONS, aggregate
from spare_jax.selection.best_of_n import best_of_n, top_scored
from spare_jax.selection.voting import ballot, candidates, majority, weighted, winners
from spare_jax.tasks.answers import MathVerifier, answers_equal

answers_strategy = st.lists(st.sampled_from(["1", "2", "3", "\ud800", "", "  ", None]), max_size=9)
pools = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", "", None]), st.none() | st.floats(0, 1) | st.sampled_from([0.1, 0.2, 0.3])
    ),
    max_size=9,
)


@pytest.mark.parametrize(
    ("how", "expected"), [("last", 0.5), ("min", 0.2), ("product", 0.09), ("mean", (0.9 + 0.2 + 0.5) / 3)]
)
def test_aggregations_by_hand(how, expected):
    assert aggregate([0.9, 0.2, 0.5], how) == pytest.approx(expected)


@given(st.floats(0, 1))
@settings(deadline=None)
def test_one_score_is_the_same_under_every_aggregation(score):
    assert {aggregate([score], how) for how in AGGREGATIONS} == {score}


def test_steps_without_score():
    assert [aggregate([], how) for how in AGGREGATIONS] == [None] * 4
    assert [aggregate([None, None], how) for how in AGGREGATIONS] == [None] * 4
    # The end was cut off: not ranked by what came before.
    assert [aggregate([0.9, None], how) for how in AGGREGATIONS] == [None] * 4
    assert aggregate([0.9, None, 0.4], "min") == 0.4
    assert aggregate([0.9, None, 0.5], "mean") == pytest.approx(0.7)


def test_unknown_aggregation_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown aggregation 'max': use one of last, min, product, mean"):
        aggregate([0.5], "max")


def test_votes_by_hand():
    answers = ["1", "2", "2", "3"]
    assert majority(answers, "p") == "2"
    assert weighted(answers, [0.9, 0.3, 0.5, 0.1], "p") == "1"
    assert weighted(answers, [0.7, 0.3, 0.5, 0.1], "p") == "2"
    assert best_of_n(answers, [0.1, 0.2, 0.3, 0.4], "p") == "3"


@given(pools, st.randoms(), st.integers(0, 3))
@settings(deadline=None)
def test_no_rule_looks_at_positions(pool, random, seed):
    shuffled = list(pool)
    random.shuffle(shuffled)
    for rule in (best_of_n, weighted):
        assert rule([a for a, _ in pool], [s for _, s in pool], "p", seed) == rule(
            [a for a, _ in shuffled], [s for _, s in shuffled], "p", seed
        )
    assert majority([a for a, _ in pool], "p", seed) == majority([a for a, _ in shuffled], "p", seed)


@given(answers_strategy, st.floats(1e-6, 1), st.integers(0, 3))
@settings(deadline=None)
def test_equal_weights_are_the_majority(answers, weight, seed):
    assert weighted(answers, [weight] * len(answers), "p", seed) == majority(answers, "p", seed)
    # With equal scores everywhere best of n is one of the answers, chosen by the same tie order.
    best = best_of_n(answers, [weight] * len(answers), "p", seed)
    assert best == next(iter(ballot(answers, "p", seed).answers), None)


@given(answers_strategy)
@settings(deadline=None)
def test_the_majority_has_most_votes_and_blanks_win_only_alone(answers):
    given_answers = [a for a in answers if a is not None and a.strip()]
    chosen = majority(answers, "p")
    if not given_answers:
        assert chosen is None
    else:
        assert given_answers.count(chosen) == max(given_answers.count(a) for a in given_answers)


def test_ties_are_broken_at_random_and_again_alike():
    answers = ["7", "8"]
    chosen = [majority(answers, f"problem-{i}", seed=1) for i in range(400)]
    assert chosen == [majority(answers[::-1], f"problem-{i}", seed=1) for i in range(400)]
    assert 140 < chosen.count("7") < 260  # 6 standard deviations around 200
    assert chosen != [majority(answers, f"problem-{i}", seed=2) for i in range(400)]


def test_sums_that_differ_only_by_rounding_are_ties():
    # 0.1 + 0.2 > 0.3 in floating point; a tie must not be decided by that.
    wins = {weighted(["1", "1", "2"], [0.1, 0.2, 0.3], f"p{i}") for i in range(50)}
    assert wins == {"1", "2"}


@pytest.mark.parametrize("scale", [1.0, 1e-14, 1e6])
def test_small_differences_and_small_weights_decide(scale):
    for i in range(20):
        assert weighted(["1", "2", "3"], [scale, 1.000001 * scale, 0.9 * scale], f"p{i}") == "2"


def test_unscored_candidates_come_last_but_before_no_answer():
    assert best_of_n(["1", "2"], [None, 0.0], "p") == "2"
    assert best_of_n(["1", None], [None, 0.9], "p") == "1"
    assert weighted(["1", "2", "2"], [0.1, None, None], "p") == "1"
    assert best_of_n([None, ""], [0.9, 0.8], "p") is None


@given(pools.filter(bool), st.integers(0, 2**9 - 1))
@settings(deadline=None)
def test_drawing_a_subset_is_the_same_as_having_only_it(pool, bits):
    answers, scores = [a for a, _ in pool], [s for _, s in pool]
    inside = [bool(bits >> i & 1) for i in range(len(pool))]
    choice = ballot(answers, "p")
    kept_answers = [a for a, keep in zip(answers, inside, strict=True) if keep]
    kept_scores = [s for s, keep in zip(scores, inside, strict=True) if keep]
    drawn = np.array([[True] * len(pool), inside])
    for subset_rule, rule in ((winners, weighted), (top_scored, best_of_n)):
        full, part = subset_rule(choice, scores, drawn)
        assert (choice.answers[full] if full >= 0 else None) == rule(answers, scores, "p")
        # Weights are counted relative to the pool's largest: sums closer than that grain may tie, so keep them apart.
        totals = [math.fsum(s or 0 for a, s in pool if a == x) for x in set(kept_answers)]
        if subset_rule is top_scored or all(abs(a - b) > 1e-6 for a in totals for b in totals if a is not b):
            largest = max((s or 0 for s in kept_scores), default=0)
            if subset_rule is top_scored or largest > 1e-3:
                assert (choice.answers[part] if part >= 0 else None) == rule(kept_answers, kept_scores, "p")


@pytest.mark.parametrize("scores", [[0.5, math.nan], [math.inf, 0.1], [0.5], [0.5, -1.0]])
def test_unusable_weights_are_errors(scores):
    with pytest.raises(ValueError, match=r"finite|scores for|negative"):
        weighted(["1", "2"], scores, "p")


def test_best_of_n_takes_log_probabilities_as_they_are():
    assert best_of_n(["1", "2"], [-0.5, -0.1], "p") == "2"


# Equal answers are one


WRITTEN = (r"\frac{1}{2}", "0.5", r"\dfrac12", "1/2", r"\frac{2}{4}", r"\sqrt{4}", "2", "x+1", "1+x", None, " ")


@pytest.fixture(scope="module")
def equal():
    with MathVerifier(time_limit=30) as verifier:
        yield lambda answer, accepted: answers_equal(answer, accepted, verifier)


def test_equal_answers_have_one_text_and_one_vote(equal):
    found = candidates(WRITTEN, equal)
    assert found == ("0.5",) * 5 + ("2",) * 2 + ("1+x",) * 2 + (None, " ")
    assert majority(candidates((r"\frac{1}{2}", "0.5", r"\dfrac12", "7", "7"), equal), "p") == "0.5"
    scores = [0.2, 0.2, 0.2, 0.5]
    assert weighted(candidates((r"\frac{1}{2}", "0.5", r"\dfrac12", "7"), equal), scores, "p") == "0.5"
    assert best_of_n(candidates((r"\frac{1}{2}", "7"), equal), [0.9, 0.1], "p") == r"\frac{1}{2}"


@given(st.permutations(WRITTEN))
@settings(deadline=None, max_examples=20)
def test_classes_do_not_look_at_positions(equal, order):
    assert dict(zip(order, candidates(order, equal), strict=True)) == dict(
        zip(WRITTEN, candidates(WRITTEN, equal), strict=True)
    )


def test_classes_are_the_same_where_equality_is_not_transitive(equal):
    for order in (("x=5", "5", "y=5"), ("y=5", "x=5", "5")):
        assert set(candidates(order, equal)) == {"5"}


def test_what_is_undecided_joins_nothing_and_work_is_bounded():
    asked = []

    def undecided(answer, accepted):
        asked.append(answer)

    answers = [f"answer {i}" for i in range(200)]
    assert candidates(answers, undecided) == tuple(answers) and len(asked) == 4
    asked.clear()
    assert candidates(answers, lambda answer, accepted: bool(asked.append(answer))) == tuple(answers)
    assert len(asked) == 2000


@given(st.lists(st.sampled_from(["1", "1.0", "2", None, ""]), max_size=9))
@settings(deadline=None)
def test_with_equal_texts_alone_nothing_changes(answers):
    assert candidates(answers, lambda answer, accepted: answer in accepted) == tuple(answers)
