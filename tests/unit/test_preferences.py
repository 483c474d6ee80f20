"""Preference data: no pair breaks its rule, order changes nothing, limits hold, and files keep what was made."""

import collections
import dataclasses
import json
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_cases import TASK
from record_strategies import TEXT

from spare_jax.formats import files
from spare_jax.records import Gold, Judgement, Problem, RecordError, Solution, StepJudgement, not_judged
from spare_jax.storage.store import WorkDir
from spare_jax.targets import preferences
from spare_jax.targets.labels import LabelPolicy, relabel
from spare_jax.targets.preferences import CUT, PairCounts, PairSettings, Scored, preference_pairs

SETTINGS = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RULES = list(preferences.RULES)
rules = pytest.mark.parametrize("rule", RULES)
# Few texts and few labels, so that solutions often begin alike, are often the same and err behind right steps.
STEPS = st.sampled_from([tuple(text) for text in ("aa", "ab", "aba", "abb", "aab", "bb", "b", "")])
T, F, N = True, False, None
LABELS = st.sampled_from([(T, T, T), (T, T, T), (T, F, T), (T, F, F), (T, T, F), (F, T, T), (N, T, F), (N, N, N)])
LIMITS = st.fixed_dictionaries(
    {
        "sampled_pairs": st.none() | st.integers(0, 4),
        "pairs_per_problem": st.none() | st.integers(0, 4),
        "cap": st.none() | st.integers(0, 8),
        "reference_as_chosen": st.booleans(),
        "seed": st.integers(0, 3),
    }
)


def test_a_solution_that_was_not_judged_at_all_is_told():
    solutions = [Solution("p/0", "p", ("a",), None, "stop")]
    with pytest.raises(ValueError, match=r"'p/0' has no judgement .* run the stage judge"):
        preference_pairs(TASK, {"p": Problem("p", "?")}, {}, solutions, {}, PairSettings())


@dataclasses.dataclass(frozen=True)
class Split:
    problems: dict
    golds: dict
    solutions: list
    judgements: dict

    def pairs(self, rule, **limits):
        limits = {"sampled_pairs": None, "pairs_per_problem": None} | limits
        return preference_pairs(TASK, **vars(self), settings=PairSettings(rule, **limits))

    def scored(self, solution_id):
        """What the judgements say of the solution that a pair's one was made of."""
        whole = solution_id.rpartition("[:")[0] or solution_id
        for gold in self.golds.values():
            if whole == f"{gold.problem_id}/reference":
                reference = Solution(whole, gold.problem_id, gold.steps, None, "")
                return Scored(reference, True, (True,) * len(gold.steps))
        solution = next(s for s in self.solutions if s.id == whole)
        judgement = self.judgements[whole]
        assert judgement.outcome is not None
        return Scored(solution, judgement.outcome, tuple(step.label for step in judgement.steps))


@st.composite
def splits(draw):
    """Problems whose solutions often begin alike and are often the same, or the reference."""
    split = Split({}, {}, [], {})
    for problem_id in draw(st.lists(TEXT, unique=True, min_size=1, max_size=3)):
        split.problems[problem_id] = Problem(problem_id, draw(TEXT))
        if draw(st.booleans()):
            split.golds[problem_id] = Gold(problem_id, ("a",), draw(STEPS))
        outcomes, judged = st.sampled_from([T, T, F, F, F, N]), st.sampled_from([1, 1, 1, 1, 0])
        sampled = st.tuples(STEPS, LABELS, outcomes, judged)
        for k, (texts, labels, outcome, judged) in enumerate(
            draw(st.lists(sampled, min_size=draw(st.integers(0, 5)), max_size=8))
        ):
            made = Solution(f"{problem_id}/{k}", problem_id, texts, None, "stop")
            said = tuple(StepJudgement(label) for label in labels[: judged * len(texts)])
            split.solutions.append(made)
            split.judgements[made.id] = (
                not_judged(made, "judge", "cut off")
                if outcome is None and draw(st.booleans())
                else Judgement(made.id, "judge", said, outcome)
            )
    return split


