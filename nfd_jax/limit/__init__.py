"""The infinite-depth limit: the NFD system and its response-coupled sibling, and deterministic kernels at initialization."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax import training
from nfd_jax.limit._estimate import LimitEstimate
from nfd_jax.limit._kernels import InitKernels, first_order_change, first_step_gain, init_kernels
from nfd_jax.limit._lazy import lazy_limit
from nfd_jax.limit._solve import Limit
from nfd_jax.limit._tolerance import estimate_limit
from nfd_jax.noise import AbstractNoise, sample_noise
from nfd_jax.problem import (
    BACKWARD_WEIGHTS,
    MATMUL_PRECISIONS,
    Problem,
    Trajectory,
    check_choice,
    check_key,
    check_record,
    check_size,
)

__all__ = [
    "InitKernels",
    "Limit",
    "LimitEstimate",
    "estimate_limit",
    "first_order_change",
    "first_step_gain",
    "init_kernels",
    "lazy_limit",
    "solve_limit",
]


def solve_limit(
    problem: Problem,
    *,
    particles: int,
    depth_steps: int,
    key: Array | None = None,
    backward_weights: str = "independent",
    noise: AbstractNoise | None = None,
    record: tuple[str, ...] = (),
    matmul_precision: str = "highest",
) -> Trajectory:
    """Solve the limit system with `particles` N and `depth_steps` M Euler steps of t.

    "independent" is the paper's Neural Feature Dynamics; "reused" keeps the response of reused weights. With `noise` of width N
    and depth M (`key` is not used then) the solution can be compared path by path with networks on `noise.coarsen(depth)`.
    `record` may hold "features" and "gradients", (K, M+1, P, N); `matmul_precision` as in `train_finite`.

    Raises ValueError on sizes or names that are not allowed, on noise of another size, and for parametrizations without a limit.
    """
    check_size("particles", particles)
    check_size("depth_steps", depth_steps)
    check_choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    record = check_record(record)
    if problem.parametrization != "depth_mup":
        raise ValueError(f"only depth_mup has an infinite-depth limit; received {problem.parametrization!r}")
    reuse = jnp.asarray(backward_weights == "reused", problem.dtype)
    if noise is not None and (noise.width, noise.depth) != (particles, depth_steps):
        raise ValueError(f"noise has width {noise.width} and depth {noise.depth}, asked for {particles} particles and {depth_steps} steps")
    with jax.default_matmul_precision(matmul_precision):
        if noise is None:
            return _solve_drawn(problem, check_key(key), particles, depth_steps, reuse, record)
        return _solve_on(problem, noise, reuse, record)


@eqx.filter_jit
def _solve_drawn(problem, key, particles, depth_steps, reuse, record):
    noise = sample_noise(problem, width=particles, depth=depth_steps, key=key)
    return training.train(problem, noise, Limit(problem, reuse, noise.depth), record=record)


@eqx.filter_jit
def _solve_on(problem, noise, reuse, record):
    return training.train(problem, noise, Limit(problem, reuse, noise.depth), record=record)
