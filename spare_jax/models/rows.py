"""Rows of a batch on the mesh in force (`jax.set_mesh`): which of its axes share them out, and arrays held to these.

Where there is no mesh, or where its shares do not divide the rows, they stay whole.
"""

import math

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

ROW_AXES = ("data", "fsdp")  # the axes of a mesh that share out rows (in an engine, its slots)


def row_axes(rows: int) -> tuple[str, ...] | None:
    """The axes of the mesh that share out so many rows; None where nothing does."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or rows % math.prod(mesh.shape[axis] for axis in ROW_AXES) else ROW_AXES


def row_shares(rows: int) -> int:
    """How many shares the mesh makes of so many rows; 1 where it shares nothing out."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in row_axes(rows) or ())


def gathers_kernels() -> bool:
    """Whether the mesh splits kernels over fsdp, so that every use of one gathers it."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape["fsdp"] > 1


def by_rows(x: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """`x` with its rows, and nothing else, shared out over the mesh.

    Kernels are split over fsdp as rows are, so a product can gather the kernel, or add up partial sums of all rows on
    every chip. Left to itself the compiler does the second; where activations are held to their rows, the first.
    """
    axes = row_axes(x.shape[0])
    return x if axes is None else jax.lax.with_sharding_constraint(x, PartitionSpec(axes))
