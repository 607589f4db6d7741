"""Distance of networks to limits against width, depth and learning rate; over width and depth together."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from nfd_jax.report import _plot as plot
from nfd_jax.report._numbers import count
from nfd_jax.report._pick import largest, pick
from nfd_jax.report._trends import moves, trend
from nfd_jax.verdicts import View, by_seed, covered, measured

SIZE = "mean square per coordinate"


def pairs(values: xr.DataArray) -> Iterator[tuple[tuple[str, str], plot.Line, xr.DataArray]]:
    """Every pair of network and limit there is data for."""
    for (network, limit), line in plot.PAIRS.items():
        part = pick(values, backward_weights=network, limit_backward_weights=limit)
        if part is not None:
            yield (network, limit), line, part


def ends(values: xr.DataArray) -> list[int]:
    """The first and the last step, if they differ."""
    return sorted({int(values["step"].values[0]), int(values["step"].values[-1])})


def when(step: int) -> str:
    """A step in words."""
    return "before training" if step == 0 else f"after {count(step, 'update')}"


def panels(
    sheet: plot.Sheet,
    row: np.ndarray,
    values: xr.DataArray,
    axis: str,
    sizes: ArrayLike,
    floor: float,
    at: str = "",
) -> dict[tuple[str, str], str]:
    """A panel for each of h, b and f with every pair of network and limit; what h does along the axis, by
    pair."""
    moved = {}
    for ax, (quantity, words) in zip(row, plot.QUANTITIES.items(), strict=True):
        for pair, line, part in pairs(values.sel(quantity=quantity)):
            samples = by_seed(part.sel({axis: sizes}), axis)
            drawn = sheet.curve(ax, sizes, samples, line, plot.pair_name(*pair), floor=floor)
            if drawn and quantity == "h":
                moved[pair] = moves(trend(sizes, samples, floor), plot.SYMBOL[axis])
        ax.set_title(f"{words}{at}")
        plot.size_axis(ax, sizes, axis)
    plot.same_range(row)
    row[0].set_ylabel(SIZE)
    return moved


def limit_error(view: View, axis: str) -> plot.Drawing | None:
    """All pairs of network and limit against depth or width, for h, b, f after the last update (and before
    the first)."""
    values = view.get("compare/limit_error_ms")
    if values is None or len(covered(values, axis)) < 2:
        return None
    other, symbol = plot.OTHER[axis], plot.SYMBOL[axis]
    values, sizes = largest(values, other), covered(values, axis)
    steps = ends(values)[::-1] if axis == "depth" else ends(values)[-1:]
    sheet = plot.Sheet(len(steps), 3)
    slopes = [
        panels(sheet, row, values.sel(step=step), axis, sizes, view.floor, f", {when(step)}")
        for row, step in zip(sheet.axes, steps, strict=True)
    ][0]
    for ax in (ax for ax in sheet.axes.flat if ax.lines):
        sheet.guide(ax, sizes, 1, ax.get_ylim()[1] * 0.8, f"slope of 1/{symbol}")
    rate = "" if view.rate is None else f", η = {view.rate:g}"
    caption = (
        "Mean square of network minus limit on the same noise, path by path, the largest over t; "
        f"{other} {plot.SYMBOL[other]} = {int(values[other])}{rate}. Bars: one standard error over seeds."
    )
    if 0 in steps:
        caption += " Before training neither h nor f has met a backward pass, so that their pairs coincide."
    return sheet.finish(f"limit_error_{axis}", _message(slopes, axis), caption)


def _message(slopes: dict[tuple[str, str], str], axis: str) -> str:
    title = f"Distance to the limits against {axis}"
    said = [
        f"{pair[0]} → {pair[1]} {words}"
        for pair in (("reused", "reused"), ("reused", "independent"))
        if (words := slopes.get(pair))
    ]
    if said:
        return f"{title}: h {'; '.join(said)}"
    return title + (": two points give no slope" if slopes and not any(slopes.values()) else "")


def joint_limits(view: View) -> plot.Drawing | None:
    """Error before training against width for each depth: against the large reference limit where there is
    one."""
    values = view.get("compare/reference_error_ms")
    reference = values is not None
    if not reference:
        values = view.get("compare/limit_error_ms")
    values = pick(values, backward_weights="reused", limit_backward_weights="independent")
    if values is None or not (values := values.isel(step=0)).notnull().any():
        return None
    if min(len(covered(values, dim)) for dim in plot.OTHER) < 2:
        return None
    shown = [quantity for quantity in plot.QUANTITIES if reference or quantity != "f"]
    sheet = plot.Sheet(1, len(shown))
    for ax, quantity in zip(sheet.axes[0], shown, strict=True):
        for depth, line in plot.shades(covered(values, "depth"), 6):
            samples = by_seed(values.sel(quantity=quantity, depth=depth), "width")
            sheet.curve(ax, values["width"].values, samples, line, f"L = {depth}", floor=view.floor)
        ax.set_title(plot.QUANTITIES[quantity])
        plot.size_axis(ax, covered(values, "width"), "width")
    plot.same_range(sheet.axes)
    sheet.axes[0, 0].set_ylabel(SIZE)
    against = "many more particles on nested noise" if reference else "as many particles on the same noise"
    caption = (
        f"Reused network minus independent limit before any update, against a limit of {against}. Bars: one "
        "standard error over seeds."
    )
    if not reference:
        caption += (
            " Matched particles take away the 1/n that C6 speaks of: limit.reference_particles adds what "
            "decides it."
        )
    return sheet.finish("joint_limits", "Before training: error over width and depth together", caption)


def learning_rates(view: View) -> plot.Drawing | None:
    """Distance of the networks, standard ones where there are any, to each limit against the learning rate;
    largest width and depth."""
    values = measured(view.tree, "compare/limit_error_ms")
    if values is None or len(covered(values, "learning_rate")) < 2:
        return None
    values = largest(values.isel(step=-1), "width", "depth")
    rates, sheet = covered(values, "learning_rate"), plot.Sheet(1, 3)
    flag = "reused" if "reused" in values["backward_weights"].values else "independent"
    values = values.sel(backward_weights=[flag])
    panels(sheet, sheet.axes[0], values, "learning_rate", rates, view.floor)
    caption = (
        f"Network with {flag} backward weights minus limit, n = {int(values['width'])}, "
        f"L = {int(values['depth'])}, {when(int(values['step']))}. Bars: one standard error over seeds. "
        "Rates at which every network diverged are left out."
    )
    title = f"Distance to each limit at {count(len(rates), 'learning rate')}"
    return sheet.finish("learning_rates", title, caption)
