"""The model families: parity with torch (family_parity.py), config.json as published, and how weights are read."""

import fnmatch
import json
import pathlib

import loading_memory
import numpy as np
import own_process
import pytest
import safetensors.numpy
import sentencepiece
import transformers
from tests_config import ROOT

from spare_jax.models import decoder, huggingface
from spare_jax.models.config import DecoderConfig, RopeScaling

DOCS = ROOT / "docs" / "models.md"

try:
    import family_parity
except ImportError:  # no torch: nothing to compare with
    CASES = []
else:
    CASES = [pytest.param(case, id=case.name.replace(" ", "_")) for case in family_parity.CASES]

ROPE3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA31 = {"factor": 8.0, "rope_type": "llama3", **ROPE3}
LLAMA32 = {"factor": 32.0, "rope_type": "llama3", **ROPE3}
QWEN_WINDOW = {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28}

# The keys of published config.json files that decide what is computed, and what we must read from them besides sizes.
PUBLISHED = {
    "Llama-2-7b": (
        dict(
            architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=32000, hidden_size=4096,
            intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
            hidden_act="silu", max_position_embeddings=4096, rms_norm_eps=1e-5, rope_scaling=None, pretraining_tp=1,
            tie_word_embeddings=False,
        ),
        dict(family="llama", head_dim=128, rope_theta=1e4, tie_embeddings=False),
    ),
    "Llama-3.1-8B": (
        dict(
            architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=128256, hidden_size=4096,
            intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
            hidden_act="silu", max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0,
            rope_scaling=LLAMA31, attention_bias=False, mlp_bias=False, tie_word_embeddings=False,
        ),
        dict(family="llama", rope_theta=5e5, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192)),
    ),
    "Llama-3.2-1B": (
        dict(
            architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=128256, hidden_size=2048,
            intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64,
            hidden_act="silu", max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0,
            rope_scaling=LLAMA32, attention_bias=False, mlp_bias=False, tie_word_embeddings=True,
        ),
        dict(head_dim=64, tie_embeddings=True, rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192)),
    ),
    "Mistral-7B-v0.1": (
        dict(
            architectures=["MistralForCausalLM"], model_type="mistral", vocab_size=32000, hidden_size=4096,
            intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
            hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-5, rope_theta=10000.0,
            sliding_window=4096, tie_word_embeddings=False,
        ),
        dict(family="mistral", rope_theta=1e4, sliding_window=4096, full_layers=()),
    ),
    "Mistral-7B-v0.3": (
        dict(
            architectures=["MistralForCausalLM"], model_type="mistral", vocab_size=32768, hidden_size=4096,
            intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
            hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-5, rope_theta=1000000.0,
            sliding_window=None, tie_word_embeddings=False,
        ),
        dict(family="mistral", rope_theta=1e6, sliding_window=None, full_layers=()),
    ),
    "Qwen2.5-7B": (
        dict(
            architectures=["Qwen2ForCausalLM"], model_type="qwen2", vocab_size=152064, hidden_size=3584,
            intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
            hidden_act="silu", max_position_embeddings=131072, rms_norm_eps=1e-6, rope_theta=1000000.0,
            use_mrope=False, tie_word_embeddings=False, **QWEN_WINDOW,
        ),
        dict(family="qwen2", attention_bias=True, rope_theta=1e6, sliding_window=None),
    ),
    "Qwen2.5-Math-1.5B": (
        dict(
            architectures=["Qwen2ForCausalLM"], model_type="qwen2", vocab_size=151936, hidden_size=1536,
            intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
            hidden_act="silu", max_position_embeddings=4096, rms_norm_eps=1e-6, rope_theta=10000,
            use_sliding_window=False, sliding_window=4096, max_window_layers=21, use_mrope=False,
            tie_word_embeddings=True,
        ),
        dict(rope_theta=1e4, tie_embeddings=True, sliding_window=None, full_layers=()),
    ),
    "Qwen3-8B": (
        dict(
            architectures=["Qwen3ForCausalLM"], model_type="qwen3", vocab_size=151936, hidden_size=4096,
            intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
            hidden_act="silu", max_position_embeddings=40960, rms_norm_eps=1e-6, rope_theta=1000000, rope_scaling=None,
            attention_bias=False, use_sliding_window=False, sliding_window=None, max_window_layers=36,
            tie_word_embeddings=False,
        ),
        dict(family="qwen3", head_dim=128, qk_norm=True, attention_bias=False, rope_theta=1e6),
    ),
}  # fmt: skip


