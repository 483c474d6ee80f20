"""Online RL as a stage: who pays, and a run from the config that goes on in the same bits."""

import dataclasses
import itertools
import json
import types
import typing

import own_process
import pytest
from tests_config import ROOT, config_of

from spare_jax import main, programs
from spare_jax.engines.scripted import ScriptedEngine
from spare_jax.pipelines import online_rl
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement
from spare_jax.runs import ask, settings, splits
from spare_jax.training import grpo

SOLUTIONS = [Solution(f"train-1/{k}", "train-1", ("The answer is 8.",), a, "stop") for k, a in enumerate("8878")]
GROUPS = [(Problem("train-1", "How many?"), SOLUTIONS)]
GOLD = {"train-1": Gold("train-1", ("7",))}


def judge_of(gold=GOLD, task=None, **grpo_settings):
    """Who pays, of as much of a run as a judge without a model needs."""
    run = types.SimpleNamespace(task=task or splits.task_of("arithmetic"), seed=0)
    return online_rl.judge_of(run, online_rl.OnlineRL(**grpo_settings), ask.Judges(), gold)


def outcomes(reward, name="000000"):
    return [[judgement.outcome for judgement in group] for group in judge_of(reward=reward)(name, GROUPS)]


def test_rewards_without_a_judge_are_paid_by_gold_a_vote_or_a_coin():
    assert outcomes("rlvr") == [[False, False, True, False]]
    assert outcomes("majority_vote") == [[True, True, False, True]]
    tosses = {str(outcomes("random", f"{i:06d}")) for i in range(9)}
    assert len(tosses) > 3 and outcomes("random") == outcomes("random")
    with pytest.raises(ValueError, match="no accepted answer"):
        judge_of({"train-1": Gold("train-1", ())}, reward="rlvr")("0", GROUPS)
    with pytest.raises(ValueError, match="judge='nobody' is unknown: choose among spare"):
        judge_of(judge="nobody")


def test_what_a_judge_cannot_judge_says_why_and_scores_become_labels(monkeypatch):
    def start(item):
        yield []
        number = int(item.solution.id[-1])
        if number == 1:
            raise ValueError("broken")
        if number == 2:  # its answer could not be read
            return Judgement(item.solution.id, "j", (StepJudgement(label=True, score=1.0),))
        return Judgement(item.solution.id, "j", (StepJudgement(score=0.2 * number),))

    monkeypatch.setattr(ask, "ready", lambda run, name, judges: ask.Judge(name, start))
    ((low, failed, unread, high),) = judge_of()("000000", GROUPS)
    assert (low.outcome, low.steps[0].label) == (False, False) and (high.outcome, high.steps[0].label) == (True, True)
    assert failed.failure.startswith("ValueError: broken") and failed.outcome is None
    assert unread.outcome is None and unread.steps[0].label is True


def test_what_a_judge_that_writes_nothing_leaves_open_is_not_judged(monkeypatch):
    """A text may leave a verdict out, which makes a solution void; a comparison, a score or a rollout cannot."""

    def judged(judge, reward, step, outcome, steps=("The answer is 8.",)):
        def start(item):
            yield []
            return Judgement(item.solution.id, judge, (step,) * len(item.solution.steps), outcome, generated_tokens=3)

        monkeypatch.setattr(ask, "ready", lambda run, name, judges: ask.Judge(name, start))
        asked = judge_of(judge=judge, reward=reward)
        ((said,),) = asked("0", [(GROUPS[0][0], [dataclasses.replace(SOLUTIONS[0], steps=steps)])])
        assert said.generated_tokens == 3 and (not said.failure or said.outcome is None)
        return not said.failure

    labelled, open_step, missed = StepJudgement(True), StepJudgement(), StepJudgement(missed=True)
    for judge in ("verify", "generative"):
        assert judged(judge, "sound", missed, None) and judged(judge, "process_aware", labelled, None)
    for judge in ("rollouts", "tree_search", "reward_model", "spare", "truth"):
        assert not judged(judge, "process_aware", labelled, None)
        assert judged(judge, "process_aware", open_step, True)  # which reads no step
        assert judged(judge, "sound", labelled, True)
        assert judged(judge, "sound", missed, True)
        assert judged(judge, "sound", open_step, True) == (judge == "spare")
        assert judged(judge, "sound", open_step, None, steps=())  # there is nothing to judge, and that is void