def mean(labels):
    known = [label for label in labels if label is not None]
    return Fraction(sum(known), len(known)) if known else None


def texts(pair):
    return pair.chosen.steps, pair.rejected.steps


def whole(*steps, id, **fields):
    return Solution(id, id.split("/")[0], steps, None, "stop", **fields)


def of(*judged, golds=()):
    """A split of (solution, outcome, labels)."""
    problems = {s.problem_id: Problem(s.problem_id, "?") for s, _, _ in judged}
    said = {s.id: Judgement(s.id, "j", tuple(map(StepJudgement, labels)), outcome) for s, outcome, labels in judged}
    return Split(problems, {gold.problem_id: gold for gold in golds}, [s for s, _, _ in judged], said)


class TestRules:
    @rules
    @SETTINGS
    @given(splits(), LIMITS)
    def test_no_pair_breaks_its_rule(self, rule, split, limits):
        for pair in split.pairs(rule, **limits)[0]:
            chosen, rejected = split.scored(pair.chosen.id), split.scored(pair.rejected.id)
            assert chosen.solution.problem_id == rejected.solution.problem_id == pair.problem.id
            assert pair.problem == split.problems[pair.problem.id]
            assert rejected.outcome is False and pair.chosen.steps != pair.rejected.steps
            assert limits["reference_as_chosen"] or "/reference" not in pair.chosen.id
            assert "/reference" not in pair.rejected.id
            for side, scored, scores in (
                (pair.chosen, chosen, pair.chosen_scores),
                (pair.rejected, rejected, pair.rejected_scores),
            ):
                n = len(side.steps)
                assert side.steps == scored.solution.steps[:n]
                assert [s if s is None else bool(s) for s in scores] == list(scored.labels[:n])
            if rule == "step":
                at = pair.shared_steps
                assert len(pair.chosen.steps) == len(pair.rejected.steps) == at + 1
                assert pair.chosen.steps[:at] == pair.rejected.steps[:at]
                assert pair.chosen_scores == (1.0,) * (at + 1) and pair.rejected_scores == (1.0,) * at + (0.0,)
                assert pair.chosen.finish_reason == pair.rejected.finish_reason == CUT
                assert pair.chosen.id.endswith(f"[:{at + 1}]")
            else:
                assert chosen.outcome is True and pair.shared_steps == 0
                assert (pair.chosen.steps, pair.rejected.steps) == (chosen.solution.steps, rejected.solution.steps)
            if rule == "spare":
                better, worse = mean(chosen.labels), mean(rejected.labels)
                assert better is not None and worse is not None and better > worse

    @rules
    @SETTINGS
    @given(splits())
    def test_every_allowed_pair_is_a_candidate(self, rule, split):
        """Against a second reading of the rules, by the texts of the pairs."""
        made = {(pair.problem.id, *texts(pair)) for pair in split.pairs(rule, reference_as_chosen=False)[0]}
        expected = set()
        for problem_id in split.problems:
            first = {}
            for s in sorted((s for s in split.solutions if s.problem_id == problem_id), key=lambda s: s.id):
                if s.steps and split.judgements[s.id].outcome is not None:
                    first.setdefault(s.steps, split.scored(s.id))
            for w in first.values():
                for worse in first.values():
                    if rule == "step":
                        wrong = [i for i, label in enumerate(worse.labels) if label is False]
                        n = wrong[0] + 1 if wrong else 0
                        alike = w.solution.steps[: n - 1] == worse.solution.steps[: n - 1]
                        differ = w.solution.steps[:n] != worse.solution.steps[:n]
                        good = w.labels[:n] == (True,) * n and worse.labels[: n - 1] == (True,) * (n - 1)
                        if not worse.outcome and n and alike and differ and good:
                            expected.add((problem_id, w.solution.steps[:n], worse.solution.steps[:n]))
                    elif w.outcome and not worse.outcome:
                        means = mean(w.labels), mean(worse.labels)
                        if rule == "outcome" or (None not in means and means[0] > means[1]):
                            expected.add((problem_id, w.solution.steps, worse.solution.steps))
        assert made == expected

    def test_first_error_needs_right_steps_before_it(self):
        def first(*labels):
            return Scored(whole(*"abc", id="p/0"), False, labels).first_error

        assert first(True, False, False) == 1 and first(False) == 0
        assert first(True, None, False) is None and first(True, True) is None and first() is None

    def test_outcome_pairs_need_no_labels_and_strict_ones_do(self):
        split = of((whole("a", id="p/0"), True, ()), (whole("b", id="p/1"), False, ()))
        assert [pair.id for pair in split.pairs("outcome")[0]] == ["p/0 > p/1"]
        found, counts = split.pairs("spare")
        assert not found and (counts.unlabelled, counts.unmatched, counts.no_pair) == (2, 1, 1)

    def test_labels_under_another_policy(self):
        split = of((whole(*"ab", id="p/0"), True, (None, None)), (whole(*"cd", id="p/1"), False, (None, None)))
        right = [{"student_step": number, "label": "CORRECT"} for number in (1, 2)]
        said = {"p/0": json.dumps(right), "p/1": json.dumps(right[:1])}

        def pairs(missed):
            policy = LabelPolicy(missed, last_step_is_outcome=False)
            judged = [dataclasses.replace(split.judgements[s], text=text) for s, text in said.items()]
            anew = {judgement.solution_id: relabel(judgement, policy)[0] for judgement in judged}
            return dataclasses.replace(split, judgements=anew).pairs("spare")[0]

        assert [pair.rejected_scores for pair in pairs("incorrect")] == [(1.0, 0.0)]
        assert pairs("unknown") == []

    def test_a_step_pair_keeps_the_sampled_ids_of_its_steps(self):
        ids = dict(token_ids=(1, 2, 9, 3, 9, 4), spans=((0, 2), (3, 4), (5, 6)), tokenizer="t", mean_logprob=-1.0)
        right, wrong = whole(*"abc", id="p/0", **ids), whole(*"axc", id="p/1", **ids)
        unlike = whole(*"yb", id="p/2")
        split = of((right, True, (True,) * 3), (wrong, False, (True, False, False)), (unlike, True, (True, True)))
        ((pair,), counts) = split.pairs("step")
        assert (pair.id, pair.shared_steps) == ("p/0[:2] > p/1[:2]", 1)
        assert pair.chosen == dataclasses.replace(
            right, id="p/0[:2]", steps=("a", "b"), token_ids=(1, 2, 9, 3), spans=((0, 2), (3, 4)), answer=None,
            finish_reason=CUT, mean_logprob=None,
        )  # fmt: skip
        assert counts.unmatched == 0 and counts.candidates == 1
        unspanned = dataclasses.replace(right, spans=((0, 2),))
        ((pair,), _) = of((unspanned, True, (True,) * 3), (wrong, False, (True, False, False))).pairs("step")
        assert pair.chosen.spans == pair.chosen.token_ids == () and pair.rejected.token_ids == (1, 2, 9, 3)


