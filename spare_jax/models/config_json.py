"""Between Hugging Face's config.json and a DecoderConfig, for the published Llama, Mistral, Qwen2 and Qwen3 models.

A setting that the decoder does not compute exactly is an error that names the key and its value; nothing is guessed or
ignored. The file may hold anything, so the type and range of every field is checked before it is used.
"""

import pathlib
from typing import Any, Literal

from spare_jax.models.config import DecoderConfig, RopeScaling
from spare_jax.models.json_files import (
    ModelError,
    flag,
    positive_number,
    shown,
    strings,
    whole_number,
    wrong_field,
)

Family = Literal["llama", "mistral", "qwen2", "qwen3"]
_FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
# Reward models of these families: the family, and the kind of head that replaces the language model's (heads.py).
_REWARD_MODELS: dict[str, tuple[Family, str]] = {
    "LlamaForTokenClassification": ("llama", "classifier"),
    "MistralForTokenClassification": ("mistral", "classifier"),
    "Qwen2ForTokenClassification": ("qwen2", "classifier"),
    "Qwen3ForTokenClassification": ("qwen3", "classifier"),
    "Qwen2ForProcessRewardModel": ("qwen2", "two_layers"),
    "Qwen2ForPrmModel": ("qwen2", "value"),
    "Qwen2ForRewardModel": ("qwen2", "two_layers"),
    "ReasonEval_7B": ("mistral", "reason_eval"),
    "ReasonEval_34B": ("llama", "reason_eval"),
}
# The values that transformers assumes if config.json lacks a key, where the families differ.
_ASSUMED = {
    "llama": {},
    "mistral": {"sliding_window": 4096},
    "qwen2": {"sliding_window": 4096, "max_window_layers": 28},
    "qwen3": {"sliding_window": 4096, "max_window_layers": 28, "head_dim": 128},
}
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor")
# The largest sizes that are accepted: beyond any model, and small enough to compute shapes with. Nothing is allocated
# before the sizes have been compared with the weights.
_MOST = {
    "vocab_size": 2**22,
    "hidden_size": 2**18,
    "intermediate_size": 2**20,
    "num_hidden_layers": 2**10,
    "num_attention_heads": 2**12,
}
_MOST_HEAD_DIM = 2**14
_MOST_POSITIONS = 2**31 - 1


def architecture(path: pathlib.Path, raw: dict[str, Any]) -> str:
    """The first of config.json's `architectures`; empty if there is none. Raises ModelError if it is no list of
    names."""
    return (strings(path, raw, "architectures") or [""])[0]


def head_kind(architecture: str) -> str | None:
    """The kind of a reward model's head, a key of heads.HEADS, by its architecture; None for a language model."""
    return _REWARD_MODELS[architecture][1] if architecture in _REWARD_MODELS else None


