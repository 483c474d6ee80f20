"""Memory of a step of training by ORPO: the logits of all tokens at once, against chunks of them.

    python benchmarks/memory.py [--pairs=8] [--length=512] [--json=FILE]

Compiles the step for shapes alone, on one device, and prints what the compiler allots beside parameters, moments and
batch (`memory_analysis().temp_size_in_bytes`). Nothing is run or measured. The model is that of benchmarks/engine.py, a
Qwen2 of 15.8M parameters and a vocabulary of 32,000, in float32; both texts of a pair have `length` tokens.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
import optax
from engine import CONFIG

from spare_jax.models import sharding
from spare_jax.models.decoder import init_decoder
from spare_jax.training import batches, losses
from spare_jax.training.setup import TrainConfig, set_up


def temporary_bytes(pairs: int, length: int, chunked: bool, remat: str) -> int:
    """What one step of `pairs` pairs takes for itself."""
    losses.WHOLE_LOGITS = 0 if chunked else pairs * 2 * length * CONFIG.vocab_size
    mesh = jax.make_mesh(
        (1, 1, 1), sharding.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1]
    )
    prompt, text = np.ones(length // 2, np.int32), np.ones(length - length // 2, np.int32)
    rows = batches.pack_pairs([batches.Pair(prompt, text, text)] * pairs, 2 * length)
    model = jax.eval_shape(lambda: init_decoder(CONFIG, jax.random.key(0)))
    config = TrainConfig(batch_rows=pairs, row_length=2 * length, remat=remat)
    training = set_up(config, model, losses.ORPOLoss(), optax.constant_schedule(1e-4), mesh)
    return training.lower(rows.arrays, 1).compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--length", type=int, default=512, help="tokens of each text of a pair")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    found = []
    print("| train.remat | all logits at once | in chunks | ratio |\n|---|---|---|---|")
    for remat in ("none", "full"):
        whole, chunked = (temporary_bytes(options.pairs, options.length, c, remat) for c in (False, True))
        found.append({"remat": remat, "whole_bytes": whole, "chunked_bytes": chunked})
        print(f"| {remat} | {whole / 1e6:,.0f} MB | {chunked / 1e6:,.0f} MB | {whole / chunked:.2f} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"pairs": options.pairs, "length": options.length, "rows": found}, indent=2))


if __name__ == "__main__":
    main()
