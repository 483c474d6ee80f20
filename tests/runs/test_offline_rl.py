"""Offline RL: pairs as token ids, and the whole pipeline in small for several methods in one work directory."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tests_config import config_of

from spare_jax import main
from spare_jax.judges.outcome import is_correct
from spare_jax.judges.truth import Flips
from spare_jax.models import huggingface
from spare_jax.pipelines import offline_rl
from spare_jax.programs import Failure
from spare_jax.prompts import solve
from spare_jax.prompts.chat import encode, encode_chat
from spare_jax.records import Judgement, Preference, StepJudgement
from spare_jax.runs import splits
from spare_jax.runs.models import WithJudge
from spare_jax.runs.run import Run
from spare_jax.storage.jsonlines import fingerprint
from spare_jax.storage.store import WorkDir
from spare_jax.studies import offline_rl_tables
from spare_jax.targets import preferences
from spare_jax.targets.labels import REFERENCE, reference_solution
from spare_jax.tasks.task import world_of
from spare_jax.training.batches import pack_pairs

WORLD = world_of(splits.task_of("arithmetic"))
METHODS = ("spare_orpo", "step_dpo", "sft2", "iterated")


def config_of_method(method):
    config = config_of("offline_rl_study", f"runlocal,method={method},seed=3")
    config.data.train_problems, config.data.dev_problems, config.data.test_problems = 10, 4, 6
    config.data.held_out_problems = 1
    config.engine.update(slots=16, max_length=512, prefill_tokens=1024)
    config.solve.max_tokens = 96
    config.annotate.max_tokens = 64
    return config


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A work directory in which every method of METHODS has run."""
    path = tmp_path_factory.mktemp("offline")
    for method in METHODS:
        main.run(config_of_method(method), "offline_rl_study", str(path))
    return WorkDir(path)


@pytest.fixture(scope="module")
def start(work):
    return huggingface.load(work.path / "policies/sft1/export")


def weights(path):
    return fingerprint((path / "model.safetensors").read_bytes().hex())


def test_methods_share_what_stands_before_them(work):
    made = {path.stem for path in (work.path / "manifests").glob("*.json")}
    of_methods = {f"{stage}-{method}" for stage in ("pair", "train_policy", "greedy") for method in METHODS}
    assert made == {"sft", "sample_policy", "judge", *of_methods}
    sampled = {splits.split_of(s.problem_id) for s in work.read("solutions")}
    assert sampled == {"train", "dev"}  # nothing that is measured has been sampled


def test_what_is_done_is_not_done_again(work):
    before = {path: path.stat().st_mtime_ns for path in work.path.glob("policies/*/export/*")}
    for method in METHODS:
        main.run(config_of_method(method), "offline_rl_study", str(work.path))
    assert before == {path: path.stat().st_mtime_ns for path in work.path.glob("policies/*/export/*")}


def test_policies_differ_from_their_start_and_from_each_other(work):
    exports = {method: weights(work.path / f"policies/{method}/export") for method in ("sft1", *METHODS)}
    assert exports["iterated"] == exports["spare_orpo"]  # its first round
    assert len(set(exports.values())) == len(exports) - 1


def test_a_round_begins_with_the_policy_of_the_one_before(work):
    round_2 = WorkDir(work.path / "policies/iterated/rounds/2")
    sampled = json.loads((round_2.path / "manifests/sample_policy.json").read_text())
    assert sampled["settings"]["models"]["generator"]["path"] == str(work.path / "policies/iterated/export")
    assert {p.id for p in round_2.read("problems")} == {p.id for p in work.read("problems")}
    assert weights(round_2.path / "policies/spare_orpo/export") != weights(work.path / "policies/iterated/export")
    greedy = json.loads((work.path / "manifests/greedy-iterated.json").read_text())
    assert "policies/iterated/rounds" in greedy["inputs"]
    # The last round's policy answers, not the first's, which is SPARE-ORPO's.
    first, last = ({s.id: s.mean_logprob for s in work.read(f"solutions/{m}")} for m in ("spare_orpo", "iterated"))
    assert first.keys() == last.keys() and first != last


def test_what_failed_in_a_round_has_failed_in_the_stage(tmp_path, monkeypatch):
    """So that the next run asks again; the rounds do not see the failures of what stands before them."""

    def execute(inner, stages, config):
        assert "judge" in stages and not inner.failures and config["method"] == offline_rl.ROUND
        inner.failures["judge"] = {"spare/train-0/0": Failure("the server does not answer")}
        inner.asked["judge"] += 3

    monkeypatch.setattr(offline_rl, "execute", execute)
    run = Run(WorkDir(tmp_path), splits.task_of("arithmetic"), 0, None)
    run.failures["judge"] = {"spare/train-0/1": Failure("the server does not answer")}
    offline_rl._go_on(run, "iterated", 3, WithJudge(), {})
    assert run.asked["train_policy-iterated"] == 6
    found = run.failures["train_policy-iterated"]
    assert list(found) == [f"rounds/{n}/judge/spare/train-0/0" for n in (2, 3)] and found.popitem()[1].passing


