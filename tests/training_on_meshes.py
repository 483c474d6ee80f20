"""Run by test_training_mesh.py in a process of its own with eight fake devices: the same training on several meshes.

Prints one JSON object: per mesh the losses, how often the step compiled, and which arrays of the optimiser's state
are laid out otherwise than their parameter.
"""

import functools
import json
import pathlib
import sys

import jax
import numpy as np
from jax.sharding import AxisType

from spare_jax.models import decoder, sharding
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


def main(directory: pathlib.Path) -> dict:
    tag_loss = functools.partial(losses.token_tag_loss, good_id=5, bad_id=7)
    make_step, seen = loop.make_train_step, {}

    def recorded(*args):
        step = make_step(*args)

        def run(model, state, batch):
            outputs = step(model, state, batch)
            seen[name]["compiled"] = step._cache_size()
            seen[name]["misplaced"] = misplaced(*outputs[:2])
            seen[name]["query_moment"] = shard_shapes(outputs[1])["query"]
            return outputs

        return run

    loop.make_train_step = recorded
    for sizes in MESHES:
        name = "x".join(map(str, sizes))
        seen[name] = {}
        devices = jax.devices()[: int(np.prod(sizes))]
        mesh = jax.make_mesh(sizes, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
        model = decoder.init_decoder(CONFIG, jax.random.key(0))
        # Two runs: the second goes on from the first's checkpoint, so restored arrays lie right as well.
        for steps in (3, 6):
            config = TRAIN.__class__(**{**vars(TRAIN), "steps": steps, "warmup": 0.0})
            loop.train(config, model, tag_loss, examples(40), examples(5), directory / name, mesh)
        rows = [json.loads(line) for line in (directory / name / "steps.jsonl").read_text().splitlines()]
        seen[name]["losses"] = [row.get("loss", row.get("dev_loss")) for row in rows]
    return seen


def misplaced(model, state) -> list[str]:
    """Names of moments whose sharding is not their parameter's; found by the parameter's path and shape."""
    where = {path_name(path): leaf.sharding for path, leaf in jax.tree.leaves_with_path(model)}
    wrong = [f"{len(where)} parameters, no moments"]
    for path, leaf in jax.tree.leaves_with_path(state):
        for moment in ("mu.", "nu."):
            name = path_name(path)
            if moment in name:
                wrong = [w for w in wrong if "no moments" not in w]
                parameter = where[name.split(moment, 1)[1]]
                if not leaf.sharding.is_equivalent_to(parameter, leaf.ndim):
                    wrong.append(name)
    return wrong


def shard_shapes(state) -> dict[str, list[int]]:
    leaves = jax.tree.leaves_with_path(state)
    return {
        "query": list(leaf.addressable_shards[0].data.shape)
        for path, leaf in leaves
        if "mu.blocks.attention.query.kernel" in path_name(path)
    }


def path_name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


if __name__ == "__main__":
    print(json.dumps(main(pathlib.Path(sys.argv[1]))))
