"""Which cells run together: a sweep's grid cut into batches, each one unit of work and one transaction of the
store.

All depths of a width run together: a matched limit is solved once for them, and one draw and one program
serve them. What else there is to choose is weighed at the speeds of a machine of this kind (`_work`,
`_machine`), never at measured ones, as rounding hangs on it; and the choice is part of the plan:

    programs                  those of a wider width instead of own ones, where padding costs less than
                              compiling
    seeds                     as many as fit in memory, but no more than are done within BATCH_SECONDS
    depths                    one by one where they don't fit, or take longer than that and nothing but a
                              program is shared
    noise                     drawn anew at each use where keeping it would not fit
"""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from nfd_jax.finite import program_sizes
from nfd_jax.measures import simulator_of
from nfd_jax.runtime import on_cpu
from nfd_jax.store import Batch
from nfd_jax.sweep import _memory
from nfd_jax.sweep._compilation import COMPILE, compile_seconds
from nfd_jax.sweep._machine import Machine, typical
from nfd_jax.sweep._task import Task
from nfd_jax.sweep._work import work

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

BATCH_SECONDS = 60.0
"""What a stopped run may lose, unless a single seed takes longer."""

CPU_SEEDS, ACCELERATOR_SEEDS = 4, 16
"""Most seeds of a batch on each device. More save no compilation, and a CPU gains nothing from them side by
side."""

SUSTAINED = 0.35
"""Share of a large product's rate that networks reach which are narrow enough to be padded; measured, on
CPUs."""

PROGRAM = COMPILE["dense"] / 2
"""What one more program of networks with matrices costs, in units of a small one's compilation: two are
traced and compiled side by side. In full, as most sweeps have sizes that no process had before."""


def make_plan(
    config: "SweepConfig", covered: set[tuple[int, int, int]] = frozenset(), *, memory: int | None = None
) -> list[Batch]:
    """Batches of all cells (width, depth, seed) of `config` not in `covered`, widest last so that first
    results come early.

    `memory`: the bytes there are, by default what the device or the host has free.
    """
    return _Planner(config, _memory.device_memory() if memory is None else memory).plan(covered)


def shared_sizes(config: "SweepConfig", *, memory: int | None = None) -> dict[int, int]:
    """Of each width whose conditional-Gaussian systems share their programs with another's, the coordinates
    of those (`Batch.size`)."""
    if config.finite is None:
        return {}
    return _Planner(config, _memory.device_memory() if memory is None else memory).shared_sizes()


def too_large(config: "SweepConfig", *, processes: int = 1, memory: int | None = None) -> list[str]:
    """A line for each cell of `config` that fits nowhere, however planned; `processes` share the memory."""
    finite, limit = config.finite, config.limit
    batches = (
        [Batch("cells", width, finite.depths, (0,), size=width) for width in finite.widths] if finite else []
    )
    if limit is not None and limit.alone is not None:
        batches.append(Batch("limit", limit.alone, (), (0,)))
    tasks = []
    for task in (Task.of(config, batch) for batch in batches):
        whole = task.solves_limit or task.dense or not task.depths
        tasks += [task] if whole else [task.at(depths=(depth,)) for depth in task.depths]
    again = [task.at(redrawn=_memory.redraws(task, memory=memory)) for task in tasks]
    return _memory.check_fits(again, memory=memory, processes=processes)


