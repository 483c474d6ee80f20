"""Generative reward models learn from verifications, say what they are, and judge: trained in small, end to end."""

import dataclasses
import json
import logging
import types

import jax
import numpy as np
import pytest
from tests_config import config_of

from spare_jax import doctor, main
from spare_jax.evaluation.missing import UNLABELLED, Missing
from spare_jax.judges import conventions
from spare_jax.judges.generative import GenerativeSettings
from spare_jax.models.sharding import make_mesh
from spare_jax.models.weights import ModelError
from spare_jax.pipelines import presets, spark_reward_models
from spare_jax.prompts import generative, verify
from spare_jax.prompts.chat import encode_chat
from spare_jax.prompts.solve import decode
from spare_jax.records import Judgement, LabelledSolution, Solution, StepJudgement
from spare_jax.runs import ask, fit, models, splits
from spare_jax.runs.models import EngineSettings, Model
from spare_jax.runs.run import Run
from spare_jax.storage import store
from spare_jax.storage.store import WorkDir
from spare_jax.tasks.arithmetic import WORLD

KINDS = pytest.mark.parametrize("kind", generative.KINDS)


def labelled(name, count):
    """Solutions of the world, every second one with a wrong answer, and the verification that says so."""
    found = []
    for i, (problem, gold) in enumerate(WORLD.generate(5, name, count)):
        steps = gold.steps if i % 2 else (*gold.steps[:-1], "The answer is 98.")
        judged = tuple(WORLD.truth(problem, gold, steps))
        text = verify.format_verification(verify.from_judgement(judged), bool(i % 2))
        judgement = Judgement(f"{problem.id}/0", "targets", judged, bool(i % 2), text)
        found.append(LabelledSolution(problem, Solution(f"{problem.id}/0", problem.id, steps, None, "stop"), judgement))
    return found


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((True, True), None),
        ((True, None, False), 0),
        ((None, None, True), None),  # a judge of whole answers
        ((None, None, False), 0),
        ((True, None, True), Missing(UNLABELLED)),
        ((True, None, None), Missing(UNLABELLED)),
        ((None,), Missing(UNLABELLED)),
    ],
)
def test_a_solution_as_one_step_is_right_where_no_step_is_left_open(labels, expected):
    judged = Judgement("s", "j", tuple(StepJudgement(label=label) for label in labels))
    assert spark_reward_models._as_one_step(judged) == expected


LABELLED = {"train": labelled("train", 12), "dev": labelled("dev", 4)}


BASE = Model("tiny-base")
ENGINE = EngineSettings(slots=4, max_length=512, prefill_tokens=1024)
ASKED = GenerativeSettings(max_tokens=128)


def training(kind, **changes):
    train = presets.tiny_train(512, epochs=2.0, learning_rate=2e-3, batch_rows=2, eval_every=4)
    return spark_reward_models.VerifierTraining(kind=kind, brief=True, train=train, **changes)


