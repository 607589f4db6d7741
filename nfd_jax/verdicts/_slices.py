"""Which quantities bear on which claim, and their data in a results tree: unfinished cells as NaN, one slice a row."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfd_jax.verdicts._rates import HUGE

EACH_RATE = 3  # up to this many learning rates have a row each; more share one row, their worst value


@dataclass(frozen=True)
class Spec:
    """A row to look for: a variable at the labels `select`, at the last step (training) or the first, against axis.

    `test` (see `_verdicts`) is what the claim demands, `rate` the power of 1/x claimed. `surviving` rows are
    extrapolated to n = ∞ from the two largest widths, for claims on what survives there.
    """

    claim: str
    variable: str
    select: dict[str, str]
    axis: str
    test: str
    rate: float = 1.0
    training: bool = True
    surviving: bool = False

    @property
    def subject(self) -> str:
        labels = list(self.select.values())
        if "limit_backward_weights" in self.select:
            labels[:2] = [f"{labels[0]} to {labels[1]} limit"]
        return " ".join([self.variable.split("/")[1], *labels])

    @property
    def part(self) -> str:
        return f"{self.subject} {'in training' if self.training else 'at initialization'} against {self.axis}"


def specs() -> Iterator[Spec]:
    """Every row, in the order of the claims of arXiv 2512.21075."""
    effect, displacement, layer = (f"coupling/coupling_{name}_ms" for name in ("effect", "displacement", "layer"))
    quantities = [{"quantity": quantity} for quantity in "hbf"]
    directions = [{"direction": direction} for direction in ("forward", "backward")]
    accumulated = [(displacement, select) for select in directions] + [(effect, select) for select in quantities]
    for axis, test in (("width", "rate"), ("depth", "bounded")):
        yield Spec("C1", effect, {"quantity": "b"}, axis, test, training=False)
        yield Spec("C1", displacement, {"direction": "backward"}, axis, test, training=False)
        # Before the first backward pass there is no coupling in h: zero by construction.
        yield Spec("C1", effect, {"quantity": "h"}, axis, "reported", training=False)
    for variable, select in accumulated:
        yield Spec("C2", variable, select, "width", "persists")
    for select in directions:
        yield Spec("C3", layer, select, "depth", "rate", rate=2.0)
        yield Spec("C3", layer, select, "depth", "rate", rate=2.0, surviving=True)
    for variable, select in accumulated:
        yield Spec("C3", variable, select, "depth", "vanishes")
    flags, error = ("reused", "independent"), "compare/limit_error_ms"
    for network, limit in (flags, flags[::-1], flags[:1] * 2, flags[1:] * 2):
        for select in quantities:
            pair = {"backward_weights": network, "limit_backward_weights": limit, **select}
            yield Spec("C4", error, pair, "depth", "rate" if (network, limit) == flags else "reported")
    for kind in ("feature", "gradient"):
        for scope in ("step", "joint"):
            for flag in flags:
                select = {"kind": kind, "scope": scope, "backward_weights": flag}
                yield Spec("C5", "spectrum/min_eigenvalue", select, "width", "positive")
    for training, test in ((False, "joint"), (True, "reported")):
        for select in quantities[:2]:
            pair = {"backward_weights": "reused", "limit_backward_weights": "independent", **select}
            yield Spec("C6", error, pair, "joint", test, training=training)


@dataclass(frozen=True)
class Slice:
    """Data of a spec over width, depth, seed (and step, for eigenvalues), NaN where there are none, and their cells.

    `when` tells the step and learning rate, `where` the width or depth once one is picked.
    """

    values: xr.DataArray
    cells: xr.DataArray
    when: str
    where: str = ""

    def at_largest(self, other: str) -> "Slice":
        """At the largest width (or depth) with data at 2 or more, and at least half the most, depths (or widths)."""
        axis = "depth" if other == "width" else "width"
        rest = [dim for dim in self.values.dims if dim not in ("width", "depth")]
        counts = self.values.notnull().any(rest).sum(axis).values
        enough = max(counts.max() / 2, min(2, counts.max()))
        best = int(np.flatnonzero(counts >= enough)[-1])
        where = f"{other} {self.values[other].values[best]}"
        return Slice(self.values.isel({other: best}), self.cells.isel({other: best}), self.when, where)

    def at_infinite_width(self) -> "Slice | None":
        """Richardson's extrapolation in 1/n from the two largest widths with data; None with fewer."""
        values = self.values.dropna("width", how="all")
        if values.sizes["width"] < 2:
            return None
        narrow, wide = (float(width) for width in values["width"].values[-2:])
        values = (wide * values.isel(width=-1) - narrow * values.isel(width=-2)) / (wide - narrow)
        return Slice(values, self.cells, self.when, "width → ∞")