def test_a_round_is_made_anew_where_the_policy_that_it_begins_with_was(tmp_path):
    work, policy = WorkDir(tmp_path / "rounds/2"), tmp_path / "export"
    policy.mkdir()
    for weights, kept in (("of half", False), ("of half", True), ("of whole", False)):
        (policy / "weights").write_text(weights)
        offline_rl._begin_round(work, policy)
        assert (work.path / "solutions.jsonl").exists() is kept
        (work.path / "solutions.jsonl").write_text("")


def test_pairs_keep_to_the_rule_of_their_method(work):
    golds = {g.problem_id: g for g in work.read("gold")}
    outcomes = {j.solution_id: j for j in work.read("judgements/outcome")}
    for method in METHODS:
        for split in ("train", "dev"):
            for pair in work.read(f"preferences/{method}_{split}"):
                assert splits.split_of(pair.problem.id) == split
                assert not outcomes[pair.rejected.id.partition("[")[0]].outcome
                if method == "step_dpo":
                    assert pair.chosen_scores[-1] == 1 and pair.rejected_scores[-1] == 0
                    assert pair.chosen.steps[: pair.shared_steps] == pair.rejected.steps[: pair.shared_steps]
                else:
                    assert np.mean(pair.chosen_scores) > np.mean(pair.rejected_scores)
                    of_reference = pair.chosen.id.endswith(REFERENCE)
                    assert of_reference or outcomes[pair.chosen.id].outcome
                    assert not of_reference or pair.chosen.steps == golds[pair.problem.id].steps


def test_metrics_are_those_of_the_greedy_answers(work):
    task = splits.task_of("arithmetic")
    golds = {g.problem_id: g for g in work.read("gold")}
    problems = {p.id: p for p in work.read("problems")}
    for method in METHODS:
        metrics = json.loads((work.path / f"policies/{method}/metrics.json").read_text())
        answers = {s.problem_id: s for s in work.read(f"solutions/{method}")}
        tested = [p.id for p in work.read("problems") if splits.split_of(p.id) == "test"]
        right = [int(is_correct(task, golds[i], answers[i])) for i in tested]
        assert metrics["greedy"]["right"] == right and metrics["greedy"]["accuracy"] == np.mean(right)
        reached = [i for i, ok in zip(tested, right, strict=True) if ok]
        wrong = [not all(v.correct for v in WORLD.judge(problems[i], golds[i], answers[i].steps)) for i in reached]
        assert metrics["greedy"]["wrong_process"] == (np.mean(wrong) if wrong else None)
        assert sum(metrics["greedy"]["sound"]) == len(wrong) - sum(wrong)
        assert metrics["method"] == method and metrics["seed"] == 3
        assert (metrics["pairs"]["pairs"] > 0) and metrics["training"]["steps"] > 0
    last = work.path / "metrics.json"
    assert last.read_bytes() == (work.path / f"policies/{METHODS[-1]}/metrics.json").read_bytes()


def test_the_tables_hold_what_was_measured(work):
    cells = [json.loads((work.path / f"policies/{method}/metrics.json").read_text()) for method in METHODS]
    ours, theirs = (next(cell for cell in cells if cell["method"] == m) for m in ("spare_orpo", "sft2"))
    ours["greedy"] |= {"right": [1, 1, 1, 0, 0, 0], "sound": [1, 1, 0, 0, 0, 0]}
    theirs["greedy"] |= {"right": [0, 1, 0, 0, 0, 0], "sound": [0, 0, 0, 0, 0, 0]}
    again = json.loads(json.dumps(ours)) | {"seed": 4}  # a seed that the other has not
    text = offline_rl_tables.tables({"cells": [*cells, again]})
    assert "## arithmetic, seeds 3, 4" in text
    row = next(line for line in text.splitlines() if line.startswith("| spare_orpo | 2 |"))
    assert row.split(" | ")[2].startswith(".500 [") and row.split(" | ")[3].startswith(".333 [")
    assert row.split(" | ")[4] == ".333"  # two of six right answers
    row = next(line for line in text.splitlines() if line.startswith("| sft2 | +"))
    assert row.startswith("| sft2 | +0.333 [") and " | +0.333 [" in row
    row = next(line for line in text.splitlines() if line.startswith("| step_dpo |") and line.count("|") == 7)
    counts = json.loads((work.path / "preferences/step_dpo_train.counts.json").read_text())
    assert row.split(" | ")[1] == str(counts["pairs"])


