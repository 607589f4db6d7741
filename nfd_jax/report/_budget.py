"""The error budget: how much each approximation still changes what is measured, read off by refining it."""

from typing import NamedTuple

import numpy as np

from nfd_jax.report._numbers import number
from nfd_jax.report._pick import largest, pick
from nfd_jax.report._plot import QUANTITIES
from nfd_jax.verdicts import View, by_seed, covered, section

MISSING = "not measured"


class Part(NamedTuple):
    """One line: what is refined, of which system, its size in h, b and f (mean squares), and how that was
    got."""

    name: str
    system: str
    sizes: dict[str, str]
    how: str


def budget(view: View) -> list[Part]:
    """Every part for each kind of system; "not measured" where the sweep has no refinement of it."""
    found = [section(view.config, name).get("backward_weights", ()) for name in ("finite", "limit")]
    flags = list(dict.fromkeys(str(flag) for group in found for flag in group)) or ["reused", "independent"]
    errors = {flag: _own_errors(view, flag) for flag in flags}
    return [
        *(_depth(view, flag, errors[flag]) for flag in flags),
        *(_doubling(view, "finite/output", "width", flag) for flag in flags),
        *(_doubling(view, "limit/output", "particles", flag) for flag in flags),
        *(_depth_steps(view, flag, errors[flag]) for flag in flags),
        _seeds(view),
    ]


class Errors(NamedTuple):
    """Of networks against their own kind of limit, over depth at one width: means over seeds by quantity."""

    width: int
    depths: np.ndarray
    means: dict[str, np.ndarray]


def _own_errors(view: View, flag: str) -> Errors | None:
    values = view.get("compare/limit_error_ms")
    values = pick(values, last=True, backward_weights=flag, limit_backward_weights=flag)
    if values is None:
        return None
    values = largest(values, "width")
    depths = covered(values, "depth")
    parts = {name: pick(values, quantity=name) for name in QUANTITIES}
    means = {
        name: by_seed(part.sel(depth=depths), "depth").mean(0)
        for name, part in parts.items()
        if part is not None
    }
    return Errors(int(values["width"]), depths, means)


def _depth(view: View, flag: str, errors: Errors | None) -> Part:
    """The size at the last refinement, and how many times smaller it got by it."""
    sizes, how = dict.fromkeys(QUANTITIES, MISSING), "needs limit_error"
    if errors is not None:
        where = f"at L = {errors.depths[-1]}, n = {errors.width}"
        how = f"network {where} against the {flag} limit of {view.reference} steps on the same noise"
        for quantity, means in errors.means.items():
            sizes[quantity] = number(means[-1]) if means[-1] > view.floor else "zero to rounding"
            if len(means) > 1 and means[-1] > view.floor:
                sizes[quantity] += f" ({means[-2] / means[-1]:.2g} × less than at {errors.depths[-2]:g})"
    return Part("depth L", f"{flag} network", sizes, how)


def _doubling(view: View, path: str, dim: str, flag: str) -> Part:
    """ms of the change of the outputs between the two largest sizes along dim, on the same seeds."""
    sizes = dict.fromkeys(QUANTITIES, MISSING)
    name, system = {"width": ("width n", "network"), "particles": ("particles N", "limit")}[dim]
    values = pick(view.get(path), last=True, backward_weights=flag)
    how = "needs these outputs"
    if values is not None:
        values = largest(values, "depth")
        known = covered(values, dim)
        how = f"needs a second value of {dim}"
        if len(known) > 1:
            small, wide = (values.sel({dim: size}, drop=True) for size in known[-2:])
            sizes["f"] = number(float(((wide - small) ** 2).mean()))
            how = (
                f"change of the outputs from {dim} {known[-2]} to {known[-1]}, same seeds and nested "
                "noise; h and b are not stored"
            )
    return Part(name, f"{flag} {system}", sizes, how)


def _depth_steps(view: View, flag: str, errors: Errors | None) -> Part:
    """The limit's own discretization: errors of coarser grids, carried on to its M steps as they fall between
    the last two."""
    sizes, reference = dict.fromkeys(QUANTITIES, MISSING), view.reference
    for quantity, means in errors.means.items() if errors is not None and reference else ():
        good = (errors.depths < reference) & (means > view.floor)
        if good.sum() > 1:
            (one, other), (before, after) = errors.depths[good][-2:], means[good][-2:]
            power = np.log(before / after) / np.log(other / one)
            if power > 0:
                sizes[quantity] = f"about {number(after * (other / reference) ** power)}"
    how = (
        f"errors of networks as coarse grids, continued to M = {reference} steps as they fall between the "
        "last two depths"
    )
    return Part("depth steps M", f"{flag} limit", sizes, how if reference else "no limit")


def _seeds(view: View) -> Part:
    """Relative standard error of the mean over seeds of what C4 rests on."""
    sizes, how = dict.fromkeys(QUANTITIES, MISSING), "needs limit_error"
    values = view.get("compare/limit_error_ms")
    values = pick(values, last=True, backward_weights="reused", limit_backward_weights="independent")
    if values is not None:
        values = largest(values, "width", "depth")
        for quantity in QUANTITIES:
            found = values.sel(quantity=quantity).dropna("seed").values
            how = f"relative standard error of the mean of limit_error_ms over {len(found)} seeds"
            if len(found) > 1 and found.mean() > view.floor:
                error = found.std(ddof=1) / np.sqrt(len(found))
                sizes[quantity] = f"±{error / found.mean():.0%}".replace("%", " %")
    return Part("seeds", "reused network → independent limit", sizes, how)
