"""Which cells run together: a sweep's grid cut into batches, each one unit of work and one transaction of the store.

All depths of a width run together: a matched limit is solved once for them, and one draw and one program serve them. What else there
is to choose is weighed at this machine's measured speeds (`_work`, `_machine`), and the choice is part of the plan:

    networks with weight matrices    a wider width's program instead of one more, where padding costs less than compiling
    seeds                            as many as fit in memory, but no more than are done within BATCH_SECONDS
    depths                           one by one where they don't fit, or take longer than that and nothing but a program is shared
    noise                            drawn anew at each use where keeping it would not fit
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from nfd_jax.finite._engine import program_sizes
from nfd_jax.store._batch import Batch, simulator
from nfd_jax.sweep import _memory
from nfd_jax.sweep._machine import Machine, machine
from nfd_jax.sweep._work import work

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

BATCH_SECONDS = 60.0
"""What a stopped run may lose, unless a single seed takes longer."""

CPU_SEEDS, ACCELERATOR_SEEDS = 4, 16
"""Most seeds of a batch on each device. More save no compilation, and a CPU gains nothing from them side by side."""

SUSTAINED = 0.35
"""Share of a large product's rate that networks reach which are narrow enough to be padded; measured, on CPUs."""

PROGRAM = 1.8
"""What one more program costs, in units of a small one's compilation: tracing and loading it each time, compiling it now and then."""


def make_plan(config: "SweepConfig", covered: set[tuple[int, int, int]] = frozenset(), *, memory: int | None = None) -> list[Batch]:
    """Batches of all cells (width, depth, seed) of `config` not in `covered`, widest last so that first results come early.

    `memory`: the bytes there are, by default what the device or the host has free.
    """
    on, memory = machine(config.precision), _memory.device_memory() if memory is None else memory
    return [batch for group in _alike(config, covered, on, memory) for batch in _cut(config, group, on, memory)]


def _alike(config: "SweepConfig", covered: set[tuple[int, int, int]], on: Machine, memory: int) -> Iterator[Batch]:
    """All seeds that lack the same cells of a width, or of a limit on its own, as one batch."""
    limit, finite = config.limit, config.finite
    if limit is not None and limit.particles != "matched":
        seeds = tuple(seed for seed in range(config.seeds) if (int(limit.particles), 0, seed) not in covered)
        if seeds:
            yield Batch("limit", int(limit.particles), (), seeds)
    sizes = _sizes(config, on) if finite is not None else {}
    for width in sorted(finite.widths) if finite is not None else []:
        for depths in _together(config, Batch("cells", width, finite.depths, (0,), size=sizes.get(width)), on, memory):
            by_missing: dict[tuple[int, ...], list[int]] = {}
            for seed in range(config.seeds):
                missing = tuple(depth for depth in depths if (width, depth, seed) not in covered)
                by_missing.setdefault(missing, []).append(seed)
            yield from (
                Batch("cells", width, missing, tuple(seeds), size=sizes.get(width)) for missing, seeds in by_missing.items() if missing
            )


def _together(config: "SweepConfig", one: Batch, on: Machine, memory: int) -> list[tuple[int, ...]]:
    """The depths of a width, in groups that run together; `one` seed of all of them."""
    matched = config.limit is not None and config.limit.particles == "matched"
    if matched or one.size is not None:
        return [one.depths]
    long = work(config, one).seconds(on) > BATCH_SECONDS
    return [(depth,) for depth in one.depths] if long or _memory.redraws(config, one, memory=memory) else [one.depths]


def _cut(config: "SweepConfig", every: Batch, on: Machine, memory: int) -> list[Batch]:
    """`every` in groups of seeds, of one size where that divides: every other size is one more compilation."""
    count, devices = len(every.seeds), _memory.seed_devices()
    every = replace(every, redrawn=_memory.redraws(config, every, memory=memory))
    seconds = work(config, replace(every, seeds=every.seeds[:1])).seconds(on) / devices
    most = min(count, devices * (CPU_SEEDS if _memory.on_cpu() else ACCELERATOR_SEEDS), max(1, int(BATCH_SECONDS / seconds)))
    most = _memory.seeds_at_once(config, every, most=most, memory=memory)
    size = max(k for k in range(1, most + 1) if count % k == 0)
    return [replace(every, seeds=every.seeds[i : i + size]) for i in range(0, count, size)]


def _sizes(config: "SweepConfig", on: Machine) -> dict[int, int]:
    """Of each width whose networks have weight matrices, the coordinates of the program that trains them."""
    p, finite = config.problem, config.finite
    dense = [width for width in finite.widths if simulator(config, width) == "dense"]
    flags, samples = len(finite.backward_weights), p.steps * p.batch_size
    flops = 6.0 * samples * config.seeds * len(p.learning_rates) * flags * sum(finite.depths)
    normals = config.seeds * flags * max(finite.depths)
    entry = flops / (SUSTAINED * on.flops) + normals / on.normals
    return program_sizes(dense, samples, entry=entry, program=PROGRAM * on.compile_seconds)
