"""Helpers to read a results tree: finished cells only, in increasing order, at one learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import xarray as xr
import yaml

from nfd_jax.names import DIVERGED, DONE, CellStatus

T = TypeVar("T")

STATES = tuple(status.name.lower() for status in CellStatus)
"""Names of the values of /status/cell."""
FLOOR = {"float64": 1e-24, "float32": 1e-9}
"""Mean squares that rounding alone makes along a run, features being O(1)."""
HUGE = 1e100
"""A larger mean square is a run that diverged, whose loss just didn't overflow yet."""


def array(tree: xr.DataTree, path: str) -> xr.DataArray | None:
    """The variable "group/name", or None."""
    group, name = path.split("/")
    if group not in tree.children or name not in tree.children[group].dataset:
        return None
    return tree.children[group].dataset[name]


def settings(tree: xr.DataTree) -> dict:
    """The resolved config stored with the results as plain data; empty where there is none."""
    try:
        found = yaml.safe_load(str(tree.attrs.get("config", "")))
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def section(config: dict, name: str) -> dict:
    """A section of the config; empty where it is absent."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def counts(cells: xr.DataArray | np.ndarray) -> dict[str, int]:
    """How many cells are in each of STATES."""
    return {name: int((cells == value).sum()) for value, name in enumerate(STATES)}


def status(tree: xr.DataTree, values: xr.DataArray) -> xr.DataArray | None:
    """/status/cell beside values; of what has no backward_weights the worse of both flags. None where
    unknown.
    """
    cells = array(tree, "status/cell")
    if cells is None or not set(cells.dims) - {"backward_weights"} <= set(values.dims):
        return None
    if "backward_weights" in values.coords:
        flags = np.atleast_1d(values["backward_weights"].values)
        if "backward_weights" not in cells.coords:
            return None
        known = cells.reindex(
            backward_weights=flags, fill_value=1
        )  # a limit may have flags that no network has
        return known if "backward_weights" in values.dims else known.isel(backward_weights=0)
    if "backward_weights" not in cells.dims:
        return cells
    done, diverged = (cells == DONE).all("backward_weights"), (cells == DIVERGED).any("backward_weights")
    return xr.where(done, int(DONE), xr.where(diverged, int(DIVERGED), int(CellStatus.PENDING)))


def measured(tree: xr.DataTree, path: str) -> xr.DataArray | None:
    """The variable "group/name" with NaN for cells that are not done or not finite; None where nothing is
    left.

    Width, depth, particles and learning rate are in increasing order.
    """
    values = array(tree, path)
    if values is None:
        return None
    values = values.where(np.abs(values) < HUGE)
    cells = status(tree, values)
    if cells is not None:
        values = values.where(cells == DONE)
    order = [dim for dim in ("learning_rate", "width", "depth", "particles") if dim in values.dims]
    values = values.sortby([dim for dim in order if dim in values.coords])
    return values if values.notnull().any() else None


def _usual_rate(tree: xr.DataTree) -> float | None:
    """Where several learning rates were run, the one that figures show: the largest among those with the most
    finished cells, of those at which training has lowered the mean loss if there are such.
    """
    cells = array(tree, "status/cell")
    if cells is None or "learning_rate" not in cells.dims:
        return None
    done = (cells == DONE).sum([dim for dim in cells.dims if dim != "learning_rate"])
    rates = done["learning_rate"].values[done.values == done.values.max()]
    loss = measured(tree, "finite/loss")
    if loss is not None and "learning_rate" in loss.dims:
        rest = [dim for dim in loss.dims if dim not in ("learning_rate", "step")]
        mean = loss.isel(step=[0, -1]).mean(rest)
        lower = mean["learning_rate"].values[(mean.isel(step=-1) < mean.isel(step=0)).values]
        rates = rates[np.isin(rates, lower)] if np.isin(rates, lower).any() else rates
    return float(rates.max())


@dataclass(frozen=True)
class View:
    """A tree at the learning rate `rate`; `config` is the resolved config as plain data."""

    tree: xr.DataTree
    config: dict
    rate: float | None

    @classmethod
    def of(cls, tree: xr.DataTree) -> "View":
        """At the largest learning rate that the most cells finished, having learned."""
        return cls(tree, settings(tree), _usual_rate(tree))

    def get(self, path: str) -> xr.DataArray | None:
        """`measured` at the view's learning rate."""
        values = measured(self.tree, path)
        if values is None or "learning_rate" not in values.dims:
            return values
        values = (
            values.sel(learning_rate=self.rate) if self.rate is not None else values.isel(learning_rate=-1)
        )
        return values if values.notnull().any() else None

    @property
    def floor(self) -> float:
        """Mean squares up to this are rounding."""
        return FLOOR.get(self.config.get("precision", "float64"), FLOOR["float64"])

    @property
    def reference(self) -> int | None:
        """Euler steps of the limit."""
        return section(self.config, "limit").get("depth_steps")


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
