"""What a batch computes, counted from its sizes, and how long that takes at a machine's speeds.

A conditional-Gaussian layer answers r rows against A = K·P earlier ones: about 20 r A n + 18 r² n operations
in thin products, which take as long as reading the layer's families of A rows over and over takes. So a time
is the larger of arithmetic and memory traffic, plus a fixed cost for each small operation, which is most of
it at small widths.
"""

from dataclasses import dataclass

import jax

from nfd_jax._host import cores
from nfd_jax.finite import shape_of
from nfd_jax.runtime import one_by_one
from nfd_jax.sweep._machine import Machine
from nfd_jax.sweep._memory import seed_devices
from nfd_jax.sweep._task import Task

TOUCHES, THIN = 12, 12
"""How often a layer's families of A rows are read or written in one pass; and the rows at which a product
runs at half the rate of a square one. Both measured, on CPUs."""


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
        return (
            computing
            + self.operations * on.operation_seconds / (cores() if one_by_one() else 1)
            + self.normals / on.normals
        )


def work(task: Task) -> Work:
    """All that a batch computes."""
    if task.tolerance is not None:
        return _estimate(task)
    rates, total, noises = len(task.rates), Work(), set()
    if task.solves_limit:
        noises.add(task.depth_steps)
        total += _system(task, task.depth_steps) * (rates * len(task.limit_flags))
    if task.dense:
        total += _dense(task)
        if "pairs" in task.needs:  # trained once more, each with limits on its innovations
            runs = rates * len(task.flags)
            total += _dense(task) + _system(task, task.depth_steps) * (
                runs * len(task.depths) * len(task.limit_flags)
            )
    else:
        for depth in task.depths:
            noises.add(task.noise_depths[depth])
            total += _system(task, depth) * (rates * len(task.flags))
    total += Work(normals=_redrawn(task) if task.redraws else 0)
    drawn = 0 if task.bounded else 2 * task.samples
    drawn += task.questions_first
    total += Work(normals=sum(task.room * (drawn * layers + task.inputs) for layers in noises))
    if noises:
        total += Work(normals=task.room * task.questions * task.asked_layers)
    if task.reference:  # shared by all widths
        total += work(task.reference_task.at(seeds=(0,))) * (1 / len(task.widths))
    return total * len(task.seeds)


def _estimate(task: Task) -> Work:
    """Of limits to a tolerance: outputs of N particles have a variance of about 1/N, nearly all of which lies
    in the coarsest systems; half of the tolerance is two standard errors. Finer ones double the work."""
    assert task.tolerance is not None
    particles, steps = round(16 / task.tolerance**2), max(2, round(2 * task.problem.horizon))
    coarse = task.at(width=particles)
    noise = Work(normals=particles * (2 * task.samples * steps + task.inputs))
    each = (_system(coarse, steps) + noise) * 2
    repetitions = len(task.seeds) if task.data_by_seed else 1
    return each * (len(task.rates) * len(task.limit_flags) * repetitions)


def _redrawn(task: Task) -> float:
    """Normals drawn in the passes of a seed, at the finest layers they are sums of: with a bounded history
    those of the pass, else both families of a layer again."""
    layers = len(task.limit_flags) * task.depth_steps
    layers += 0 if task.dense else sum(len(task.flags) * finest for finest in task.noise_depths.values())
    if task.bounded:
        return 2 * task.steps * task.followed * task.room * layers * len(task.rates)
    passes = 3 * task.steps + 2 * task.probe
    return 2 * task.samples * task.room * passes * layers * len(task.rates)


def _system(task: Task, layers: int) -> Work:
    """One run of a network or limit: two passes a step, one for the held-out samples, and two over the probe
    of all steps, which with a bounded history runs along."""
    width, samples, seen = task.room, task.samples, task.directions

    def passes(count: int, rows: int) -> Work:
        flops = (20 * seen + 18 * rows) * rows * width
        moved = TOUCHES * seen * width * task.itemsize
        return Work(flops, 0, moved, 12 + 5 * rows, flops * THIN / rows) * (count * layers)

    total = passes(2 * task.steps, task.followed)
    if task.questions_first:
        total += passes(1, task.questions_first)
    if task.asks_more:
        total += passes(task.steps, task.heldout)
    if task.probe and not task.bounded:
        total += passes(2, samples)
    return total


def _dense(task: Task) -> Work:
    """All networks of a seed with weight matrices: two passes a step, held-out and probe samples among their
    rows, and an update."""
    grid, samples = task.grid, task.samples
    shape, _ = shape_of(samples, grid, jax.default_backend(), seed_devices())
    rows = 2 * task.rows + task.heldout + (task.rows if task.probe else 0)
    layers, matrix, thin = task.steps * sum(grid.depths), shape.size**2, samples * shape.size
    runs, kinds = len(grid.flags) * len(grid.rates), 2 if shape.independent else 1
    if (
        shape.form == "factored"
    ):  # matrices are read for all rates of a run together, corrections twice in each pass
        flops = 2 * rows * matrix + 4 * rows * thin
        moved = 2 * kinds * matrix / (len(grid.flags) * shape.rates) + 4 * thin
    else:  # read in each pass, read and rewritten by the update
        flops, moved = 2 * (rows + task.rows) * matrix, 4 * matrix
    normals = shape.size * (kinds * max(grid.depths) * shape.size + task.inputs)
    each = Work(flops, 0, moved * task.itemsize, 12 / (len(grid.flags) * shape.rates))
    return each * (layers * runs) + Work(normals=normals)
