"""The assumption C5: how near to singular the Gram matrices of features and gradients come."""

import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report import _plot as plot
from nfd_jax.report._fig_error import when
from nfd_jax.report._numbers import number
from nfd_jax.report._pick import largest, pick
from nfd_jax.verdicts import View, covered, section

LOWEST = 1e-17  # drawn here: what is smaller is rounding of the largest eigenvalue
KINDS = {
    "feature": plot.Line(plot.BLUE, "o", "--", hollow=True),
    "gradient": plot.Line(plot.VERMILION, "s", "--", hollow=True),
}
SCOPES = {"step": (plot.BLUE, "one step's batch"), "joint": (plot.VERMILION, "all steps so far")}
DASHES = {"reused": ("o", "-"), "independent": ("s", "--")}


def ratios(view: View) -> xr.DataArray | None:
    """Smallest over largest eigenvalue, inside 0 < t < 1, at the largest width."""
    least, most = view.get("spectrum/min_eigenvalue"), view.get("spectrum/max_eigenvalue")
    if least is None or most is None:
        return None
    ratio = (least.clip(0) / most).clip(LOWEST)
    inside = ratio.sel(t=slice(1e-9, 1 - 1e-9))
    return largest(inside, "width") if inside.sizes["t"] and inside.notnull().any() else None


def eigenvalues(view: View) -> plot.Drawing | None:
    """Along t after the last step, and the least over t against the step, for features and gradients."""
    ratio = ratios(view)
    if ratio is None:
        return None
    ratio = largest(ratio, "depth")
    last, sheet = int(ratio["step"].values[-1]), plot.Sheet(2, 2)
    for row, kind in zip(sheet.axes, KINDS, strict=True):
        part = ratio.sel(kind=kind)
        _panel(sheet, row[0], part.sel(step=last), "t")
        row[0].set_xlim(0, 1)
        row[0].set_xlabel("t = ℓ/L")
        row[0].set_title(f"{kind}s along t, {when(last)}")
        _panel(sheet, row[1], part.min("t"), "step")
        plot.step_axis(row[1], ratio["step"].values)
        row[1].set_title(f"{kind}s, least over t")
        row[0].set_ylabel("smallest / largest eigenvalue")
    plot.same_range(sheet.axes)
    repeated = section(view.config, "problem").get("batches") == "fixed"
    judged = pick(ratio, scope="step") if repeated else ratio
    by = ", which C5 is judged by," if repeated else ""
    singular = ", which a repeated batch brings close to singular" if repeated else "; C5 is judged by both"
    caption = (
        f"Gram matrix of φ(h) and of b, n = {int(ratio['width'])}, L = {int(ratio['depth'])}: of one "
        f"step's batch (step){by} and of all samples of all steps so far (joint){singular}. Median over "
        "seeds; shaded: all seeds. The ends of t are left out: at t = 1 gradients have a rank of at most the "
        "number of outputs in any network."
    )
    where = "within a batch" if repeated and judged is not None else "within a batch and over all steps"
    lowest = number(float((ratio if judged is None else judged).min()))
    title = f"C5: {where} no eigenvalue falls below {lowest} of the largest"
    return sheet.finish("eigenvalues", title, caption)


def _panel(sheet: plot.Sheet, ax: Axes, values: xr.DataArray, axis: str) -> None:
    for scope, (color, words) in SCOPES.items():
        for flag, (marker, dashes) in DASHES.items():
            part = pick(values, scope=scope, backward_weights=flag)
            if part is not None:
                sheet.line(
                    ax,
                    part[axis],
                    part.median("seed"),
                    plot.Line(color, marker, dashes),
                    f"{words}, {flag} weights",
                )
                ends = part.min("seed"), part.max("seed")
                ax.fill_between(part[axis], *ends, color=color, alpha=0.15, linewidth=0)
    if not ax.lines:
        plot.empty(ax, "not measured")


def nondegeneracy(view: View) -> plot.Drawing | None:
    """The least relative eigenvalue against the number of samples K·P seen so far, and against depth."""
    ratio, batch = ratios(view), section(view.config, "problem").get("batch_size")
    if ratio is None or not batch or "joint" not in ratio["scope"] or ratio.sizes["step"] < 2:
        return None
    parts = (pick(ratio, backward_weights=flag) for flag in DASHES)
    least = next(part for part in parts if part is not None).min("t")
    samples, depths = (least["step"].values + 1) * int(batch), covered(least, "depth")
    sheet = plot.Sheet(1, 2 + (len(depths) > 1))
    for ax, kind in zip(sheet.axes[0], KINDS, strict=False):
        for depth, line in plot.shades(depths):
            part = least.sel(scope="joint", kind=kind, depth=depth).median("seed")
            sheet.line(ax, samples, part, line, f"all steps so far, L = {depth}")
        plot.size_axis(ax, samples, "samples met so far, k·P", "not measured")
        ax.set_title(f"{kind}s, joint Gram")
    if len(depths) > 1:
        ax = sheet.axes[0, 2]
        for kind, line in KINDS.items():
            part = pick(least, scope="step", kind=kind)
            if part is not None:
                sheet.line(
                    ax, part["depth"], part.min("step").median("seed"), line, f"one step's batch, {kind}s"
                )
        plot.size_axis(ax, depths, "depth", "not measured")
        ax.set_title("within a batch, against depth")
    plot.same_range(sheet.axes)
    sheet.axes[0, 0].set_ylabel("smallest / largest eigenvalue")
    flag = str(least["backward_weights"].values)
    caption = (
        f"{flag.capitalize()} weights, n = {int(least['width'])}; least over 0 < t < 1, median over seeds. "
        "A batch that is repeated, or a loss near zero, brings samples of different steps together."
    )
    title = "Nondegeneracy against the number of samples and against depth"
    return sheet.finish("nondegeneracy", title, caption)