class TestDraws:
    @rules
    @SETTINGS
    @given(splits(), LIMITS, st.data())
    def test_the_order_of_records_changes_nothing(self, rule, split, limits, data):
        def shuffled(values):
            return dict(data.draw(st.permutations(list(values.items()))))

        other = Split(
            shuffled(split.problems),
            shuffled(split.golds),
            data.draw(st.permutations(split.solutions)),
            shuffled(split.judgements),
        )
        pairs, counts = split.pairs(rule, **limits)
        assert other.pairs(rule, **limits) == (pairs, counts)
        assert pairs == sorted(pairs, key=lambda pair: (pair.problem.id, pair.id))

    @rules
    @SETTINGS
    @given(splits(), LIMITS)
    def test_limits_hold_and_everything_is_counted(self, rule, split, limits):
        pairs, counts = split.pairs(rule, **limits)
        of_problem = collections.defaultdict(list)
        for pair in pairs:
            of_problem[pair.problem.id].append(texts(pair))
        for found in of_problem.values():
            assert len(found) == len(set(found))
            assert limits["pairs_per_problem"] is None or len(found) <= limits["pairs_per_problem"]
        assert limits["cap"] is None or len(pairs) <= limits["cap"]
        assert len({pair.id for pair in pairs}) == len(pairs) == counts.pairs
        everything = split.pairs(rule, reference_as_chosen=limits["reference_as_chosen"])[0]
        assert {pair.id for pair in pairs} <= {pair.id for pair in everything}
        assert counts.candidates == len(everything) == counts.pairs + counts.over_limit + counts.over_cap
        assert counts.reference_pairs == sum("/reference" in pair.chosen.id for pair in pairs)
        sampled = collections.Counter(pair.problem.id for pair in pairs if "/reference" not in pair.chosen.id)
        assert limits["sampled_pairs"] is None or max(sampled.values(), default=0) <= limits["sampled_pairs"]
        assert counts.no_pair == counts.problems - len(of_problem) and counts.problems == len(split.problems)

    @rules
    @SETTINGS
    @given(splits(), LIMITS)
    def test_another_seed_draws_from_the_same_candidates(self, rule, split, limits):
        one, other = (split.pairs(rule, **limits | {"seed": seed}) for seed in (1, 2))
        assert (one[1].candidates, one[1].pairs) == (other[1].candidates, other[1].pairs)
        assert split.pairs(rule, seed=1) == split.pairs(rule, seed=2)

    def test_the_seed_decides(self):
        split = of(*((whole(str(k), id=f"p/{k}"), k < 4, (k < 4,)) for k in range(8)))
        drawn = {tuple(pair.id for pair in split.pairs("spare", pairs_per_problem=2, seed=s)[0]) for s in range(20)}
        assert len(drawn) > 10

    def test_problems_draw_apart(self):
        """Whatever other problems there are, and unlike each other."""
        judged = {p: [(whole(str(k), id=f"{p}/{k}"), k < 4, (k < 4,)) for k in range(8)] for p in map(str, range(20))}
        together = of(*(item for items in judged.values() for item in items)).pairs("spare", pairs_per_problem=2)[0]
        alone = [of(*items).pairs("spare", pairs_per_problem=2)[0] for items in judged.values()]
        assert sorted(pair.id for pair in together) == sorted(pair.id for pairs in alone for pair in pairs)
        assert len({tuple(texts(pair) for pair in pairs) for pairs in alone}) > 10

    @pytest.mark.parametrize("seed", range(5))
    def test_solutions_are_used_in_turn(self, seed):
        split = of(*((whole(str(k), id=f"p/{k}"), k < 3, (k < 3,)) for k in range(6)))
        pairs = split.pairs("spare", pairs_per_problem=3, seed=seed)[0]
        assert len({pair.chosen.id for pair in pairs}) == len({pair.rejected.id for pair in pairs}) == 3

    @pytest.mark.parametrize("seed", range(5))
    def test_a_cap_takes_from_those_who_have_most(self, seed):
        sizes = {"p": 1, "q": 3, "r": 6}
        judged = [(whole("right", id=f"{p}/0"), True, (True,)) for p in sizes]
        judged += [(whole(str(k), id=f"{p}/{k}"), False, (False,)) for p, n in sizes.items() for k in range(1, n + 1)]
        for cap, expected in ((10, [1, 3, 6]), (8, [1, 3, 4]), (7, [1, 3, 3]), (5, [1, 2, 2]), (3, [1, 1, 1])):
            pairs, counts = of(*judged).pairs("outcome", cap=cap, seed=seed)
            assert sorted(collections.Counter(pair.problem.id for pair in pairs).values()) == expected
            assert counts.over_cap == 10 - cap and counts.over_limit == 0
        pairs, counts = of(*judged).pairs("outcome", cap=2, seed=seed)
        assert len({pair.problem.id for pair in pairs}) == 2 and counts.no_pair == 1
        assert of(*reversed(judged)).pairs("outcome", cap=2, seed=seed) == (pairs, counts)


