"""Each model family against transformers, on small random models: what test_families.py asserts and docs/models.md
shows. `PYTHONPATH=.:tests python tests/parity/family_parity.py` prints the table of docs/models.md.

The models are made by torch, so the directories are as transformers writes them. Norms and biases are moved away from
their starting values, so that parity sees them. Weights are large, and embeddings small beside what the layers add:
else a tied model says the same token for ever.
"""

import dataclasses
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
import torch
import transformers
from small_tokenizer import small_tokenizer

from spare_jax.engines.local import LocalEngine
from spare_jax.models import decoder, heads, huggingface
from spare_jax.programs import Sample, Score
from spare_jax.training.losses import TokenTagLoss

VOCAB, GOOD, BAD, TAGS = 331, 40, 41, 4
GENERATED = 64
LEFT, RIGHT = 9, 13  # padding of the two rows


@dataclasses.dataclass(frozen=True)
class Case:
    """A random model: the class of transformers, what differs from SIZES, and where its sequences lie."""

    name: str
    architecture: str
    settings: dict[str, Any]
    length: int = 60
    offset: int = 0  # of the positions

    def torch_config(self):
        return getattr(transformers, f"{self.architecture}Config")(**SIZES | self.settings)


SIZES = dict(
    vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.4, tie_word_embeddings=False,
    bos_token_id=None, eos_token_id=None, pad_token_id=None,
)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
CASES = (
    Case("Llama 2", "Llama", dict(num_key_value_heads=4)),
    Case("Llama 3, one kv head", "Llama", dict(num_key_value_heads=1, head_dim=10, rope_theta=5e5, rms_norm_eps=1e-5)),
    Case(
        "Llama 3.1/3.2, scaled rope past its original length, tied", "Llama",
        dict(rope_parameters=LLAMA3 | {"original_max_position_embeddings": 32}, head_dim=16, tie_word_embeddings=True),
        offset=9000,
    ),
    Case("Mistral, window 7, two query blocks", "Mistral", dict(sliding_window=7, head_dim=12), length=150),
    Case("Qwen2, tied", "Qwen2", dict(rope_theta=1e6, tie_word_embeddings=True)),
    Case(
        "Qwen2, window 5 from layer 1 on, one kv head", "Qwen2",
        dict(
            use_sliding_window=True, sliding_window=5, max_window_layers=1, num_hidden_layers=3, num_key_value_heads=1,
        ),
    ),
    Case("Qwen3, tied", "Qwen3", dict(head_dim=16, rope_theta=1e6, tie_word_embeddings=True)),
    Case(
        "Qwen3, window 11 in two of three layers", "Qwen3",
        dict(
            head_dim=8, use_sliding_window=True, sliding_window=11, num_hidden_layers=3, num_key_value_heads=4,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        length=140,
    ),
)  # fmt: skip


class Compared(NamedTuple):
    """Largest differences from torch, in float32."""

    logits: float  # absolute, over all tokens that are not padding
    spread: float  # standard deviation of torch's logits
    gradient: float  # of the PRM loss, per tensor relative to torch's largest entry
    least_gradient: float  # the largest entry of the tensor where that is least


def make(case: Case, directory: pathlib.Path) -> Any:
    """The random model of a case, saved to `directory` in several files, with a tokenizer."""
    torch.manual_seed(0)
    model = getattr(transformers, f"{case.architecture}ForCausalLM")(case.torch_config()).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.3)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory, max_shard_size="20KB")
    small_tokenizer().save_pretrained(directory)
    return read(directory)


def read(directory: pathlib.Path) -> Any:
    """A directory as transformers reads it."""
    return transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()


def batch_of(case: Case) -> dict[str, np.ndarray]:
    """Two rows with step tags, the first padded on the left, the second on the right."""
    rng, length = np.random.default_rng(1), case.length
    index = np.broadcast_to(np.arange(length), (2, length))
    segments = np.stack([index[0] >= LEFT, index[1] < length - RIGHT]).astype(np.int32)
    first = np.array([[LEFT], [0]])
    return {
        "ids": rng.integers(0, VOCAB, (2, length)),
        "positions": np.maximum(index - first, 0) + case.offset,
        "segments": segments,
        "tags": first + np.linspace(3, length - 1 - max(LEFT, RIGHT), TAGS).astype(int),
        "labels": np.array([[1, 0, 1, 1], [0, 0.25, 1, 0]], np.float32),
        "tag_weights": np.array([[1, 1, 0.5, 1], [1, 1, 1, 0]], np.float32),
    }


@jax.jit
def _loss_gradient_and_logits(model, batch):
    def loss(model):
        tag_loss = TokenTagLoss(GOOD, BAD)
        hidden = decoder.hidden_states(model, batch["ids"], batch["positions"], batch["segments"])
        return (tag_loss.sums(model, batch) / tag_loss.counts(batch))[0], decoder.logits(model, hidden)

    return jax.grad(loss, has_aux=True)(model)


