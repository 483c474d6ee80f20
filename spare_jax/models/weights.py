"""Reads the weights of a model directory into a Decoder, and writes them to safetensors files.

Weights go from the file to the shards on the devices in pieces of PIECE_BYTES, so the host holds one piece per device
and its copy, never a whole tensor of a large model. Files are read and not mapped into memory, because the operating
system would count the mapped pages as memory of the process.
"""

import dataclasses
import functools
import logging
import math
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import DTypeLike
from safetensors.numpy import save_file

from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder, init_decoder
from spare_jax.models.json_files import ModelError, write_json
from spare_jax.models.safetensors_files import Stored, find_tensors
from spare_jax.models.sharding import ShardingRules, shardings_of

SHARD_BYTES = 5 * 10**9
PIECE_BYTES = 2**24

_EMBED, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Our parameter -> (tensor name in the directory, whether it is stored transposed). "{}" is the number of the layer.
_TENSORS = {
    "embed": (_EMBED, False),
    "final_norm": ("model.norm.weight", False),
    "head": (_HEAD, True),
    "blocks.attention_norm": ("model.layers.{}.input_layernorm.weight", False),
    "blocks.attention.query.kernel": ("model.layers.{}.self_attn.q_proj.weight", True),
    "blocks.attention.query.bias": ("model.layers.{}.self_attn.q_proj.bias", False),
    "blocks.attention.query_norm": ("model.layers.{}.self_attn.q_norm.weight", False),
    "blocks.attention.key.kernel": ("model.layers.{}.self_attn.k_proj.weight", True),
    "blocks.attention.key.bias": ("model.layers.{}.self_attn.k_proj.bias", False),
    "blocks.attention.key_norm": ("model.layers.{}.self_attn.k_norm.weight", False),
    "blocks.attention.value.kernel": ("model.layers.{}.self_attn.v_proj.weight", True),
    "blocks.attention.value.bias": ("model.layers.{}.self_attn.v_proj.bias", False),
    "blocks.attention.output.kernel": ("model.layers.{}.self_attn.o_proj.weight", True),
    "blocks.mlp_norm": ("model.layers.{}.post_attention_layernorm.weight", False),
    "blocks.mlp.gate.kernel": ("model.layers.{}.mlp.gate_proj.weight", True),
    "blocks.mlp.up.kernel": ("model.layers.{}.mlp.up_proj.weight", True),
    "blocks.mlp.down.kernel": ("model.layers.{}.mlp.down_proj.weight", True),
}

logger = logging.getLogger("spare_jax")


