"""Alignment without a model: where a wrong solution leaves its reference."""

import numpy as np
from judge_cases import TASK, solution

from spare_jax.judges import alignment
from spare_jax.records import Gold, Problem


class TestAlignment:
    QUESTION = Problem("p", "Ann has 48 clips and buys half as many. How many clips has she?")
    REFERENCE = Gold("p", ("72",), ("She buys 48 / 2 = 24 clips.", "She has 48 + 24 = 72.", "72"))

    def judge(self, *steps):
        return alignment.alignment(TASK, self.QUESTION, self.REFERENCE, solution(*steps, answer=steps[-1]))

    def test_a_right_answer_makes_every_step_right(self):
        judgement = self.judge("48 / 2 = 24.", "24 + 48 = 72.", "72")
        assert [step.label for step in judgement.steps] == [True] * 3

    def test_the_step_that_leaves_the_reference_is_the_first_error(self):
        judgement = self.judge("She buys 48 * 2 = 96 clips.", "She has 48 + 96 = 144 clips.", "144")
        assert judgement.first_error == 0
        assert "unsupported" in judgement.steps[0].explanation
        judgement = self.judge("She buys 48 / 2 = 24 clips.", "She has 48 + 96 = 144 clips.", "144")
        assert judgement.first_error == 1

    def test_a_true_root_is_no_error(self):
        problem = Problem(
            "p", "A rectangle has sides of 6 cm and 8 cm. What are its diagonal and its perimeter together?"
        )
        gold = Gold(
            "p", ("38",), ("The diagonal is √(6² + 8²) = 10 cm.", "The perimeter is 2 * (6 + 8) = 28 cm.", "38")
        )
        steps = ("√(6² + 8²) = √100 = 10 cm", "The perimeter is 2 * (6 + 8) = 30 cm.", "10 + 30 = 40", "40")
        judgement = alignment.alignment(TASK, problem, gold, solution(*steps, answer="40"))
        assert judgement.first_error == 1 and judgement.steps[0].explanation == ""

    def test_scores_fall_from_step_to_step(self):
        scores = [step.score for step in self.judge("48 / 2 = 24", "48 + 24 = 73", "73 - 1", "75").steps]
        assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] < scores[0] <= 1

    def test_the_fit_finds_what_tells_first_errors(self):
        rng = np.random.default_rng(0)
        cases = []
        for _ in range(60):
            table = rng.normal(size=(5, len(alignment.FEATURES)))
            cases.append((table, int(table[:, alignment.FEATURES.index("false_equation")].argmax())))
        weights = alignment.fit(cases, strength=0.1)
        assert max(weights, key=lambda name: weights[name]) == "false_equation"
