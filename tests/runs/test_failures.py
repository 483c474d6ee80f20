"""A failure is never a label: every judge through every way in which its model can fail (docs/reliability.md)."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from chat_server import Server
from judge_cases import GOLD, PROBLEM, TASK, TOKENIZER, ask, solution
from tests_config import config_of

from spare_jax import assets, main
from spare_jax.engines import endpoint
from spare_jax.judges.critiques import gen_prm, think_prm
from spare_jax.judges.generative import GenerativeSettings, generative
from spare_jax.judges.meta_critique import MetaCritiqueSettings, meta_critique
from spare_jax.judges.reward_model import RewardModelSettings
from spare_jax.judges.rollouts import RolloutSettings, rollouts
from spare_jax.judges.spare import SpareSettings, spare
from spare_jax.judges.tree_search import TreeSettings, tree_search
from spare_jax.judges.verify import VerifySettings, verify
from spare_jax.programs import Completion, Failure, Sample
from spare_jax.prompts.annotate import format_records
from spare_jax.prompts.chat import encode
from spare_jax.prompts.verify import StepVerification, format_verification
from spare_jax.records import Judgement, StepJudgement
from spare_jax.runs.run import StageFailed

WRONG = solution("step a", "step b", "9", answer="9")
VERIFICATION = format_verification([StepVerification("t", "a", True)] * 3, True)
ROLLOUTS = RolloutSettings(10_000, 50, samples=2)
ANNOTATE = SpareSettings(max_length=10_000, exemplars=0, grammar=False)
VERIFY = VerifySettings(10_000, grammar=False)
GENERATIVE = GenerativeSettings(10_000, model="judge", kind="prm_cot", grammar=False)
# Each judge on a solution with a wrong answer, and a text that it would believe.
PROGRAMS = {
    "spare": (
        lambda: spare(TASK, PROBLEM, GOLD, WRONG, TOKENIZER, ANNOTATE),
        format_records([StepJudgement(True, explanation="fine")] * 3),
    ),
    "verify": (lambda: verify(TASK, PROBLEM, WRONG, TOKENIZER, VERIFY), VERIFICATION),
    "generative": (
        lambda: generative(TASK, PROBLEM, WRONG, TOKENIZER, GENERATIVE),
        VERIFICATION,
    ),
    "orm": (
        lambda: generative(TASK, PROBLEM, WRONG, TOKENIZER, dataclasses.replace(GENERATIVE, kind="orm")),
        "Yes",
    ),
    "meta_critique": (
        lambda: meta_critique(
            TASK, PROBLEM, WRONG, Judgement("p/0", "v", text=VERIFICATION), TOKENIZER, MetaCritiqueSettings(VERIFY)
        ),
        VERIFICATION,
    ),
    "tree_search": (
        lambda: tree_search(TASK, PROBLEM, GOLD, WRONG, TOKENIZER, "none", TreeSettings(**vars(ROLLOUTS))),
        "more\n8",
    ),
    "think_prm": (lambda: think_prm(TOKENIZER, PROBLEM, WRONG, RewardModelSettings(10_000)), "fine \\boxed{correct}"),
    "gen_prm": (lambda: gen_prm(TOKENIZER, PROBLEM, WRONG, RewardModelSettings(10_000)), "fine"),
}


def knows_nothing(result):
    """Whether a program's result says nothing of any step, and says why."""
    said = result[-1] if isinstance(result, tuple) else result
    if isinstance(said, Failure):
        return bool(said.message)
    empty = all(step == StepJudgement() for step in said.steps) and said.outcome is None and said.outcome_score is None
    return bool(said.failure) and empty


@pytest.mark.parametrize("judge", PROGRAMS)
def test_a_text_cut_at_any_length_is_never_believed(judge):
    start, text = PROGRAMS[judge]
    ids = tuple(encode(TOKENIZER, text))
    for length in range(len(ids) + 1):
        cut = Completion(ids[:length], finish_reason="length")
        result, requests = ask(
            start(), lambda r, cut=cut: (cut,) * r.n if isinstance(r, Sample) else (Completion(scores=(0.9,)),)
        )
        assert requests and knows_nothing(result), (judge, length, result)


