"""How a residual block scales with depth: h_ℓ = skip · h_{ℓ-1} + a n^{-1/2} W_ℓ φ(h_{ℓ-1}).

depth_mup  a = √(T/L), skip = 1    blocks shrink with depth; the only one with an infinite-depth limit here
mup        a = √T,     skip = 1    blocks keep their size
vanilla    a = 1,      skip = 0    no identity term in either pass, and no horizon T
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

PARAMETRIZATIONS = ("depth_mup", "mup", "vanilla")


class Block(NamedTuple):
    """The branch scale `scale` = a and the weight `skip` of the identity term."""

    scale: Array
    skip: float


def block(parametrization: str, horizon: Array, depth: int | Array) -> Block:
    """Scales of one residual block of a network of `depth` blocks and horizon T; `depth` may be traced."""
    if parametrization == "depth_mup":
        return Block(jnp.sqrt(horizon / depth), 1.0)
    if parametrization == "mup":
        return Block(jnp.sqrt(horizon), 1.0)
    if parametrization == "vanilla":
        return Block(jnp.ones_like(horizon), 0.0)
    raise ValueError(f"parametrization {parametrization!r} is not known; choose one of {', '.join(PARAMETRIZATIONS)}")
