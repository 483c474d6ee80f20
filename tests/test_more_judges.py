"""Judges by rollouts, tree search, verification, alignment and ensemble: each against a model that can be reckoned."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from small_tokenizer import small_tokenizer
from test_judges import EmptyJournal

from spare_jax.engines.scripted import ScriptedEngine
from spare_jax.formats import omegaprm
from spare_jax.judges import alignment, ensemble, votes
from spare_jax.judges.rollouts import RolloutSettings, rollouts
from spare_jax.judges.tree_search import TreeSettings, tree_search
from spare_jax.judges.verify import VerifySettings, verify
from spare_jax.programs import Completion, Failure, run
from spare_jax.prompts import verify as prompt
from spare_jax.prompts.chat import encode
from spare_jax.prompts.solve import piece_ids, split_solution
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement
from spare_jax.tasks.task import Task

TOKENIZER = small_tokenizer()
TASK = Task(
    name="toy",
    instruction="Solve it.",
    guidelines="Grade it.",
    error_categories=(),
    extract_answer=lambda steps: steps[-1] if steps else None,
    answers_equal=lambda answer, golds: answer in golds,
)
PROBLEM, GOLD = Problem("p", "How many?"), Gold("p", ("8",), ("3 + 5 = 8.",))
SETTINGS = RolloutSettings(max_length=10_000, max_tokens=50, samples=4)


def solution(*steps, answer=None):
    return Solution("p/0", "p", steps, answer, "stop")


def ask(program, answer):
    """The program's result, and its requests, of a model that answers a request by `answer(request)`."""
    requests = []

    def record(request):
        requests.append(request)
        return answer(request)

    engine = ScriptedEngine(record)
    ((_, result),) = run({"generator": engine, "judge": engine}, [("program", lambda: program)], EmptyJournal())
    return result, requests


def completion(text):
    ids = (*encode(TOKENIZER, text), TOKENIZER.eos_token_id)
    return Completion(ids=ids, logprobs=(-0.1,) * len(ids))


def policy(right_behind):
    """A policy whose k-th rollout ends right where `right_behind(number of steps before it)` exceeds k."""

    def answer(request):
        behind = TOKENIZER.decode(request.all_ids()).count("step")
        return tuple(completion(f"more\n{8 if k < right_behind(behind) else 9}") for k in range(request.n))

    return answer


class TestRollouts:
    def judge(self, steps, right_behind, **changes):
        candidate = solution(*steps, answer=steps[-1])
        how = dataclasses.replace(SETTINGS, **changes)
        return ask(rollouts(TASK, PROBLEM, GOLD, candidate, TOKENIZER, "none", how), policy(right_behind))

    def test_scores_are_shares_and_labels_whether_any_rollout_ends_right(self):
        judgement, requests = self.judge(("step a", "step b", "step c", "9"), lambda n: 3 - n)
        assert [step.score for step in judgement.steps] == [0.5, 0.25, 0.0, 0.0]
        assert [step.label for step in judgement.steps] == [True, True, False, False]
        assert judgement.outcome is False and len(requests) == 3
        assert [request.n for request in requests] == [4, 4, 4]

    def test_the_last_step_is_the_outcome_and_asks_nobody(self):
        judgement, requests = self.judge(("8",), lambda n: 0)
        assert [(step.label, step.score) for step in judgement.steps] == [(True, 1.0)] and not requests

    def test_a_threshold_makes_labels_stricter(self):
        judgement, _ = self.judge(("step a", "step b", "9"), lambda n: 3 - n, threshold=0.25)
        assert [step.label for step in judgement.steps] == [True, False, False]

    def test_prefixes_share_what_they_have_in_common(self):
        _, requests = self.judge(("step a", "step b", "step c", "9"), lambda n: 0)
        for shorter, longer in itertools.pairwise(requests):
            assert longer.prefix.parent == shorter.prefix and longer.ids == ()

    def test_tokens_are_counted(self):
        judgement, requests = self.judge(("step a", "step b", "9"), lambda n: 0)
        assert judgement.prompt_tokens == sum(len(request.all_ids()) for request in requests)
        assert judgement.generated_tokens == 2 * 4 * len(completion("more\n9").ids)

    def test_where_the_context_is_full_a_step_is_missed(self):
        full = len(ask_prompt()) + 2
        judgement, requests = self.judge(("step a", "step b", "9"), lambda n: 4, max_length=full)
        assert not requests and [step.missed for step in judgement.steps] == [True, True, False]

    def test_no_answer_known_is_told(self):
        program = rollouts(TASK, PROBLEM, Gold("p", ()), solution("8"), TOKENIZER, "none", SETTINGS)
        result, _ = ask(program, policy(lambda n: 0))
        assert isinstance(result, Failure) and "verify, reward_model" in result.message


def ask_prompt():
    """The ids of the solve prompt."""
    _, (request, *_) = TestRollouts().judge(("step a", "9"), lambda n: 0)
    return request.prefix.parent.all_ids()


def test_pieces_join_to_what_was_sampled():
    ids = tuple(encode(TOKENIZER, "step a\n\nstep b\n8"))
    steps, spans, _ = split_solution(TOKENIZER, ids)
    sampled = Solution("p/0", "p", steps, "8", "stop", ids, spans, "mine")
    pieces = piece_ids(TOKENIZER, sampled, "mine")
    assert [*itertools.chain(*pieces)] == list(ids) and len(pieces) == 3
    other = piece_ids(TOKENIZER, sampled, "another")
    assert TOKENIZER.decode([*itertools.chain(*other)]).strip().split() == ["step", "a", "step", "b", "8"]


