"""Parity with TRL's PRMTrainer, as docs/from_trl.md states it. Needs trl 1.13.0, the last with that trainer."""

import importlib.util

import jax.numpy as jnp
import optax
import pytest
from small_tokenizer import small_tokenizer

from spare_jax.formats import files
from spare_jax.formats.fields import judged_by, labelled
from spare_jax.models import decoder, huggingface

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl==1.13.0"),
]

SOLUTIONS = [
    labelled("spare", ("p", "p/0"), "Ada has 5.", ("Ben has 8.", "The answer is 8."), judged_by((True, False))),
    labelled("spare", ("p", "p/1"), "Ben has 3 + 5 apples.", ("a", "b\n\nc", "8"), judged_by((False, True, True))),
    labelled("spare", ("q", "q/0"), "", ("Ada has 7.",), judged_by((True,))),
]
MAX_LENGTH = 64


def trl_layout(tokenizer, record, separator="\n"):
    """Ids as TRL joins them, and the index of the label of every step: the last token of the separator behind it."""

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids += encode(record.problem.question)
    positions = []
    for step in record.solution.steps:
        ids += encode(step) + encode(separator)
        positions.append(len(ids) - 1)
    return ids, positions


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = small_tokenizer("words")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, tokenizer):
    """TRL's trainer on a random model and on a file that we wrote; the model's trunk as a directory."""
    import datasets
    import torch
    import transformers
    from trl.experimental.prm import PRMConfig, PRMTrainer

    directory = tmp_path_factory.mktemp("trl")
    files.write(directory / "train.jsonl", "trl_stepwise", SOLUTIONS)
    data = datasets.load_dataset(
        "json", data_files=str(directory / "train.jsonl"), split="train", cache_dir=str(directory / "cache")
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_labels=2, tie_word_embeddings=True, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.LlamaForTokenClassification(config)
    trunk = transformers.LlamaForCausalLM(config)
    trunk.model.load_state_dict(model.model.state_dict())
    trunk.save_pretrained(directory / "trunk")
    tokenizer.save_pretrained(directory / "trunk")
    settings = PRMConfig(
        output_dir=str(directory / "out"), max_length=MAX_LENGTH, report_to=[], use_cpu=True, bf16=False,
        remove_unused_columns=False,
    )  # fmt: skip
    return PRMTrainer(model, settings, train_dataset=data, processing_class=tokenizer), directory / "trunk"


def test_the_same_file_gives_the_same_ids_and_labels(theirs, tokenizer):
    for row, record in zip(theirs[0].train_dataset, SOLUTIONS, strict=True):
        ids, positions = trl_layout(tokenizer, record)
        assert len(ids) < MAX_LENGTH and row["input_ids"] == ids
        assert {i: label for i, label in enumerate(row["labels"]) if label != -100} == dict(
            zip(positions, map(int, record.labels), strict=True)
        )


def test_the_loss_of_a_batch_is_the_same(theirs, tokenizer):
    trainer, trunk = theirs
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(SOLUTIONS))])
    expected = float(trainer.compute_loss(trainer.model.eval(), batch).detach())

    weight, bias = (p.detach().numpy() for p in (trainer.model.score.weight, trainer.model.score.bias))
    model = huggingface.load(trunk).model
    losses = []
    for record in SOLUTIONS:
        ids, positions = trl_layout(tokenizer, record)
        shape = (1, len(ids))
        hidden = decoder.hidden_states(
            model, jnp.asarray([ids]), jnp.broadcast_to(jnp.arange(len(ids)), shape), jnp.ones(shape, jnp.int32)
        )
        logits = hidden[0, jnp.asarray(positions)] @ weight.T + bias
        labels = jnp.asarray(record.labels, jnp.int32)
        losses.append(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    assert float(jnp.concatenate(losses).mean()) == pytest.approx(expected, abs=1e-5)
