"""google-tunix's sampler on a random Qwen2, as a peer that measures one job per line of input.

In a virtual environment of its own (pip install google-tunix). Reads JSON lines {"model": {...}, "batch", "prompt",
"new", "sample"}, answers {"seconds": {"": s}} for each; the model and its sampler are made once.
"""

import json
import sys
import time

import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.generate import sampler as sampler_lib
from tunix.models.qwen2 import model as qwen2


class Numbers:
    """A tokenizer of numbers: the text "3 17 5" is the ids [3, 17, 5]."""

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def encode(self, text, **_):
        return [int(word) for word in text.split()]

    def decode(self, ids, **_):
        return " ".join(str(int(i)) for i in ids)

    def bos_id(self):
        return 1

    def eos_id(self):
        return self.vocab_size - 1

    def pad_id(self):
        return 0


rng, sampler = np.random.default_rng(0), None
for number, line in enumerate(sys.stdin):
    job = json.loads(line)
    sizes = job["model"]
    vocab, heads = sizes["vocab_size"], sizes["num_attention_heads"]
    if sampler is None:
        head_dim = sizes["hidden_size"] // heads
        config = qwen2.ModelConfig(
            num_layers=sizes["num_hidden_layers"], vocab_size=vocab, embed_dim=sizes["hidden_size"],
            hidden_dim=sizes["intermediate_size"], num_heads=heads, head_dim=head_dim,
            num_kv_heads=sizes["num_key_value_heads"], rope_theta=1_000_000, norm_eps=1e-6, use_tied_embedding=True,
            dtype=jnp.float32, param_dtype=jnp.float32,
        )  # fmt: skip
        cache = sampler_lib.CacheConfig(
            cache_size=job["prompt"] + job["new"] + 8, num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads, head_dim=head_dim,
        )  # fmt: skip
        sampler = sampler_lib.Sampler(qwen2.Qwen2(config, rngs=nnx.Rngs(0)), Numbers(vocab), cache)
    prompts = [" ".join(map(str, rng.integers(10, vocab - 10, job["prompt"] - 1))) for _ in range(job["batch"])]
    how = {"temperature": 1.0, "top_p": 1.0} if job["sample"] else {}
    start = time.perf_counter()
    out = sampler(
        prompts, max_generation_steps=job["new"], max_prompt_length=job["prompt"], seed=number,
        eos_tokens=[vocab - 1], **how,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    made = sum(len(tokens) for tokens in out.tokens)
    # A random model may draw the end token: count what was made.
    print(json.dumps({"seconds": {"": seconds * job["batch"] * job["new"] / made}}), flush=True)