class TestReference:
    @pytest.mark.parametrize("rule", ["outcome", "spare"])
    @SETTINGS
    @given(splits(), st.integers(1, 3))
    def test_it_wins_against_every_wrong_solution(self, rule, split, limit):
        every = {(pair.problem.id, *texts(pair)) for pair in split.pairs(rule)[0]}
        limited = {pair.problem.id for pair in split.pairs(rule, pairs_per_problem=limit, sampled_pairs=limit)[0]}
        for problem_id, gold in split.golds.items():
            for s in split.solutions:
                if s.problem_id != problem_id or not s.steps or not gold.steps or s.steps == gold.steps:
                    continue
                alike = [t for t in split.solutions if (t.problem_id, t.steps) == (problem_id, s.steps)]
                known = min(
                    (t for t in alike if split.judgements[t.id].outcome is not None), key=lambda t: t.id, default=s
                )
                if known.id != s.id or split.judgements[s.id].outcome is not False:
                    continue
                share = split.scored(s.id).mean_label
                beaten = rule == "outcome" or (share is not None and share < 1)
                assert ((problem_id, gold.steps, s.steps) in every) is beaten
                assert not beaten or problem_id in limited

    def test_where_no_sample_is_right(self):
        judged = [(whole(str(k), id=f"p/{k}"), False, (False,)) for k in range(3)]
        gold = Gold("p", ("8",), ("3 + 5 = 8.", "8"))
        pairs, counts = of(*judged, golds=[gold]).pairs("spare")
        assert [pair.rejected.id for pair in pairs] == ["p/0", "p/1", "p/2"]
        assert {pair.chosen.id for pair in pairs} == {"p/reference"} and pairs[0].chosen_scores == (1.0, 1.0)
        assert (counts.no_right, counts.reference_pairs, counts.unmatched) == (1, 3, 0)
        pairs, counts = of(*judged, golds=[gold]).pairs("spare", reference_as_chosen=False)
        assert (pairs, counts.no_pair, counts.unmatched) == ([], 1, 3)

    def test_a_sample_with_its_text_is_no_other_solution(self):
        gold = Gold("p", ("8",), ("8",))
        judged = [(whole("8", id="p/0"), True, (False,)), (whole("9", id="p/1"), False, (False,))]
        pairs, counts = of(*judged, golds=[gold]).pairs("spare")
        assert [pair.id for pair in pairs] == ["p/reference > p/1"]
        assert (counts.duplicates, counts.no_right, counts.candidates) == (1, 0, 1)

    def test_its_first_step_may_win_too(self):
        judged = [(whole("9", "9", id="p/0"), False, (False, False))]
        ((pair,), counts) = of(*judged, golds=[Gold("p", ("8",), ("3 + 5 = 8.", "8"))]).pairs("step")
        assert texts(pair) == (("3 + 5 = 8.",), ("9",)) and pair.shared_steps == 0 and counts.reference_pairs == 1


