"""Judges: labels under every policy, programs against scripted models, controls, and what may enter which pool."""

import dataclasses
import json
import subprocess
import sys

import judge_cases
import pytest
from small_tokenizer import TAG, small_tokenizer

from spare_jax.judges.conventions import TokenTagConvention
from spare_jax.judges.outcome import outcome
from spare_jax.judges.reward_model import RewardModelSettings, scores
from spare_jax.judges.spare import SpareSettings, spare
from spare_jax.judges.truth import Flips, truth
from spare_jax.programs import Completion, RequestFailed, Sample, Score
from spare_jax.prompts import annotate, solve
from spare_jax.prompts.annotate import ParsedAnnotation
from spare_jax.prompts.chat import encode, encode_chat
from spare_jax.prompts.solve import decode
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement, not_judged
from spare_jax.targets.labels import (
    LabelCounts,
    LabelPolicy,
    check_pool,
    label_steps,
    reference_solution,
    relabel,
    training_examples,
)
from spare_jax.tasks import arithmetic as arithmetic_task
from spare_jax.tasks.task import Exemplar, Task

PROBLEM = Problem("p", "How many has Ben?", ("Ada has 5.", "Ben has 3 more than Ada."))
GOLD = Gold("p", ("8",), ("Ben has 5 + 3 = 8.", "8"))
PROBLEMS = {"p": PROBLEM, "q": dataclasses.replace(PROBLEM, id="q")}
GOLDS = {"p": GOLD, "q": Gold("q", ("3",))}
RIGHT, WRONG = StepJudgement(label=True, explanation="8"), StepJudgement(label=False, explanation="8")
POOL = tuple(
    Exemplar(f"e{i}", PROBLEM, GOLD.steps, ("Ben has 8.", "8"), (RIGHT if i % 2 else WRONG, RIGHT)) for i in range(6)
)
TASK = Task(
    name="toy",
    instruction="Solve it.",
    guidelines="Grade it.",
    error_categories=("NUMERIC",),
    extract_answer=lambda steps: steps[-1] if steps else None,
    answers_equal=lambda answer, golds: answer in golds,
    exemplars=lambda: POOL,
)
TOKENIZER = small_tokenizer()
(TAG_ID,) = encode(TOKENIZER, TAG)
SETTINGS = SpareSettings(max_length=100_000, max_tokens=500, exemplars=2, grammar=False)


def solution(*steps, id="p/0", **fields):
    return Solution(id, "p", steps, steps[-1] if steps else None, "stop", **fields)


def ask(program, answer):
    """The program's result, and the requests it made of a model that answers by `answer(request)`, once."""
    return judge_cases.ask(program, lambda request: (answer(request),))


def says(text):
    """A model that writes `text` and then stops."""
    ids = (*encode(TOKENIZER, text), TOKENIZER.eos_token_id)
    return lambda request: Completion(ids=ids, logprobs=(-0.1,) * len(ids))


def silent(request):
    raise AssertionError("nothing was to be asked")


def shown(request):
    """What the annotator saw last: the user turn about the instance."""
    return TOKENIZER.decode(request.all_ids()).split("user: ")[-1]


ANNOTATION = annotate.parse('[{"student_step":1,"label":"CORRECT"},{"student_step":3,"label":"MAYBE"}]', 4)


