"""How a residual block scales with depth, and the one place where a layer's step is written.

    up      h_ℓ     = skip · h_{ℓ-1} + a n^{-1/2} W_ℓ(0) φ(h_{ℓ-1}) + a² Δ_ℓ
    down    b_{ℓ-1} = skip · b_ℓ + φ'(h_{ℓ-1}) ⊙ { a n^{-1/2} W_ℓ(0)ᵀ b_ℓ + a² Δ'_ℓ }

with Δ, Δ' what training has added to the matrix, as the query meets it (zero where the matrix itself is
rewritten).

depth_mup  a = √(T/L), skip = 1    blocks shrink with depth; the only one with an infinite-depth limit here
mup        a = √T,     skip = 1    blocks keep their size
vanilla    a = 1,      skip = 0    no identity term in either pass, and no horizon T

In the limit of depth_mup a² = T dt and a n^{-1/2} W φ becomes the increment √T dw of a Brownian motion: the
same two lines are then the Euler scheme of the limit's equations (`limit`).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax.names import PARAMETRIZATIONS


class Block(NamedTuple):
    """The branch scale `scale` = a and the weight `skip` of the identity term."""

    scale: Array
    skip: float

    def up(self, h: Array, image: Array, drift: Array | float = 0.0) -> Array:
        """h_ℓ from h_{ℓ-1}, its image n^{-1/2} W φ(h) and drift Δ; arrays (P, n)."""
        return self.skip * h + self.scale * image + self.scale**2 * drift

    def down(self, b: Array, slope: Array, image: Array, drift: Array | float = 0.0) -> Array:
        """b_{ℓ-1} from b_ℓ, the slope φ'(h_{ℓ-1}), the image n^{-1/2} Wᵀ b and drift Δ'; arrays (P, n)."""
        return self.skip * b + slope * (self.scale * image + self.scale**2 * drift)


def block(parametrization: str, horizon: Array, depth: int | Array) -> Block:
    """Scales of one residual block of a network of `depth` blocks and horizon T; `depth` may be traced."""
    if parametrization == "depth_mup":
        return Block(jnp.sqrt(horizon / depth), 1.0)
    if parametrization == "mup":
        return Block(jnp.sqrt(horizon), 1.0)
    if parametrization == "vanilla":
        return Block(jnp.ones_like(horizon), 0.0)
    allowed = ", ".join(PARAMETRIZATIONS)
    raise ValueError(f"parametrization {parametrization!r} is not known; choose one of {allowed}")


def normalized_rate(parametrization: str, horizon: Array, width: Array, depth: int | Array) -> Array:
    """What an update of entries of order one in W must be scaled by, so that features move by order one.

    Adam and its kin give every entry an update of the same size: all L branches add up coherently to √n · Σ_ℓ
    a, so depth-μP asks for 1/(√n · L a) = 1/(√n √(TL)); mup and vanilla, in which one block is to move
    features by order one, for 1/(√n a).
    """
    a = block(parametrization, horizon, depth).scale
    layers = depth if parametrization == "depth_mup" else 1
    return 1 / (jnp.sqrt(jnp.asarray(width, a.dtype)) * a * layers)
