"""Loads and saves Hugging Face model directories: config.json, safetensors, tokenizer and chat template.

A directory comes from a stranger. The size, type and range of what it holds is checked before it is used, none of its
code is run, and whatever is wrong is a ModelError of one line. Torch stores a linear layer as [out, in] and this
package as [in, out], so kernels are transposed.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from spare_jax import remote_code
from spare_jax.models import adapters, config_json, peft
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder
from spare_jax.models.heads import Head, load_head, tensor_names
from spare_jax.models.json_files import ModelError, read_json, shown, unreadable, write_json, wrong_field
from spare_jax.models.weights import SHARD_BYTES, load_weights, save_weights
from spare_jax.prompts.chat import MAX_END_IDS, arrangement, encode, end_ids
from spare_jax.prompts.code_points import CodePoints
from spare_jax.prompts.templates import ChatTemplateError

GENERATION_FILE = "generation_config.json"
MAX_TOKENIZER_BYTES = 2**27  # of a file of the tokenizer; four times the largest of a known model
MAX_ADDED_TOKENS = 2**14  # beside the vocabulary; transformers takes a millisecond for each
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
# The JSON files that transformers reads for a tokenizer are these and those with "token" in their name.
_READ_TOO = ("vocab.json", "special_tokens_map.json", "tekken.json", "config.json")
_IN_EACH = {
    "added_tokens.json": b":",
    "special_tokens_map.json": b",",
}  # in the entry of an added token; else "special"
_GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
# Not consolidated.safetensors: some directories hold the weights once more under that name.
_DOWNLOADS = ["*.json", "model*.safetensors", "*.model", "*.jinja", "*.txt"]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model directory. `head` is a reward model's own head; None where the language model's head is read."""

    model: Decoder
    config: DecoderConfig
    tokenizer: Any
    path: pathlib.Path
    head: Head | None = None


def load(
    path: str | pathlib.Path, *, revision: str | None = None, dtype: DTypeLike = jnp.float32, mesh: Mesh | None = None
) -> Checkpoint:
    """Load config, weights and tokenizer from a directory, or from a hub id 'owner/name' at `revision`.

    The directory of a LoRA adapter gives its base model with the adapter merged.

    Args:
      dtype: of the parameters in memory.
      mesh: if there is one, parameters get the shardings of sharding.py.

    Raises:
      ModelError: something is missing, damaged or not supported; says what to do.
    """
    directory = local_directory(path, revision)
    base = base_directory(directory)
    config = load_config(directory)
    tokenizer = load_tokenizer(directory)
    tokens = max(len(tokenizer), *(i + 1 for i in (*tokenizer.get_vocab().values(), *end_ids(tokenizer))))
    if tokens > config.vocab_size:
        raise ModelError(
            f"{directory}: the tokenizer has {tokens} tokens and vocab_size in config.json is "
            f"{config.vocab_size}: use the tokenizer this model was made with"
        )
    kind = head_kind(directory)
    # The head is read first, so a missing one is told before the large weights are read. A reward model's directory may
    # hold a language model's head too.
    head = load_head(base, kind, config.hidden_size) if kind else None
    beside = (*tensor_names(kind), "lm_head.weight") if kind else ()
    model = load_weights(base, config, dtype=dtype, mesh=mesh, beside=beside)
    if base != directory:
        model = adapters.merge(peft.load(directory, model))
    return Checkpoint(model, model.config, tokenizer, directory, head)


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

    config.json is written last, so a directory whose writing was interrupted is not taken for a model.

    Args:
      extra: contents of further JSON files, by file name.
      shard_bytes: weights of more bytes are written to several files with an index.
    """
    directory = pathlib.Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    for old in [directory / "config.json", directory / GENERATION_FILE, *directory.glob("model*.safetensors*")]:
        old.unlink(missing_ok=True)
    save_weights(directory, model, shard_bytes=shard_bytes)
    tokenizer.save_pretrained(directory)
    generation = getattr(tokenizer, "generation_config", None)
    beside = {GENERATION_FILE: generation} if generation else {}
    for name, content in (beside | (extra or {})).items():
        write_json(directory / name, content)
    dtype = str(model.embed[...].dtype)
    write_json(directory / "config.json", config_json.to_hugging_face(config, tokenizer, dtype))


def local_directory(path: str | pathlib.Path, revision: str | None = None) -> pathlib.Path:
    """`path` if it is a directory; else it must be a hub id 'owner/name', which is downloaded. Raises ModelError."""
    directory = pathlib.Path(path)
    try:
        if directory.is_dir():
            next(directory.iterdir(), None)  # it can be read
            return directory
    except OSError as error:
        raise unreadable(directory, error) from error
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
    """The DecoderConfig of a directory. Raises ModelError if config.json is missing or not supported."""
    path = base_directory(directory) / "config.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing: give a directory with config.json, model.safetensors and a tokenizer")
    return config_json.decoder_config(path, read_json(path))


def base_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """The directory of the model that a LoRA adapter adapts; a directory that is no adapter is its own."""
    directory = pathlib.Path(directory)
    if (directory / "config.json").is_file() or not (directory / peft.CONFIG_FILE).is_file():
        return directory
    config = peft.read_config(directory)
    try:
        return local_directory(config["base_model_name_or_path"], config.get("revision"))
    except ModelError as error:
        raise ModelError(f"{directory / peft.CONFIG_FILE}: base_model_name_or_path: {error}") from error


def architecture_of(directory: str | pathlib.Path) -> str:
    """The architecture that a directory's config.json names; empty where it names none."""
    path = base_directory(directory) / "config.json"
    return config_json.architecture(path, read_json(path))