class TestLabels:
    @pytest.mark.parametrize(
        ("policy", "outcome", "labels"),
        [  # step 1 correct, 2 missed, 3 unknown, 4 missed
            (LabelPolicy(), True, (True, False, False, True)),
            (LabelPolicy(), False, (True, False, False, False)),
            (LabelPolicy(), None, (True, False, False, False)),
            (LabelPolicy(missed="outcome"), True, (True, True, False, True)),
            (LabelPolicy(missed="outcome"), False, (True, False, False, False)),
            (LabelPolicy(missed="outcome"), None, (True, None, False, None)),
            (LabelPolicy(missed="unknown"), True, (True, None, False, True)),
            (LabelPolicy(missed="unknown", last_step_is_outcome=False), True, (True, None, False, None)),
            (LabelPolicy(last_step_is_outcome=False), True, (True, False, False, False)),
            (LabelPolicy(unknown_is_incorrect=False), True, (True, False, None, True)),
            (LabelPolicy("unknown", unknown_is_incorrect=False), False, (True, None, None, False)),
        ],
    )
    def test_policies(self, policy, outcome, labels):
        steps, counts = label_steps(ANNOTATION, 4, outcome, policy)
        assert tuple(step.label for step in steps) == labels
        assert tuple(step.missed for step in steps) == (False, True, False, True)
        assert (counts.steps, counts.missed, counts.unknown, counts.failed) == (4, 2, 1, 0)

    def test_unknown_masks_and_never_means_correct(self):
        """An ignored label that becomes "correct" makes accuracy look superb."""
        steps, _ = label_steps(ParsedAnnotation(), 3, True, LabelPolicy("unknown", last_step_is_outcome=False))
        assert [step.label for step in steps] == [None] * 3

    def test_overwriting_keeps_the_rest_of_the_record_and_is_counted(self):
        annotation = ParsedAnnotation({1: WRONG}, surplus=2, duplicates=1)
        (step,), counts = label_steps(annotation, 1, True, LabelPolicy())
        assert step == dataclasses.replace(WRONG, label=True)
        assert counts == LabelCounts(solutions=1, steps=1, overwritten=1, surplus=2, duplicates=1)
        assert label_steps(annotation, 1, False, LabelPolicy())[1].overwritten == 0
        assert counts + counts == LabelCounts(solutions=2, steps=2, overwritten=2, surplus=4, duplicates=2)

    def test_no_step_no_label(self):
        assert label_steps(ParsedAnnotation(), 0, True, LabelPolicy()) == ((), LabelCounts(solutions=1))

    def test_an_unknown_policy_is_refused(self):
        with pytest.raises(ValueError, match="incorrect, outcome, unknown"):
            LabelPolicy(missed="wrong")


