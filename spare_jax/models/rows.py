"""How the rows of a batch are split over the mesh in force (`jax.set_mesh`).

They are split over the axes "data" and "fsdp" if there is a mesh and the product of the two sizes divides them, else
replicated.
"""

import math

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

ROW_AXES = ("data", "fsdp")  # the axes of a mesh that split rows (in an engine, its slots)


def row_axes(rows: int) -> tuple[str, ...] | None:
    """The axes over which so many rows are split; None where they are replicated."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or rows % math.prod(mesh.shape[axis] for axis in ROW_AXES) else ROW_AXES


def row_shares(rows: int) -> int:
    """Into how many parts so many rows are split; 1 where they are replicated."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in row_axes(rows) or ())


def gathers_kernels() -> bool:
    """Whether the mesh splits kernels over "fsdp", so that each is gathered where it is used."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape["fsdp"] > 1


def by_rows(x: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """`x` constrained to be split over the mesh by its rows and by nothing else.

    Rows and kernels are both split over "fsdp". So the compiler can gather the kernel for a product, or it can multiply
    all rows by each part of the kernel and add up the partial sums. Unconstrained it does the second; under this
    constraint, the first.
    """
    axes = row_axes(x.shape[0])
    return x if axes is None else jax.lax.with_sharding_constraint(x, PartitionSpec(axes))