def compare(case: Case, directory: pathlib.Path) -> Compared:
    """Logits, and the gradient of the PRM loss by torch's names of the tensors."""
    theirs, batch = make(case, directory), batch_of(case)
    model = huggingface.load_weights(directory, huggingface.load_config(directory))
    gradient, logits = _loss_gradient_and_logits(model, batch)
    huggingface.save_weights(directory, gradient)  # under torch's names and in its layout
    gradient = safetensors.numpy.load_file(directory / "model.safetensors")

    at = {name: torch.tensor(value) for name, value in batch.items()}
    out = theirs(at["ids"], attention_mask=at["segments"], position_ids=at["positions"]).logits
    classes = out[torch.arange(2)[:, None], at["tags"]][..., [BAD, GOOD]].log_softmax(-1)
    losses = -(1 - at["labels"]) * classes[..., 0] - at["labels"] * classes[..., 1]
    ((losses * at["tag_weights"]).sum() / at["tag_weights"].sum()).backward()
    expected = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert gradient.keys() == expected.keys()
    real, out = batch["segments"] == 1, out.detach().numpy()
    return Compared(
        logits=float(np.abs(np.asarray(logits) - out)[real].max()),
        spread=float(out[real].std()),
        gradient=float(max(np.abs(gradient[name] - g).max() / np.abs(g).max() for name, g in expected.items())),
        least_gradient=float(min(np.abs(g).max() for g in expected.values())),
    )


def engine_answers(case: Case, directory: pathlib.Path) -> tuple[list[float], float]:
    """What the local engine gives, beside torch.

    Returns:
      per prompt, how much more likely (in logits) torch finds its token than ours where the greedy continuations
      first differ, 0.0 where all GENERATED tokens are equal; and the largest difference of a step score. Prompts of
      different lengths share the engine's slots.
    """
    theirs, rng = make(case, directory), np.random.default_rng(2)
    config = huggingface.load_config(directory)
    engine = LocalEngine(
        huggingface.load_weights(directory, config), config, pad_id=0, seed=0, slots=2, max_length=192,
        prefill_tokens=512, read_out=heads.ReadOut((BAD, GOOD)),
    )  # fmt: skip
    prompts = [tuple(rng.integers(0, VOCAB, n).tolist()) for n in (21, 52)]
    solution = tuple(rng.integers(0, VOCAB, case.length).tolist())
    steps = tuple(range(2, case.length, 7))
    for number, prompt in enumerate(prompts):
        engine.submit(str(number), Sample("m", prompt, GENERATED, temperature=0.0))
    engine.submit("solution", Score("m", solution, steps))
    answers: dict[str, Any] = {}
    while len(answers) < len(prompts) + 1:
        answers |= dict(engine.poll())

    gaps = []
    for number, prompt in enumerate(prompts):
        ours, ids = answers[str(number)][0].ids, torch.tensor([prompt])
        whole = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=GENERATED, do_sample=False)
        expected = whole[0, len(prompt) :].tolist()
        assert len(ours) == len(expected) == GENERATED
        assert len(set(expected)) >= 6, "a continuation that repeats itself shows little"
        at = next((i for i in range(GENERATED) if ours[i] != expected[i]), None)
        if at is None:
            gaps.append(0.0)
            continue
        with torch.no_grad():
            logits = theirs(whole[:, : len(prompt) + at]).logits[0, -1]
        gaps.append(float(logits[expected[at]] - logits[ours[at]]))
    with torch.no_grad():
        scores = theirs(torch.tensor([solution])).logits[0, list(steps)][:, [GOOD, BAD]].softmax(-1)[:, 0].numpy()
    return gaps, float(np.abs(np.asarray(answers["solution"][0].scores) - scores).max())


def round_trip(case: Case, directory: pathlib.Path) -> tuple[int, int]:
    """How many tensors are bit-equal after HF -> here -> HF, and how many there are; what torch reads from our
    directory has the same config and computes the same bits."""
    before, after = directory / "before", directory / "after"
    theirs = make(case, before)
    loaded = huggingface.load(before)
    huggingface.save(after, loaded.model, loaded.config, loaded.tokenizer, shard_bytes=20_000)
    assert huggingface.load_config(after) == loaded.config
    old, new = (
        {
            name: array
            for file in sorted(part.glob("*.safetensors"))
            for name, array in safetensors.numpy.load_file(file).items()
        }
        for part in (before, after)
    )
    assert old.keys() == new.keys()
    again, ids = read(after), torch.tensor(batch_of(case)["ids"])
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, again(ids).logits)
    return sum(old[name].tobytes() == new[name].tobytes() for name in old), len(old)


def table() -> str:
    """The table of docs/models.md."""
    lines = ["| family | logits | gradient | scores | greedy | round trip |", "|---|---|---|---|---|---|"]
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            compared, (gaps, score) = compare(case, root / "a"), engine_answers(case, root / "b")
            equal, tensors = round_trip(case, root / "c")
        greedy = f"{sum(gap == 0 for gap in gaps)} of {len(gaps)}" + (f" (tie: {max(gaps):.0e})" if max(gaps) else "")
        errors = [f"{error:.1e}" for error in (compared.logits, compared.gradient, score)]
        lines.append(f"| {' | '.join([case.name, *errors, greedy, f'{equal} of {tensors}'])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    transformers.utils.logging.disable_progress_bar()
    print(table())
