"""Messages and text to token ids. The only place that calls a tokenizer's encoder and its chat template."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import jinja2

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