def decoder_config(path: pathlib.Path, raw: dict[str, Any]) -> DecoderConfig:
    """The DecoderConfig of `raw`, the content of the file `path`.

    Raises:
      ModelError: a field is missing or has the wrong type, or asks for something that the decoder does not compute.
    """
    name = architecture(path, raw)
    if name in _REWARD_MODELS:
        family = _REWARD_MODELS[name][0]
        raw = raw | {"tie_word_embeddings": True}  # no head of a language model is asked for
    elif name in _FAMILIES:
        family = _FAMILIES[name]
    else:
        raise ModelError(
            f"{path}: architectures={shown(raw.get('architectures'))} is not supported: use "
            f"{', '.join(_FAMILIES)} or a reward model among {', '.join(_REWARD_MODELS)}"
        )
    raw = _ASSUMED[family] | raw
    _check_supported(path, raw)
    if missing := [key for key in _MOST if key not in raw]:
        raise ModelError(f"{path}: {missing[0]} is missing: write it, the decoder's size cannot be guessed")
    size = {key: whole_number(path, raw, key, most=most) for key, most in _MOST.items()}
    heads, rope = size["num_attention_heads"], _rope(path, raw)
    given = {key: value for key, value in raw.items() if value is not None}  # null is to derive these two
    derived_dim = max(1, size["hidden_size"] // heads)
    window, full_layers = _sliding_window(path, raw, family)
    try:
        return DecoderConfig(
            vocab_size=size["vocab_size"],
            hidden_size=size["hidden_size"],
            intermediate_size=size["intermediate_size"],
            num_layers=size["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=whole_number(path, given, "num_key_value_heads", heads, most=_MOST["num_attention_heads"]),
            head_dim=whole_number(path, given, "head_dim", derived_dim, most=_MOST_HEAD_DIM),
            rope_theta=positive_number(path, rope, "rope_theta"),
            norm_eps=positive_number(path, raw, "rms_norm_eps", 1e-6),
            tie_embeddings=flag(path, raw, "tie_word_embeddings"),
            max_length=whole_number(path, raw, "max_position_embeddings", 2048, most=_MOST_POSITIONS),
            family=family,
            rope_scaling=_rope_scaling(path, raw),
            sliding_window=window,
            full_layers=full_layers,
        )
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def to_hugging_face(config: DecoderConfig, tokenizer: Any, dtype: str) -> dict[str, Any]:
    """The content of config.json for a language model whose weights have this dtype."""
    name = {family: name for name, family in _FAMILIES.items()}[config.family]
    rope_scaling, windows = None, {}
    if (scaling := config.rope_scaling) is not None:
        rope_scaling = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_max_length,
        }
    if config.family == "mistral":
        windows = {"sliding_window": config.sliding_window}
    elif config.sliding_window is not None:
        kinds = ("sliding_attention", "full_attention")
        windows = {
            "use_sliding_window": True,
            "sliding_window": config.sliding_window,
            "max_window_layers": len(config.full_layers),  # right, for readers of it alone, if these come first
            "layer_types": [kinds[layer in config.full_layers] for layer in range(config.num_layers)],
        }
    return {
        "architectures": [name],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "torch_dtype": dtype,
        **windows,
    }


def _check_supported(path: pathlib.Path, raw: dict[str, Any]) -> None:
    key, rope = _rope_key(raw), _rope(path, raw)
    by_layer = any(isinstance(value, dict) for value in rope.values())
    missing = [name for name in _LLAMA3 if rope.get(name) is None]
    checks = (
        ("hidden_act", raw.get("hidden_act", "silu") == "silu", "only 'silu'"),
        (key, rope["rope_type"] in ("default", "llama3"), "only rope_type 'default' or 'llama3'"),
        (key, not by_layer, "only one rope for all layers"),
        (key, rope["rope_type"] == "default" or not missing, f"only llama3 rope with {' and '.join(_LLAMA3)}"),
        (key, rope.get("partial_rotary_factor", 1) == 1, "only rope over the whole head"),
        ("partial_rotary_factor", raw.get("partial_rotary_factor", 1) == 1, "only rope over the whole head"),
        ("attention_bias", not flag(path, raw, "attention_bias"), "only biases on q, k and v of Qwen2ForCausalLM"),
        ("mlp_bias", not flag(path, raw, "mlp_bias"), "only an MLP without biases"),
        ("quantization_config", raw.get("quantization_config") in (None, {}), "only unquantized weights"),
    )
    for key, supported, what in checks:
        if not supported:
            raise ModelError(f"{path}: {key}={shown(raw.get(key))} is not supported: {what} can be loaded")


def _rope_key(raw: dict[str, Any]) -> str:
    return "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"


def _rope(path: pathlib.Path, raw: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings, with rope_type and rope_theta: from rope_scaling and rope_theta (transformers 4) or
    rope_parameters (transformers 5). If several are there, they take precedence as in transformers 5."""
    for key in ("rope_scaling", "rope_parameters"):
        if raw.get(key) is not None and not isinstance(raw[key], dict):
            raise wrong_field(path, key, raw[key], "an object with a rope_type")
    rope = raw.get(_rope_key(raw)) or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    return {"rope_theta": raw.get("rope_theta", 10000.0)} | rope | {"rope_type": kind}


def _rope_scaling(path: pathlib.Path, raw: dict[str, Any]) -> RopeScaling | None:
    rope = _rope(path, raw)
    if rope["rope_type"] == "default":
        return None
    factor, low, high = (positive_number(path, rope, key) for key in _LLAMA3)
    # At the top level of config.json it takes precedence over the one in the rotary settings; if it is in neither, the
    # model's own length is used. All three as in transformers.
    key, own = "original_max_position_embeddings", raw.get("max_position_embeddings", 2048)
    original = whole_number(path, raw if key in raw else rope, key, own, most=_MOST_POSITIONS)
    return RopeScaling(factor, low, high, original)


def _sliding_window(path: pathlib.Path, raw: dict[str, Any], family: str) -> tuple[int | None, tuple[int, ...]]:
    """`sliding_window` and `full_layers` of a DecoderConfig.

    Llama ignores the key. Mistral has the window in all layers. Qwen2 and Qwen3 have it only if use_sliding_window is
    true, in the layers that layer_types names, or if that is missing in all layers from max_window_layers on.
    """
    layers, window = raw["num_hidden_layers"], raw.get("sliding_window")
    by_layer = family in ("qwen2", "qwen3")
    if family == "llama" or (by_layer and not flag(path, raw, "use_sliding_window")):
        window = None
    if window is not None:
        window = whole_number(path, raw, "sliding_window", most=_MOST_POSITIONS)
    first = layers if window is None else 0
    if window is not None and by_layer:
        first = whole_number(path, raw, "max_window_layers", least=0, most=_MOST["num_hidden_layers"])
    kinds = ["full_attention" if layer < first else "sliding_attention" for layer in range(layers)]
    possible = {"full_attention", "sliding_attention"} if by_layer and window is not None else set(kinds)
    kinds = strings(path, raw, "layer_types") or kinds
    if len(kinds) != layers or not set(kinds) <= possible:
        raise ModelError(
            f"{path}: layer_types={shown(kinds)} is not supported: {layers} layers of a {family} decoder with "
            f"sliding_window={window} can be {' or '.join(sorted(possible))}"
        )
    full_layers = tuple(layer for layer, kind in enumerate(kinds) if kind == "full_attention")
    return (None, ()) if len(full_layers) == layers else (window, full_layers)
