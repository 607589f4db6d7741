"""What matrix products of less precision cost in accuracy: only accelerators have them, on a CPU they are all
the same."""

import jax
import numpy as np

from nfd_jax.finite import train_finite
from nfd_jax.finite._engine import Grid, train_grids
from nfd_jax.noise import sample_noise
from nfd_jax.problem import Problem

from ._tools import Figure

LESS = ("tensorfloat32", "bfloat16")
STEPS, BATCH, DIM = 5, 4, 8


def measure(quick: bool) -> list[Figure]:
    if jax.default_backend() == "cpu" and not quick:
        note = "not measured: no accelerator"
        return [
            Figure(f"precision {kind}", "relative rms error of the outputs", None, note=note) for kind in LESS
        ]
    n, depth = (32, 2) if quick else (1024, 32)
    return [
        _error(kind, system, outputs, n, depth)
        for system, outputs in (("dense", _dense), ("matrix-free", _free))
        for kind in LESS
    ]


def _problem() -> Problem:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((STEPS, BATCH, DIM)), rng.standard_normal((STEPS, BATCH, 1))
    return Problem(x.astype("float32"), y.astype("float32"), 0.5)


def _dense(precision: str, n: int, depth: int) -> np.ndarray:
    grid = Grid(n, (depth,), (0, 1, 2, 3), (0.5,), ("reused",), 1, precision=precision)
    [found] = train_grids(_problem(), None, 0, [grid])
    return found["output"]


def _free(precision: str, n: int, depth: int) -> np.ndarray:
    problem = _problem()
    noise = sample_noise(problem, width=n, depth=depth, key=jax.random.key(0))
    sizes = {"width": n, "depth": depth, "simulator": "matrix_free"}
    return np.asarray(train_finite(problem, **sizes, noise=noise, matmul_precision=precision).output)


def _error(kind: str, system: str, outputs, n: int, depth: int) -> Figure:
    exact, less = (np.asarray(outputs(precision, n, depth), float) for precision in ("highest", kind))
    error = float(np.sqrt(np.mean((less - exact) ** 2) / np.mean(exact**2)))
    return Figure(
        f"precision {kind}, {system}", f"relative rms error of the outputs, n = {n}, L = {depth}", error
    )
