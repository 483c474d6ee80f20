"""One decoder for the Llama, Mistral, Qwen2 and Qwen3 families, for training, prefill and cached decoding.

Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU MLP. The families differ in three things:
biases on q, k and v (Qwen2), norms on q and k (Qwen3), sliding windows (all but Llama).

Parameters live in Flax NNX modules used as plain pytrees (tree mode): blocks are stacked on a leading layer axis by
`jax.vmap` and run by `jax.lax.scan`, nothing mutates, and the key-value cache is an argument and a result. Each Param
names its axes in the metadata key `logical_axes`; the function `logical_axes` adds "layers", the stacks' leading axis.

Weights are cast where they are used, so float32 master weights can compute in bfloat16. Norms, rotary angles,
attention scores and logits are float32 in either case.
"""

from collections.abc import Callable
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from spare_jax.models.attention import decode_attention, packed_attention, prefill_attention
from spare_jax.models.cache import KVCache, Pages, SlotGroups, write_token
from spare_jax.models.config import DecoderConfig
from spare_jax.models.rows import by_rows

Remat = Literal["none", "minimal", "full"]
UNROLLED_LAYERS = 8  # a decoder of up to so many layers is unrolled: a fifth less time per gradient on a CPU
UNROLLED_ON_GPU = 32  # a GPU compiles them quickly: a twelfth less time, since nothing is copied into a scan's stacks


def init_decoder(config: DecoderConfig, key: PRNGKeyArray, dtype: DTypeLike = jnp.float32) -> "Decoder":
    """A new decoder with parameters in `dtype`: normal weights with variance 1 / fan_in, divided by sqrt(2 layers) if
    they write to the residual stream; biases of 0, norm scales of 1."""
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        return Decoder(config, key, dtype)


def hidden_states(
    model: "Decoder",
    ids: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    segments: Int[Array, "batch length"],
    *,
    noise: Float[Array, "batch length hidden"] | None = None,
    remat: Remat = "none",
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "batch length hidden"]:
    """Hidden states after the final norm.

    A token attends to itself and the tokens before it in its own segment, so several sequences can be packed in one
    row; in a layer with a sliding window of w to itself and the w - 1 tokens before it. Segment 0 is padding; its
    states are finite and mean nothing. `positions` are the rotary positions, counted within each segment. `noise` is
    added to the embeddings. `remat` is what the backward pass computes again instead of keeping it: nothing; with
    "minimal" all but the results of matrix products and of cuDNN's attention, which takes a third of the memory and
    little time; with "full" the whole of each block. `dtype` is that of the computation and of the result.
    """
    rotation = rotary_angles(positions, model.config)
    windows, reach = _windows(model.config)

    def layer(x, inputs):
        block, window = inputs

        def attend(q, k, v):
            return packed_attention(q, k, v, segments, window, reach), None

        x, _ = block(x, rotation, attend, model.config)
        return by_rows(x), None

    if remat != "none":
        layer = jax.checkpoint(layer, policy=_is_product if remat == "minimal" else None, prevent_cse=False)
    unroll = model.config.num_layers <= (UNROLLED_ON_GPU if jax.default_backend() == "gpu" else UNROLLED_LAYERS)
    x = _embed(model, ids, dtype)
    if noise is not None:
        x = x + noise.astype(dtype)
    x, _ = jax.lax.scan(layer, by_rows(x), (model.blocks, windows), unroll=unroll)
    return _norm(x, model.final_norm, model.config)


def logits(model: "Decoder", hidden: Float[Array, "*batch hidden"]) -> Float[Array, "*batch vocab"]:
    """Next-token logits in float32; the matmul runs in the dtype of `hidden`."""
    with jax.named_scope("head"):
        if model.head is None:
            head = model.embed[...].astype(hidden.dtype)
            return jnp.einsum("...d,vd->...v", hidden, head, preferred_element_type=jnp.float32)
        head = model.head[...].astype(hidden.dtype)
        return jnp.einsum("...d,dv->...v", hidden, head, preferred_element_type=jnp.float32)


