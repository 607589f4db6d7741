"""How much memory a batch takes, known before it runs, and how much there is.

The measure of everything is a *family*: one row of n coordinates for each of the A = K·P samples in each of ℓ
layers. A network or limit in training holds two, the bases of its queries, and six (A, A) blocks a layer;
noise is two more unless it is drawn anew at each use, a pass over r rows a few times r/A of one. Trajectories
kept for comparison hold the layers of the t grid alone. Counted in numbers and checked against what XLA
reports for the compiled programs.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from math import gcd
from pathlib import Path

import jax

from nfd_jax._host import cores
from nfd_jax.config import ConfigError
from nfd_jax.finite import runs_at_once as dense_runs_at_once
from nfd_jax.finite import shape_of, together
from nfd_jax.runtime import on_cpu, one_by_one
from nfd_jax.store import Batch
from nfd_jax.sweep._task import Task

USABLE = 0.8
"""Share of the free memory that a batch may take: the compiler's own needs and the host's copies come on
top."""


class CellTooLarge(ConfigError):
    """Cells that fit on no device at hand. `problems`: a line for each, with its size and what to lower."""


def batch_bytes(task: Task, *, at_once: int = 1, depths: int = 1) -> int:
    """Bytes a batch holds at its peak on each device that takes part, where `at_once` runs go on at the same
    time, those of matrix-free networks at so many `depths`."""
    task = task.at(seeds=task.seeds[: len(task.seeds) // devices_for(task.batch)])
    return max(held + own for held, own in program_bytes(task, at_once=at_once, depths=depths).values())


def seed_devices() -> int:
    """Devices that take a batch's seeds side by side: all local accelerators, or the CPU as one."""
    return 1 if on_cpu() else jax.local_device_count()


def devices_for(batch: Batch) -> int:
    """Accelerators among which a batch's seeds are shared out equally; CPU devices have one memory between
    them."""
    return gcd(len(batch.seeds), seed_devices())


def program_bytes(task: Task, *, at_once: int = 1, depths: int = 1) -> dict[str, tuple[int, int]]:
    """Bytes (resident, transient) of each program of a batch: what stays while it runs, and its temporaries
    with its results."""
    count = _Count(task, at_once, depths)
    return {
        name: (task.itemsize * held, task.itemsize * own) for name, (held, own) in count.programs().items()
    }