class TestSpare:
    def test_one_request_one_judgement(self):
        text = annotate.format_records([WRONG, RIGHT])
        candidate = solution("Ben has 9.", "8")
        judgement, (request,) = ask(spare(TASK, PROBLEM, GOLD, candidate, TOKENIZER, SETTINGS), says(text))
        assert isinstance(request, Sample) and request.model == "annotator"
        assert (request.n, request.temperature, request.max_tokens) == (1, 0.0, 500)
        assert request.stop == (TOKENIZER.eos_token_id,)
        assert judgement == Judgement(
            "p/0",
            "spare",
            (WRONG, RIGHT),
            outcome=True,
            text=text,
            prompt_tokens=len(request.all_ids()),
            generated_tokens=len(encode(TOKENIZER, text)) + 1,
        )
        assert Judgement.from_json(json.loads(json.dumps(judgement.to_json()))) == judgement

    @pytest.mark.parametrize("text", ["", "I cannot.", "[]", '[{"student_step":7,"label":"CORRECT"}]'])
    def test_an_answer_without_records_is_no_judgement(self, text):
        judgement, _ = ask(spare(TASK, PROBLEM, GOLD, solution("9", "8"), TOKENIZER, SETTINGS), says(text))
        assert judgement == not_judged(
            solution("9", "8"),
            "spare",
            "the annotator's text has no readable record of a step",
            text,
            judgement.prompt_tokens,
            len(encode(TOKENIZER, text)) + 1,
        )

    def test_a_text_cut_at_any_length_is_no_judgement_and_keeps_its_tokens(self):
        text = annotate.format_records([WRONG, RIGHT])
        ids = tuple(encode(TOKENIZER, text))
        for length in range(0, len(ids) + 1, 7):
            cut = Completion(ids=ids[:length], finish_reason="length")
            judgement, _ = ask(spare(TASK, PROBLEM, GOLD, solution("8", "9"), TOKENIZER, SETTINGS), lambda _, c=cut: c)
            assert judgement.failure == f"the annotator's text was cut off after {length} tokens"
            assert judgement.text == decode(TOKENIZER, ids[:length]) and judgement.generated_tokens == length
            assert judgement.outcome is None and all(step == StepJudgement() for step in judgement.steps)

    def test_what_was_cut_off_or_says_nothing_does_not_vote(self):
        texts = [annotate.format_records([WRONG, RIGHT])] * 2 + ["?"] + [annotate.format_records([RIGHT, RIGHT])] * 3
        ends = ["stop", "stop", "stop", "stop", "length", "length"]
        voted = tuple(
            Completion(tuple(encode(TOKENIZER, text)), finish_reason=end) for text, end in zip(texts, ends, strict=True)
        )
        how = dataclasses.replace(SETTINGS, votes=6, temperature=1.0)
        program = spare(TASK, PROBLEM, GOLD, solution("9", "8"), TOKENIZER, how)
        judgement, _ = judge_cases.ask(program, lambda _: voted)
        assert [step.score for step in judgement.steps] == [pytest.approx(1 / 3), 1.0] and not judgement.failure

    def test_controls_see_another_reference(self):
        candidate, answer = solution("8"), says(annotate.format_records([RIGHT]))
        for steps, lines in ((GOLD.steps, ["[r1] Ben has 5 + 3 = 8.", "[r2] 8"]), ((), []), (("X.",), ["[r1] X."])):
            shown_gold = dataclasses.replace(GOLD, steps=steps)
            program = spare(TASK, PROBLEM, shown_gold, candidate, TOKENIZER, SETTINGS)
            judgement, (request,) = ask(program, answer)
            assert [line for line in shown(request).splitlines() if line.startswith("[r")] == lines
            assert judgement.outcome is True

    def test_the_draw_of_exemplars_rests_on_seed_and_solution(self):
        pool = tuple(dataclasses.replace(e, candidate=(f"candidate {e.id}", "8")) for e in POOL)
        task = dataclasses.replace(TASK, exemplars=lambda: pool)

        def drawn(seed, id):
            settings = dataclasses.replace(SETTINGS, seed=seed, exemplars=3)
            program = spare(task, PROBLEM, GOLD, solution("8", id=id), TOKENIZER, settings)
            return ask(program, says("[]"))[1][0].all_ids()

        assert drawn(0, "p/0") == drawn(0, "p/0")
        assert len({drawn(seed, id) for seed in range(3) for id in ("p/0", "p/1")}) > 3

    def test_solutions_with_one_draw_of_exemplars_declare_what_they_share(self):
        pool = tuple(dataclasses.replace(e, candidate=(f"candidate {e.id}", "8")) for e in POOL)
        task = dataclasses.replace(TASK, exemplars=lambda: pool)

        def asked(draws, i):
            settings = dataclasses.replace(SETTINGS, exemplars=3, draws=draws)
            program = spare(task, PROBLEM, GOLD, solution("8", id=f"p/{i}"), TOKENIZER, settings)
            return ask(program, says("[]"))[1][0]

        for draws, most in ((1, 1), (2, 2), (0, 20)):
            prefixes = {asked(draws, i).prefix for i in range(20)}
            assert len(prefixes) == most if draws else len(prefixes) > 5
            for prefix in prefixes:
                assert TOKENIZER.decode(prefix.ids).count("candidate") == 3, "guidelines and all exemplars"
        assert TOKENIZER.decode(asked(1, 0).prefix.ids).endswith("<|user|>user: "), "nothing of the instance"

    def test_with_a_grammar_the_request_has_it_and_a_refusal_is_told(self):
        candidate = solution("Ben has 8.", "8")
        settings = dataclasses.replace(SETTINGS, grammar=True)
        whole = says(annotate.format_records([RIGHT, RIGHT]))
        judgement, (request,) = ask(spare(TASK, PROBLEM, GOLD, candidate, TOKENIZER, settings), whole)
        assert request.grammar == annotate.grammar(2) and not request.stop and not judgement.failure
        program = spare(TASK, PROBLEM, GOLD, candidate, TOKENIZER, settings)
        next(program)
        with pytest.raises(RequestFailed, match="max_tokens=5: raise it"):
            program.throw(RequestFailed("max_tokens=5: raise it"))

    def test_exemplars_are_dropped_until_the_prompt_fits(self):
        candidate = solution("8")

        def length(n):
            settings = dataclasses.replace(SETTINGS, exemplars=n)
            return len(ask(spare(TASK, PROBLEM, GOLD, candidate, TOKENIZER, settings), says("[]"))[1][0].all_ids())

        lengths = [length(n) for n in (0, 1, 2, 3, 4)]
        assert lengths == sorted(set(lengths))
        for kept in (4, 2, 0):
            for spare_tokens, expected in ((0, kept), (-1, max(kept - 1, 0))):
                settings = dataclasses.replace(
                    SETTINGS, exemplars=4, max_length=lengths[kept] + SETTINGS.max_tokens + spare_tokens
                )
                program = spare(TASK, PROBLEM, GOLD, candidate, TOKENIZER, settings)
                judgement, (request,) = ask(program, says(annotate.format_records([RIGHT])))
                assert judgement.exemplars_dropped == 4 - expected
                assert judgement.prompt_tokens == len(request.all_ids()) == lengths[expected]
                assert len(request.all_ids()) + request.max_tokens <= settings.max_length

    def test_a_prompt_longer_than_the_context(self):
        bare = dataclasses.replace(SETTINGS, exemplars=0)
        _, (request,) = ask(spare(TASK, PROBLEM, GOLD, solution("9", "8"), TOKENIZER, bare), says("[]"))
        full = dataclasses.replace(SETTINGS, exemplars=4, max_length=len(request.all_ids()))
        failure, requests = ask(spare(TASK, PROBLEM, GOLD, solution("9", "8"), TOKENIZER, full), silent)
        assert not requests and "leaves no room for an answer" in failure.message and not failure.passing
        one_more = dataclasses.replace(full, max_length=len(request.all_ids()) + 1)
        _, (request,) = ask(spare(TASK, PROBLEM, GOLD, solution("9", "8"), TOKENIZER, one_more), says("[]"))
        assert request.max_tokens == 1

    def test_a_solution_without_steps_needs_no_annotator(self):
        judgement, _ = ask(spare(TASK, PROBLEM, GOLD, solution(), TOKENIZER, SETTINGS), silent)
        assert judgement == Judgement("p/0", "spare", outcome=False)

    def test_labels_can_be_made_anew_from_the_kept_text(self):
        text = '[{"student_step":1,"label":"CORRECT"},{"student_step":3,"label":"INCORRECT"}]'
        candidate = solution("a", "b", "8")
        judgements = {}
        for policy in (LabelPolicy(), LabelPolicy("unknown", last_step_is_outcome=False)):
            settings = dataclasses.replace(SETTINGS, **vars(policy))
            judgements[policy] = ask(spare(TASK, PROBLEM, GOLD, candidate, TOKENIZER, settings), says(text))[0]
        first, second = judgements
        assert [s.label for s in judgements[first].steps] == [True, False, True]
        assert [s.label for s in judgements[second].steps] == [True, None, False]
        assert relabel(judgements[first], second)[0] == judgements[second]
        assert relabel(judgements[second], first)[0] == judgements[first]
        assert relabel(judgements[second], first)[1].overwritten == 1


