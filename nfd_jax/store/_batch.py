"""The unit of a sweep: cells that are computed together, on shared noise, and stored together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Batch:
    """Cells computed in one go on one set of noises.

    `kind` is "cells" (finite networks of `width` at every depth of `depths`, all learning rates and
    backward-weight flags, with the matched limit where one is asked for) or "limit" (a limit of `width`
    particles on its own, 0 where it is estimated to a tolerance; no depths). `redrawn`: its noise is drawn
    anew at each use, because it would not fit in memory. `size`: coordinates of the programs that it runs,
    where others may run them besides: of networks with weight matrices always, of conditional-Gaussian
    systems where another width does.
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


def describe(batch: Batch) -> str:
    """A batch's cells in words."""

    def several(name: str, values: tuple[int, ...]) -> str:
        return f"{name}{'s' * (len(values) > 1)} {', '.join(map(str, values))}"

    if batch.kind == "limit" and batch.width == 0:
        return f"limit to a tolerance, {several('seed', batch.seeds)}"
    if batch.kind == "limit":
        return f"particles {batch.width}, {several('seed', batch.seeds)}"
    return f"width {batch.width}, {several('depth', batch.depths)}, {several('seed', batch.seeds)}"
