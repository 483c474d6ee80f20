"""SPARK's stages in one work directory: labels, reward models, policies, in small, killed and taken up again."""

import dataclasses
import json
import shutil
import types

import pytest
from judge_cases import TASK as TOY
from tests_config import ENGINE, config_of

from spare_jax import main
from spare_jax.judges.conventions import GenerativeConvention, TokenTagConvention, load_convention
from spare_jax.pipelines import spark_cells, spark_reward_models, spark_verifications
from spare_jax.prompts import generative
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement, not_judged
from spare_jax.runs import splits
from spare_jax.storage import store
from spare_jax.storage.jsonlines import fingerprint
from spare_jax.storage.store import StoreError, WorkDir
from spare_jax.studies import collect, spark_tables
from spare_jax.tasks.arithmetic import TASK, WORLD
from spare_jax.training.checkpoints import Checkpoints

CELLS = ("agreement_discriminative", "reference_guided_orm", spark_cells.PAYS)
PAID = "step_augmented"


def config_of_cell(part="labels", cell=""):
    config = config_of("spark_study", f"runlocal,part={part},cell={cell},seed=5")
    config.engine.update(ENGINE)
    config.solve.max_tokens = 64
    if part != "verifiers":
        config.data.update(train_problems=4, dev_problems=2, test_problems=3)
        config.verify.update(votes=2, max_tokens=160)
    if part != "labels":
        config.generative.max_tokens = 256
    if part == "verifiers":
        config.verifier.test_problems = 2
        config.verifier.train.update(row_length=512, learning_rate=2e-3)
    if part == "rl":
        config.grpo.train.learning_rate = 3e-4
        config.grpo.update(iterations=2, prompts=1, max_tokens=48, watch_every=1, checkpoint_every=1)
    return config


def make(path, part="labels", cell=""):
    main.run(config_of_cell(part, cell), "spark_study", str(path))


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("spark")
    make(path)
    return WorkDir(path)


@pytest.fixture(scope="module")
def work(labels, tmp_path_factory):
    """The same with cells and policies: one that a reward model pays, one that gold pays."""
    path = tmp_path_factory.mktemp("cells") / "work"
    shutil.copytree(labels.path, path)
    for cell in CELLS:
        make(path, "verifiers", cell)
    for reward in (PAID, "rlvr"):
        make(path, "rl", reward)
    return WorkDir(path)