def test_what_is_left_out_is_counted():
    judged = [
        (whole(id="p/0"), False, ()),
        (whole("a", id="p/1"), None, (True,)),
        (whole("a", id="p/2"), True, (True,)),
        (whole("a", id="p/3"), False, (False,)),
        (whole("b", id="p/4"), False, (False,)),
        (whole("c", id="p/5"), False, (True,)),
        (whole("c", id="q/0"), True, (None,)),
    ]
    pairs, counts = of(*judged).pairs("spare")
    assert [pair.id for pair in pairs] == ["p/2 > p/4"]
    assert counts == PairCounts(
        problems=2, solutions=7, without_steps=1, without_outcome=1, duplicates=1, unlabelled=1, unmatched=1,
        no_wrong=1, no_pair=1, candidates=1, pairs=1,
    )  # fmt: skip


@rules
@SETTINGS
@given(splits(), LIMITS)
def test_what_was_not_judged_is_in_no_pair_and_changes_none(rule, split, limits):
    failed = {solution_id for solution_id, said in split.judgements.items() if said.failure}
    pairs, counts = split.pairs(rule, **limits)
    judged = dataclasses.replace(split, solutions=[s for s in split.solutions if s.id not in failed])
    without, others = judged.pairs(rule, **limits)
    assert without == pairs and counts.not_judged == sum(s.id in failed and bool(s.steps) for s in split.solutions)
    as_before = {name: value for name, value in vars(counts).items() if name in ("no_right", "no_wrong", "unmatched")}
    assert as_before.items() <= vars(others).items()


