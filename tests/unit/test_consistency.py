"""From N verifications to one: every rule on examples worked by hand, and what holds for all verifications."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spare_jax.evaluation.process_errors import label_changes
from spare_jax.prompts import generative
from spare_jax.prompts.verify import StepVerification, format_verification
from spare_jax.records import Judgement, StepJudgement
from spare_jax.targets import quality
from spare_jax.targets.consistency import (
    TIES,
    Choice,
    ConsistencySettings,
    outcome_consistency,
    single,
    step_consistency,
)
from spare_jax.targets.quality import QualityFilter

HOW = ConsistencySettings()
WORDS = {"+": True, "-": False, "?": None, "x": None}


def verifications(*said, tokens=()):
    """One per string: a sign per step, then the sign on the answer; "+-?" are correct, incorrect, no verdict. One with
    an "x" has failed."""
    return [
        Judgement(
            "p/0",
            f"verification_{k:03d}",
            tuple(StepJudgement(WORDS[sign], missed=sign == "?") for sign in signs[:-1]),
            WORDS[signs[-1]],
            generated_tokens=tokens[k] if tokens else 10,
            failure="cut off" if "x" in signs else "",
        )
        for k, signs in enumerate(said)
    ]


def kept(choice):
    return choice.kept and int(choice.kept.judge[-3:])


def scores(choice):
    return [step.score for step in choice.kept.steps]


def test_single_is_the_first_whatever_the_others_say():
    said = verifications("-+-", "+++", "+++")
    assert single(said, HOW) == Choice(said[0], said[:1])


class TestOutcome:
    def test_the_majority_of_the_answers_counts(self):
        choice = outcome_consistency(verifications("---", "+++", "+-+"), HOW)
        assert kept(choice) == 1 and choice.agreement == pytest.approx(2 / 3)
        assert scores(choice) == [pytest.approx(2 / 3), pytest.approx(1 / 3)]  # the votes on the steps
        assert kept(outcome_consistency(verifications("+++", "++-", "+--"), HOW)) == 1

    def test_without_a_verdict_there_is_no_vote(self):
        said = verifications("++?", "++-", "++?")
        choice = outcome_consistency(said, HOW)
        assert kept(choice) == 1 and choice.agreement == 1
        nobody = outcome_consistency(verifications("++?", "--?"), HOW)
        assert (nobody.kept, nobody.dropped, nobody.tied) == (None, "no_verdict", False)

    @pytest.mark.parametrize(("tie", "number"), [("drop", None), ("correct", 1), ("incorrect", 0)])
    def test_an_even_vote(self, tie, number):
        choice = outcome_consistency(verifications("++-", "+++"), ConsistencySettings(tie=tie))
        assert kept(choice) == number and choice.tied
        assert choice.dropped == ("tie" if number is None else "")
        assert choice.agreement == (None if number is None else 0.5)

    def test_which_of_several_is_kept(self):
        said = verifications("++-", "+++", "+++", "+-+", tokens=(1, 9, 5, 5))
        assert kept(outcome_consistency(said, HOW)) == 1
        assert kept(outcome_consistency(said, ConsistencySettings(keep="shortest"))) == 2


class TestStep:
    def test_the_majority_of_every_step_counts(self):
        said = verifications("+++-", "+-++", "+---", "+--+", "--+-")  # v* = + - +(3 of 5)
        choice = step_consistency(said, HOW)
        assert kept(choice) == 1  # "+-+", whatever it says of the answer
        assert scores(choice) == [4 / 5, 1 / 5, 3 / 5]
        assert choice.agreement == 3 / 5 and not choice.tied and not choice.unmatched

    def test_no_verification_has_the_consensus(self):
        said = verifications("-+++", "+-++", "++-+", "++--", "+--+", "--++", "-+++")  # each step 4 of 7: v* = + + +
        dropped = step_consistency(said, HOW)
        assert (dropped.kept, dropped.dropped, dropped.unmatched, dropped.tied) == (None, "no_match", True, False)
        closest = step_consistency(said, ConsistencySettings(no_match="closest"))
        assert kept(closest) == 0 and closest.unmatched and not closest.dropped
        assert closest.agreement == pytest.approx(3 / 7)  # its first step has the minority's verdict

    def test_a_missing_verdict_differs_as_another_one_does(self):
        said = verifications("+?+", "-++", "+?+")  # v* = + +, and each differs in one step
        choice = step_consistency(said, ConsistencySettings(no_match="closest"))
        assert kept(choice) == 0 and choice.unmatched and choice.agreement == 0
        assert scores(choice) == [pytest.approx(2 / 3), 1]

    def test_after_an_even_vote_there_may_be_no_match(self):
        said = verifications("+-+", "-++")  # both steps end even: v* = + +
        choice = step_consistency(said, ConsistencySettings(tie="correct"))
        assert (choice.dropped, choice.tied, choice.unmatched) == ("no_match", True, True)

    @pytest.mark.parametrize(("tie", "number"), [("drop", None), ("correct", 1), ("incorrect", 0)])
    def test_an_even_vote_on_a_step(self, tie, number):
        choice = step_consistency(verifications("+-+", "+++"), ConsistencySettings(tie=tie))
        assert kept(choice) == number and choice.tied and not choice.unmatched
        assert choice.dropped == ("tie" if number is None else "")

    def test_a_step_that_nobody_judged(self):
        choice = step_consistency(verifications("+?+", "-?+"), HOW)  # the even vote on the other step matters no more
        assert (choice.kept, choice.dropped, choice.tied) == (None, "no_verdict", False)

    def test_which_of_several_is_kept(self):
        said = verifications("--+", "+++", "++-", "+++", tokens=(1, 9, 5, 5))
        assert kept(step_consistency(said, HOW)) == 1
        assert kept(step_consistency(said, ConsistencySettings(keep="shortest"))) == 2


class TestFailed:
    """A verification that failed has no word in anything, and is counted."""

    @pytest.mark.parametrize("rule", [single, outcome_consistency, step_consistency])
    def test_where_all_failed_the_solution_is_dropped(self, rule):
        choice = rule(verifications("xxx", "xxx"), HOW)
        assert (choice.kept, choice.dropped, choice.voted, choice.tied) == (None, "failed", 0, False)

    def test_single_does_not_take_the_next_one(self):
        choice = single(verifications("xxx", "+++"), HOW)
        assert (choice.kept, choice.dropped, len(choice.read)) == (None, "failed", 1)

    def test_the_others_decide_and_are_counted(self):
        said = verifications("xxx", "+-+", "xxx", "+--", "+-+")
        choice = step_consistency(said, HOW)
        assert kept(choice) == 1 and choice.voted == 3 and choice.read == said and scores(choice) == [1, 0]
        choice = outcome_consistency(said, HOW)
        assert kept(choice) == 1 and choice.agreement == pytest.approx(2 / 3) and not choice.tied

    def test_a_solution_whose_readable_verifications_have_no_verdict_is_no_failure(self):
        assert outcome_consistency(verifications("xxx", "++?"), HOW).dropped == "no_verdict"


def test_unknown_rules_are_told():
    for key, known in (("tie", "drop, correct, incorrect"), ("no_match", "drop, closest"), ("keep", "first, shortest")):
        with pytest.raises(ValueError, match=rf"config\.spark\.{key}='x' is unknown: choose among {known}"):
            ConsistencySettings(**{key: "x"})


@st.composite
def anything(draw):
    n_steps = draw(st.integers(1, 3))
    signs = st.text("+-?", min_size=n_steps + 1, max_size=n_steps + 1)
    said = draw(st.lists(signs, min_size=1, max_size=7))
    return verifications(*said, tokens=[draw(st.integers(1, 3)) for _ in said])


RULES = st.builds(
    ConsistencySettings,
    tie=st.sampled_from(list(TIES)),
    no_match=st.sampled_from(("drop", "closest")),
    keep=st.sampled_from(("first", "shortest")),
)


def majority(labels, tie):
    """By counting, as a person would: (the verdict or None, whether it was even)."""
    right, wrong = labels.count(True), labels.count(False)
    return (TIES[tie], right > 0) if right == wrong else (right > wrong, False)


@given(anything(), RULES)
def test_what_outcome_consistency_keeps_says_what_most_say(said, how):
    choice = outcome_consistency(said, how)
    votes = [v.outcome for v in said]
    verdict, even = majority(votes, how.tie)
    if verdict is None or votes.count(None) == len(votes):
        assert choice.kept is None and choice.tied == even
        return
    matching = [v for v in said if v.outcome is verdict]
    assert choice.kept.outcome is verdict and choice.tied == even
    assert choice.agreement == pytest.approx(len(matching) / (len(votes) - votes.count(None)))
    first = matching[0] if how.keep == "first" else min(matching, key=lambda v: (v.generated_tokens, v.judge))
    assert choice.kept.judge == first.judge


@given(anything(), RULES)
def test_what_step_consistency_keeps_obeys_its_rule(said, how):
    choice = step_consistency(said, how)
    columns = list(zip(*([step.label for step in v.steps] for v in said), strict=True))
    consensus = [majority(column, how.tie)[0] for column in columns]
    if any(set(column) == {None} for column in columns):
        assert choice == Choice(None, said) and choice.dropped == "no_verdict"
        return
    assert choice.tied == any(majority(column, how.tie)[1] for column in columns)
    if None in consensus:
        assert choice.kept is None and choice.dropped == "tie"
        return
    differ = {v.judge: sum(s.label is not c for s, c in zip(v.steps, consensus, strict=True)) for v in said}
    assert choice.unmatched == (0 not in differ.values())
    if choice.unmatched and how.no_match == "drop":
        assert choice.kept is None and choice.dropped == "no_match"
        return
    nearest = [v for v in said if differ[v.judge] == min(differ.values())]
    first = nearest[0] if how.keep == "first" else min(nearest, key=lambda v: (v.generated_tokens, v.judge))
    assert choice.kept.judge == first.judge
    for step, column in zip(choice.kept.steps, columns, strict=True):
        assert step.score == pytest.approx(column.count(True) / (len(column) - column.count(None)))
    same = [column.count(s.label) / (len(column) - column.count(None)) if s.label is not None else 0
            for s, column in zip(choice.kept.steps, columns, strict=True)]  # fmt: skip
    assert choice.agreement == pytest.approx(min(same))


@given(anything(), RULES, st.lists(st.integers(0, 7), max_size=3))
def test_failed_verifications_change_nothing_but_what_was_read(said, how, places):
    mixed = list(said)
    for place in places:
        mixed.insert(place, verifications("x" * (len(said[0].steps) + 1))[0])
    for rule in (outcome_consistency, step_consistency):
        choice = rule(mixed, how)
        assert choice == replace(rule(said, how), read=mixed) and choice.voted == len(said)


@given(anything(), RULES, st.randoms())
def test_the_order_of_the_verifications_decides_nothing_but_which_of_several_is_kept(said, how, random):
    shuffled = random.sample(said, len(said))
    for rule in (outcome_consistency, step_consistency):
        one, other = rule(said, how), rule(shuffled, how)
        assert (one.dropped, one.tied, one.unmatched) == (other.dropped, other.tied, other.unmatched)


# The quality filter

TEXT = format_verification([StepVerification("a", "b", True), StepVerification("c", "d", False)], False)


def target(text=TEXT, tokens=10):
    return Judgement("p/0", "x", (StepJudgement(True), StepJudgement(False)), False, text, generated_tokens=tokens)


def test_the_filter_says_which_rule_refuses():
    how = QualityFilter(max_tokens=10, agreement=0.75)
    assert how.refuses(target(), 0.75) == how.refuses(target(), None) == ""
    assert how.refuses(target(tokens=11), 1.0) == "too_long"
    assert how.refuses(target(), 0.7) == "disagreement"
    assert how.refuses(target("## Step 1: cut"), 1.0) == "malformed"
    assert QualityFilter(grammar=False).refuses(target("", tokens=10**6), 0.0) == ""
    assert {"too_long", "malformed", "disagreement"} == set(quality.REASONS)


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("**This step is correct.**", "It is correct."),  # a step without a verdict
        TEXT.replace("Step 2", "Step 3"),  # one is missing, another one does not exist
        TEXT + "\n\n## Step 3: more\n**This step is correct.**",
        TEXT + "\n\n## Step 1: again\nx\n**This step is correct.**",
        TEXT.replace("? No**", "? Perhaps**"),
    ],
)
def test_a_text_that_is_not_whole_is_malformed(text):
    assert QualityFilter().refuses(target(text), 1.0) == "malformed"
    assert QualityFilter().refuses(target("Well.\n\n" + TEXT + "\n"), 1.0) == ""


@pytest.mark.parametrize("text", [TEXT, "", "## Step 1: cut", TEXT + "\n\nStep 2 is not wrong.\n\n" + TEXT, TEXT * 3])
@pytest.mark.parametrize("behind", ["", "\n\n## Step 1: again\nx\n**This step is correct.**", "\n\n" + TEXT])
def test_the_filter_reads_what_everybody_reads(text, behind):
    """Of several verifications in a text the last one counts."""
    parsed = generative.parse("prm_cot", text + behind, 2)
    assert (QualityFilter().refuses(target(text + behind), 1.0) == "") == parsed.is_whole(2)


def test_label_changes_count_what_was_fixed_and_what_was_broken():
    before = [True, True, False, False, True, None, True]
    after = [False, False, True, False, None, True, False]
    truth = [False, True, True, True, True, True, None]
    assert label_changes(before, after, truth) == {"n": 5, "changed": 4, "fixed": 2, "broke": 1}
    unknown = label_changes(before, after, [None] * 7)
    assert unknown == {"n": 5, "changed": 4, "fixed": None, "broke": None}


@given(st.lists(st.tuples(*[st.sampled_from([True, False])] * 3), min_size=1))
def test_with_the_truth_known_every_change_fixes_or_breaks(rows):
    before, after, truth = zip(*rows, strict=True)
    found = label_changes(before, after, truth)
    assert found["changed"] == found["fixed"] + found["broke"]
    right = [sum(a == t for a, t in zip(of, truth, strict=True)) for of in (before, after)]
    assert right[1] - right[0] == found["fixed"] - found["broke"]
