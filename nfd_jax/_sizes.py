"""Width and depth of a network or a limit, in arrays that may have room for more."""

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
    def of(
        cls,
        width: int | Array,
        depth: int | Array,
        dtype,
        *,
        room: int | None = None,
        bound: int | Array | None = None,
    ) -> "Sizes":
        """Arrays have `room` coordinates, by default just the network's; loops visit its own layers, or
        `bound` of them."""
        inside = None if room is None else jnp.arange(room) < width
        return cls(jnp.asarray(width, dtype), depth, depth if bound is None else bound, inside)

    def cut(self, x: Array) -> Array:
        """With zeros in coordinates (last axis) that the network does not have."""
        return x if self.inside is None else jnp.where(self.inside, x, 0)

    def keep(self, ell: Index, moved: Array, stays: Array | float = 0.0) -> Array:
        """`moved` in the network's layers, `stays` beyond them."""
        return moved if self.bound is self.depth else jnp.where(ell < self.depth, moved, stays)