def class_logits(
    model: "Decoder", hidden: Float[Array, "*batch hidden"], ids: tuple[int, ...]
) -> Float[Array, "*batch classes"]:
    """The logits of these token ids alone, in float32: only their columns of the head are read."""
    with jax.named_scope("class_head"):
        columns = jnp.asarray(ids)
        head = model.embed[...][columns] if model.head is None else model.head[...][:, columns].T
        return jnp.einsum("...d,cd->...c", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)


def prefill(
    model: "Decoder",
    pages: Pages,
    ids: Int[Array, "batch length"],
    table: Int[Array, "batch blocks"],
    before: Int[Array, " batch"],
) -> tuple[
    Float[Array, "batch length hidden"],
    Float[Array, "layers batch length kv_heads head_dim"],
    Float[Array, "layers batch length kv_heads head_dim"],
]:
    """Hidden states (after the final norm), keys and values of `ids`, which continue sequences whose first `before`
    tokens lie in the pages of `table`.

    Computes in the dtype of the pages. Rows are padded on the right; the results at a token depend neither on later
    tokens nor on other rows.
    """
    rotation = rotary_angles(before[:, None] + jnp.arange(ids.shape[1]), model.config)
    windows, reach = _windows(model.config)

    def layer(x, inputs):
        block, index, window = inputs

        def attend(q, k, v):
            return prefill_attention(q, k, v, pages, index, table, before, window, reach), (k, v)

        return block(x, rotation, attend, model.config)

    inputs = model.blocks, jnp.arange(model.config.num_layers), windows
    x, (k, v) = jax.lax.scan(layer, _embed(model, ids, pages.k.dtype), inputs)
    return _norm(x, model.final_norm, model.config), k, v


def decode_step(
    model: "Decoder",
    cache: KVCache,
    pages: Pages,
    groups: tuple[SlotGroups, ...],
    ids: Int[Array, " slots"],
    starts: Int[Array, " slots"],
    positions: Int[Array, " slots"],
) -> tuple[Float[Array, "slots hidden"], KVCache]:
    """Hidden states (after the final norm) of one token per slot, at `positions`, and the cache with its keys and
    values. The token attends, within the layer's sliding window, to its prompt in the pages that `groups` name and to
    the slot's own tokens in the cache, which begin at position `starts` and end with itself.

    Computes in the dtype of the cache, which is best donated. An idle slot may hold any id, at position `starts`. The
    time follows the slot with the most tokens, while the bits of a slot depend on that slot alone.
    """
    rotation = rotary_angles(positions[:, None], model.config)
    windows, _ = _windows(model.config)

    # The cache is carried whole and updated in place; scanning over its layers would copy it at every step.
    def layer(carry, inputs):
        x, cache = carry
        block, index, window = inputs

        def attend(q, k, v):
            written = write_token(cache, index, positions - starts, k[:, 0], v[:, 0])
            mixed = decode_attention(q[:, 0], written, pages, groups, index, window, starts, positions)
            return mixed[:, None], written

        return block(x, rotation, attend, model.config), None

    x = _embed(model, ids[:, None], cache.k.dtype)
    (x, cache), _ = jax.lax.scan(layer, (x, cache), (model.blocks, jnp.arange(model.config.num_layers), windows))
    return _norm(x, model.final_norm, model.config)[:, 0], cache


