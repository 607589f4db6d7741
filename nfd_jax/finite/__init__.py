"""Finite networks: dense (weight matrices) and matrix-free (exact in law, O(n) a layer)."""

from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array

from nfd_jax import conditional, optimizers
from nfd_jax.finite._dense import initial_weights, train_weights
from nfd_jax.finite._engine import Grid, compile_grid, program_sizes, runs_at_once, shape_of, train_grids
from nfd_jax.finite._grid import Heldout
from nfd_jax.finite._innovations import coupling_of, innovations, train_with_innovations
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.finite._train_grid import train_grid
from nfd_jax.noise import AbstractNoise, sample_noise
from nfd_jax.problem import (
    BACKWARD_WEIGHTS,
    MATMUL_PRECISIONS,
    BackwardWeights,
    Problem,
    Record,
    check_choice,
    check_key,
    check_record,
    check_size,
)
from nfd_jax.trajectory import Trajectory

__all__ = [
    "SIMULATORS",
    "Grid",
    "Heldout",
    "MatrixFree",
    "compile_grid",
    "initial_weights",
    "innovations",
    "program_sizes",
    "runs_at_once",
    "shape_of",
    "train_finite",
    "train_grid",
    "train_grids",
    "train_weights",
    "train_with_innovations",
]

SIMULATORS = ("dense", "matrix_free")


def train_finite(
    problem: Problem,
    *,
    width: int | None = None,
    depth: int | None = None,
    key: Array | None = None,
    noise: AbstractNoise | None = None,
    backward_weights: BackwardWeights = "reused",
    simulator: Literal["dense", "matrix_free"] = "dense",
    record: tuple[Record, ...] = (),
    heldout: Any = None,
    grid: int | None = None,
    directions: int | None = None,
    tolerance: float = 0.05,
    matmul_precision: str = "highest",
) -> Trajectory:
    """Train a one-layer ResNet of `width` n and `depth` L for the K steps of `problem`.

    - `width`, `depth`: needed with `key`; read off `noise` otherwise.
    - `key`: what the network is drawn from.
    - `noise` (matrix-free only): the network runs on it path by path; `key` then gives the noise of held-out answers alone.
    - `backward_weights`: "reused" (the network as it is) or "independent" (the backward pass uses an initial draw of its own).
    - `simulator`: "dense" holds the n × n matrices; "matrix_free" has its law without them and needs n ≥ K·P.
    - `record`: any of "features" h and "gradients" b, (K, L+1, P, n), "coupling", and for dense networks "weights", those after the last
      update.
    - `heldout` (H, d): inputs to follow besides; fills `.heldout` (K, H, C).
    - `grid`: record h and b at the multiples of 1/grid in t only; a divisor of L.
    - `directions` R (matrix-free): bound the history to R directions a layer, for training of any length; a query's direction enters
      where its residual exceeds `tolerance` of its norm. `.history_residual` says what was left out. None: exact.
    - `matmul_precision`: "highest", "tensorfloat32", "bfloat16": the last two make float32 products faster on accelerators.

    Pure, jitted inside; may be `vmap`ped over `key` and the leaves of `problem`. Derivatives in both modes are right.
    Raises ValueError on names or sizes that are not allowed, on noise of another size or given to a dense network, and for optimizers
    that are not linear where matrices are not held; TypeError on anything but a key.
    """
    check_choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
    check_choice("simulator", simulator, SIMULATORS)
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    record = check_record(record)
    dense = simulator == "dense"
    if dense and noise is not None:
        raise ValueError('noise= drives the "matrix_free" simulator; a dense network draws its weights from key=')
    if dense and directions is not None:
        raise ValueError('directions= bounds the history of "matrix_free" networks; a dense network has none: leave it out')
    if not dense and "weights" in record:
        raise ValueError('record: a matrix-free network has no "weights"; allowed: features, gradients, coupling')
    width, depth = conditional.size_of(noise, width, depth, ("width", "depth"))
    check_size("width", width)
    check_size("depth", depth)
    if not dense:
        return conditional.run(
            problem,
            MatrixFree.of,
            noise=noise,
            draw=sample_noise,
            width=width,
            depth=depth,
            key=key,
            backward_weights=backward_weights,
            record=record,
            heldout=heldout,
            grid=grid,
            directions=directions,
            tolerance=tolerance,
            matmul_precision=matmul_precision,
        )
    if "coupling" in record and (width < problem.samples or not optimizers.is_linear(problem.optimizer)):
        raise ValueError(
            f"record: the coupling of a dense network needs width ≥ steps × batch size = {problem.samples} and an optimizer that is "
            f"linear; received width {width}: leave coupling out"
        )
    asked = conditional.heldout_inputs(problem, heldout)
    grid = conditional.check_grid(grid, depth)
    with jax.default_matmul_precision(matmul_precision):
        return _train_dense(problem, check_key(key), width, depth, backward_weights, record, asked, grid)


@eqx.filter_jit
def _train_dense(problem, key, width, depth, backward_weights, record, heldout, grid):
    weights = initial_weights(problem, width=width, depth=depth, key=key, backward_weights=backward_weights)
    run = train_weights(problem, weights, backward_weights, record=record, grid=grid, heldout=heldout)
    if "coupling" in record:
        run = eqx.tree_at(lambda r: r.coupling, run, coupling_of(problem, weights, backward_weights, key), is_leaf=lambda x: x is None)
    return run
