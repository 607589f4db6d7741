"""How grids of networks are run: in which form, how many side by side, by which compiled program, on which
cores or devices.

Another choice rounds differently, and one grid must give the same numbers in every process. So choices depend
on sizes and the kind of device. `program_sizes` weighs speeds, which are those of the kind, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from nfd_jax._host import cores
from nfd_jax.finite._draws import divisor
from nfd_jax.finite._grid import Shape, program
from nfd_jax.finite._hidden import form
from nfd_jax.problem import Heldout, Problem
from nfd_jax.programs import Executable, Program
from nfd_jax.runtime import in_precision, in_threads, on_cpu

CACHED = 2**17
"""Matrix entries of the networks that a CPU trains side by side: a layer of them and its update stay in a
core's cache."""

SHARED_BYTES = 2**28
"""Weights beyond which a CPU trains one group of seeds at a time, with all cores in each product."""


@dataclass(frozen=True)
class Grid:
    """Networks of one width: which seeds, depths, learning rates and flags, and what is measured of them (see
    `Shape`).

    `size` ≥ width is that of the program which serves it, by default the width itself. `linear`: whether the
    optimizer is, in the gradients, as factored networks need it.
    """

    width: int
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    flags: tuple[str, ...]
    grid: int
    probe: bool = False
    record: tuple[str, ...] = ()
    precision: str = "highest"
    size: int | None = None
    linear: bool = True


def program_sizes(
    widths: Sequence[int], samples: int, *, entry: float, program: float, linear: bool = True
) -> dict[int, int]:
    """The size of the program that serves each width: its own, or that of a wider one where padding costs
    less than another program.

    A width's grid takes `entry` seconds per entry of its matrices, a program `program` seconds. Only widths
    of one form share one.
    """
    sizes: dict[int, int] = {}
    form_of = lambda width: form(width, samples, linear=linear)
    for width in sorted(set(widths), reverse=True):
        wider = min((size for size in sizes.values() if form_of(size) == form_of(width)), default=width)
        padding = (wider**2 - width**2) * entry
        sizes[width] = wider if padding <= program else width
    return sizes


def shape_of(samples: int, grid: Grid, platform: str, devices: int = 1) -> tuple[Shape, int]:
    """The program for a grid trained on K·P = `samples`, and how many seeds one run takes, each of `devices`
    an equal part of them."""
    size, flags, rates, seeds = grid.size or grid.width, len(grid.flags), len(grid.rates), len(grid.seeds)
    kind, used = form(size, samples, linear=grid.linear), gcd(seeds, devices)
    shape = Shape(
        kind, grid.flags, size, max(grid.depths), 1, grid.grid, grid.probe, grid.record, grid.precision
    )
    if platform != "cpu":
        return replace(shape, rates=rates, together=together(grid.depths)), seeds
    if kind == "factored":
        return replace(shape, rates=divisor(rates, size // (2 * samples * flags))), used
    at_once = CACHED // size**2
    shape = replace(shape, rates=divisor(rates, at_once // flags))
    # At least two runs, so that two cores have work.
    return shape, used * divisor(seeds // used, min(at_once // (flags * shape.rates), seeds // (2 * used)))


def together(depths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Places of depths in groups that run side by side on an accelerator, from the deepest down: as many as
    waste less than half on layers beyond their own. () where each would be alone."""
    groups: list[list[int]] = []
    for place in sorted(range(len(depths)), key=lambda place: -depths[place]):
        last = groups[-1] if groups else []
        most = depths[last[0]] if last else 0
        if last and 2 * (sum(depths[i] for i in last) + depths[place]) > most * (len(last) + 1):
            last.append(place)
        else:
            groups.append([place])
    return tuple(map(tuple, groups)) if len(groups) < len(depths) else ()


def runs_at_once(shape: Shape, itemsize: int) -> int:
    """How many runs of a program go on at the same time: one a core, where products alone don't keep all
    cores busy."""
    large = itemsize * shape.layers * shape.size**2 > SHARED_BYTES
    alone = large or not on_cpu() or jax.local_device_count() > 1
    return 1 if alone else cores()


@Program
def _train(
    problem, heldout, key, seeds, rates, width, depths, shape: Shape, devices: int
) -> dict[str, Array]:
    """`_grid.program` with its seeds shared out over devices."""
    every = partial(program, shape=shape)
    if devices > 1:
        one, parts = PartitionSpec(), PartitionSpec("seed")
        mesh = Mesh(np.array(jax.local_devices()[:devices]), ("seed",))
        specs = (one, one, one, parts, one, one, one)
        every = jax.shard_map(
            every, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(None, "seed"), check_vma=False
        )
    return every(problem, heldout, key, seeds, rates, width, depths)


class _Job:
    """One grid, cut into groups of seeds that one executable serves."""

    def __init__(self, problem: Problem, heldout: Heldout | None, master: int, grid: Grid):
        self.problem, self.heldout, self.grid, dtype = problem, heldout, grid, problem.dtype
        devices = jax.local_device_count()
        self.shape, group = shape_of(problem.samples, grid, jax.default_backend(), devices)
        self.devices = gcd(group, devices)
        # What jax.random.key(master) holds, without a program of its own.
        self.key = np.asarray([0, master], np.uint32)
        sizes = np.asarray(grid.width, np.int32), np.asarray(grid.depths, np.int32)
        self.rest = np.asarray(grid.rates, dtype), *sizes
        self.groups = [
            np.asarray(grid.seeds[i : i + group], np.uint32) for i in range(0, len(grid.seeds), group)
        ]

    def arguments(self, seeds: np.ndarray) -> tuple:
        return self.problem, self.heldout, self.key, seeds, *self.rest, self.shape, self.devices

    def run(self, seeds: np.ndarray) -> dict[str, np.ndarray]:
        return jax.device_get(_train(*self.arguments(seeds)))

    def joined(self, parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        whole = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
        return {
            name: x[..., : self.grid.width] if name in ("features", "gradients") else x
            for name, x in whole.items()
        }


def compile_grid(problem: Problem, heldout: Heldout | None, grid: Grid) -> Executable:
    """The executable that trains `grid`, compiled once a process."""
    job = _Job(problem, heldout, 0, grid)
    with in_precision(problem.dtype):
        return _train.executable(*job.arguments(job.groups[0]))


def train_grids(
    problem: Problem, heldout: Heldout | None, master: int, grids: Sequence[Grid]
) -> list[dict[str, np.ndarray]]:
    """Train all networks of `grids`, that of a seed drawn from `stream(jax.random.key(master), seed)`, as
    `train_weights` would.

    For each grid, arrays as in `_grid.program`, leading axes (D depths, S, R, F, K), coordinates cut to the
    width. A CPU compiles and runs as many at a time as it has cores. Raises ValueError where the master seed
    is no 32-bit number.
    """
    if not 0 <= master < 2**32:
        raise ValueError(f"the master seed must lie in 0 … 2**32 - 1; received {master}")
    jobs = [_Job(problem, heldout, master, grid) for grid in grids]
    count = min(runs_at_once(job.shape, problem.dtype.itemsize) for job in jobs)
    # One group of each grid first, so that their programs are compiled at the same time.
    every = sorted(
        ((place, i) for i, job in enumerate(jobs) for place in range(len(job.groups))), key=lambda at: at[0]
    )
    with in_precision(problem.dtype):
        runs = in_threads([partial(jobs[i].run, jobs[i].groups[place]) for place, i in every], count)
    of = lambda i: [run for (_, j), run in zip(every, runs, strict=True) if j == i]
    return [job.joined(of(i)) for i, job in enumerate(jobs)]
