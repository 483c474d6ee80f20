"""TRL's PRMTrainer and ORPOTrainer on a random Qwen2 (torch on the CPU), as a peer that runs one job per line of input.

Reads JSON lines {"model": {...}, "name", "kind": "prm" or "orpo", "texts": [...], "batch", "settings": {...}}, answers
{"seconds": {"": s}} for each: what its optimiser steps took, one step for every `batch` texts, without collation. A
trainer is made once for each name. Texts are ids: [ids, tags, labels] for prm, [prompt, chosen, rejected] for orpo,
where TRL puts an end-of-text behind the last two.
"""

import json
import sys
import tempfile
import time
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    TrainerCallback,
)
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.experimental.prm import PRMConfig, PRMTrainer


class Clock(TrainerCallback):
    """Seconds of every step."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self._start = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self._start)


def trainer_of(job, directory):
    vocab = job["model"]["vocab_size"]
    words = {"<pad>": 0, "<end>": 1} | {str(i): i for i in range(2, vocab)}
    numbers = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    numbers.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=numbers, pad_token="<pad>", eos_token="<end>")
    torch.manual_seed(0)
    sizes = {"num_labels": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = Qwen2Config(**(job["model"] | sizes))
    steps = len(job["texts"]) // job["batch"]
    settings = job["settings"] | {
        "output_dir": directory, "per_device_train_batch_size": job["batch"], "max_steps": steps, "use_cpu": True,
        "bf16": False, "gradient_checkpointing": False, "save_strategy": "no", "logging_strategy": "no",
        "report_to": [], "disable_tqdm": True,
    }  # fmt: skip
    if job["kind"] == "prm":
        rows = [
            {"input_ids": ids, "labels": [dict(zip(tags, labels, strict=True)).get(i, -100) for i in range(len(ids))]}
            for ids, tags, labels in job["texts"]
        ]
        data, model = datasets.Dataset.from_list(rows), Qwen2ForTokenClassification(config)
        return PRMTrainer(
            model=model, args=PRMConfig(**settings), processing_class=tokenizer, train_dataset=data, callbacks=[Clock()]
        )
    texts = [[" ".join(map(str, ids)) for ids in pair] for pair in job["texts"]]
    data = datasets.Dataset.from_list([{"prompt": p, "chosen": f" {c}", "rejected": f" {r}"} for p, c, r in texts])
    settings |= {"max_length": 4096, "beta": 0.2}
    trainer = ORPOTrainer(
        model=Qwen2ForCausalLM(config), args=ORPOConfig(**settings), processing_class=tokenizer, train_dataset=data,
        callbacks=[Clock()],
    )  # fmt: skip
    encoded: Any = trainer.train_dataset
    for row, (prompt, chosen, rejected) in zip(encoded, job["texts"], strict=True):
        assert row["chosen_input_ids"] == [*prompt, *chosen, 1] and row["rejected_input_ids"] == [*prompt, *rejected, 1]
    return trainer


def main():
    answers, sys.stdout = sys.stdout, sys.stderr  # trainers print
    trainers = {}
    with tempfile.TemporaryDirectory() as directory:
        for line in sys.stdin:
            job = json.loads(line)
            if job["name"] not in trainers:
                trainers[job["name"]] = trainer_of(job, directory)
            trainer = trainers[job["name"]]
            (clock,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, Clock))
            clock.seconds.clear()
            trainer.train()
            assert len(clock.seconds) == len(job["texts"]) // job["batch"]
            print(json.dumps({"seconds": {"": sum(clock.seconds)}}), file=answers, flush=True)


if __name__ == "__main__":
    main()
