"""Hugging Face model directories, in and out: config.json, safetensors, tokenizer and chat template.

Llama, Mistral, Qwen2 and Qwen3, as published. What the decoder cannot compute exactly is an error that names the key
of config.json and its value; nothing is guessed or dropped. Torch stores a linear layer as [out, in], this package as
[in, out], so kernels are transposed on the way. Weights go from the file to their devices piece by piece (weights.py).
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any, Literal

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from spare_jax.models import adapters, peft
from spare_jax.models.decoder import Decoder, DecoderConfig, RopeScaling
from spare_jax.models.heads import Head, load_head, tensor_names
from spare_jax.models.weights import SHARD_BYTES, ModelError, load_weights, read_json, save_weights, write_json
from spare_jax.prompts.code_points import CodePoints

Family = Literal["llama", "mistral", "qwen2", "qwen3"]
_FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
# Reward models of these families: the family, and the head in the place of the language model's (heads.py).
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
# What transformers takes where config.json is silent, if that is not what the other families do.
_ASSUMED = {
    "llama": {},
    "mistral": {"sliding_window": 4096},
    "qwen2": {"sliding_window": 4096, "max_window_layers": 28},
    "qwen3": {"sliding_window": 4096, "max_window_layers": 28, "head_dim": 128},
}
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
# Not consolidated.safetensors: some directories hold the weights once more under that name.
_DOWNLOADS = ["*.json", "model*.safetensors", "*.model", "*.jinja", "*.txt"]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model directory. `head` is a reward model's own; without one there is the language model's."""

    model: Decoder
    config: DecoderConfig
    tokenizer: Any
    path: pathlib.Path
    head: Head | None = None


def load(
    path: str | pathlib.Path, *, revision: str | None = None, dtype: DTypeLike = jnp.float32, mesh: Mesh | None = None
) -> Checkpoint:
    """Load config, weights and tokenizer from a directory, or from a hub id 'owner/name' at `revision`.

    The directory of a LoRA adapter gives its base model with the adapter merged. `dtype` is that of the parameters in
    memory. With a mesh they are placed with the shardings of sharding.py. Raises ModelError.
    """
    directory = local_directory(path, revision)
    base = base_directory(directory)
    config = load_config(directory)
    tokenizer = load_tokenizer(directory)
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{directory}: the tokenizer has {len(tokenizer)} tokens and vocab_size in config.json is "
            f"{config.vocab_size}: use the tokenizer this model was made with"
        )
    kind = head_kind(directory)
    head = load_head(base, kind) if kind else None  # first: a body without its head need not be read
    beside = tensor_names(kind) if kind else ()
    model = load_weights(base, config, dtype=dtype, mesh=mesh, beside=beside)
    if base != directory:
        model = adapters.merge(peft.load(directory, model))
    return Checkpoint(model, config, tokenizer, directory, head)


