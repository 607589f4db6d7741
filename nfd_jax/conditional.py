"""One network or limit known through its queries, from what a caller gives: noise or a key, and what to
record."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax import bounded, optimizers, training
from nfd_jax.noise import AbstractNoise, KeyedNoise, keyed_noise
from nfd_jax.problem import Problem, check_key
from nfd_jax.trajectory import Trajectory


def size_of(noise: AbstractNoise | None, width: Any, depth: Any, names: tuple[str, str]) -> tuple[Any, Any]:
    """Width and depth, read off the noise where there is some; ValueError where both are given and differ."""
    if noise is None:
        return width, depth
    if not isinstance(noise, AbstractNoise):
        raise TypeError(f"noise must come from sample_noise; received {type(noise).__name__}")
    for name, given, has in zip(names, (width, depth), (noise.width, noise.depth), strict=True):
        if given is not None and given != has:
            raise ValueError(
                f"noise has width {noise.width} and depth {noise.depth}; {name} {given} was asked for: leave "
                "it out, "
                "coarsen the noise, or sample it anew"
            )
    return noise.width, noise.depth


def check_noise(problem: Problem, noise: AbstractNoise) -> None:
    """Raise ValueError where noise was sampled for a problem of other shapes."""
    if isinstance(noise, KeyedNoise):
        has = noise.steps, noise.rows, *noise.U.shape[-1:], *noise.V.shape[-1:]
    else:
        has = noise.forward.shape[-4], noise.forward.shape[-2], noise.U.shape[-1], noise.V.shape[-1]
    wanted = problem.steps, problem.batch_size, problem.input_dim, problem.outputs
    if has != wanted:
        raise ValueError(
            f"noise was sampled for (K, P, d, C) = {has}; the problem has {wanted}: sample it for this "
            "problem"
        )
    if noise.U.dtype != problem.dtype:
        raise ValueError(
            f"noise is {noise.U.dtype} and the problem {problem.dtype}; sample the noise for this problem"
        )


def heldout_inputs(problem: Problem, heldout: Any) -> Array | None:
    """Held-out inputs (H, d) in the problem's dtype; ValueError on another shape."""
    if heldout is None:
        return None
    found = jnp.asarray(heldout, problem.dtype)
    if found.ndim != 2 or found.shape[1] != problem.input_dim or not found.shape[0]:
        raise ValueError(f"heldout must be (H, d) with d = {problem.input_dim}; received shape {found.shape}")
    return found


def check_grid(grid: Any, depth: int) -> int | None:
    """Raise ValueError unless `grid` intervals of t fall on layers."""
    if grid is not None and (isinstance(grid, bool) or not isinstance(grid, int) or grid < 1 or depth % grid):
        raise ValueError(f"grid must be a divisor of the depth, {depth}; received {grid!r}")
    return grid


def run(
    problem: Problem,
    interior: Callable[[Problem, Array, int, int], training.Interior],
    *,
    noise: AbstractNoise | None,
    draw: Callable,
    width: int,
    depth: int,
    key: Array | None,
    backward_weights: str,
    record: tuple[str, ...],
    heldout: Any,
    grid: int | None,
    directions: int | None,
    tolerance: float,
    matmul_precision: str,
) -> Trajectory:
    """Trains `interior`(problem, reuse, depth, width) on `noise`, or on what `draw` makes of `key`."""
    reuse = jnp.asarray(backward_weights == "reused", problem.dtype)
    asked = heldout_inputs(problem, heldout)
    if noise is not None:
        check_noise(problem, noise)
        key = jax.random.key(0) if key is None else check_key(key)
    else:
        key = check_key(key)
    if directions is None:
        training.check_room(problem, width)
        optimizers.check_linear(problem.optimizer)
    else:
        bounded.check_bounds(problem, width, directions, tolerance)
    options = record, check_grid(grid, depth), directions, tolerance
    with jax.default_matmul_precision(matmul_precision):
        if noise is None:
            if directions is not None:
                draw = keyed_noise  # of all steps together it would not fit
            return _drawn(problem, key, interior, draw, width, depth, reuse, asked, *options)
        return _on(problem, noise, key, interior, reuse, asked, *options)


@eqx.filter_jit
def _drawn(problem, key, interior, draw, width, depth, reuse, asked, *options):
    noise = draw(problem, width=width, depth=depth, key=key)
    return _train(problem, noise, key, interior, reuse, asked, *options)


@eqx.filter_jit
def _on(problem, noise, key, interior, reuse, asked, *options):
    return _train(problem, noise, key, interior, reuse, asked, *options)


def _train(problem, noise, key, interior, reuse, asked, record, grid, directions, tolerance):
    found = interior(problem, reuse, noise.depth, noise.width)
    questions = None
    if asked is not None:
        questions = training.heldout_questions(problem, asked, noise.depth, noise.width, key)
    options = {"record": record, "grid": grid, "heldout": questions}
    if directions is None:
        return training.train(problem, noise, found, **options)
    return bounded.train_bounded(problem, noise, found, directions=directions, tolerance=tolerance, **options)