class TestOutcome:
    @pytest.mark.parametrize(("steps", "right"), [(("x", "8"), True), (("9",), False), ((), False)])
    def test_outcome(self, steps, right):
        assert outcome(TASK, GOLD, solution(*steps)) == Judgement("p/0", "outcome", outcome=right)


class TestTruth:
    CASES = tuple(arithmetic_task.WORLD.generate(3, "truth", 40))

    def judge(self, flips=None):
        steps = []
        for problem, gold in self.CASES:
            for k, at in enumerate((0, len(gold.steps) - 1)):
                wrong = [*gold.steps]
                wrong[at] = "The answer is 98."
                candidate = Solution(f"{problem.id}/{k}", problem.id, tuple(wrong), "98", "stop")
                judgement = truth(arithmetic_task.TASK, problem, gold, candidate, flips)
                assert len(judgement.steps) == len(wrong)
                steps += judgement.steps
        return steps

    def test_the_world_is_quoted(self):
        problem, gold = self.CASES[0]
        candidate = Solution("s", problem.id, gold.steps, gold.answers[0], "stop")
        judgement = truth(arithmetic_task.TASK, problem, gold, candidate)
        assert judgement.outcome is True and judgement.first_error is None and judgement.judge == "truth"
        assert judgement.steps == arithmetic_task.WORLD.truth(problem, gold, gold.steps)

    def test_flips_follow_class_and_rate(self):
        true = [step.label for step in self.judge()]
        assert set(true) == {True, False}
        assert [step.label for step in self.judge(Flips())] == true
        assert [step.label for step in self.judge(Flips(correct=1))] == [False for _ in true]
        assert [step.label for step in self.judge(Flips(incorrect=1))] == [True for _ in true]
        assert [step.label for step in self.judge(Flips(1, 1))] == [not label for label in true]
        flipped = [a is not b.label for a, b in zip(true, self.judge(Flips(correct=0.3)), strict=True) if a]
        assert 0.15 < sum(flipped) / len(flipped) < 0.45

    def test_flips_are_fixed_by_seed_and_grow_with_the_rate(self):
        def labels(rate, seed):
            return [step.label for step in self.judge(Flips(rate, rate, seed))]

        true, some, more = labels(0, 1), labels(0.2, 1), labels(0.5, 1)
        assert some == labels(0.2, 1) != labels(0.2, 2)
        assert all(b is not t for t, a, b in zip(true, some, more, strict=True) if a is not t)

    def test_every_step_of_every_solution_has_a_draw_of_its_own(self):
        flips = Flips(correct=0.5)
        problem, gold = max(self.CASES, key=lambda case: len(case[1].steps))
        drawn = set()
        for k in range(8):
            candidate = solution(*gold.steps, id=f"p/{k}")
            judgement = truth(arithmetic_task.TASK, problem, gold, candidate, flips)
            drawn.add(tuple(step.label for step in judgement.steps))
        n_steps = len(gold.steps)
        assert n_steps == 7 and len(drawn) == 8 and not drawn & {(True,) * n_steps, (False,) * n_steps}

    def test_a_task_without_a_world_has_no_truth(self):
        with pytest.raises(ValueError, match="another judge than truth"):
            truth(TASK, PROBLEM, Gold("p", ("8",)), solution("a"))

    def test_a_flipped_step_keeps_no_evidence(self):
        for step in self.judge(Flips(correct=1)):
            assert step.label is False and (step.errors or step == StepJudgement(label=False))

    def test_rates_are_checked(self):
        with pytest.raises(ValueError, match="incorrect"):
            Flips(incorrect=1.5)


