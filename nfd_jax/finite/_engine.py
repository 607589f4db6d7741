"""How a grid of networks is run: in which form, how many side by side, by which compiled program, on which cores.

Choices depend on sizes and on the kind of device, never on a measurement: another choice rounds differently, and one config must
give the same numbers in every process.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax.finite._grid import Rows, Shape, program
from nfd_jax.problem import Problem

CACHED = 2**17
"""Matrix entries of the networks that a CPU trains side by side: a layer of them and its update stay in a core's cache."""

COMPILE_FLOPS = 5e10
"""What a CPU could compute while it compiles one more program."""

OPTIONS = {"xla_backend_optimization_level": 1}
"""For LLVM, which above level 1 takes twice as long over the random numbers and makes nothing faster; matrix products are no code of its."""

SHARED_BYTES = 2**28
"""Weights beyond which a CPU trains one group of seeds at a time, on all cores."""


@dataclass(frozen=True)
class Grid:
    """Networks of one width: which seeds, depths, learning rates and flags, and what is measured of them (see `Shape`)."""

    width: int
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    flags: tuple[str, ...]
    grid: int
    probe: bool = False
    record: tuple[str, ...] = ()
    precision: str = "highest"


def form(width: int, samples: int) -> str:
    """"factored" where K·P = `samples` corrections cost less than rewriting n × n matrices, else "explicit".

    Multiplications a layer, step and row: 2n² + 4·K·P·n factored, all steps' room for corrections counted, and 3n² explicit.
    """
    return "factored" if 4 * samples <= width else "explicit"


def program_sizes(widths: Sequence[int], work: float, samples: int) -> dict[int, int]:
    """The size of the program that serves each width: its own, or that of a wider one where padding costs less than compiling.

    `work` is what a grid computes per matrix entry: networks × layers × steps × rows × 6 operations. Only widths of one form
    share a program.
    """
    sizes: dict[int, int] = {}
    for width in sorted(set(widths), reverse=True):
        wider = min((size for size in sizes.values() if form(size, samples) == form(width, samples)), default=width)
        sizes[width] = wider if work * (wider**2 - width**2) <= COMPILE_FLOPS else width
    return sizes


def _divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is at most `most`, at least 1."""
    return max(k for k in range(1, max(1, min(count, most)) + 1) if count % k == 0)


def shape_of(problem: Problem, grid: Grid, size: int, platform: str) -> tuple[Shape, int]:
    """The program for a grid, and how many seeds one run of it takes."""
    kind, flags = form(size, problem.samples), len(grid.flags)
    shape = Shape(kind, grid.flags, size, max(grid.depths), 1, grid.grid, grid.probe, grid.record, grid.precision)
    if platform != "cpu":
        return replace(shape, rates=len(grid.rates)), len(grid.seeds)
    if kind == "factored":
        return replace(shape, rates=_divisor(len(grid.rates), size // (2 * problem.samples * flags))), 1
    at_once = CACHED // size**2
    rates = _divisor(len(grid.rates), at_once // flags)
    return replace(shape, rates=rates), _divisor(len(grid.seeds), at_once // (flags * rates))


@lru_cache(maxsize=64)
def _compiled(structure, leaves: tuple[jax.ShapeDtypeStruct, ...], shape: Shape):
    arguments = jax.tree.unflatten(structure, leaves)
    started = perf_counter()
    lowered = jax.jit(partial(program, shape=shape)).lower(*arguments)
    built = perf_counter()
    executable = lowered.compile(OPTIONS if jax.local_devices()[0].platform == "cpu" else None)
    return executable, {"build": built - started, "compile": perf_counter() - built}


def compiled(shape: Shape, *arguments):
    """The executable of `program` for arguments of these shapes, compiled once a process, and the seconds that building (tracing
    and lowering) and compiling it took."""
    leaves, structure = jax.tree.flatten(arguments)
    return _compiled(structure, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves), shape)


def train_grid(problem: Problem, heldout: Rows | None, master: int, grid: Grid, *, size: int | None = None) -> dict[str, np.ndarray]:
    """Train all networks of `grid`, drawn from `stream(jax.random.key(master), seed)`; arrays as in `_grid.program`, coordinates last cut
    to the width. `size` is that of the program, by default the width itself."""
    size = grid.width if size is None else size
    device = jax.local_devices()[0]
    shape, group = shape_of(problem, grid, size, device.platform)
    dtype = problem.dtype
    shared = (
        np.asarray([0, master], np.uint32),  # what jax.random.key(master) holds, without a program of its own
        np.asarray(grid.rates, dtype),
        np.asarray(grid.width, np.int32),
        np.asarray(grid.depths, np.int32),
    )
    groups = [np.asarray(grid.seeds[i : i + group], np.uint32) for i in range(0, len(grid.seeds), group)]
    arguments = lambda seeds: (problem, heldout, shared[0], seeds, *shared[1:])
    executable, _ = compiled(shape, *arguments(groups[0]))

    def run(seeds):
        with jax.enable_x64(dtype == jnp.float64):  # a thread has settings of its own
            return jax.device_get(executable(*arguments(seeds)))

    weights = dtype.itemsize * shape.layers * size**2
    cores = min(len(groups), os.cpu_count() or 1) if device.platform == "cpu" and weights <= SHARED_BYTES else 1
    if cores == 1:
        parts = [run(seeds) for seeds in groups]
    else:
        with ThreadPoolExecutor(cores) as pool:
            parts = list(pool.map(run, groups))
    whole = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return {name: x[..., : grid.width] if name in ("features", "gradients") else x for name, x in whole.items()}
