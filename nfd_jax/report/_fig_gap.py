"""Figure 2 of the paper: do the losses of reused and independent networks become the same with depth, or only
at zero loss?"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report import _plot as plot
from nfd_jax.report._learning import gap_words, grid_of, limit_gap
from nfd_jax.report._numbers import count, percent, percents
from nfd_jax.report._pick import ends, estimate, largest
from nfd_jax.verdicts import View, covered, relative_gap, spread

ENDLESS = plot.LIMIT["independent"]
"""The gap of the two limits."""
OVER = "both learned everything"
MEANING = (
    "Relative gap: (loss of independent − loss of reused)/(loss before training − loss of reused), of "
    "paired seeds; steps before the loss has dropped by 2 % are left out. Bars: 95 % intervals. Hollow: "
    "both have learned everything, and curves that meet there say nothing of what reuse does."
)


def known(found: xr.Dataset | None) -> bool:
    """Whether there is a gap to be seen."""
    return found is not None and "gap" in found and bool(found["gap"].notnull().any())


def gap(view: View) -> plot.Drawing | None:
    """Relative gap over steps for each depth, and at three steps against depth, width and learning rate, the
    largest sizes of the others; with the limits' own gap."""
    found = relative_gap(view.tree)
    if not known(found):
        return None
    corner = {dim: largest(found["gap"], dim)[dim].item() for dim in ("width", "depth")}
    rates = covered(found["gap"].sel(width=corner["width"]), "learning_rate")
    corner["learning_rate"] = _telling([found.sel(corner).isel(step=-1)], rates[-1])
    axes = [axis for axis in ("depth", "width", "learning_rate") if len(covered(found["gap"], axis)) > 1]
    sheet = plot.Sheet(1, 1 + len(axes))
    ax, steps = sheet.axes[0, 0], found["step"].values
    part = found["gap"].sel({dim: corner[dim] for dim in ("learning_rate", "width")})
    for depth, line in plot.shades(covered(part, "depth")):
        sheet.line(ax, steps, part.sel(depth=depth), line, f"networks, L = {depth}", markersize=4.5)
    limit = limit_gap(found, corner["learning_rate"], corner["width"])
    if limit is not None:
        sheet.line(ax, steps, limit, ENDLESS, f"limits, {grid_of(view)}", linewidth=2.2)
    plot.step_axis(ax, steps)
    ax.set_title(f"n = {corner['width']}, η = {corner['learning_rate']:g}")
    shown = [int(step) for step in spread(list(steps[1:]), 3)]
    for ax, axis in zip(sheet.axes[0, 1:], axes, strict=True):
        sizes = covered(found["gap"], axis)
        at = {dim: place for dim, place in corner.items() if dim != axis}
        for step, (dashes, marker) in zip(shown, (("-", "o"), ("--", "s"), (":", "^")), strict=False):
            line = plot.Line(plot.SLATE, marker, dashes)
            part = found.sel(at | {"step": step, axis: sizes})
            points(sheet, ax, part, axis, line, f"after {count(step, 'update')}")
        plot.size_axis(ax, sizes, axis, "the loss has hardly dropped")
        ax.set_title(", ".join(f"{plot.SYMBOL[dim]} = {place:g}" for dim, place in at.items()))
    for ax in sheet.axes.flat:
        plot.zero_line(ax)
    plot.same_range(sheet.axes, log=False)
    sheet.axes[0, 0].set_ylabel("relative gap of losses")
    return sheet.finish("gap", _title(found, corner), f"{' '.join(gap_words(view))} {MEANING}")


def points(sheet: plot.Sheet, ax: Axes, part: xr.Dataset, axis: str, line: plot.Line, label: str) -> None:
    """Gaps along one axis with their intervals, hollow where both have learned everything."""
    sheet.intervals(ax, part[axis].values, ends(part, "gap"), line, label, part["reason"].values == OVER)