def rotary_angles(
    positions: Int[Array, "batch length"], config: DecoderConfig
) -> tuple[Float[Array, "batch length 1 half"], Float[Array, "batch length 1 half"]]:
    """Cosines and sines of the rotary angles in float32, with an axis of size 1 for the heads."""
    angles = positions[..., None, None].astype(jnp.float32) * rotary_frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rotary_frequencies(config: DecoderConfig) -> Float[np.ndarray, " half"]:
    """Radians per position of each rotated pair: f_i = theta^(-2i / head_dim), in float32.

    With `rope_scaling` the frequency of a pair that turns less than low_frequency_factor times over the original length
    is divided by `factor`; that of a pair that turns more than high_frequency_factor times is kept; and those between
    are interpolated linearly in the number of turns (Llama 3.1's published code).

    Computed on the host and rounded where torch rounds: at position 8000 one unit in the last place of a frequency is
    half a thousandth of a radian, and a TPU's power function is less exact than that.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = np.float32(1) / (config.rope_theta ** exponents.astype(np.float64)).astype(np.float32)
    if config.rope_scaling is None:
        return frequencies
    scaling = config.rope_scaling
    turns = scaling.original_max_length * frequencies.astype(np.float64) / (2 * np.pi)
    span = scaling.high_frequency_factor - scaling.low_frequency_factor
    kept = np.clip((turns - scaling.low_frequency_factor) / span, 0, 1)
    return ((1 - kept) * frequencies / scaling.factor + kept * frequencies).astype(np.float32)


def logical_axes(variable: nnx.Variable) -> tuple[str, ...]:
    """The logical axis names of a Param, one per dimension; stacking puts "layers" in front."""
    axes = variable.get_metadata()["logical_axes"]
    return ("layers",) * (len(variable.get_value().shape) - len(axes)) + tuple(axes)


P = TypeVar("P", bound=nnx.Param)
T = TypeVar("T")


def parameter(kind: type[P], value: Array, axes: tuple[str, ...]) -> P:
    """A Param of this kind with these logical axes."""
    with nnx.use_eager_sharding(False):
        return kind(value, logical_axes=axes)


def product(x: Float[Array, "*batch in"], kernel: Float[Array, "in out"]) -> Float[Array, "*batch out"]:
    """x @ kernel, as one product of two matrices: on a CPU its gradients take less than half the time of those over
    [batch, length] (docs/performance.md)."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _is_product(primitive, *arguments, **parameters) -> bool:
    """Whether a result is kept under the remat "minimal"."""
    if primitive.name.startswith("dot_product_attention_fwd"):  # cuDNN's, with the sums its gradient needs
        return True
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *arguments, **parameters)


class Linear(nnx.Module):
    """y = x @ kernel (+ bias), computed in the dtype of x."""

    def __init__(self, key, in_size, out_size, axes, dtype, *, scale=1.0, bias=False):
        self.kernel = _normal(key, (in_size, out_size), axes, dtype, scale * in_size**-0.5)
        self.bias = parameter(nnx.Param, jnp.zeros((out_size,), dtype), axes[1:]) if bias else None

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        y = product(x, self.kernel[...].astype(x.dtype))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Attention(nnx.Module):
    """The projections of grouped-query attention, and the norms of each head's query and key where there are any."""

    def __init__(self, config: DecoderConfig, key, dtype):
        keys = jax.random.split(key, 4)
        d, heads, kv = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        bias = config.attention_bias
        self.query_norm = _unit_scale(config.head_dim, "head_dim", dtype) if config.qk_norm else None
        self.key_norm = _unit_scale(config.head_dim, "head_dim", dtype) if config.qk_norm else None
        self.query = Linear(keys[0], d, heads, ("embed", "heads"), dtype, bias=bias)
        self.key = Linear(keys[1], d, kv, ("embed", "kv_heads"), dtype, bias=bias)
        self.value = Linear(keys[2], d, kv, ("embed", "kv_heads"), dtype, bias=bias)
        self.output = Linear(keys[3], heads, d, ("heads", "embed"), dtype, scale=(2 * config.num_layers) ** -0.5)

    def project(self, x: Float[Array, "batch length hidden"], rotation, config: DecoderConfig):
        """Rotated queries [batch, length, kv_heads, group, head_dim], rotated keys and values
        [batch, length, kv_heads, head_dim]."""
        with jax.named_scope("attention_project"):
            batch, length, _ = x.shape
            kv_heads, group = config.num_kv_heads, config.num_heads // config.num_kv_heads
            q = self.query(x).reshape(batch, length, config.num_heads, config.head_dim)
            k = self.key(x).reshape(batch, length, kv_heads, config.head_dim)
            v = self.value(x).reshape(batch, length, kv_heads, config.head_dim)
            if self.query_norm is not None and self.key_norm is not None:
                q, k = _norm(q, self.query_norm, config), _norm(k, self.key_norm, config)
            q, k = _rotate(q, *rotation), _rotate(k, *rotation)
            return q.reshape(batch, length, kv_heads, group, config.head_dim), k, v


class MLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig, key, dtype):
        keys = jax.random.split(key, 3)
        d, width = config.hidden_size, config.intermediate_size
        self.gate = Linear(keys[0], d, width, ("embed", "mlp"), dtype)
        self.up = Linear(keys[1], d, width, ("embed", "mlp"), dtype)
        self.down = Linear(keys[2], width, d, ("mlp", "embed"), dtype, scale=(2 * config.num_layers) ** -0.5)

    def __call__(self, x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        with jax.named_scope("mlp"):
            return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """One layer: attention and an MLP, each of the normed residual stream and added to it."""

    def __init__(self, config: DecoderConfig, key, dtype):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = _unit_scale(config.hidden_size, "embed", dtype)
        self.attention = Attention(config, attention_key, dtype)
        self.mlp_norm = _unit_scale(config.hidden_size, "embed", dtype)
        self.mlp = MLP(config, mlp_key, dtype)

    def __call__(
        self,
        x: Float[Array, "batch length hidden"],
        rotation: tuple[Array, Array],
        attend: Callable[[Array, Array, Array], tuple[Float[Array, "batch length heads_and_dims"], T]],
        config: DecoderConfig,
    ) -> tuple[Float[Array, "batch length hidden"], T]:
        """The stream behind this layer, and what `attend` keeps. That gets the queries, keys and values of
        `Attention.project` and returns the mixed values, all heads side by side, and whatever it keeps of them."""
        q, k, v = self.attention.project(_norm(x, self.attention_norm, config), rotation, config)
        mixed, kept = attend(q, k, v)
        x = x + self.attention.output(mixed)
        return x + self.mlp(_norm(x, self.mlp_norm, config)), kept


class Decoder(nnx.Module):
    """All parameters; `blocks` is one Block whose arrays have a leading layer axis. `head` is None when tied."""

    def __init__(self, config: DecoderConfig, key: PRNGKeyArray, dtype: DTypeLike):
        embed_key, blocks_key, head_key = jax.random.split(key, 3)
        vocab, d = config.vocab_size, config.hidden_size
        self.config = config
        self.embed = _normal(embed_key, (vocab, d), ("vocab", "embed"), dtype, d**-0.5)
        self.blocks = jax.vmap(lambda k: Block(config, k, dtype))(jax.random.split(blocks_key, config.num_layers))
        self.final_norm = _unit_scale(config.hidden_size, "embed", dtype)
        tied = config.tie_embeddings
        self.head = None if tied else _normal(head_key, (d, vocab), ("embed", "vocab"), dtype, d**-0.5)


def _normal(key, shape, axes, dtype, scale) -> nnx.Param:
    return parameter(nnx.Param, (jax.random.normal(key, shape) * scale).astype(dtype), axes)


def _unit_scale(size: int, axis: str, dtype) -> nnx.Param:
    return parameter(nnx.Param, jnp.ones((size,), dtype), (axis,))


def _embed(model: Decoder, ids, dtype):
    with jax.named_scope("embed"):
        return model.embed[...][ids].astype(dtype)


def _norm(x, scale: nnx.Param, config: DecoderConfig):
    """RMSNorm in float32, returned in the dtype of x."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + config.norm_eps)
    return (y * scale[...].astype(jnp.float32)).astype(x.dtype)


def _rotate(x, cos, sin):
    """Turn the pairs (x[i], x[i + head_dim / 2]) in float32: the convention of Hugging Face checkpoints."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _windows(config: DecoderConfig) -> tuple[Int[np.ndarray, " layers"] | None, int | None]:
    """The window of each layer, to be scanned over, and the largest of them; None where all positions are seen."""
    if config.sliding_window is None:
        return None, None
    everything = np.iinfo(np.int32).max
    windows = np.full(config.num_layers, config.sliding_window, np.int32)
    windows[list(config.full_layers)] = everything
    return windows, None if config.full_layers else config.sliding_window
