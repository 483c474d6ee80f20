"""Model directories: what comes back after saving, and what is refused (parity with torch: test_families.py)."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spare_jax.judges import conventions
from spare_jax.models import decoder, heads, huggingface
from spare_jax.models.config import DecoderConfig

LLAMA = DecoderConfig(
    vocab_size=270, hidden_size=24, intermediate_size=40, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8
)
QWEN2 = dataclasses.replace(LLAMA, family="qwen2", rope_theta=1e6, norm_eps=1e-5)

init = jax.jit(decoder.init_decoder, static_argnums=(0, 2))


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes, without merges, with four special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<step>", "<other>"]})
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    return tokenizer


def noisy(config, seed=0, dtype=jnp.float32):
    """A model whose norms and biases are not at their starting values, so that parity sees them."""
    model = init(config, jax.random.key(seed), dtype)
    leaves, structure = jax.tree.flatten(model)
    rng = np.random.default_rng(seed)
    moved = [leaf + jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def saved(tmp_path, tokenizer):
    huggingface.save(tmp_path, noisy(QWEN2), QWEN2, tokenizer)
    return tmp_path


@pytest.mark.parametrize("shard_bytes", [10**9, 20000])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_save_and_load_is_bit_equal(dtype, shard_bytes, tmp_path, tokenizer):
    for config in (QWEN2, dataclasses.replace(LLAMA, tie_embeddings=False)):
        model = noisy(config, dtype=dtype)
        huggingface.save(tmp_path, model, config, tokenizer, {"note.json": {"a": 1}}, shard_bytes=shard_bytes)
        assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_bytes == 20000)
        loaded = huggingface.load(tmp_path, dtype=dtype)
        assert loaded.config == config
        assert jax.tree.structure(loaded.model) == jax.tree.structure(model)
        for ours, theirs in zip(jax.tree.leaves(model), jax.tree.leaves(loaded.model), strict=True):
            assert theirs.dtype == dtype
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
        assert json.loads((tmp_path / "note.json").read_text()) == {"a": 1}


def test_tokenizer_and_chat_template_come_back(saved, tokenizer):
    """Also in a qwen2 directory, where transformers would otherwise put Qwen2's own word splitting."""
    loaded = huggingface.load_tokenizer(saved)
    assert (saved / "chat_template.jinja").is_file()
    text = "a  b\n 12 ки<step>"
    assert loaded.encode(text) == tokenizer.encode(text)
    messages = [{"role": "user", "content": "hi"}]
    rendered = loaded.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert loaded.decode(rendered) == "<user>hi\n"
    assert huggingface.tokenizer_digest(loaded) == huggingface.tokenizer_digest(tokenizer)
    loaded("abc", truncation=True, max_length=2)  # leaves truncation switched on inside the tokenizer
    assert huggingface.tokenizer_digest(loaded) == huggingface.tokenizer_digest(tokenizer)
    loaded.chat_template = "other"
    assert huggingface.tokenizer_digest(loaded) != huggingface.tokenizer_digest(tokenizer)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures=.*GPT2.*LlamaForCausalLM, Mistral.*, Qwen2"),
        ({"architectures": None}, "architectures=None"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "rope_parameters=.*yarn"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types=.*sliding"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config=.*bits"),
        ({"num_key_value_heads": 3}, "num_kv_heads=3"),
        ({"vocab_size": 100}, "260 tokens.*vocab_size in config.json is 100"),
        ({"num_hidden_layers": 1}, r"model\.layers\.1\..* has no place"),
        ({"num_hidden_layers": 3}, r"model\.layers\.2\..* is missing"),
        ({"intermediate_size": 41}, r"down_proj.weight has shape \[24, 40\].*\[24, 41\]"),
    ],
)
def test_what_cannot_be_computed_exactly_is_refused(saved, change, named):
    edit_config(saved, **change)
    with pytest.raises(huggingface.ModelError, match=named) as error:
        huggingface.load(saved)
    assert "\n" not in str(error.value)