@pytest.mark.parametrize("judge", [name for name in PROGRAMS if name not in ("think_prm", "gen_prm")])
@pytest.mark.parametrize("text", ["", " \n", "I cannot help with that.", "{" * 50, "\x00"])
def test_a_text_that_says_nothing_is_never_believed(judge, text):
    if judge == "tree_search" and text.strip():
        return  # a rollout that ends without an answer has ended wrong
    whole = Completion((*encode(TOKENIZER, text), TOKENIZER.eos_token_id))
    result, _ = ask(PROGRAMS[judge][0](), lambda request: (whole,) * request.n)
    assert knows_nothing(result)


def test_rollouts_that_failed_label_the_last_step_alone():
    """Its label is the outcome, which no rollout was asked for."""
    for failed in (Completion(tuple(encode(TOKENIZER, "more\n8")), finish_reason="length"), Completion()):
        program = rollouts(TASK, PROBLEM, GOLD, WRONG, TOKENIZER, "none", ROLLOUTS)
        result, _ = ask(program, lambda request, failed=failed: (failed,) * request.n)
        assert result.steps == (StepJudgement(), StepJudgement(), StepJudgement(label=False, score=0.0))


def test_where_the_comparison_is_undecided_there_is_no_outcome():
    task = dataclasses.replace(TASK, answers_equal=lambda answer, golds: None)
    program = tree_search(task, PROBLEM, GOLD, WRONG, TOKENIZER, "none", TreeSettings(**vars(ROLLOUTS)))
    assert knows_nothing(ask(program, lambda request: ())[0])
    judged, _ = ask(
        spare(task, PROBLEM, GOLD, WRONG, TOKENIZER, ANNOTATE),
        lambda request: (Completion((*encode(TOKENIZER, PROGRAMS["spare"][1]), TOKENIZER.eos_token_id)),),
    )
    assert judged.outcome is None and [step.label for step in judged.steps] == [True] * 3, "nothing is overwritten"


# Whole runs, against a server

ROWS = [
    {
        "id": name,
        "question": f"Two and two, {name}?",
        "reference": "2 + 2 = 4.\nThe answer is 4.",
        "solution": ["It is 5.", "So 5.", "The answer is 5."],
    }
    for name in ("a", "b")
]
GOOD = {
    "spare": PROGRAMS["spare"][1],
    "verify": VERIFICATION,
    "generative": VERIFICATION,
    "rollouts": "The answer is 4.",
    "tree_search": "The answer is 4.",
    "ensemble": "The answer is 4.",  # of its rollouts; spare reads nothing in it
}


def message(content, reason="stop", **more):
    return lambda body: {"choices": [{"message": {"content": content} | more, "finish_reason": reason}] * body["n"]}


FAILURES = {
    "429": (429, "slow down", {"Retry-After": "0"}),
    "500": (500, "", {}),
    "401": (401, "who are you", {}),
    "400": (400, "the context is 4096 tokens", {}),
    "malformed": "malformed",
    "no choices": {"choices": []},
    "null": message(None),
    "tool calls": message(None, "tool_calls", tool_calls=[{"function": {"name": "x", "arguments": "{}"}}]),
    "reasoning only": message("", reasoning_content="Let me think."),
    "refusal": message(None, refusal="I cannot help with that."),
    "filtered": message("", "content_filter"),
}
FOR_GOOD = (
    "400",
    "tool calls",
    "refusal",
    "filtered",
)  # asked in the same way, the server would answer in the same way


@pytest.fixture
def server(monkeypatch):
    made = Server()
    monkeypatch.setenv(endpoint.URL_VARIABLE, made.url)
    monkeypatch.delenv(endpoint.KEY_VARIABLE, raising=False)
    monkeypatch.setattr(endpoint, "_LONGEST_WAIT", 0.01)
    yield made
    made.close()


def judged_run(tmp_path, judge):
    config = config_of("annotate", "runlocal")
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config.data.path, config.judge = str(tmp_path / "own.jsonl"), judge
    config.generative.kind, config.generative.scoring = "prm_cot", "verdict"
    for role in ("generator", "judge", "generative"):
        config.models[role].path = "endpoint:some-model"
    _, missing = main.run(config, "annotate", str(tmp_path / "work"))
    return missing


