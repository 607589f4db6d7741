"""Transfer of learning rates: loss after training against η for networks and limits, and whether the limit's
best η serves. The coordinate check beside it."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report import _plot as plot
from nfd_jax.report._learning import (
    best_rates,
    check_words,
    checked,
    cut,
    limit_rate,
    rate_words,
    shift_words,
    untrained_words,
)
from nfd_jax.report._numbers import count
from nfd_jax.report._pick import ends, estimate, largest
from nfd_jax.verdicts import View, covered

BEST = (
    "Means over seeds, at learning rates at which every seed trains: no loss has grown. The best learning "
    "rate η* is the vertex of a parabola through the least loss and its neighbours, with its 95 % interval "
    "over seeds. Hollow: a neighbour does not serve, or the list ends; η* lies between the ends of the bar."
)


def transfer(view: View) -> plot.Drawing | None:
    """Loss against η for depths at the largest width, for widths at the largest depth, and for the limit; and
    the best η against either."""
    found = best_rates(view)
    if found is None:
        return None
    axes = [axis for axis in ("depth", "width") if len(covered(found["optimum"], axis)) > 1] or ["depth"]
    sheet = plot.Sheet(1, 2 * len(axes))
    curves, best = sheet.axes[0, : len(axes)], sheet.axes[0, len(axes) :]
    line = plot.Line(plot.VERMILION, "s")
    for ax, beside, axis in zip(curves, best, axes, strict=True):
        rate_panels(sheet, ax, beside, found, axis, line, "best η of networks")
    plot.same_range(curves)
    flag = found.attrs["backward_weights"].capitalize()
    said = [f"{flag} backward weights.", shift_words(found), untrained_words(found), BEST]
    caption = " ".join(filter(None, said))
    return sheet.finish("transfer", f"Learning rates: {rate_words(found)}", caption)


def rate_panels(
    sheet: plot.Sheet, ax: Axes, beside: Axes, found: xr.Dataset, axis: str, line: plot.Line, label: str
) -> None:
    """Loss against η with a line for each size along one axis; beside it the best η against size, hollow
    where it is no vertex. The limit's in both."""
    other, part = plot.OTHER[axis], found.sel(cut(found, axis))
    rates, sizes, inner = part["learning_rate"].values, part[axis].values, part["inner"].values
    for size, drawn in plot.shades(covered(part["loss"], axis)):
        losses = part["loss"].sel({axis: size})
        sheet.line(ax, rates, losses, drawn, f"{plot.SYMBOL[axis]} = {size}", markersize=4.5)
    shown = rates[0] / 1.3, rates[-1] * 1.3  # the whole list: shifts are seen beside its steps
    sheet.intervals(beside, sizes, ends(part, "optimum").clip(*shown), line, label, ~inner)
    if (limit := limit_rate(found)) is not None:
        drawn = plot.LIMIT[found.attrs["backward_weights"]]
        sheet.line(
            ax, rates, found["limit_loss"].sel(limit), drawn, f"limit, {found.attrs['limit']}", **plot.THICK
        )
        best = estimate(found, "limit_optimum", **limit)
        beside.axhline(best.value, color=drawn.color, linestyle=drawn.dashes, **plot.THICK)
        if not bool(found["limit_inner"].sel(limit)):
            beside.axhspan(*np.clip(best[1:], *shown), color=drawn.color, alpha=0.12, linewidth=0)
    plot.size_axis(ax, rates, "learning_rate", "every network diverged")
    plot.size_axis(beside, sizes, axis)
    beside.set_ylim(*shown)
    plot.log_y(beside)
    ax.set_title(f"{other} {plot.SYMBOL[other]} = {int(part[other])}")
    beside.set_title(f"best η against {axis}")
    sheet.axes[0, 0].set_ylabel("training loss after the last update")
    beside.set_ylabel("best learning rate η*")


def coordinate_check(view: View) -> plot.Drawing | None:
    """Size of what learning moves, h and f, against width and depth: flat where a parametrization keeps
    features moving."""
    found = checked(view)
    axes = [
        axis for axis in ("width", "depth") if found is not None and len(covered(found["size"], axis)) > 1
    ]
    if found is None or not axes:
        return None
    sheet = plot.Sheet(1, len(axes))
    for ax, axis in zip(sheet.axes[0], axes, strict=True):
        part = largest(found["size"], plot.OTHER[axis])
        at = {plot.OTHER[axis]: int(part[plot.OTHER[axis]])}
        for quantity in found["quantity"].values:
            x = found[axis].values * (1.02 if quantity == "f" else 1.0)  # bars side by side
            sizes = ends(found.sel(at | {"quantity": quantity}), "size")
            sheet.intervals(ax, x, sizes, plot.QUANTITY[quantity], plot.QUANTITIES[quantity])
        plot.size_axis(ax, covered(found["size"], axis), axis)
        ((name, size),) = at.items()
        ax.set_title(f"{name} {plot.SYMBOL[name]} = {size}")
    plot.same_range(sheet.axes)
    sheet.axes[0, 0].set_ylabel("size of the movement, rms")
    steps = view.get("finite/loss")
    updates = count(int(steps["step"][-1]), "update") if steps is not None else "training"
    verdict, powers = check_words(found)
    also = ", and f likewise" if found["size"].sel(quantity="f").notnull().any() else ""
    caption = (
        f"Root mean square of what {updates} change: h after minus h before (largest over t){also}, "
        f"{found.attrs['backward_weights']} weights, η = {float(found['learning_rate']):g}. Bars: 95 % "
        f"intervals over seeds. Over the whole grid: {powers}; flat is what lies within "
        f"±{found.attrs['flat']:g}."
    )
    title = f"Coordinate check, size of what {updates} move: {verdict}"
    return sheet.finish("coordinate_check", title, caption)
