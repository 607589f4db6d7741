"""The error budget: how much each approximation still changes what is measured, read off by refining it."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from nfd_jax.report._numbers import number
from nfd_jax.verdicts import View, by_seed, covered

QUANTITIES: tuple[str, ...] = ("h", "b", "f")
MISSING = "not measured"


class Part(NamedTuple):
    """One line: what is refined, of which system, its size in h, b and f (mean squares), and how that was got."""

    name: str
    system: str
    sizes: dict[str, str]
    how: str


def budget(view: View) -> list[Part]:
    """Every part for each kind of system; "not measured" where the sweep has no refinement of it."""
    flags = [str(flag) for flag in _flags(view)]
    parts = [make(view, flag) for make in (_depth, _width, _particles, _depth_steps) for flag in flags]
    return [*parts, _seeds(view)]


def _flags(view: View) -> list[str]:
    found: dict[str, None] = {}
    for section in ("finite", "limit"):
        found |= dict.fromkeys((view.config.get(section) or {}).get("backward_weights", ()))
    return list(found) or ["reused", "independent"]


def _own_error(view: View, flag: str, quantity: str) -> xr.DataArray | None:
    """(seed, depth) error of networks against the limit of their own kind, at the largest width, last step."""
    values = view.get("compare/limit_error_ms")
    if (
        values is None
        or flag not in values["backward_weights"]
        or flag not in values["limit_backward_weights"]
    ):
        return None
    values = values.sel(backward_weights=flag, limit_backward_weights=flag, quantity=quantity).isel(step=-1)
    if not values.notnull().any():
        return None
    values = values.sel(width=covered(values, "width")[-1])
    return values.sel(depth=covered(values, "depth"))


def _refined(sizes: np.ndarray, means: np.ndarray, floor: float) -> str:
    """The size at the last refinement, and how many times smaller it got by it."""
    if means[-1] <= floor:
        return "zero to rounding"
    if len(means) < 2:
        return number(means[-1])
    return f"{number(means[-1])} ({means[-2] / means[-1]:.2g} × less than at {sizes[-2]:g})"


def _depth(view: View, flag: str) -> Part:
    sizes, deepest, reference = {}, "", view.reference
    for quantity in QUANTITIES:
        error = _own_error(view, flag, quantity)
        sizes[quantity] = MISSING
        if error is not None:
            deepest = f" at L = {error['depth'].values[-1]}, n = {int(error['width'])}"
            sizes[quantity] = _refined(error["depth"].values, by_seed(error, "depth").mean(0), view.floor)
    how = (
        f"network{deepest} against the {flag} limit of {reference} steps on the same noise"
        if deepest
        else "needs limit_error"
    )
    return Part("depth L", f"{flag} network", sizes, how)


def _doubling(view: View, path: str, dim: str, flag: str, system: str) -> Part:
    """ms of the change of the outputs between the two largest sizes along dim, on the same seeds."""
    values = view.get(path)
    sizes = dict.fromkeys(QUANTITIES, MISSING)
    name = {"width": "width n", "particles": "particles N"}[dim]
    if values is None or flag not in values["backward_weights"]:
        return Part(name, system, sizes, "needs these outputs")
    values = values.sel(backward_weights=flag).isel(step=-1)
    if "depth" in values.dims:
        values = (
            values.sel(depth=covered(values, "depth")[-1])
            if values.notnull().any()
            else values.isel(depth=-1)
        )
    known = covered(values, dim) if values.notnull().any() else []
    if len(known) < 2:
        return Part(name, system, sizes, f"needs a second value of {dim}")
    small, large = known[-2:]
    change = values.sel({dim: large}, drop=True) - values.sel({dim: small}, drop=True)
    sizes["f"] = number(float((change**2).mean()))
    how = f"change of the outputs from {dim} {small} to {large}, same seeds and nested noise; h and b are not stored"
    return Part(name, system, sizes, how)


def _width(view: View, flag: str) -> Part:
    return _doubling(view, "finite/output", "width", flag, f"{flag} network")


def _particles(view: View, flag: str) -> Part:
    return _doubling(view, "limit/output", "particles", flag, f"{flag} limit")


def _depth_steps(view: View, flag: str) -> Part:
    """The limit's own discretization: errors of coarser grids, carried on to its M steps as they fall between the last two."""
    sizes, reference = dict.fromkeys(QUANTITIES, MISSING), view.reference
    for quantity in QUANTITIES if reference else ():
        error = _own_error(view, flag, quantity)
        if error is None or reference is None:
            continue
        x, means = error["depth"].values, by_seed(error, "depth").mean(0)
        good = (x < reference) & (means > view.floor)
        if good.sum() > 1:
            (one, other), (before, after) = x[good][-2:], means[good][-2:]
            power = np.log(before / after) / np.log(other / one)
            if power > 0:
                sizes[quantity] = f"about {number(after * (other / reference) ** power)}"
    how = f"errors of networks as coarse grids, continued to M = {reference} steps as they fall between the last two depths"
    return Part("depth steps M", f"{flag} limit", sizes, how if reference else "no limit")


def _seeds(view: View) -> Part:
    """Relative standard error of the mean over seeds of what C4 rests on."""
    sizes, values = dict.fromkeys(QUANTITIES, MISSING), view.get("compare/limit_error_ms")
    count = 0
    usable = (
        values is not None
        and "reused" in values["backward_weights"]
        and "independent" in values["limit_backward_weights"]
    )
    if usable and values is not None:
        values = values.sel(backward_weights="reused", limit_backward_weights="independent").isel(step=-1)
        for quantity in QUANTITIES if values.notnull().any() else ():
            corner = values.sel(
                width=covered(values, "width")[-1], depth=covered(values, "depth")[-1], quantity=quantity
            )
            found = corner.values[np.isfinite(corner.values)]
            count = len(found)
            if count > 1 and found.mean() > view.floor:
                sizes[quantity] = f"±{found.std(ddof=1) / np.sqrt(count) / found.mean():.0%}"
    how = (
        f"relative standard error of the mean of limit_error_ms over {count} seeds"
        if count
        else "needs limit_error"
    )
    return Part("seeds", "reused network → independent limit", sizes, how)