def load_weights(
    directory: str | pathlib.Path,
    config: DecoderConfig,
    *,
    dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    beside: Collection[str] = (),
) -> Decoder:
    """The Decoder with the weights of model.safetensors, or of the files that model.safetensors.index.json lists.

    If the config ties the head to the embedding but the files hold a head that differs from it, that head is used and
    the Decoder's config is untied, as in transformers 5, with a warning.

    Args:
      dtype: of the parameters in memory.
      mesh: if there is one, parameters get the shardings of sharding.py, and each device reads its own part.
      beside: names of tensors that are not the decoder's and are not read.

    Raises:
      ModelError: a tensor is missing, has another shape than the config says, or has no place in the decoder.
    """
    directory = pathlib.Path(directory)
    tensors = find_tensors(directory)
    if config.tie_embeddings and _HEAD not in beside:
        config, tensors = _tied(directory, config, tensors)
    abstract = jax.eval_shape(lambda key: init_decoder(config, key, dtype), jax.random.key(0))
    places: list[NamedSharding | None] = [None] * len(jax.tree.leaves(abstract))
    if mesh is not None:
        places = jax.tree.leaves(shardings_of(abstract, mesh, ShardingRules()))
    names = {name for parameter, _ in _parameters(abstract) for name in tensor_names(parameter, config)}
    ignored = {*beside, _HEAD} if config.tie_embeddings else set(beside)
    unknown = [n for n in sorted(tensors) if n not in names | ignored and not n.endswith("rotary_emb.inv_freq")]
    if unknown:
        raise ModelError(
            f"{directory}: tensor {unknown[0]} has no place in a {config.family} decoder with "
            f"{config.num_layers} layers: use a directory whose weights and config.json belong together"
        )
    for parameter, leaf in _parameters(abstract):
        _check_tensors(directory, tensors, parameter, leaf.shape, config)
    leaves = [
        _read_parameter([tensors[name] for name in tensor_names(parameter, config)], parameter, leaf, place)
        for (parameter, leaf), place in zip(_parameters(abstract), places, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def save_weights(directory: str | pathlib.Path, model: Decoder, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write model.safetensors; or, if the weights have more than `shard_bytes`, several files and
    model.safetensors.index.json."""
    directory = pathlib.Path(directory)
    shards: list[dict[str, np.ndarray]] = [{}]
    size = total = 0
    for name, tensor in _tensors_of(model):
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    metadata = {"format": "pt"}  # transformers refuses files without it
    if len(shards) == 1:
        save_file(shards[0], directory / "model.safetensors", metadata=metadata)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file, metadata=metadata)
        weight_map.update(dict.fromkeys(shard, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(directory / "model.safetensors.index.json", index)


def tensor_names(parameter: str, config: DecoderConfig) -> list[str]:
    """The names of the tensors that a parameter is made of, one per layer if its layers are stacked."""
    template = _TENSORS[parameter][0]
    return [template.format(layer) for layer in range(config.num_layers)] if "{}" in template else [template]


def _tied(
    directory: pathlib.Path, config: DecoderConfig, tensors: dict[str, Stored]
) -> tuple[DecoderConfig, dict[str, Stored]]:
    """Config and tensors to read for a config that ties head and embedding. If the files hold only one of the two, it
    is both; if they hold two that differ, the config is untied."""
    if _HEAD not in tensors:
        return config, tensors
    if _EMBED not in tensors:
        return config, tensors | {_EMBED: tensors[_HEAD]}
    if _equal(tensors[_EMBED], tensors[_HEAD]):
        return config, tensors
    logger.warning(
        "%s: tie_word_embeddings is true in config.json and the weights hold another %s: it is used, as transformers "
        "does; write false to say so",
        directory,
        _HEAD,
    )
    return dataclasses.replace(config, tie_embeddings=False), tensors


def _equal(one: Stored, other: Stored) -> bool:
    """Whether two tensors have the same shape and values; they are read piece by piece."""
    if one.shape != other.shape or not one.shape:
        return one.shape == other.shape
    count = max(1, PIECE_BYTES // max(1, math.prod(one.shape[1:]) * 4))
    for start in range(0, one.shape[0], count):
        rows = min(count, one.shape[0] - start)
        a, b = (stored.rows(start, rows).astype(np.float32) for stored in (one, other))
        if not np.array_equal(a, b):
            return False
    return True


def _check_tensors(directory, tensors: dict[str, Stored], parameter: str, shape: tuple[int, ...], config) -> None:
    template, transposed = _TENSORS[parameter]
    wanted = shape[1:] if "{}" in template else shape
    wanted = wanted[::-1] if transposed else wanted
    for name in tensor_names(parameter, config):
        if name not in tensors:
            raise ModelError(f"{directory}: tensor {name} is missing from the weights: copy all of the model")
        if tensors[name].shape != wanted:
            raise ModelError(
                f"{directory}: tensor {name} has shape {list(tensors[name].shape)} and config.json asks for "
                f"{list(wanted)}: use a config.json and weights that belong together"
            )


def _read_parameter(stored: list[Stored], parameter: str, leaf: Any, place: NamedSharding | None) -> jax.Array:
    """A parameter, from one tensor per layer if its layers are stacked. It is allocated first and written piece by
    piece in place, so a device never holds it twice."""
    template, transposed = _TENSORS[parameter]
    stacked = "{}" in template
    whole = (slice(None),) * leaf.ndim
    indices = {None: whole} if place is None else place.addressable_devices_indices_map(leaf.shape)
    local = leaf.shape if place is None else place.shard_shape(leaf.shape)
    row_axis = leaf.ndim - 1 if transposed else int(stacked)
    rows = local[row_axis]
    row_bytes = math.prod(stored[0].shape[1:]) * stored[0].dtype.itemsize
    count = max(1, min(rows, PIECE_BYTES // row_bytes))
    piece_shape = [1 if stacked and axis == 0 else size for axis, size in enumerate(local)]
    piece_shape[row_axis] = count
    write = _writer(place)

    def piece(index, layer, row):
        """`count` rows of a layer, from `row` on, of the part at `index` that is one device's, laid out as the
        parameter."""
        starts = [part.indices(size)[0] for part, size in zip(index, leaf.shape, strict=True)]
        array = stored[starts[0] + layer if stacked else 0].rows(starts[row_axis] + row, count)
        array = array.T if transposed else array
        columns = [slice(None) if axis == row_axis else part for axis, part in enumerate(index)]
        return array[None][:, *columns[1:]] if stacked else array[*columns]

    array = jnp.zeros(leaf.shape, leaf.dtype, device=place)
    for layer in range(local[0] if stacked else 1):
        for row in range(0, rows, count):
            row = min(row, rows - count)  # the last piece may overlap the one before: one shape, one compilation
            parts = [jax.device_put(piece(index, layer, row), device) for device, index in indices.items()]
            if place is not None:
                shape = tuple(p * g // n for p, g, n in zip(piece_shape, leaf.shape, local, strict=True))
                parts = [jax.make_array_from_single_device_arrays(shape, place, parts)]
            start = [layer if stacked and axis == 0 else 0 for axis in range(leaf.ndim)]
            start[row_axis] = row
            array = write(array, parts[0], start)
            array.block_until_ready()  # else pieces would queue up on the way to an accelerator
    return array


@functools.cache
def _writer(place: NamedSharding | None) -> Callable[..., jax.Array]:
    """The jitted function (parameter, piece, start) -> the parameter with the piece written at `start`. On a mesh every
    device writes its part of the piece at `start` of its part of the parameter."""

    def write(array, piece, start):
        return jax.lax.dynamic_update_slice(array, piece.astype(array.dtype), start)

    if place is not None:
        specs = (place.spec, place.spec, PartitionSpec())
        write = jax.shard_map(write, mesh=place.mesh, in_specs=specs, out_specs=place.spec)
    return jax.jit(write, donate_argnums=0)


def _parameters(model: Decoder) -> list[tuple[str, Any]]:
    """(name such as "blocks.mlp.up.kernel", array) of every parameter, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return [(jax.tree_util.keystr(path[:-1], simple=True, separator="."), leaf) for path, leaf in leaves]


def _tensors_of(model: Decoder) -> Iterator[tuple[str, Any]]:
    """(tensor name, array in torch's layout) of every tensor to write."""
    for parameter, array in _parameters(model):
        names = tensor_names(parameter, model.config)
        stacked, transposed = "{}" in _TENSORS[parameter][0], _TENSORS[parameter][1]
        host = np.asarray(array)
        for name, part in zip(names, host if stacked else [host], strict=True):
            # safetensors writes the buffer of an array as it is, so a transposed view would be stored wrong
            yield name, np.ascontiguousarray(part.T if transposed else part)