class _Count:
    """Numbers (not bytes) that the parts of a batch hold."""

    def __init__(self, task: Task, at_once: int, beside: int):
        task = task.largest_systems
        self.task, self.at_once, self.beside = task, at_once, beside
        self.seeds, self.rates, self.width, self.rows = (
            len(task.seeds),
            len(task.rates),
            task.room,
            task.rows,
        )
        self.samples, self.directions, self.probe = task.samples, task.directions, task.probe
        self.depths, self.deepest = len(task.depths), max(task.depths, default=0)
        self.flags, self.dense, self.limit_flags = len(task.flags), task.dense, len(task.limit_flags)
        self.steps = task.depth_steps if task.solves_limit else 0
        self.layers = max(self.steps, *(() if task.dense else task.noise_depths.values()), 0)
        self.apart = one_by_one()

    def family(self, layers: int) -> int:
        return self.samples * layers * self.width

    def noise(self, layers: int) -> int:
        ends = self.width * self.task.inputs
        if self.task.bounded:  # a pass draws its own
            return 2 * self.task.followed * layers * self.width + ends
        first = self.task.questions_first * layers * self.width
        return first + 2 * self.family(1 if self.task.redraws else layers) + ends

    def drawn(self) -> int:
        """What the runs of one seed share: their noise, and that of what they are asked besides training."""
        asked = self.task.questions * self.task.asked_layers if self.limit_flags or not self.dense else 0
        return self.noise(self.layers) + asked * self.width

    def kept(self, flags: int) -> int:
        """Trajectories of one seed, at every learning rate and so many flags."""
        return self.rates * flags * (4 if self.probe else 2) * self.family(self.task.intervals + 1)

    def learning(self, layers: int, coupling: bool) -> int:
        """One run of a conditional-Gaussian system: its history, and the widest of its passes, held-out and
        probe samples'."""
        asked = 10 * self.samples if self.probe and not self.task.bounded else 0
        first = self.task.questions_first
        passes = max((9 if coupling else 7) * self.task.followed, 3 * self.task.heldout, asked, 4 * first)
        held = (4 if self.task.bounded else 2) * self.directions + first
        return (held + passes) * layers * self.width + 6 * layers * self.directions**2

    def mapped(self, each: int, kept: int, shared: int) -> int:
        """A program that takes seeds in turn: one seed's copy of what all share, what each run holds, and
        results twice."""
        beside = max(1, self.at_once // (2 * self.rates)) if self.seeds > 1 else 0
        return beside * shared + self.at_once * each + (self.seeds + 1) * kept

    def dense_runs(self) -> int:
        """All runs of the engine's program that go on at the same time: weights, drawn and in training, and
        passes."""
        grid = self.task.grid
        shape, seeds = shape_of(self.samples, grid, jax.default_backend(), seed_devices())
        runs = min(dense_runs_at_once(shape, self.task.itemsize), self.seeds // seeds)
        beside = seeds * len(shape.flags) * shape.rates * max(map(len, shape.together), default=1)
        drawn = seeds * shape.layers * shape.size**2
        kinds = 2 if shape.independent else 1
        if shape.form == "factored":
            trained = (
                2 * shape.layers * beside * self.samples * shape.size + kinds * drawn
            )  # a second copy of the draw
        else:  # and the gap between two copies of the weights, or a second one of the only copy
            trained = (1 + self.moments(shape.independent)) * shape.layers * beside * shape.size**2 + drawn
        rows = (3 if self.probe else 2) * self.rows
        return runs * (kinds * drawn + trained + 2 * shape.layers * beside * rows * shape.size)

    def moments(self, independent: bool) -> int:
        """Matrices that an optimizer keeps besides each of the weights; where it is not linear, backward
        weights of their own are a parameter with as many."""
        rule = self.task.problem.optimizer
        if rule.linear:
            return 1 if rule.momentum else 0
        return 4 if independent else 2

    def innovations(self) -> int:
        """One dense network in training, and its innovations, refined to the limit's steps."""
        trained = 3 * self.deepest * self.width**2 + 4 * self.family(self.deepest)
        return trained + self.noise(self.deepest) + self.noise(self.steps)

    def programs(self) -> dict[str, tuple[int, int]]:
        """Of each program of a batch (resident, transient): what stays while it runs, arguments included;
        temporaries and results."""
        found: dict[str, tuple[int, int]] = {}
        if self.limit_flags or (self.flags and not self.dense):
            found |= self.one_by_one() if self.apart else self.together()
        needs, per_depth = self.task.needs, self.seeds * self.kept(self.flags)
        held = self.seeds * self.kept(self.limit_flags) + (0 if self.apart else self.seeds * self.drawn())
        if self.dense:
            per_depth = per_depth if "paths" in needs else 0
            found["dense"] = held, self.dense_runs() + 2 * self.depths * per_depth
            if "pairs" in needs:
                others = (self.at_once - 1) * self.innovations() + self.at_once * self.learning(
                    self.steps, False
                )
                found["innovations"] = held + self.depths * per_depth + others, self.innovations()
        if self.task.reference:
            own = batch_bytes(self.task.reference_task.at(seeds=(0,)))
            found["reference"] = held, own // self.task.itemsize
        if self.flags:
            # Singular values are taken on the host, in float64 and of a few copies.
            found["measures"] = held + self.depths * per_depth, (5 if "paths" in needs else 1) * per_depth
        return found

    def one_by_one(self) -> dict[str, tuple[int, int]]:
        """Programs of single runs, so many on cores of their own; a seed's runs share its noise, and all are
        joined in the end."""
        drawn, kept = self.drawn(), self.kept(1) // self.rates
        own = {"noise": 2 * self.noise(self.layers)}
        if self.limit_flags:
            own["limit"] = self.learning(self.steps, False) + 2 * kept
        if self.flags and not self.dense:
            own["network"] = self.learning(self.deepest, self.task.coupled) + 2 * kept
        runs = self.seeds * self.rates * (self.limit_flags + (0 if self.dense else self.flags * self.depths))
        coarse = self.noise(self.deepest)
        others = (min(self.at_once, runs) - 1) * (drawn + coarse + max(own.values()))
        return {name: (others + drawn + coarse + 2 * runs * kept, mine) for name, mine in own.items()}

    def together(self) -> dict[str, tuple[int, int]]:
        """Programs that take all seeds."""
        drawn, kept, limits = self.drawn(), self.kept(self.flags), self.kept(self.limit_flags)
        found = {"noise": (0, (self.seeds + 1) * self.noise(self.layers))}
        if self.limit_flags:
            found["limit"] = self.seeds * drawn, self.mapped(self.learning(self.steps, False), limits, drawn)
        if self.flags and not self.dense:
            coarse, beside = self.noise(self.deepest), self.beside
            learning = self.learning(self.deepest, self.task.coupled)
            own = self.mapped(beside * learning, beside * kept, beside * coarse)
            # Of several depths, each one's noise and all of them as one array.
            copies = 1 if beside == 1 else 2 * beside
            found["network"] = self.seeds * (drawn + copies * coarse + limits), own
        return found


def device_memory() -> int:
    """Bytes a batch could have: the device's limit as JAX reports it, or else what is free of the host's
    memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    return _host_memory()


def _host_memory() -> int:
    """Free bytes of the host: what Linux calls available, within the limit of the control group; elsewhere
    all there is."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if meminfo.exists():
        found = [line.split() for line in meminfo.read_text().splitlines()]
        free = next((1024 * int(words[1]) for words in found if words[:1] == ["MemAvailable:"]), free)
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        free = min(
            free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        )
    return free


def most_at_once(task: Task) -> int:
    """Runs that may go on at the same time: one a core on a CPU; else all that a device has of the batch,
    vectorized together."""
    return cores() if one_by_one() else 2 * len(task.rates) * len(task.seeds) // devices_for(task.batch)


def runs_at_once(task: Task, *, most: int, memory: int | None = None) -> int:
    """How many runs go on at the same time: the most that divide `most` and fit, at least 1."""
    free = USABLE * (device_memory() if memory is None else memory)
    fitting = (k for k in range(most, 0, -1) if most % k == 0 and batch_bytes(task, at_once=k) <= free)
    return next(fitting, 1)


def depth_groups(task: Task, *, at_once: int, memory: int | None = None) -> list[tuple[int, ...]]:
    """Depths at which matrix-free networks run side by side on an accelerator: as many as waste less than
    half on layers beyond their own, where they fit; each alone otherwise, and on a CPU."""
    alone = [(depth,) for depth in task.depths]
    places = () if on_cpu() or task.redraws else together(task.depths)
    if not places:
        return alone
    need = batch_bytes(task, at_once=at_once, depths=max(map(len, places)))
    if need > USABLE * (device_memory() if memory is None else memory):
        return alone
    return [tuple(task.depths[i] for i in group) for group in places]


def peak_bytes(task: Task) -> int:
    """Bytes a batch holds at its peak as it will be run: so many runs and depths at the same time."""
    at_once = runs_at_once(task, most=most_at_once(task))
    depths = max(map(len, depth_groups(task, at_once=at_once)), default=1)
    return batch_bytes(task, at_once=at_once, depths=depths)


def seeds_at_once(task: Task, *, most: int, memory: int | None = None) -> int:
    """How many seeds a batch like this may have: as many as fit, from 1 to `most`."""
    free = USABLE * (device_memory() if memory is None else memory)
    return next((k for k in range(most, 1, -1) if batch_bytes(task.at(seeds=tuple(range(k)))) <= free), 1)


def redraws(task: Task, *, memory: int | None = None) -> bool:
    """Whether a batch's noise must be drawn anew at each use: kept, one seed's would not fit on a device, nor
    on all together."""
    kept = task.at(seeds=task.seeds[:1], redrawn=False)
    free = USABLE * (device_memory() if memory is None else memory)
    return batch_bytes(kept) // spread(kept, memory=memory) > free


def spread(task: Task, *, memory: int | None = None) -> int:
    """Devices among which a batch's coordinates must be shared out: 1 where it fits on one or cannot be
    shared out."""
    devices = seed_devices()
    fits = batch_bytes(task) <= USABLE * (device_memory() if memory is None else memory)
    whole = task.dense or task.batch.redrawn or task.room % devices or len(task.seeds) > 1
    return 1 if fits or whole else devices


def check_fits(tasks: Iterable[Task], *, memory: int | None = None, processes: int = 1) -> list[str]:
    """A line for every cell of the tasks that fits on no device at hand, nor on all together; `processes`
    share the memory."""
    free = int(USABLE * (device_memory() if memory is None else memory)) // processes
    lines: dict[Batch, str] = {}
    for task in tasks:
        single = task.at(seeds=task.seeds[:1])
        need = batch_bytes(single) // spread(single, memory=memory)
        if need > free:
            allowed = f"at most {in_words(free)}, {USABLE:.0%} of what is free; lower {_lower(task)}"
            lines[task.at(seeds=()).batch] = f"{_what(task)} needs about {in_words(need)}, allowed: {allowed}"
    return list(lines.values())


def needs(task: Task) -> str:
    """What a batch that ran out of memory takes at the least, and what to lower."""
    return f"{_what(task)} needs at least {in_words(batch_bytes(task))} by the plan; lower {_lower(task)}"


def _what(task: Task) -> str:
    if task.tolerance is not None:
        return f"limit.tolerance: a limit to a tolerance of {task.tolerance:g}"
    if task.batch.kind == "limit":
        return f"limit.particles: {task.width} particles with {task.depth_steps} depth_steps"
    matched = f" with {task.depth_steps} depth_steps" if task.solves_limit else ""
    return f"finite.widths: width {task.width} at depth {max(task.depths)}{matched}"


def _lower(task: Task) -> str:
    """The keys that the size depends on, those that matter most first."""
    if task.tolerance is not None:
        return "problem.steps or problem.batch_size, or raise limit.tolerance"
    if task.batch.kind == "limit":
        return "limit.particles, limit.depth_steps, problem.steps or problem.batch_size"
    reference = "limit.reference_particles, " if task.reference else ""
    if task.solves_limit:
        return f"{reference}finite.widths, limit.depth_steps, problem.steps or problem.batch_size"
    if task.dense:
        return "finite.widths or finite.depths"
    return f"{reference}finite.widths, finite.depths, problem.steps or problem.batch_size"


def in_words(count: float) -> str:
    """Bytes in words: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
