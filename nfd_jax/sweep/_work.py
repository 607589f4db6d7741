"""What a batch computes, counted from its sizes, and how long that takes at a machine's speeds.

A conditional-Gaussian layer answers r rows against A = K·P earlier ones: about 20 r A n + 18 r² n operations in thin products,
which take as long as reading the layer's families of A rows over and over takes. So a time is the larger of arithmetic and memory
traffic, plus a fixed cost for each small operation, which is most of it at small widths.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax

from nfd_jax.finite._engine import shape_of
from nfd_jax.runtime import cores, one_by_one
from nfd_jax.store._batch import HELDOUT, Batch, noise_depth, simulator
from nfd_jax.sweep._grids import grid_of
from nfd_jax.sweep._machine import Machine
from nfd_jax.sweep._memory import INPUTS, seed_devices

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

TOUCHES, THIN = 12, 12
"""How often a layer's families of A rows are read or written in one pass; and the rows at which a product runs at half the rate of
a square one. Both measured, on CPUs."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations, normals drawn, bytes moved and small operations started.

    `slowdown`: the operations that a square product could have done besides, because thin ones run slower.
    """

    flops: float = 0
    normals: float = 0
    bytes: float = 0
    operations: float = 0
    slowdown: float = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def __mul__(self, times: float) -> "Work":
        return Work(*(times * a for a in self._all()))

    def _all(self) -> tuple[float, ...]:
        return self.flops, self.normals, self.bytes, self.operations, self.slowdown

    def seconds(self, on: Machine) -> float:
        """Without compilation; runs on cores of their own start their small operations side by side."""
        computing = max((self.flops + self.slowdown) / on.flops, self.bytes / on.bytes)
        return computing + self.operations * on.operation_seconds / (cores() if one_by_one() else 1) + self.normals / on.normals


def work(config: "SweepConfig", batch: Batch) -> Work:
    """All that a batch computes."""
    p, limit = config.problem, config.limit
    solved = limit is not None and (batch.kind == "limit" or limit.particles == "matched")
    inputs = p.input_dim if p.dataset == "gaussian" else INPUTS.get(p.dataset, 0)
    rates, total, noises = len(p.learning_rates), Work(), set()
    if solved and limit is not None:
        noises.add(limit.depth_steps)
        total += _system(config, batch.width, limit.depth_steps) * (rates * len(limit.backward_weights))
    if batch.depths and simulator(config, batch.width) == "dense":
        total += _dense(config, batch, inputs)
    else:
        for depth in batch.depths:
            noises.add(noise_depth(config, depth))
            total += _system(config, batch.width, depth) * (rates * len(config.finite.backward_weights))
    if batch.redrawn:
        total += Work(normals=_redrawn(config, batch))
    total += Work(normals=sum(batch.width * (2 * p.steps * p.batch_size * layers + inputs) for layers in noises))
    return total * len(batch.seeds)


def _redrawn(config: "SweepConfig", batch: Batch) -> float:
    """Normals drawn again by all passes of a seed: both families of a layer, at the finest layers they are sums of."""
    p, limit, finite = config.problem, config.limit, config.finite
    layers = len(limit.backward_weights) * limit.depth_steps if limit is not None else 0
    layers += sum(len(finite.backward_weights) * noise_depth(config, depth) for depth in batch.depths)
    passes = 3 * p.steps + (p.batches == "stream")
    return 2 * p.steps * p.batch_size * batch.width * passes * layers * len(p.learning_rates)


def _system(config: "SweepConfig", width: int, layers: int) -> Work:
    """One run of a network or limit: two passes a step, one for the held-out samples, and the probe's once."""
    p = config.problem
    samples, itemsize = p.steps * p.batch_size, 8 if config.precision == "float64" else 4

    def passes(count: int, rows: int) -> Work:
        flops = (20 * samples + 18 * rows) * rows * width
        moved = TOUCHES * samples * width * itemsize
        return Work(flops, 0, moved, 12 + 5 * rows, flops * THIN / rows) * (count * layers)

    fresh = Work(normals=HELDOUT * layers * width)
    probe = passes(1, samples) + Work(normals=samples * layers * width) if p.batches == "stream" else Work()
    return passes(2 * p.steps, p.batch_size) + passes(p.steps, HELDOUT) + fresh + probe


def _dense(config: "SweepConfig", batch: Batch, inputs: int) -> Work:
    """All networks of a seed with weight matrices: two passes a step, held-out and probe samples among their rows, and an update."""
    p, grid = config.problem, grid_of(config, batch)
    samples, itemsize = p.steps * p.batch_size, 8 if config.precision == "float64" else 4
    shape, _ = shape_of(samples, grid, jax.default_backend(), seed_devices())
    rows = 2 * p.batch_size + HELDOUT + (p.batch_size if p.batches == "stream" else 0)
    layers, matrix, thin, runs = p.steps * sum(grid.depths), shape.size**2, samples * shape.size, len(grid.flags) * len(grid.rates)
    kinds = 1 if shape.independent is None else 2
    if shape.form == "factored":  # matrices are read for all rates of a run together, corrections twice in each pass
        flops, moved = 2 * rows * matrix + 4 * rows * thin, 2 * kinds * matrix / (len(grid.flags) * shape.rates) + 4 * thin
    else:  # read in each pass, read and rewritten by the update
        flops, moved = 2 * (rows + p.batch_size) * matrix, 4 * matrix
    normals = shape.size * (kinds * max(grid.depths) * shape.size + inputs)
    return Work(flops, 0, moved * itemsize, 12 / (len(grid.flags) * shape.rates)) * (layers * runs) + Work(normals=normals)
