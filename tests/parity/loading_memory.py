"""Run by test_families.py in a process of its own: loads the weights that `write` has written and prints, as JSON, how
far the process's memory went beyond what it held before and the parameters themselves, by the kernel's own mark."""

import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from spare_jax.models import config, huggingface

# The embedding has 134 MB, and each MLP kernel more than a piece of 16.8 MB.
CONFIG = config.DecoderConfig(
    vocab_size=2**16, hidden_size=512, intermediate_size=10000, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64
)


def resident(key: str) -> int:
    """VmRSS (now) or VmHWM (the most so far), in bytes."""
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])


def write(directory: pathlib.Path) -> int:
    """Random weights in several files, one tensor at a time; the size of the largest."""
    hidden, kv, q = CONFIG.hidden_size, CONFIG.num_kv_heads * CONFIG.head_dim, CONFIG.num_heads * CONFIG.head_dim
    layer = {
        "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q), "mlp.gate_proj": (CONFIG.intermediate_size, hidden),
        "mlp.up_proj": (CONFIG.intermediate_size, hidden), "mlp.down_proj": (hidden, CONFIG.intermediate_size),
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": (CONFIG.vocab_size, hidden), "model.norm.weight": (hidden,)}
    for i in range(CONFIG.num_layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    weight_map = {name: f"model-{i:05d}-of-{len(shapes):05d}.safetensors" for i, name in enumerate(shapes, 1)}
    for i, (name, file) in enumerate(weight_map.items()):
        safetensors.numpy.save_file({name: tensor(i, shapes[name])}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return max(4 * int(np.prod(shape)) for shape in shapes.values())


def tensor(number: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(shape, np.float32)


def load(directory: pathlib.Path) -> dict:
    jnp.zeros(8).block_until_ready()  # starts the backend
    before = resident("VmRSS")
    model = jax.block_until_ready(huggingface.load_weights(directory, CONFIG))
    beyond = resident("VmHWM") - before - sum(leaf.nbytes for leaf in jax.tree.leaves(model))
    equal = np.array_equal(model.embed[...], tensor(0, model.embed[...].shape))
    return {"beyond": beyond, "equal": equal}


if __name__ == "__main__":
    print(json.dumps(load(pathlib.Path(sys.argv[1]))))
