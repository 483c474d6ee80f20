"""What was not judged is in no figure: it is neither a zero nor "no error found", and it is counted."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from chat_server import Server
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_config import config_of

from spare_jax import main
from spare_jax.engines import endpoint
from spare_jax.evaluation import summary
from spare_jax.evaluation.accuracy import Pool, chosen_right, oracle, pass_at_1, pass_at_n, selection_metrics
from spare_jax.evaluation.approvals import approvals
from spare_jax.evaluation.baselines import fit_position_baseline, length_scores
from spare_jax.evaluation.curves import accuracy_by_n, accuracy_curves, tokens_by_n
from spare_jax.evaluation.missing import Missing, headlines, refusal, why_not_judged
from spare_jax.evaluation.prm_score import prm_bench_metrics
from spare_jax.evaluation.process_bench import process_bench_metrics
from spare_jax.evaluation.process_errors import (
    first_error,
    first_error_difference,
    first_error_interval,
    first_error_metrics,
    first_false,
    judge_metrics,
    right_answer_wrong_process,
    said_first_error,
    threshold_sweep,
)
from spare_jax.evaluation.statistics import bootstrap, macro_bootstrap, mean_or_none, paired_bootstrap
from spare_jax.pipelines import policies
from spare_jax.prompts.annotate import format_records
from spare_jax.records import UNDECIDED, Gold, Judgement, LabelledSolution, Problem, Solution, StepJudgement, not_judged
from spare_jax.runs import splits
from spare_jax.runs.run import Run, StageFailed
from spare_jax.storage.store import WorkDir
from spare_jax.targets.labels import LabelPolicy

pytestmark = pytest.mark.filterwarnings("error")  # a division by nothing must not even warn

UNLABELLED = Missing("unlabelled")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((True, False, None), 1),
        ((False, None, None), 0),
        ((True, True), None),
        ((), None),
        ((None, False), UNLABELLED),  # the unknown step may have been the first wrong one
        ((True, None, False), UNLABELLED),
        ((True, None), UNLABELLED),  # no error was found where nobody looked
        ((None,), UNLABELLED),
    ],
)
def test_a_first_error_is_told_where_all_before_it_is_known(labels, expected):
    assert first_false(labels) == expected
    scores = [None if label is None else 0.9 if label else 0.1 for label in labels]
    assert first_error(scores, 0.5) == expected


def test_a_judgement_that_failed_or_looks_at_no_step_has_no_first_error():
    s = Solution("s", "p", ("a", "b"), None, "stop")
    assert said_first_error(not_judged(s, "j", "the server is down"), 2) == Missing("judge failed")
    assert said_first_error(not_judged(s, "j", "cut off", "half a te"), 2) == Missing("unreadable")
    assert said_first_error(Judgement("s", "outcome", outcome=True), 2) == UNLABELLED
    assert said_first_error(not_judged(dataclasses.replace(s, steps=()), "j", "down"), 0) == Missing("judge failed")


first_errors = st.none() | st.integers(0, 2) | st.sampled_from([UNLABELLED, Missing("judge failed")])


@given(st.lists(st.tuples(first_errors, first_errors, st.sampled_from([True, False, None])), max_size=20))
@settings(deadline=None, max_examples=40)
def test_measures_are_those_of_the_rows_that_are_there(rows):
    said, truth, right = [list(of) for of in zip(*rows, strict=True)] or [[], [], []]
    there = [(s, t, r) for s, t, r in rows if not isinstance(s, Missing) and not isinstance(t, Missing)]
    s, t, _ = [list(of) for of in zip(*there, strict=True)] or [[], [], []]
    found, alone = first_error_metrics(said, truth), first_error_metrics(s, t)
    assert found | {"missing": {}} == alone
    assert sum(found["missing"].values()) == len(rows) - len(there)
    problems = [str(i) for i, row in enumerate(rows)]
    of_there = [p for p, row in zip(problems, rows, strict=True) if row in there]
    assert first_error_interval(said, truth, problems, 1) == first_error_interval(s, t, of_there, 1)
    everywhere = first_error_difference(said, [0] * len(rows), truth, problems, 1)
    assert everywhere == first_error_difference(s, [0] * len(s), t, of_there, 1)
    decided = [row for row in there if row[2] is not None]
    hidden = right_answer_wrong_process(said, truth, right)
    columns = [list(of) for of in zip(*decided, strict=True)] or [[], [], []]
    assert hidden | {"missing": {}} == right_answer_wrong_process(*columns)
    assert sum(hidden["missing"].values()) == len(rows) - len(decided)


def test_a_sweep_knows_at_each_threshold_who_is_judged():
    # The second solution was not read to its end: at .5 its error is found, at .2 nobody knows.
    rows = threshold_sweep([[0.9, 0.1], [0.3, None]], [1, 0], [0.05, 0.2, 0.5])
    assert [row["n"] for row in rows] == [1, 1, 2]
    assert [row["error_accuracy"] for row in rows] == [0.0, 1.0, 1.0]
    assert threshold_sweep([[None]], [None], [0.5])[0]["correct_accuracy"] is None


def bench_rows(n, seed=0):
    """Rows of a benchmark with people's labels, and a judge that is right three times in four."""
    rng = np.random.default_rng(seed)
    human, said = [], []
    for i in range(n):
        error = None if rng.random() < 0.5 else int(rng.integers(3))
        labels = [k != error for k in range(3)]
        solution = Solution(f"s{i}", f"p{i}", ("a", "b", "c"), None, "stop")
        people = Judgement(f"s{i}", "human", tuple(StepJudgement(label) for label in labels))
        human.append(LabelledSolution(Problem(f"p{i}", f"{i}?"), solution, people))
        own = [label if rng.random() < 0.75 else not label for label in labels]
        said.append(Judgement(f"s{i}", "j", tuple(StepJudgement(label) for label in own)))
    return human, said


