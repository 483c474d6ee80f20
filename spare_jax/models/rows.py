"""The rows of a batch on the mesh in force (`jax.set_mesh`): which of its axes share them out, and held to these."""

import math

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

ROW_AXES = ("data", "fsdp")


def row_axes(rows: int) -> tuple[str, ...] | None:
    """The axes of the mesh that share out so many rows; None where there is no mesh, or where they do not divide."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or rows % math.prod(mesh.shape[axis] for axis in ROW_AXES) else ROW_AXES


def row_shares(rows: int) -> int:
    """How many shares the mesh makes of so many rows."""
    axes = row_axes(rows)
    return 1 if axes is None else math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)


def by_rows(x: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """`x` with its rows, and nothing else, shared out over the mesh.

    Kernels are split over fsdp as rows are, and a product can gather the kernel or add up partial sums of all rows on
    every chip. Left to itself the compiler does the second; where activations are held to their rows, the first.
    """
    axes = row_axes(x.shape[0])
    return x if axes is None else jax.lax.with_sharding_constraint(x, PartitionSpec(axes))