def save(
    path: str | pathlib.Path,
    model: Decoder,
    config: DecoderConfig,
    tokenizer: Any,
    extra: dict[str, Any] | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a directory that `load` and transformers read: parameters in their own dtype, tokenizer, chat template.

    `extra` holds more JSON files to write beside config.json, by file name. Weights beyond `shard_bytes` go to
    several files with an index. config.json is written last, so an interrupted export is not taken for a model.
    """
    directory = pathlib.Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    for old in [directory / "config.json", *directory.glob("model*.safetensors*")]:
        old.unlink(missing_ok=True)
    save_weights(directory, model, shard_bytes=shard_bytes)
    tokenizer.save_pretrained(directory)
    for name, content in (extra or {}).items():
        write_json(directory / name, content)
    dtype = str(model.embed[...].dtype)
    write_json(directory / "config.json", _to_hugging_face(config, tokenizer, dtype))


def local_directory(path: str | pathlib.Path, revision: str | None = None) -> pathlib.Path:
    """`path` itself if it is a directory; a hub id 'owner/name' is downloaded and its directory returned."""
    directory = pathlib.Path(path)
    if directory.is_dir():
        return directory
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(path)):
        raise ModelError(f"{path} is no directory: give the local directory of a Hugging Face model")
    import huggingface_hub  # not needed for local directories

    try:
        return pathlib.Path(huggingface_hub.snapshot_download(str(path), revision=revision, allow_patterns=_DOWNLOADS))
    except Exception as error:  # the hub client raises many kinds, from HTTP, sockets and its own checks
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ModelError(
            f"{path} is no directory and could not be downloaded as a hub id ({reason[0]}): give the local directory "
            "of a Hugging Face model"
        ) from error


def load_config(directory: str | pathlib.Path) -> DecoderConfig:
    """Read config.json. Raises ModelError for a missing key and for anything that the decoder does not compute."""
    path = base_directory(directory) / "config.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing: give a directory with config.json, model.safetensors and a tokenizer")
    raw = read_json(path)
    architecture = (raw.get("architectures") or [None])[0]
    if architecture in _REWARD_MODELS:
        family = _REWARD_MODELS[architecture][0]
        raw["tie_word_embeddings"] = True  # no head of a language model is asked for
    elif architecture in _FAMILIES:
        family = _FAMILIES[architecture]
    else:
        raise ModelError(
            f"{path}: architectures={raw.get('architectures')!r} is not supported: use "
            f"{', '.join(_FAMILIES)} or a reward model among {', '.join(_REWARD_MODELS)}"
        )
    raw = _ASSUMED[family] | raw
    _check_supported(path, raw)
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    missing = [key for key in needed if key not in raw]
    if missing:
        raise ModelError(f"{path}: {missing[0]} is missing: write it, the decoder's size cannot be guessed")
    heads, rope = raw["num_attention_heads"], _rope(raw)
    window, full_layers = _sliding_window(path, raw, family)
    try:
        return DecoderConfig(
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_layers=raw["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            rope_theta=float(rope["rope_theta"]),
            norm_eps=raw.get("rms_norm_eps", 1e-6),
            attention_bias=family == "qwen2",
            tie_embeddings=raw.get("tie_word_embeddings", False),
            max_length=raw.get("max_position_embeddings", 2048),
            family=family,
            qk_norm=family == "qwen3",
            rope_scaling=_rope_scaling(raw),
            sliding_window=window,
            full_layers=full_layers,
        )
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def base_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """The directory of the model below a LoRA adapter; that of a whole model is its own."""
    directory = pathlib.Path(directory)
    if (directory / "config.json").is_file() or not (directory / peft.CONFIG_FILE).is_file():
        return directory
    config = peft.read_config(directory)
    try:
        return local_directory(config["base_model_name_or_path"], config.get("revision"))
    except ModelError as error:
        raise ModelError(f"{directory / peft.CONFIG_FILE}: base_model_name_or_path: {error}") from error


def architecture_of(directory: str | pathlib.Path) -> str:
    """The architecture that config.json names; empty where it names none."""
    return (read_json(base_directory(directory) / "config.json").get("architectures") or [""])[0]


def head_kind(directory: str | pathlib.Path) -> str | None:
    """The kind of reward model's head (a key of heads.HEADS) that config.json asks for, None for a language model."""
    architecture = architecture_of(directory)
    return _REWARD_MODELS[architecture][1] if architecture in _REWARD_MODELS else None


def load_tokenizer(path: str | pathlib.Path) -> Any:
    """The tokenizer of a directory, through transformers; its chat template comes with it.

    A directory whose tokenizer_class is the generic one is read from tokenizer.json as it is. AutoTokenizer would
    go by model_type and give a directory of type qwen2 the normalizer and word splitting of Qwen2.
    """
    directory = pathlib.Path(path)
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        directory = base_directory(directory)
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"{directory} has no tokenizer: put tokenizer.json (or tokenizer.model) and tokenizer_config.json there"
        )
    import transformers  # takes over a second, and only loading needs it

    config_file = directory / "tokenizer_config.json"
    name = read_json(config_file).get("tokenizer_class") if config_file.is_file() else None
    generic = name in _GENERIC_TOKENIZERS and (directory / "tokenizer.json").is_file()
    reader = transformers.PreTrainedTokenizerFast if generic else transformers.AutoTokenizer
    try:
        return reader.from_pretrained(str(directory), local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{directory}: transformers cannot read the tokenizer ({reason}): replace its files"
        ) from error