def write_config(directory, raw):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(raw))
    return directory


def changed(name, **changes):
    return PUBLISHED[name][0] | changes


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_equal_torch(case, tmp_path):
    """Left and right padding; head_dim other than hidden / heads; one kv head; positions far past rope's length."""
    compared = family_parity.compare(case, tmp_path)
    assert compared.logits < 1e-4 and compared.spread > 0.3
    assert compared.gradient < 1e-3 and compared.least_gradient > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_the_engine_generates_and_scores_as_torch_does(case, tmp_path):
    gaps, score = family_parity.engine_answers(case, tmp_path)
    assert max(gaps) < 1e-4, "another token than torch's, and no tie"
    assert score < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_again_is_bit_equal(case, tmp_path):
    equal, tensors = family_parity.round_trip(case, tmp_path)
    assert equal == tensors > 10


def test_the_table_in_the_docs_has_these_families():
    pytest.importorskip("torch")
    table = DOCS.read_text(encoding="utf-8").split("## Parity with torch")[1].split("## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:] == [case.name for case in family_parity.CASES]


@pytest.mark.parametrize("name", ["Llama-2-7b", "Llama-3.1-8B", "Llama-3.2-1B", "Qwen3-8B"])
def test_rotary_frequencies_are_those_of_transformers(name, tmp_path):
    pytest.importorskip("torch")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    directory = write_config(tmp_path, changed(name))
    theirs = transformers.AutoConfig.from_pretrained(directory)
    plain = theirs.rope_parameters["rope_type"] == "default"
    compute = LlamaRotaryEmbedding.compute_default_rope_parameters if plain else ROPE_INIT_FUNCTIONS["llama3"]
    expected = compute(theirs)[0].numpy()
    found = decoder.rotary_frequencies(huggingface.load_config(directory))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-7)  # at most one unit in the last place
    assert (found == expected).mean() > 0.9


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read(name, tmp_path):
    raw, expected = PUBLISHED[name]
    config = huggingface.load_config(write_config(tmp_path / "4", raw))
    assert {key: getattr(config, key) for key in expected} == expected
    sizes = (config.vocab_size, config.hidden_size, config.intermediate_size, config.num_layers, config.max_length)
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings")
    assert sizes == tuple(raw[key] for key in names)
    assert (config.num_heads, config.num_kv_heads) == (raw["num_attention_heads"], raw["num_key_value_heads"])
    assert config.norm_eps == raw["rms_norm_eps"]

    transformers.AutoConfig.from_pretrained(tmp_path / "4").save_pretrained(tmp_path / "5")
    rewritten = json.loads((tmp_path / "5" / "config.json").read_text())
    assert "rope_parameters" in rewritten and "rope_theta" not in rewritten
    assert huggingface.load_config(tmp_path / "5") == config


@pytest.mark.parametrize(
    ("changes", "window", "full_layers"),
    [
        (dict(use_sliding_window=True), 131072, ()),
        (dict(use_sliding_window=True, max_window_layers=3), 131072, (0, 1, 2)),
        (dict(use_sliding_window=True, max_window_layers=9), None, ()),
        (dict(use_sliding_window=True, sliding_window=None), None, ()),
        (
            dict(use_sliding_window=True, layer_types=["sliding_attention", "full_attention"] * 2),
            131072,
            (1, 3),
        ),
        (dict(use_sliding_window=False, layer_types=["full_attention"] * 4), None, ()),
    ],
)
def test_sliding_windows_of_qwen(changes, window, full_layers, tmp_path):
    defaults = dict(num_hidden_layers=4, max_window_layers=0)
    directory = write_config(tmp_path, changed("Qwen2.5-7B", **defaults | changes))
    config = huggingface.load_config(directory)
    assert (config.sliding_window, config.full_layers) == (window, full_layers)
    theirs = transformers.AutoConfig.from_pretrained(directory)
    sliding = [theirs.sliding_window is not None and kind == "sliding_attention" for kind in theirs.layer_types]
    assert sliding == [window is not None and layer not in full_layers for layer in range(4)]


