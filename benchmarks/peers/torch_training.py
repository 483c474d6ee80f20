"""Steps of training a random Qwen2 with plain transformers and torch, as a peer that runs one job per line of input.

Reads JSON lines {"model": {...}, "name", "texts": [[ids, tags, labels], ...], "batch", "lora": {...} or null,
"settings": {...}}, answers {"seconds": {attention: s}} for each: what its optimiser steps took, one for every `batch`
texts, all of one length. A model is made once for each name: a token classifier of two classes under autocast to
bfloat16, its weights in float32; or in bfloat16 beneath PEFT's adapters, which are float32. AdamW is torch's fused one.
Attention is torch's scaled_dot_product_attention, by the backends named in "attention" in turn.
"""

import json
import sys
import time

import peft
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Qwen2Config, Qwen2ForTokenClassification

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH}


class Training:
    def __init__(self, job):
        config = Qwen2Config(**job["model"], num_labels=2, classifier_dropout=0.0, use_cache=False)
        config._attn_implementation = "sdpa"
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16 if job["lora"] else torch.float32)
        with torch.device(DEVICE):
            self.model = Qwen2ForTokenClassification(config)
            if job["lora"]:
                self.model = peft.get_peft_model(self.model, peft.LoraConfig(task_type="TOKEN_CLS", **job["lora"]))
        torch.set_default_dtype(torch.float32)
        self.model.train()
        self.trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.clip = job["settings"].pop("clip")
        self.optimizer = torch.optim.AdamW(self.trained, fused=True, **job["settings"])
        self.batches = []
        for start in range(0, len(job["texts"]), job["batch"]):
            texts = job["texts"][start : start + job["batch"]]
            ids = torch.tensor([ids for ids, _, _ in texts], device=DEVICE)
            labels = torch.full_like(ids, -100)
            for row, (_, tags, classes) in enumerate(texts):
                labels[row, tags] = torch.tensor(classes, device=DEVICE)
            self.batches.append((ids, labels))

    def seconds(self, attention):
        start = time.perf_counter()
        with sdpa_kernel(BACKENDS[attention]):
            for ids, labels in self.batches:
                with torch.autocast(DEVICE, torch.bfloat16):
                    loss = self.model(input_ids=ids, labels=labels).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        assert torch.isfinite(loss)  # waits for the device
        return time.perf_counter() - start


def main():
    answers, sys.stdout = sys.stdout, sys.stderr
    trainings = {}
    for line in sys.stdin:
        job = json.loads(line)
        if job["name"] not in trainings:
            trainings.clear()  # the last one's memory
            torch.cuda.empty_cache()
            trainings[job["name"]] = Training(job)
        seconds = {attention: trainings[job["name"]].seconds(attention) for attention in job["attention"]}
        print(json.dumps({"seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
