"""The annotation study: its references, its floors, its intervals, and the whole of it in small."""

import json
from collections import Counter

import numpy as np
import pytest
from tests_config import config_of

from spare_jax import main
from spare_jax.evaluation.process_errors import first_error_difference, first_error_metrics, kappa
from spare_jax.pipelines import annotation_study
from spare_jax.records import Case, Judgement, Solution, StepJudgement
from spare_jax.runs.splits import WORLDS
from spare_jax.studies import annotation_tables, collect
from spare_jax.tasks.task import world_of


def items(world, count=30):
    for problem, gold in world.generate(5, "test", count):
        yield Case(problem, Solution(problem.id, problem.id, gold.steps, None, "stop"), gold)


@pytest.mark.parametrize("name", WORLDS)
def test_a_corrupted_reference_says_something_false_at_about_the_share(name):
    world, changed, steps = world_of(WORLDS[name]), 0, 0
    for item in items(world):
        same = annotation_study._corrupted(world, 0.0, 3, item)
        assert tuple(same) == item.gold.steps
        reference = annotation_study._corrupted(world, 0.5, 3, item)
        assert len(reference) == len(item.gold.steps)
        for i, (now, was) in enumerate(zip(reference, item.gold.steps, strict=True)):
            steps += 1
            if now != was:
                changed += 1
                judged = world.truth(item.problem, item.gold, (*item.gold.steps[:i], now))
                assert judged[-1].label is False
    assert 0.4 < changed / steps < 0.6


def test_a_sampled_reference_is_another_solution_with_the_common_answer():
    world = world_of(WORLDS["arithmetic"])
    item = next(items(world))
    several = [Solution(f"p/{i}", item.problem.id, (f"step {i}",), a, "stop") for i, a in enumerate("1223")]
    mine = Case(item.problem, several[1], item.gold)
    sampled = {item.problem.id: several}
    assert annotation_study._sampled_reference(sampled, mine) == ("step 2",)
    alone = {item.problem.id: several[1:2]}
    assert annotation_study._sampled_reference(alone, mine) == ()


def judgement(i, *labels):
    return Judgement(f"s{i}", "truth", tuple(StepJudgement(label=label) for label in labels))


def test_shuffling_keeps_how_often_each_place_is_right():
    rng = np.random.default_rng(0)
    truths = [judgement(i, *(bool(x) for x in rng.random(1 + i % 3) < 0.5)) for i in range(90)]
    shuffled = annotation_study._shuffled(truths, 1)
    assert [j.solution_id for j in shuffled] == [j.solution_id for j in truths]

    def places(judgements):
        return Counter((len(j.steps), i, s.label) for j in judgements for i, s in enumerate(j.steps))

    assert places(shuffled) == places(truths)
    assert shuffled != truths


def test_the_difference_of_first_error_f1_is_that_of_the_two():
    rng = np.random.default_rng(1)
    truth = [None if x == 3 else int(x) for x in rng.integers(0, 4, 60)]
    ours = [t if rng.random() < 0.8 else 0 for t in truth]
    theirs = [t if rng.random() < 0.4 else 0 for t in truth]
    problems = [f"p{i // 3}" for i in range(60)]
    found = first_error_difference(ours, theirs, truth, problems, seed=2)
    expected = first_error_metrics(ours, truth)["f1"] - first_error_metrics(theirs, truth)["f1"]
    assert found["mean"] == pytest.approx(expected)
    assert found["low"] < expected < found["high"] and found["low"] > 0
    same = first_error_difference(ours, ours, truth, problems, 0)
    assert same == {"mean": 0.0, "low": 0.0, "high": 0.0}
    # Solutions of one problem come and go together: one problem has no spread.
    alone = first_error_difference(ours, theirs, truth, ["p"] * 60, 0)
    assert alone["low"] == alone["high"] == pytest.approx(expected)
    assert first_error_difference([0], [0], [0], ["p"], 0) == {"mean": None, "low": None, "high": None}