class TestTreeSearch:
    def judge(self, n_steps, first_error, searches=1):
        """A solution whose steps are right up to `first_error` (0-based): behind it no rollout ends right."""
        steps = tuple(f"step {i}" for i in range(n_steps))
        candidate = solution(*steps, answer=steps[-1])
        how = TreeSettings(SETTINGS, searches)
        answer = policy(lambda taken: 1 if taken <= first_error else 0)
        return ask(tree_search(TASK, PROBLEM, GOLD, candidate, TOKENIZER, "none", how), answer)

    @pytest.mark.parametrize("n_steps", [1, 2, 5, 8, 13])
    def test_finds_every_first_error_in_logarithmically_many_requests(self, n_steps):
        for first_error in range(n_steps):
            judgement, requests = self.judge(n_steps, first_error)
            assert judgement.first_error == first_error
            assert [step.label for step in judgement.steps] == [i < first_error for i in range(n_steps)]
            assert len(requests) <= np.ceil(np.log2(n_steps))

    def test_a_right_solution_is_not_searched(self):
        candidate = solution("step 0", "8", answer="8")
        judgement, requests = ask(
            tree_search(TASK, PROBLEM, GOLD, candidate, TOKENIZER, "none", TreeSettings(SETTINGS)), policy(lambda n: 0)
        )
        assert not requests and [step.label for step in judgement.steps] == [True, True]

    def test_further_searches_take_wrong_rollouts_and_the_tree_is_readable(self):
        once, asked_once = self.judge(8, 5)
        more, asked = self.judge(8, 5, searches=4)
        assert len(asked) > len(asked_once) and more.steps == once.steps
        row = json.loads(more.text)
        assert len(row["reasoning_steps"]) > len(json.loads(once.text)["reasoning_steps"])
        read = omegaprm.records_of(row, "tree")
        assert read and all(item.solution.steps[0].startswith("step 0") for item in read)


class TestVerify:
    def verification(self, *labels, answer=True):
        steps = [prompt.StepVerification("check", "looked at", label) for label in labels]
        return prompt.format_verification(steps, answer)

    def judge(self, texts, steps=("step a", "8"), **changes):
        how = VerifySettings(**{"max_length": 100_000, "max_tokens": 500, "votes": len(texts)} | changes)
        answer = lambda request: tuple(completion(text) for text in texts)  # noqa: E731
        return ask(verify(TASK, PROBLEM, solution(*steps), TOKENIZER, how), answer)

    def test_reads_its_verdicts(self):
        judgement, (request,) = self.judge([self.verification(True, False, answer=False)])
        assert [step.label for step in judgement.steps] == [True, False] and judgement.outcome is False
        assert judgement.steps[0].explanation == "check: looked at"
        assert request.n == 1 and request.temperature == 0

    def test_votes_count_step_by_step(self):
        texts = [self.verification(*labels) for labels in ((True, False), (True, True), (False, False))]
        judgement, _ = self.judge(texts, temperature=1.0)
        assert [step.label for step in judgement.steps] == [True, False]
        assert [step.score for step in judgement.steps] == [2 / 3, 1 / 3]

    def test_a_step_without_a_verdict_is_missed(self):
        judgement, _ = self.judge(["## Step 2: x\ny\n**This step is correct.**"])
        assert [(step.label, step.missed) for step in judgement.steps] == [(None, True), (True, False)]
        assert judgement.outcome is None

    def test_where_the_prompt_fills_the_context_nothing_is_asked(self):
        judgement, requests = self.judge([""], max_length=10)
        assert not requests and "no room" in judgement.failure and all(step.missed for step in judgement.steps)


RIGHT, WRONG, SILENT = StepJudgement(label=True), StepJudgement(label=False), StepJudgement(missed=True)


def test_majority_breaks_ties_by_the_first_answer_with_a_label():
    voted = votes.majority([(SILENT, WRONG, SILENT), (WRONG, RIGHT, SILENT), (RIGHT, SILENT, SILENT)])
    assert [step.label for step in voted] == [False, False, None]
    assert [step.score for step in voted] == [0.5, 0.5, None]


def judged(name, *steps):
    return Judgement("p/0", name, steps, True, prompt_tokens=3, generated_tokens=2)


class TestEnsemble:
    PAIRS = (judged("a", RIGHT, RIGHT, WRONG, WRONG, SILENT), judged("b", RIGHT, WRONG, WRONG, SILENT, SILENT))

    @pytest.mark.parametrize(
        ("rule", "labels"),
        [
            ("agreement", [True, None, False, False, None]),
            ("union", [True, False, False, False, None]),
            ("intersection", [True, True, False, False, None]),
            ("majority", [True, False, False, False, None]),
        ],
    )
    def test_rules(self, rule, labels):
        combined = ensemble.combine(self.PAIRS, rule)
        assert [step.label for step in combined.steps] == labels
        assert [step.score is None for step in combined.steps] == [label is None for label in labels]
        assert (combined.prompt_tokens, combined.generated_tokens) == (6, 4)

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
