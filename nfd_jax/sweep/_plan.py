"""Which cells run together: a sweep's grid cut into batches, each one unit of work and one transaction of the store.

What shares noise runs together. A matched limit is solved once for all depths of a width, so those depths form one batch;
without one, every depth is a batch of its own.
"""

from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

NOISE_BYTES = 512 * 2**20
"""Noise held at once for the seeds of a batch."""

SEEDS_AT_ONCE = 4
"""Most seeds of a batch: more would save no compilation and lose more work when a run is stopped."""


@dataclass(frozen=True)
class Batch:
    """Cells computed in one go on one set of noises.

    `kind` is "cells" (finite networks of `width` at every depth of `depths`, all learning rates and backward-weight flags,
    with the matched limit where one is asked for) or "limit" (a limit of `width` particles on its own; no depths).
    """

    kind: str
    width: int
    depths: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def id(self) -> str:
        """A name unique within a plan and safe as a file name."""
        depths = f"-L{'_'.join(map(str, self.depths))}" if self.depths else ""
        return f"{self.kind}-n{self.width}{depths}-s{'_'.join(map(str, self.seeds))}"


def simulator(config: "SweepConfig", width: int) -> str:
    """"dense" or "matrix_free" for networks of `width`: auto is dense where matrix-free is impossible or limits don't apply."""
    asked = config.finite.simulator
    if asked != "auto":
        return asked
    samples = config.problem.steps * config.problem.batch_size
    return "dense" if width <= samples else "matrix_free"


def noise_depth(config: "SweepConfig", depth: int) -> int:
    """Layers of the noise a network of `depth` coarsens: common to all depths of a width where they can share it."""
    if config.limit is not None and config.limit.particles == "matched":
        return config.limit.depth_steps
    common = lcm(*config.finite.depths)
    return common if common <= 4 * max(config.finite.depths) else depth


def make_plan(config: "SweepConfig", covered: set[tuple[int, int, int]] = frozenset()) -> list[Batch]:
    """Batches of all cells (width, depth, seed) of `config` not in `covered`, widest last so that first results come early."""
    plan: list[Batch] = []
    matched = config.limit is not None and config.limit.particles == "matched"
    if config.limit is not None and not matched:
        particles = int(config.limit.particles)
        left = [seed for seed in range(config.seeds) if (particles, 0, seed) not in covered]
        plan += [Batch("limit", particles, (), seeds) for seeds in _groups(config, particles, left)]
    if config.finite is None:
        return plan
    for width in sorted(config.finite.widths):
        for depths in [config.finite.depths] if matched else [(depth,) for depth in config.finite.depths]:
            by_missing: dict[tuple[int, ...], list[int]] = {}
            for seed in range(config.seeds):
                missing = tuple(depth for depth in depths if (width, depth, seed) not in covered)
                by_missing.setdefault(missing, []).append(seed)
            for missing, seeds in by_missing.items():
                if missing:
                    plan += [Batch("cells", width, missing, group) for group in _groups(config, width, seeds)]
    return plan


def _groups(config: "SweepConfig", width: int, seeds: list[int]) -> list[tuple[int, ...]]:
    """Seeds in groups of one size where that divides: every other size is one more compilation."""
    if not seeds:
        return []
    finest = config.limit.depth_steps if config.limit else max(noise_depth(config, depth) for depth in config.finite.depths)
    itemsize = 8 if config.precision == "float64" else 4
    bytes_each = 2 * config.problem.steps * config.problem.batch_size * finest * width * itemsize
    most = max(1, min(SEEDS_AT_ONCE, NOISE_BYTES // max(bytes_each, 1)))
    size = max(k for k in range(1, most + 1) if len(seeds) % k == 0)
    return [tuple(seeds[i : i + size]) for i in range(0, len(seeds), size)]
