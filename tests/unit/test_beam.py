"""Search guided by a reward model: what goes on, what is read, and what it comes to; by scripts and by tiny models."""

import dataclasses
import itertools

import numpy as np
import pytest
from judge_cases import PROBLEM, TASK, TOKENIZER, EmptyJournal, ask
from small_tokenizer import TAG

from spare_jax import assets
from spare_jax.engines.local import LocalEngine
from spare_jax.engines.scripted import Killed, ScriptedEngine
from spare_jax.judges.reward_model import RewardModelSettings, scores
from spare_jax.models import huggingface
from spare_jax.models.heads import ReadOut
from spare_jax.programs import Completion, Failure, Sample, Score, run
from spare_jax.prompts.chat import encode, encode_chat
from spare_jax.prompts.solve import prm_ids, render, solution_ids
from spare_jax.selection.aggregate import aggregate
from spare_jax.solvers.beam import SearchSettings, read_before_steps, search
from spare_jax.solvers.sample import SolveSettings, solutions
from spare_jax.tasks import arithmetic

DIGEST = "mine"
TAG_ID = encode(TOKENIZER, TAG)[0]
PROMPT = tuple(encode_chat(TOKENIZER, render(TASK, PROBLEM)))
SETTINGS = SearchSettings(max_length=400, max_tokens=20, tokenizer_digest=DIGEST, beams=2, width=3, max_steps=6)


def lay_out(problem, solution):
    return prm_ids(TOKENIZER, TASK, problem, solution_ids(TOKENIZER, solution, DIGEST), TAG_ID)


def lines_of(request):
    """The steps that stand in a request's text: a policy's behind the prompt, a reward model's without tags."""
    text = TOKENIZER.decode(request.all_ids()[len(PROMPT) :])
    return tuple(line.replace(TAG, "").strip() for line in text.split("\n") if line.strip())


def line(text, end=False):
    ids = encode(TOKENIZER, text)
    return Completion(ids=(*ids, TOKENIZER.eos_token_id) if end else (*ids, *encode(TOKENIZER, "\n")))


def scripted(following, value):
    """A policy that goes on behind some steps as `following(steps, request)` says, by texts of which those that begin
    with "=" end; and a reward model for which the last step is worth `value(step)`."""

    def answer(request):
        steps = lines_of(request)
        if isinstance(request, Score):
            return (Completion(scores=(value(steps[-1]),)),)
        return tuple(line(text, text.startswith("=")) for text in following(steps, request)[: request.n])

    return answer


def searched(answer, how=SETTINGS, lay_out=lay_out):
    """What a search finds, and its Sample and its Score requests."""
    found, requests = ask(search(TASK, PROBLEM, TOKENIZER, lay_out, how), answer)
    samples, scorings = ([r for r in requests if isinstance(r, kind)] for kind in (Sample, Score))
    return found, samples, scorings


def digits(steps, request):
    """Another digit per sample, mixed by the steps before; the fourth step ends."""
    start = sum(int(step) for step in steps) + 3 * len(steps)
    return ["=" * (len(steps) == 3) + str((start + 7 * k) % 10) for k in range(request.n)]


def worth(step):
    return (1 + int(step.strip("="))) / 11


def reference(how, following):
    """Beam search over texts, by hand: the parents of every round, and all that ended."""
    beams, parents, ended = [()], [], []
    for round_ in range(how.max_steps):
        live = [beam for beam in beams if not beam or not beam[-1].startswith("=")]
        if not live:
            break
        parents.append(live)
        request = Sample("", (), 1, n=how.width * (how.beams if round_ == 0 else 1))
        new = [(*beam, text) for beam in live for text in following(beam, request)]
        ended += [beam for beam in dict.fromkeys(new) if beam[-1].startswith("=")]
        pool = dict.fromkeys([*(beam for beam in beams if beam not in live), *new])
        beams = sorted(pool, key=lambda beam: -worth(beam[-1]))[: how.beams]
    return parents, sorted(ended, key=lambda beam: -worth(beam[-1]))


@pytest.mark.parametrize(("beams", "width"), [(1, 1), (1, 4), (2, 3), (3, 2), (4, 4)])
def test_of_all_candidates_the_best_go_on(beams, width):
    how = dataclasses.replace(SETTINGS, beams=beams, width=width)
    found, samples, _ = searched(scripted(digits, worth), how)
    parents, ended = reference(how, digits)
    assert [lines_of(request) for request in samples] == [parent for round_ in parents for parent in round_]
    assert [solution.steps for solution in found.solutions] == ended
    assert samples[0].n == beams * width and {request.n for request in samples[1:]} == {width}
    values = [aggregate([step.score for step in j.steps], "last") for j in found.judgements]
    assert values == sorted(values, reverse=True)
    for solution, judgement in zip(found.solutions, found.judgements, strict=True):
        assert judgement.solution_id == solution.id and judgement.judge == "prm"
        assert [step.score for step in judgement.steps] == [worth(step) for step in solution.steps]


