"""Votes of one judge and ensembles of several."""

import dataclasses

import numpy as np
import pytest

from spare_jax.judges import ensemble, votes
from spare_jax.records import Judgement, Solution, StepJudgement, not_judged

RIGHT, WRONG, SILENT = StepJudgement(label=True), StepJudgement(label=False), StepJudgement(missed=True)


def test_majority_breaks_ties_by_the_first_answer_with_a_label():
    voted = votes.majority_of_steps([(SILENT, WRONG, SILENT), (WRONG, RIGHT, SILENT), (RIGHT, SILENT, SILENT)])
    assert [step.label for step in voted] == [False, False, None]
    assert [step.score for step in voted] == [0.5, 0.5, None]


def judged(name, *steps):
    return Judgement("p/0", name, steps, True, prompt_tokens=3, generated_tokens=2)


SOLUTION = Solution("p/0", "p", ("a", "b"), None, "stop")


class TestEnsemble:
    PAIRS = (judged("a", RIGHT, RIGHT, WRONG, WRONG, SILENT), judged("b", RIGHT, WRONG, WRONG, SILENT, SILENT))

    @pytest.mark.parametrize(
        ("rule", "labels"),
        [
            ("agreement", [True, None, False, None, None]),
            ("union", [True, False, False, False, None]),
            ("intersection", [True, True, False, None, None]),
            ("majority", [True, False, False, False, None]),
        ],
    )
    def test_rules(self, rule, labels):
        combined = ensemble.combine(self.PAIRS, rule)
        assert [step.label for step in combined.steps] == labels
        assert [step.score is None for step in combined.steps] == [label is None for label in labels]
        assert (combined.prompt_tokens, combined.generated_tokens) == (6, 4)

    WEIGHTS = ensemble.Weights(("a", "b"), 2.0, (1.0, 1.0), (-1.0, -1.0), (0.0, 0.0))

    @pytest.mark.parametrize("rule", ensemble.RULES)
    def test_where_a_member_failed_the_ensemble_has(self, rule):
        """The survivor's word is no agreement, and nobody's word is no probability."""
        up, down = judged("a", RIGHT, WRONG), not_judged(SOLUTION, "b", "no server")
        weights = self.WEIGHTS if rule == "weighted" else None
        for members in ((up, down), (dataclasses.replace(down, judge="a"), down)):
            combined = ensemble.combine(members, rule, weights)
            assert "b: no server" in combined.failure and combined.steps == (StepJudgement(),) * 2
            assert combined.outcome is None and combined.prompt_tokens == sum(m.prompt_tokens for m in members)

    def test_a_step_that_nobody_speaks_of_has_no_probability(self):
        said = [judged("a", SILENT, RIGHT), judged("b", SILENT, SILENT)]
        combined = ensemble.combine(said, "weighted", self.WEIGHTS)
        assert [step.label for step in combined.steps] == [None, True]

    def test_weights_are_learnt_where_nobody_failed(self):
        truths, members = self.members(300)
        some = {i: truth for i, truth in truths.items() if int(i) % 2}
        down = Solution("", "p", ("x",), None, "stop")
        failed = {i: said if int(i) % 2 else not_judged(down, "a", "no server") for i, said in members["a"].items()}
        assert ensemble.fit(members | {"a": failed}, truths) == ensemble.fit(members, some)

    # How often a judge sees that a right step is right, and that a wrong one is wrong.
    SEES = {"a": (0.98, 0.6), "b": (0.6, 0.98), "c": (0.8, 0.8)}  # noqa: RUF012

    def members(self, n):
        """Judges of `n` one-step solutions, and the truth."""
        rng = np.random.default_rng(0)
        truths, members = {}, {name: {} for name in self.SEES}
        for i in map(str, range(n)):
            real = bool(rng.random() < 0.5)
            truths[i] = Judgement(i, "truth", (StepJudgement(label=real),))
            for name, sees in self.SEES.items():
                hit = bool(rng.random() < sees[not real])
                members[name][i] = Judgement(i, name, (StepJudgement(label=real if hit else not real),))
        return truths, members

    def test_weights_learn_whose_word_counts_for_which_class(self):
        truths, members = self.members(2000)
        weights = ensemble.fit(members, truths)
        # Who never calls a right step wrong is believed against the two others when he does.
        assert weights.probability([WRONG, RIGHT, RIGHT]) < weights.probability([RIGHT, RIGHT, WRONG])
        assert weights.probability([WRONG, WRONG, RIGHT]) < 0.1 < 0.9 < weights.probability([RIGHT, RIGHT, WRONG])
        hits = dict.fromkeys((*members, "all"), 0)
        for i, truth in truths.items():
            said = [members[name][i] for name in members]
            combined = ensemble.combine(said, "weighted", weights)
            for name, judgement in zip(hits, (*said, combined), strict=True):
                hits[name] += judgement.steps[0].label == truth.steps[0].label
        assert hits["all"] > max(hits[name] for name in members) + 100

    def test_a_member_that_only_scores_is_heard(self):
        truths, _ = self.members(500)
        scored = {
            i: Judgement(i, "s", (StepJudgement(score=0.9 if truth.steps[0].label else 0.2),))
            for i, truth in truths.items()
        }
        weights = ensemble.fit({"s": scored}, truths)
        low, high = (weights.probability([StepJudgement(score=score)]) for score in (0.2, 0.9))
        assert low < 0.1 and high > 0.9

    def test_abstains_within_the_margin(self):
        truths, members = self.members(500)
        weights = ensemble.fit(members, truths)
        torn = [judged("a", RIGHT), judged("b", WRONG), judged("c", RIGHT)]
        assert ensemble.combine(torn, "weighted", weights, margin=0.49).steps[0].label is None
        assert ensemble.combine(torn, "weighted", weights).steps[0].label is not None

    def test_mistakes_are_told(self):
        with pytest.raises(ValueError, match="use one of agreement"):
            ensemble.combine(self.PAIRS, "vote")
        with pytest.raises(ValueError, match="fit them on a truth set"):
            ensemble.combine(self.PAIRS, "weighted")
        with pytest.raises(ValueError, match="same solution"):
            ensemble.combine([judged("a", RIGHT), judged("b", RIGHT, RIGHT)], "union")
        with pytest.raises(ValueError, match="run it first"):
            ensemble.fit({"a": {}}, {"x": judged("truth", RIGHT)})
