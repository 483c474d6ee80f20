"""Run by test_training_mesh.py in a process of its own with eight fake devices: the same training on several meshes.

The second argument is an optimiser, or "adapters": a model with low-rank adapters and dropout over nf4 kernels, which
adamw trains. Prints one JSON object: per mesh the losses, how often the step compiled, and which arrays of the
optimiser's state are laid out otherwise than their parameter.
"""

import dataclasses
import functools
import json
import pathlib
import sys

import jax
import numpy as np
from jax.sharding import AxisType

from spare_jax.models import adapters, decoder, sharding
from spare_jax.training import loop, losses
from spare_jax.training.batches import Example

CONFIG = decoder.DecoderConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
    tie_embeddings=False, family="qwen2", attention_bias=True,
)  # fmt: skip
TRAIN = loop.TrainConfig(
    batch_rows=16, row_length=16, steps=6, accumulate=2, learning_rate=1e-2, eval_every=3, checkpoint_every=3
)
MESHES = ((1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2))


def examples(count: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(rng.integers(1, 32, 16), tags=[7, 15], labels=rng.random(2)) for _ in range(count)]


def main(directory: pathlib.Path, kind: str) -> dict:
    tag_loss = functools.partial(losses.token_tag_loss, good_id=5, bad_id=7)
    make_step, seen = loop.make_train_step, {}

    def recorded(*args):
        step = make_step(*args)

        def run(*arguments):
            outputs = step(*arguments)
            seen[name]["compiled"] = step._cache_size()
            seen[name]["misplaced"] = misplaced(*outputs[:2])
            seen[name]["query_moment"] = query_moment_shard(outputs[1])
            return outputs

        return run

    loop.make_train_step = recorded
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
            config = dataclasses.replace(TRAIN, steps=steps, optimizer="adamw" if kind == "adapters" else kind)
            loop.train(config, model, tag_loss, examples(40), examples(5), directory / name, mesh)
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