@pytest.mark.parametrize(
    ("name", "changes", "silent", "key", "value"),
    [
        ("Mistral-7B-v0.1", {}, "sliding_window", "sliding_window", 4096),
        ("Qwen2.5-7B", dict(use_sliding_window=True, max_window_layers=0), "sliding_window", "sliding_window", 4096),
        (
            "Qwen2.5-7B", dict(use_sliding_window=True, num_hidden_layers=40),
            "max_window_layers", "full_layers", tuple(range(28)),
        ),
        ("Qwen3-8B", dict(hidden_size=1024, num_attention_heads=16), "head_dim", "head_dim", 128),
        ("Llama-2-7b", {}, "num_key_value_heads", "num_kv_heads", 32),
    ],
)  # fmt: skip
def test_what_transformers_assumes_where_a_config_is_silent(name, changes, silent, key, value, tmp_path):
    raw = changed(name, **changes)
    del raw[silent]
    assert getattr(huggingface.load_config(write_config(tmp_path, raw)), key) == value


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("Qwen3-8B", dict(architectures=["Qwen3MoeForCausalLM"]), "architectures=.*Qwen3Moe.*use LlamaForCausalLM, "),
        ("Llama-3.1-8B", dict(hidden_act="gelu"), "hidden_act='gelu'.*'silu'"),
        ("Qwen2.5-7B", dict(rope_scaling={"type": "yarn", "factor": 4.0}), "rope_scaling=.*yarn.*'llama3'"),
        ("Llama-2-7b", dict(rope_scaling={"type": "linear", "factor": 2.0}), "rope_scaling=.*linear"),
        ("Llama-3.1-8B", dict(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "rope_scaling=.*low_freq_factor"),
        ("Llama-3.1-8B", dict(rope_scaling=LLAMA31 | {"factor": 0.5}), "factor=0.5.*factor >= 1"),
        ("Qwen3-8B", dict(rope_parameters={"full_attention": {"rope_theta": 1.0}}), "rope_parameters=.*all layers"),
        ("Qwen3-8B", dict(rope_parameters={"partial_rotary_factor": 0.5}), "rope_parameters=.*partial.*whole head"),
        ("Qwen3-8B", dict(attention_bias=True), "attention_bias=True"),
        ("Mistral-7B-v0.1", dict(sliding_window=0), "sliding_window=0"),
        ("Mistral-7B-v0.1", dict(num_hidden_layers=1, layer_types=["full_attention"]), "layer_types=.*sliding_att"),
        ("Llama-2-7b", dict(num_hidden_layers=1, layer_types=["sliding_attention"]), "layer_types=.*full_attention"),
        ("Qwen2.5-7B", dict(num_hidden_layers=1, layer_types=["sliding_attention"]), "layer_types=.*full_attention"),
        (
            "Qwen2.5-7B",
            dict(num_hidden_layers=2, use_sliding_window=True, layer_types=["chunked_attention", "full_attention"]),
            "layer_types=.*chunked",
        ),
        ("Qwen2.5-7B", dict(num_hidden_layers=2, layer_types=["full_attention"]), "layer_types=.*2 layers"),
    ],
)
def test_what_no_family_computes_is_refused_by_its_key(name, changes, named, tmp_path):
    with pytest.raises(huggingface.ModelError, match=named) as error:
        huggingface.load_config(write_config(tmp_path, changed(name, **changes)))
    assert "\n" not in str(error.value) and str(error.value).count("config.json") == 1