def judgements(tmp_path, judge):
    lines = (tmp_path / "work/judgements" / f"{judge}.jsonl").read_text().splitlines()
    return {row["solution_id"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("judge", GOOD)
def test_a_server_that_fails_labels_nothing_and_is_asked_again(judge, failure, tmp_path, server):
    server.reply = lambda body: FAILURES[failure](body) if callable(FAILURES[failure]) else FAILURES[failure]
    with pytest.raises(StageFailed, match=r"stage annotate: all of 2 failed: ") as failed:
        judged_run(tmp_path, judge)
    assert ("the same command asks again" in str(failed.value)) == (failure not in FOR_GOOD)
    assert len(json.loads((tmp_path / "work/runs/1.json").read_text())["failures"]["annotate"]) == 2
    assert {path.name for path in (tmp_path / "work").iterdir()} <= {"manifests", ".lock", "runs"} | {
        path.name for path in (tmp_path / "work").glob("*.journal.jsonl")
    }
    if judge != "ensemble":
        asked = len(server.requests)
        server.reply = lambda body: message(GOOD[judge])(body)
        assert judged_run(tmp_path, judge) == "" and len(server.requests) > asked
        assert all(row["steps"][0]["label"] is True for row in judgements(tmp_path, judge).values())


@pytest.mark.parametrize("judge", ["spare", "verify", "rollouts"])
def test_half_of_the_rows_fail_and_are_asked_again(judge, tmp_path, server):
    def half(body):
        failing = "Two and two, b?" in json.dumps(body["messages"])
        return (503, "", {}) if failing else message(GOOD[judge])(body)

    server.reply = half
    missing = judged_run(tmp_path, judge)
    assert missing.startswith("\nannotate: 1 of 2 failed: the server did not answer")
    said = judgements(tmp_path, judge)
    assert said["b"]["failure"] and said["b"]["outcome"] is None
    assert [step["label"] for step in said["b"]["steps"]] == [None] * 3 and said["a"]["steps"][0]["label"] is True
    (row,) = map(json.loads, (tmp_path / "work/trl_stepwise.jsonl").read_text().splitlines())
    assert row["id"] == "a"
    server.reply, before = (lambda body: message(GOOD[judge])(body)), len(server.requests)
    assert judged_run(tmp_path, judge) == ""
    again = [json.dumps(body["messages"]) for body in server.requests[before:]]
    assert again and all("Two and two, b?" in text for text in again), "what was answered is not asked again"
    assert all(not row["failure"] for row in judgements(tmp_path, judge).values())
    assert judged_run(tmp_path, judge) == "" and len(server.requests) == before + len(again), "done before"


def test_an_ensemble_of_which_each_row_lacks_a_member_has_judged_none(tmp_path, server):
    def one_member_each(body):
        text = json.dumps(body["messages"])
        rollout = body["messages"][-1]["role"] == "assistant"
        return (
            (503, "", {})
            if rollout == ("Two and two, b?" in text)
            else message(GOOD["rollouts" if rollout else "spare"])(body)
        )

    server.reply = one_member_each
    with pytest.raises(StageFailed, match=r"of 2 solutions there is none that all members of the ensemble have judged"):
        judged_run(tmp_path, "ensemble")


# Models whose weights are not finite, and judges who do not know


def test_a_policy_whose_weights_are_nan_ends_the_run_and_exports_nothing(tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(assets.resolve("tiny-base"), broken)
    weights = safetensors.numpy.load_file(broken / "model.safetensors")
    name = next(key for key in weights if "norm" in key)
    safetensors.numpy.save_file(weights | {name: np.full_like(weights[name], np.nan)}, broken / "model.safetensors")
    config = config_of("prm_math", "runlocal")
    config.models.generator.path = str(broken)
    with pytest.raises(StageFailed, match=r"stage solve: all of \d+ failed: the model's logits are not finite"):
        main.run(config, "nan", str(tmp_path / "work"))
    assert not list((tmp_path / "work").rglob("export"))


def test_the_truth_of_a_file_that_does_not_tell_it_is_not_known(tmp_path):
    config = config_of("annotate", "task=arithmetic,runlocal")
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config.data.path, config.judge = str(tmp_path / "own.jsonl"), "truth"
    with pytest.raises(StageFailed, match="only generated problems tell their facts"):
        main.run(config, "annotate", str(tmp_path / "work"))
