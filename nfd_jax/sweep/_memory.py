"""How much memory a batch takes, known before it runs, and how much there is.

The measure of everything is a *family*: one row of n coordinates for each of the A = K·P samples in each of ℓ layers. A network or
limit in training holds two, the bases of its queries, and six (A, A) blocks a layer; noise is two more unless it is drawn anew at
each use, a pass over r rows a few times r/A of one. Trajectories kept for comparison hold the layers of the t grid alone. Counted in
numbers and checked against what XLA reports for the compiled programs.
"""

import os
from contextlib import suppress
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

from nfd_jax.config._errors import ConfigError
from nfd_jax.runtime import cores
from nfd_jax.store._batch import HELDOUT, Batch, noise_depth, simulator
from nfd_jax.store._layout import intervals

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

USABLE = 0.8
"""Share of the free memory that a batch may take: the compiler's own needs and the host's copies come on top."""

INPUTS = {"digits": 64, "fashion_mnist": 784, "cifar10": 3072}
"""Input dimensions of the datasets; an .npz file is not looked into, as its U is small beside everything else."""


class CellTooLarge(ConfigError):
    """Cells that fit on no device at hand. `problems`: a line for each, with its size and what to lower."""


def batch_bytes(config: "SweepConfig", batch: Batch, *, at_once: int = 1) -> int:
    """Bytes a batch holds at its peak on each device that takes part, where `at_once` runs go on at the same time."""
    batch = replace(batch, seeds=batch.seeds[: len(batch.seeds) // devices_for(batch)])
    return max(held + own for held, own in program_bytes(config, batch, at_once=at_once).values())


def seed_devices() -> int:
    """Devices that take a batch's seeds side by side: all local accelerators, or the CPU as one."""
    import jax

    return 1 if on_cpu() else jax.local_device_count()


def on_cpu() -> bool:
    """Whether JAX computes on the CPU."""
    import jax

    return jax.default_backend() == "cpu"


def devices_for(batch: Batch) -> int:
    """Accelerators among which a batch's seeds are shared out equally; CPU devices have one memory between them."""
    return gcd(len(batch.seeds), seed_devices())


def program_bytes(config: "SweepConfig", batch: Batch, *, at_once: int = 1) -> dict[str, tuple[int, int]]:
    """Of each program of a batch the bytes (held, own): what is there when it runs, and its temporaries with its results."""
    count = _Count(config, batch, at_once)
    return {name: (count.itemsize * held, count.itemsize * own) for name, (held, own) in count.programs().items()}


class _Count:
    """Numbers (not bytes) that the parts of a batch hold."""

    def __init__(self, config: "SweepConfig", batch: Batch, at_once: int):
        from nfd_jax.runtime import one_by_one

        self.config, self.batch, self.at_once = config, batch, at_once
        p, limit = config.problem, config.limit
        self.seeds, self.width, self.rows, self.rates = len(batch.seeds), batch.width, p.batch_size, len(p.learning_rates)
        self.samples, self.itemsize = p.steps * p.batch_size, 8 if config.precision == "float64" else 4
        self.probe = p.batches == "stream"
        self.inputs = p.input_dim if p.dataset == "gaussian" else INPUTS.get(p.dataset, 0)
        self.depths, self.deepest = len(batch.depths), max(batch.depths, default=0)
        self.flags = len(config.finite.backward_weights) if batch.depths else 0
        self.dense = bool(batch.depths) and simulator(config, batch.width) == "dense"
        solved = limit is not None and (batch.kind == "limit" or limit.particles == "matched")
        self.limit_flags, self.steps = (len(limit.backward_weights), limit.depth_steps) if solved else (0, 0)
        self.layers = max(self.steps, *(0 if self.dense else noise_depth(config, depth) for depth in batch.depths), 0)
        self.apart = one_by_one()

    def family(self, layers: int) -> int:
        return self.samples * layers * self.width

    def noise(self, layers: int) -> int:
        return 2 * self.family(1 if self.batch.redrawn else layers) + self.width * self.inputs

    def kept(self, flags: int) -> int:
        """Trajectories of one seed, at every learning rate and so many flags."""
        return self.rates * flags * (3 if self.probe else 2) * self.family(intervals(self.config) + 1)

    def learning(self, layers: int, coupling: bool) -> int:
        """One run of a conditional-Gaussian system: its history, and the widest of its passes, held-out and probe samples'."""
        passes = max((9 if coupling else 7) * self.rows, 4 * HELDOUT, 6 * self.samples if self.probe else 0)
        return (2 * self.samples + passes) * layers * self.width + 6 * layers * self.samples**2

    def mapped(self, each: int, kept: int, shared: int) -> int:
        """A program that takes seeds in turn: one seed's copy of what all share, what each run holds, and results twice."""
        beside = max(1, self.at_once // (2 * self.rates)) if self.seeds > 1 else 0
        return beside * shared + self.at_once * each + (self.seeds + 1) * kept

    def dense_runs(self) -> int:
        """All runs of the engine's program that go on at the same time: weights, drawn and in training, and passes."""
        import jax

        from nfd_jax.finite._engine import runs_at_once, shape_of
        from nfd_jax.sweep._grids import grid_of

        grid = grid_of(self.config, self.batch)
        shape, seeds = shape_of(self.samples, grid, jax.default_backend(), seed_devices())
        runs = min(runs_at_once(shape, self.itemsize), self.seeds // seeds)
        beside = seeds * len(shape.flags) * shape.rates
        drawn = seeds * shape.layers * shape.size**2
        kinds = 1 if shape.independent is None else 2
        if shape.form == "factored":
            trained = 2 * shape.layers * beside * self.samples * shape.size
        else:  # and the gap between two copies of the weights, or a second one of the only copy
            trained = shape.layers * beside * shape.size**2 + drawn
        rows = (3 if self.probe else 2) * self.rows
        return runs * (kinds * drawn + trained + 2 * shape.layers * beside * rows * shape.size)

    def innovations(self) -> int:
        """One dense network in training, and its innovations, refined to the limit's steps."""
        trained = 3 * self.deepest * self.width**2 + 4 * self.family(self.deepest)
        return trained + self.noise(self.deepest) + self.noise(self.steps)

    def programs(self) -> dict[str, tuple[int, int]]:
        """Of each program of a batch (held, own): what is there when it runs, its arguments included, and its temporaries and results."""
        found: dict[str, tuple[int, int]] = {}
        if self.limit_flags or (self.flags and not self.dense):
            found |= self.one_by_one() if self.apart else self.together()
        measured, per_depth = self.config.measure, self.seeds * self.kept(self.flags)
        held = self.seeds * self.kept(self.limit_flags) + (0 if self.apart else self.seeds * self.noise(self.layers))
        if self.dense:
            per_depth = per_depth if "spectrum" in measured else 0
            found["dense"] = held, self.dense_runs() + 2 * self.depths * per_depth
            if "limit_error" in measured:
                others = (self.at_once - 1) * self.innovations() + self.at_once * self.learning(self.steps, False)
                found["innovations"] = held + self.depths * per_depth + others, self.innovations()
        if self.flags:
            # Singular values are taken on the host, in float64 and of a few copies.
            found["measures"] = held + self.depths * per_depth, (5 if "spectrum" in measured else 1) * per_depth
        return found

    def one_by_one(self) -> dict[str, tuple[int, int]]:
        """Programs of single runs, so many on cores of their own; a seed's runs share its noise, and all are joined in the end."""
        noise, kept = self.noise(self.layers), self.kept(1) // self.rates
        own = {"noise": 2 * noise}
        if self.limit_flags:
            own["limit"] = self.learning(self.steps, False) + 2 * kept
        if self.flags and not self.dense:
            coupling = "coupling" in self.config.measure
            own["network"] = self.learning(self.deepest, coupling) + 2 * kept
        runs = self.seeds * self.rates * (self.limit_flags + (0 if self.dense else self.flags * self.depths))
        coarse = self.noise(self.deepest)
        others = (min(self.at_once, runs) - 1) * (noise + coarse + max(own.values()))
        return {name: (others + noise + coarse + 2 * runs * kept, mine) for name, mine in own.items()}

    def together(self) -> dict[str, tuple[int, int]]:
        """Programs that take all seeds."""
        noise, kept, limits = self.noise(self.layers), self.kept(self.flags), self.kept(self.limit_flags)
        found = {"noise": (0, (self.seeds + 1) * noise)}
        if self.limit_flags:
            found["limit"] = self.seeds * noise, self.mapped(self.learning(self.steps, False), limits, noise)
        if self.flags and not self.dense:
            coarse, coupling = self.noise(self.deepest), "coupling" in self.config.measure
            own = self.mapped(self.learning(self.deepest, coupling), kept, coarse)
            found["network"] = self.seeds * (noise + coarse + limits), own
        return found


def device_memory() -> int:
    """Bytes a batch could have: the device's limit as JAX reports it, or else what is free of the host's memory."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    return _host_memory()


def _host_memory() -> int:
    """Free bytes of the host: what Linux calls available, within the limit of the control group; elsewhere all there is."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if meminfo.exists():
        found = [line.split() for line in meminfo.read_text().splitlines()]
        free = next((1024 * int(words[1]) for words in found if words[:1] == ["MemAvailable:"]), free)
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return free


def most_at_once(config: "SweepConfig", batch: Batch) -> int:
    """Runs that may go on at the same time: one a core on a CPU; else all that a device has of the batch, vectorized together."""
    from nfd_jax.runtime import one_by_one

    return cores() if one_by_one() else 2 * len(config.problem.learning_rates) * len(batch.seeds) // devices_for(batch)


def runs_at_once(config: "SweepConfig", batch: Batch, *, most: int, memory: int | None = None) -> int:
    """How many runs go on at the same time: the most that divide `most` and fit, at least 1."""
    free = USABLE * (device_memory() if memory is None else memory)
    fitting = (k for k in range(most, 0, -1) if most % k == 0 and batch_bytes(config, batch, at_once=k) <= free)
    return next(fitting, 1)


def seeds_at_once(config: "SweepConfig", batch: Batch, *, most: int, memory: int | None = None) -> int:
    """How many seeds a batch like this may have: as many as fit, from 1 to `most`."""
    free = USABLE * (device_memory() if memory is None else memory)
    batches = (replace(batch, seeds=tuple(range(k))) for k in range(most, 1, -1))
    return next((len(batch.seeds) for batch in batches if batch_bytes(config, batch) <= free), 1)


def redraws(config: "SweepConfig", batch: Batch, *, memory: int | None = None) -> bool:
    """Whether a batch's noise must be drawn anew at each use: kept, one seed's would not fit on a device, nor on all together."""
    kept, free = replace(batch, seeds=batch.seeds[:1], redrawn=False), USABLE * (device_memory() if memory is None else memory)
    return batch_bytes(config, kept) // spread(config, kept, memory=memory) > free


def spread(config: "SweepConfig", batch: Batch, *, memory: int | None = None) -> int:
    """Devices among which a batch's coordinates must be shared out: 1 where it fits on one or cannot be shared out."""
    devices = seed_devices()
    dense = batch.kind == "cells" and simulator(config, batch.width) == "dense"
    fits = batch_bytes(config, batch) <= USABLE * (device_memory() if memory is None else memory)
    return 1 if fits or dense or batch.redrawn or batch.width % devices or len(batch.seeds) > 1 else devices


def check_fits(config: "SweepConfig", plan: list[Batch], *, memory: int | None = None, processes: int = 1) -> list[str]:
    """A line for every cell of the plan that fits on no device at hand, nor on all together; `processes` share the memory."""
    free = int(USABLE * (device_memory() if memory is None else memory)) // processes
    lines = {}
    for batch in plan:
        single = replace(batch, seeds=batch.seeds[:1])
        need = batch_bytes(config, single) // spread(config, single, memory=memory)
        if need > free:
            allowed = f"at most {size(free)}, {USABLE:.0%} of what is free; lower {_lower(config, batch)}"
            lines[replace(single, seeds=())] = f"{_what(config, batch)} needs about {size(need)}, allowed: {allowed}"
    return list(lines.values())


def _what(config: "SweepConfig", batch: Batch) -> str:
    limit = config.limit
    if batch.kind == "limit":
        return f"limit.particles: {batch.width} particles with {limit.depth_steps if limit else 0} depth_steps"
    matched = f" with {limit.depth_steps} depth_steps" if limit and limit.particles == "matched" else ""
    return f"finite.widths: width {batch.width} at depth {max(batch.depths)}{matched}"


def _lower(config: "SweepConfig", batch: Batch) -> str:
    """The keys that the size depends on, those that matter most first."""
    if batch.kind == "limit":
        return "limit.particles, limit.depth_steps, problem.steps or problem.batch_size"
    if config.limit and config.limit.particles == "matched":
        return "finite.widths, limit.depth_steps, problem.steps or problem.batch_size"
    if simulator(config, batch.width) == "dense":
        return "finite.widths or finite.depths"
    return "finite.widths, finite.depths, problem.steps or problem.batch_size"


def size(count: float) -> str:
    """Bytes in words: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