def small_run(path):
    return Run(WorkDir(path), splits.task_of("arithmetic"), 0, make_mesh(jax.device_count(), 1, 1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run in whose work directory a model of kind "prm" has been trained."""
    run = small_run(tmp_path_factory.mktemp("work"))
    written = spark_reward_models.fine_tune(
        run, "train_verifier", models.load(run, BASE), training("prm"), "verifier", LABELLED
    )
    assert written == ["verifier/export", "verifier/training.json"]
    return run


def judges(run, **how):
    trained = Model(str(run.work.path / "verifier/export"))
    asked = dataclasses.replace(ASKED, **how)
    return ask.Judges(models=models.WithJudges(generator=BASE, generative=trained), engine=ENGINE, generative=asked)


def test_it_learns_what_the_targets_say(trained):
    steps = [json.loads(line) for line in (trained.work.path / "verifier/checkpoints/steps.jsonl").open()]
    said = trained.work.read_json("verifier/training.json")
    assert said["best_loss"] < 0.5 * steps[0]["loss"]
    assert (said["kind"], said["left_out"]) == ("prm", {"train": 0, "dev": 0})
    assert (said["train"]["examples"], said["dev"]["examples"], said["train"]["truncated"]) == (12, 4, 0)


def test_an_exported_model_says_what_it_is_and_judges(trained):
    run, asked = trained, judges(trained, scoring="probability")
    how = ask.generative_settings(models.load(run, asked.models.generative), ENGINE, asked.generative)
    assert (how.kind, how.guidelines) == ("prm", generative.BRIEF_GUIDELINES["prm"])
    run.work.begin("ask", {}, {})
    found = LABELLED["dev"] + LABELLED["train"][:4]
    judged = ask.ask(run, "ask", ask.ready(run, "generative", asked), [item.case for item in found])
    assert [j.solution_id for j in judged] == [item.solution.id for item in found]
    for judgement in judged:
        assert not judgement.failure and judgement.parsed and judgement.outcome is not None
        assert generative.format_labels([step.label for step in judgement.steps], judgement.outcome) == judgement.text
    said = [(step.label, step.score) for j in judged for step in (*j.steps, StepJudgement(j.outcome, j.outcome_score))]
    scored = [(label, score) for label, score in said if score is not None]
    assert len(scored) > len(said) / 2  # the others are in tokens that no target is written in
    assert all(label == (score > 0.5) for label, score in scored)  # greedy: a verdict is the likelier one


def test_it_is_one_of_an_ensemble(trained, tmp_path):
    how, run = (
        ask.EnsembleSettings(("generative", "truth"), "union"),
        dataclasses.replace(trained, work=WorkDir(tmp_path)),
    )
    run.work.begin("ask", {}, {})
    gold = {problem.id: gold for problem, gold in WORLD.generate(5, "dev", 4)}
    found = [dataclasses.replace(item, gold=gold[item.problem.id]) for item in LABELLED["dev"]]
    said = ask.ask_ensemble(run, "ask", [item.case for item in found], judges(trained), how)
    for both in zip(said.judgements, said.members["generative"], said.members["truth"], strict=True):
        for combined, *members in zip(*(judgement.steps for judgement in both), strict=True):
            assert combined.label == (False not in [member.label for member in members])


def test_process_bench_measures_it_and_goes_on_where_it_was(trained, tmp_path, monkeypatch):
    rows = []
    for item in LABELLED["train"][:6]:
        error, told = item.judgement.first_error, (*item.problem.context, item.problem.question)
        row = {"id": item.solution.id, "generator": "g", "problem": " ".join(told), "steps": item.solution.steps}
        rows.append(row | {"label": -1 if error is None else error, "final_answer_correct": error is None})
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def bench(name):
        config = config_of("processbench", "runlocal,task=arithmetic")
        config.data.path, config.judge = str(tmp_path / "bench.jsonl"), "generative"
        config.models.generative.path = str(trained.work.path / "verifier/export")
        config.engine.update(slots=4, max_length=512, prefill_tokens=1024)
        config.generative.update(votes=2, temperature=1.0, scoring="probability", max_tokens=128)
        main.run(config, "bench", str(tmp_path / name))

    def read(name):
        return [(tmp_path / name / file).read_bytes() for file in ("judgements/generative.jsonl", "metrics.json")]

    bench("whole")
    judged = list(map(json.loads, (tmp_path / "whole/judgements/generative.jsonl").open()))
    metrics = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert metrics["judge"] == "generative" and metrics["test"]["n"] == 6 and metrics["threshold"] is None
    human, found = {f"{row['id']}/g": row["label"] for row in rows}, []
    for judgement in judged:
        labels = [step["label"] for step in judgement["steps"]]
        if human[judgement["solution_id"]] >= 0:
            found.append(False in labels and labels.index(False) == human[judgement["solution_id"]])
        assert not any(step["missed"] for step in judgement["steps"]) and judgement["outcome"] is not None
    assert metrics["test"]["judge"]["error_accuracy"] == pytest.approx(np.mean(found))

    answered = []

    def put(journal, request_id, completions):
        answered.append(request_id)
        if len(answered) > 9:
            raise KeyboardInterrupt
        kept(journal, request_id, completions)

    kept = store.Journal.put
    monkeypatch.setattr(store.Journal, "put", put)
    with pytest.raises(KeyboardInterrupt):
        bench("killed")
    assert {request.split("/")[2] for request in answered} == {"0", "1"}  # samples, and scores of some
    monkeypatch.setattr(store.Journal, "put", kept)
    bench("killed")
    assert read("killed") == read("whole")


@KINDS
def test_the_target_is_learnt_and_the_prompt_given(trained, kind):
    start = models.load(trained, BASE)
    item = LABELLED["train"][0]
    if kind == "prm_critique":
        text = generative.format_critique(item.judgement.text, "No fault.", item.judgement.text)
        item = dataclasses.replace(item, judgement=dataclasses.replace(item.judgement, text=text))
    convention = conventions.GenerativeConvention(kind, generative.GUIDELINES[kind])
    example = spark_reward_models.example(trained.task, start, convention, item)
    learnt = [token for token, weight in zip(example.ids, example.token_weights, strict=True) if weight]
    assert decode(start.tokenizer, learnt[:-1]) == generative.target(kind, item.judgement)
    assert learnt[-1] == start.tokenizer.eos_token_id
    asked = verify.render(trained.task, item.problem, item.solution.steps, generative.GUIDELINES[kind])
    assert list(example.ids[: -len(learnt)]) == encode_chat(start.tokenizer, asked)


def recorded(tmp_path, kind, labelled, **changes):
    """The rows that would be trained on, and what was counted."""
    run, kept = small_run(tmp_path), types.SimpleNamespace()

    def fine_tune(run, description, directory, start, loss, rows, how, counted=None):
        kept.rows, kept.counted = rows, counted
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "fine_tune", fine_tune)
        spark_reward_models.fine_tune(run, "s", models.load(run, BASE), training(kind, **changes), "v", labelled)
    return kept


def test_what_is_not_whole_is_left_out_and_counted(tmp_path, caplog):
    train = list(LABELLED["train"])
    for i, changes in enumerate(({"outcome": None}, {"text": "cut"}, {"outcome": True})):
        train[i] = dataclasses.replace(train[i], judgement=dataclasses.replace(train[i].judgement, **changes))
    with caplog.at_level(logging.WARNING):
        run = recorded(tmp_path, "prm_cot", {**LABELLED, "train": train})
    assert run.counted == {"kind": "prm_cot", "left_out": {"train": 3, "dev": 0}}
    assert run.rows[0].counts.examples == 9 and run.rows[1].counts.examples == 4
    assert "of 12 train and 4 dev solutions 3 and 0 have no whole target" in caplog.text
    assert recorded(tmp_path, "prm", {**LABELLED, "train": train}).counted["left_out"]["train"] == 1


def test_balance_is_by_the_targets_own_word(tmp_path):
    wrong = [item for item in LABELLED["train"] if not item.judgement.outcome]
    right = [item for item in LABELLED["train"] if item.judgement.outcome]
    sets = {"train": [*wrong, *right[:2]], "dev": LABELLED["dev"]}
    assert recorded(tmp_path, "orm", sets).rows[0].counts.examples == 8
    run = recorded(tmp_path, "orm", sets, balanced=True)
    assert run.rows[0].counts.examples == run.rows[1].counts.examples == 4


def test_kinds_and_directories_that_do_not_fit_are_told(trained, tmp_path):
    start = models.load(trained, BASE)
    with pytest.raises(ValueError, match="kind 'x' is unknown: choose among orm, prm, prm_cot"):
        spark_reward_models.fine_tune(trained, "s", start, training("x"), "v", LABELLED)
    with pytest.raises(ValueError, match="nothing to learn from 0 examples"):
        spark_reward_models.fine_tune(trained, "s", start, training("prm"), "v", {"train": [], "dev": []})
    own = trained.work.path / "verifier/export"
    assert conventions.of_verifier(own) == conventions.of_model(own)
    assert conventions.of_verifier(own, "orm") == conventions.GenerativeConvention("orm", generative.GUIDELINES["orm"])
    with pytest.raises(ModelError, match=r"config\.generative\.kind: kind 'x' is unknown"):
        conventions.of_verifier(own, "x")
    with pytest.raises(ModelError, match=r"does not say what it writes .* config\.generative\.kind to one of orm"):
        conventions.of_verifier(start.path)
    conventions.save_convention(tmp_path, conventions.TokenTagConvention("t", 1, 2, 3, "last"))
    with pytest.raises(ModelError, match="does not say what it writes"):
        conventions.of_verifier(tmp_path)
    (tmp_path / conventions.CONVENTION_FILE).write_text('{"kind": "prm"}')
    with pytest.raises(ModelError, match="it needs exactly kind, guidelines"):
        conventions.of_verifier(tmp_path)
    with pytest.raises(ModelError, match=r"set config\.judge='generative' and config\.models\.generative\.path"):
        ask.reader(trained.task, models.load(trained, Model(str(own))))
    server, how = models.load_to_ask(trained, Model("endpoint:M")), dataclasses.replace(ASKED, kind="prm")
    assert not ask.generative_settings(server, ENGINE, how).grammar
    with pytest.raises(ValueError, match="a server gives no probabilities"):
        ask.generative_settings(server, ENGINE, dataclasses.replace(how, scoring="probability"))


def test_the_doctor_knows_it(trained):
    report = doctor.examine(str(trained.work.path / "verifier/export"))
    assert report.problems == []
    lines = "\n".join(report.lines)
    assert "generative: it writes prm" in lines and "begin with" in lines
