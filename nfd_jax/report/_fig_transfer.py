"""Transfer of learning rates: loss after training against η for networks and limits, and whether the limit's best η serves."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfd_jax.report._fig_error import rate_axis
from nfd_jax.report._numbers import count, number, percent
from nfd_jax.report._plot import (
    LIMIT,
    MARKERS,
    QUANTITY,
    Drawing,
    Line,
    Sheet,
    levels,
    log_y,
    same_range,
    size_axis,
)
from nfd_jax.verdicts import View, by_seed, covered, measured, spread

RESAMPLES = 300


@dataclass(frozen=True)
class Optimum:
    """Best learning rate by a parabola in log η through the best point and its neighbours, with its 95 % bootstrap interval.

    inner: whether the best point is not at an end of the list, where nothing can be interpolated.
    """

    rate: float
    low: float
    high: float
    inner: bool


def optimum(rates: np.ndarray, losses: np.ndarray) -> Optimum:
    """losses (seeds, rates); what is not finite counts as worst. Seeds are resampled whole."""
    seeds = len(losses)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    picks = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    found = [_vertex(rates, losses[pick].mean(0)) for pick in picks] if seeds > 1 else []
    rate, inner = _vertex(rates, losses.mean(0))
    bounds = np.percentile([best for best, _ in found], [2.5, 97.5]) if found else (math.nan, math.nan)
    return Optimum(rate, float(bounds[0]), float(bounds[1]), inner)


def _vertex(rates: np.ndarray, mean: np.ndarray) -> tuple[float, bool]:
    i = int(np.argmin(mean))
    if not 0 < i < len(rates) - 1 or not np.isfinite(mean[i - 1 : i + 2]).all():
        return float(rates[i]), False
    x, y = np.log(rates[i - 1 : i + 2]), mean[i - 1 : i + 2]
    curvature, slope, _ = np.polyfit(x - x[1], y, 2)
    if curvature <= 0:
        return float(rates[i]), True
    shift = np.clip(-slope / (2 * curvature), x[0] - x[1], x[2] - x[1])
    return float(np.exp(x[1] + shift)), True


def losses_by_rate(tree: xr.DataTree) -> tuple[xr.DataArray | None, xr.DataArray | None]:
    """Training loss after the last update, networks and limits, over all learning rates; diverged ones NaN."""
    found = [measured(tree, path) for path in ("finite/loss", "limit/loss")]
    return tuple(None if values is None else values.isel(step=-1) for values in found)


def transfer(view: View) -> Drawing | None:
    """Loss against η: depths at the largest width, widths at the largest depth, and the limit."""
    finite, solved = losses_by_rate(view.tree)
    if (
        finite is None
        or "reused" not in finite["backward_weights"]
        or len(covered(finite, "learning_rate")) < 3
    ):
        return None
    finite, rates = finite.sel(backward_weights="reused"), finite["learning_rate"].values
    width, depth = (int(covered(finite, dim)[-1]) for dim in ("width", "depth"))
    cuts = {"depth": finite.sel(width=width), "width": finite.sel(depth=depth)}
    cuts = {axis: values for axis, values in cuts.items() if len(covered(values, axis)) > 1} or {
        "depth": cuts["depth"]
    }
    sheet, legend, best = Sheet(1, len(cuts) + 1), {}, {}
    for ax, (axis, values) in zip(sheet.axes[0], cuts.items(), strict=False):
        sizes = spread(list(covered(values, axis)), 5)
        for color, marker, size in zip(levels(len(sizes)), MARKERS, sizes, strict=False):
            samples = values.sel({axis: size}).transpose("seed", "learning_rate").values
            line = Line(color, marker)
            ax.plot(
                rates,
                np.where(np.isfinite(samples).all(0), samples.mean(0), math.nan),
                **line.keywords(),
                markersize=4.5,
            )
            symbol = "L" if axis == "depth" else "n"
            legend[f"{symbol} = {size}"] = line
            best[axis, int(size)] = optimum(rates, samples)
        ax.set_title(f"{'width n' if axis == 'depth' else 'depth L'} = {width if axis == 'depth' else depth}")
        rate_axis(ax, rates)
    at_limit = _limit(sheet.axes[0, : len(cuts)], solved, width, rates, legend)
    same_range(sheet.axes[0, : len(cuts)])
    _optima(sheet.axes[0, -1], best, at_limit, next(iter(cuts)))
    sheet.axes[0, 0].set_ylabel("training loss after the last update")
    caption = (
        "Means over seeds; a curve stops where a network diverged. Right: the best learning rate, by a parabola through the best "
        "point and its neighbours, with 95 % bootstrap intervals over seeds; hollow where the best point is at an end of the list."
    )
    return sheet.finish("transfer", _title(best, at_limit, cuts, rates), caption, legend)


def _limit(axes, solved: xr.DataArray | None, width: int, rates: np.ndarray, legend: dict) -> Optimum | None:
    if solved is None or "reused" not in solved["backward_weights"]:
        return None
    counts = covered(solved, "particles")
    samples = solved.sel(backward_weights="reused", particles=width if width in counts else counts[-1])
    samples = samples.transpose("seed", "learning_rate").values
    for ax in axes:
        ax.plot(
            rates,
            np.where(np.isfinite(samples).all(0), samples.mean(0), math.nan),
            **LIMIT["reused"].keywords() | {"linewidth": 2.2},
        )
    legend["reused limit, L = ∞"] = LIMIT["reused"]
    return optimum(rates, samples)


def _optima(ax, best: dict, at_limit: Optimum | None, axis: str) -> None:
    sizes = [size for along, size in best if along == axis]
    for size in sizes:
        found = best[axis, size]
        ends = [[max(found.rate - found.low, 0)], [max(found.high - found.rate, 0)]]
        face = QUANTITY["b"].color if found.inner else "white"
        ax.errorbar(
            [size],
            [found.rate],
            np.nan_to_num(ends),
            marker="o",
            color=QUANTITY["b"].color,
            markerfacecolor=face,
            capsize=2,
        )
    if at_limit is not None:
        ax.axhline(
            at_limit.rate, color=LIMIT["reused"].color, linestyle=LIMIT["reused"].dashes, linewidth=2.2
        )
    log_y(ax)
    size_axis(ax, sizes, f"{axis} {'L' if axis == 'depth' else 'n'}")
    ax.set_ylabel("best learning rate η*")
    ax.set_title("where the best η lies")


def _title(best: dict, at_limit: Optimum | None, cuts: dict, rates: np.ndarray) -> str:
    axis, values = next(iter(cuts.items()))
    sizes = [size for along, size in best if along == axis]
    symbol = "L" if axis == "depth" else "n"
    said = f"best η {number(best[axis, sizes[0]].rate)} at {symbol} = {sizes[0]}"
    if len(sizes) > 1:
        said += f", {number(best[axis, sizes[-1]].rate)} at {symbol} = {sizes[-1]}"
    if at_limit is None:
        return f"Learning rates: {said}"
    said += f", {number(at_limit.rate)} in the limit"
    samples = values.sel({axis: sizes[-1]}).transpose("seed", "learning_rate").values
    means = np.where(np.isfinite(samples).all(0), samples.mean(0), np.inf)
    nearest = int(np.argmin(np.abs(np.log(rates / at_limit.rate))))
    if np.isfinite(means[nearest]) and means.min() > 0:
        said += f"; at the limit's η the loss of {symbol} = {sizes[-1]} is {percent(means[nearest] / means.min() - 1)} above its best"
    return f"Learning rates: {said}"


def coordinate_check(view: View) -> Drawing | None:
    """Size of what learning moves, h and f, against width and depth: flat where a parametrization keeps features moving."""
    shift, output = view.get("finite/feature_shift_ms"), view.get("finite/output")
    if shift is None or "reused" not in shift["backward_weights"]:
        return None
    shift = shift.sel(backward_weights="reused").isel(step=-1).max("t")
    moved = {"h": shift}
    fixed = (view.config.get("problem") or {}).get("batches", "fixed") == "fixed"
    if output is not None and "reused" in output["backward_weights"] and fixed:
        output = output.sel(backward_weights="reused")
        moved["f"] = ((output.isel(step=-1) - output.isel(step=0)) ** 2).mean(
            [dim for dim in ("sample", "component") if dim in output.dims]
        )
    cuts = [axis for axis in ("width", "depth") if len(covered(shift, axis)) > 1]
    if not cuts:
        return None
    sheet, legend = Sheet(1, len(cuts)), {}
    for ax, axis in zip(sheet.axes[0], cuts, strict=True):
        other = "depth" if axis == "width" else "width"
        size = int(covered(shift, other)[-1])
        for name, values in moved.items():
            part = values.sel({other: size})
            samples = by_seed(part, axis)
            ax.errorbar(
                part[axis].values,
                samples.mean(0),
                samples.std(0),
                capsize=2,
                elinewidth=0.8,
                **QUANTITY[name].keywords(),
            )
            legend[f"{'features h' if name == 'h' else 'outputs f'}"] = QUANTITY[name]
        size_axis(ax, covered(shift, axis), f"{axis} {'n' if axis == 'width' else 'L'}")
        ax.set_title(f"{other} {'L' if other == 'depth' else 'n'} = {size}")
    same_range(sheet.axes)
    sheet.axes[0, 0].set_ylabel("mean square of the movement")
    updates = count(int(shift["step"]), "update")
    caption = f"h (largest over t) and f after {updates} minus before training, reused weights. Bars: one standard deviation over seeds."
    return sheet.finish(
        "coordinate_check", f"Coordinate check: what {updates} move, against width and depth", caption, legend
    )
