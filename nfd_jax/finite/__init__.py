"""Finite networks: dense (weight matrices) and matrix-free (exact in law, O(n) a layer)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax import training
from nfd_jax.finite import _dense
from nfd_jax.finite._dense import Weights, initial_weights
from nfd_jax.finite._dense import train as train_dense
from nfd_jax.finite._engine import Grid, compile_grid, program_sizes, runs_at_once, shape_of, train_grids
from nfd_jax.finite._grid import Heldout
from nfd_jax.finite._innovations import refined, train_with_innovations
from nfd_jax.finite._matrix_free import MatrixFree
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
    "SIMULATORS",
    "Grid",
    "Heldout",
    "MatrixFree",
    "Weights",
    "check_noise",
    "compile_grid",
    "initial_weights",
    "program_sizes",
    "refined",
    "runs_at_once",
    "shape_of",
    "train_dense",
    "train_finite",
    "train_grids",
    "train_with_innovations",
]

SIMULATORS = ("dense", "matrix_free")


def train_finite(
    problem: Problem,
    *,
    width: int,
    depth: int,
    key: Array | None = None,
    backward_weights: str = "reused",
    simulator: str = "dense",
    noise: AbstractNoise | None = None,
    record: tuple[str, ...] = (),
    matmul_precision: str = "highest",
) -> Trajectory:
    """Train a one-layer ResNet of `width` and `depth` for the K steps of `problem`.

    `backward_weights` is "reused" (the network as it is) or "independent" (the backward pass uses a draw of its own). The
    "matrix_free" simulator has the dense one's law without its n × n matrices and needs width ≥ K·P; it runs on `noise`, path by
    path, where given (`key` is not used then). `record` may hold "features" and "gradients". `matmul_precision` of less than
    "highest", "tensorfloat32" or "bfloat16", makes products of float32 faster on accelerators; `nfd bench` measures what it costs.

    Raises ValueError on names or sizes that are not allowed, on noise of another width or depth, and on noise given to a dense
    network, whose weights are drawn from `key`.
    """
    check_size("width", width)
    check_size("depth", depth)
    check_choice("backward_weights", backward_weights, BACKWARD_WEIGHTS)
    check_choice("simulator", simulator, SIMULATORS)
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    record = check_record(record)
    reuse = jnp.asarray(backward_weights == "reused", problem.dtype)
    if simulator == "dense":
        if noise is not None:
            raise ValueError('noise= drives the "matrix_free" simulator; a dense network draws its weights from key=')
        with jax.default_matmul_precision(matmul_precision):
            return _train_dense(problem, check_key(key), width, depth, backward_weights, record)
    if noise is not None:
        check_noise(noise, width=width, depth=depth)
    with jax.default_matmul_precision(matmul_precision):
        if noise is None:
            return _train_drawn(problem, check_key(key), width, depth, reuse, record)
        return _train_on(problem, noise, reuse, record)


def check_noise(noise: AbstractNoise, *, width: int, depth: int) -> None:
    """Raise ValueError unless `noise` has this width and depth."""
    if (noise.width, noise.depth) != (width, depth):
        raise ValueError(
            f"noise has width {noise.width} and depth {noise.depth}, asked for {width} and {depth}: coarsen it or sample it anew"
        )


@eqx.filter_jit
def _train_dense(problem, key, width, depth, backward_weights, record):
    weights = _dense.initial_weights(problem, width=width, depth=depth, key=key, backward_weights=backward_weights)
    return _dense.train(problem, weights, record=record)


@eqx.filter_jit
def _train_drawn(problem, key, width, depth, reuse, record):
    noise = sample_noise(problem, width=width, depth=depth, key=key)
    return training.train(problem, noise, MatrixFree(problem, reuse, noise.depth), record=record)


@eqx.filter_jit
def _train_on(problem, noise, reuse, record):
    return training.train(problem, noise, MatrixFree(problem, reuse, noise.depth), record=record)