def test_settings_that_change_nothing_are_accepted(saved):
    edit_config(
        saved, rope_scaling=None, sliding_window=4096, use_sliding_window=False, attention_dropout=0.1,
        layer_types=["full_attention"] * 2, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    (saved / "generation_config.json").write_text('{"temperature": 0.1}')
    assert huggingface.load(saved).config == QWEN2


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("config.json", "config.json is missing: give"),
        ("model.safetensors", "neither model.safetensors nor model.safetensors.index.json: convert"),
        ("tokenizer.json", "no tokenizer: put"),
    ],
)
def test_a_missing_file_is_one_line_with_a_remedy(saved, missing, named):
    (saved / missing).unlink()
    with pytest.raises(huggingface.ModelError, match=named) as error:
        huggingface.load(saved)
    assert "\n" not in str(error.value)


def test_damaged_files_are_named(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(huggingface.ModelError, match=r"model\.safetensors is no complete"):
        huggingface.load(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(huggingface.ModelError, match=r"config\.json is no JSON"):
        huggingface.load(saved)


def test_no_directory(tmp_path, monkeypatch):
    with pytest.raises(huggingface.ModelError, match="no directory: give the local directory"):
        huggingface.load(tmp_path / "absent")
    calls = []

    def download(path, revision, allow_patterns):
        calls.append((path, revision))
        raise OSError("offline\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(huggingface.ModelError, match=r"as a hub id \(offline\): give the local directory"):
        huggingface.load("owner/name", revision="abc")
    assert calls == [("owner/name", "abc")]


def test_step_tag_is_the_first_that_is_one_token(tokenizer):
    assert conventions.choose_step_tag(tokenizer, ["ab", "<step>", "<other>"]) == ("<step>", 258)
    with pytest.raises(huggingface.ModelError, match="tried ' ки', 'ab'"):
        conventions.choose_step_tag(tokenizer, ["ab"])
    words = Tokenizer(models.WordLevel({"+": 0, "-": 1, "ки": 2, "<unk>": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    assert conventions.choose_convention(words, [], "min") == conventions.TokenTagConvention(" ки", 2, 0, 1, "min")


def test_convention_travels_in_the_directory(tmp_path, tokenizer):
    convention = conventions.choose_convention(tokenizer, ["<step>"], "product")
    assert tokenizer.convert_ids_to_tokens([convention.good_id, convention.bad_id]) == ["+", "-"]
    conventions.save_convention(tmp_path, convention)
    assert conventions.load_convention(tmp_path) == convention
    with pytest.raises(huggingface.ModelError, match=r"prm_convention\.json is missing.*no reward model"):
        conventions.load_convention(tmp_path / "elsewhere")
    (tmp_path / conventions.CONVENTION_FILE).write_text('{"tag": "x"}')
    with pytest.raises(huggingface.ModelError, match="needs exactly tag, tag_id"):
        conventions.load_convention(tmp_path)


@pytest.mark.parametrize("config", [LLAMA, dataclasses.replace(LLAMA, tie_embeddings=False)])
def test_step_scores_are_the_softmax_over_two_logits_at_the_tags(config):
    model = noisy(config)
    hidden = jax.random.normal(jax.random.key(1), (2, 9, config.hidden_size))
    positions = jnp.array([[1, 4, 8], [0, 0, 7]])
    read_out = conventions.TokenTagConvention("t", 5, 11, 13, "min").read_out
    scores = heads.step_scores(model, None, hidden, positions, read_out)
    whole = decoder.logits(model, hidden)
    good, bad = (jnp.take_along_axis(whole[..., i], positions, axis=1) for i in (11, 13))
    np.testing.assert_allclose(scores, jax.nn.sigmoid(good - bad), atol=1e-6)
    traced = str(jax.make_jaxpr(lambda h, p: heads.step_scores(model, None, h, p, read_out))(hidden, positions))
    assert f"2,9,{config.vocab_size}]" not in traced and f"2,3,{config.vocab_size}]" not in traced
