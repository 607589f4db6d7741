"""The noise that a network with real weight matrices was driven by: `gaussian` read backwards.

A matrix-free network draws each answer from fresh noise ξ; here the answers are known, y = W q for the part q
of a query that is new, and

    ξ = y − ρ (y Q'ᵀ) Q' + ρ (g Q'ᵀ) Q'          (ρ = 1 for reused weights, 0 for independent ones)

gives them back, since under reused weights y Q'ᵀ = q Z'ᵀ was not noise but what the other pass had already
seen. Along those directions Q', and for queries that bring nothing new, the network used no noise: they are
filled with fresh g, so that ξ is again standard normal. The matrix-free network on this noise follows the
dense one to rounding, and the limit can be solved on it too.
"""

from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax.activations import resolve
from nfd_jax.checks import as_sizes, check_flag, check_key
from nfd_jax.finite._dense import initial_weights, train_weights
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.gaussian import split
from nfd_jax.memory import check_memory
from nfd_jax.names import BackwardWeights
from nfd_jax.noise import BACKWARD, FORWARD, Noise, normal_rows, stream
from nfd_jax.problem import Problem, check_problem
from nfd_jax.programs import Program
from nfd_jax.training import train
from nfd_jax.trajectory import Coupling, Trajectory, Weights

Samples = Float[Array, "K P n"]


def train_with_innovations(
    problem: Problem,
    *,
    width: SupportsIndex,
    depth: SupportsIndex,
    key: Array,
    backward_weights: BackwardWeights = "reused",
) -> tuple[Trajectory, Noise]:
    """A dense network, all of h and b recorded, and the noise that drives the matrix-free one along the same
    path.

    `width` n ≥ K·P and `depth` L; `key` is what the network is drawn from, and what it leaves undetermined in
    the noise. On the noise, or on `noise.refine(M, key)`, a limit can be solved and compared path by path.
    Raises ValueError on sizes or names that are not allowed and for centered outputs on batches that differ,
    TypeError on anything but a key.

    >>> run, noise = nfd.train_with_innovations(problem, width=16, depth=4, key=jax.random.key(0))
    >>> again = nfd.train_finite(problem, noise=noise, simulator="matrix_free")
    >>> np.allclose(run.output, again.output, atol=1e-4)
    True
    """
    check_problem(problem)
    width, depth = as_sizes(width=width, depth=depth)
    check_flag(backward_weights)
    check_memory(problem, width)
    if problem.asks_first:
        raise ValueError(
            "innovations of centered outputs need the same batch at every step; received batches that differ"
        )
    return _train(problem, width, depth, check_key(key), backward_weights)


@Program
def _train(problem, width, depth, key, backward_weights):
    weights = initial_weights(problem, width=width, depth=depth, key=key, backward_weights=backward_weights)
    return innovations(problem, weights, backward_weights, key)


def coupling_of(problem: Problem, weights: Weights, backward_weights: str, key: Array) -> Coupling:
    """The coupling inside a dense network's passes: that of the matrix-free network on its innovations."""
    _, noise = innovations(problem, weights, backward_weights, key)
    reuse = jnp.asarray(backward_weights == "reused", problem.dtype)
    network = MatrixFree.of(problem, reuse, noise.depth, noise.width)
    found = train(problem, noise, network, coupling=True).coupling
    assert found is not None
    return found


def innovations(
    problem: Problem, weights: Weights, backward_weights: str, key: Array
) -> tuple[Trajectory, Noise]:
    """`train_with_innovations` from given weights."""
    run = train_weights(problem, weights, backward_weights, record=("features", "gradients"))
    queries = resolve(problem.activation).value(run.features[:, :-1])
    reuse = jnp.asarray(backward_weights == "reused", problem.dtype)
    by_layer = lambda x: jnp.swapaxes(x, 0, 1)

    def layer(at):
        W, W_back, x, u, index = at
        fresh = lambda direction: _fresh(stream(key, direction, index), x.shape, x.dtype)
        return _layer_innovations(W, W_back, x, u, fresh(FORWARD), fresh(BACKWARD), reuse)

    asked = by_layer(queries), by_layer(run.gradients[:, 1:])
    each = weights.W, weights.W_backward, *asked, jnp.arange(weights.W.shape[0])
    forward, backward = jax.lax.map(layer, each)
    return run, Noise(weights.U, weights.V, by_layer(forward), by_layer(backward))


def _fresh(key: Array, shape: tuple[int, ...], dtype) -> Samples:
    steps, rows, width = shape
    return normal_rows(key, steps * rows, width, dtype).reshape(shape)


def _layer_innovations(
    W, W_back, x: Samples, u: Samples, g: Samples, g_back: Samples, reuse
) -> tuple[Samples, Samples]:
    """ξ of one layer's forward queries x and backward queries u, step by step as they were asked."""
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