def test_what_has_ended_keeps_its_place_while_nothing_is_better():
    def following(steps, request):
        return [["=8", "7", "1", "0"], ["6", "5"], ["=9", "=4"]][len(steps)]

    found, samples, _ = searched(scripted(following, worth), dataclasses.replace(SETTINGS, width=2))
    # "=8" leaves room for one of "6" and "5".
    assert [lines_of(request) for request in samples] == [(), ("7",), ("7", "6")]
    assert [solution.steps for solution in found.solutions] == [("7", "6", "=9"), ("=8",), ("7", "6", "=4")]


def test_the_aggregation_decides_what_a_candidate_is_worth():
    def following(steps, request):
        return [["1", "8"], ["9" if steps == ("1",) else "7"], ["=5"]][len(steps)]

    first = {}
    for how in ("last", "min"):
        settings = dataclasses.replace(SETTINGS, width=1, aggregation=how, max_steps=2)
        first[how] = searched(scripted(following, worth), settings)[0].solutions[0].steps
    assert first == {"last": ("1", "9"), "min": ("8", "7")}


def test_candidates_that_say_the_same_are_one():
    found, samples, scorings = searched(
        scripted(lambda steps, r: ["5"] * r.n if len(steps) < 2 else ["=5"] * r.n, worth)
    )
    assert len(samples) == 3 and len(scorings) == 3 and len(found.solutions) == 1


def forest(steps, request, tree=itertools.cycle((0, 1))):
    """The first tree's steps are better than all of the second's."""
    if not steps:
        return ["98", "12"][next(tree)]
    return ["=9", "=8"] if steps[0] in "98" else ["=2", "=1"]


def test_trees_never_meet():
    how = dataclasses.replace(SETTINGS, width=2)
    found, samples, _ = searched(scripted(forest, worth), dataclasses.replace(how, method="dvts"))
    assert [lines_of(request) for request in samples] == [(), (), ("9",), ("2",)]
    assert [request.n for request in samples] == [2, 2, 2, 2]
    assert [s.steps for s in found.solutions] == [("9", "=9"), ("9", "=8"), ("2", "=2"), ("2", "=1")]

    def both(steps, request):
        return ["9", "8", "1", "2"] if not steps else forest(steps, request)

    _, samples, _ = searched(scripted(both, worth), how)
    assert [lines_of(request) for request in samples] == [(), ("9",), ("8",)]  # one tree: its best two


def fading(steps, request):
    """ "9" is the best step, and what follows it the worst."""
    if not steps:
        return ["9", "3"] * request.n
    return ["1" if steps[0] == "9" else "6"] * request.n if len(steps) == 1 else ["=5"] * request.n


def test_lookahead_takes_the_further_value():
    how = dataclasses.replace(SETTINGS, beams=1, width=2)
    found, _, _ = searched(scripted(fading, worth), how)
    assert found.solutions[0].steps[0] == "9"
    found, samples, scorings = searched(scripted(fading, worth), dataclasses.replace(how, lookahead=1))
    assert found.solutions[0].steps == ("3", "6", "=5")
    assert [(request.n, request.temperature) for request in samples[:3]] == [(2, 1.0), (1, 0.0), (1, 0.0)]
    assert [lines_of(request) for request in samples[1:4]] == [("9",), ("3",), ("3",)]  # not what was looked ahead to
    # A step's own score stays its own; that of an ended candidate is its value.
    assert [step.score for step in found.judgements[0].steps] == [worth("3"), worth("6"), worth("5")]
    assert found.generated_tokens == sum(
        len(line(text, text[0] == "=").ids) for text in ("9", "3", "1", "6", *"66", "=5", *["=5"] * 2)
    )
    # Sampled, "6" and "=5" are what greedy decoding had come to: they are not read again.
    assert [lines_of(request)[-1] for request in scorings] == ["9", "3", "1", "6", "=5"]


def test_only_the_new_step_is_read():
    found, _, scorings = searched(scripted(digits, worth))
    prompt = read_before_steps(lay_out, PROBLEM)
    assert prompt == PROMPT
    seen = {prompt}
    for request in scorings:
        assert request.prefix.all_ids() in seen  # what an earlier request has read, piece by piece
        assert request.positions == (len(request.all_ids()) - 1,) and request.ids[-1] == TAG_ID
        assert request.ids.count(TAG_ID) == 1 and request.all_ids() not in seen
        seen.add(request.all_ids())
    assert found.scored_tokens == len(prompt) + sum(len(request.ids) for request in scorings)
    for solution in found.solutions:
        ids, positions = lay_out(PROBLEM, solution)
        assert tuple(ids[: positions[-1] + 1]) in seen


