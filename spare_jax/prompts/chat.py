"""Messages and text to token ids. The only place that calls a tokenizer's encoder and its chat template."""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import jinja2

from spare_jax.programs import Prefix

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Message = dict[str, str]

# Templates of the Llama 3 family write today's date into the prompt: a prompt must not change over night.
DATE = "26 Jul 2024"


def encode(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Ids of `text` alone: nothing is put before or after it, and a special token's name in it is mere text."""
    return cast(list[int], tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def end_ids(tokenizer: "Tokenizer") -> tuple[int, ...]:
    """The ids that end an answer: the end-of-sequence token, where there is one."""
    end = cast(int | None, tokenizer.eos_token_id)
    return () if end is None else (end,)


def token_bytes(tokenizer: "Tokenizer") -> list[bytes]:
    """The bytes that each id adds to a text; none for special tokens, which are in no text.

    Raises:
      ValueError: the tokenizer is neither a byte-level BPE nor one of sentencepiece's.
    """
    backend = json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())
    decoder = backend["decoder"] or {}
    kinds = {part["type"] for part in decoder.get("decoders", [decoder]) if "type" in part}
    if not kinds & {"ByteLevel", "Metaspace", "ByteFallback", "Replace"}:
        raise ValueError(
            f"a tokenizer with the decoder {sorted(kinds)} cannot follow a grammar: its tokens' bytes are unknown"
        )
    added = {token["id"]: token for token in backend["added_tokens"]}
    found = [b""] * len(tokenizer)
    for text, i in tokenizer.get_vocab().items():
        if i in added:
            found[i] = b"" if added[i]["special"] else text.encode()
        elif "ByteLevel" in kinds:
            found[i] = bytes(_BYTE_OF[character] for character in text)
        elif match := re.fullmatch("<0x([0-9A-F]{2})>", text):
            found[i] = bytes([int(match[1], 16)])
        else:
            found[i] = text.replace("\u2581", " ").encode()
    return found


def _byte_names() -> dict[str, int]:
    """Which byte each character of a byte-level BPE's vocabulary stands for: printable Latin-1 for itself, the others
    in their order for the characters from U+0100 on (GPT-2's published table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_names()


def encode_chat(tokenizer: "Tokenizer", messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
    """Ids of a conversation as the tokenizer's chat template renders it.

    Names of special tokens inside a message are encoded as text, so no message can forge the end of its turn. A
    template that knows no system role finds the system text at the head of the first user turn. Without a template:
    the beginning-of-sequence token, if there is one, and every content followed by a newline.
    """
    if tokenizer.chat_template is None:
        start = [] if tokenizer.bos_token_id is None else [cast(int, tokenizer.bos_token_id)]
        return start + encode(tokenizer, "".join(f"{message['content']}\n" for message in messages))
    try:
        return _apply(tokenizer, messages, add_generation_prompt)
    except jinja2.TemplateError:
        if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
            raise
        system, user, *rest = messages
        user = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        return _apply(tokenizer, [user, *rest], add_generation_prompt)


def shared_prefix(tokenizer: "Tokenizer", messages: Sequence[Message], ids: Sequence[int]) -> Prefix | None:
    """What `ids`, the encoded conversation, has in common with those whose last turn says something else: guidelines
    and exemplars. None where that is nothing."""
    other = encode_chat(tokenizer, [*messages[:-1], {**messages[-1], "content": ""}])
    pairs = enumerate(zip(ids, other, strict=False))
    length = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(other)))
    return Prefix(tuple(ids[:length])) if length else None


def _apply(tokenizer: "Tokenizer", messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
    # The template writes its own special tokens; the tokenizer adds none to what it rendered (no second BOS).
    ids = tokenizer.apply_chat_template(
        list(messages),
        tokenize=True,
        return_dict=False,
        add_generation_prompt=add_generation_prompt,
        sanitize_control_tokens=True,
        date_string=DATE,
    )
    return cast(list[int], ids)
