"""Heads of reward models: from the hidden state at a position to the logits of a few classes, and to one score.

The classes are some tokens of the language-model head, or the outputs of a head of the reward model's own: a few linear
layers that a published checkpoint holds beside the decoder. judges/conventions.py says at which positions scores are
read.
"""

import dataclasses
import pathlib
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from spare_jax.models.decoder import Decoder, class_logits
from spare_jax.models.json_files import ModelError
from spare_jax.models.safetensors_files import find_tensors

# The names of the layers of each kind of head, the first one reading the hidden state; between two there is a ReLU.
HEADS = {
    "classifier": ("score",),  # transformers' token classifiers: PURE, TRL
    "two_layers": ("score.0", "score.2"),  # Qwen2.5-Math-PRM, Universal-PRM
    "value": ("v_head.summary",),  # Skywork
    "reason_eval": ("score_head",),
}
MAX_CLASSES = 2**16  # outputs of a layer: a head is small


@dataclasses.dataclass(frozen=True)
class ReadOut:
    """How the score at a position is computed.

    Attributes:
      columns: token ids whose logits of the LM head are the classes; empty if the classes are the outputs of the
        model's own head.
      activation: "softmax": the probability of the classes `right`. "difference": that minus the probability of the
        other classes. "sigmoid": of the first logit.
      right: indices of the classes that mean correct.
    """

    columns: tuple[int, ...] = ()
    activation: Literal["softmax", "difference", "sigmoid"] = "softmax"
    right: tuple[int, ...] = (1,)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """A reward model's own head: (kernel [in, out], bias [out]) of each layer; the last layer's outputs are the
    classes."""

    layers: tuple[tuple[Float[Array, "from_size to_size"], Float[Array, " to_size"]], ...]

    def __call__(self, hidden: Float[Array, "*batch hidden"]) -> Float[Array, "*batch classes"]:
        """Logits in float32; the matmuls run in the dtype of `hidden`."""
        x = hidden
        for i, (kernel, bias) in enumerate(self.layers):
            x = jax.nn.relu(x).astype(hidden.dtype) if i else x
            x = jnp.einsum("...i,io->...o", x, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32) + bias
        return x


def tensor_names(kind: str) -> tuple[str, ...]:
    """The names of the tensors that a head of this kind may have in a model directory."""
    return tuple(f"{layer}.{part}" for layer in HEADS[kind] for part in ("weight", "bias"))


def load_head(directory: str | pathlib.Path, kind: str, hidden_size: int) -> Head:
    """The head of a model directory, in float32. A missing bias is 0.

    Raises:
      ModelError: the weight of a layer is missing, or has a shape that does not fit the layer before it.
    """
    tensors, layers, size = find_tensors(pathlib.Path(directory)), [], hidden_size
    for layer in HEADS[kind]:
        weight, bias = tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias")
        if weight is None:
            raise ModelError(
                f"{directory}: tensor {layer}.weight is missing: the reward model's head is not among its weights; "
                "copy all of the model"
            )
        classes = weight.shape[0] if weight.shape else 0
        for name, stored, wanted in (("weight", weight, (classes, size)), ("bias", bias, (classes,))):
            if stored is not None and (stored.shape != wanted or not 0 < classes <= MAX_CLASSES):
                raise ModelError(
                    f"{directory}: tensor {layer}.{name} has shape {list(stored.shape)} and the head asks for "
                    f"{list(wanted)}: use weights and a config.json that belong together"
                )
        kernel = weight.whole().astype(np.float32).T
        added = np.zeros(classes, np.float32) if bias is None else bias.whole().astype(np.float32)
        layers.append((jnp.asarray(kernel), jnp.asarray(added)))
        size = classes
    return Head(tuple(layers))


def step_scores(
    model: Decoder,
    head: Head | None,
    hidden: Float[Array, "batch length hidden"],
    positions: Int[Array, "batch steps"],
    read_out: ReadOut,
) -> Float[Array, "batch steps"]:
    """The scores at `positions` of each row. Logits are computed at these positions alone, and of the LM head for the
    tokens of the read-out alone. Unused entries of `positions` may hold any index of the row."""
    there = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)
    if read_out.columns:
        logits = class_logits(model, there, read_out.columns)
    else:
        assert head is not None, "a read-out without columns needs the model's own head"
        logits = head(there)
    if read_out.activation == "sigmoid":
        return jax.nn.sigmoid(logits[..., 0])
    right = jax.nn.softmax(logits, axis=-1)[..., jnp.asarray(read_out.right)].sum(axis=-1)
    return 2 * right - 1 if read_out.activation == "difference" else right