def test_a_text_that_is_laid_out_anew_is_read_anew():
    def numbered(problem, solution):
        """How many steps there are stands before them: no text begins a longer one."""
        ids, positions = lay_out(problem, solution)
        return [len(solution.steps), *ids], [position + 1 for position in positions]

    def answer(request):
        if isinstance(request, Score) and request.prefix is None:
            request = Score("prm", request.ids[1:], request.positions)
        return scripted(digits, worth)(request)

    found, _, scorings = searched(answer, lay_out=numbered)
    same, _, new_steps = searched(scripted(digits, worth))
    assert [s.steps for s in found.solutions] == [s.steps for s in same.solutions]
    assert all(request.all_ids()[0] == request.all_ids().count(TAG_ID) for request in scorings)
    assert [len(request.all_ids()) for request in scorings] == [1 + len(request.all_ids()) for request in new_steps]


def test_a_blank_line_is_no_step():
    def following(steps, request):
        text = TOKENIZER.decode(request.all_ids()[len(PROMPT) :]) if isinstance(request, Sample) else ""
        return ["5"] if not text else [""] if text.count("\n") == 1 else ["=7"]

    found, _, scorings = searched(scripted(following, worth), dataclasses.replace(SETTINGS, beams=1, width=1))
    assert found.solutions[0].steps == ("5", "=7") and len(scorings) == 2


def test_what_is_sampled_behind_its_end_is_dropped_and_paid():
    def answer(request):
        if isinstance(request, Score):
            return (Completion(scores=(0.5,)),)
        text = "5\n6" if len(lines_of(request)) == 0 else "=7"
        return (Completion(ids=(*encode(TOKENIZER, text), TOKENIZER.eos_token_id, *encode(TOKENIZER, "8"))),)

    found, samples, _ = searched(answer, dataclasses.replace(SETTINGS, beams=1, width=1))
    assert found.solutions[0].steps == ("5", "=7") and lines_of(samples[1]) == ("5",)
    assert found.solutions[0].token_ids[-1] == TOKENIZER.eos_token_id
    assert found.generated_tokens == len(encode(TOKENIZER, "5\n6=7")) + 4


def endless(request):
    if isinstance(request, Score):
        return (Completion(scores=(0.5,)),)
    return tuple(
        Completion(ids=tuple(encode(TOKENIZER, f"{k} " * 99)[: request.max_tokens]), finish_reason="length")
        for k in range(request.n)
    )


