"""The process reward head: one step tag whose hidden state says "+" or "-".

The model reads the problem and, after each step, the step tag; the score of the step is the softmax over the logits
of the two label tokens at the tag (SPARE-PRM, arXiv:2506.15498). Which ids these are is the convention; it travels
inside the model directory, so that a reward model cannot be read with another one.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from spare_jax.models.decoder import Decoder, class_logits
from spare_jax.models.huggingface import ModelError

CONVENTION_FILE = "prm_convention.json"
PREFERRED_STEP_TAG = " ки"  # the published tag: rare in text, and one token of the Llama tokenizers
_LABELS = ("+", "-")


@dataclasses.dataclass(frozen=True)
class TokenTagConvention:
    """How a reward model is read: the step tag and its id, the label ids, and how step scores become one score."""

    tag: str
    tag_id: int
    good_id: int
    bad_id: int
    aggregation: str


def save_convention(directory: str | pathlib.Path, convention: TokenTagConvention) -> None:
    """Write the convention into a model directory."""
    text = json.dumps(dataclasses.asdict(convention), indent=2, ensure_ascii=False)
    (pathlib.Path(directory) / CONVENTION_FILE).write_text(text + "\n", encoding="utf-8")


def load_convention(directory: str | pathlib.Path) -> TokenTagConvention:
    """Read the convention of a model directory. Raises ModelError if it is missing or incomplete: without it a model
    is no reward model."""
    path = pathlib.Path(directory) / CONVENTION_FILE
    if not path.is_file():
        raise ModelError(f"{path} is missing: the directory holds no reward model; train one, or write its convention")
    try:
        return TokenTagConvention(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        fields = ", ".join(field.name for field in dataclasses.fields(TokenTagConvention))
        raise ModelError(f"{path} cannot be read ({error}): it needs exactly {fields}") from error


def choose_convention(tokenizer: Any, candidates: Sequence[str], aggregation: str) -> TokenTagConvention:
    """The convention for a tokenizer: its step tag (`choose_step_tag`) and the ids of "+" and "-"."""
    tag, tag_id = choose_step_tag(tokenizer, candidates)
    good_id, bad_id = (_label_id(tokenizer, label) for label in _LABELS)
    return TokenTagConvention(tag, tag_id, good_id, bad_id, aggregation)


def choose_step_tag(tokenizer: Any, candidates: Sequence[str] = ()) -> tuple[str, int]:
    """The step tag and its id: " ки" if it encodes to exactly one known id, else the first candidate that does.

    Raises ModelError when none does: a tag of several ids would have no single position to read the score from.
    """
    for tag in (PREFERRED_STEP_TAG, *candidates):
        tag_id = _single_id(tokenizer, tag)
        if tag_id is not None:
            return tag, tag_id
    tried = ", ".join(repr(tag) for tag in (PREFERRED_STEP_TAG, *candidates))
    raise ModelError(
        f"no step tag is one token of this tokenizer (tried {tried}): add a candidate that is, for example a special "
        "token that occurs in no text"
    )


def step_scores(
    model: Decoder,
    hidden: Float[Array, "batch length hidden"],
    positions: Int[Array, "batch steps"],
    convention: TokenTagConvention,
) -> Float[Array, "batch steps"]:
    """P("+") of each step, read at the tags' `positions` in each row. Only those hidden states meet the head, and only
    two of its columns. Unused entries of `positions` may hold any index inside the row."""
    at_tags = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)
    return jax.nn.softmax(class_logits(model, at_tags, (convention.good_id, convention.bad_id)), axis=-1)[..., 0]


def _label_id(tokenizer: Any, label: str) -> int:
    label_id = tokenizer.convert_tokens_to_ids(label)
    if label_id is None or label_id == tokenizer.unk_token_id:
        label_id = _single_id(tokenizer, label)
    if label_id is None:
        raise ModelError(f"label {label!r} is not one token of this tokenizer: use a tokenizer that has it")
    return label_id


def _single_id(tokenizer: Any, text: str) -> int | None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None