def test_kappa_counts_the_steps_that_both_have_labelled():
    assert kappa([True, False, None, True], [True, False, True, None]) == 1.0
    assert kappa([True, False], [False, True]) == -1.0
    assert kappa([None], [True]) is None


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    config = config_of("annotation_study", "runlocal")
    work = tmp_path_factory.mktemp("study")
    main.run(config, "annotation_study", str(work))
    return work


def test_the_whole_study_in_small(study):
    metrics = json.loads((study / "metrics.json").read_text())
    comparison = metrics["comparison"]
    side = comparison["in_distribution"]
    judges = side["judges"]
    assert {"spare", "spare_4", "spare_8", "rollouts_1", "rollouts_8", "tree_search", "verify", "alignment"} <= set(
        judges
    )
    assert {"ensemble_weighted", "ensemble_agreement", "spare_calibrated", "spare_corrupted_30"} <= set(judges)
    assert all(of["n_solutions"] == side["solutions"] for of in judges.values())
    # What is summed is what was spent: an ensemble costs what its members cost.
    members = [judges[name]["tokens_per_solution"] for name in annotation_study.MEMBERS]
    assert judges["ensemble_weighted"]["tokens_per_solution"] == pytest.approx(sum(members))
    assert judges["alignment"]["tokens_per_solution"] == 0
    rivals = {"spare_4", "rollouts_4", "spare_8", "spare_calibrated", "spare_with_outcome"}
    assert set(side["ensemble_minus"]) == rivals
    assert all(seconds > 0 for seconds in comparison["seconds_per_solution"].values())
    value = metrics["label_value"]
    assert value["truth"]["labels"]["step_accuracy"] == 1.0
    assert {"spare", "rollouts_8_soft", "truth_30_30"} <= set(value)
    assert {"shuffled", "outcome_copied", "position_only", "length_only"} <= set(value)
    assert value["rollouts_8_soft"]["labels"] == value["rollouts_8"]["labels"]
    hard, soft = (
        [[step["score"] for step in json.loads(line)["steps"]] for line in path.read_text().splitlines()]
        for path in (study / f"judgements/prm_rollouts_8{kind}.jsonl" for kind in ("", "_soft"))
    )
    assert hard != soft and list(map(len, hard)) == list(map(len, soft))
    assert 0 < value["truth_30_30"]["labels"]["step_accuracy"] < 1
    assert all("mean" in of["in_distribution"]["minus_majority"] for of in value.values())


def test_cells_are_collected(study, tmp_path, capsys):
    collect.main([str(tmp_path / "all.json"), str(study)])
    (cell,) = json.loads((tmp_path / "all.json").read_text())["cells"]
    assert cell["world"] == "arithmetic" and "1 cells" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="does not exist"):
        collect.main([str(tmp_path / "x.json"), str(tmp_path)])


def test_the_tables_hold_what_was_measured(study):
    cell = json.loads((study / "metrics.json").read_text())
    text = annotation_tables.tables({"cells": [cell]})
    spare = cell["comparison"]["in_distribution"]["judges"]["spare"]
    (row,) = [line for line in text.splitlines() if line.startswith("| spare | ") and line.count("|") == 12][:1]
    cells = [part.strip() for part in row.strip("|").split("|")]
    assert float(cells[1]) == pytest.approx(spare["step_accuracy"], abs=6e-4)
    assert float(cells[8].replace(",", "")) == pytest.approx(spare["tokens_per_solution"], abs=0.6)
    gain = cell["label_value"]["truth_30_30"]["in_distribution"]["minus_majority"]
    assert f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" in text
    # Every row of a table has as many cells as its head.
    for block in text.split("\n\n"):
        widths = {line.replace(" \\ ", "").count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    # A part that was not measured is left out.
    half = annotation_tables.tables({"cells": [cell | {"label_value": None}]})
    assert "What labels buy" not in half and "Agreement of judges" in half
