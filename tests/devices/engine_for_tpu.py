"""Run by test_tpu.py in a process of its own: compiles the engine of an 8B model for a TPU v5e slice, ahead of time.

Needs libtpu and no TPU. Prints one JSON object: bytes per chip and kernels of each function.
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from collectives import collectives_of
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tpu_training import LLAMA_3_8B

from spare_jax.engines.compiled import compile_functions
from spare_jax.engines.lanes import GROUP_SIZES, slot_groups
from spare_jax.models import sharding
from spare_jax.models.cache import PageWrites, blocks_of
from spare_jax.models.decoder import hidden_states, init_decoder

SLOTS, MAX_LENGTH, MAX_TOKENS, PAGES, ROWS, BUCKET = 64, 4096, 1024, 1024, 4, 512


def main() -> dict[str, dict]:
    topology = topologies.get_topology_desc(sys.argv[1], platform="tpu")
    mesh = Mesh(np.array(topology.devices).reshape(1, 2, -1), sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    model = jax.eval_shape(lambda: init_decoder(LLAMA_3_8B, jax.random.key(0), jnp.bfloat16))
    model = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), model, sharding.shardings_of(model, mesh)
    )
    functions = compile_functions(LLAMA_3_8B, SLOTS, MAX_TOKENS, PAGES, 16, mesh, jnp.dtype("bfloat16"))

    def given(shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=functions.replicated)

    state, pages = functions.slots.eval_shape(), functions.pages.eval_shape()
    blocks = blocks_of(MAX_LENGTH)
    groups = tuple(slot_groups({}, size, SLOTS, SLOTS, blocks) for size in GROUP_SIZES)
    groups = jax.tree.map(lambda x: given(x.shape), groups)
    batch = given((ROWS, BUCKET)), given((ROWS, blocks)), given((ROWS,))
    read = jax.eval_shape(functions.prefill, model, pages, *batch)
    writes = PageWrites(*(given((ROWS,)) for _ in range(3)), given((ROWS, blocks_of(BUCKET) + 1)), given((ROWS,)))
    lowered = {
        "prefill": functions.prefill.lower(model, pages, *batch),
        "write": functions.write.lower(pages, *read, writes),
        "decode": functions.decode.lower(model, state, pages, groups, None),
    }
    tokens = jax.ShapeDtypeStruct((8, 2048), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))

    def states_sum(model, ids, positions, segments):
        return (
            hidden_states(model, ids, positions, segments, remat="full", dtype=jnp.bfloat16).astype(jnp.float32).sum()
        )

    with jax.set_mesh(mesh):
        lowered["gradient"] = jax.jit(jax.grad(states_sum)).lower(model, tokens, tokens, tokens)
    found = {}
    for name, function in lowered.items():
        compiled = function.compile()
        memory = compiled.memory_analysis()
        found[name] = {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "kernels": sorted(set(KERNEL.findall(compiled.as_text()))),
            "largest_collective": max((one.largest for one in collectives_of(compiled.as_text())), default=0),
        }
    return found


KERNEL = re.compile(r"%(attend_pages|splash_mha_[a-z]+)\S* = .*tpu_custom_call")


if __name__ == "__main__":
    print(json.dumps(main()))
