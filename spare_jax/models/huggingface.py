"""Hugging Face model directories, in and out: config.json, safetensors, tokenizer and chat template.

LlamaForCausalLM and Qwen2ForCausalLM. What the decoder cannot compute exactly is an error that names the key of
config.json and its value; nothing is guessed or dropped. Torch stores a linear layer as [out, in], this package as
[in, out], so kernels are transposed on the way.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from spare_jax.models.decoder import Decoder, DecoderConfig, init_decoder
from spare_jax.models.sharding import ShardingRules, shardings_of

SHARD_BYTES = 5 * 10**9

_FAMILIES: dict[str, Literal["llama", "qwen2"]] = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
# Our parameter -> (tensor name in the directory, whether it is stored transposed). "{}" is the number of the layer.
_TENSORS = {
    "embed": ("model.embed_tokens.weight", False),
    "final_norm": ("model.norm.weight", False),
    "head": ("lm_head.weight", True),
    "blocks.attention_norm": ("model.layers.{}.input_layernorm.weight", False),
    "blocks.attention.query.kernel": ("model.layers.{}.self_attn.q_proj.weight", True),
    "blocks.attention.query.bias": ("model.layers.{}.self_attn.q_proj.bias", False),
    "blocks.attention.key.kernel": ("model.layers.{}.self_attn.k_proj.weight", True),
    "blocks.attention.key.bias": ("model.layers.{}.self_attn.k_proj.bias", False),
    "blocks.attention.value.kernel": ("model.layers.{}.self_attn.v_proj.weight", True),
    "blocks.attention.value.bias": ("model.layers.{}.self_attn.v_proj.bias", False),
    "blocks.attention.output.kernel": ("model.layers.{}.self_attn.o_proj.weight", True),
    "blocks.mlp_norm": ("model.layers.{}.post_attention_layernorm.weight", False),
    "blocks.mlp.gate.kernel": ("model.layers.{}.mlp.gate_proj.weight", True),
    "blocks.mlp.up.kernel": ("model.layers.{}.mlp.up_proj.weight", True),
    "blocks.mlp.down.kernel": ("model.layers.{}.mlp.down_proj.weight", True),
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_DOWNLOADS = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]


class ModelError(ValueError):
    """A model directory that is missing, incomplete or not supported; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model directory."""

    model: Decoder
    config: DecoderConfig
    tokenizer: Any
    path: pathlib.Path


def load(
    path: str | pathlib.Path, *, revision: str | None = None, dtype: DTypeLike = jnp.float32, mesh: Mesh | None = None
) -> Checkpoint:
    """Load config, weights and tokenizer from a directory, or from a hub id 'owner/name' at `revision`.

    `dtype` is that of the parameters in memory. With a mesh they are placed with the shardings of sharding.py.
    Raises ModelError.
    """
    directory = local_directory(path, revision)
    config = load_config(directory)
    tokenizer = load_tokenizer(directory)
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{directory}: the tokenizer has {len(tokenizer)} tokens and vocab_size in config.json is "
            f"{config.vocab_size}: use the tokenizer this model was made with"
        )
    return Checkpoint(load_weights(directory, config, dtype=dtype, mesh=mesh), config, tokenizer, directory)


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
        _write_json(directory / name, content)
    dtype = str(model.embed[...].dtype)
    _write_json(directory / "config.json", _to_hugging_face(config, tokenizer, dtype))


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
    path = pathlib.Path(directory) / "config.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing: give a directory with config.json, model.safetensors and a tokenizer")
    raw = _read_json(path)
    architecture = (raw.get("architectures") or [None])[0]
    if architecture not in _FAMILIES:
        raise ModelError(
            f"{path}: architectures={raw.get('architectures')!r} is not supported: use {' or '.join(_FAMILIES)}"
        )
    rope = raw.get("rope_parameters") or {}
    _check_supported(path, raw, rope)
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    missing = [key for key in needed if key not in raw]
    if missing:
        raise ModelError(f"{path}: {missing[0]} is missing: write it, the decoder's size cannot be guessed")
    family = _FAMILIES[architecture]
    heads = raw["num_attention_heads"]
    try:
        return DecoderConfig(
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_layers=raw["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
            norm_eps=raw.get("rms_norm_eps", 1e-6),
            attention_bias=family == "qwen2",
            tie_embeddings=raw.get("tie_word_embeddings", False),
            max_length=raw.get("max_position_embeddings", 2048),
            family=family,
        )
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def load_weights(
    directory: str | pathlib.Path,
    config: DecoderConfig,
    *,
    dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> Decoder:
    """Read model.safetensors, or the files of model.safetensors.index.json. Raises ModelError if a tensor is missing,
    has another shape than the config says, or has no place in the decoder."""
    directory = pathlib.Path(directory)
    abstract = jax.eval_shape(lambda key: init_decoder(config, key, dtype), jax.random.key(0))
    places = [None] * len(jax.tree.leaves(abstract))
    if mesh is not None:
        places = jax.tree.leaves(shardings_of(abstract, mesh, ShardingRules()))
    with _Tensors(directory) as tensors:
        names = {name for parameter, _ in _parameters(abstract) for name in _tensor_names(parameter, config)}
        ignored = {"lm_head.weight"} if config.tie_embeddings else set()
        unknown = [n for n in tensors.names() if n not in names | ignored and not n.endswith("rotary_emb.inv_freq")]
        if unknown:
            raise ModelError(
                f"{directory}: tensor {unknown[0]} has no place in a {config.family} decoder with "
                f"{config.num_layers} layers: use a directory whose weights and config.json belong together"
            )
        leaves = []
        for (parameter, leaf), place in zip(_parameters(abstract), places, strict=True):
            array = _read_parameter(tensors, parameter, leaf.shape, config).astype(leaf.dtype)
            leaves.append(jax.device_put(array, place))
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def save_weights(directory: str | pathlib.Path, model: Decoder, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write model.safetensors, or with more than `shard_bytes` several files and model.safetensors.index.json."""
    directory = pathlib.Path(directory)
    shards: list[dict[str, np.ndarray]] = [{}]
    size = total = 0
    for name, tensor in _tensors_of(model):
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    metadata = {"format": "pt"}  # transformers refuses files without it
    if len(shards) == 1:
        save_file(shards[0], directory / "model.safetensors", metadata=metadata)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file, metadata=metadata)
        weight_map.update(dict.fromkeys(shard, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(directory / "model.safetensors.index.json", index)


def load_tokenizer(path: str | pathlib.Path) -> Any:
    """The tokenizer of a directory, through transformers; its chat template comes with it.

    A directory whose tokenizer_class is the generic one is read from tokenizer.json as it is. AutoTokenizer would
    go by model_type and give a directory of type qwen2 the normalizer and word splitting of Qwen2.
    """
    directory = pathlib.Path(path)
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"{directory} has no tokenizer: put tokenizer.json (or tokenizer.model) and tokenizer_config.json there"
        )
    import transformers  # takes over a second, and only loading needs it

    config_file = directory / "tokenizer_config.json"
    name = _read_json(config_file).get("tokenizer_class") if config_file.is_file() else None
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
    """16 hex digits that change when the tokenizer encodes, decodes or renders a chat differently."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content.pop("truncation", None)  # state that a call leaves behind
    content.pop("padding", None)
    content["special_tokens"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    content["chat_template"] = tokenizer.chat_template
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class _Tensors:
    """The tensors of a directory by name, over one or several open safetensors files."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
        if single.is_file():
            files = [single]
        elif index.is_file():
            files = [directory / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
        else:
            raise ModelError(
                f"{directory} has neither {single.name} nor {index.name}: convert the weights to safetensors there"
            )
        self._open, self._by_name = [], {}
        for file in files:
            if not file.is_file():
                raise ModelError(f"{file} is missing and {index.name} names it: copy all files of the model")
            try:
                handle = safe_open(file, framework="np")
            except SafetensorError as error:
                raise ModelError(f"{file} is no complete safetensors file ({error}): copy it again") from error
            self._open.append(handle)
            self._by_name.update(dict.fromkeys(handle.keys(), handle))

    def __enter__(self):
        for handle in self._open:
            handle.__enter__()
        return self

    def __exit__(self, *error):
        for handle in self._open:
            handle.__exit__(*error)

    def names(self) -> list[str]:
        return sorted(self._by_name)

    def read(self, name: str) -> np.ndarray:
        if name not in self._by_name:
            raise ModelError(f"{self.directory}: tensor {name} is missing from the weights: copy all of the model")
        return self._by_name[name].get_tensor(name)


def _check_supported(path: pathlib.Path, raw: dict[str, Any], rope: dict[str, Any]) -> None:
    scaling = raw.get("rope_scaling") or {}
    layer_types = raw.get("layer_types") or ()
    checks = (
        ("hidden_act", raw.get("hidden_act", "silu") == "silu", "only 'silu'"),
        ("rope_scaling", scaling.get("rope_type", scaling.get("type", "default")) == "default", "only unscaled rope"),
        ("rope_parameters", rope.get("rope_type", "default") == "default", "only rope_type 'default'"),
        ("partial_rotary_factor", raw.get("partial_rotary_factor", 1) == 1, "only rope over the whole head"),
        ("use_sliding_window", not raw.get("use_sliding_window"), "only full attention"),
        ("layer_types", all(kind == "full_attention" for kind in layer_types), "only full attention"),
        ("attention_bias", not raw.get("attention_bias"), "only biases on q, k and v of Qwen2ForCausalLM"),
        ("mlp_bias", not raw.get("mlp_bias"), "only an MLP without biases"),
        ("quantization_config", not raw.get("quantization_config"), "only unquantized weights"),
    )
    for key, supported, what in checks:
        if not supported:
            raise ModelError(f"{path}: {key}={raw[key]!r} is not supported: {what} can be loaded")


def _parameters(model: Decoder) -> list[tuple[str, Any]]:
    """(readable name, array) of every parameter, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return [(jax.tree_util.keystr(path[:-1], simple=True, separator="."), leaf) for path, leaf in leaves]


def _tensor_names(parameter: str, config: DecoderConfig) -> list[str]:
    template = _TENSORS[parameter][0]
    return [template.format(layer) for layer in range(config.num_layers)] if "{}" in template else [template]


def _read_parameter(tensors: _Tensors, parameter: str, shape: tuple[int, ...], config: DecoderConfig) -> np.ndarray:
    stacked, transposed = "{}" in _TENSORS[parameter][0], _TENSORS[parameter][1]
    parts = []
    for name in _tensor_names(parameter, config):
        part = tensors.read(name)
        part = part.T if transposed else part
        expected = shape[1:] if stacked else shape
        if part.shape != expected:
            stored, wanted = (part.shape[::-1], expected[::-1]) if transposed else (part.shape, expected)
            raise ModelError(
                f"{tensors.directory}: tensor {name} has shape {list(stored)} and config.json asks for "
                f"{list(wanted)}: use a config.json and weights that belong together"
            )
        parts.append(part)
    return np.stack(parts) if stacked else parts[0]


def _tensors_of(model: Decoder) -> Iterator[tuple[str, Any]]:
    """(tensor name, array as torch stores it) of every tensor of the directory."""
    for parameter, array in _parameters(model):
        names = _tensor_names(parameter, model.config)
        stacked, transposed = "{}" in _TENSORS[parameter][0], _TENSORS[parameter][1]
        host = np.asarray(array)
        for name, part in zip(names, host if stacked else [host], strict=True):
            # safetensors writes the buffer of an array as it is, so a transposed view would be stored wrong
            yield name, np.ascontiguousarray(part.T if transposed else part)


def _to_hugging_face(config: DecoderConfig, tokenizer: Any, dtype: str) -> dict[str, Any]:
    architecture = {family: name for name, family in _FAMILIES.items()}[config.family]
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
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "torch_dtype": dtype,
    }


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is no JSON ({error}): replace the file") from error


def _write_json(path: pathlib.Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
