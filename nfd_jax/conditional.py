"""One network or limit known through its queries, from what a caller gives: noise or a key, and what to
record."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax import memory, optimizers, training
from nfd_jax.checks import as_size, as_sizes, check_choice, check_flag, check_key, check_record, integer
from nfd_jax.names import MATMUL_PRECISIONS
from nfd_jax.noise import AbstractNoise, KeyedNoise, Noise
from nfd_jax.problem import Problem, check_problem, heldout_inputs
from nfd_jax.programs import Program
from nfd_jax.trajectory import Trajectory


class Options(NamedTuple):
    """What the public calls take alike, checked: sizes, kind of backward weights, what to record of which
    layers, held-out inputs (H, d), and the precision of products."""

    width: int
    depth: int
    backward_weights: str
    record: tuple[str, ...]
    heldout: Array | None
    grid: int | None
    matmul_precision: str

    @classmethod
    def of(
        cls,
        problem: Problem,
        noise: AbstractNoise | None,
        sizes: dict[str, Any],
        backward_weights: str,
        record: Any,
        heldout: Any,
        grid: Any,
        matmul_precision: str,
    ) -> "Options":
        """Width and depth are given in `sizes`, under the caller's names, or read off the noise."""
        check_problem(problem)
        check_flag(backward_weights)
        check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
        record = check_record(record)
        if noise is not None:
            sizes = _sizes_of(noise, sizes)
        width, depth = as_sizes(**sizes)
        asked = heldout_inputs(problem, heldout)
        if grid is not None:
            divisor = f"a divisor of the depth, {depth}"
            grid = as_size("grid", grid, divisor)
            if depth % grid:
                raise ValueError(f"grid must be {divisor}; received {grid}")
        return cls(width, depth, backward_weights, record, asked, grid, matmul_precision)


def _sizes_of(noise: AbstractNoise, sizes: dict[str, Any]) -> dict[str, Any]:
    """Those of the noise; ValueError where others were asked for."""
    if not isinstance(noise, AbstractNoise):
        raise TypeError(f"noise must come from sample_noise; received {type(noise).__name__}")
    found = dict(zip(sizes, (noise.width, noise.depth), strict=True))
    for name, given in sizes.items():
        if given is not None and integer(given) != found[name]:
            raise ValueError(
                f"noise has width {noise.width} and depth {noise.depth}; {name} {given} was asked for: leave "
                "it out, coarsen the noise, or sample it anew"
            )
    return found


def _check_noise(problem: Problem, noise: AbstractNoise) -> None:
    """Raise ValueError where noise was sampled for a problem of other shapes or precision, saying which."""
    if isinstance(noise, KeyedNoise):
        steps, rows = noise.steps, noise.rows
    else:
        steps, _, rows, _ = _checked_parts(noise).shape
    found = {"K": steps, "P": rows, "d": noise.U.shape[-1], "C": noise.V.shape[-1], "dtype": noise.U.dtype}
    own = problem.steps, problem.batch_size, problem.input_dim, problem.outputs, problem.dtype
    wanted = dict(zip(found, own, strict=True))
    if differ := [name for name in found if found[name] != wanted[name]]:
        listed = lambda values: ", ".join(f"{name} = {values[name]}" for name in differ)
        raise ValueError(
            f"noise was sampled for another problem: it has {listed(found)}; this problem has "
            f"{listed(wanted)}: sample it for this problem"
        )


def _checked_parts(noise: Noise) -> Array:
    """The forward increments of noise held as arrays, which all belong to one network."""
    xi, n = noise.forward, noise.U.shape[0] if noise.U.ndim else None
    apart = noise.U.ndim != 2 or noise.V.ndim != 2 or xi.ndim != 4 or noise.backward.shape != xi.shape
    if apart or not noise.V.shape[0] == xi.shape[-1] == n or {noise.V.dtype, xi.dtype} != {noise.U.dtype}:
        parts = ", ".join(
            f"{name} {getattr(noise, name).shape}" for name in ("U", "V", "forward", "backward")
        )
        raise ValueError(
            "noise must be U (n, d), V (n, C) and forward and backward (K, L, P, n) of one dtype, of one "
            f"network; received {parts}: take sample_noise's, and vmap over several"
        )
    return xi


def run(
    problem: Problem,
    interior: Callable[[Problem, Array, int, int], training.Interior],
    draw: tuple[Callable, Callable],
    noise: AbstractNoise | None,
    key: Array | None,
    options: Options,
    directions: SupportsIndex | None,
    tolerance: float,
) -> Trajectory:
    """Trains `interior`(problem, reuse, depth, width) on `noise`, or on what `draw` makes of `key`: arrays,
    or noise that is drawn at each use."""
    if "weights" in options.record:
        raise ValueError(
            'record: a matrix-free network has no "weights", nor has a limit; allowed: features, gradients, '
            "coupling"
        )
    if noise is not None:
        _check_noise(problem, noise)
        key = jax.random.key(0) if key is None else check_key(key)
    else:
        key = check_key(key)
    if directions is not None:
        directions, tolerance = as_size("directions", directions), memory.bounded_tolerance(tolerance)
    memory.check_memory(problem, options.width, directions, tolerance)
    optimizers.check_linear(problem.optimizer)
    reuse = jnp.asarray(options.backward_weights == "reused", problem.dtype)
    keep = {"record": options.record, "grid": options.grid, "directions": directions, "tolerance": tolerance}
    with jax.default_matmul_precision(options.matmul_precision):
        if noise is None:  # a bounded history is for more steps than noise is held of
            held, redrawn = draw
            draw_it = held if directions is None else redrawn
            noise = draw_it(problem, width=options.width, depth=options.depth, key=key)
        return _on(problem, noise, key, interior, reuse, options.heldout, keep)


@partial(Program, of_products=lambda arguments: isinstance(arguments[1], Noise))
def _on(problem, noise, key, interior, reuse, heldout, keep):
    """A program of its own: noise, drawn by another, is the same for networks and limits."""
    network = interior(problem, reuse, noise.depth, noise.width)
    if heldout is not None:
        heldout = training.heldout_questions(problem, heldout, noise.depth, noise.width, key)
    return training.train(problem, noise, network, heldout=heldout, **keep)