def failing(human, said, every):
    """Every so-manieth judgement failed, by turns down and cut off."""
    return [
        not_judged(item.solution, "j", "down", "half" * (i % (2 * every) > 0)) if i % every == 0 else judgement
        for i, (item, judgement) in enumerate(zip(human, said, strict=True))
    ]


def test_process_bench_of_a_judge_that_fails_on_half_is_that_of_the_other_half():
    human, said = bench_rows(60)
    mixed = process_bench_metrics(human, failing(human, said, 2), [None] * 60, 0)
    half = process_bench_metrics(human[1::2], said[1::2], [None] * 30, 0)
    judge = mixed["test"]["judge"]
    assert judge["missing"] == {"judge failed": 15, "unreadable": 15} and judge["n_error"] + judge["n_correct"] == 30
    assert judge | {"missing": {}} == half["test"]["judge"] and half["test"]["judge"]["f1"] > 0.3
    assert mixed["test"]["n"] == 60 and mixed["test"]["always_first"]["n_error"] > half["test"]["judge"]["n_error"]
    # Half is too much for a headline.
    assert mixed["headline"] == {"test.judge.f1": None} and "30 of 60" in mixed["reasons"]["headline.test.judge.f1"]
    assert half["headline"] == {"test.judge.f1": half["test"]["judge"]["f1"]} and "reasons" not in half


def test_process_bench_of_a_dead_server_says_nothing():
    human, said = bench_rows(10)
    dead = process_bench_metrics(human, failing(human, said, 1), [None] * 10, 0)
    judge = dead["test"]["judge"]
    assert {judge[key] for key in ("f1", "error_accuracy", "correct_accuracy", "low", "high")} == {None}
    assert judge["n_error"] == judge["n_correct"] == 0 and sum(judge["missing"].values()) == 10
    assert dead["threshold"] is None and dead["headline"] == {"test.judge.f1": None}
    assert dead["test"]["never_wrong"]["correct_accuracy"] == 1.0  # needs no judge
    # That no accepted answer is known is not that the answers are wrong.
    assert dead["test"]["final_answer_only"]["missing"] == {"undecided": 10}
    json.dumps(dead, allow_nan=False)