def tokenizer_digest(tokenizer: Any) -> str:
    """16 hex digits that change when the tokenizer encodes, decodes or renders a chat differently; what a tokenizer of
    our own calls itself."""
    if isinstance(tokenizer, CodePoints):
        return tokenizer.digest
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content.pop("truncation", None)  # state that a call leaves behind
    content.pop("padding", None)
    content["special_tokens"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    content["chat_template"] = tokenizer.chat_template
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _check_supported(path: pathlib.Path, raw: dict[str, Any]) -> None:
    key, rope = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters", _rope(raw)
    by_layer = any(isinstance(value, dict) for value in rope.values())
    missing = [name for name in _LLAMA3 if rope.get(name) is None]
    checks = (
        ("hidden_act", raw.get("hidden_act", "silu") == "silu", "only 'silu'"),
        (key, rope["rope_type"] in ("default", "llama3"), "only rope_type 'default' or 'llama3'"),
        (key, not by_layer, "only one rope for all layers"),
        (key, rope["rope_type"] == "default" or not missing, f"only llama3 rope with {' and '.join(_LLAMA3)}"),
        (key, rope.get("partial_rotary_factor", 1) == 1, "only rope over the whole head"),
        ("partial_rotary_factor", raw.get("partial_rotary_factor", 1) == 1, "only rope over the whole head"),
        ("attention_bias", not raw.get("attention_bias"), "only biases on q, k and v of Qwen2ForCausalLM"),
        ("mlp_bias", not raw.get("mlp_bias"), "only an MLP without biases"),
        ("quantization_config", not raw.get("quantization_config"), "only unquantized weights"),
    )
    for key, supported, what in checks:
        if not supported:
            raise ModelError(f"{path}: {key}={raw[key]!r} is not supported: {what} can be loaded")


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings, rope_type and rope_theta among them: rope_scaling and rope_theta of transformers 4, or
    rope_parameters of transformers 5, in the order of precedence of the latter."""
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    return {"rope_theta": raw.get("rope_theta", 10000.0)} | rope | {"rope_type": kind}


def _rope_scaling(raw: dict[str, Any]) -> RopeScaling | None:
    rope = _rope(raw)
    if rope["rope_type"] == "default":
        return None
    factor, low, high = (float(rope[key]) for key in _LLAMA3)
    # Beside the rotary settings it goes before the one among them; without any the model's own length is taken.
    original = rope.get("original_max_position_embeddings", raw.get("max_position_embeddings", 2048))
    return RopeScaling(factor, low, high, int(raw.get("original_max_position_embeddings", original)))


def _sliding_window(path: pathlib.Path, raw: dict[str, Any], family: str) -> tuple[int | None, tuple[int, ...]]:
    """`sliding_window` and `full_layers` of a DecoderConfig.

    Llama ignores the key. Mistral has one window for all layers. Qwen2 and Qwen3 have one if use_sliding_window says
    so, in the layers that layer_types names, or where there is no such list in those from max_window_layers on.
    """
    layers, window = raw["num_hidden_layers"], raw.get("sliding_window")
    by_layer = family in ("qwen2", "qwen3")
    if family == "llama" or (by_layer and not raw.get("use_sliding_window")):
        window = None
    first = layers if window is None else raw["max_window_layers"] if by_layer else 0
    kinds = ["full_attention" if layer < first else "sliding_attention" for layer in range(layers)]
    possible = {"full_attention", "sliding_attention"} if by_layer and window is not None else set(kinds)
    kinds = raw.get("layer_types") or kinds
    if len(kinds) != layers or not set(kinds) <= possible:
        raise ModelError(
            f"{path}: layer_types={kinds!r} is not supported: {layers} layers of a {family} decoder with "
            f"sliding_window={window} can be {' or '.join(sorted(possible))}"
        )
    full_layers = tuple(layer for layer, kind in enumerate(kinds) if kind == "full_attention")
    return (None, ()) if len(full_layers) == layers else (window, full_layers)


def _to_hugging_face(config: DecoderConfig, tokenizer: Any, dtype: str) -> dict[str, Any]:
    architecture = {family: name for name, family in _FAMILIES.items()}[config.family]
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
        "architectures": [architecture],
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
