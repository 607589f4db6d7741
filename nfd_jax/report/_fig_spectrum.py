"""The assumption C5: how near to singular the Gram matrices of features and gradients come."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report._numbers import number
from nfd_jax.report._plot import (
    BLUE,
    VERMILION,
    Drawing,
    Line,
    Sheet,
    empty,
    levels,
    log_y,
    same_range,
    size_axis,
    step_axis,
)
from nfd_jax.verdicts import View, covered, spread

LOWEST = 1e-17  # drawn here: what is smaller is rounding of the largest eigenvalue
SCOPES = {"step": BLUE, "joint": VERMILION}
DASHES = {"reused": ("o", "-"), "independent": ("s", "--")}
SCOPE_WORDS = {"step": "one step's batch", "joint": "all steps so far"}


def ratios(view: View) -> xr.DataArray | None:
    """Smallest over largest eigenvalue, inside 0 < t < 1."""
    least, most = view.get("spectrum/min_eigenvalue"), view.get("spectrum/max_eigenvalue")
    if least is None or most is None:
        return None
    ratio = (least.clip(0) / most).clip(LOWEST)
    ts = ratio["t"].values
    inside = ratio.isel(t=(ts > 1e-9) & (ts < 1 - 1e-9))
    return inside if inside.sizes["t"] and inside.notnull().any() else None


def eigenvalues(view: View) -> Drawing | None:
    """Along t after the last step, and the least over t against the step, for features and gradients."""
    ratio = ratios(view)
    if ratio is None:
        return None
    width, depth = (int(covered(ratio, dim)[-1]) for dim in ("width", "depth"))
    ratio = ratio.sel(width=width, depth=depth)
    last = int(ratio["step"].values[-1])
    sheet, legend = Sheet(2, 2), {}
    for row, kind in zip(sheet.axes, ("feature", "gradient"), strict=True):
        part = ratio.sel(kind=kind)
        legend |= _panel(row[0], part.sel(step=last), "t")
        row[0].set_xlim(0, 1)
        row[0].set_xlabel("t = ℓ/L")
        row[0].set_title(f"{kind}s along t, step {last}")
        _panel(row[1], part.min("t"), "step")
        step_axis(row[1], ratio["step"].values)
        row[1].set_title(f"{kind}s, least over t")
        row[0].set_ylabel("smallest / largest eigenvalue")
    same_range(sheet.axes)
    least = ratio.sel(scope="step").min() if "step" in ratio["scope"] else ratio.min()
    caption = (
        f"Gram matrix of φ(h) and of b, n = {width}, L = {depth}: of one step's batch (step), which C5 is judged by, or of all samples "
        "of all steps so far (joint), which a repeated batch brings close to singular. Median over seeds; shaded: all seeds. The ends "
        "of t are left out: at t = 1 the gradients of all samples are the same in any network."
    )
    title = f"C5: within a batch no eigenvalue falls below {number(float(least))} of the largest"
    return sheet.finish("eigenvalues", title, caption, legend)


def _panel(ax: Axes, values: xr.DataArray, axis: str) -> dict[str, Line]:
    legend = {}
    for scope, color in SCOPES.items():
        for flag, (marker, dashes) in DASHES.items():
            if scope not in values["scope"] or flag not in values["backward_weights"]:
                continue
            samples = values.sel(scope=scope, backward_weights=flag).transpose("seed", axis).values
            samples = samples[np.isfinite(samples).any(1)]
            if not len(samples):
                continue
            line = Line(color, marker, dashes)
            ax.plot(values[axis], np.nanmedian(samples, 0), **line.keywords())
            ax.fill_between(
                values[axis],
                np.nanmin(samples, 0),
                np.nanmax(samples, 0),
                color=color,
                alpha=0.15,
                linewidth=0,
            )
            legend[f"{SCOPE_WORDS[scope]}, {flag} weights"] = line
    if not ax.lines:
        empty(ax, "not measured")
    return legend


def nondegeneracy(view: View) -> Drawing | None:
    """The least relative eigenvalue against the number of samples K·P seen so far, and against depth."""
    ratio = ratios(view)
    if ratio is None or "joint" not in ratio["scope"] or ratio.sizes["step"] < 2:
        return None
    batch = (view.config.get("problem") or {}).get("batch_size")
    if not batch:
        return None
    flag = "reused" if "reused" in ratio["backward_weights"] else str(ratio["backward_weights"].values[0])
    least = ratio.sel(backward_weights=flag, width=covered(ratio, "width")[-1]).min("t")
    depths = spread(list(covered(least, "depth")), 5)
    samples = (least["step"].values + 1) * int(batch)
    sheet, legend = Sheet(1, 2 + (len(depths) > 1)), {}
    for ax, kind in zip(sheet.axes[0], ("feature", "gradient"), strict=False):
        for color, marker, depth in zip(levels(len(depths)), "os^DvPX", depths, strict=False):
            line = Line(color, marker)
            ax.plot(
                samples, least.sel(scope="joint", kind=kind, depth=depth).median("seed"), **line.keywords()
            )
            legend[f"all steps so far, L = {depth}"] = line
        size_axis(ax, samples, "samples met so far, k·P")
        ax.set_title(f"{kind}s, joint Gram")
    if len(depths) > 1:
        ax = sheet.axes[0, 2]
        for kind, color, marker in (("feature", BLUE, "o"), ("gradient", VERMILION, "s")):
            line = Line(color, marker, "--", hollow=True)
            ax.plot(
                least["depth"],
                least.sel(scope="step", kind=kind).min("step").median("seed"),
                **line.keywords(),
            )
            legend[f"one step's batch, {kind}s"] = line
        size_axis(ax, covered(least, "depth"), "depth L")
        ax.set_title("within a batch, against depth")
    same_range(sheet.axes)
    for ax in sheet.axes.flat:
        log_y(ax)
    sheet.axes[0, 0].set_ylabel("smallest / largest eigenvalue")
    caption = (
        f"{flag.capitalize()} weights, n = {int(least['width'])}; least over 0 < t < 1, median over seeds. A batch that is repeated, or "
        "a loss near zero, brings samples of different steps together."
    )
    return sheet.finish(
        "nondegeneracy", "Nondegeneracy against the number of samples and against depth", caption, legend
    )
