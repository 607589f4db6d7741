"""Finite networks: dense (weight matrices) and matrix-free (exact in law, O(n) a layer)."""

from dataclasses import replace
from typing import Any, SupportsIndex

import jax
from jaxtyping import Array

from nfd_jax import conditional, optimizers
from nfd_jax.checks import check_choice, check_key
from nfd_jax.finite._dense import initial_weights, train_weights
from nfd_jax.finite._engine import (
    Grid,
    compile_grid,
    program_sizes,
    runs_at_once,
    shape_of,
    together,
    train_grids,
)
from nfd_jax.finite._innovations import coupling_of, innovations, train_with_innovations
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.finite._train_grid import train_grid
from nfd_jax.names import SIMULATORS, BackwardWeights, MatmulPrecision, RecordName, Simulator
from nfd_jax.noise import AbstractNoise, keyed_noise, sample_noise
from nfd_jax.problem import Problem
from nfd_jax.programs import Program
from nfd_jax.trajectory import Trajectory

__all__ = [
    "Grid",
    "MatrixFree",
    "compile_grid",
    "initial_weights",
    "innovations",
    "program_sizes",
    "runs_at_once",
    "shape_of",
    "together",
    "train_finite",
    "train_grid",
    "train_grids",
    "train_weights",
    "train_with_innovations",
]


def train_finite(
    problem: Problem,
    *,
    width: SupportsIndex | None = None,
    depth: SupportsIndex | None = None,
    key: Array | None = None,
    noise: AbstractNoise | None = None,
    backward_weights: BackwardWeights = "reused",
    simulator: Simulator = "dense",
    record: tuple[RecordName, ...] = (),
    heldout: Any = None,
    grid: SupportsIndex | None = None,
    directions: SupportsIndex | None = None,
    tolerance: float = 0.05,
    matmul_precision: MatmulPrecision = "highest",
) -> Trajectory:
    """Train a one-layer ResNet of `width` n and `depth` L for the K steps of `problem`.

    - `width`, `depth`: needed with `key`; read off `noise` otherwise.
    - `key`: what the network is drawn from.
    - `noise` (matrix-free only): the network runs on it path by path; `key` then gives the noise of held-out
      answers alone.
    - `backward_weights`: "reused" (the network as it is) or "independent" (the backward pass uses an initial
      draw of its own).
    - `simulator`: "dense" holds the n × n matrices; "matrix_free" has its law without them and needs n ≥ K·P.
    - `record`: any of "features" h and "gradients" b, (K, L+1, P, n), "coupling", and for dense networks
      "weights", those after the last update.
    - `heldout` (H, d): inputs to follow besides; fills `.heldout` (K, H, C).
    - `grid`: record h and b at the multiples of 1/grid in t only; a divisor of L.
    - `directions` R (matrix-free): bound the history to R directions a layer, for training of any length.
      While there is room no query keeps more than `tolerance` of its norm beyond them; `.history_residual`
      says what was left out. None: exact.
    - `matmul_precision`: "highest", "tensorfloat32", "bfloat16": the last two make float32 products faster on
      accelerators.

    Pure, jitted inside; may be `vmap`ped over `key` and the leaves of `problem`. Derivatives in both modes
    are right. Raises ValueError on names or sizes that are not allowed, on noise of another size or given to
    a dense network, and for optimizers that are not linear where matrices are not held; TypeError on anything
    but a key.

    >>> nfd.train_finite(problem, width=16, depth=4, key=jax.random.key(0)).output.shape
    (3, 2, 1)
    """
    check_choice("simulator", simulator, SIMULATORS)
    dense = simulator == "dense"
    if dense and noise is not None:
        raise ValueError(
            'noise= drives the "matrix_free" simulator; a dense network draws its weights from key='
        )
    if dense and directions is not None:
        raise ValueError(
            'directions= bounds the history of "matrix_free" networks; a dense network has none: leave it out'
        )
    sizes, asked = {"width": width, "depth": depth}, (record, heldout, grid, matmul_precision)
    options = conditional.Options.of(problem, noise, sizes, backward_weights, *asked)
    if not dense:
        how = MatrixFree.of, (sample_noise, keyed_noise)
        return conditional.run(problem, *how, noise, key, options, directions, tolerance)
    coupled = options.width >= problem.samples and optimizers.is_linear(problem.optimizer)
    if "coupling" in options.record and not coupled:
        raise ValueError(
            f"record: the coupling of a dense network needs width ≥ steps × batch size = {problem.samples} "
            f"and an optimizer that is linear; received width {options.width}: leave coupling out"
        )
    if "coupling" in options.record and problem.asks_first:
        raise ValueError(
            "record: centered outputs of batches that differ have no coupling in a dense network; received "
            'coupling: leave it out, or take simulator="matrix_free"'
        )
    with jax.default_matmul_precision(matmul_precision):
        return _train_dense(problem, check_key(key), options)


@Program
def _train_dense(problem: Problem, key: Array, asked: conditional.Options) -> Trajectory:
    flag, sizes = asked.backward_weights, {"width": asked.width, "depth": asked.depth}
    weights = initial_weights(problem, **sizes, key=key, backward_weights=flag)
    run = train_weights(problem, weights, flag, record=asked.record, grid=asked.grid, heldout=asked.heldout)
    if "coupling" in asked.record:
        run = replace(run, coupling=coupling_of(problem, weights, flag, key))
    return run