def test_a_reward_model_beyond_its_context_finds_no_error_there():
    human, _ = bench_rows(400)
    scores = [[0.9 if label else 0.1 for label in item.labels] for item in human]
    said = [Judgement(i.solution.id, "j", tuple(map(judged, of))) for i, of in zip(human, scores, strict=True)]
    whole = process_bench_metrics(human, said, [None] * 400, 0)
    assert whole["test"]["judge"]["f1"] == 1.0 and whole["test"]["judge"]["missing"] == {}
    # Every third solution is read to its second step alone.
    cut = [
        dataclasses.replace(j, steps=(*j.steps[:2], StepJudgement())) if i % 3 == 0 else j for i, j in enumerate(said)
    ]
    metrics = process_bench_metrics(human, cut, [None] * 400, 0)
    unread = [
        i for i in range(0, 400, 3) if first_false(human[i].labels[:2]) is None and not process_bench_is_dev(i, 400)
    ]
    judge = metrics["test"]["judge"]
    assert judge["missing"] == {"unlabelled": len(unread)} and len(unread) > 30
    assert judge["f1"] == 1.0 and judge["n_correct"] < whole["test"]["judge"]["n_correct"]
    assert metrics["threshold_chosen_on"]["n"] + metrics["threshold_chosen_on"]["missing"]["unlabelled"] == 100


def judged(score):
    return StepJudgement(score=score)


