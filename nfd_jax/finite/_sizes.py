"""A network's width and depth in arrays that may have room for more."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from nfd_jax._types import Index


class Sizes(NamedTuple):
    """`width` n and `depth` L, traced or not; `bound` layers are visited, L or more, and those beyond L
    change nothing.

    `inside` (room,) says which coordinates there are; None: all that there is room for.
    """

    width: Array
    depth: int | Array
    bound: int | Array
    inside: Bool[Array, " n"] | None = None

    @classmethod
    def full(cls, width: int, depth: int | Array, dtype, bound: int | Array | None = None) -> "Sizes":
        """Arrays are just as wide as the network; loops visit its own layers, or `bound` of them."""
        return cls(jnp.asarray(width, dtype), depth, depth if bound is None else bound)

    @classmethod
    def padded(cls, width: Array, depth: Array, room: int, bound: int | Array, dtype) -> "Sizes":
        """Arrays have `room` coordinates and loops visit `bound` layers."""
        return cls(width.astype(dtype), depth, bound, jnp.arange(room) < width)

    def cut(self, x: Array) -> Array:
        """With zeros in coordinates (last axis) that the network does not have."""
        return x if self.inside is None else jnp.where(self.inside, x, 0)

    def keep(self, ell: Index, moved: Array, stays: Array | float = 0.0) -> Array:
        """`moved` in the network's layers, `stays` beyond them."""
        return moved if self.bound is self.depth else jnp.where(ell < self.depth, moved, stays)
