"""Rollouts and tree search, against policies whose success can be reckoned."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from judge_cases import GOLD, PROBLEM, TASK, TOKENIZER, ask, completion, solution

from spare_jax.formats import omegaprm
from spare_jax.judges.rollouts import RolloutSettings, rollouts
from spare_jax.judges.tree_search import TreeSettings, tree_search
from spare_jax.programs import Failure
from spare_jax.prompts.chat import encode
from spare_jax.prompts.solve import piece_ids, split_solution
from spare_jax.records import Gold, Solution

SETTINGS = RolloutSettings(max_length=10_000, max_tokens=50, samples=4)


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

    def test_where_the_context_is_full_a_step_has_no_label(self):
        full = len(ask_prompt()) + 2
        judgement, requests = self.judge(("step a", "step b", "9"), lambda n: 4, max_length=full)
        assert not requests and [step.label for step in judgement.steps] == [None, None, False]

    def test_a_rollout_that_was_cut_off_or_says_nothing_is_none(self):
        """The second step states the right answer: what goes on behind it must say so itself."""
        cut = dataclasses.replace(completion("more\n8"), finish_reason="length")
        for ended, scores in (
            ([cut] * 4, [None, None]),
            ([completion("")] * 4, [None, None]),
            ([cut, completion(""), completion("8"), completion("9")], [0.5, 0.5]),
            ([completion("so be it")] * 4, [0.0, 0.0]),
        ):
            candidate = solution("step a", "8", "9", answer="9")
            program = rollouts(TASK, PROBLEM, GOLD, candidate, TOKENIZER, "none", SETTINGS)
            judgement, _ = ask(program, lambda _, ended=ended: tuple(ended))
            assert [step.score for step in judgement.steps] == [*scores, 0.0]
            assert [step.label for step in judgement.steps[:2]] == [None if s is None else s > 0 for s in scores]

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
    assert [TOKENIZER.decode(piece).strip(" ") for piece in other] == ["step a\n", "step b\n", "8"]


class TestTreeSearch:
    def judge(self, n_steps, first_error, searches=1):
        """A solution whose steps are right up to `first_error` (0-based): behind it no rollout ends right."""
        steps = tuple(f"step {i}" for i in range(n_steps))
        candidate = solution(*steps, answer=steps[-1])
        how = TreeSettings(**vars(SETTINGS), searches=searches)
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
            tree_search(TASK, PROBLEM, GOLD, candidate, TOKENIZER, "none", TreeSettings(**vars(SETTINGS))),
            policy(lambda n: 0),
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
