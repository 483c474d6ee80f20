"""What a reward model computes at a position: the logits of some classes, and one score from them.

The classes are columns of the language-model head, or those of a head of the model's own. Which positions
these are is a matter of judges/conventions.py. A head of its own is a few linear layers that a published checkpoint
holds beside the decoder; a checkpoint that lacks them is no reward model.
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

# Names of the layers of each kind of head, from the hidden state on; a ReLU stands between two.
HEADS = {
    "classifier": ("score",),  # transformers' token classifiers: PURE, TRL
    "two_layers": ("score.0", "score.2"),  # Qwen2.5-Math-PRM, Universal-PRM
    "value": ("v_head.summary",),  # Skywork
    "reason_eval": ("score_head",),
}
MAX_CLASSES = 2**16  # outputs of a layer: a head is small


@dataclasses.dataclass(frozen=True)
class ReadOut:
    """How one score is made at a position.

    The classes are the LM head's logits of the tokens `columns`, or where there are none those of the model's own
    head. "softmax" is the probability of the classes `right`, "difference" that less the probability of the others,
    "sigmoid" that of a single logit.
    """

    columns: tuple[int, ...] = ()
    activation: Literal["softmax", "difference", "sigmoid"] = "softmax"
    right: tuple[int, ...] = (1,)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """A reward model's own head: kernels [in, out] and biases [out] of its layers, the last one's out the classes."""

    layers: tuple[tuple[Float[Array, "from_size to_size"], Float[Array, " to_size"]], ...]

    def __call__(self, hidden: Float[Array, "*batch hidden"]) -> Float[Array, "*batch classes"]:
        """Logits in float32; the matmuls run in the dtype of `hidden`."""
        x = hidden
        for i, (kernel, bias) in enumerate(self.layers):
            x = jax.nn.relu(x).astype(hidden.dtype) if i else x
            x = jnp.einsum("...i,io->...o", x, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32) + bias
        return x


def tensor_names(kind: str) -> tuple[str, ...]:
    """The tensors that a head of a kind may have in a model directory."""
    return tuple(f"{layer}.{part}" for layer in HEADS[kind] for part in ("weight", "bias"))


def load_head(directory: str | pathlib.Path, kind: str, hidden_size: int) -> Head:
    """Read a head of a model directory, in float32. A layer may come without bias.

    Raises:
      ModelError: a layer is missing, or has another shape than one that reads what comes before it.
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
    """The scores at `positions` of each row. Only those hidden states meet a head, and of the LM head only the columns
    that are read. Unused entries of `positions` may hold any index inside the row."""
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
