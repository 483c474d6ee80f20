"""Messages and text to token ids. No other module calls a tokenizer's encoder or its chat template."""

import dataclasses
import functools
import json
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from spare_jax.programs import Prefix
from spare_jax.prompts.code_points import CodePoints
from spare_jax.prompts.templates import DATE, ChatTemplateError, ChatTemplateLimit, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Message = dict[str, str]

MAX_END_IDS = 16  # the most ids that may end a text; a request has room for these and for those that end a line


def encode(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Ids of `text` alone: no special tokens are added, and the name of one in the text is encoded as text."""
    return cast(list[int], tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def end_ids(tokenizer: "Tokenizer") -> tuple[int, ...]:
    """The ids that end an answer: the one that closes the assistant's turn in the chat template, the end-of-sequence
    token, and those that generation_config.json names. Training ends an answer with the first."""
    generation = cast(Mapping[str, Any], getattr(tokenizer, "generation_config", None) or {})
    named = generation.get("eos_token_id")
    turn = None if tokenizer.chat_template is None else _chat(tokenizer)[1]
    ends = (turn, tokenizer.eos_token_id, *(named if isinstance(named, list) else [named]))
    return tuple(dict.fromkeys(cast(int, end) for end in ends if end is not None))


def token_bytes(tokenizer: "Tokenizer") -> list[bytes]:
    """The bytes that each id adds to a text; none for special tokens.

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
    pieces = [b""] * (1 + max(vocabulary.values(), default=-1))
    for text, i in vocabulary.items():
        if i in added:
            pieces[i] = b"" if added[i]["special"] else text.encode()
        elif "ByteLevel" in kinds:
            pieces[i] = bytes(_BYTE_OF[character] for character in text)
        elif match := re.fullmatch("<0x([0-9A-F]{2})>", text):
            pieces[i] = bytes([int(match[1], 16)])
        else:
            pieces[i] = text.replace("\u2581", " ").encode()
    return pieces


def _byte_names() -> dict[str, int]:
    """The byte that each character in a byte-level BPE's vocabulary stands for, by GPT-2's published table: printable
    Latin-1 characters for themselves, those from U+0100 on for the other bytes in their order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_names()


def encode_chat(tokenizer: "Tokenizer", messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
    """Ids of a conversation by the tokenizer's chat template; the date in it is always the same.

    Names of special tokens in a message are encoded as text, so no message can forge the end of its turn. A system
    message that the template would refuse or drop is put before the first user message (`arrangement`). Without a
    template: the beginning-of-sequence token, if there is one, and every content followed by a newline.

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
    """The beginning of `ids`, the encoded conversation, that does not depend on its last message: guidelines and
    exemplars. None where it is empty."""
    other = encode_chat(tokenizer, [*messages[:-1], {**messages[-1], "content": ""}])
    pairs = enumerate(zip(ids, other, strict=False))
    length = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(other)))
    return Prefix(tuple(ids[:length])) if length else None


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """The form in which messages are given to a chat template so that it writes all of them: with `system_in_user` the
    system message begins the user message; the contents of the roles in `parts` are lists of parts. `lost`: the roles
    whose messages it drops nevertheless; a model directory with such a template is refused."""

    system_in_user: bool = False
    parts: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def __call__(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages in this form."""
        if self.system_in_user:
            system, user, *rest = messages
            messages = [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]
        return [
            {**m, "content": [{"type": "text", "text": m["content"]}]} if m["role"] in self.parts else dict(m)
            for m in messages
        ]


def arrangement(tokenizer: "Tokenizer", roles: Sequence[str], add_generation_prompt: bool = True) -> Arrangement:
    """The first form of a conversation with these roles in which the chat template writes every content, or most of
    them; found by trying all forms on made-up words.

    Raises:
      ChatTemplateError: the template fails in every form.
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
    candidates: list[Arrangement] = []
    failures: list[ChatTemplateError] = []
    for way in _ARRANGEMENTS:
        if way.system_in_user and roles[:2] != ("system", "user"):
            continue
        try:
            text = render(chat.template, _variables(chat, way(messages), add_generation_prompt))
        except ChatTemplateLimit:
            raise
        except ChatTemplateError as error:
            failures.append(error)
            continue
        lost = [message["role"] for message in messages if message["content"] not in text]
        if not lost:
            return way
        candidates.append(dataclasses.replace(way, lost=tuple(dict.fromkeys(lost))))
    if not candidates:
        raise failures[0]
    return min(candidates, key=lambda way: len(way.lost))


@dataclasses.dataclass(frozen=True)
class _Chat:
    """A tokenizer's chat template, its special tokens as (name, token), and a pattern of the control tokens, which no
    message may write."""

    template: str
    tokens: tuple[tuple[str, str], ...]
    control: re.Pattern[str]


# By tokenizer: its state when it was looked at, its chat, and the id that closes an assistant's turn.
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
    """The text that the template writes after an assistant's message, without white space before it."""
    messages = [{"role": "user", "content": "zq0xw"}, {"role": "assistant", "content": "zq1xw"}]
    try:
        way = _arrangement(chat, ("user", "assistant"), False)
        return render(chat.template, _variables(chat, way(messages), False)).rpartition("zq1xw")[2].lstrip()
    except ChatTemplateError:
        return ""


def _variables(chat: _Chat, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> dict[str, Any]:
    """The variables of a template."""
    return dict(chat.tokens) | {
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "date_string": DATE,
    }
