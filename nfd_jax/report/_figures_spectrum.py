"""The figure of C5: how near to singular the feature and gradient Gram matrices come."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report._plot import BLUE, VERMILION, Drawing, empty, log_y, panels, size_axis, step_axis
from nfd_jax.verdicts._verdicts import THRESHOLD
from nfd_jax.verdicts._view import View, covered

LOWEST = 1e-17  # drawn here: what is smaller is rounding of the largest eigenvalue
SCOPES = {"step": BLUE, "joint": VERMILION}
DASHES = {"reused": ("o", "-"), "independent": ("s", "--")}


def eigenvalues(view: View, threshold: float = THRESHOLD) -> Drawing | None:
    """Smallest relative eigenvalue along t, over steps and against width, for features and gradients."""
    least, most = view.get("spectrum/min_eigenvalue"), view.get("spectrum/max_eigenvalue")
    if least is None or most is None:
        return None
    ratio = (least.clip(0) / most).clip(LOWEST)
    ts = ratio["t"].values
    inside = ratio.isel(t=(ts > 1e-9) & (ts < 1 - 1e-9))
    width, depth = (int(covered(ratio, dim)[-1]) for dim in ("width", "depth"))
    kinds = [str(kind) for kind in ratio["kind"].values]
    last = int(ratio["step"].values[-1])
    wide = len(covered(ratio, "width")) > 1
    figure, axes = panels(len(kinds), 2 + wide, height=3.2)
    for row, kind in zip(axes, kinds, strict=True):
        here = {"width": width, "depth": depth, "kind": kind}
        # at t = 1 the backward features of all samples are V: singular whatever the network does
        along = ratio if kind == "feature" else ratio.isel(t=ts < 1 - 1e-9)
        _panel(row[0], along.sel(here | {"step": last}), "t", threshold)
        row[0].set_xlabel("t = ℓ/L")
        row[0].set_title(f"{kind} Gram along t, step {last}, n = {width}, L = {depth}")
        row[0].set_ylabel("smallest / largest eigenvalue")
        _panel(row[1], inside.sel(here).min("t"), "step", threshold)
        step_axis(row[1], ratio["step"].values)
        row[1].set_title("least over 0 < t < 1, over steps")
        if wide:
            _panel(row[2], inside.sel(kind=kind, depth=depth).min(["t", "step"]), "width", threshold)
            size_axis(row[2], covered(ratio, "width"), "width n")
            row[2].set_title(f"least over 0 < t < 1 and steps, L = {depth}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.suptitle(f"Smallest relative eigenvalue of Gram matrices ({view.subject})")
    caption = (
        "Gram matrix of φ(h) (feature) and of b (gradient): of one step's batch (step), or of all samples of all "
        "steps so far (joint). Curves: median over seeds; shaded: all seeds. Black: the alarm threshold "
        f"{threshold:g}; what is below it counts as singular. Minima leave out both ends of t, where a Gram matrix "
        "may be singular in any network: at t = 1 the backward features of all samples are the same. Values under "
        f"{LOWEST:g} are drawn there."
    )
    return Drawing("eigenvalues", "Smallest relative eigenvalue", caption, figure)


def _panel(ax: Axes, values: xr.DataArray, axis: str, threshold: float) -> None:
    """Curves over axis for each scope and flag; values are (scope, backward_weights, seed, axis)."""
    drawn = False
    for scope, color in SCOPES.items():
        for flag, (marker, dashes) in DASHES.items():
            if scope not in values["scope"] or flag not in values["backward_weights"]:
                continue
            samples = values.sel(scope=scope, backward_weights=flag).transpose("seed", axis).values
            samples = samples[np.isfinite(samples).any(1)]
            if not len(samples):
                continue
            style = {"color": color, "marker": marker, "linestyle": dashes, "markersize": 4}
            ax.plot(values[axis], np.nanmedian(samples, 0), label=f"{scope}, {flag} weights", **style)
            ax.fill_between(values[axis], np.nanmin(samples, 0), np.nanmax(samples, 0), color=color, alpha=0.15, linewidth=0)
            drawn = True
    if not drawn:
        empty(ax, "not measured")
        return
    ax.axhline(threshold, color="black", linewidth=1, linestyle=(0, (5, 1)), label=f"alarm threshold {threshold:g}")
    log_y(ax)
