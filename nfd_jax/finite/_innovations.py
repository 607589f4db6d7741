"""The noise that a network with real weight matrices was driven by: `gaussian` read backwards.

A matrix-free network draws each answer from fresh noise ξ; here the answers are known, y = W q for the part q of a query that is new, and

    ξ = y − ρ (y Q'ᵀ) Q' + ρ (g Q'ᵀ) Q'          (ρ = 1 for reused weights, 0 for independent ones)

gives them back, since under reused weights y Q'ᵀ = q Z'ᵀ was not noise but what the other pass had already seen. Along those directions Q',
and for queries that bring nothing new, the network used no noise: they are filled with fresh g, so that ξ is again standard
normal. The matrix-free network on this noise follows the dense one to rounding, and the limit can be solved on it too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax.activations import activation
from nfd_jax.finite import _dense
from nfd_jax.gaussian import split
from nfd_jax.noise import BACKWARD, BRIDGE, FORWARD, Noise, normal_rows, stream
from nfd_jax.problem import Problem, Trajectory

Samples = Float[Array, "K P n"]


def train_with_innovations(problem: Problem, weights: _dense.Weights, key: Array) -> tuple[Trajectory, Noise]:
    """A dense network trained from `weights`, all of h and b recorded, and the noise that drives the matrix-free one along it.

    `key` seeds what the network leaves undetermined. Needs width ≥ K·P.
    """
    run = _dense.train(problem, weights, record=("features", "gradients"))
    queries = activation(problem.activation).value(run.features[:, :-1])
    back = weights.W if weights.W_backward is None else weights.W_backward
    reuse = jnp.asarray(weights.W_backward is None, problem.dtype)
    by_layer = lambda x: jnp.swapaxes(x, 0, 1)

    def layer(at):
        W, W_back, x, u, index = at
        g, g_back = (_fresh(stream(key, direction, index), x.shape, x.dtype) for direction in (FORWARD, BACKWARD))
        return _layer_innovations(W, W_back, x, u, g, g_back, reuse)

    each = weights.W, back, by_layer(queries), by_layer(run.gradients[:, 1:]), jnp.arange(weights.W.shape[0])
    forward, backward = jax.lax.map(layer, each)
    return run, Noise(weights.U, weights.V, by_layer(forward), by_layer(backward))


def _fresh(key: Array, shape: tuple[int, ...], dtype) -> Samples:
    steps, rows, width = shape
    return normal_rows(key, steps * rows, width, dtype).reshape(shape)


def _layer_innovations(W, W_back, x: Samples, u: Samples, g: Samples, g_back: Samples, reuse) -> tuple[Samples, Samples]:
    """ξ of one layer's forward queries x and backward queries u, step by step in the order they were asked."""
    steps, rows, width = x.shape
    empty = jnp.zeros((steps * rows, width), x.dtype)

    def innovate(own, other, query, matrix, fresh, k):
        q = split(own, query).q
        y = q @ matrix.T
        xi = jnp.where(jnp.any(q != 0, axis=1, keepdims=True), y, fresh)
        xi = xi + reuse * ((fresh - xi) @ other.T) @ other
        return jax.lax.dynamic_update_slice_in_dim(own, q, k * rows, axis=0), xi

    def step(bases, at):
        forward, backward = bases
        k, x, u, g, g_back = at
        forward, xi = innovate(forward, backward, x, W, g, k)
        backward, xi_back = innovate(backward, forward, u, W_back.T, g_back, k)
        return (forward, backward), (xi, xi_back)

    return jax.lax.scan(step, (empty, empty), (jnp.arange(steps), x, u, g, g_back))[1]


def refined(noise: Noise, depth: int, key: Array) -> Noise:
    """Noise of `depth` layers whose coarsening is `noise`: Brownian bridges between the increments it has.

    ξ_fine = ξ/√m + g − mean g over the m fine increments of each, g fresh. Raises ValueError unless noise.depth divides `depth`.
    """
    if depth % noise.depth:
        raise ValueError(f"depth {depth} must be a multiple of the noise's depth {noise.depth}")
    m = depth // noise.depth

    def bridge(xi: Float[Array, "K L P n"], direction: int) -> Float[Array, "K M P n"]:
        steps, layers, rows, width = xi.shape
        g = normal_rows(stream(key, BRIDGE, direction), steps * depth * rows, width, xi.dtype)
        g = g.reshape(steps, layers, m, rows, width)
        fine = xi[:, :, None] / m**0.5 + g - g.mean(2, keepdims=True)
        return fine.reshape(steps, depth, rows, width)

    return Noise(noise.U, noise.V, bridge(noise.forward, FORWARD), bridge(noise.backward, BACKWARD))