def head_kind(directory: str | pathlib.Path) -> str | None:
    """The kind of a directory's reward model's head, a key of heads.HEADS; None for a language model."""
    return config_json.head_kind(architecture_of(directory))


def load_tokenizer(path: str | pathlib.Path) -> Any:
    """The tokenizer of a directory, as transformers loads it, with its chat template and, as the attribute
    `generation_config`, the content of generation_config.json.

    If its tokenizer_class is the generic one, tokenizer.json is read as it is. AutoTokenizer would choose a class by
    config.json's model_type, and give a directory of type qwen2 the normalizer and word splitting of Qwen2.

    Raises:
      ModelError: a file is missing, too large or damaged, or the chat template loses part of a message.
    """
    directory = pathlib.Path(path)
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        directory = base_directory(directory)
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"{directory} has no tokenizer: put tokenizer.json (or tokenizer.model) and tokenizer_config.json there"
        )
    _check_sizes(directory)
    config_file = directory / "tokenizer_config.json"
    name = read_json(config_file).get("tokenizer_class") if config_file.is_file() else None
    if not isinstance(name or "", str):
        raise wrong_field(config_file, "tokenizer_class", name, "a name")
    as_it_is = name in _GENERIC_TOKENIZERS and (directory / "tokenizer.json").is_file()
    try:
        tokenizer = remote_code.load_tokenizer(str(directory), as_it_is=as_it_is)
        _try(tokenizer)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # files of odd types raise anything, and tokenizers' own panic is no Exception
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{directory}: transformers cannot read the tokenizer ({reason}): replace its files"
        ) from error
    tokenizer.generation_config = _generation_config(directory)
    _check_template(directory, tokenizer)
    return tokenizer


def _try(tokenizer: Any) -> None:
    """Call every method that is used anywhere once: a tokenizer from damaged files may load and fail only when used."""
    text = "2 + 2 = 4.\n"
    if not len(tokenizer):
        raise ValueError("it knows no token")
    tokenizer(text, add_special_tokens=False, sanitize_control_tokens=True)
    tokenizer.decode(encode(tokenizer, text), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    tokenizer.convert_tokens_to_ids(text)


def _check_sizes(directory: pathlib.Path) -> None:
    """Raises ModelError if a file that transformers reads for a tokenizer is too large, or adds too many tokens."""
    for pattern in ("*.json", "*.txt", "*.model", "*.jinja", "*/*.jinja"):
        for file in directory.glob(pattern):
            of_tokenizer = pattern != "*.json" or "token" in file.name or file.name in _READ_TOO
            if not of_tokenizer or not file.is_file():
                continue
            if (size := file.stat().st_size) > MAX_TOKENIZER_BYTES:
                raise ModelError(f"{file} has {size:,} bytes, too many for a tokenizer: replace the file")
            # Counted without parsing: 100 MB of JSON may take a gigabyte as objects.
            named = 0 if pattern != "*.json" else file.read_bytes().count(_IN_EACH.get(file.name, b'"special"'))
            if named > MAX_ADDED_TOKENS:
                raise ModelError(
                    f"{file} adds {named:,} tokens: at most {MAX_ADDED_TOKENS:,} are read, replace the file"
                )


def _generation_config(directory: pathlib.Path) -> dict[str, Any] | None:
    """The content of generation_config.json, None where there is none. Raises ModelError if its eos_token_id is neither
    an id nor a list of ids."""
    path = directory / GENERATION_FILE
    path = path if path.is_file() else base_directory(directory) / GENERATION_FILE
    if not path.is_file():
        return None
    content = read_json(path)
    ends = content.get("eos_token_id")
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if len(ids) > MAX_END_IDS or not all(type(i) is int and 0 <= i < 2**31 for i in ids):
        raise wrong_field(path, "eos_token_id", ends, f"a token's id, or at most {MAX_END_IDS} of them")
    return content


def _check_template(directory: pathlib.Path, tokenizer: Any) -> None:
    """Keep one chat template, of several the default. Raises ModelError if there is no default, or if the template
    leaves out part of a message."""
    template = tokenizer.chat_template
    if template is None:
        return
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise ModelError(f"{directory}: chat_template={shown(tokenizer.chat_template)} has no default: name one text")
    tokenizer.chat_template = template
    for roles in (("user",), ("system", "user"), ("system", "user", "assistant", "user")):
        try:
            lost = arrangement(tokenizer, roles).lost
        except ChatTemplateError as error:
            if len(roles) > 2:  # a template for a single turn may refuse more
                continue
            raise ModelError(f"{directory}: {error}: replace chat_template.jinja") from error
        if lost:
            raise ModelError(f"{directory}: the chat template does not write what the {lost[0]} says: replace it")


def tokenizer_digest(tokenizer: Any) -> str:
    """16 hex digits that change when the tokenizer encodes, decodes or renders a chat differently; for CodePoints, its
    own digest."""
    if isinstance(tokenizer, CodePoints):
        return tokenizer.digest
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content.pop("truncation", None)  # this and padding are state that a call leaves behind
    content.pop("padding", None)
    content["special_tokens"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    content["chat_template"] = tokenizer.chat_template
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