def process_bench_is_dev(i, n):
    return i % (n // 100) == 0


def test_prm_bench_counts_the_steps_that_are_missing():
    human, said = bench_rows(30)
    truth, classes = [item.labels for item in human], ["ab"[i % 2] for i in range(30)]
    mixed, why = failing(human, said, 3), []
    why = [why_not_judged(j) for j in mixed]
    labels = [[step.label for step in j.steps] for j in mixed]
    found = prm_bench_metrics(truth, labels, classes, 0, why)
    there = [i for i in range(30) if i % 3]
    alone = prm_bench_metrics(*([rows[i] for i in there] for rows in (truth, labels, classes)), 0, [None] * len(there))
    for key in ("prm_score", "f1", "negative_f1", "step_accuracy", "low", "high", "n"):
        assert found["judge"][key] == alone["judge"][key]
    assert found["judge"]["missing"] == {"judge failed": 15, "unreadable": 15}
    assert found["classes"]["a"]["f1"] == alone["classes"]["a"]["f1"] and found["classes"]["a"]["n"] == 15
    assert sum(sum(of["missing"].values()) for of in found["classes"].values()) == 30
    assert found["headline"] == {"judge.prm_score": None}
    dead = prm_bench_metrics(truth, [[None] * 3] * 30, classes, 0, ["judge failed"] * 30)
    assert dead["judge"]["prm_score"] is dead["judge"]["low"] is dead["judge"]["step_accuracy"] is None
    assert dead["judge"]["n"] == 0 and dead["never_wrong"]["f1"] > 0
    json.dumps(dead, allow_nan=False)


def test_failed_judgements_are_in_no_rate_of_a_judge():
    human, said = bench_rows(30)
    truths = [item.judgement for item in human]
    said = [dataclasses.replace(j, prompt_tokens=10, generated_tokens=5) for j in said]
    found, alone = judge_metrics(failing(human, said, 3), truths), judge_metrics(
        [j for i, j in enumerate(said) if i % 3], truths
    )  # fmt: skip
    counts = {"missing", "first_error_missing", "parse_failure_rate"}
    assert {k: v for k, v in found.items() if k not in counts} == {k: v for k, v in alone.items() if k not in counts}
    assert found["missing"] == found["first_error_missing"] == {"judge failed": 5, "unreadable": 5}
    assert found["n_solutions"] == found["first_error_n"] == 20 and found["tokens_per_solution"] == 15
    assert found["parse_failure_rate"] == 5 / 25  # of the texts that there are
    dead = judge_metrics(failing(human, said, 1), truths)
    assert {dead[key] for key in ("step_accuracy", "kappa", "first_error_f1", "missed_step_rate")} == {None}


def test_approvals_are_of_answers_that_were_judged():
    s = Solution("s", "p", ("a",), None, "stop")
    yes, no = (Judgement("s", "j", (StepJudgement(said),), outcome=said) for said in (True, False))
    open_ = Judgement("s", "j", (StepJudgement(True),))
    judgements = [yes, no, not_judged(s, "j", "down"), open_, yes]
    found = approvals([s] * 5, judgements, [True, False, False, False, None])
    assert found["right"] == {"n": 1, "yes": 1, "sound": 1} and found["wrong"]["n"] == 1
    assert found["missing"] == {"judge failed": 1, "undecided": 1, "unlabelled": 1}


POOLS = [
    Pool("right", ("1", "1", "2"), (True, True, False), (5, 5, 5), 3),
    Pool("wrong", ("2", "2", None), (False, False, False), (5, 5, 5), 3),
    Pool("not sampled", (), ()),
    Pool("undecided", ("x", "x", "2"), (None, None, False), (5, 5, 5), 3),
    Pool("half decided", ("1", "1", "x"), (True, True, None), (5, 5, 5), 3),
]


def test_problems_are_missing_where_nobody_knows_whether_they_are_solved():
    assert chosen_right(POOLS, "majority").tolist() == pytest.approx([1, 0, math.nan, math.nan, 1], nan_ok=True)
    assert pass_at_1(POOLS) == pytest.approx((2 / 3 + 0 + 0 + 1) / 4)
    assert pass_at_n(POOLS, 3) == oracle(POOLS) == 0.5
    scores = [[[0.9], [0.5], [0.1]], [[0.5], [], [None]], [], [[0.1], [0.2], [0.9]], [[0.1], None, [0.9]]]
    metrics = selection_metrics(POOLS, {"prm": scores})
    assert metrics["n"]["majority"] == 3 and metrics["majority"] == pytest.approx(2 / 3)
    assert metrics["intervals"]["majority"]["missing"] == {"no solution": 1, "undecided": 1}
    assert metrics["intervals"]["oracle"]["missing"] == {"no solution": 1}
    # The ranker failed on a candidate of the last problem. One that has no score by design ranks last.
    assert metrics["intervals"]["prm"]["missing"] == {"judge failed": 1, "no solution": 1}
    assert metrics["n"]["prm"]["best_of_n"]["last"] == 3 and metrics["prm"]["best_of_n"]["last"] == pytest.approx(1 / 3)
    assert metrics["prm_minus_majority"]["n"] == 2
    assert metrics["prm_minus_majority"]["missing"] == {"judge failed": 1, "no solution": 1, "undecided": 1}
    json.dumps(metrics, allow_nan=False)
    curves = accuracy_curves(POOLS, {"prm": scores}, {"prm": [[1, 1, 1], [1, 1, 1], [], [1, 1, 1], [1, 1, 1]]})
    json.dumps(curves, allow_nan=False)
    assert curves["majority"]["accuracy"][-1] == pytest.approx(2 / 3)
    assert curves["prm"]["best_of_n"]["last"][-1] == pytest.approx(1 / 3)
    assert curves["majority"]["tokens"] == tokens_by_n([pool for pool in POOLS if pool.answers])
    # Of a candidate on which the reward model failed nobody knows what scoring it would have taken.
    assert tokens_by_n(POOLS[:3], [[1, None, 3], [None, None, None], []]) == [3 + 5 + 2, 3 + 10 + 4, 3 + 15 + 6]
    assert accuracy_by_n(POOLS[2:3], "majority") == []
    assert accuracy_by_n([Pool("p", ("x",), (None,))], "majority") == [None]


@given(st.lists(st.sampled_from(POOLS), max_size=6), st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_problems_that_were_not_sampled_change_no_figure(pools, extra):
    pools = [dataclasses.replace(pool, problem_id=f"{pool.problem_id} {i}") for i, pool in enumerate(pools)]
    pools = [pool for pool in pools if pool.answers]
    scores = [[[0.1 * i] for i, _ in enumerate(pool.answers)] for pool in pools]
    more, more_scores = [*pools, *[Pool(f"q{i}", (), ()) for i in range(extra)]], [*scores, *[[]] * extra]

    def figures(of, ranked):
        text = json.dumps([selection_metrics(of, {"prm": ranked}), accuracy_curves(of, {"prm": ranked})])
        return re.sub(r'"missing": {[^}]*}', "", text)

    assert figures(more, more_scores) == figures(pools, scores)


def test_statistics_leave_out_what_is_missing():
    values, there = [1.0, None, 0.0, math.nan, 1.0], [1.0, 0.0, 1.0]
    assert mean_or_none(values) == mean_or_none(there) and mean_or_none([None]) is None
    assert bootstrap(values) == bootstrap(there) and bootstrap(values)["n"] == 3
    assert macro_bootstrap([values, there]) == macro_bootstrap([there, there])
    assert macro_bootstrap([values, [None]]) == {"mean": None, "low": None, "high": None, "n": 3}
    others = [0.0, 1.0, None, 1.0, 1.0]
    assert paired_bootstrap(values, others) == paired_bootstrap([1.0, 1.0], [0.0, 1.0])
    assert length_scores([(1, None), (1, True)], [1]) == length_scores([(1, True)], [1])
    assert fit_position_baseline([0, UNLABELLED], [1, 2]) == fit_position_baseline([0], [1])


@pytest.mark.parametrize(("n", "missing", "quoted"), [(95, 5, True), (94, 6, False), (0, 0, True), (0, 1, False)])
def test_a_headline_is_refused_where_more_than_a_twentieth_is_missing(n, missing, quoted):
    assert bool(refusal(n, {"judge failed": missing})) is not quoted
    figures, reasons = headlines({"a.b": (0.5, n, {"judge failed": missing})})
    assert figures == {"a.b": 0.5 if quoted else None} and (not reasons) is quoted


def records(n, answers, failed=()):
    """Problems of a test split with two solutions each by their `answers`, of which "1" is right and "?" undecided, and
    all judgements of the main job; those of the problems `failed` are failures of SPARE and the PRM."""
    problems = [Problem(f"test-{i:03d}", f"{i}?") for i in range(n)]
    solutions = [
        Solution(f"test-{i:03d}/{k}", f"test-{i:03d}", ("a", "b"), answer, "stop", (1, 2), mean_logprob=-0.5)
        for i in range(n)
        for k, answer in enumerate(answers.get(i, ("1", "2")))
    ]
    judgements = {name: {} for name in summary.JUDGES}
    for s in solutions:
        right, why = (None, UNDECIDED) if s.answer == "?" else (s.answer == "1", "")
        judgements["outcome"][s.id] = Judgement(s.id, "outcome", outcome=right, failure=why)
        labels = (True, s.answer == "1")
        judgements["truth"][s.id] = Judgement(s.id, "truth", tuple(map(StepJudgement, labels)), right)
        for name in ("spare", "prm"):
            steps = tuple(StepJudgement(label, score=0.9 if label else 0.2) for label in labels)
            text = format_records([StepJudgement(label, explanation="so", errors=()) for label in labels])
            said = Judgement(s.id, name, steps, text=text)
            if int(s.problem_id[-3:]) in failed:
                said = not_judged(s, name, "down")
            judgements[name][s.id] = said
    return problems, solutions, judgements


def metrics_of(problems, solutions, judgements):
    groups = {problem.id: "test" for problem in problems}
    how = {"seed": 0, "n_samples": 2, "groups": groups, "equal": lambda said, accepted: said in accepted}
    return summary.metrics(problems, solutions, judgements, LabelPolicy(), **how)


def test_the_main_job_s_figures_are_over_what_was_sampled_compared_and_judged():
    # Problem 0 was not sampled, of 1 no answer could be compared, on 2 both judges failed; 3 is solved half the time.
    mixed = metrics_of(*records(4, {0: (), 1: ("?", "?")}, failed=(2,)))
    alone = metrics_of(*records(4, {0: (), 1: (), 2: ()}))
    assert mixed["policy"]["missing"] == {"no solution": 1, "undecided": 1} and mixed["policy"]["n"] == 2
    assert mixed["policy"]["undecided_solutions"] == 2 and mixed["policy"]["pass_at_1"] == 0.5
    assert mixed["judges"]["spare"]["missing"] == {"judge failed": 2}
    assert mixed["judges"]["spare"]["step_accuracy"] == 1.0 and mixed["judges"]["spare"]["n_solutions"] == 4
    hidden = mixed["judges"]["spare"]["right_answer_wrong_process"]
    assert hidden["missing"] == {"judge failed": 2, "undecided": 2}
    assert mixed["selection"]["prm"] == alone["selection"]["prm"]
    why = {"judge failed": 1, "no solution": 1, "undecided": 1}
    assert mixed["selection"]["intervals"]["prm"] | {"missing": why} == mixed["selection"]["intervals"]["prm"]
    assert (
        mixed["prm"]["judge"]["missing"] == mixed["prm"]["at_half"]["missing"] == {"judge failed": 2}
        and mixed["prm"]["n"] == 6
    )
    assert mixed["prm"]["judge"]["f1"] == 1.0
    assert set(mixed["headline"].values()) == {None}
    assert "no headline: 3 of 4 are missing" in mixed["reasons"]["headline.selection.prm.weighted.last"]
    json.dumps(mixed, allow_nan=False)
    # Where all failed there is no figure, and no zero.
    dead = metrics_of(*records(4, {}, failed=range(4)))
    assert dead["selection"]["prm"]["weighted"]["last"] is dead["judges"]["spare"]["step_accuracy"] is None
    assert dead["prm"]["judge"]["correct_accuracy"] is None
    whole = metrics_of(*records(4, {}))
    assert whole["headline"]["policy.pass_at_1"] == whole["policy"]["pass_at_1"] == 0.5 and "reasons" not in whole


def test_a_policy_is_measured_on_what_it_was_asked(tmp_path):
    work = WorkDir(tmp_path)
    task = splits.task_of("math")
    ids = [f"test-{i}" for i in range(3)]
    work.write("problems", [Problem(i, "?") for i in ids])
    work.write("gold", [Gold(i, ("1",)) for i in ids])
    work.write("solutions/x", [Solution(f"{i}/0", i, ("a",), a, "stop") for i, a in zip(ids, "12", strict=False)])
    found = policies.figures(Run(work, task, 0, None), "x")["greedy"]
    assert found["accuracy"] == 0.5 and found["right"] == [1, 0, None]
    assert found["missing"] == {"no solution": 1} and found["accuracy_interval"]["n"] == 2


@pytest.fixture
def server(monkeypatch):
    found = Server()
    monkeypatch.setenv(endpoint.URL_VARIABLE, found.url)
    yield found
    found.close()


def bench(tmp_path, server, refused):
    """ProcessBench through an annotator behind a server that calls all steps right, and refuses the questions
    `refused`."""
    rows = [
        {
            "id": f"b-{i}", "generator": "g", "problem": f"What is 3 + 5, in case {i}?",
            "steps": ["3 + 5 is what is asked.", "It is so.", f"The answer is {8 if i % 2 else 9}."],
            "label": -1 if i % 2 else 2, "final_answer_correct": bool(i % 2), "reference_solution": "3 + 5 = 8\n#### 8",
        }
        for i in range(6)
    ]  # fmt: skip
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    right = format_records([StepJudgement(True, explanation="so")] * 3)

    def reply(body):
        asked = body["messages"][-1]["content"]
        if any(f"in case {i}?" in asked for i in refused):
            return 400, "no", {}
        return Server.reply(server, body, right)

    server.reply = reply
    config = config_of("processbench", "runlocal")
    config.data.path, config.judge = str(path), "spare"
    config.models.judge.path = "endpoint:m"
    main.run(config, "bench", str(tmp_path / "work"))
    return json.loads((tmp_path / "work" / "metrics.json").read_text())


def test_a_benchmark_through_a_server_that_refuses_half(tmp_path, server, caplog):
    caplog.set_level("INFO", logger="spare_jax")
    metrics = bench(tmp_path, server, refused=(0, 1, 2))
    judge = metrics["test"]["judge"]
    assert judge["missing"] == {"judge failed": 3} and judge["n_error"] == 1 and judge["n_correct"] == 2
    # It calls all steps right: it has found no error, though the outcome tells where one is.
    assert judge["correct_accuracy"] == 1.0 and judge["error_accuracy"] == 0.0
    assert metrics["headline"] == {"test.judge.f1": None}
    assert "first-error F1 0.000 on 3 rows; 3 are missing (judge failed 3)" in caplog.text
    assert "no headline: 3 of 6 are missing (judge failed 3), more than 5%" in caplog.text
    page = (tmp_path / "work" / "report.html").read_text()
    assert "3 missing: judge failed 3" in page and "no headline: 3 of 6" in page and "not judged" in page


def test_a_benchmark_through_a_dead_server_ends_without_figures(tmp_path, server):
    with pytest.raises(StageFailed, match="all of 6 failed"):
        bench(tmp_path, server, refused=range(6))
    assert not (tmp_path / "work" / "metrics.json").exists()