class _Planner:
    """One plan in the making."""

    def __init__(self, config: "SweepConfig", memory: int):
        self.config, self.memory = config, memory

    @cached_property
    def on(self) -> Machine:
        """The speeds that choices are weighed at."""
        return typical()

    def plan(self, covered: set[tuple[int, int, int]]) -> list[Batch]:
        """The batches."""
        return [batch for group in self._alike(covered) for batch in self._cut(group)]

    def _alike(self, covered: set[tuple[int, int, int]]) -> Iterator[Batch]:
        """All seeds that lack the same cells of a width, or of a limit on its own, as one batch."""
        config, limit, finite = self.config, self.config.limit, self.config.finite
        if limit is not None and limit.alone is not None:
            seeds = tuple(seed for seed in range(config.seeds) if (limit.alone, 0, seed) not in covered)
            if seeds:
                yield Batch("limit", limit.alone, (), seeds)
        if finite is None:
            return
        sizes = self._dense_sizes() | self.shared_sizes()
        for width in sorted(finite.widths):
            for depths in self._together(Batch("cells", width, finite.depths, (0,), size=sizes.get(width))):
                by_missing: dict[tuple[int, ...], list[int]] = {}
                for seed in range(config.seeds):
                    missing = tuple(depth for depth in depths if (width, depth, seed) not in covered)
                    by_missing.setdefault(missing, []).append(seed)
                for missing, seeds in by_missing.items():
                    if missing:
                        yield Batch("cells", width, missing, tuple(seeds), size=sizes.get(width))

    def _together(self, one: Batch) -> list[tuple[int, ...]]:
        """The depths of a width, in groups that run together; `one` seed of all of them."""
        task = Task.of(self.config, one)
        if task.solves_limit or task.dense or len(one.depths) == 1:
            return [one.depths]
        apart = _memory.redraws(task, memory=self.memory) or work(task).seconds(self.on) > BATCH_SECONDS
        return [(depth,) for depth in one.depths] if apart else [one.depths]

    def _cut(self, every: Batch) -> list[Batch]:
        """`every` in groups of seeds, of one size where that divides: every other size is one more
        compilation."""
        task = Task.of(self.config, every)
        if task.tolerance is not None:  # repetitions that learn from the same samples share one estimate
            return [task.at(seeds=(seed,)).batch for seed in task.seeds] if task.data_by_seed else [every]
        count, devices = len(every.seeds), _memory.seed_devices()
        task = task.at(redrawn=_memory.redraws(task, memory=self.memory))
        most = min(count, devices * (CPU_SEEDS if on_cpu() else ACCELERATOR_SEEDS))
        if most > 1:
            seconds = work(task.at(seeds=every.seeds[:1])).seconds(self.on) / devices
            most = min(most, max(1, int(BATCH_SECONDS / seconds)))
        most = _memory.seeds_at_once(task, most=most, memory=self.memory)
        # Limits of two seeds are set side by side, where there is room for two.
        pair = "law" in task.measures and _memory.seeds_at_once(task, most=min(2, count), memory=self.memory)
        least = int(pair) or 1
        return [task.at(seeds=seeds).batch for seeds in _groups(every.seeds, most, least)]

    def shared_sizes(self) -> dict[int, int]:
        """Which matrix-free widths run in the arrays of a wider one, and how wide those are: where padding
        costs less than another program. With few coordinates time goes into starting small operations, and
        padding adds none."""
        config, finite, sizes = self.config, self.config.finite, {}
        one_seed = lambda width: Task.of(config, Batch("cells", width, finite.depths, (0,)))
        tasks = {width: one_seed(width) for width in finite.widths}
        for width in sorted((width for width, task in tasks.items() if task.matrix_free), reverse=True):
            wider = min(sizes.values(), default=width)
            own, padded, other = tasks[width], tasks[width].at(size=wider), tasks[wider]
            padding = config.seeds * (work(padded).seconds(self.on) - work(own).seconds(self.on))
            compiling = compile_seconds((own, other), self.on) - compile_seconds((padded, other), self.on)
            fits = not padded.redraws and not _memory.redraws(padded, memory=self.memory)
            sizes[width] = wider if padding <= compiling and fits else width
        shared = Counter(sizes.values())
        return {width: size for width, size in sizes.items() if shared[size] > 1}

    def _dense_sizes(self) -> dict[int, int]:
        """Of each width whose networks have weight matrices, the coordinates of the program that trains
        them."""
        config, finite = self.config, self.config.finite
        dense = [width for width in finite.widths if simulator_of(config, width) == "dense"]
        if len(dense) < 2:
            return {width: width for width in dense}
        flags, samples = len(finite.backward_weights), config.problem.steps * config.problem.batch_size
        flops = 6.0 * samples * config.seeds * len(config.problem.learning_rates) * flags * sum(finite.depths)
        normals = config.seeds * flags * max(finite.depths)
        entry = flops / (SUSTAINED * self.on.flops) + normals / self.on.normals
        costs = {"entry": entry, "program": PROGRAM * self.on.compile_seconds}
        return program_sizes(dense, samples, **costs, linear=config.problem.optimizer.linear)


def _groups(seeds: tuple[int, ...], most: int, least: int) -> list[tuple[int, ...]]:
    """`seeds` in groups of at most `most`, all of one size where one from `least` on divides; else the last
    takes what is left."""
    count, most = len(seeds), max(most, least)
    sizes = [k for k in range(least, most + 1) if count % k == 0]
    size = max(sizes, default=least)
    starts = list(range(0, count, size))
    if count - starts[-1] < least and len(starts) > 1:
        starts.pop()
    return [seeds[i:j] for i, j in zip(starts, [*starts[1:], count], strict=True)]
