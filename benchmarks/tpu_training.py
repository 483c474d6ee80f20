"""Steps of training a model of Llama-3-8B's shape, compiled ahead of time for a TPU slice: bytes per chip, and what the
chips send each other.

    pip install libtpu==0.0.42.1
    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python benchmarks/tpu_training.py [--steps=prm,orpo] [--json=FILE]

Needs no TPU: arrays are shapes alone and nothing is run. The step is that of `training.setup`, in bfloat16 over float32
parameters and moments, blocks recomputed (`train.remat`); `prm` is the loss at step tags, `orpo` that of pairs, and
`-qlora` behind them means adapters of rank 64 over nf4 kernels in place of full fine-tuning. The table has every
collective of a MiB or more; what stands in the loop over layers is counted once. A collective moves the whole batch
where an array of its result can hold all rows and is larger than a chip's own hidden states in float32.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from collectives import Collective, collectives_of, table
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from spare_jax.models import adapters, sharding
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder, init_decoder
from spare_jax.models.rows import ROW_AXES
from spare_jax.training import batches, losses
from spare_jax.training.setup import TrainConfig, check_batch, set_up

LLAMA_3_8B = DecoderConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_layers=32, num_heads=32, num_kv_heads=8,
    head_dim=128, rope_theta=500000.0, norm_eps=1e-5, tie_embeddings=False, max_length=8192, family="llama",
)  # fmt: skip
STEPS = ("prm", "orpo", "prm-qlora", "orpo-qlora")


def packed(kind: str, rows: int, length: int) -> batches.Packed:
    """Full rows: of four solutions with 16 steps each, or of two pairs."""
    text = np.ones(length // 4, np.int32)
    if kind == "orpo":
        prompt, completion = np.split(text, [len(text) // 4])
        return batches.pack_pairs([batches.Pair(prompt, completion, completion)] * 2 * rows, length)
    tags = np.arange(1, 17) * len(text) // 16 - 1
    return batches.pack([batches.Example(text, tags=tags, labels=[1.0] * 16)] * 4 * rows, length)


def abstract_model(config: DecoderConfig, qlora: bool) -> Decoder:
    """Shapes of a model in float32; or of its adapters in float32 over nf4 kernels, the rest in bfloat16."""
    if not qlora:
        return jax.eval_shape(lambda: init_decoder(config, jax.random.key(0)))
    made = adapters.AdapterConfig(rank=64, quantize="nf4")
    return jax.eval_shape(
        lambda: adapters.adapt(init_decoder(config, jax.random.key(0), jnp.bfloat16), made, jax.random.key(1))
    )


def compile_step(name: str, config: DecoderConfig, mesh: Mesh, rows: int, length: int) -> dict:
    """Bytes per chip and collectives of one of STEPS, for `rows` rows of `length` tokens."""
    kind, _, qlora = name.partition("-")
    model = abstract_model(config, bool(qlora))
    loss = losses.ORPOLoss() if kind == "orpo" else losses.TokenTagLoss(good_id=10, bad_id=12)
    settings = TrainConfig(batch_rows=rows, row_length=length, remat="full", dtype="bfloat16")
    check_batch(settings, mesh)
    training = set_up(settings, model, loss, optax.constant_schedule(1e-4), mesh)
    start = time.perf_counter()
    compiled = training.lower(packed(kind, rows, length).arrays, 1).compile()
    found, memory = collectives_of(compiled.as_text()), compiled.memory_analysis()
    return {
        "step": name,
        "compile_seconds": time.perf_counter() - start,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "collectives": table(found, 2**20),
        "of_the_whole_batch": table([one for one in found if moves_the_batch(one, config, mesh, rows, length)]),
    }


def moves_the_batch(one: Collective, config: DecoderConfig, mesh: Mesh, rows: int, length: int) -> bool:
    own = 4 * rows * length * config.hidden_size // math.prod(mesh.shape[axis] for axis in ROW_AXES)
    return one.largest_of_all_rows(rows, length) > own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="prm,orpo", help=f"some of {','.join(STEPS)}")
    parser.add_argument("--topology", default="v5e:4x4")
    parser.add_argument("--tensor", type=int, default=1, help="chips that share heads; fsdp has the others")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=LLAMA_3_8B.num_layers)
    parser.add_argument("--json", type=pathlib.Path)
    chosen = parser.parse_args()
    names = chosen.steps.split(",")
    if unknown := set(names) - set(STEPS):
        parser.error(f"--steps={','.join(sorted(unknown))} is unknown: use some of {','.join(STEPS)}")
    config = dataclasses.replace(LLAMA_3_8B, num_layers=chosen.layers)
    devices = np.array(topologies.get_topology_desc(chosen.topology, platform="tpu").devices)
    mesh = Mesh(devices.reshape(1, -1, chosen.tensor), sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    results = []
    for name in names:
        found = compile_step(name, config, mesh, chosen.rows, chosen.length)
        results.append(found)
        sizes = {word: found[f"{word}_bytes"] / 1e9 for word in ("argument", "temporary", "output", "aliased", "code")}
        print(f"{name}, {dict(mesh.shape)}, compiled in {found['compile_seconds']:.0f} s; GB per chip:", end=" ")
        print(", ".join(f"{word} {size:.2f}" for word, size in sizes.items()))
        print("| collective | result on a chip | MB | in the text |\n|---|---|---|---|")
        for row in found["collectives"]:
            arrays = row["arrays"] if len(row["arrays"]) < 3 else [*row["arrays"][:2], "..."]
            print(f"| {row['kind']} | {' '.join(arrays)} | {row['bytes'] / 1e6:.1f} | {row['count']} |")
        whole = [f"{row['kind']} {' '.join(row['arrays'])}" for row in found["of_the_whole_batch"]]
        print("moves the whole batch:", "; ".join(whole) or "none", flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps({"mesh": dict(mesh.shape), "steps": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
