"""Quantized kernels, in 8 or 4 bits, for a base model that is not trained itself (QLoRA, Dettmers et al. 2023).

A QuantizedKernel takes the place of a Linear's kernel and gives the dequantized array where that is read, so the
decoder needs no code for it. The arithmetic is qwix's, by its functions on arrays. Its functions on models rewrite
modules, which fits neither tree mode nor a scan over stacked blocks.
"""

import dataclasses
import math
from types import EllipsisType
from typing import Literal

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from jaxtyping import Array, Float

from spare_jax.models.decoder import Decoder, parameter

Kind = Literal["int8", "nf4"]
KINDS = ("int8", "nf4")
BLOCK = 64  # inputs that share a scale in nf4 (section 3 of the paper); its greatest divisor that divides the inputs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedKernel:
    """A kernel of stacked blocks [layers, in, out]: codes of that shape, and float32 scales of shape [layers, 1, out]
    for int8 and [layers, in / block, out] for nf4."""

    codes: nnx.Param
    scales: nnx.Param
    kind: Kind = dataclasses.field(metadata=dict(static=True))

    def __getitem__(self, _: EllipsisType) -> Float[Array, "*layers in out"]:
        """The dequantized kernel, in float32; `kernel[...]` is how a Linear reads its kernel."""
        return qwix.dequantize(qwix.QArray(self.codes[...], self.scales[...], None, self.kind))


def quantize(model: Decoder, kind: str) -> Decoder:
    """`model` with the kernels of its blocks quantized; embeddings, head, norms and biases are not. `kind` is one of
    KINDS.

    Raises:
      ValueError: `kind` is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"quantize={kind!r} is unknown: use {' or '.join(KINDS)}, or '' for none")

    def one(path, variable):
        named = jax.tree_util.keystr(path, simple=True, separator=".")
        return _quantized(variable, kind) if named.endswith(".kernel") else variable

    return jax.tree.map_with_path(one, model, is_leaf=lambda x: isinstance(x, nnx.Variable))


def dequantize(model: Decoder) -> Decoder:
    """`model` with its quantized kernels as ordinary Params, in the dtype of the embeddings."""

    def one(leaf):
        if not isinstance(leaf, QuantizedKernel):
            return leaf
        axes = leaf.codes.get_metadata()["logical_axes"]
        return parameter(nnx.Param, leaf[...].astype(model.embed[...].dtype), axes)

    return jax.tree.map(one, model, is_leaf=lambda x: isinstance(x, QuantizedKernel))


def _quantized(kernel: nnx.Param, kind: Kind) -> QuantizedKernel:
    def codes_and_scales(array):
        tiles = {1: math.gcd(array.shape[1], BLOCK)} if kind == "nf4" else {}
        quantized = qwix.quantize(array.astype(jnp.float32), kind, channelwise_axes=(0, 2), tiled_axes=tiles)
        return quantized.qvalue, quantized.scale

    codes, scales = jax.jit(codes_and_scales)(kernel[...])
    axes = kernel.get_metadata()["logical_axes"]
    return QuantizedKernel(parameter(nnx.Param, codes, axes), parameter(nnx.Param, scales, ("blocks", axes[1])), kind)