def test_a_sentencepiece_model_alone_is_a_tokenizer(tmp_path):
    """As in the directories of Llama 2 and Mistral 7B v0.1. (Text that begins with a blank is left out: sentencepiece
    puts one more before it, transformers 5 does not.)"""
    text = tmp_path / "text"
    text.write_text("Ada has 5 + 3 = 8 apples.\nThe answer is 8.\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "tokenizer"), vocab_size=300, model_type="bpe",
        byte_fallback=True, split_digits=True, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    config |= {"add_bos_token": True, "legacy": True, "chat_template": template}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    write_config(tmp_path, changed("Llama-2-7b"))
    tokenizer = huggingface.load_tokenizer(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for line in ("Ada has 5 apples.", "The answer is 35", "ки  é\n"):
        assert tokenizer.encode(line) == [pieces.bos_id(), *pieces.encode(line)]
        assert tokenizer.decode(pieces.encode(line)) == line
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<s>[user] hi"


def test_a_hub_id_is_loaded_at_its_revision(tmp_path, monkeypatch):
    directory = write_config(tmp_path, changed("Llama-2-7b"))
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision))
        wanted = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model", "config.json"]
        assert all(any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns) for file in wanted)
        others = ["consolidated.safetensors", "pytorch_model.bin", "original/consolidated.00.pth"]
        assert not any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns for file in others)
        return str(directory)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert huggingface.local_directory("meta-llama/Llama-2-7b-hf", "abc") == directory
    assert asked == [("meta-llama/Llama-2-7b-hf", "abc")]


def test_loading_holds_pieces_and_never_a_whole_tensor_beside_the_parameters(tmp_path):
    """In its own process (see loading_memory.py), with a meter that the kernel keeps."""
    if not pathlib.Path("/proc/self/status").is_file():
        pytest.skip("the peak is read from /proc")
    largest = loading_memory.write(tmp_path)
    seen = own_process.printed(loading_memory.__file__, tmp_path)
    assert seen["equal"] and 0 < seen["beyond"] < 1.3 * largest, f"{seen}, the largest tensor has {largest} bytes"


def test_weights_in_several_pieces_and_other_dtypes(tmp_path, monkeypatch):
    """The last piece overlaps the one before where the rows do not divide; pieces smaller than a row are one row."""
    config = DecoderConfig(50, 12, 20, 2, 2, 1, 6, tie_embeddings=False)
    rng, heads = np.random.default_rng(0), {"q_proj": 12, "k_proj": 6, "v_proj": 6}
    shapes = {"model.embed_tokens.weight": (50, 12), "lm_head.weight": (50, 12), "model.norm.weight": (12,)}
    for layer in (f"model.layers.{i}." for i in range(2)):
        shapes |= {f"{layer}self_attn.{name}.weight": (size, 12) for name, size in heads.items()}
        shapes |= {f"{layer}self_attn.o_proj.weight": (12, 12), f"{layer}mlp.down_proj.weight": (12, 20)}
        shapes |= {f"{layer}mlp.{name}.weight": (20, 12) for name in ("gate_proj", "up_proj")}
        shapes |= {f"{layer}{name}.weight": (12,) for name in ("input_layernorm", "post_attention_layernorm")}
    tensors = {name: rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    for piece_bytes in (2**24, 7 * 12 * 2, 1):
        monkeypatch.setattr("spare_jax.models.weights.PIECE_BYTES", piece_bytes)
        model = huggingface.load_weights(tmp_path, config)
        up = np.stack([tensors[f"model.layers.{i}.mlp.up_proj.weight"].T for i in range(2)])
        np.testing.assert_array_equal(model.blocks.mlp.up.kernel[...], up.astype(np.float32))
        np.testing.assert_array_equal(model.embed[...], tensors["model.embed_tokens.weight"].astype(np.float32))
        np.testing.assert_array_equal(model.head[...], tensors["lm_head.weight"].T.astype(np.float32))
        np.testing.assert_array_equal(model.final_norm[...], tensors["model.norm.weight"].astype(np.float32))


def test_integer_weights_are_refused(tmp_path):
    config = DecoderConfig(50, 12, 20, 2, 2, 1, 6)
    safetensors.numpy.save_file({"model.norm.weight": np.zeros(12, np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(huggingface.ModelError, match=r"model\.norm\.weight has dtype 'I8'.*F32 or F16 or BF16"):
        huggingface.load_weights(tmp_path, config)
