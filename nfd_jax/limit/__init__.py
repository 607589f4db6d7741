"""The infinite-depth limit: the NFD system and its response-coupled sibling, and deterministic kernels at
initialization."""

from typing import Any, SupportsIndex

import jax
from jaxtyping import Array

from nfd_jax import conditional
from nfd_jax.limit._estimate import LimitEstimate, Quantity
from nfd_jax.limit._kernels import (
    InitKernels,
    check_limit,
    first_order_change,
    first_step_gain,
    init_kernels,
    initial_averages,
)
from nfd_jax.limit._lazy import lazy_limit
from nfd_jax.limit._levels import Chunk, Sampled, Sampler
from nfd_jax.limit._solve import Limit
from nfd_jax.limit._tolerance import TimeTooShort, estimate_limit, identity_of
from nfd_jax.names import BackwardWeights, MatmulPrecision, RecordName
from nfd_jax.noise import AbstractNoise, shared_keyed_noise, shared_noise
from nfd_jax.problem import Problem
from nfd_jax.trajectory import Trajectory

__all__ = [
    "Chunk",
    "InitKernels",
    "Limit",
    "LimitEstimate",
    "Quantity",
    "Sampled",
    "Sampler",
    "TimeTooShort",
    "check_limit",
    "estimate_limit",
    "identity_of",
    "first_order_change",
    "first_step_gain",
    "init_kernels",
    "initial_averages",
    "lazy_limit",
    "solve_limit",
]


def solve_limit(
    problem: Problem,
    *,
    particles: SupportsIndex | None = None,
    depth_steps: SupportsIndex | None = None,
    key: Array | None = None,
    noise: AbstractNoise | None = None,
    backward_weights: BackwardWeights = "independent",
    record: tuple[RecordName, ...] = (),
    heldout: Any = None,
    grid: SupportsIndex | None = None,
    directions: SupportsIndex | None = None,
    tolerance: float = 0.05,
    matmul_precision: MatmulPrecision = "highest",
) -> Trajectory:
    """Solve the limit system with N particles and M Euler steps of t.

    - `particles` N ≥ K·P and `depth_steps` M: needed with `key`; read off `noise` otherwise.
    - `key`: what noise is drawn from; at M, 2 M, 4 M, … the Brownian motions are the same, so that refining M
      converges path by path. (Another draw than `sample_noise` and `train_finite` make of the same key.)
    - `noise` of width N and depth M: the solution can be compared path by path with networks on
      `noise.coarsen(depth)`. `key` then gives the noise of held-out answers alone.
    - `backward_weights`: "independent" is the paper's Neural Feature Dynamics; "reused" keeps the response of
      reused weights.
    - `record`: any of "features" and "gradients", (K, M+1, P, N), and "coupling".
    - `heldout` (H, d): inputs to follow besides; fills `.heldout` (K, H, C).
    - `grid`: record h and b at the multiples of 1/grid in t only.
    - `directions` R: bound the history to R directions a layer, for training of any length. While there is
      room no query keeps more than `tolerance` of its norm beyond them; `.history_residual` says what was
      left out. None: exact.
    - `matmul_precision`: "highest", "tensorfloat32", "bfloat16", of products of float32 on accelerators.

    Raises ValueError on sizes or names that are not allowed, on noise of another size, for parametrizations
    without a limit and for optimizers that are not linear. Forward-mode derivatives (`jax.jvp`) are right;
    for reverse mode use `train_finite(simulator="matrix_free")` on the same noise, which is the same numbers.

    >>> noise = nfd.sample_noise(problem, width=32, depth=8, key=jax.random.key(0))
    >>> limit = nfd.solve_limit(problem, noise=noise, backward_weights="reused")
    >>> network = nfd.train_finite(problem, noise=noise, backward_weights="reused", simulator="matrix_free")
    >>> np.allclose(limit.output, network.output, atol=1e-5)  # Euler with as many steps is the network
    True
    """
    check_limit(problem)
    _refuse_reverse_mode(problem, noise)
    sizes = {"particles": particles, "depth_steps": depth_steps}
    asked = record, heldout, grid, matmul_precision
    options = conditional.Options.of(problem, noise, sizes, backward_weights, *asked)
    draw = shared_noise, shared_keyed_noise
    return conditional.run(problem, Limit, draw, noise, key, options, directions, tolerance)


def _refuse_reverse_mode(problem: Problem, noise: AbstractNoise | None) -> None:
    """Raise ValueError at once under `jax.grad`, which diffrax's solve would refuse after compiling.

    Told by the kind of tracer; where JAX names it otherwise, its own later error stands.
    """
    for leaf in jax.tree.leaves((problem, noise)):
        while hasattr(leaf, "val"):  # below vmap
            leaf = leaf.val
        if type(leaf).__name__ == "LinearizeTracer":
            raise ValueError(
                "reverse mode through solve_limit (jax.grad, jax.vjp, jax.linearize) is not possible; use "
                "jax.jvp or "
                'jax.jacfwd, or train_finite(simulator="matrix_free", noise=noise), the same numbers, '
                "which takes both modes"
            )
