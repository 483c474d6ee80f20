"""The search study: what plain samples cost, where two costs are equal, and the whole of it in small."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from tests_config import config_of

from spare_jax import main
from spare_jax.evaluation.curves import subsets
from spare_jax.judges.outcome import is_correct
from spare_jax.judges.truth import truth
from spare_jax.pipelines import search_study
from spare_jax.programs import Failure
from spare_jax.records import Problem, Solution, StepJudgement
from spare_jax.runs import solving, splits
from spare_jax.runs.models import EngineSettings, Generator
from spare_jax.runs.run import Run, StageFailed
from spare_jax.solvers.sample import SolveSettings
from spare_jax.storage.store import WorkDir


def sampled(k, *steps):
    """A solution whose steps are these ids, a newline (0) between them."""
    spans, ids = [], []
    for step in steps:
        spans.append((len(ids), len(ids) + len(step)))
        ids += [*step, 0]
    return Solution(f"p/{k}", "p", ("step",) * len(steps), None, "stop", tuple(ids), tuple(spans), "t", None, 10)


def test_plain_samples_cost_what_they_generate_and_every_step_once():
    a, b, c, d = (1, 2), (3,), (4, 5, 6), (7,)
    solutions = [sampled(k, *steps) for k, steps in enumerate([(a, b), (a, c), (d, b), (a, b), (d, b, c), ()])]
    reading = {
        "before_steps": {"p": 100},
        "steps": {s.id: [end - start + 2 for start, end in s.spans] for s in solutions},
    }
    found = search_study.tokens_by_n(solutions, reading, (1, 2, 6), seed=0)
    for n, (alone, both) in zip((1, 2, 6), found, strict=True):
        totals = []
        for chosen in itertools.combinations(solutions, n):
            texts = {s.token_ids[:end]: end - start + 2 for s in chosen for start, end in s.spans}
            totals.append((10 + sum(len(s.token_ids) for s in chosen), 100 + sum(texts.values())))
        assert alone == pytest.approx(np.mean([generated for generated, _ in totals]))
        assert both - alone == pytest.approx(np.mean([read for _, read in totals]))
    assert subsets(6, 2, 0).shape == (15, 6)  # all of them, as counted here


def test_equal_tokens_lie_straight_between_two_sizes():
    curve = search_study.Curve((1, 2, 4), np.array([10.0, 30.0, 70.0]), np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 0.0]]))
    for tokens, n, right in ((10, 1, [0, 1]), (20, 1.5, [0.25, 1]), (60, 3.5, [0.875, 0.25]), (70, 4, [1, 0])):
        found, values = curve.at(tokens)
        assert found == pytest.approx(n)
        np.testing.assert_allclose(values, right)
    assert curve.at(5)[0] == 1 and curve.at(700)[0] == 4


def test_plain_samples_are_scored_when_all_are_there(monkeypatch, tmp_path):
    """A journal knows scores by the place of a sample: they would be believed of others when the missing ones come."""
    run, model = Run(WorkDir(tmp_path), None, 0, None), SimpleNamespace()
    run.work.write("problems", [Problem("test-0", "?")])

    def solve(run, stage, *_, **__):
        run.failures[stage], run.asked[stage] = {"sample/test-0": Failure("the server does not answer")}, 1

    monkeypatch.setattr(solving, "solve", solve)
    monkeypatch.setattr(search_study, "load_to_ask", lambda *_: model)
    with pytest.raises(StageFailed, match=r"1 of 1 failed: the server does not answer .*the same command asks again"):
        search_study.sample(run, Generator(), EngineSettings(), SolveSettings(), search_study.Study())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    work = tmp_path_factory.mktemp("study")
    main.run(config_of("search_study", "runlocal"), "search_study", str(work))
    return WorkDir(work)


def test_the_whole_study_in_small(study):
    metrics = study.read_json("metrics.json")
    problems, samples = metrics["problems"], metrics["settings"]["samples"]
    assert problems == 6 and set(metrics["searches"]) == {"beam_2x2_last", "dvts_2x2_min"}
    plain = metrics["plain"]
    by_prm = {f"{rule}_{how}" for rule in ("weighted", "best_of_n") for how in ("last", "min")}
    assert set(plain) == {"majority", "oracle", *by_prm}
    assert plain["oracle"]["n"][-1] == samples and plain["majority"]["tokens"] < plain["weighted_min"]["tokens"]
    solutions = study.read("solutions/plain")
    assert len(solutions) == problems * samples
    generated = sum(len(s.token_ids) for s in solutions) + sum(s.prompt_tokens for s in solutions) / samples
    assert plain["majority"]["tokens"][-1] == pytest.approx(generated / problems)
    for row in metrics["searches"].values():
        assert row["tokens"]["total"] == pytest.approx(sum(n for kind, n in row["tokens"].items() if kind != "total"))
        assert row["accuracy"]["oracle"] >= max(row["accuracy"][rule] for rule in search_study.RULES)
        assert set(row["minus_plain"]["weighted"]) == {"majority", *by_prm}
        for rule, difference in row["minus_plain"]["weighted"].items():
            assert difference["n"] == problems
            theirs = row["plain_for_as_much"][rule]["accuracy"]
            assert difference["mean"] == pytest.approx(row["accuracy"]["weighted"] - theirs)
    judged = {j.solution_id: j for j in study.read("judgements/plain")}
    reading = study.read_json("reading.json")
    for s in solutions:
        read = reading["steps"][s.id]
        assert len(read) == len(s.steps) == len(judged[s.id].steps)
        assert judged[s.id].prompt_tokens == reading["before_steps"][s.problem_id] + sum(read)


def test_a_reward_model_that_knows_tells_all_apart(study):
    """With the truth in place of the PRM's scores, no worse beginning is preferred."""
    run = Run(study, splits.task_of("arithmetic"), 707, None)
    problems = [p for p in study.read("problems") if splits.split_of(p.id) == "test"]
    by_id, gold = {p.id: p for p in problems}, {g.problem_id: g for g in study.read("gold")}
    solutions = study.read("solutions/plain")
    said = study.read("judgements/plain")
    known = []
    for s, j in zip(solutions, said, strict=True):
        real = truth(run.task, by_id[s.problem_id], gold[s.problem_id], s).first_error
        scores = [float(real is None or i < real) for i in range(len(s.steps))]
        scores[-1:] = [float(is_correct(run.task, gold[s.problem_id], s))] * bool(scores)
        known.append(dataclasses.replace(j, steps=tuple(StepJudgement(score=score) for score in scores)))
    plain = {p.id: [s for s in solutions if s.problem_id == p.id] for p in problems}
    study.write("judgements/plain", known)
    found = search_study._tells_apart(run, problems, plain, gold)
    study.write("judgements/plain", said)
    assert {of["share"] for of in found["last"].values()} == {1.0}
    assert {"whole", "1 steps"} <= set(found["last"])
    flipped = [
        dataclasses.replace(j, steps=tuple(StepJudgement(score=1 - step.score) for step in j.steps)) for j in known
    ]
    study.write("judgements/plain", flipped)
    found = search_study._tells_apart(run, problems, plain, gold)
    study.write("judgements/plain", said)
    assert {of["share"] for of in found["last"].values()} == {0.0}


def test_the_study_says_the_same_again(study):
    before = (study.path / "metrics.json").read_bytes()
    main.run(config_of("search_study", "runlocal"), "search_study", str(study.path))
    assert (study.path / "metrics.json").read_bytes() == before
    assert json.loads(before)["seed"] == 707