def test_a_method_that_is_run_again_is_the_same_bit_for_bit(work):
    policy = work.path / "policies/step_dpo"
    before = weights(policy / "export"), (policy / "metrics.json").read_bytes()
    for stage in ("pair", "train_policy", "greedy"):
        (work.path / f"manifests/{stage}-step_dpo.json").unlink()
    shutil.rmtree(policy)
    main.run(config_of_method("step_dpo"), "offline_rl_study", str(work.path))
    assert before == (weights(policy / "export"), (policy / "metrics.json").read_bytes())


def test_a_completion_ends_where_the_solution_ended(work, start):
    end = start.tokenizer.eos_token_id
    sampled = next(s for s in work.read("solutions") if s.finish_reason == "stop" and len(s.steps) > 1)
    ids = offline_rl._completion(start, sampled)
    assert ids == [*sampled.token_ids[: sampled.spans[-1][1]], end]
    assert offline_rl._completion(start, sampled, 1) == ids[sampled.spans[1][0] :]
    for reason in ("length", preferences.CUT):
        assert end not in offline_rl._completion(start, dataclasses.replace(sampled, finish_reason=reason))


def test_a_reference_is_learnt_as_the_base_has_learnt_it(work, start):
    for gold in work.read("gold")[:3]:
        ids = offline_rl._completion(start, reference_solution(splits.task_of("arithmetic"), gold))
        assert ids == [*encode(start.tokenizer, "\n".join(gold.steps)), start.tokenizer.eos_token_id]


def test_shared_steps_are_given_and_the_steps_behind_them_learnt(work, start):
    class Run:
        task = splits.task_of("arithmetic")

    problem = work.read("problems")[0]
    sampled = [s for s in work.read("solutions") if len(s.steps) > 1]
    chosen, other = sampled[0], next(s for s in sampled if s.steps[1] != sampled[0].steps[1])
    rejected = dataclasses.replace(other, steps=(chosen.steps[0], other.steps[1]), token_ids=(), spans=(), tokenizer="")
    chosen = dataclasses.replace(chosen, steps=chosen.steps[:2], spans=chosen.spans[:2], finish_reason=preferences.CUT)
    rejected = dataclasses.replace(rejected, finish_reason=preferences.CUT)
    made = offline_rl._as_ids(Run, start, Preference(problem, chosen, rejected, (1, 1), (1, 0), shared_steps=1))
    arrays = pack_pairs([made], 640).arrays
    texts = []
    for segment in (1, 2):
        at = np.flatnonzero(arrays["segments"][0] == segment)
        learnt = [arrays["ids"][0, t + 1] for t in at if arrays["loss_weights"][0, t]]
        texts.append(solve.decode(start.tokenizer, [int(token) for token in learnt]).strip())
    assert texts == [chosen.steps[1], rejected.steps[1]]
    prompt = encode_chat(start.tokenizer, solve.render(Run.task, problem))
    given = solve.decode(start.tokenizer, list(made.prompt)[len(prompt) :])
    assert given.strip() == chosen.steps[0]


def test_noisy_truth_is_as_wrong_as_spare():
    """Of 4 right steps SPARE calls one wrong, of 5 wrong ones two right; a step without a label counts nowhere."""
    real = [True, True, None, True, False, False, True, False, False, False]
    said = [True, False, True, True, True, False, True, True, False, False]
    judged = {
        name: {"p/0": Judgement("p/0", name, tuple(map(StepJudgement, labels)))}
        for name, labels in (("truth", real), ("spare", said))
    }

    class Run:
        seed = 0
        judgements = staticmethod(judged.get)

    assert offline_rl._flips(Run) == Flips(correct=1 / 4, incorrect=2 / 5, seed=0)


def test_where_spare_has_labelled_nothing_nobody_knows_how_often_it_errs():
    truth = Judgement("p/0", "truth", (StepJudgement(True), StepJudgement(False)))

    def flips(*labels, failure=""):
        said = Judgement("p/0", "spare", tuple(map(StepJudgement, labels)), failure=failure)

        class Run:
            seed = 0
            judgements = staticmethod({"truth": {"p/0": truth}, "spare": {"p/0": said}}.get)

        return offline_rl._flips(Run)

    with pytest.raises(ValueError, match="SPARE has labelled no step that is"):
        flips(None, None, failure="the server does not answer")
    with pytest.raises(ValueError, match="no step that is wrong"):
        flips(True, None)
    assert flips(True, True) == Flips(0.0, 1.0, 0)


def test_unknown_methods_are_told():
    with pytest.raises(ValueError, match="method='grpo' is unknown: choose among sft1, sft2"):
        config_of("offline_rl", "method=grpo")
    with pytest.raises(ValueError, match="world='gsm8k' is unknown: choose among arithmetic"):
        config_of("offline_rl_study", "world=gsm8k")
