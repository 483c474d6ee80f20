"""Run by test_training_mesh.py in a process of its own with eight fake devices: the same training on several meshes.

The second argument is an optimiser; or "adapters": a model with low-rank adapters and dropout over nf4 kernels, which
adamw trains; or another loss, over chunks of tokens: "sft" (with NEFTune), "orpo", "dpo". Prints one JSON object: per
mesh the losses, how often the step compiled, which arrays of the optimiser's state are laid out otherwise than their
parameter, and the bytes of the largest array that a collective of the step makes.
"""

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np
from collectives import collectives_of
from jax.sharding import AxisType

from spare_jax.models import adapters, decoder, sharding
from spare_jax.models.config import DecoderConfig
from spare_jax.training import batches, loop, losses, optimizer, setup
from spare_jax.training.batches import Example, Pair

CONFIG = DecoderConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
    tie_embeddings=False, family="qwen2",
)  # fmt: skip
TRAIN = setup.TrainConfig(
    batch_rows=16, row_length=16, steps=6, accumulate=2, learning_rate=1e-2, eval_every=3, checkpoint_every=3
)
MESHES = ((1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2))


LOSSES = {"sft": losses.LanguageModelLoss(5.0), "orpo": losses.ORPOLoss(), "dpo": losses.DPOLoss()}


def packed(count: int, kind: str) -> batches.Packed:
    rng = np.random.default_rng(0)
    if kind in ("orpo", "dpo"):
        return batches.pack_pairs([Pair(*np.split(rng.integers(1, 32, 5), [1, 3])) for _ in range(2 * count)], 16)
    tags = dict(tags=[7, 15], labels=rng.random(2)) if kind != "sft" else dict(token_weights=np.arange(16) > 4)
    return batches.pack([Example(rng.integers(1, 32, 16), **tags) for _ in range(count)], 16)


def main(directory: pathlib.Path, kind: str) -> dict:
    loss = LOSSES.get(kind, losses.TokenTagLoss(5, 7))
    losses.WHOLE_LOGITS, losses.CHUNK_TOKENS, losses.CHUNK_TOKENS_ON_CPU = 0, 8, 8
    seen = {}

    def recorded(*args):
        training = setup.set_up(*args)
        step = training.train_step

        def run(*arguments):
            if "largest_collective" not in seen[name]:
                found = collectives_of(step.lower(*arguments).compile().as_text())
                seen[name]["largest_collective"] = max((one.largest for one in found), default=0)
            outputs = step(*arguments)
            seen[name]["compiled"] = step._cache_size()
            seen[name]["misplaced"] = misplaced(*outputs[:2])
            seen[name]["query_moment"] = query_moment_shard(outputs[1])
            return outputs

        return dataclasses.replace(training, train_step=run)

    loop.set_up = recorded
    for sizes in MESHES:
        name = "x".join(map(str, sizes))
        seen[name] = {}
        devices = jax.devices()[: int(np.prod(sizes))]
        mesh = jax.make_mesh(sizes, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
        model = decoder.init_decoder(CONFIG, jax.random.key(0))
        if kind == "adapters":
            model = adapters.adapt(model, adapters.AdapterConfig(rank=4, quantize="nf4"), jax.random.key(0))
        # Two runs: the second goes on from the first's checkpoint, so restored arrays lie right as well.
        for steps in (3, 6):
            config = dataclasses.replace(
                TRAIN, steps=steps, optimizer=kind if kind in optimizer.OPTIMIZERS else TRAIN.optimizer
            )
            sets = [packed(40, kind), packed(5, kind)]
            if kind == "dpo":
                sets = [loop.with_reference(config, model, rows, mesh) for rows in sets]
            loop.train(config, model, loss, *sets, directory / name, mesh)
        rows = [json.loads(line) for line in (directory / name / "steps.jsonl").read_text().splitlines()]
        seen[name]["losses"] = [row.get("loss", row.get("dev_loss")) for row in rows]
    return seen


def misplaced(model, state) -> list[str]:
    """Names of moments whose sharding is not their parameter's; found by the parameter's path and shape."""
    where = {path_name(path): leaf.sharding for path, leaf in jax.tree.leaves_with_path(model)}
    moments = [(path_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(state)]
    moments = [(name, leaf) for name, leaf in moments if ".mu." in name or ".nu." in name]
    assert {name.split(".mu.")[1] for name, _ in moments if ".mu." in name} == where.keys()
    return [
        name for name, leaf in moments
        if not leaf.sharding.is_equivalent_to(where[name.split(".mu." if ".mu." in name else ".nu.")[1]], leaf.ndim)
    ]  # fmt: skip


def query_moment_shard(state) -> list[int]:
    """Shape of one device's part of the first moment of the query kernels, or of their adapters' a."""
    (leaf,) = [
        leaf for path, leaf in jax.tree.leaves_with_path(state)
        if path_name(path).endswith(("mu.blocks.attention.query.kernel.value", "mu.blocks.attention.query.a.value"))
    ]  # fmt: skip
    return list(leaf.addressable_shards[0].data.shape)


def path_name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


if __name__ == "__main__":
    print(json.dumps(main(pathlib.Path(sys.argv[1]), sys.argv[2])))