def by_position(request):
    return Completion(scores=tuple(position / 1000 for position in request.positions))


class TestRewardModel:
    SETTINGS = RewardModelSettings(max_length=10_000)
    STEPS = staticmethod(TokenTagConvention("|", TAG_ID, 1, 2, "last").reader(TOKENIZER, TASK, "mine").lay_out)
    WHOLE = staticmethod(TokenTagConvention("|", TAG_ID, 1, 2, "last").reader(TOKENIZER, TASK, "mine", True).lay_out)

    def sampled(self):
        ids = encode(TOKENIZER, "Ben has 8.\n\nSo 8.\n8")
        steps, spans, _ = solve.split_solution(TOKENIZER, ids)
        return solution(*steps, token_ids=tuple(ids), spans=spans, tokenizer="mine")

    def test_a_score_at_every_tag(self):
        candidate = self.sampled()
        judgement, (request,) = ask(scores(self.STEPS, PROBLEM, candidate, self.SETTINGS), by_position)
        assert isinstance(request, Score) and len(request.positions) == 3
        assert [request.all_ids()[position] for position in request.positions] == [TAG_ID] * 3
        assert request.positions[-1] == len(request.all_ids()) - 1
        start = len(encode_chat(TOKENIZER, solve.render(TASK, PROBLEM)))
        for (a, b), tag in zip(candidate.spans, request.positions, strict=True):
            assert request.all_ids()[start:tag] == candidate.token_ids[a:b]
            start = tag + 2
        assert [step.score for step in judgement.steps] == [p / 1000 for p in request.positions]
        assert [step.label for step in judgement.steps] == [None] * 3
        assert judgement.prompt_tokens == len(request.all_ids())

    def test_steps_beyond_the_context_have_no_score(self):
        _, (request,) = ask(scores(self.STEPS, PROBLEM, self.sampled(), self.SETTINGS), by_position)
        for n_scored in (3, 2, 1):
            short = dataclasses.replace(self.SETTINGS, max_length=request.positions[n_scored - 1] + 1)
            judgement, (cut,) = ask(scores(self.STEPS, PROBLEM, self.sampled(), short), by_position)
            assert len(cut.all_ids()) <= short.max_length and cut.positions == request.positions[:n_scored]
            assert [step.score is None for step in judgement.steps] == [False] * n_scored + [True] * (3 - n_scored)
            assert not any(step.missed for step in judgement.steps)
        none = dataclasses.replace(self.SETTINGS, max_length=request.positions[0])
        failure, _ = ask(scores(self.STEPS, PROBLEM, self.sampled(), none), silent)
        assert "beyond the context" in failure.message and not failure.passing

    def test_an_outcome_model_scores_the_whole(self):
        candidate = self.sampled()
        judgement, (request,) = ask(scores(self.WHOLE, PROBLEM, candidate, self.SETTINGS), by_position)
        assert request.all_ids().count(TAG_ID) == 1 and request.positions == (len(request.all_ids()) - 1,)
        assert [step.score for step in judgement.steps] == [None, None, request.positions[0] / 1000]
        short = dataclasses.replace(self.SETTINGS, max_length=len(request.all_ids()) - 1)
        failure, _ = ask(scores(self.WHOLE, PROBLEM, candidate, short), silent)
        assert "beyond the context" in failure.message and not failure.passing

    @pytest.mark.parametrize("lay_out", [STEPS, WHOLE])
    def test_nothing_to_score(self, lay_out):
        judgement, _ = ask(scores(lay_out, PROBLEM, solution(), self.SETTINGS), silent)
        assert judgement.steps == ()


