"""Adapters against peft, and what quantizing costs: what test_peft.py asserts and docs/models.md shows.
`PYTHONPATH=.:tests python tests/parity/adapter_parity.py` prints the tables of docs/models.md.
"""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import peft as library
import torch
import transformers
from small_tokenizer import small_tokenizer

from spare_jax import assets
from spare_jax.models import adapters, decoder, huggingface, peft
from spare_jax.models.adapters import PROJECTIONS, AdapterConfig
from spare_jax.training import optimizer

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
SIZES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=12, max_position_embeddings=64, initializer_range=0.3, tie_word_embeddings=False, sliding_window=None,
)  # fmt: skip
IDS = np.random.default_rng(0).integers(3, 250, (2, 20))


def torch_base(family: str, directory: pathlib.Path) -> torch.nn.Module:
    """A random model of a family, and its directory with a tokenizer."""
    words = small_tokenizer()
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(vocab_size=len(words), **SIZES)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    return transformers.AutoModelForCausalLM.from_pretrained(directory).eval()  # so it knows where it lies


def torch_adapter(base: torch.nn.Module, directory: pathlib.Path, **options) -> torch.nn.Module:
    """A peft adapter over a base, random in both of its matrices, and its directory."""
    config = library.LoraConfig(
        **dict(r=6, lora_alpha=16, lora_dropout=0.1, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM") | options
    )
    model = library.get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.normal_(std=0.1)
    model.save_pretrained(directory)
    return model


def torch_logits(model: torch.nn.Module) -> np.ndarray:
    """Logits of IDS."""
    with torch.no_grad():
        return model(torch.from_numpy(IDS)).logits.numpy()


def logits(model: decoder.Decoder) -> np.ndarray:
    """Ours."""
    positions = jnp.broadcast_to(jnp.arange(IDS.shape[1]), IDS.shape)
    hidden = decoder.hidden_states(model, jnp.asarray(IDS), positions, jnp.ones_like(positions))
    return np.asarray(decoder.logits(model, hidden))


def compare(family: str, directory: pathlib.Path) -> tuple[float, float, int, int]:
    """Largest differences of logits: peft's adapter read here, ours read by peft; and the tensors of ours that peft
    reads bit for bit, of how many."""
    base = torch_base(family, directory / "base")
    theirs = torch_adapter(base, directory / "adapter")
    expected = torch_logits(theirs)
    read = float(np.abs(logits(huggingface.load(directory / "adapter").model) - expected).max())

    ours = huggingface.load(directory / "base").model
    adapted = peft.load(directory / "adapter", ours)
    peft.save(directory / "written", adapted, str(directory / "base"))
    fresh = transformers.AutoModelForCausalLM.from_pretrained(directory / "base").eval()
    back = library.PeftModel.from_pretrained(fresh, directory / "written").eval()
    written = float(np.abs(torch_logits(back) - logits(adapted)).max())
    there = {name: tensor for name, tensor in theirs.named_parameters() if "lora_" in name}
    here = {name: tensor for name, tensor in back.named_parameters() if "lora_" in name}
    equal = sum(torch.equal(there[name], here[name]) for name in there)
    return read, written, equal, len(there)


def sizes(rank: int = 64) -> list[tuple[str, int, int, float]]:
    """Of tiny-base with adapters over float32, int8 and nf4: bytes of the blocks' kernels (two nf4 codes to a byte),
    bytes of Adam's moments, and how far a logit moves by quantizing: mean over mean."""
    start = huggingface.load(assets.resolve("tiny-base")).model
    tx = optimizer.adamw(lambda step: 1e-4, 0.0, 1.0)
    before, rows = logits(start), []
    for kind in ("", "int8", "nf4"):
        model = adapters.adapt(start, AdapterConfig(rank=rank, quantize=kind), jax.random.key(0))
        trained, frozen = adapters.split(model)
        kernels = jax.tree.leaves(frozen.blocks)
        moments = jax.tree.leaves(jax.eval_shape(tx.init, trained))
        moved = float(np.abs(logits(model) - before).mean() / np.abs(before).mean())
        rows.append((kind or "float32", int(sum(map(_bytes, kernels))), int(sum(map(_bytes, moments))), moved))
    moments = jax.tree.leaves(jax.eval_shape(tx.init, start))
    rows.append(("all weights trained", 0, int(sum(map(_bytes, moments))), 0.0))
    return rows


def _bytes(leaf) -> float:
    return leaf.size * (0.5 if leaf.dtype == jnp.uint4 else leaf.dtype.itemsize)


if __name__ == "__main__":
    print("| base | peft's, read here | ours, read by peft | tensors bit-equal |\n|---|---|---|---|")
    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as path:
            read, written, equal, count = compare(name, pathlib.Path(path))
        print(f"| {name} | {read:.1e} | {written:.1e} | {equal} of {count} |")
    print("\n| base of tiny-base | blocks' bytes | moments' bytes | logits move by |\n|---|---|---|---|")
    for kind, kernels, moments, moved in sizes():
        print(f"| {kind} | {kernels:,} | {moments:,} | {moved:.1%} |")
