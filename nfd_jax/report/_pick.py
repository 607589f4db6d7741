"""Parts of stored arrays, as figures and sentences ask for them."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from nfd_jax.report._numbers import Estimate
from nfd_jax.verdicts import covered


def pick(values: xr.DataArray | None, *, last: bool = False, **labels: object) -> xr.DataArray | None:
    """The part with these labels (and of the last step); None where a label is missing or nothing was
    measured under it."""
    for dim, label in labels.items():
        if values is None or label not in values[dim].values:
            return None
        values = values.sel({dim: label})
    if last and values is not None:
        values = values.isel(step=-1)
    return values if values is not None and values.notnull().any() else None


def largest(values: xr.DataArray, *dims: str) -> xr.DataArray:
    """At the largest size along each of dims that has data, or where none has at the largest; dims that are
    not there are left out."""
    for dim in dims:
        if dim in values.dims:
            values = values.sel({dim: _last(values, dim)})
    return values


def matched(limit: xr.DataArray, width: int) -> xr.DataArray:
    """The limit with as many particles as the network is wide, else with the most there are."""
    counts = covered(limit, "particles")
    return limit.sel(particles=width if width in counts else _last(limit, "particles"), drop=True)


def _last(values: xr.DataArray, dim: str) -> object:
    found = covered(values, dim)
    return (found if len(found) else values[dim].values)[-1]


def estimate(found: xr.Dataset, name: str, **where: object) -> Estimate:
    """A number of a verdict's table with its interval."""
    return Estimate(*map(float, ends(found.sel(where), name)))


def ends(found: xr.Dataset, name: str) -> np.ndarray:
    """Numbers of a verdict's table with their intervals: estimate, low and high."""
    return np.stack([found[name + end].values for end in ("", "_low", "_high")])


MOST_STEPS = 60
"""Steps up to which curves have a point for each; beyond, means over as many steps as leave some 40 points:
losses of single batches would hide what they have in common."""


def in_blocks(steps: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray, str]:
    """Steps, values (…, steps) along them, as they are or as means over blocks, and that in words."""
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    size = -(-len(steps) // 40) if len(steps) > MOST_STEPS else 1
    if size == 1:
        return steps, values, ""
    whole = len(steps) // size * size
    mean = lambda x: x[..., :whole].reshape(*x.shape[:-1], -1, size).mean(-1)
    return mean(steps), mean(values), f" Each point: the mean over {size} updates."


def known_mean(samples: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is finite; NaN where nothing is."""
    known = np.isfinite(samples)
    with np.errstate(invalid="ignore"):
        return np.where(known, samples, 0).sum(0) / known.sum(0)
