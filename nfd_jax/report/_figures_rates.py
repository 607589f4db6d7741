"""Figures of mean squares against width and depth: limit error, coupling, and the two limits taken together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report._plot import (
    BLUE,
    GREEN,
    PAIRS,
    VERMILION,
    Drawing,
    Line,
    below,
    curve,
    empty,
    guide,
    levels,
    log_y,
    panels,
    signed,
    size_axis,
)
from nfd_jax.report._plot import MARKERS as SHAPES
from nfd_jax.verdicts._fits import fit_slope
from nfd_jax.verdicts._joint import JointFit, fit_joint
from nfd_jax.verdicts._view import View, by_seed, covered, spread

SYMBOL = {"width": "n", "depth": "L", "particles": "N"}
QUANTITIES = {"h": "forward features h", "b": "backward features b", "f": "outputs f"}
DIRECTIONS = {"forward": Line(BLUE, "o", "-"), "backward": Line(VERMILION, "s", "-")}
EFFECTS = {"h": Line(BLUE, "o", "-"), "b": Line(VERMILION, "s", "-"), "f": Line(GREEN, "^", "-")}


def slope_of(x: np.ndarray, samples: np.ndarray, floor: float) -> float:
    """Log-log slope of the mean over seeds, (seeds, points), at the points above floor; NaN with fewer than two."""
    with np.errstate(invalid="ignore"):
        good = np.isfinite(samples).all(0) & (samples.mean(0) > floor)
    if good.sum() < 2:
        return np.nan
    return fit_slope(np.asarray(x, float)[good], samples[:, good], n_boot=2).estimate


def _pairs(values: xr.DataArray) -> Iterator[tuple[tuple[str, str], Line, xr.DataArray]]:
    for (network, limit), line in PAIRS.items():
        if network in values["backward_weights"] and limit in values["limit_backward_weights"]:
            part = values.sel(backward_weights=network, limit_backward_weights=limit)
            if part.notnull().any():
                yield (network, limit), line, part


def _ends(values: xr.DataArray) -> list[int]:
    """The first and the last step, if they differ."""
    return sorted({int(values["step"].values[0]), int(values["step"].values[-1])})


def _when(step: int) -> str:
    return "at initialization (step 0)" if step == 0 else f"in training (step {step})"


def limit_error(view: View, axis: str) -> Drawing | None:
    """`limit_error_ms` against axis for every pair of flags, h, b, f, first and last step, up to three other sizes."""
    values = view.get("compare/limit_error_ms")
    if values is None or len(covered(values, axis)) < 2:
        return None
    other = "width" if axis == "depth" else "depth"
    sizes = spread(list(covered(values, other)), 3)[::-1]
    steps = _ends(values)
    figure, axes = panels(len(steps), 3, height=3.9)
    for row, step in zip(axes, steps, strict=True):
        for ax, (quantity, words) in zip(row, QUANTITIES.items(), strict=True):
            panel = values.sel(step=step, quantity=quantity)
            _error_panel(ax, panel, axis, other, sizes, view.floor)
            ax.set_title(f"{words}, {_when(step)}")
        row[0].set_ylabel("limit_error_ms\n(mean square per coordinate)")
    listed = ", ".join(str(size) for size in sizes)
    figure.suptitle(f"Finite network against limit on the same noise, against {axis} {SYMBOL[axis]} ({view.subject})")
    faint = f"; bold: {other} {sizes[0]}, fainter: smaller {other}s" if len(sizes) > 1 else ""
    caption = (
        "Mean square of network minus limit, path by path, the largest over t, for each pair of backward weights "
        f"(network → limit). Bars: one standard error over seeds. {other.capitalize()}s {listed}{faint}. In the "
        f"legends: slope of a straight line through the logarithms. Grey: 1/{SYMBOL[axis]} for comparison. At step 0 "
        "neither h nor f has met a backward pass, so all pairs coincide."
    )
    return Drawing(f"limit_error_{axis}", f"Limit error against {axis}", caption, figure)


def _error_panel(ax: Axes, panel: xr.DataArray, axis: str, other: str, sizes: list, floor: float) -> None:
    for (network, limit), line, part in _pairs(panel):
        slopes, strong = [], None
        for size in sizes:
            samples = by_seed(part.sel({other: size}), axis)
            first = size == sizes[0]
            faint: dict[str, Any] = {} if first else {"alpha": 0.35, "linewidth": 1.0, "markersize": 3.5}
            if curve(ax, part[axis].values, samples, floor=floor, **line.keywords(), **faint) and first:
                strong = ax.containers[-1]
            slope = slope_of(part[axis].values, samples, floor)
            slopes.append("–" if np.isnan(slope) else signed(slope))
        if strong is not None:
            strong.set_label(f"{network} → {limit}: {', '.join(slopes)}")
    if not ax.lines:
        empty(ax, "zero to rounding")
        return
    guide(ax, panel[axis].values, 1, f"∝ 1/{SYMBOL[axis]}")
    log_y(ax)
    size_axis(ax, covered(panel, axis), f"{axis} {SYMBOL[axis]}")
    at = ", ".join(str(size) for size in sizes)
    below(ax, title=f"network → limit: slope at {SYMBOL[other]} = {at}", title_fontsize=7.5, alignment="left")


_COUPLING = {
    "coupling_layer_ms": ("one layer's coupling term", "direction", DIRECTIONS, {"depth": 2}),
    "coupling_displacement_ms": ("accumulated over layers", "direction", DIRECTIONS, {"width": 1}),
    "coupling_effect_ms": ("reused minus independent network", "quantity", EFFECTS, {"width": 1}),
}
"""Title, dimension of the curves, their lines, and by axis the power of the guide: the rates claimed."""


def coupling(view: View) -> Drawing | None:
    """The three coupling quantities against depth (largest width) and width (largest depth), first and last step."""
    found = {name: values for name in _COUPLING if (values := view.get(f"coupling/{name}")) is not None}
    if not found:
        return None
    any_of = next(iter(found.values()))
    axes_of = [axis for axis in ("depth", "width") if len(covered(any_of, axis)) > 1]
    if not axes_of:
        return None
    figure, axes = panels(len(axes_of), len(found), height=3.9)
    for row, axis in zip(axes, axes_of, strict=True):
        other = "width" if axis == "depth" else "depth"
        size = covered(any_of, other)[-1]
        for ax, (name, values) in zip(row, found.items(), strict=True):
            title, dim, lines, guides = _COUPLING[name]
            _coupling_panel(ax, values.sel({other: size}), axis, dim, lines, guides.get(axis), view.floor)
            ax.set_title(f"{title}, {other} {size}")
            ax.set_ylabel(f"{name}\n(mean square per coordinate)")
    figure.suptitle(f"Coupling from reused weights ({view.subject})")
    steps = " and ".join(f"step {step}" for step in _ends(any_of))
    caption = (
        "Left to right: mean over layers of one layer's coupling term; the terms summed over layers, the largest "
        "over t; the difference that reusing the weights makes on the same noise. Filled markers: last step; open: "
        f"first step ({steps}). Bars: one standard error over seeds. Quantities at rounding level are left out. Grey: "
        "the decay that C3 claims of a layer with depth, and C1 of the sums with width at initialization."
    )
    return Drawing("coupling", "Coupling per layer, accumulated, and its effect", caption, figure)


def _coupling_panel(ax: Axes, values, axis: str, dim: str, lines: dict[str, Line], power: int | None, floor: float):
    for label, line in lines.items():
        for step in _ends(values)[::-1]:
            part = values.sel({dim: label, "step": step})
            samples = by_seed(part, axis)
            slope = slope_of(part[axis].values, samples, floor)
            text = f"{label}, step {step}" + ("" if np.isnan(slope) else f": slope {signed(slope)}")
            early = {"markerfacecolor": "white", "linestyle": "--"} if step == 0 and len(values["step"]) > 1 else {}
            curve(ax, part[axis].values, samples, floor=floor, label=text, **(line.keywords() | early))
    if not ax.lines:
        empty(ax, "zero to rounding")
        return
    if power:
        guide(ax, covered(values, axis), power, f"∝ 1/{SYMBOL[axis]}" + ("²" if power == 2 else ""))
    log_y(ax)
    size_axis(ax, covered(values, axis), f"{axis} {SYMBOL[axis]}")
    below(ax, ncols=1 if len(lines) < 3 else 2, columnspacing=1.0)


def joint_limits(view: View) -> Drawing | None:
    """E over width × depth for the reused network and the independent limit, with the fit a/n + b/L + c/(nL) (+ d)."""
    values = view.get("compare/limit_error_ms")
    if values is None:
        return None
    if "reused" not in values["backward_weights"] or "independent" not in values["limit_backward_weights"]:
        return None
    values = values.sel(backward_weights="reused", limit_backward_weights="independent")
    if values.notnull().sum() == 0 or len(covered(values, "width")) < 2 or len(covered(values, "depth")) < 2:
        return None
    steps = _ends(values)
    figure, axes = panels(len(steps), 2, height=3.6)
    for row, step in zip(axes, steps, strict=True):
        for ax, quantity in zip(row, "hb", strict=True):
            _joint_panel(ax, values.sel(step=step, quantity=quantity), view, constant=step > 0)
            ax.set_title(f"{QUANTITIES[quantity]}, {_when(step)}")
        row[0].set_ylabel("E = limit_error_ms\n(mean square per coordinate)")
    figure.suptitle(f"Reused network against independent limit over width × depth ({view.subject})")
    caption = (
        "Points: mean over seeds of the error at each width and depth, with bars of one standard error. Lines: the "
        "fit E = a/n + b/L + c/(nL), in training with a constant d that neither n nor L removes; its coefficients "
        "stand above each legend and, with intervals, in the table. Dashed: the fit at n and L beyond all bounds, "
        "where it is positive."
    )
    return Drawing("joint_limits", "Width and depth together", caption, figure)


def _joint_panel(ax: Axes, values: xr.DataArray, view: View, constant: bool) -> None:
    values = values.dropna("width", how="all").dropna("depth", how="all")
    if view.reference:
        values = values.sel(depth=values["depth"] < view.reference)
    samples = values.transpose("seed", "width", "depth").values
    samples = samples[np.isfinite(samples).all((1, 2))]
    widths, depths = values["width"].values, values["depth"].values
    usable = len(samples) and min(samples.shape[1:]) > 1 and (samples.mean(0) > view.floor).all()
    if not usable:
        empty(ax, "zero to rounding, or cells missing")
        return
    fit = fit_joint(widths, depths, samples, constant=constant, reference=view.reference, n_boot=2)
    shown = set(spread(list(depths), 6))
    fine = np.geomspace(widths[0], widths[-1], 60)
    for color, marker, (j, depth) in zip(levels(len(depths)), SHAPES * 9, enumerate(depths), strict=False):
        if depth in shown:
            style = {"color": color, "marker": marker, "linestyle": "none", "label": f"L = {depth}"}
            curve(ax, widths, samples[:, :, j], **style)
            ax.plot(fine, _law(fit, fine, depth, view.reference), color=color, linewidth=1.2)
    if constant and fit.d.estimate > 0:
        ax.axhline(fit.d.estimate, color="black", linestyle="--", linewidth=1.2, label="n, L → ∞")
    log_y(ax)
    size_axis(ax, widths, "width n")
    terms = f"a = {fit.a.estimate:.2g}, b = {fit.b.estimate:.2g}, c = {fit.c.estimate:.2g}"
    terms += f", d = {fit.d.estimate:.2g}" if constant else ""
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title=terms.replace(", ", "\n"), title_fontsize=7.5)


def _law(fit: JointFit, widths: np.ndarray, depth: float, reference: int | None) -> np.ndarray:
    over_depth = 1 / depth - (1 / reference if reference else 0)
    law = fit.a.estimate / widths + fit.b.estimate * over_depth + fit.c.estimate * over_depth / widths
    law = law + np.nan_to_num(fit.d.estimate)
    return np.where(law > 0, law, np.nan)