def _title(found: xr.Dataset, corner: Mapping) -> str:
    """The gap at the shallowest and at the deepest network, at the last step with something left to learn."""
    title = f"Gap of losses, independent − reused, η = {corner['learning_rate']:g}"
    part = found.sel({dim: corner[dim] for dim in ("learning_rate", "width")})
    depths = covered(part["gap"], "depth")
    if not len(depths):
        return title
    part = part.sel(depth=depths)
    over = (part["reason"] == OVER).all("depth").values
    left = np.flatnonzero(part["gap"].notnull().any("depth").values & ~over)
    late = ""
    if over[-1]:
        since = part["step"].values[np.flatnonzero(~over)[-1] + 1]
        late = f"; from {count(int(since), 'update')} on both have learned everything"
    if not len(left):
        return title + late
    at = {"step": part["step"].values[left[-1]]}
    said = [
        f"{percents(estimate(part, 'gap', depth=depth, **at))} at L = {depth}"
        for depth in dict.fromkeys([depths[0], depths[-1]])
    ]
    return f"{title}, after {count(int(at['step']), 'update')}: {', '.join(said)}{late}"


def gap_row(sheet: plot.Sheet, row: Iterable[Axes], views: Mapping[str, View]) -> str:
    """Relative gap after training against depth, a panel for each run and a line for each learning rate; what
    it says."""
    lines: dict[float, plot.Line] = {}
    tables: dict[str, xr.Dataset] = {}
    axes = list(row)
    for ax, (name, view) in zip(axes, views.items(), strict=True):
        found = relative_gap(view.tree)
        ax.set_title(f"gap after training, {name}")
        if not known(found):
            plot.empty(ax, "no gap of losses to speak of")
            continue
        found = found.sel(width=covered(found["gap"], "width")[-1]).isel(step=-1)
        for rate in covered(found["gap"], "learning_rate"):
            k = len(lines) % len(plot.SERIES)
            line = lines.setdefault(float(rate), plot.Line(plot.SERIES[k], plot.MARKERS[k]))
            part = found.sel(learning_rate=rate)
            points(sheet, ax, part, "depth", line, f"gap of networks, η = {rate:g}")
            limit = limit_gap(found, rate, int(found["width"]))
            if limit is not None:
                ax.axhline(float(limit), color=line.color, linestyle=ENDLESS.dashes)
                sheet.legend["gap of the limits, in the networks' colour"] = ENDLESS
        plot.size_axis(ax, found["depth"].values, "depth", "the loss has hardly dropped")
        plot.zero_line(ax)
        tables[name] = found
    if tables:  # of the points: a bar that reaches far would press all others flat
        every = np.concatenate([found["gap"].values.ravel() for found in tables.values()] + [[0.0]])
        low, high = np.nanmin(every), np.nanmax(every)
        room = 0.12 * (high - low) or 1.0
        for ax in axes:
            ax.set_ylim(low - room, high + room)
    axes[0].set_ylabel("relative gap of losses")
    return _said(tables)


def _said(tables: Mapping[str, xr.Dataset]) -> str:
    """Gaps from the shallowest to the deepest network."""
    rate = _telling(list(tables.values()))
    said = [
        f"{name} {' → '.join(percent(end) for end in ends)}"
        for name, found in tables.items()
        if rate in found["learning_rate"]
        and np.isfinite(ends := found["gap"].sel(learning_rate=rate).values[[0, -1]]).all()
    ]
    return f"{'; '.join(said)} (η = {rate:g})" if said else ""


def _telling(tables: Sequence[xr.Dataset], default: float = np.nan) -> float:
    """The largest learning rate at which the fewest of the deepest networks have learned everything."""
    over: dict[float, int] = {}
    for found in tables:
        for rate in covered(found["gap"], "learning_rate"):
            reasons = found["reason"].sel(learning_rate=rate).values
            over[float(rate)] = over.get(float(rate), 0) + int((reasons == OVER).sum())
    return max((rate for rate in over if over[rate] == min(over.values())), default=default)
