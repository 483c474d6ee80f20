"""Sharding: a mesh of the axes data, fsdp and tensor, and rules that map logical axis names to mesh axes.

Parameters carry logical axis names (decoder.py) and know no mesh. ShardingRules turns the names into shardings, the
same for a new model, a loaded one and the optimizer's moments.
"""

import dataclasses

import jax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from spare_jax.models.decoder import Decoder, logical_axes
from spare_jax.models.rows import ROW_AXES

MESH_AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """The mesh axis over which each logical axis is split; None for replicated."""

    layers: str | None = None
    vocab: str | None = "tensor"
    embed: str | None = "fsdp"
    heads: str | None = "tensor"
    kv_heads: str | None = "tensor"
    head_dim: str | None = None
    mlp: str | None = "tensor"
    rank: str | None = None  # of adapters
    blocks: str | None = None  # of a quantized kernel's inputs: scales

    def spec(self, axes: tuple[str, ...], name: str) -> PartitionSpec:
        """The PartitionSpec of a param with these logical axes; `name` is for the error message.

        Raises:
          ValueError: two of its axes map to the same mesh axis.
        """
        mesh_axes = [getattr(self, axis) for axis in axes]
        for i, mesh_axis in enumerate(mesh_axes):
            if mesh_axis is not None and mesh_axis in mesh_axes[:i]:
                other = axes[mesh_axes.index(mesh_axis)]
                raise ValueError(
                    f"param {name}: logical axes {other!r} and {axes[i]!r} both map to mesh axis {mesh_axis!r}: "
                    "give one of them another mesh axis, or None, in ShardingRules"
                )
        return PartitionSpec(*mesh_axes)


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh of all devices, of these sizes, with axes of type Auto: the compiler propagates shardings.

    Raises:
      ValueError: the product of the sizes is not the number of devices.
    """
    devices = jax.device_count()
    if data * fsdp * tensor != devices:
        raise ValueError(
            f"mesh data={data} x fsdp={fsdp} x tensor={tensor} needs {data * fsdp * tensor} devices and there are "
            f"{devices}: choose sizes whose product is {devices}"
        )
    return jax.make_mesh((data, fsdp, tensor), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def shardings_of(model: Decoder, mesh: Mesh, rules: ShardingRules = ShardingRules()) -> Decoder:
    """The NamedSharding of every parameter, in the tree structure of `model`, which may be abstract: usable as the
    out_shardings of a jitted function that returns a model.

    Raises:
      ValueError: two axes of a parameter map to the same mesh axis, or a mesh axis does not divide a dimension.
    """
    variables = jax.tree_util.tree_leaves_with_path(model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    shardings = []
    for path, variable in variables:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        axes = logical_axes(variable)
        spec = rules.spec(axes, name)
        for axis, size, mesh_axis in zip(axes, variable.get_value().shape, spec, strict=True):
            if mesh_axis is not None and size % mesh.shape[mesh_axis]:
                raise ValueError(
                    f"param {name}: its axis {axis!r} of size {size} does not divide by mesh axis "
                    f"{mesh_axis}={mesh.shape[mesh_axis]}: choose a mesh size that divides {size}, or map {axis!r} to "
                    "None in ShardingRules"
                )
        shardings.append(NamedSharding(mesh, spec))
    return jax.tree.unflatten(jax.tree.structure(model), shardings)


def shard_moments(state: PyTree, model_shardings: Decoder, mesh: Mesh) -> PyTree:
    """The shardings of an optimizer state, which may be abstract: a moment has the sharding of its parameter,
    everything else is replicated. Without these as out_shardings, `tx.init` would put all moments whole on every
    device.

    Moments are in trees like the model's, so an array whose path ends with a parameter's path is its moment.
    """
    by_path = dict(jax.tree.leaves_with_path(model_shardings))
    replicated = NamedSharding(mesh, PartitionSpec())

    def sharding(path: tuple, _: object) -> NamedSharding:
        return next((by_path[path[i:]] for i in range(len(path)) if path[i:] in by_path), replicated)

    return jax.tree.map_with_path(sharding, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch: it is split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))
