"""Low-rank adapters (LoRA, Hu et al. 2021; over a quantized base QLoRA, Dettmers et al. 2023).

`adapt` replaces Linears of a decoder by AdaptedLinears, y = base(x) + scale * dropout(x) a b. The result is run,
sharded and trained like any decoder. `split` separates the arrays that are trained from the frozen ones, `merge` makes
an ordinary decoder of it.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from spare_jax.models.decoder import Decoder, Linear, parameter, product
from spare_jax.models.quantization import dequantize, quantize

PROJECTIONS = {
    "q_proj": "blocks.attention.query",
    "k_proj": "blocks.attention.key",
    "v_proj": "blocks.attention.value",
    "o_proj": "blocks.attention.output",
    "gate_proj": "blocks.mlp.gate",
    "up_proj": "blocks.mlp.up",
    "down_proj": "blocks.mlp.down",
}


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """How a model is adapted.

    Attributes:
      rank: of the update; 0 for no adapters, so that all weights are trained (SPARE, arXiv 2506.15498: 64).
      alpha: the update is alpha / rank times a b.
      dropout: probability with which an input of an adapter is dropped in training.
      targets: which projections get adapters, some of PROJECTIONS.
      quantize: how the base model is stored: "int8", "nf4", or "" for as it is.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.1
    targets: tuple[str, ...] = tuple(PROJECTIONS)
    quantize: str = ""

    def __post_init__(self):
        if self.rank < 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"rank={self.rank}, dropout={self.dropout}: use a rank of 0 or more and a dropout below 1")
        if not self.targets or not set(self.targets) <= set(PROJECTIONS):
            raise ValueError(f"targets={self.targets}: use some of {', '.join(PROJECTIONS)}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AdaptedLinear:
    """A linear layer of stacked blocks with an adapter: a [layers, in, rank], b [layers, rank, out].

    `dropout_key` [layers] is set within a training step only (`with_dropout`); without it nothing is dropped.
    """

    base: Linear
    a: nnx.LoRAParam
    b: nnx.LoRAParam
    dropout_key: PRNGKeyArray | None
    scale: float = dataclasses.field(metadata=dict(static=True))
    dropout: float = dataclasses.field(metadata=dict(static=True))

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        # Recomputed in the backward pass: otherwise the dequantized kernel would be kept for it.
        y = jax.checkpoint(lambda base, x: base(x))(self.base, x)
        if self.dropout_key is not None:
            kept = _chance(self.dropout_key, 1 - self.dropout, x.shape)
            x = jnp.where(kept, x / (1 - self.dropout), 0).astype(x.dtype)
        down, up = self.a[...].astype(x.dtype), self.b[...].astype(x.dtype)
        return y + product(product(x, down), up) * self.scale


def adapt(model: Decoder, config: AdapterConfig, key: PRNGKeyArray) -> Decoder:
    """`model` with new adapters in its target projections, and its base quantized if the config says so.

    As in PEFT, a is drawn uniformly from +-1/sqrt(in) and b is 0, so at first the adapters change nothing.
    """
    paths = {PROJECTIONS[target]: number for number, target in enumerate(config.targets)}

    def adapted(path, module):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name not in paths:
            return module
        layers, size, _ = module.kernel[...].shape
        bound = size**-0.5
        a = jax.random.uniform(
            jax.random.fold_in(key, paths[name]), (layers, size, config.rank), minval=-bound, maxval=bound
        )
        b = jnp.zeros((layers, config.rank, module.kernel[...].shape[2]))
        return with_adapter(module, a, b, config.alpha / config.rank, config.dropout)

    model = jax.tree.map_with_path(adapted, model, is_leaf=lambda x: isinstance(x, Linear))
    return quantize(model, config.quantize) if config.quantize else model


def with_adapter(
    base: Linear,
    a: Float[Array, "layers in rank"],
    b: Float[Array, "layers rank out"],
    scale: float,
    dropout: float = 0.0,
) -> AdaptedLinear:
    """`base` with this adapter; a is sharded like the kernel's inputs, b like its outputs."""
    axes = base.kernel.get_metadata()["logical_axes"]
    a_param = parameter(nnx.LoRAParam, a, (axes[0], "rank"))
    b_param = parameter(nnx.LoRAParam, b, ("rank", axes[1]))
    return AdaptedLinear(base, a_param, b_param, None, scale, dropout)


def split(model: Decoder, like: Decoder | None = None) -> tuple[Decoder, Decoder]:
    """The trained and the frozen part of a model: two trees of its structure, each with None where the other has
    arrays.

    The adapters are trained, or if there are none, everything. `like`, a tree of the model's structure with other
    leaves such as its shardings, is split in place of the model.
    """
    adapted = any(isinstance(v, nnx.LoRAParam) for v in jax.tree.leaves(model, is_leaf=_is_variable))

    def is_trained(variable):
        return jax.tree.map(lambda _: not adapted or isinstance(variable, nnx.LoRAParam), variable)

    chosen = jax.tree.map(is_trained, model, is_leaf=_is_variable)
    like = model if like is None else like
    trained = jax.tree.map(lambda is_chosen, leaf: leaf if is_chosen else None, chosen, like)
    return trained, jax.tree.map(lambda is_chosen, leaf: None if is_chosen else leaf, chosen, like)


def join(trained: Decoder, frozen: Decoder) -> Decoder:
    """The model whose two parts `split` gave."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda x: x is None)


def of_model(model: Decoder) -> dict[str, AdaptedLinear]:
    """The adapters of a model by the names of their projections, in the order of PROJECTIONS."""
    modules = {
        jax.tree_util.keystr(path, simple=True, separator="."): module
        for path, module in jax.tree.leaves_with_path(model, is_leaf=_is_adapted)
    }
    return {target: modules[path] for target, path in PROJECTIONS.items() if _is_adapted(modules.get(path))}


def with_dropout(model: Decoder, key: PRNGKeyArray) -> Decoder:
    """The model for a training step: each layer of each adapter drops inputs by a key of its own, made from `key`."""
    numbers = itertools.count()

    def one(module):
        if not isinstance(module, AdaptedLinear) or not module.dropout:
            return module
        keys = jax.random.split(jax.random.fold_in(key, next(numbers)), module.a[...].shape[0])
        return dataclasses.replace(module, dropout_key=keys)

    return jax.tree.map(one, model, is_leaf=_is_adapted)


def merge(model: Decoder) -> Decoder:
    """An ordinary decoder that computes the same, its kernels kernel + scale * a b in the dtype of the embeddings.

    A quantized base is dequantized, not replaced by the original: the adapters were trained with the quantized one.
    """
    dtype = model.embed[...].dtype

    @jax.jit
    def merged(kernel, a, b, scale):
        def layer(parts):
            kernel, a, b = parts
            update = jnp.matmul(a[...], b[...], precision=jax.lax.Precision.HIGHEST)
            return (kernel[...].astype(jnp.float32) + scale * update).astype(dtype)

        return jax.lax.map(layer, (kernel, a, b))

    def one(module):
        if not isinstance(module, AdaptedLinear):
            return module
        old = module.base.kernel
        axes = (module.a.get_metadata()["logical_axes"][0], module.b.get_metadata()["logical_axes"][1])
        new = parameter(nnx.Param, merged(old, module.a, module.b, module.scale), axes)
        return jax.tree.map(lambda x: new if x is old else x, module.base, is_leaf=lambda x: x is old)

    return dequantize(jax.tree.map(one, model, is_leaf=_is_adapted))


def _chance(key: PRNGKeyArray, probability: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Booleans that are True with this probability, rounded to 16 bits, so that one random word makes two of them."""
    words = jax.random.bits(key, (*shape[:-1], -(-shape[-1] // 2)))
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(*shape[:-1], -1)[..., : shape[-1]]
    return halves < round(probability * 2**16)


def _is_variable(x: object) -> bool:
    return isinstance(x, nnx.Variable)


def _is_adapted(x: object) -> bool:
    return isinstance(x, AdaptedLinear)
