"""Released reward models are read as their cards say, and a mistake in reading one would show."""

import dataclasses
import json
import math
import os
import pathlib

import jax.numpy as jnp
import pytest
import safetensors.numpy
from small_tokenizer import small_tokenizer
from tests_config import config_of

from spare_jax import main
from spare_jax.judges import conventions
from spare_jax.judges.reward_model import RewardModelSettings
from spare_jax.models import heads, huggingface
from spare_jax.models.weights import ModelError
from spare_jax.programs import RequestFailed
from spare_jax.prompts.chat import encode
from spare_jax.records import Problem, Solution

pytest.importorskip("torch")

import convention_parity as parity


@pytest.fixture(scope="module", params=parity.CASES)
def made(request, tmp_path_factory):
    """(name, directory, largest difference from the card) of every convention."""
    directory = tmp_path_factory.mktemp(request.param)
    return request.param, directory, parity.error(request.param, directory)


def test_every_convention_has_a_card():
    assert parity.CASES.keys() | parity.BY_PROGRAM.keys() == conventions.PUBLISHED.keys()


def test_scores_are_the_cards(made):
    assert made[2] < 1e-5


@pytest.mark.parametrize("name", parity.BY_PROGRAM)
def test_scores_of_several_requests_are_the_cards(name, tmp_path):
    assert parity.error(name, tmp_path) < 1e-5
    loaded = huggingface.load(tmp_path)
    convention = conventions.PUBLISHED[name]
    assert conventions.of_model(tmp_path, name) is convention
    settings = RewardModelSettings(1024, max_tokens=parity.CRITIQUE)
    candidate = Solution("p/0", "p", parity.STEPS, None, "stop")
    program = convention.reader(loaded.tokenizer).program(Problem("p", parity.QUESTION), candidate, settings)
    first = next(program)
    prompt = loaded.tokenizer.decode(first[0].prefix.all_ids())
    assert "There is no reference answer for this question." in prompt or name != "universal_prm"
    assert parity.REFERENCE[0] not in prompt
    # What they share is declared, and a context that holds no step is told.
    assert all(request.prefix is first[0].prefix for request in first)
    short = convention.reader(loaded.tokenizer).program(
        Problem("p", parity.QUESTION), candidate, dataclasses.replace(settings, max_length=8)
    )
    with pytest.raises(RequestFailed, match=r"beyond the context|leaves no room"):
        next(short)


def test_a_score_read_elsewhere_is_another_score(made, monkeypatch):
    """The golden test sees a score that is read one token too early, or by other classes."""
    name, directory, _ = made
    convention, good = conventions.PUBLISHED[name], parity.ours(directory, name)

    def early(tokenizer, question, steps):
        ids, positions = convention.lay_out(tokenizer, question, steps)
        return ids, [position - 1 for position in positions]

    def swapped(tokenizer):
        read_out = convention.read_out(tokenizer)
        return dataclasses.replace(
            read_out, columns=read_out.columns[::-1], right=(0,) if not read_out.columns else (1,)
        )

    changes = [dataclasses.replace(convention, lay_out=early)]
    if name != "skywork":  # a single logit has no order
        changes.append(dataclasses.replace(convention, read_out=swapped))
    for change in changes:
        monkeypatch.setitem(conventions.PUBLISHED, name, change)
        assert max(abs(a - b) for a, b in zip(parity.ours(directory, name), good, strict=True)) > 1e-3


def test_one_score_per_step_whatever_the_text(made):
    """Texts of tags inside a step are text; a context that is too short leaves later steps without a score."""
    name, directory, _ = made
    words = parity.tokenizer_of(parity.CASES[name][2])
    hostile = ("a ки b", f"c <extra_0> d{parity.PSA_TAG}e", "+ <pad> -", "</s><|turn|>user <s> 8", "g\n\nh")
    ids, positions = conventions.PUBLISHED[name].lay_out(words, parity.QUESTION, hostile)
    assert len(positions) == len(hostile) and positions == sorted(set(positions)) and positions[-1] < len(ids)
    for k in range(1, len(hostile)):  # a step's place does not depend on what follows
        shorter, before = conventions.PUBLISHED[name].lay_out(words, parity.QUESTION, hostile[:k])
        assert before == positions[:k] and shorter[: before[-1] + 1] == ids[: before[-1] + 1]
    ids, positions = conventions.PUBLISHED[name].lay_out(words, parity.QUESTION, parity.STEPS)
    cut = parity.ours(directory, name, max_length=positions[1] + 1)
    whole = parity.ours(directory, name)
    assert cut[:2] == pytest.approx(whole[:2], abs=1e-5) and cut[2] is None


def test_which_convention_a_directory_has(made, tmp_path):
    name, directory, _ = made
    by_name = {"qwen_math_prm", "skywork", "reason_eval_7b", "reason_eval_34b"}
    if name in by_name:
        assert conventions.of_model(directory) is conventions.PUBLISHED[name]
    else:
        with pytest.raises(ModelError, match="name its convention, one of spare, math_shepherd"):
            conventions.of_model(directory)
    with pytest.raises(ModelError, match="convention 'spar' is unknown: choose among spare"):
        conventions.of_model(directory, "spar")


