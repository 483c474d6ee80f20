"""TRL's GRPOTrainer on a random Qwen2, with its own generation, as a peer that takes one step for every line of input:
on a GPU in bfloat16 where torch finds one, else on the CPU in float32.

Reads JSON lines {"model": {...}, "prompts": [[...]], "samples", "new_tokens", "accumulate" (microbatches of a step),
"settings": {...}}, answers {"seconds": {"sample": s, "update": s}} for each; sampling has the rewards in it, which cost
nothing. The trainer is made once. TRL's own parts are timed where they are called.
"""

import json
import sys
import tempfile
import time

import datasets
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

GPU = torch.cuda.is_available()


def paid(completions, **_):
    """One reward or the other, by the text."""
    return [float(sum(map(ord, text)) % 2) for text in completions]


def trainer_of(job, directory):
    vocab = job["model"]["vocab_size"]
    numbers = Tokenizer(models.WordLevel({str(i): i for i in range(vocab)}, unk_token="0"))
    numbers.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=numbers, pad_token="0", eos_token="1")
    torch.manual_seed(0)
    config = Qwen2Config(**job["model"], pad_token_id=0, eos_token_id=1, bos_token_id=None)
    Qwen2ForCausalLM(config).save_pretrained(f"{directory}/model")
    tokenizer.save_pretrained(f"{directory}/model")
    batch = len(job["prompts"]) * job["samples"]
    settings = job["settings"] | {
        "output_dir": directory, "per_device_train_batch_size": batch // job["accumulate"],
        "gradient_accumulation_steps": job["accumulate"],
        "num_generations": job["samples"], "max_completion_length": job["new_tokens"], "max_steps": 1,
        "generation_kwargs": {"min_new_tokens": job["new_tokens"]}, "temperature": 1.0, "use_cpu": not GPU, "bf16": GPU,
        "gradient_checkpointing": False, "save_strategy": "no", "logging_strategy": "no", "report_to": [],
        "disable_tqdm": True,
    }  # fmt: skip
    data = datasets.Dataset.from_list([{"prompt": " ".join(map(str, prompt))} for prompt in job["prompts"]])
    model = Qwen2ForCausalLM.from_pretrained(f"{directory}/model", dtype=torch.bfloat16 if GPU else torch.float32)
    return GRPOTrainer(
        model, reward_funcs=paid, args=GRPOConfig(**settings), train_dataset=data, processing_class=tokenizer
    )


def main():
    answers, sys.stdout = sys.stdout, sys.stderr  # trainers print
    with tempfile.TemporaryDirectory() as directory:
        trainer, spent = None, {}
        for line in sys.stdin:
            job = json.loads(line)
            if trainer is None:
                trainer = trainer_of(job, directory)
                generate = trainer._generate_and_score_completions

                def timed(inputs, generate=generate):
                    start = time.perf_counter()
                    found = generate(inputs)
                    spent["sample"] = time.perf_counter() - start
                    assert found["completion_mask"].sum() == found["completion_mask"].numel()  # nothing ended early
                    return found

                trainer._generate_and_score_completions = timed
            start = time.perf_counter()
            trainer.train()
            if GPU:
                torch.cuda.synchronize()
            spent["update"] = time.perf_counter() - start - spent["sample"]
            print(json.dumps({"seconds": spent}), file=answers, flush=True)


if __name__ == "__main__":
    main()
