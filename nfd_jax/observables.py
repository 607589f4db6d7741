"""The measured quantities, one definition each, for finite networks and limits alike.

"ms" is a mean square per coordinate: averages run over coordinates, batch samples and, for outputs, classes.
Maxima over t come last and run over the grid of t common to all depths. Arrays are (…, G, P, n): grid of t,
samples, coordinates.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nfd_jax._types import LayerRows


def mean_square(x: Float[Array, "... P n"]) -> Float[Array, "..."]:
    """E|x|² per coordinate, over samples and coordinates."""
    return jnp.mean(x * x, axis=(-2, -1))


def kernel(x: Float[Array, "... P n"]) -> Float[Array, "... P P"]:
    """⟨x_p x_q⟩: the average over coordinates of products of rows."""
    return x @ jnp.swapaxes(x, -1, -2) / x.shape[-1]


def coupling(
    forward: LayerRows,
    backward: LayerRows,
    width: int | Array,
    depth: int | Array,
    places: Int[Array, " G"],
) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
    """`coupling_layer_ms` and `coupling_displacement_ms` (forward, backward) of one step.

    From c_ℓ, each layer's coupling as it enters the path (ℓ = 1 … L, zero beyond `depth`, and in coordinates
    beyond `width`): the mean over layers of its mean square, and the largest mean square over t of its
    running sum, from t = 0 forward and from t = 1 backward. The sums are read at the layers `places`, the
    grid of t.
    """
    whole = forward.shape[-1] / width  # means below are over the arrays, which may be wider than the network
    both = jnp.stack([forward, backward])
    layer = whole * jnp.sum(mean_square(both), axis=1) / depth
    up = jnp.cumsum(forward, 0)[places[1:] - 1]
    down = jnp.cumsum(backward[::-1], 0)[::-1][places[:-1]]
    return layer, whole * jnp.stack([jnp.max(mean_square(up)), jnp.max(mean_square(down))])


def largest(x: Float[Array, "... G P n"]) -> Float[Array, "..."]:
    """The largest mean square over the grid of t."""
    return jnp.max(mean_square(x), axis=-1)


def feature_shift(features: Float[Array, "K G P n"]) -> Float[Array, "K G"]:
    """`feature_shift_ms`: ms of h^k_t − h^0_t on a fixed set of inputs."""
    return mean_square(features - features[:1])


def differences(one, other) -> Float[Array, "K 3"]:
    """ms of the difference of two trajectories on the same noise: h, b and f (largest over t for h and b),
    per step.

    `limit_error_ms` when `other` is a limit, `coupling_effect_ms` when the two differ in their backward
    weights alone.
    """
    f = jnp.mean((one.output - other.output) ** 2, axis=(-2, -1))
    return jnp.stack(
        [largest(one.features - other.features), largest(one.gradients - other.gradients), f], -1
    )


def extreme_eigenvalues(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`min_eigenvalue` and `max_eigenvalue` of Gram matrices ⟨x_p x_q⟩ of x (…, K, G, P, n), in float64.

    Each (2, …, K, G): of the P samples of each step, and of the (k+1)·P samples of all steps up to k. Squares
    of singular values, since forming the Gram matrix would halve the digits that small eigenvalues have.
    Non-finite rows give NaN.
    """
    *lead, steps, grid, rows, width = x.shape
    finite = np.asarray(np.isfinite(x).all((-2, -1)))
    joined = np.moveaxis(np.where(finite[..., None, None], x, 0.0), -4, -3).reshape(
        *lead, grid, steps * rows, width
    )
    # One triangular factor of all samples holds those of every earlier step as its leading blocks.
    factor = np.linalg.qr(np.swapaxes(joined, -1, -2), mode="r") / np.sqrt(width)
    blocks = [factor[..., : (k + 1) * rows] for k in range(steps)]
    joint = [np.linalg.svd(block, compute_uv=False) for block in blocks]
    step = [np.linalg.svd(block[..., k * rows :], compute_uv=False) for k, block in enumerate(blocks)]

    samples = [rows] * steps, [(k + 1) * rows for k in range(steps)]

    def extremes(pick) -> np.ndarray:
        scopes = zip((step, joint), samples, strict=True)
        found = np.stack([np.stack(list(map(pick, *scope)), -2) for scope in scopes]) ** 2
        so_far = np.stack([finite, np.logical_and.accumulate(finite, -2)])
        return np.where(so_far, found, np.nan)

    # Of more samples than coordinates there are fewer singular values than samples: the others are zero.
    smallest = lambda s, count: s[..., -1] if count <= width else np.zeros(s.shape[:-1])
    return extremes(smallest), extremes(lambda s, count: s[..., 0])
