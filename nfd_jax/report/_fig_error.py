"""Distance of networks to limits against width, depth and learning rate; and over width and depth together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report._numbers import count
from nfd_jax.report._plot import (
    GUIDE,
    GUIDES,
    MARKERS,
    PAIRS,
    QUANTITIES,
    SYMBOL,
    Drawing,
    Line,
    Sheet,
    curve,
    empty,
    guide,
    levels,
    pair_name,
    same_range,
    size_axis,
)
from nfd_jax.report._trends import moves, trend
from nfd_jax.verdicts import View, by_seed, covered, measured, spread

OTHER = {"width": "depth", "depth": "width"}


def pairs(values: xr.DataArray) -> Iterator[tuple[tuple[str, str], Line, xr.DataArray]]:
    """Every pair of network and limit there is data for."""
    for (network, limit), line in PAIRS.items():
        if network in values["backward_weights"] and limit in values["limit_backward_weights"]:
            part = values.sel(backward_weights=network, limit_backward_weights=limit)
            if part.notnull().any():
                yield (network, limit), line, part


def ends(values: xr.DataArray) -> list[int]:
    """The first and the last step, if they differ."""
    return sorted({int(values["step"].values[0]), int(values["step"].values[-1])})


def when(step: int) -> str:
    """A step in words."""
    return "before training" if step == 0 else f"after {count(step, 'update')}"


def limit_error(view: View, axis: str) -> Drawing | None:
    """All pairs of network and limit against depth or width, for h, b, f after the last update (and before the first)."""
    values = view.get("compare/limit_error_ms")
    if values is None or len(covered(values, axis)) < 2:
        return None
    other, symbol = OTHER[axis], SYMBOL[axis]
    size = int(covered(values, other)[-1])
    values, sizes = values.sel({other: size}), covered(values, axis)
    steps = ends(values)[::-1] if axis == "depth" else ends(values)[-1:]
    sheet, legend = Sheet(len(steps), 3), {}
    slopes: dict[tuple[str, str], str] = {}
    for row, step in zip(sheet.axes, steps, strict=True):
        for ax, (quantity, words) in zip(row, QUANTITIES.items(), strict=True):
            for pair, line, part in pairs(values.sel(step=step, quantity=quantity)):
                samples = by_seed(part.sel({axis: sizes}), axis)
                if curve(ax, sizes, samples, line, floor=view.floor):
                    legend[pair_name(*pair)] = line
                    found = trend(sizes, samples, view.floor)
                    if quantity == "h" and step == steps[0]:
                        slopes[pair] = moves(found, symbol)
            ax.set_title(f"{words}, {when(step)}")
            if ax.lines:
                size_axis(ax, sizes, f"{axis} {symbol}")
            else:
                empty(ax, "zero to rounding")
        same_range(row)
        for ax in row[[bool(ax.lines) for ax in row]]:
            guide(ax, sizes, 1, ax.get_ylim()[1] * 0.8)
        row[0].set_ylabel("mean square per coordinate")
    legend[f"slope of 1/{symbol}"] = Line(GUIDE, "", GUIDES)
    where = f"{OTHER[axis]} {SYMBOL[other]} = {size}"
    caption = (
        f"Mean square of network minus limit on the same noise, path by path, the largest over t; {where}"
        f"{_rate(view)}. Bars: one standard error over seeds. Before training neither h nor f has met a backward pass, so that "
        "their pairs coincide."
    )
    return sheet.finish(f"limit_error_{axis}", _message(slopes, axis), caption, legend)


def _rate(view: View) -> str:
    return "" if view.rate is None else f", η = {view.rate:g}"


def _message(slopes: dict[tuple[str, str], str], axis: str) -> str:
    said = {pair: words for pair, words in slopes.items() if words}
    title = f"Distance to the limits against {axis}"
    wanted = [
        (pair, words)
        for pair in (("reused", "reused"), ("reused", "independent"))
        if (words := said.get(pair))
    ]
    if not wanted:
        return title + (": two points give no slope" if slopes and not said else "")
    return title + ": h " + "; ".join(f"{pair[0]} → {pair[1]} {words}" for pair, words in wanted)


def joint_limits(view: View) -> Drawing | None:
    """Error before training against width for each depth: against the large reference limit where there is one."""
    name = "compare/reference_error_ms"
    values = view.get(name)
    if values is None:
        values, name = view.get("compare/limit_error_ms"), "compare/limit_error_ms"
    if (
        values is None
        or "reused" not in values["backward_weights"]
        or "independent" not in values["limit_backward_weights"]
    ):
        return None
    values = values.sel(backward_weights="reused", limit_backward_weights="independent").isel(step=0)
    if not values.notnull().any() or min(len(covered(values, dim)) for dim in ("width", "depth")) < 2:
        return None
    reference = name.endswith("reference_error_ms")
    shown = [q for q in QUANTITIES if reference or q != "f"]
    sheet, legend = Sheet(1, len(shown)), {}
    depths = spread(list(covered(values, "depth")), 6)
    for ax, quantity in zip(sheet.axes[0], shown, strict=True):
        for color, marker, depth in zip(levels(len(depths)), MARKERS, depths, strict=False):
            part = values.sel(quantity=quantity, depth=depth)
            line = Line(color, marker)
            if curve(ax, part["width"].values, by_seed(part, "width"), line, floor=view.floor):
                legend[f"L = {depth}"] = line
        ax.set_title(QUANTITIES[quantity])
        if ax.lines:
            size_axis(ax, covered(values, "width"), "width n")
        else:
            empty(ax, "zero to rounding")
    same_range(sheet.axes)
    sheet.axes[0, 0].set_ylabel("mean square per coordinate")
    against = (
        "a limit of many more particles on nested noise"
        if reference
        else "a limit of as many particles on the same noise"
    )
    caption = f"Reused network minus independent limit before any update, against {against}. Bars: one standard error over seeds."
    if not reference:
        caption += " Matched particles take away the 1/n that C6 speaks of: limit.reference_particles adds what decides it."
    return sheet.finish(
        "joint_limits", "Before training: error over width and depth together", caption, legend
    )


def learning_rates(view: View) -> Drawing | None:
    """Distance of a standard network to each limit against the learning rate, at the largest width and depth."""
    values = measured(view.tree, "compare/limit_error_ms")
    if values is None or len(covered(values, "learning_rate")) < 2:
        return None
    values = values.isel(step=-1)
    values = values.sel(width=covered(values, "width")[-1], depth=covered(values, "depth")[-1])
    rates, sheet, legend = covered(values, "learning_rate"), Sheet(1, 3), {}
    for ax, (quantity, words) in zip(sheet.axes[0], QUANTITIES.items(), strict=True):
        for pair, line, part in pairs(values.sel(quantity=quantity)):
            if pair[0] == "reused" and curve(
                ax, rates, by_seed(part.sel(learning_rate=rates), "learning_rate"), line, floor=view.floor
            ):
                legend[pair_name(*pair)] = line
        ax.set_title(words)
        rate_axis(ax, rates)
    same_range(sheet.axes)
    sheet.axes[0, 0].set_ylabel("mean square per coordinate")
    caption = (
        f"Network minus limit, n = {int(values['width'])}, L = {int(values['depth'])}, {when(int(values['step']))}. "
        "Bars: one standard error over seeds. Rates at which every network diverged are left out."
    )
    return sheet.finish(
        "learning_rates", f"Distance to each limit at {count(len(rates), 'learning rate')}", caption, legend
    )


def rate_axis(ax: Axes, rates: Any) -> None:
    """A log axis of learning rates with at most seven labels."""
    size_axis(ax, np.asarray(rates), "learning rate η")