def made(path):
    """Digests of what is reproducible of a work directory, by name."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        differs = name.startswith(("runs/", "manifests/")) or file.name in ("seconds.jsonl", "config.json")
        if file.suffix in (".jsonl", ".json", ".safetensors") and not differs:
            found[name] = fingerprint(file.read_bytes().hex())
    return found


def read(work, *names):
    return json.loads(work.path.joinpath(*names).read_text())


def test_parts_share_a_directory(work):
    there = {path.stem for path in (work.path / "manifests").glob("*.json")}
    of_cells = {
        f"{stage}-{mode}-{kind}"
        for stage in ("train_verifier", "judge_tests")
        for mode, kind in (spark_cells.VERIFIERS[cell] for cell in CELLS)
    }
    stages = ("grpo", "solve_tests", "judge_answers")
    of_rewards = {f"{stage}-{reward}" for stage in stages for reward in (PAID, "rlvr")}
    of_labels = {*config_of("spark_study").stages} - {"spark_data"}
    assert there == of_cells | of_rewards | of_labels | {"sample_tests"}
    assert {splits.split_of(s.problem_id) for s in work.read("solutions")} == {"train", "dev"}
    tests = sorted(p.id for p in work.read("problems") if splits.split_of(p.id) == "test")
    assert len(tests) == 3 and {s.problem_id for s in work.read(spark_reward_models.TESTED)} == set(tests[:2])


def test_labels_are_those_of_every_mode(labels):
    metrics = read(labels, "verifications/metrics.json")
    assert (labels.path / "metrics.json").read_bytes() == (labels.path / "verifications/metrics.json").read_bytes()
    assert set(metrics["targets"]) == {mode for mode, _ in spark_cells.VERIFIERS.values()}
    answers = {}
    for solution in labels.read("solutions"):
        answers.setdefault(solution.problem_id, []).append(solution.answer)
    for target in labels.read("judgements/targets_agreement"):
        given = answers[target.solution_id.partition("/")[0]]
        mine = next(s.answer for s in labels.read("solutions") if s.id == target.solution_id)
        if target.outcome:
            assert given.count(mine) == max(map(given.count, filter(None, given)))


def test_a_cell_learns_the_targets_of_its_mode_and_says_what_it_is(work):
    for cell in CELLS:
        mode, kind = spark_cells.VERIFIERS[cell]
        metrics, convention = (
            read(work, "verifiers", cell, "metrics.json"),
            load_convention(work.path / "verifiers" / cell / "export"),
        )
        if kind == spark_reward_models.DISCRIMINATIVE:
            assert isinstance(convention, TokenTagConvention)
        else:
            assert convention == GenerativeConvention(kind, generative.BRIEF_GUIDELINES[kind])
        assert (metrics["mode"], metrics["kind"], metrics["seed"]) == (mode, kind, 5)
        targets = work.read(f"judgements/targets_{mode}")
        whole = [t for t in targets if kind == spark_reward_models.DISCRIMINATIVE or generative.target(kind, t)]
        learnt = {
            split: len([t for t in whole if splits.split_of(t.solution_id) == split]) for split in ("train", "dev")
        }
        for split, count in learnt.items():
            assert metrics["training"][split]["examples"] == count
        assert metrics["training"]["steps"] > 0 and learnt["train"] > 0
        side = metrics["in_distribution"]
        judged = work.read(f"judgements/{cell}")
        assert side["solutions"] == len(judged) == len([s for s in work.read(spark_reward_models.TESTED) if s.steps])
        assert (
            side["failed"] == len([j for j in judged if j.failure]) < len(judged)
            and metrics["out_of_distribution"] is None
        )
        assert side["written_per_verification"] == (
            0 if kind == spark_reward_models.DISCRIMINATIVE else sum(j.generated_tokens for j in judged) / len(judged)
        )
        assert ("outcome" in side["selection"]) == (kind != spark_reward_models.DISCRIMINATIVE)
    exports = [work.path / "verifiers" / cell / "export/model.safetensors" for cell in CELLS]
    assert len({path.read_bytes() for path in exports}) == len(exports)


def test_the_reward_model_of_the_directory_pays(work):
    rows = {
        reward: [json.loads(line) for line in (work.path / f"policies/{reward}/checkpoints/steps.jsonl").open()]
        for reward in (PAID, "rlvr")
    }
    assert all(row["judge_tokens"] > 0 for row in rows[PAID]) and not any(row["judge_tokens"] for row in rows["rlvr"])
    paid = f"verifiers/{spark_cells.PAYS}/export"
    assert read(work, f"policies/{PAID}/metrics.json")["verifier"] == paid
    assert "config.models.generative.path" in read(work, f"manifests/grpo-{PAID}.json")["inputs"]
    metrics = read(work, "policies/rlvr/metrics.json")
    assert metrics["verifier"] == "" and metrics["training"]["iterations"] == 2
    assert len({(work.path / f"policies/{r}/export/model.safetensors").read_bytes() for r in rows}) == 2
    course = metrics["course"]
    generated = sum(row["tokens"] for row in rows["rlvr"]) * 4  # one prompt, four samples
    assert course["tokens"] == pytest.approx(generated) and course["judge_tokens"] == 0
    assert course["first"]["kl"] == pytest.approx(sum(row["kl"] for row in rows["rlvr"]) / 2)
    compared = [row for row in rows["rlvr"] if "held_out/correct" in row]
    assert [(of["step"], of["correct"]) for of in course["held_out"]] == [
        (row["step"], row["held_out/correct"]) for row in compared
    ]
    likely = [[s.mean_logprob for s in work.read(f"solutions/{reward}")] for reward in rows]
    assert likely[0] != likely[1]  # each policy solves, not what both began as
    gold = {g.problem_id: g.answers for g in work.read("gold")}
    assert metrics["greedy"]["right"] == [int(s.answer in gold[s.problem_id]) for s in work.read("solutions/rlvr")]


def test_a_policy_s_judge_is_asked_about_its_answers(work):
    assert work.read("judgements/policy_rlvr") == [] and read(work, "policies/rlvr/metrics.json")["approvals"] is None
    said = {j.solution_id: j for j in work.read(f"judgements/policy_{PAID}")}
    solutions = work.read(f"solutions/{PAID}")
    assert said.keys() == {s.id for s in solutions if s.steps} and all(j.text for j in said.values())
    metrics = read(work, f"policies/{PAID}/metrics.json")
    yes = sum(bool(j.outcome) for j in said.values())
    found = metrics["approvals"]
    assert found["right"]["yes"] + found["wrong"]["yes"] == yes
    assert found["right"]["n"] == sum(metrics["greedy"]["right"]) and found["right"]["n"] + found["wrong"]["n"] == 3


def test_a_reward_model_that_has_changed_is_not_taken_for_the_one_that_paid(work, tmp_path):
    shutil.copytree(work.path, tmp_path / "work")
    (tmp_path / f"work/verifiers/{spark_cells.PAYS}/export/config.json").write_text("{}")
    with pytest.raises(StoreError, match=r"export is not as stage train_verifier-step_consistency-prm_cot wrote it"):
        make(tmp_path / "work", "rl", PAID)
    (tmp_path / "work/manifests/train_verifier-step_consistency-prm_cot.json").unlink()  # it comes from elsewhere
    with pytest.raises(
        StoreError, match=r"grpo-step_augmented .* made from another 'config\.models\.generative\.path'"
    ):
        make(tmp_path / "work", "rl", PAID)
    make(tmp_path / "work", "rl", "rlvr")  # which asks nobody


def test_what_is_done_is_not_done_again(work):
    before = {path: path.stat().st_mtime_ns for path in work.path.rglob("export/*")}
    make(work.path, "verifiers", CELLS[0])
    make(work.path, "rl", "rlvr")
    assert before == {path: path.stat().st_mtime_ns for path in work.path.rglob("export/*")}
    assert (work.path / "metrics.json").read_bytes() == (work.path / "policies/rlvr/metrics.json").read_bytes()


def test_a_study_has_all_of_them(work, tmp_path):
    parts = [*work.path.glob("verifiers/*"), *work.path.glob("policies/*")]
    collect.main([str(tmp_path / "spark.json"), str(work.path / "verifications"), *map(str, parts)])
    cells = json.loads((tmp_path / "spark.json").read_text())["cells"]
    assert len(cells) == 1 + len(CELLS) + 2 and all(cell["world"] == "arithmetic" for cell in cells)


def killed(monkeypatch, path, kills, part, cell=""):
    """Make a part that is ended at each of `kills` = (event, how many of them) and begun again, to its end."""
    for event, count in kills:
        seen = []

        def happens(name, event=event, count=count, seen=seen):
            seen.append(name)
            if seen.count(event) == count and name == event:
                raise KeyboardInterrupt

        def put(journal, *answer, happens=happens, kept=store.Journal.put):
            happens(f"put:{journal.path.name.partition('.')[0]}")
            kept(journal, *answer)

        def complete(work, stage, outputs, happens=happens, kept=store.WorkDir.complete):
            happens(f"complete:{stage}")
            kept(work, stage, outputs)

        def save(checkpoint, *state, happens=happens, kept=Checkpoints.save):
            kept(checkpoint, *state)
            happens("save")

        with monkeypatch.context() as patch:
            patch.setattr(store.Journal, "put", put)
            patch.setattr(store.WorkDir, "complete", complete)
            patch.setattr(Checkpoints, "save", save)
            with pytest.raises(KeyboardInterrupt):
                make(path, part, cell)
            assert seen[-1] == event
    make(path, part, cell)


def test_the_tables_of_the_study(labels, work):
    names = ["verifications", *(f"verifiers/{cell}" for cell in CELLS), f"policies/{PAID}", "policies/rlvr"]
    cells = [read(work, name, "metrics.json") for name in names]
    *_, paid, rlvr = cells
    paid["greedy"] |= {"right": [1, 1, 1, 0], "sound": [1, 1, 0, 0]}
    rlvr["greedy"] |= {"right": [0, 1, 0, 0], "sound": [0, 0, 0, 0]}
    counts = ({"n": 3, "yes": 2, "sound": 1}, {"n": 1, "yes": 1, "sound": 0}, {"n": 0, "yes": 0, "sound": 0})
    paid["approvals"] = dict(zip(("right", "wrong", "wrong_repeating"), counts, strict=True))
    again = json.loads(json.dumps(rlvr)) | {"seed": 6}  # a seed that the other has not
    again["greedy"]["right"] = [1, 1, 1, 1]
    guarded = json.loads(json.dumps(rlvr))
    guarded["settings"]["grpo"] |= {"forbidden": [], "most_steps": 5}
    guarded["settings"]["grpo"]["alarms"]["paid_wrongly"]["threshold"] = 0.4
    text = spark_tables.tables({"cells": [again, *cells, guarded]})
    lines = text.splitlines()

    def row(start):
        return next(line for line in lines if line.startswith(start)).split(" | ")

    single = cells[0]["targets"]["single"]
    assert row("| single |")[1] == f"{single['passes_per_problem']:.0f}"
    assert row("| meta_critique | steps")[2] == str(cells[0]["targets"]["meta_critique"]["critique"]["steps"]["n"])
    for mode, kind in (spark_cells.VERIFIERS[cell] for cell in CELLS):
        assert sum(line.startswith(f"| {mode} | {kind} | 5 |") for line in lines) == 2  # as a judge, and as a ranker
    assert row(f"| {PAID} | 1 |")[2].startswith(".750 [") and row(f"| {PAID} | 1 |")[4] == ".333"
    assert row("| rlvr | 2 |")[2].startswith(".625 [")
    assert row("| rlvr, any form, at most 5 steps, alarm above 0.4 | 1 |")[2].startswith(".250 [")
    assert f"| {PAID} | 1 | +0.500 [" in text  # of the seed that both have
    (compared, *_) = rlvr["course"]["held_out"]
    shown = f"{compared['correct']:.3f}".lstrip("0")
    assert any(line.startswith(f"| rlvr | {shown} ({compared['tokens'] / 1000:.0f}) |") for line in lines)
    assert f"| {PAID} | 1 | 2 of 3 | 1 | 1 of 1 | 0 | 0 of 0 |" in lines and "| rlvr | 2 | 0 of" not in text


def test_labels_that_were_killed_are_the_same_bytes(labels, tmp_path, monkeypatch):
    kills = [("put:sample_solutions", 3), ("put:verify_guided", 4), ("complete:verify_guided", 1), ("put:targets", 2)]
    killed(monkeypatch, tmp_path, kills, "labels")
    assert made(tmp_path) == made(labels.path)


def test_a_cell_and_a_policy_that_were_killed_are_the_same_bytes(labels, work, tmp_path, monkeypatch):
    shutil.copytree(labels.path, tmp_path / "work")
    path, (mode, kind) = tmp_path / "work", spark_cells.VERIFIERS[spark_cells.PAYS]
    kills = [("put:sample_tests", 2), ("save", 1), (f"complete:train_verifier-{mode}-{kind}", 1)]
    killed(monkeypatch, path, [*kills, (f"put:judge_tests-{mode}-{kind}", 3)], "verifiers", spark_cells.PAYS)
    kills = [("save", 1), (f"complete:grpo-{PAID}", 1), (f"put:solve_tests-{PAID}", 1)]
    killed(monkeypatch, path, kills, "rl", PAID)
    found, whole = made(path), made(work.path)
    assert {f"verifiers/{spark_cells.PAYS}/export/model.safetensors", f"policies/{PAID}/metrics.json"} <= found.keys()
    del found["metrics.json"]  # of the part that ran last
    assert found == {name: whole[name] for name in found}


# What a cell's model learns from


def test_a_limit_leaves_the_same_targets_whatever_else_there_is(labels):
    def ids(limit, left_out=None, seed=0):
        class Work:
            @staticmethod
            def read(kind):
                return [record for record in labels.read(kind) if getattr(record, "solution_id", "") != left_out]

        how = spark_reward_models.VerifierTraining(targets="agreement", limit=limit)
        run = types.SimpleNamespace(seed=seed, work=Work)
        found = spark_reward_models._targets(run, how)  # pyright: ignore[reportArgumentType]
        return [[item.solution.id for item in found[split]] for split in ("train", "dev")]

    everything, dev = ids(None)
    assert everything == sorted(everything) and len(everything) > 4 and dev
    few, more = ids(2)[0], ids(4)[0]
    assert len(few) == 2 and set(few) < set(more) < set(everything) and more == sorted(more)
    assert ids(2)[1] == dev  # of train alone
    other = next(i for i in everything if i not in few)
    assert ids(2, left_out=other)[0] == few
    assert set(ids(2, left_out=few[0])[0]) < set(more)
    assert len({tuple(ids(2, seed=seed)[0]) for seed in range(5)}) > 1


# What its word is worth


def judgement(solution, labels, outcome, score=None, tokens=(10, 4)):
    """One with labels, or with scores alone where `labels` holds numbers."""
    steps = tuple(
        StepJudgement(label, float(label)) if isinstance(label, bool) else StepJudgement(score=label)
        for label in labels
    )
    return Judgement(solution.id, "x", steps, outcome, prompt_tokens=tokens[0], generated_tokens=tokens[1],
                     outcome_score=score)  # fmt: skip


def three_solutions():
    """Of each of two problems: the reference, one with a wrong answer, and one that begins with a wrong step."""
    problems, golds, solutions = {}, {}, []
    for problem, gold in WORLD.generate(3, "test", 2):
        problems[problem.id], golds[problem.id] = problem, gold
        for k, (steps, answer) in enumerate(
            [
                (gold.steps, gold.answers[0]),
                ((*gold.steps[:-1], "The answer is 98."), "98"),
                (("Hello.", *gold.steps), gold.answers[0]),
            ]
        ):
            solutions.append(Solution(f"{problem.id}/{k}", problem.id, steps, answer, "stop"))
    return problems, golds, solutions


def test_a_cell_s_figures_by_hand():
    problems, golds, solutions = three_solutions()
    judged = {}
    for i, s in enumerate(solutions):
        n, place = len(s.steps), i % 3
        # Every wrong answer is found where it is, no wrong first step is. The second problem's wrong answer is liked.
        labels = [True] * (n - 1) + [place != 1]
        judged[s.id] = judgement(s, labels, i not in (1, 3, 4), {1: 0.0, 4: 0.9}.get(i, 0.5), (10 + i, i))
    found = spark_reward_models.measure(TASK, problems, golds, solutions, judged, 0.5, 0)
    n_steps = sum(len(s.steps) for s in solutions)
    assert (found["problems"], found["solutions"], found["failed"]) == (2, 6, 0)
    assert found["steps"]["step_accuracy"] == (n_steps - 2) / n_steps
    assert found["steps"]["error_recall"] == 0.5 and found["steps"]["error_precision"] == 1
    first = found["first_error"]
    assert first["against"] == "truth" and (first["n_error"], first["n_correct"]) == (4, 2)
    assert (first["error_accuracy"], first["correct_accuracy"]) == (0.5, 1)
    assert first["f1"] == first["low"] == first["high"] == pytest.approx(2 / 3)  # both problems alike
    # Of the answers 0, 2, 3, 5 are right, and 0, 2, 5 are called so.
    assert found["answers"] == {"n": 6, "says_right": 0.5, "n_known": 6, "outcome_accuracy": pytest.approx(5 / 6)}
    assert found["approvals"].pop("missing") == {}
    counts = {key: (of["n"], of["yes"], of["sound"]) for key, of in found["approvals"].items()}
    assert counts == {"right": (4, 3, 3), "wrong": (2, 0, 0), "wrong_repeating": (0, 0, 0)}
    assert (found["read_per_verification"], found["written_per_verification"]) == (12.5, 2.5)
    selection = found["selection"]
    assert selection["majority"] == 1 and selection["outcome"]["best_of_n"]["last"] == 0.5
    assert selection["prm"]["best_of_n"]["last"] == 1 and selection["prm_minus_majority"]["mean"] == 0
    assert selection["intervals"]["one_sample"]["mean"] == pytest.approx(2 / 3)


def test_of_scores_alone_the_threshold_makes_labels_and_the_last_one_the_outcome():
    problems, golds, solutions = three_solutions()
    scores = {s.id: [0.6] * (len(s.steps) - 1) + [0.2 if i % 3 == 1 else 0.6] for i, s in enumerate(solutions)}
    judged = {s.id: judgement(s, scores[s.id], None) for s in solutions}
    found = spark_reward_models.measure(TASK, problems, golds, solutions, judged, 0.5, 0)
    assert found["answers"] == {"n": 6, "says_right": pytest.approx(2 / 3), "n_known": 6, "outcome_accuracy": 1}
    assert found["first_error"]["error_accuracy"] == 0.5 and found["first_error"]["correct_accuracy"] == 1
    assert "outcome" not in found["selection"] and found["selection"]["prm"]["best_of_n"]["min"] == 1
    strict = spark_reward_models.measure(TASK, problems, golds, solutions, judged, 0.7, 0)
    assert strict["answers"]["says_right"] == 0 and strict["first_error"]["correct_accuracy"] == 0


def test_where_no_step_is_known_a_solution_is_one_step():
    problem, gold = Problem("test-0", "How many?"), Gold("test-0", ("8",))
    given = [("a", "8"), ("b", "8"), ("a", "9"), ("b", "9"), ()]
    solutions = [
        Solution(f"test-0/{k}", "test-0", steps, steps[-1] if steps else None, "stop") for k, steps in enumerate(given)
    ]
    said = [([True, True], True), ([False, True], True), ([True, False], False), ([False, True], False)]
    judged = {s.id: judgement(s, *of) for s, of in zip(solutions, said, strict=False)}
    found = spark_reward_models.measure(TOY, {"test-0": problem}, {"test-0": gold}, solutions, judged, 0.5, 0)
    first = found["first_error"]
    assert (first["against"], first["error_accuracy"], first["correct_accuracy"]) == ("outcome", 1, 0.5)
    assert found["steps"]["step_accuracy"] is None and found["steps"]["first_error_f1"] is None
    assert found["answers"]["outcome_accuracy"] == 1 and found["solutions"] == 4
    judged[solutions[0].id] = not_judged(solutions[0], "x", "no room")
    found = spark_reward_models.measure(TOY, {"test-0": problem}, {"test-0": gold}, solutions, judged, 0.5, 0)
    assert found["failed"] == 1 and found["answers"]["says_right"] == pytest.approx(1 / 3)
    first = found["first_error"]  # the one that was not judged is neither an error that was found nor one that was not
    assert (first["n_correct"], first["correct_accuracy"], first["missing"]) == (1, 0, {"judge failed": 1})


def test_what_failed_is_in_no_figure_of_a_cell():
    """Nor what was never sampled, nor what could not be compared: a judge that is right has every figure at 1."""
    problems, golds, solutions = three_solutions()
    true = {s.id: spark_verifications.known(TASK, problems[s.problem_id], golds[s.problem_id], s) for s in solutions}
    scored = {
        i: dataclasses.replace(
            said, steps=tuple(StepJudgement(step.label, float(bool(step.label))) for step in said.steps)
        )
        for i, said in true.items()
    }
    lost = solutions[1]  # a wrong answer
    other, other_gold = next(iter(WORLD.generate(4, "test", 1)))
    problems |= {"never": dataclasses.replace(other, id="never")}
    golds |= {"never": dataclasses.replace(other_gold, problem_id="never")}
    found = spark_reward_models.measure(
        TASK, problems, golds, solutions, scored | {lost.id: not_judged(lost, "x", "away")}, 0.5, 0
    )
    assert (found["problems"], found["not_sampled"], found["solutions"], found["failed"]) == (3, 1, 6, 1)
    assert found["steps"]["step_accuracy"] == found["first_error"]["f1"] == found["answers"]["outcome_accuracy"] == 1
    assert found["first_error"]["n_error"] == 3 and found["answers"]["n"] == 5
    assert found["approvals"]["missing"] == {"judge failed": 1} and found["approvals"]["wrong"]["n"] == 1
    selection = found["selection"]
    assert selection["prm"]["best_of_n"]["last"] == 1 and selection["n"]["prm"]["best_of_n"]["last"] == 1
    assert selection["n"]["majority"] == 2  # of three: one was never sampled
    nobody = {s.id: not_judged(s, "x", "away") for s in solutions}
    found = spark_reward_models.measure(TASK, problems, golds, solutions, nobody, 0.5, 0)
    assert found["failed"] == 6 and found["answers"]["says_right"] is None and found["first_error"]["f1"] is None
    assert found["steps"]["step_accuracy"] is None and found["read_per_verification"] is None
    assert found["selection"]["prm"]["best_of_n"]["last"] is None


def test_where_no_answer_can_be_compared_nothing_is_right_or_wrong():
    problem, gold = Problem("test-0", "How many?"), Gold("test-0", ("8",))
    task = dataclasses.replace(TOY, answers_equal=lambda answer, accepted: None)
    solutions = [Solution(f"test-0/{k}", "test-0", ("a",), "8", "stop") for k in range(2)]
    judged = {s.id: judgement(s, [True], True, 0.9) for s in solutions}
    found = spark_reward_models.measure(task, {"test-0": problem}, {"test-0": gold}, solutions, judged, 0.5, 0)
    assert found["answers"] == {"n": 2, "says_right": 1, "n_known": 0, "outcome_accuracy": None}
    assert (found["first_error"]["n_correct"], found["first_error"]["n_error"]) == (0, 0)
    assert found["approvals"]["right"]["n"] == 0 and found["selection"]["majority"] is None


def test_unknown_cells_are_told():
    for argument, words in (
        ("part=all", "part='all' is unknown: choose among labels, verifiers, rl"),
        ("part=verifiers,cell=prm", "cell='prm' is unknown: choose among single_orm, single_prm"),
        ("part=rl,cell=gold", "cell='gold' is unknown: choose among process_aware"),
        ("cell=rlvr", "cell='rlvr' is unknown: choose among none"),
    ):
        for name in ("spark_study", "spark_math"):
            with pytest.raises(ValueError, match=words):
                config_of(name, argument)


def test_every_role_of_the_paper_has_its_model():
    roles = {"labels": "judge", "verifiers": "generative", "rl": "policy"}
    cells = {"labels": "", "verifiers": "single_prm", "rl": "selective"}
    models = {part: config_of("spark_math", f"part={part},cell={cells[part]}").models for part in cells}
    assert [models["labels"].generator.path, *(models[part][role].path for part, role in roles.items())] == [
        "Qwen/Qwen2.5-14B-Instruct",
        "Qwen/Qwen3-32B",
        "Qwen/Qwen2.5-14B-Instruct",
        "Qwen/Qwen2.5-Math-7B",
    ]
    config = config_of("spark_math", "part=rl,cell=selective")
    assert config.models.generative.path == f"verifiers/{spark_cells.PAYS}/export"
    how, loss = config.grpo, config.grpo.loss
    assert (how.prompts, how.samples, how.max_tokens, how.updates, how.train.learning_rate) == (256, 16, 2048, 1, 1e-6)
    assert (loss.kl, loss.kl_weight, loss.clip_low, loss.clip_high) == ("k3", 0.001, 0.2, 0.2)
    assert (config.generative.max_tokens, config.generative.temperature, config.generative.votes) == (4096, 0.0, 1)
