"""The unit of a sweep: cells that are computed together, on shared noise, and stored together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

COMMON_LAYERS = 256
"""Layers of noise that depths share where no limit sets them."""

HELDOUT = 16
"""Held-out samples used of those a dataset offers."""


@dataclass(frozen=True)
class Batch:
    """Cells computed in one go on one set of noises.

    `kind` is "cells" (finite networks of `width` at every depth of `depths`, all learning rates and backward-weight flags,
    with the matched limit where one is asked for) or "limit" (a limit of `width` particles on its own; no depths). `redrawn`: its
    noise is drawn anew at each use, because it would not fit in memory. `size`: coordinates of the program that trains networks with
    weight matrices, which a wider one may be.
    """

    kind: str
    width: int
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    redrawn: bool = False
    size: int | None = None

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
