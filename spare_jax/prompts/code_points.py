"""A conversation as ids without a tokenizer: code points of the text, and marks that begin the turns. With it programs,
which handle ids, can ask a server that takes text (engines/endpoint.py)."""

from collections.abc import Mapping, Sequence
from typing import Any

_MARKS = {"system": 0x110000, "user": 0x110001, "assistant": 0x110002}  # above all code points
_ROLE_OF = {mark: role for role, mark in _MARKS.items()}
END = 0x110003


class CodePoints:
    """The part of a tokenizer's interface that prompts and judges use."""

    eos_token_id = END
    bos_token_id = None
    pad_token_id = 0
    chat_template = None  # turns are marked by ids of their own
    digest = "code-points-1"

    def encode(self, text: str, **_: Any) -> list[int]:
        """One id per character."""
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """The text of ids, without marks."""
        return "".join(chr(i) for i in ids if i < 0x110000)

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False, **_: Any
    ) -> list[int]:
        """Every message after the mark of its role; at the end, if asked for, the mark of the assistant's turn."""
        ids = [i for message in messages for i in (_MARKS[message["role"]], *self.encode(message["content"]))]
        return [*ids, _MARKS["assistant"]] if add_generation_prompt else ids


def messages_of(ids: Sequence[int]) -> list[dict[str, str]]:
    """The conversation that `CodePoints` has encoded, without an empty last turn of the assistant."""
    messages: list[dict[str, str]] = []
    for i in ids:
        if i in _ROLE_OF:
            messages.append({"role": _ROLE_OF[i], "content": ""})
        else:
            messages[-1]["content"] += chr(i)
    return messages if messages[-1]["content"] or messages[-1]["role"] != "assistant" else messages[:-1]