def small_config(**settings):
    config = config_of("grpo", "runlocal,reward=rlvr")
    config.engine.update(slots=8, max_length=384, prefill_tokens=512)
    config.grpo.update(dict(iterations=12, max_tokens=48, checkpoint_every=5) | settings)
    config.grpo.train.learning_rate = 3e-4
    return config


def exported(path):
    return (path / "policies/rlvr/export/model.safetensors").read_bytes()


def test_a_run_that_is_interrupted_ends_in_the_same_bytes(tmp_path, monkeypatch):
    main.run(small_config(), "grpo", str(tmp_path / "unbroken"))
    sample, calls = grpo.sample, []

    def interrupted(engine, policy, name, *rest):
        calls.append(name)
        if name == "000007":
            raise KeyboardInterrupt
        return sample(engine, policy, name, *rest)

    monkeypatch.setattr(grpo, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main.run(small_config(), "grpo", str(tmp_path / "broken"))
    monkeypatch.setattr(grpo, "sample", lambda *arguments: calls.append(arguments[2]) or sample(*arguments))
    calls.clear()
    main.run(small_config(), "grpo", str(tmp_path / "broken"))
    assert calls[0] == "000005"  # from the checkpoint, not from the start
    assert exported(tmp_path / "broken") == exported(tmp_path / "unbroken")
    steps = [tmp_path / run / "policies/rlvr/checkpoints/steps.jsonl" for run in ("broken", "unbroken")]
    assert steps[0].read_bytes() == steps[1].read_bytes()
    rows = [json.loads(line) for line in steps[0].read_text().splitlines()]
    assert len(rows) == 12 and max(row["grad_norm"] for row in rows) > 0.1 and rows[-1]["kl"] > 0
    assert {row["held_out/disagreement"] for row in rows if "held_out/disagreement" in row} == {0.0}


def test_a_verifier_pays_and_shares_a_mesh_with_policy_and_reference(tmp_path):
    settings = {"iterations": 1, "reward": "step_augmented", "max_tokens": 48}
    main.run(small_config(**settings), "grpo", str(tmp_path / "here"))
    flags = {"engine.slots": 8, "engine.max_length": 384, "engine.prefill_tokens": 512, "mesh.fsdp": 2}
    flags |= {f"grpo.{key}": value for key, value in settings.items()} | {"grpo.train.learning_rate": 3e-4}
    command = ["-m", "spare_jax.main", f"--config={ROOT}/configs/grpo.py:runlocal", f"--workdir={tmp_path}/eight"]
    result = own_process.run(*command, *(f"--config.{key}={value}" for key, value in flags.items()), devices=8)
    assert result.returncode == 0, result.stderr[-3000:]
    (row,), (eight,) = (
        [json.loads(line) for line in (tmp_path / place / "policies/step_augmented/checkpoints/steps.jsonl").open()]
        for place in ("here", "eight")
    )
    assert row["judge/no_verdict"] + row["judge/step_mismatch"] < 1 and row["judge_tokens"] > 10
    assert 0 < row["reward"] <= 1
    assert eight == pytest.approx(row, rel=1e-3, abs=1e-5)
    assert all(eight[name] == row[name] for name in ("reward", "correct", "tokens", "judge_tokens", "void"))


def judged_by(monkeypatch, fails):
    """Runs ask a judge that takes to an even number of tokens, and that fails where `fails` says so of the number of
    its asking: a server that hangs up when it has written ten tokens."""
    numbers = itertools.count()

    class Server(ScriptedEngine):
        stats: typing.ClassVar[dict] = {}

    def start(item):
        yield [programs.Sample("verifier", (1, 2), 10)]
        if fails(next(numbers)):
            raise programs.RequestFailed("the server does not answer", passing=True)
        steps = tuple(StepJudgement(True) for _ in item.solution.steps)
        return Judgement(item.solution.id, "j", steps, len(item.solution.token_ids) % 2 == 0, generated_tokens=10)

    server = Server(lambda request: (programs.Completion(ids=(7,) * 10),))
    monkeypatch.setattr(ask, "ready", lambda run, name, judges: ask.Judge(name, start, {"verifier": server}))


def training_of(path):
    directory = path / "policies/process_aware"
    steps = [json.loads(line) for line in (directory / "checkpoints/steps.jsonl").read_text().splitlines()]
    return directory, steps


def test_a_run_whose_judge_is_down_ends_in_an_error_and_goes_on_when_it_is_back(tmp_path, monkeypatch):
    """By the alarm that every run has."""
    config = small_config(reward="process_aware", iterations=5, watch_every=2)
    config.stages = ("load_problems", "grpo")
    judged_by(monkeypatch, lambda number: True)
    with pytest.raises(ValueError, match=r"judge/failed was above 0.5 in 3 iterations .*the server does not answer"):
        main.run(config, "grpo", str(tmp_path))
    directory, steps = training_of(tmp_path)
    assert len(steps) == 3 and not (directory / "export").exists() and not (directory / "training.json").exists()
    assert [(row["judge/failed"], row["reward"], row["grad_norm"]) for row in steps] == [(1.0, None, None)] * 3
    assert {row["judge_tokens"] for row in steps} == {10.0}  # what was spent is counted
    (run_1,) = (tmp_path / "runs").glob("*.json")
    failures = json.loads(run_1.read_text())["failures"]["grpo-process_aware"]
    assert len(failures) == 3 * 8 + 2 * 2 and set(failures.values()) == {"the server does not answer"}

    judged_by(monkeypatch, lambda number: False)
    assert main.run(config, "grpo", str(tmp_path))[1] == ""
    _, steps = training_of(tmp_path)
    assert [row["judged"] for row in steps] == [8] * 5 and (directory / "export").is_dir()
    said = json.loads((directory / "training.json").read_text())
    assert (said["judged"], said["failed"], said["stopped_by"]) == (40, 0, "")


def test_a_run_whose_judge_fails_now_and_then_goes_on_and_counts(tmp_path, monkeypatch):
    config = small_config(reward="process_aware", iterations=3, watch_problems=0)
    config.stages = ("load_problems", "grpo")
    judged_by(monkeypatch, lambda number: number % 3 == 2)
    _, told = main.run(config, "grpo", str(tmp_path))
    directory, steps = training_of(tmp_path)
    assert [row["judged"] for row in steps] == [6, 5, 5]
    assert [row["judge/failed"] for row in steps] == [2 / 8, 3 / 8, 3 / 8]
    assert {row["judge/no_verdict"] for row in steps} == {0.0} and (directory / "export").is_dir()
    said = json.loads((directory / "training.json").read_text())
    assert (said["judged"], said["failed"], said["stopped_by"]) == (16, 8, "")
    assert "grpo-process_aware: 8 of 24 failed: the server does not answer (8)" in told
    assert "asks again" not in told  # an iteration's solutions are gone


def test_what_cannot_be_compared_with_the_gold_answer_is_not_judged(monkeypatch):
    undecided = dataclasses.replace(splits.task_of("arithmetic"), answers_equal=lambda answer, accepted: None)
    ((*judged,),) = judge_of(task=undecided, reward="rlvr")("000000", GROUPS)
    assert all(said.failure and said.outcome is None for said in judged)


def test_programs_of_a_judge_have_names_of_their_own():
    """Where a problem comes twice in an iteration its solutions have the same ids."""
    asked = []

    def start(item):
        yield []
        return Judgement(item.solution.id, "j", outcome=True)

    run = programs.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ask, "ready", lambda run, name, judges: ask.Judge(name, start))
        patch.setattr(programs, "run", lambda e, started, j: run(e, [asked.append(s[0]) or s for s in started], j))
        judged = judge_of()("000003", GROUPS * 2)
    assert len(set(asked)) == 8 and [len(group) for group in judged] == [4, 4]


def test_the_config_is_read_whole():
    config = config_of("grpo")
    config.grpo.update(least_steps=2, updates=3)
    how = settings.read(online_rl.OnlineRL, config.grpo.to_dict(), "config.grpo")
    loop = online_rl.loop_settings(types.SimpleNamespace(seed=5), how)
    assert loop.updates == 3 and loop.reward_rule.least_steps == 2
    assert loop.loss.max_tokens == loop.max_tokens and loop.train.seed == 5
    assert loop.alarms["appended"].metric == "format/second_problem"
    assert settings.listed(how) == config.grpo.to_dict()
    with pytest.raises(ValueError, match="reward='gold' is unknown: choose among process_aware"):
        config_of("grpo", "reward=gold")
