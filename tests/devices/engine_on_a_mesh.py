"""Run by test_engine_mesh.py in a process of its own, because the number of devices is fixed when JAX starts
(XLA_FLAGS in the environment sets it).

Prints one JSON object: what an engine on 2 x 2 x 2 fake CPU devices answers, and what one on a single device does.
"""

import json

import jax
import numpy as np

from spare_jax.engines.local import LocalEngine
from spare_jax.models import sharding
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import init_decoder
from spare_jax.models.heads import ReadOut
from spare_jax.programs import Prefix, Sample, Score

CONFIG = DecoderConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
    tie_embeddings=False, max_length=160,
)  # fmt: skip
READ_OUT = ReadOut((6, 5))
PREFIX = tuple(range(60)) + tuple(range(10))


def answers(engine):
    rng = np.random.default_rng(0)
    for i in range(6):
        ids = tuple(rng.integers(0, CONFIG.vocab_size, 10 + 7 * i).tolist())
        engine.submit(f"sample-{i}", Sample("m", ids, max_tokens=12, n=1 + i % 3, top_p=1 - 0.05 * i))
        engine.submit(f"score-{i}", Score("m", ids, positions=(2, 9)))
        engine.submit(f"shared-{i}", Sample("m", ids, max_tokens=8, prefix=Prefix(PREFIX)))
    found = {}
    while len(found) < 18:
        found |= dict(engine.poll())
    return [
        [[list(completion.ids), list(completion.logprobs), list(completion.scores)] for completion in found[name]]
        for name in sorted(found)
    ]


def main():
    model = init_decoder(CONFIG, jax.random.key(0))
    mesh = sharding.make_mesh(2, 2, 2)
    on_mesh = jax.device_put(model, sharding.shardings_of(model, mesh))
    sizes = {"pad_id": 0, "seed": 0, "slots": 8, "max_length": 160, "chunk": 4, "prefill_tokens": 256}
    engine = LocalEngine(on_mesh, CONFIG, mesh=mesh, read_out=READ_OUT, **sizes)
    seen = {"mesh": answers(engine), "alone": answers(LocalEngine(model, CONFIG, read_out=READ_OUT, **sizes))}
    names = "prefill", "write", "score", "insert", "decode"
    seen["compiled"] = {name: getattr(engine._compiled, name)._cache_size() for name in names}
    cache = engine._lanes[0]._state.cache.k
    seen["share_of_the_cache"] = cache.size // cache.addressable_shards[0].data.size
    seen["share_of_the_pages"] = engine._pages.k.size // engine._pages.k.addressable_shards[0].data.size
    try:
        LocalEngine(on_mesh, CONFIG, mesh=mesh, lanes=2, **sizes)
    except ValueError as error:
        seen["lanes"] = str(error)
    return seen


if __name__ == "__main__":
    print(json.dumps(main()))