def test_lengths_are_bounded():
    found, samples, scorings = searched(endless)
    assert all(request.max_tokens == 20 for request in samples) and not scorings
    assert {len(s.token_ids) for s in found.solutions} == {20} and len(samples) == 1
    assert {s.finish_reason for s in found.solutions} == {"length"}
    assert all(step.score is None and not step.missed for j in found.judgements for step in j.steps)
    # Steps without end: as many as there may be, in the context that there is.
    short = dataclasses.replace(SETTINGS, max_length=len(PROMPT) + 31)
    never = scripted(lambda steps, request: [f"{k + 1}" * 4 for k in range(request.n)], lambda step: 0.5)
    for how in (SETTINGS, short, dataclasses.replace(short, lookahead=3)):
        found, samples, scorings = searched(never, how)
        assert {s.finish_reason for s in found.solutions} == {"length"}
        assert max(len(request.all_ids()) + request.max_tokens for request in samples) <= how.max_length
        assert max(len(request.all_ids()) for request in scorings) <= how.max_length
        assert max(len(s.steps) for s in found.solutions) <= how.max_steps
    found, *_ = searched(never, dataclasses.replace(SETTINGS, max_length=len(PROMPT)))
    assert isinstance(found, Failure) and "the prompt of problem p" in found.message and "raise it" in found.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "best"}, "search: method='best' is unknown: use one of beam, dvts"),
        ({"aggregation": "max"}, "search: aggregation='max' is unknown: use one of last"),
        ({"beams": 0}, "search: beams=0: set it to 1 or more"),
        ({"width": -1}, "search: width=-1"),
        ({"max_steps": 0}, "search: max_steps=0"),
        ({"max_tokens": 0}, "search: max_tokens=0"),
        ({"lookahead": -1}, "search: lookahead=-1: set it to 0 or more"),
    ],
)
def test_settings_out_of_range_are_one_clear_error(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(SETTINGS, **change)


class MemoryJournal(dict):
    """A journal that outlives a killed run."""

    def put(self, request_id, completions):
        self[request_id] = completions


def found_by(engines, how, journal, count=3):
    programs = [(str(i), lambda: search(TASK, PROBLEM, TOKENIZER, lay_out, how)) for i in range(count)]
    return dict(run(engines, programs, journal))


@pytest.mark.parametrize("change", [{}, {"method": "dvts"}, {"lookahead": 2}])
def test_killed_anywhere_it_goes_on_and_order_does_not_matter(change):
    how = dataclasses.replace(SETTINGS, **change)
    answer = scripted(digits, worth)

    def engines(**options):
        return dict.fromkeys(("generator", "prm"), ScriptedEngine(answer, **options))

    unbroken = found_by(engines(), how, EmptyJournal())
    assert found_by(engines(per_poll=1, newest_first=True), how, EmptyJournal()) == unbroken
    journal, kills = MemoryJournal(), 0
    while True:
        try:
            resumed = found_by(engines(kill_after=5, per_poll=2), how, journal)
            break
        except Killed:
            kills += 1
    assert resumed == unbroken and kills > 3


# By tiny-base, as policy and, read at tags it was never trained on, as reward model


@dataclasses.dataclass(frozen=True)
class Local:
    """tiny-base in two engines, three problems of its world, and how it reads solutions as a reward model."""

    checkpoint: huggingface.Checkpoint
    problems: tuple
    how: SearchSettings

    def lay_out(self, problem, solution):
        tokenizer = self.checkpoint.tokenizer
        ids = solution_ids(tokenizer, solution, self.how.tokenizer_digest)
        return prm_ids(tokenizer, arithmetic.TASK, problem, ids, encode(tokenizer, TAG)[0])

    def engines(self, slots=32):
        sizes = {"pad_id": 0, "seed": 3, "slots": slots, "max_length": 256, "chunk": 4, "prefill_tokens": 512}
        of = self.checkpoint
        return {
            "generator": LocalEngine(of.model, of.config, **sizes),
            "prm": LocalEngine(of.model, of.config, read_out=ReadOut((5, 6)), **sizes),
        }

    def found(self, engines, journal=None, **changes):
        how, tokenizer = dataclasses.replace(self.how, **changes), self.checkpoint.tokenizer
        programs = [(p.id, lambda p=p: search(arithmetic.TASK, p, tokenizer, self.lay_out, how)) for p in self.problems]
        return dict(run(engines, programs, EmptyJournal() if journal is None else journal))


@pytest.fixture(scope="module")
def local():
    checkpoint = huggingface.load(assets.resolve("tiny-base"))
    digest = huggingface.tokenizer_digest(checkpoint.tokenizer)
    problems = tuple(problem for problem, _ in arithmetic.WORLD.generate(5, "test", 3))
    how = SearchSettings(max_length=256, max_tokens=40, tokenizer_digest=digest, beams=2, width=2, max_steps=8)
    return Local(checkpoint, problems, how)


@pytest.mark.parametrize("change", [{}, {"method": "dvts", "lookahead": 1}])
def test_every_token_is_read_once_and_scores_are_those_of_the_whole_text(local, change):
    engines = local.engines()
    found = local.found(engines, **change)
    assert engines["prm"].stats["computed_tokens"] == sum(of.scored_tokens for of in found.values())
    assert engines["generator"].stats["generated_tokens"] == sum(of.generated_tokens for of in found.values())
    settings = RewardModelSettings(256)
    for problem in local.problems:
        of = found[problem.id]
        assert of.solutions and of.prompt_tokens == of.solutions[0].prompt_tokens
        for solution, judgement in zip(of.solutions, of.judgements, strict=True):
            whole = run(
                engines, [("", lambda p=problem, s=solution: scores(local.lay_out, p, s, settings))], EmptyJournal()
            )
            ((_, expected),) = whole
            np.testing.assert_allclose(
                [step.score for step in judgement.steps], [step.score for step in expected.steps], atol=1e-5
            )


def test_a_search_is_the_same_whatever_shares_its_engine_and_goes_on_by_its_journal(local):
    journal = MemoryJournal()
    found = local.found(local.engines(), journal)
    assert local.found(local.engines(slots=6)) == found
    half = MemoryJournal(itertools.islice(journal.items(), len(journal) // 2))
    engines = local.engines()
    assert local.found(engines, half) == found
    assert engines["generator"].stats["requests"] + engines["prm"].stats["requests"] == len(journal) - len(journal) // 2


def test_a_search_of_one_is_a_plain_solution(local):
    """One beam, one way on, greedily: the tokens that sampling the whole solution gives, in the same record."""
    found = local.found(local.engines(), beams=1, width=1, temperature=0.0)
    settings = SolveSettings(1, 0.0, 1.0, 120, local.how.tokenizer_digest)
    tokenizer = local.checkpoint.tokenizer
    programs = [(p.id, lambda p=p: solutions(arithmetic.TASK, p, tokenizer, settings)) for p in local.problems]
    for problem_id, (plain,) in run(local.engines(), programs, EmptyJournal()):
        (solution,) = found[problem_id].solutions
        assert solution == dataclasses.replace(plain, mean_logprob=None)
        assert found[problem_id].generated_tokens == len(plain.token_ids)
