"""transformers' `generate` on a random Qwen2 (torch, CPU or GPU), as a peer that measures one job per line of input.

Reads JSON lines {"model": {...}, "batch", "prompt", "new", "samples", "sample", "caches", "dtype"}, and answers
{"seconds": {cache: s}} for each. The first line's model is made once.
"""

import json
import sys
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

model = None
for line in sys.stdin:
    job = json.loads(line)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if model is None:
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config(**job["model"])).to(device, getattr(torch, job["dtype"])).eval()
    ids = torch.randint(10, job["model"]["vocab_size"] - 10, (job["batch"], job["prompt"]), device=device)
    seconds = {}
    for cache in job["caches"]:
        options = {"cache_implementation": "static", "disable_compile": True} if cache == "static" else {}
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=job["new"], min_new_tokens=job["new"],
                do_sample=job["sample"], num_return_sequences=job["samples"], pad_token_id=0, top_k=0, **options,
            )  # fmt: skip
        assert out.shape == (job["batch"] * job["samples"], job["prompt"] + job["new"])
        if device == "cuda":
            torch.cuda.synchronize()
        seconds[cache] = time.perf_counter() - start
    print(json.dumps({"seconds": seconds}), flush=True)
