"""Figures along training: losses of networks and limits, kernels along the depth, movement of features."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report import _plot as plot
from nfd_jax.report._distances import SHADED, estimate_band
from nfd_jax.report._numbers import count
from nfd_jax.report._pick import in_blocks, largest, matched, pick
from nfd_jax.report._words import LIMIT_NAMES
from nfd_jax.verdicts import View, by_seed, covered


def losses(view: View, held_out: bool) -> plot.Drawing | None:
    """Training or held-out loss over steps: networks of each depth at the largest width, and both limits."""
    name, words = ("heldout_loss", "held-out") if held_out else ("loss", "training")
    finite, limit = view.get(f"finite/{name}"), view.get(f"limit/{name}")
    if finite is None and limit is None:
        return None
    finite = None if finite is None else largest(finite, "width")
    width = 0 if finite is None else int(finite["width"])
    limit = None if limit is None else matched(limit, width)
    steps = (limit if finite is None else finite)["step"].values
    flags = [flag for flag in plot.NETWORK if pick(finite, backward_weights=flag) is not None] or [""]
    sheet = plot.Sheet(1, len(flags) + (finite is not None and limit is not None))
    panels = sheet.axes[0, : len(flags)]
    for ax, flag in zip(panels, flags, strict=True):
        part = pick(finite, backward_weights=flag)
        for depth, line in plot.shades(covered(part, "depth")) if part is not None else ():
            at, mean, _ = in_blocks(steps, by_seed(part.sel(depth=depth), "step").mean(0))
            sheet.line(ax, at, mean, line, f"network, L = {depth}", **plot.THIN)
        for own, words_of in LIMIT_NAMES.items():
            if (solved := pick(limit, backward_weights=own)) is not None:
                at, mean, _ = in_blocks(steps, by_seed(solved, "step").mean(0))
                sheet.line(ax, at, mean, plot.LIMIT[own], words_of, zorder=3, **plot.THICK)
                sheet.band(ax, at, mean, estimate_band(view, name, own, "step"), plot.LIMIT[own])
        ax.set_title(f"{flag} weights, n = {width}" if flag else "limits")
        plot.step_axis(ax, steps)
    plot.same_range(panels, log=plot.spans_decade(panels))
    panels[0].set_ylabel(f"{words} loss, mean over seeds")
    rate = "" if view.rate is None else f" at η = {view.rate:g}"
    by_depth = "" if finite is None else ", depth by depth"
    caption = f"Mean over seeds of the {words} loss before each update."
    caption += in_blocks(steps, steps)[2]
    if finite is not None and limit is not None:
        _difference(sheet, sheet.axes[0, -1], finite, limit)
        caption += (
            " Right: network minus limit of the same seeds at the largest width and depth, with bars of "
            "one standard error."
        )
    if held_out and finite is not None and limit is not None:
        caption += (
            " Held-out samples have noise of their own in network and limit: a difference of about two bars "
            "is Monte Carlo error."
        )
    if any(estimate_band(view, name, own, "step") is not None for own in LIMIT_NAMES):
        caption += f" {SHADED}"
    return sheet.finish(name, f"{words.capitalize()} loss{rate}{by_depth}", caption)


def _difference(sheet: plot.Sheet, ax: Axes, finite: xr.DataArray, limit: xr.DataArray) -> None:
    finite = largest(finite, "depth")
    ax.set_title(f"network − limit, n = {int(finite['width'])}, L = {int(finite['depth'])}")
    for place, ((network, other), line) in enumerate(plot.PAIRS.items()):
        one, two = pick(finite, backward_weights=network), pick(limit, backward_weights=other)
        if one is None or two is None:
            continue
        gap = by_seed(one.drop_vars("backward_weights") - two.drop_vars("backward_weights"), "step")
        x, gap, _ = in_blocks(finite["step"].values, gap)
        # Side by side, so that bars can be told apart.
        sheet.curve(
            ax,
            x + 0.06 * (place - 1.5) * (x[1:2] - x[:1] if len(x) > 1 else 1),
            gap,
            line,
            plot.pair_name(network, other),
            floor=-np.inf,
            **plot.THIN,
        )
    if not ax.lines:
        plot.empty(ax, "no pair of network and limit")
        return
    plot.zero_line(ax)
    plot.step_axis(ax, finite["step"].values)
    ax.set_ylabel("difference of losses")


def kernels(view: View) -> plot.Drawing | None:
    """Kernels and the shift of features along t, networks against limits, after the last update."""
    titles = {"feature_kernel": "⟨φ(h) φ(h′)⟩", "gradient_kernel": "⟨b b′⟩"}
    networks, estimates = (
        {name: view.get(f"{group}/{name}") for name in titles} for group in ("kernels", "limit")
    )
    found = [name for name in titles if networks[name] is not None or estimates[name] is not None]
    shift, moved = view.get("finite/feature_shift_ms"), view.get("limit/feature_shift_ms")
    every = (*networks.values(), shift, *estimates.values())
    reference = next((values for values in every if values is not None), None)
    if reference is None:
        return None
    corner = largest(reference.isel(step=-1), "width", "depth")
    where = {dim: corner[dim].item() for dim in ("width", "depth", "step") if dim in corner.coords}
    sheet = plot.Sheet(1, len(found) + (shift is not None))
    for ax, name in zip(sheet.axes[0], found, strict=False):
        if (values := networks[name]) is not None:
            _kernel_panel(sheet, ax, values.sel(where).mean("seed"))
        if estimates[name] is not None:
            _estimated_panel(sheet, ax, view, name, where["step"])
        ax.set_title(titles[name])
        ax.set_xlabel("t = ℓ/L")
        ax.set_ylabel("mean over pairs of samples")
    if shift is not None:
        ax = sheet.axes[0, -1]
        limit = None if moved is None else matched(moved.sel(step=where["step"]), where["width"])
        for source, values in (("finite", shift.sel(where)), ("limit", limit)):
            for flag in plot.NETWORK:
                if (part := pick(values, backward_weights=flag)) is not None:
                    _along(sheet, ax, part.mean("seed"), source, flag, "" if found else "movement")
        ax.set_title("movement of h since step 0")
        plot.depth_axis(ax)
        ax.set_ylabel("mean square per coordinate")
    caption = f"After {count(int(where['step']), 'update')}"
    if "width" in where:
        caption += f", n = {int(where['width'])}, L = {int(where['depth'])}, mean over seeds"
    caption += "."
    if found:
        caption += " Kernels are averages over coordinates for the samples of the batch."
    if any(values is not None for values in estimates.values()):
        caption += f" {SHADED}"
    if shift is not None:
        place = "Right: mean" if found else "Mean"
        caption += f" {place} square by which h has moved since step 0 on fixed probe samples."
    title = "Kernels and movement of features" if found else "How far features have moved"
    return sheet.finish("kernels", f"{title}, along the depth", caption)


def _by_pairs(values: xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    """Mean over pairs of a sample with itself, and of two."""
    same = np.eye(values.sizes["sample"], dtype=bool)
    for words, mask in {"a sample with itself": same, "two samples": ~same}.items():
        if mask.any():
            pairs = values.where(xr.DataArray(mask, dims=("sample", "sample2")))
            yield words, pairs.mean(["sample", "sample2"])


def _kernel_panel(sheet: plot.Sheet, ax: Axes, values: xr.DataArray) -> None:
    for words, mean in _by_pairs(values):
        for flag in plot.NETWORK:
            for source in map(str, values["source"].values):
                if (part := pick(mean, backward_weights=flag, source=source)) is not None:
                    _along(sheet, ax, part, source, flag, words)


def _estimated_panel(sheet: plot.Sheet, ax: Axes, view: View, name: str, step: int) -> None:
    """Kernels of limits that were estimated to a tolerance, with their intervals."""
    own = "step", "t", "sample", "sample2"
    for flag in plot.NETWORK:
        values = pick(view.get(f"limit/{name}"), backward_weights=flag)
        half = estimate_band(view, name, flag, *own)
        if values is None or half is None:
            continue
        values = values.mean([dim for dim in values.dims if dim not in own])
        pairs = (_by_pairs(x.sel(step=step)) for x in (values, half))
        for (words, mean), (_, bars) in zip(*pairs, strict=True):
            _along(sheet, ax, mean, "limit", flag, words)
            sheet.band(ax, mean["t"], mean, bars, plot.NETWORK[flag])


def _along(sheet: plot.Sheet, ax: Axes, part: xr.DataArray, source: str, flag: str, words: str = "") -> None:
    """Along t: networks as markers, limits as lines; pairs of two samples hollow and dotted. `words` say of
    what, "" where another panel has the legend."""
    two, color = words == "two samples", plot.NETWORK[flag].color
    line = (
        plot.Line(color, plot.NETWORK[flag].marker, "", two)
        if source == "finite"
        else plot.Line(color, "", ":" if two else "-")
    )
    who = f"{flag} {'network' if source == 'finite' else 'limit'}"
    label = who if words == "movement" else f"{who}, {words}"
    sheet.line(ax, part["t"], part, line, label if words else "", markevery=None)


def residual(view: View) -> plot.Drawing | None:
    """Where histories are bounded: the largest part of a query that is not remembered, over steps."""
    found = {group: view.get(f"{group}/history_residual") for group in ("finite", "limit")}
    found = {group: values for group, values in found.items() if values is not None and values.max() > 0}
    if not found:
        return None
    sheet = plot.Sheet(1, len(found))
    for ax, (group, values) in zip(sheet.axes[0], found.items(), strict=True):
        most = values.max([dim for dim in values.dims if dim not in ("backward_weights", "step")])
        for flag, line in plot.NETWORK.items():
            if (part := pick(most, backward_weights=flag)) is not None:
                sheet.line(ax, part["step"], part, plot.Line(line.color, "", line.dashes), f"{flag} weights")
        plot.step_axis(ax, values["step"].values)
        ax.set_title("networks" if group == "finite" else "limits")
        if plot.spans_decade([ax]):
            plot.log_y(ax)
        else:
            ax.set_ylim(bottom=0)
    sheet.axes[0, 0].set_ylabel("norm not remembered / norm")
    most = max(float(values.max()) for values in found.values())
    caption = (
        "Bounded histories answer what they do not remember by fresh noise of the right size; the error "
        "is of second order in this share. Largest over sizes and seeds."
    )
    return sheet.finish("residual", f"Bounded histories forget at most {most:.2g} of a query", caption)
