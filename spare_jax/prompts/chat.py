"""Messages and text to token ids. The only place that calls a tokenizer's encoder and its chat template."""

import dataclasses
import functools
import json
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from spare_jax.programs import Prefix
from spare_jax.prompts.code_points import CodePoints
from spare_jax.prompts.templates import DATE, ChatTemplateError, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Message = dict[str, str]

MAX_END_IDS = 16  # ids that end a text; a request has room for so many and those of a line's end


def encode(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Ids of `text` alone: nothing is put before or after it, and a special token's name in it is mere text."""
    return cast(list[int], tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def end_ids(tokenizer: "Tokenizer") -> tuple[int, ...]:
    """The ids that end an answer, each once: the one that closes the assistant's turn in the chat template, the
    tokenizer's end-of-sequence token, and those that generation_config.json of its directory names. The first is what
    an answer is trained to end with."""
    generation = cast(Mapping[str, Any], getattr(tokenizer, "generation_config", None) or {})
    named = generation.get("eos_token_id")
    turn = None if tokenizer.chat_template is None else _chat(tokenizer)[1]
    ends = (turn, tokenizer.eos_token_id, *(named if isinstance(named, list) else [named]))
    return tuple(dict.fromkeys(cast(int, end) for end in ends if end is not None))


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
    vocabulary = tokenizer.get_vocab()
    found = [b""] * (1 + max(vocabulary.values(), default=-1))
    for text, i in vocabulary.items():
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
    """Ids of a conversation as the tokenizer's chat template renders it, the same on any day.

    Names of special tokens inside a message are encoded as text, so no message can forge the end of its turn. What the
    template does not write as it is given is given otherwise (`arrangement`): a system message that it would refuse or
    lose stands at the head of the first user turn. Without a template: the beginning-of-sequence token, if there is
    one, and every content followed by a newline.

    Raises:
      ChatTemplateError: the template fails, or changes a message.
    """
    if isinstance(tokenizer, CodePoints):
        return cast(Any, tokenizer).apply_chat_template(messages, add_generation_prompt)
    if tokenizer.chat_template is None:
        start = [] if tokenizer.bos_token_id is None else [cast(int, tokenizer.bos_token_id)]
        return start + encode(tokenizer, "".join(f"{message['content']}\n" for message in messages))
    from transformers.utils.chat_template_utils import mark_control_tokens  # a tokenizer is there, so it is imported

    chat, _ = _chat(tokenizer)
    way = arrangement(tokenizer, [message["role"] for message in messages], add_generation_prompt)
    marked = mark_control_tokens(list(messages), chat.control)
    text = render(chat.template, _variables(chat, way(marked), add_generation_prompt))
    for m in marked:
        if m["role"] not in (*way.lost, "assistant") and m["content"].strip() not in text:
            raise ChatTemplateError(f"the chat template changes what the {m['role']} says: use another template")
    # The template writes its own special tokens; the tokenizer adds none to what it rendered (no second BOS).
    ids = cast(Any, tokenizer)(text, add_special_tokens=False, sanitize_control_tokens=True)
    return cast(list[int], ids["input_ids"])


def shared_prefix(tokenizer: "Tokenizer", messages: Sequence[Message], ids: Sequence[int]) -> Prefix | None:
    """What `ids`, the encoded conversation, has in common with those whose last turn says something else: guidelines
    and exemplars. None where that is nothing."""
    other = encode_chat(tokenizer, [*messages[:-1], {**messages[-1], "content": ""}])
    pairs = enumerate(zip(ids, other, strict=False))
    length = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(other)))
    return Prefix(tuple(ids[:length])) if length else None


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """How messages are given to a chat template so that it loses none: whether a system message stands at the head of
    the user's turn behind it, and whose contents are lists of parts. `lost` are the roles whose messages it does not
    write nevertheless; no model directory is loaded with such a template."""

    system_in_user: bool = False
    parts: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def __call__(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as the template gets them."""
        if self.system_in_user:
            system, user, *rest = messages
            messages = [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]
        return [
            {**m, "content": [{"type": "text", "text": m["content"]}]} if m["role"] in self.parts else dict(m)
            for m in messages
        ]


def arrangement(tokenizer: "Tokenizer", roles: Sequence[str], add_generation_prompt: bool = True) -> Arrangement:
    """The first way to give a conversation of these roles to the chat template in which it writes every content, or the
    most of them, tried on words that no template knows.

    Raises:
      ChatTemplateError: the template fails in every way.
    """
    return _arrangement(_chat(tokenizer)[0], tuple(roles), add_generation_prompt)


_EVERYBODY = ("system", "user", "assistant")
_ARRANGEMENTS = (
    Arrangement(),
    Arrangement(parts=_EVERYBODY),
    Arrangement(parts=_EVERYBODY[1:]),
    Arrangement(system_in_user=True),
    Arrangement(system_in_user=True, parts=_EVERYBODY),
)


@functools.lru_cache(maxsize=1024)
def _arrangement(chat: "_Chat", roles: tuple[str, ...], add_generation_prompt: bool) -> Arrangement:
    messages = [{"role": role, "content": f"zq{number}xw"} for number, role in enumerate(roles)]
    found: list[Arrangement] = []
    failures: list[ChatTemplateError] = []
    for way in _ARRANGEMENTS:
        if way.system_in_user and roles[:2] != ("system", "user"):
            continue
        try:
            text = render(chat.template, _variables(chat, way(messages), add_generation_prompt))
        except ChatTemplateError as error:
            failures.append(error)
            continue
        lost = [message["role"] for message in messages if message["content"] not in text]
        if not lost:
            return way
        found.append(dataclasses.replace(way, lost=tuple(dict.fromkeys(lost))))
    if not found:
        raise failures[0]
    return min(found, key=lambda way: len(way.lost))


@dataclasses.dataclass(frozen=True)
class _Chat:
    """A tokenizer's chat template, the special tokens that it is given by their names, and what finds the tokens that a
    message may not write."""

    template: str
    tokens: tuple[tuple[str, str], ...]
    control: re.Pattern[str]


# By tokenizer: what it was when it was looked at, its chat, and the id that closes an assistant's turn.
_KNOWN: weakref.WeakKeyDictionary[Any, tuple[Any, _Chat, int | None]] = weakref.WeakKeyDictionary()


def _chat(tokenizer: "Tokenizer") -> tuple[_Chat, int | None]:
    """The chat of a tokenizer that has a template, and the id of the token that closes an assistant's turn in it."""
    state = (tokenizer.chat_template, len(tokenizer))
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != state:
        template = cast(Any, tokenizer).get_chat_template()
        added = {i: token for i, token in cast(Any, tokenizer).added_tokens_decoder.items() if token.content.strip()}
        control = {token.content: i for i, token in added.items() if token.special or token.content in template}
        longest_first = sorted(control, key=len, reverse=True)
        tokens = {
            name: str(token) for name, token in tokenizer.special_tokens_map.items() if not isinstance(token, list)
        }
        chat = _Chat(template, tuple(tokens.items()), re.compile("|".join(map(re.escape, longest_first)) or "(?!)"))
        closing = chat.control.match(_behind_the_assistant(chat))
        known = state, chat, control[closing[0]] if closing else None
        _KNOWN[tokenizer] = known
    return known[1:]


def _behind_the_assistant(chat: _Chat) -> str:
    """What the template writes behind an assistant's message, without white space before it."""
    messages = [{"role": "user", "content": "zq0xw"}, {"role": "assistant", "content": "zq1xw"}]
    try:
        way = _arrangement(chat, ("user", "assistant"), False)
        return render(chat.template, _variables(chat, way(messages), False)).rpartition("zq1xw")[2].lstrip()
    except ChatTemplateError:
        return ""


def _variables(chat: _Chat, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> dict[str, Any]:
    """What a template is given."""
    return dict(chat.tokens) | {
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "date_string": DATE,
    }