def array(tree: xr.DataTree, path: str) -> xr.DataArray | None:
    """The variable "group/name", or None."""
    group, name = path.split("/")
    if group not in tree.children or name not in tree.children[group].dataset:
        return None
    return tree.children[group].dataset[name]


def labelled(tree: xr.DataTree, spec: Spec) -> xr.DataArray | None:
    """The spec's variable at its labels, of eigenvalues the least ratio to the largest over interior t; or None."""
    values = array(tree, spec.variable)
    if values is None or any(label not in values[key].values for key, label in spec.select.items()):
        return None
    values = values.sel(spec.select)
    if spec.test != "positive":
        return values
    largest = array(tree, "spectrum/max_eigenvalue")
    # At t = 0 and 1 frozen U or V, or a rank of at most C, make Gram matrices singular whatever the network does.
    inside = (values["t"].values > 1e-9) & (values["t"].values < 1 - 1e-9)
    if largest is None or not inside.any():
        return None
    return (values.clip(0) / largest.sel(spec.select)).isel(t=inside).min("t")


def _status(tree: xr.DataTree, spec: Spec, values: xr.DataArray) -> xr.DataArray:
    """Status over learning_rate, width, depth, seed; a comparison of the two flags has the worse status of both."""
    cells = array(tree, "status/cell")
    if cells is None:
        return xr.ones_like(values.isel(step=0), dtype=np.int8)
    if "backward_weights" in spec.select:
        return cells.sel(backward_weights=spec.select["backward_weights"])
    diverged, done = (cells == 2).any("backward_weights"), (cells == 1).all("backward_weights")
    return xr.where(done, 1, xr.where(diverged, 2, 0))


def slices(tree: xr.DataTree, spec: Spec) -> Iterator[Slice]:
    """A slice per learning rate, or one for the worst of many; one at initialization, which knows no learning rate.

    Learning rate 0 trains nothing and has no slice in training, and neither has a run of a single step.
    """
    values = labelled(tree, spec)
    if values is None or (spec.training and values.sizes["step"] < 2):
        return
    cells = _status(tree, spec, values)
    values = values.where((cells == 1) & (np.abs(values) < HUGE))
    if not spec.training:
        yield Slice(values.isel(step=0).max("learning_rate"), cells.min("learning_rate"), "step 0")
        return
    eigenvalues = spec.test == "positive"
    when = "all steps" if eigenvalues else f"step {values['step'].values[-1]}"
    values = values if eigenvalues else values.isel(step=-1)
    several = values.sizes["learning_rate"] > 1
    moving = values["learning_rate"].values != 0
    values, cells = values.isel(learning_rate=moving), cells.isel(learning_rate=moving)
    if values.sizes["learning_rate"] > EACH_RATE:
        worst = values.min("learning_rate") if eigenvalues else values.max("learning_rate")
        yield Slice(worst, cells, f"{when}, worst learning rate")
        return
    for i, rate in enumerate(values["learning_rate"].values):
        label = f"{when}, learning rate {rate:g}" if several else when
        yield Slice(values.isel(learning_rate=i), cells.isel(learning_rate=i), label)
