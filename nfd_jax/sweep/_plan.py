"""Which cells run together: a sweep's grid cut into batches, each one unit of work and one transaction of the store.

What shares noise runs together. A matched limit is solved once for all depths of a width, and networks with weight matrices have
one draw and one program for all depths, so those depths form one batch; else every depth is a batch of its own.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

COMMON_LAYERS = 256
"""Layers of noise that depths share where no limit sets them."""

HELDOUT = 16
"""Held-out samples used of those a dataset offers."""

SEEDS_AT_ONCE = 4
"""Most seeds of a batch: more would save no compilation and lose more work when a run is stopped."""


@dataclass(frozen=True)
class Batch:
    """Cells computed in one go on one set of noises.

    `kind` is "cells" (finite networks of `width` at every depth of `depths`, all learning rates and backward-weight flags,
    with the matched limit where one is asked for) or "limit" (a limit of `width` particles on its own; no depths). `redrawn`: its
    noise is drawn anew at each use, because it would not fit in memory.
    """

    kind: str
    width: int
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    redrawn: bool = False

    @property
    def id(self) -> str:
        """A name unique within a plan and safe as a file name."""
        depths = f"-L{'_'.join(map(str, self.depths))}" if self.depths else ""
        return f"{self.kind}-n{self.width}{depths}-s{'_'.join(map(str, self.seeds))}"


def simulator(config: "SweepConfig", width: int) -> str:
    """ "dense" or "matrix_free" for networks of `width`: auto is dense where matrix-free is impossible or limits don't apply."""
    asked = config.finite.simulator
    if asked != "auto":
        return asked
    samples = config.problem.steps * config.problem.batch_size
    return "dense" if width <= samples else "matrix_free"


def noise_depth(config: "SweepConfig", depth: int) -> int:
    """Layers of the noise that a network of `depth` coarsens, so that depths of a width share it.

    A matched limit's Euler steps; else, for the coupling, the largest doubling of `depth` up to COMMON_LAYERS. It never depends on
    the other depths of the grid: a sweep that is extended by a depth keeps the noise of those it has.
    """
    if config.limit is not None and config.limit.particles == "matched":
        return config.limit.depth_steps
    if "coupling" not in config.measure:
        return depth
    while 2 * depth <= COMMON_LAYERS:
        depth *= 2
    return depth


def make_plan(config: "SweepConfig", covered: set[tuple[int, int, int]] = frozenset(), *, memory: int | None = None) -> list[Batch]:
    """Batches of all cells (width, depth, seed) of `config` not in `covered`, widest last so that first results come early.

    `memory`: the bytes there are, by default what the device or the host has free.
    """
    plan: list[Batch] = []
    matched = config.limit is not None and config.limit.particles == "matched"
    if config.limit is not None and not matched:
        particles = int(config.limit.particles)
        left = [seed for seed in range(config.seeds) if (particles, 0, seed) not in covered]
        plan += _batches(config, Batch("limit", particles, (), tuple(left)), memory)
    if config.finite is None:
        return plan
    for width in sorted(config.finite.widths):
        together = matched or simulator(config, width) == "dense"
        for depths in [config.finite.depths] if together else [(depth,) for depth in config.finite.depths]:
            by_missing: dict[tuple[int, ...], list[int]] = {}
            for seed in range(config.seeds):
                missing = tuple(depth for depth in depths if (width, depth, seed) not in covered)
                by_missing.setdefault(missing, []).append(seed)
            for missing, seeds in by_missing.items():
                if missing:
                    plan += _batches(config, Batch("cells", width, missing, tuple(seeds)), memory)
    return plan


def _batches(config: "SweepConfig", every: Batch, memory: int | None) -> list[Batch]:
    """`every` cut into groups of seeds that fit in memory, of one size where that divides: every other size is one more compilation."""
    from nfd_jax.sweep import _memory

    if not every.seeds:
        return []
    count = len(every.seeds)
    every = replace(every, redrawn=_memory.redraws(config, every, memory=memory))
    most = _memory.seeds_at_once(config, every, most=min(SEEDS_AT_ONCE * _memory.seed_devices(), count), memory=memory)
    size = max(k for k in range(1, most + 1) if count % k == 0)
    return [replace(every, seeds=every.seeds[i : i + size]) for i in range(0, count, size)]