class TestTrainingExamples:
    SOLUTIONS = (
        solution("9", "8"),
        solution("9", id="p/1"),
        dataclasses.replace(solution("3", id="q/0"), problem_id="q"),
    )

    def examples(self, policy):
        judgements = {
            s.id: Judgement(s.id, "spare", (StepJudgement(label=None), *[RIGHT] * (len(s.steps) - 1)), outcome=True)
            for s in self.SOLUTIONS
        }
        return list(training_examples(TASK, PROBLEMS, self.SOLUTIONS, judgements, GOLDS, policy))

    def test_labels_go_with_their_solution(self):
        examples = self.examples(LabelPolicy())
        assert [example.solution for example in examples] == list(self.SOLUTIONS)
        assert [example.labels for example in examples] == [(None, True), (None,), (None,)]
        assert all(example.judgement.outcome is True for example in examples)

    @pytest.mark.parametrize("outcome, last", [(True, 1.0), (None, 0.25)])
    def test_a_label_that_outranks_the_judge_outranks_its_score(self, outcome, last):
        steps = (StepJudgement(label=True, score=0.75), StepJudgement(label=True, score=0.25))
        judgements = {"p/0": Judgement("p/0", "spare", steps, outcome=outcome)}

        def soft(policy):
            (example,) = training_examples(TASK, PROBLEMS, self.SOLUTIONS[:1], judgements, GOLDS, policy)
            return example.soft_labels

        assert soft(LabelPolicy()) == (0.75, last)
        assert soft(LabelPolicy(last_step_is_outcome=False)) == (0.75, 0.25)

    def test_the_reference_joins_once_per_problem_that_has_one(self):
        examples = self.examples(LabelPolicy(reference_as_sample=True))
        (added,) = [example for example in examples if example.solution not in self.SOLUTIONS]
        assert added.solution.id == "p/reference" and added.solution.steps == GOLD.steps
        assert added.labels == (True, True) and added.judgement.outcome is True
        assert TASK.answers_equal(added.solution.answer, GOLD.answers)
        assert len(examples) == len(self.SOLUTIONS) + 1

    def test_a_pool_refuses_references(self):
        check_pool(self.SOLUTIONS)
        with pytest.raises(ValueError, match="p/reference"):
            check_pool([*self.SOLUTIONS, reference_solution(TASK, GOLD)])

    def test_a_solution_that_nobody_was_asked_about_is_told(self):
        with pytest.raises(ValueError, match=r"'p/0' was not put to the judge .* config.prm.labels='spare'"):
            list(training_examples(TASK, PROBLEMS, self.SOLUTIONS, {}, GOLDS, LabelPolicy()))

    def test_labels_of_another_solution_are_refused(self):
        judgements = {"p/0": Judgement("p/0", "spare", (RIGHT,))}
        with pytest.raises(ValueError, match="2 steps"):
            list(training_examples(TASK, PROBLEMS, self.SOLUTIONS[:1], judgements, GOLDS, LabelPolicy()))


def test_these_rooms_import_neither_jax_nor_transformers():
    modules = (
        "judges.spare",
        "judges.truth",
        "judges.outcome",
        "judges.reward_model",
        "targets.labels",
        "prompts.solve",
    )
    code = "import sys\n" + "".join(f"import spare_jax.{name}\n" for name in modules)
    code += "print([m for m in ('jax', 'flax', 'transformers', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