def test_problems_of_which_nothing_is_known_are_neither_right_nor_wrong():
    undecided = whole("a", id="q/0")
    split = of((whole("a", id="p/0"), True, (True,)), (whole("b", id="p/1"), False, (False,)), (undecided, None, ()))
    split.judgements["q/0"] = not_judged(undecided, "outcome", "undecided")
    split.problems["r"] = Problem("r", "never sampled")
    pairs, counts = split.pairs("outcome")
    assert [pair.id for pair in pairs] == ["p/0 > p/1"]
    assert counts == PairCounts(problems=3, not_sampled=1, solutions=3, not_judged=1, no_pair=2, candidates=1, pairs=1)


def test_solutions_of_other_splits_are_passed_over():
    split = of(*((whole(str(k), id=f"{p}/{k}"), not k, (not k,)) for p in "pq" for k in range(2)))
    train = dataclasses.replace(split, problems={"p": split.problems["p"]})
    pairs, counts = train.pairs("spare")
    assert [pair.id for pair in pairs] == ["p/0 > p/1"] and counts.solutions == 2


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="'best': set it to one of outcome, spare, step"):
        PairSettings("best")
    with pytest.raises(RecordError, match="'p/0' has 1 steps and judge 'j' labelled 2"):
        of((whole("a", id="p/0"), True, (True, True))).pairs("spare")


@rules
@SETTINGS
@given(splits())
def test_files_keep_what_was_made(tmp_path, rule, split):
    work = WorkDir(tmp_path)
    pairs, _ = split.pairs(rule)
    assert preferences.write(work, "x", pairs) == 0
    assert sorted(work.read("preferences/x"), key=lambda pair: (pair.problem.id, pair.id)) == pairs
    if not pairs:
        return  # a file without rows is an error to whoever reads it
    read = {pair.id: pair for pair in files.read(tmp_path / "trl_preference" / "x.jsonl", "trl_preference")}
    assert len(read) == len(pairs)
    for pair in pairs:
        again = read[pair.id]
        assert texts(again) == texts(pair) and again.shared_steps == pair.shared_steps
        assert (again.chosen_scores, again.rejected_scores) == (pair.chosen_scores, pair.rejected_scores)
        assert again.problem.id == pair.problem.id or pair.problem.id == ""  # an empty id is as good as none


def test_step_scores_stand_beside_the_texts_of_trl(tmp_path):
    split = of((whole(*"abc", id="p/0"), True, (True,) * 3), (whole(*"axc", id="p/1"), False, (True, False, None)))
    for rule in RULES:
        assert preferences.write(WorkDir(tmp_path), rule, split.pairs(rule)[0]) == 0
    rows = {rule: json.loads((tmp_path / "trl_preference" / f"{rule}.jsonl").read_text()) for rule in RULES}
    assert rows["spare"] == rows["outcome"] == {
        "id": "p", "prompt": "?", "chosen": "a\nb\nc", "rejected": "a\nx\nc", "chosen_id": "p/0", "rejected_id": "p/1",
        "chosen_scores": [1.0, 1.0, 1.0], "rejected_scores": [1.0, 0.0, None],
    }  # fmt: skip
    assert rows["step"] == {
        "id": "p", "prompt": "?\na", "chosen": "b", "rejected": "x", "chosen_id": "p/0[:2]", "rejected_id": "p/1[:2]",
        "chosen_scores": [1.0, 1.0], "rejected_scores": [1.0, 0.0], "shared_steps": 1,
    }  # fmt: skip


def test_no_jax_is_needed():
    code = "import sys, spare_jax.targets.preferences\n"
    code += "print([m for m in ('jax', 'flax', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
