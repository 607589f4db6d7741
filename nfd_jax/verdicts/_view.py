"""A results tree as figures and tables see it: finished cells only, in increasing order, at one learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import xarray as xr
import yaml

from nfd_jax.verdicts._slices import array
from nfd_jax.verdicts._verdicts import FLOOR

T = TypeVar("T")

STATES = ("pending", "done", "diverged", "failed")
"""Names of the values of /status/cell."""


def settings(tree: xr.DataTree) -> dict:
    """The resolved config stored with the results; empty where there is none."""
    return yaml.safe_load(tree.attrs.get("config", "")) or {}


def counts(cells: xr.DataArray) -> dict[str, int]:
    """How many cells are in each of STATES."""
    return {name: int((cells == value).sum()) for value, name in enumerate(STATES)}


def measured(tree: xr.DataTree, path: str) -> xr.DataArray | None:
    """The variable "group/name" with NaN for cells that are not done or not finite; None where nothing is left.

    Width, depth and learning rate are in increasing order. A variable without backward_weights compares both flags, so
    both must be done.
    """
    values, cells = array(tree, path), array(tree, "status/cell")
    if values is None:
        return None
    values = values.where(np.isfinite(values))
    if cells is not None and set(cells.dims) - {"backward_weights"} <= set(values.dims):
        if "backward_weights" in values.dims:
            known = cells.reindex(backward_weights=values["backward_weights"])
            values = values.where((known == 1) | known.isnull())  # a limit may have flags that no network has
        else:
            values = values.where((cells == 1).all("backward_weights"))
    order = [dim for dim in ("learning_rate", "width", "depth", "particles") if dim in values.dims]
    values = values.sortby(order)
    return values if values.notnull().any() else None


def _usual_rate(tree: xr.DataTree) -> float | None:
    """The largest learning rate among those with the most finished cells: where several were run, figures show it."""
    cells = array(tree, "status/cell")
    if cells is None or "learning_rate" not in cells.dims:
        return None
    done = (cells == 1).sum([dim for dim in cells.dims if dim != "learning_rate"])
    return float(done["learning_rate"].values[done.values == done.values.max()].max())


@dataclass(frozen=True)
class View:
    """A tree at the learning rate `rate`; `config` is the resolved config as plain data."""

    tree: xr.DataTree
    config: dict
    rate: float | None

    @classmethod
    def of(cls, tree: xr.DataTree) -> "View":
        """At the largest learning rate of those with the most finished cells."""
        return cls(tree, settings(tree), _usual_rate(tree))

    def get(self, path: str) -> xr.DataArray | None:
        """`measured` at the view's learning rate."""
        values = measured(self.tree, path)
        if values is None or "learning_rate" not in values.dims:
            return values
        values = values.sel(learning_rate=self.rate) if self.rate is not None else values.isel(learning_rate=-1)
        return values if values.notnull().any() else None

    @property
    def floor(self) -> float:
        """Mean squares up to this are rounding."""
        return FLOOR[self.config.get("precision", "float64")]

    @property
    def reference(self) -> int | None:
        """Euler steps of the limit."""
        return (self.config.get("limit") or {}).get("depth_steps")

    @property
    def subject(self) -> str:
        """What a figure's title says of its data: name and learning rate."""
        name = self.config.get("name", "results")
        return name if self.rate is None else f"{name}, learning rate {self.rate:g}"


def spread(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of the values, evenly spread, the first and the last among them."""
    picks = np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int))
    return [values[i] for i in picks]


def covered(values: xr.DataArray, dim: str) -> np.ndarray:
    """The coordinates along dim that have data."""
    return values[dim].values[values.notnull().any([other for other in values.dims if other != dim]).values]


def by_seed(values: xr.DataArray, axis: str) -> np.ndarray:
    """(seed, axis): all seeds, or those without a gap where there are such."""
    samples = values.transpose("seed", axis).values
    whole = np.isfinite(samples).all(1)
    return samples[whole] if whole.any() else samples