def test_a_checkpoint_without_its_head_is_an_error(made, tmp_path):
    name, directory, _ = made
    kind = conventions.PUBLISHED[name].head
    if kind is None:
        pytest.skip("the head is the language model's")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((directory / file).read_bytes())
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    layer = heads.HEADS[kind][-1]
    del tensors[f"{layer}.weight"]
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=f"tensor {layer}.weight is missing: the reward model's head"):
        huggingface.load(tmp_path)


def test_a_model_is_not_read_by_another_kind_of_head(made):
    name, directory, _ = made
    wrong = "qwen_math_prm" if conventions.PUBLISHED[name].head != "two_layers" else "skywork"
    with pytest.raises(ModelError, match=f"convention {wrong!r} reads a head .*{conventions.PUBLISHED[wrong].head}"):
        parity.ours(directory, wrong)


def test_the_tag_with_a_blank_is_another_token():
    words = parity.tokenizer_of("bytes")
    assert conventions.single_id(words, " ки") != conventions.single_id(words, "ки")
    ids, positions = conventions.PUBLISHED["spare"].lay_out(words, "Q", ["a"])
    assert ids[positions[0]] == conventions.single_id(words, " ки")


def test_a_missing_token_is_named():
    with pytest.raises(ModelError, match="'<extra_0>' is not one token of this tokenizer"):
        conventions.PUBLISHED["qwen_math_prm"].reader(small_tokenizer())


def test_a_probability_of_0_is_a_score():
    """Recipes that drop zeros from a masked softmax lose the step; a position is asked for by its index here."""
    head = heads.Head(((jnp.asarray([[200.0, -200.0]]), jnp.zeros(2)),))
    found = heads.step_scores(None, head, jnp.ones((1, 3, 1)), jnp.asarray([[0, 2]]), heads.ReadOut())  # type: ignore
    assert found.tolist() == [[0.0, 0.0]]


def test_a_file_is_scored_in_its_order_by_a_released_model(tmp_path, caplog):
    parity.make("qwen_math_prm", tmp_path / "model")
    rows = [
        {"id": "b", "question": parity.QUESTION, "solution": parity.STEPS},
        {"id": "a", "question": "How many?", "solution": "One.\nTwo."},
        {"question": "How many?", "solution": []},
        {"id": "b", "question": "How many?", "solution": ["word " * 2000, "Two."]},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "half a row\n")
    config = config_of("score", "runlocal")
    config.data.on_error = "skip"
    config.data.path, config.models.prm.path = str(tmp_path / "x.jsonl"), str(tmp_path / "model")
    caplog.set_level("WARNING", logger="spare_jax")
    main.run(config, "score", str(tmp_path / "work"))
    assert "1 malformed rows were skipped, the first: " in caplog.text
    found = [json.loads(line) for line in (tmp_path / "work" / "scores.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == ["b", "a", "x-00003/0", "b"]
    assert found[1]["steps"] == ["One.", "Two."]
    assert found[0]["scores"] == pytest.approx(parity.ours(tmp_path / "model"), abs=1e-6)
    assert found[0]["solution_score"] == pytest.approx(math.prod(found[0]["scores"]))
    assert (found[2]["scores"], found[2]["solution_score"]) == ([], None)
    assert (found[3]["scores"], found[3]["solution_score"]) == ([None, None], None)
    config.models.prm.path = ""
    with pytest.raises(ValueError, match=r"config.models.prm.path is empty: name"):
        main.run(config, "score", str(tmp_path / "none"))


def test_our_own_models_tell_how_they_are_read(tmp_path):
    words = parity.tokenizer_of("bytes")
    convention = conventions.choose_convention(words, (), "min")
    conventions.save_convention(tmp_path, convention)
    assert conventions.of_model(tmp_path) == convention
    assert encode(words, " ки") == [convention.tag_id]


def test_the_published_example(tmp_path):
    """With the weights of UKPLab/Qwen2.5-3b-spare-prm-math, and beside them example.json: {"question", "right": steps,
    "wrong": steps} as its card has them (steps without the tag)."""
    directory = os.environ.get("SPARE_JAX_SPARE_PRM")
    if not directory:
        pytest.skip("SPARE_JAX_SPARE_PRM names no directory with the weights of Qwen2.5-3b-spare-prm-math")
    example = json.loads((pathlib.Path(directory) / "example.json").read_text(encoding="utf-8"))
    right, wrong = (
        [round(score, 4) for score in parity.ours(directory, "spare", example["question"], example[key])]
        for key in ("right", "wrong")
    )
    assert right == [0.8710, 0.9163, 0.9786]
    assert wrong == [0.3292, 0.5288]
