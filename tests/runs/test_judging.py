"""Judges by name: a file of one's own, and ProcessBench, from rows to labels and figures."""

import json
import os
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_config import config_of

from spare_jax import main
from spare_jax.evaluation.prm_score import prm_bench_metrics, step_scores
from spare_jax.evaluation.process_bench import is_dev, process_bench_metrics
from spare_jax.formats import files
from spare_jax.judges import alignment
from spare_jax.records import Judgement, LabelledSolution, Problem, Solution, StepJudgement
from spare_jax.runs import ask
from spare_jax.runs.splits import task_of
from spare_jax.storage.store import StoreError
from spare_jax.tasks.arithmetic import WORLD

ROWS = (
    {
        "id": "clips",
        "question": "Ann sold 48 clips in April and half as many in May. How many in all?",
        "reference": "In May 48 / 2 = 24.\nIn all 48 + 24 = 72.\nThe answer is 72.",
        "solution": ["In May she sold 48 * 2 = 96.", "In all 48 + 96 = 144.", "The answer is 144."],
    },
    {
        "id": "bolts",
        "question": "How many bolts in total?",
        "context": "A robe takes 2 bolts of blue fiber.\nIt takes half that much white fiber.",
        "reference": ["White: 2 / 2 = 1.", "2 + 1 = 3.", "#### 3"],
        "solution": "White: 2 / 2 = 1.\n2 + 1 = 3.\nThe answer is 3.",
    },
    {"id": "none", "question": "How many?", "solution": "It is 4.\nThe answer is 4."},
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def annotate(tmp_path, rows, judge, argument="runlocal", **changes):
    config = config_of("annotate", argument)
    config.data.path, config.judge = write(tmp_path / "own.jsonl", rows), judge
    config.update_from_flattened_dict(changes)
    main.run(config, "annotate", str(tmp_path / "work"))
    return tmp_path / "work"


def test_a_file_of_one_s_own_is_labelled_row_by_row(tmp_path, caplog):
    work = annotate(tmp_path, ROWS, "alignment")
    rows = read(work / "trl_stepwise.jsonl")
    assert [row["id"] for row in rows] == ["clips", "bolts"]
    assert rows[0]["labels"] == [False] * 3 and rows[1]["labels"] == [True] * 3
    assert rows[1]["prompt"] == "A robe takes 2 bolts of blue fiber.\nIt takes half that much white fiber.\n" + (
        "How many bolts in total?"
    )
    # Without a reference this judge cannot say anything: the row has no label, and the log says so.
    judged = read(work / "judgements/alignment.jsonl")
    assert [j["solution_id"] for j in judged] == ["clips", "bolts", "none"]
    assert "give it a reference" in judged[2]["failure"]
    assert all(step["label"] is None and not step["missed"] for step in judged[2]["steps"])
    assert "1 of 3 solutions have a step without a label" in caplog.text
    assert list(files.read(work / "trl_stepwise.jsonl", "trl_stepwise"))
    page = (work / "report.html").read_text()
    assert "In May she sold 48 * 2 = 96." in page and "Steps as alignment labels them" in page


def test_a_file_that_has_changed_is_not_taken_for_the_one_that_was_labelled(tmp_path):
    annotate(tmp_path, ROWS, "alignment")
    with pytest.raises(StoreError, match=r"annotate .* was made from another 'config.data.path' than there is now"):
        annotate(tmp_path, ROWS[:2], "alignment")


def test_hostile_text_is_escaped(tmp_path):
    rows = [ROWS[0] | {"solution": ["<script>alert(1)</script> 5", "The answer is 5."]}]
    page = (annotate(tmp_path, rows, "alignment") / "report.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page


def world_rows(n):
    rows = []
    for problem, gold in WORLD.generate(77, "own", n):
        shown = {"id": problem.id, "question": problem.question, "context": problem.context}
        rows.append(shown | {"reference": gold.steps, "solution": [*gold.steps[:-1], "The answer is 98."]})
    return rows


@pytest.mark.parametrize("judge", ["spare", "ensemble", "verify"])
def test_judges_with_models_label_a_world(tmp_path, judge):
    work = annotate(
        tmp_path,
        world_rows(3),
        judge,
        "task=arithmetic",
        **{"engine.slots": 8, "rollouts.samples": 2, "annotate.max_tokens": 256, "engine.prefill_tokens": 1024},
    )
    steps = {row["id"]: len(row["solution"]) for row in world_rows(3)}
    rows = read(work / "trl_stepwise.jsonl")
    assert all(len(row["labels"]) == steps[row["id"]] for row in rows)
    assert len(rows) == 3 or judge == "ensemble"  # an ensemble abstains where its members differ
    judged = read(work / f"judgements/{judge}.jsonl")
    assert all(j["failure"] == "" and j["generated_tokens"] > 0 for j in judged)
    if judge == "spare":
        assert all(row["labels"][-1] is False for row in rows)  # a wrong answer, whatever the annotator says
    if judge == "ensemble":
        members = [read(work / f"judgements/{name}.jsonl") for name in ("spare", "rollouts")]
        assert judged[0]["generated_tokens"] == sum(member[0]["generated_tokens"] for member in members)


def test_the_outcome_labels_no_step_of_a_file(tmp_path):
    work = annotate(tmp_path, ROWS[:2], "outcome")
    assert [row["outcome"] for row in read(work / "judgements/outcome.jsonl")] == [False, True]
    assert not read(work / "trl_stepwise.jsonl") and (work / "report.html").exists()


def test_a_truth_that_leaves_a_step_open_does_not_call_it_right():
    """The threshold is chosen where the first error is known: gaps that counted as right would draw it below .05."""
    rows = [(0.9, True)] * 5 + [(0.3, False)] * 5 + [(0.02, False)] * 5 + [(0.05, None)] * 20
    judged = [Judgement(str(i), "m", (StepJudgement(score=score),)) for i, (score, _) in enumerate(rows)]
    truths = [Judgement(str(i), "t", (StepJudgement(label=label),)) for i, (_, label) in enumerate(rows)]
    weights, threshold = ask.learn_ensemble({"m": judged}, truths)
    wrong, right = (weights.probability([StepJudgement(score=score)]) for score in (0.3, 0.9))
    assert wrong < threshold < right


def test_a_weighted_ensemble_learns_on_a_file_of_labelled_solutions(tmp_path):
    """The truth set is obeyed: where it calls first steps wrong no step of the file is likely to be right."""
    known = [
        {
            "id": row["id"], "generator": "g", "problem": " ".join((*row["context"], row["question"])),
            "steps": row["solution"], "final_answer_correct": False, "reference_solution": "\n".join(row["reference"]),
        }
        for row in world_rows(4)
    ]  # fmt: skip

    def ensemble(name, label, **changes):
        (tmp_path / name).mkdir()
        rows = [row | {"label": len(row["steps"]) - 1 if label else 0} for row in known]
        changes = changes | {
            "engine.slots": 8, "rollouts.samples": 2, "engine.prefill_tokens": 1024, "ensemble.rule": "weighted",
            "ensemble.members": ("alignment", "rollouts"),
            "ensemble.truth": str(write(tmp_path / name / "truth.jsonl", rows)),
        }  # fmt: skip
        work = annotate(tmp_path / name, world_rows(3), "ensemble", "task=arithmetic", **changes)
        return [step for j in read(work / "judgements/ensemble.jsonl") for step in j["steps"]]

    right, opposite = ensemble("right", True), ensemble("opposite", False)
    learned = [json.loads((tmp_path / name / "work/ensemble.json").read_text()) for name in ("right", "opposite")]
    assert all(of["solutions"] == 4 and of["members"] == ["alignment", "rollouts"] for of in learned)
    assert learned[0]["prior"] > learned[1]["prior"]
    assert max(step["score"] for step in opposite) < 0.5 < max(step["score"] for step in right)
    assert {step["label"] for step in right} == {True, False}  # the threshold lies between
    abstaining = ensemble("unsure", True, **{"ensemble.margin": 1.0})  # nothing is that far from any threshold
    assert {step["label"] for step in abstaining} == {None}
    with pytest.raises(ValueError, match=r"set config\.ensemble\.truth to a file of them"):
        annotate(tmp_path, ROWS, "ensemble", **{"ensemble.rule": "weighted"})


def test_mistakes_are_told(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"judge='oracle' is unknown: choose among spare"):
        annotate(tmp_path / "a", ROWS, "oracle")
    with pytest.raises(StoreError, match=r"own\.jsonl:1: field 'question' is missing"):
        annotate(tmp_path / "b", [{"solution": "x"}], "alignment")
    with pytest.raises(ValueError, match="two rows have the id 'clips': give each its own"):
        annotate(tmp_path / "c", [ROWS[0], ROWS[0]], "alignment")
    config = config_of("annotate")
    with pytest.raises(ValueError, match=r"config\.data\.path is empty"):
        main.run(config, "annotate", str(tmp_path / "d"))


def bench_row(i, first_error, n=4, final="8"):
    steps = [*(f"step {k}" for k in range(n - 1)), f"The answer is {final}."]
    return {
        "id": f"b-{i}", "generator": "g", "problem": "3 + 5?", "steps": steps, "label": first_error,
        "final_answer_correct": final == "8", "reference_solution": "3 + 5 = 8\n#### 8",
    }  # fmt: skip


def test_process_bench_runs_a_judge_and_its_baselines(tmp_path):
    rows = [bench_row(0, -1), bench_row(1, 3, final="9"), bench_row(2, 1, final="8"), bench_row(3, -1)]
    config = config_of("processbench", "runlocal")
    config.data.path, config.judge = write(tmp_path / "bench.jsonl", rows), "outcome"
    main.run(config, "bench", str(tmp_path / "work"))
    metrics = json.loads((tmp_path / "work" / "metrics.json").read_text())
    test = metrics["test"]
    assert test["n"] == 4 and metrics["dev"]["n"] == 0
    # A judge that labels no step does not say that there is no error.
    assert test["judge"]["correct_accuracy"] is None and test["judge"]["missing"] == {"unlabelled": 4}
    assert metrics["headline"] == {"test.judge.f1": None}
    assert test["final_answer_only"]["f1"] == pytest.approx(2 / 3)  # one of two errors, both right ones
    hidden = {"n": 0, "share": None, "found": None, "exact": None, "missing": {"unlabelled": 4}}
    assert test["right_answer_wrong_process"] == hidden
    page = (tmp_path / "work" / "report.html").read_text()
    assert "outcome on ProcessBench" in page and "Right answer, wrong process" in page
    assert len(read(tmp_path / "work" / "judgements/human.jsonl")) == 4


def changed_row(i, classification, wrong, question="What is 3 + 5, doubled?"):
    """A row in PRMBench's form, of our own words."""
    right = ["3 + 5 = 8.", "8 * 2 = 16.", "The answer is 16."]
    changed = [step.replace("16", "18") if number in wrong else step for number, step in enumerate(right, 1)]
    return {
        "idx": f"own_{i}", "classification": classification, "question": question, "original_question": question,
        "modified_question": question, "modified_steps": wrong, "error_steps": wrong, "reason": "16, not 18",
        "original_process": [f"{k}. {step}" for k, step in enumerate(right, 1)],
        "modified_process": [f"{k}. {step}" for k, step in enumerate(changed, 1)],
    }  # fmt: skip


def prm_bench(tmp_path, rows, judge):
    config = config_of("prmbench", "runlocal,task=gsm8k")
    config.data.path, config.judge = write(tmp_path / "bench.jsonl", rows), judge
    main.run(config, "bench", str(tmp_path / judge))
    return json.loads((tmp_path / judge / "metrics.json").read_text())


def test_any_judge_runs_on_prm_bench(tmp_path):
    """There is no real file here: rows in its form."""
    rows = [
        changed_row(0, "step_contradiction", [2, 3]),
        changed_row(1, "step_contradiction", [2]),
        changed_row(2, "confidence", [2, 3]),
        changed_row(3, "multi_solutions", []),
    ]
    metrics = prm_bench(tmp_path, rows, "alignment")
    assert metrics["n"] == 4 and set(metrics["classes"]) == {"step_contradiction", "confidence", "multi_solutions"}
    # Alignment finds no error before a right answer, the one of row 1, and both errors of rows 0 and 2.
    assert metrics["judge"]["f1"] == pytest.approx(2 * 7 / (2 * 7 + 1))
    assert metrics["judge"]["negative_f1"] == pytest.approx(2 * 4 / (2 * 4 + 1))
    assert metrics["judge"]["prm_score"] == pytest.approx((14 / 15 + 8 / 9) / 2)
    assert metrics["classes"]["confidence"]["prm_score"] == 1.0
    assert metrics["classes"]["multi_solutions"] == {
        "n": 1, "prm_score": 1.0, "f1": 1.0, "negative_f1": None, "step_accuracy": 1.0, "missing": {},
    }  # fmt: skip
    assert len(read(tmp_path / "alignment" / "judgements/human.jsonl")) == 4
    # A judge of outcomes labels no step, and so it does not say that there is no error.
    metrics = prm_bench(tmp_path, rows, "outcome")
    assert metrics["judge"]["unlabelled_rate"] == 1.0 and metrics["judge"]["missing"] == {"unlabelled": 12}
    assert metrics["judge"]["prm_score"] is None and metrics["headline"] == {"judge.prm_score": None}
    assert metrics["never_wrong"]["prm_score"] == pytest.approx(14 / 19 / 2)
    with pytest.raises(ValueError, match=r"config\.data\.format='plain': choose among processbench, prmbench"):
        config = config_of("prmbench", "runlocal")
        config.data.format, config.data.path = "plain", write(tmp_path / "x.jsonl", rows)
        main.run(config, "bench", str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("name", "argument", "rows", "split"),
    [
        ("processbench", "runlocal,task=math", [bench_row(0, -1), bench_row(1, 0, final="9")], "math"),
        ("prmbench", "runlocal", [changed_row(0, "circular", [2])], "train"),
    ],
)
def test_a_benchmark_is_read_from_the_hub(tmp_path, monkeypatch, name, argument, rows, split):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **named: asked.append(named["split"]) or rows)
    config = config_of(name, argument)
    config.data.path, config.judge = "someone/bench", "outcome"
    main.run(config, "bench", str(tmp_path / "work"))
    assert asked == [split] and len(read(tmp_path / "work" / "solutions.jsonl")) == len(rows)


@pytest.mark.parametrize(("part", "rows", "errors"), [("gsm8k", 400, 207), ("math", 1000, 594)])
def test_every_row_of_process_bench_loads_with_its_reference(part, rows, errors):
    _, found = bench(part)
    assert len(found) == len({item.solution.id for item in found}) == rows
    assert sum(item.judgement.first_error is not None for item in found) == errors
    assert all(item.gold and item.gold.steps for item in found)
    # A right answer by people's word is right by ours, too, all but seldom.
    task = task_of(part)
    ours = [task.answers_equal(item.solution.answer, item.gold.answers) for item in found if item.gold]
    assert sum(a == item.judgement.outcome for a, item in zip(ours, found, strict=True)) / rows > 0.97


def test_prm_score_counts_steps_as_the_benchmark_does():
    truth = [(True, False, True), (False, None), (True,)]
    said = [(True, True, False), (False, True), (None,)]
    metrics = prm_bench_metrics(truth, said, ["a", "b", "a"], 0, [None] * 3)
    # right: called right, called wrong, unlabelled; wrong: called right, called wrong.
    assert metrics["judge"]["f1"] == pytest.approx(2 * 1 / (2 * 1 + 2))
    assert metrics["judge"]["negative_f1"] == pytest.approx(2 * 1 / (2 * 1 + 2))
    assert metrics["judge"]["prm_score"] == pytest.approx(1 / 2)
    assert metrics["judge"]["step_accuracy"] == pytest.approx(2 / 4)
    assert metrics["judge"]["unlabelled_rate"] == pytest.approx(1 / 6)
    assert metrics["judge"]["n"] == 4 and metrics["judge"]["missing"] == {"unlabelled": 1}
    scores = {"prm_score": 1.0, "f1": None, "negative_f1": 1.0, "step_accuracy": 1.0}
    assert metrics["classes"]["b"] == {"n": 1, **scores, "missing": {}}
    assert metrics["classes"]["a"]["negative_f1"] == 0.0
    assert metrics["always_wrong"]["negative_f1"] == pytest.approx(2 * 2 / (2 * 2 + 3))
    assert metrics["always_wrong"]["f1"] == 0.0
    assert 0.0 <= metrics["judge"]["low"] <= metrics["judge"]["prm_score"] <= metrics["judge"]["high"] <= 1.0
    assert metrics == prm_bench_metrics(truth, said, ["a", "b", "a"], 0, [None] * 3)
    with pytest.raises(ValueError, match="1 labels for a solution of 2 steps"):
        prm_bench_metrics([(True, False)], [(True,)], ["a"], 0, [None])
    assert prm_bench_metrics([], [], [], 0, [])["judge"]["prm_score"] is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_prm_score_is_the_mean_of_two_f1s(steps):
    """Against precision and recall, spelled out."""
    found = step_scores([steps.count(cell) for cell in ((True, True), (False, True), (False, False), (True, False))])
    for name, kind in (("f1", True), ("negative_f1", False)):
        real, called = sum(t is kind for t, _ in steps), sum(s is kind for _, s in steps)
        hits = steps.count((kind, kind))
        if not real:
            assert found[name] is None
        elif not hits:
            assert found[name] == 0.0
        else:
            precision, recall = hits / called, hits / real
            assert found[name] == pytest.approx(2 * precision * recall / (precision + recall))
    known = [found[name] for name in ("f1", "negative_f1") if found[name] is not None]
    assert found["prm_score"] == pytest.approx(sum(known) / len(known))


def test_thresholds_and_positions_are_chosen_on_dev_rows_alone():
    rng = np.random.default_rng(0)
    human, judged = [], []
    for i in range(400):
        error = None if rng.random() < 0.5 else int(rng.integers(3))
        labels = Judgement(str(i), "human", tuple(StepJudgement(label=k != error) for k in range(3)))
        solution = Solution(str(i), str(i), ("one", "two", "three"), None, "stop")
        human.append(LabelledSolution(Problem(str(i), f"{i}?"), solution, labels))
        scores = [0.3 if k == error else 0.4 for k in range(3)]  # a judge that is sure of nothing
        judged.append(Judgement(str(i), "x", tuple(StepJudgement(score=score) for score in scores)))
    metrics = process_bench_metrics(human, judged, [False] * 400, seed=0)
    assert (metrics["dev"]["n"], metrics["test"]["n"]) == (100, 300)
    assert metrics["threshold_chosen_on"] == {"part": "dev", "n": 100, "missing": {}, "f1": 1.0}
    assert 0.3 < metrics["threshold"] < 0.4 and metrics["test"]["judge"]["f1"] == 1.0
    assert metrics["test"]["judge"]["low"] == 1.0 and metrics["test"]["position_only"]["f1"] < 0.6
    assert metrics["test"]["length_only"]["f1"] < 0.6 and metrics["test"]["judge_minus"]["length_only"]["low"] > 0.3
    # Scores 0.3 are wrong and 0.4 right, of 900 steps.
    wrong = sum(human[i].judgement.first_error is not None for i in range(400) if not is_dev(i, 400))
    calibrated = (wrong * 0.3 + (900 - wrong) * 0.6) / 900
    assert metrics["test"]["calibration"]["ece"] == pytest.approx(calibrated)
    # What the test rows hold changes nothing that was chosen.
    changed = [j if is_dev(i, 400) else Judgement(j.solution_id, "x", judged[0].steps) for i, j in enumerate(judged)]
    assert process_bench_metrics(human, changed, [False] * 400, seed=0)["threshold"] == metrics["threshold"]


def bench(part):
    data = os.environ.get("SPARE_JAX_DATA")
    if not data or not (path := pathlib.Path(data) / "processbench" / f"{part}.jsonl").exists():
        pytest.skip("SPARE_JAX_DATA names no folder that holds processbench/gsm8k.jsonl and math.jsonl")
    task = task_of(part)
    return task, [ask.with_answers(task, item) for item in files.read(path, "processbench")]


def test_the_weights_of_alignment_are_what_the_dev_rows_give():
    cases = []
    for part in ("gsm8k", "math"):
        task, rows = bench(part)
        for i, item in enumerate(rows):
            if is_dev(i, len(rows)) and item.gold and not task.answers_equal(item.solution.answer, item.gold.answers):
                first_error = item.judgement.first_error
                if first_error is not None:
                    table = alignment.features(item.problem, item.gold.steps, item.solution.steps)
                    cases.append((table, first_error))
    fitted = alignment.fit(cases)
    assert all(abs(fitted[name] - alignment.WEIGHTS[name]) < 0.01 for name in alignment.FEATURES)
