"""Figures along training: losses of networks and limits, kernels along the depth, and how far features move."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report._numbers import count
from nfd_jax.report._plot import (
    LIMIT,
    MARKERS,
    NETWORK,
    PAIRS,
    Drawing,
    Line,
    Sheet,
    empty,
    levels,
    log_y,
    pair_name,
    same_range,
    spans_decade,
    step_axis,
)
from nfd_jax.verdicts import View, covered, spread

FLAGS = ("reused", "independent")
LIMIT_WORDS = {"reused": "reused limit", "independent": "independent limit (NFD)"}


def over_steps(values: xr.DataArray) -> np.ndarray:
    """(seed, step)."""
    return values.transpose("seed", "step").values


def whole(samples: np.ndarray) -> np.ndarray:
    """The seeds that are finite at every step."""
    return samples[np.isfinite(samples).all(1)]


def matched(limit: xr.DataArray, width: int) -> xr.DataArray:
    """The limit with as many particles as the network is wide, else with the most there are."""
    counts = covered(limit, "particles")
    return limit.sel(particles=width if width in counts else counts[-1], drop=True)


def losses(view: View, held_out: bool) -> Drawing | None:
    """Training or held-out loss over steps: networks of each depth at the largest width, and both limits."""
    name = "heldout_loss" if held_out else "loss"
    finite, limit = view.get(f"finite/{name}"), view.get(f"limit/{name}")
    either = limit if finite is None else finite
    if either is None:
        return None
    flags = [flag for flag in FLAGS if finite is not None and flag in finite["backward_weights"]] or [""]
    difference = finite is not None and limit is not None
    sheet, legend = Sheet(1, len(flags) + difference), {}
    width = int(covered(finite, "width")[-1]) if finite is not None else 0
    for ax, flag in zip(sheet.axes[0], flags, strict=False):
        if finite is not None:
            legend |= _networks(ax, finite.sel(backward_weights=flag, width=width))
        if limit is not None:
            legend |= _limits(ax, matched(limit, width))
        ax.set_title(f"{flag} weights, n = {width}" if flag else "limits")
        step_axis(ax, either["step"].values)
    panels = sheet.axes[0, : len(flags)]
    same_range(panels, log=spans_decade(panels))
    if difference:
        legend |= _difference(sheet.axes[0, -1], finite, limit, width)
    words = "held-out" if held_out else "training"
    panels[0].set_ylabel(f"{words} loss, mean over seeds")
    if view.rate is not None:
        title = f"{words.capitalize()} loss at η = {view.rate:g}, depth by depth"
    else:
        title = f"{words.capitalize()} loss, depth by depth"
    caption = f"Mean over seeds of the {words} loss before each update."
    if difference:
        caption += " Right: network minus limit of the same seeds at the largest width and depth, with bars of one standard error."
    if held_out:
        caption += " Held-out samples have noise of their own in network and limit: a difference within its bars is Monte Carlo error."
    return sheet.finish(name, title, caption, legend)


def _networks(ax: Axes, values: xr.DataArray) -> dict[str, Line]:
    depths, legend = spread(list(covered(values, "depth")), 5), {}
    for color, marker, depth in zip(levels(len(depths)), MARKERS, depths, strict=False):
        samples = whole(over_steps(values.sel(depth=depth)))
        if len(samples):
            line = Line(color, marker)
            every = max(1, samples.shape[1] // 12)
            ax.plot(
                values["step"],
                samples.mean(0),
                **line.keywords(),
                markersize=4.5,
                linewidth=1.2,
                markevery=every,
            )
            legend[f"network, L = {depth}"] = line
    return legend


def _limits(ax: Axes, values: xr.DataArray) -> dict[str, Line]:
    legend = {}
    for flag in FLAGS:
        if flag in values["backward_weights"]:
            samples = whole(over_steps(values.sel(backward_weights=flag)))
            if len(samples):
                ax.plot(
                    values["step"], samples.mean(0), **LIMIT[flag].keywords() | {"linewidth": 2.2}, zorder=3
                )
                legend[LIMIT_WORDS[flag]] = LIMIT[flag]
    return legend


def _difference(ax: Axes, finite: xr.DataArray, limit: xr.DataArray, width: int) -> dict[str, Line]:
    depth, legend = covered(finite, "depth")[-1], {}
    solved = matched(limit, width)
    for shift, ((network, other), line) in enumerate(PAIRS.items()):
        if network in finite["backward_weights"] and other in solved["backward_weights"]:
            one = finite.sel(backward_weights=network, width=width, depth=depth, drop=True)
            gap = whole(over_steps(one - solved.sel(backward_weights=other, drop=True)))
            if len(gap):
                error = gap.std(0, ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else None
                x = finite["step"].values + 0.06 * (
                    shift - 1.5
                )  # side by side, so that bars can be told apart
                ax.errorbar(
                    x,
                    gap.mean(0),
                    error,
                    capsize=2,
                    **line.keywords() | {"linewidth": 1.2, "markersize": 4.5},
                )
                legend[pair_name(network, other)] = line
    ax.set_title(f"network − limit, n = {width}, L = {depth}")
    if not ax.lines:
        empty(ax, "no pair of network and limit")
        return legend
    ax.axhline(0, color="black", linewidth=0.8)
    step_axis(ax, finite["step"].values)
    ax.set_ylabel("difference of losses")
    return legend


def kernels(view: View) -> Drawing | None:
    """Kernels and the shift of features along t, networks against limits, after the last update."""
    found = {
        name: values
        for name in ("feature", "gradient")
        if (values := view.get(f"kernels/{name}_kernel")) is not None
    }
    shift, moved = view.get("finite/feature_shift_ms"), view.get("limit/feature_shift_ms")
    reference = next(iter(found.values()), shift)
    if reference is None:
        return None
    width, depth = (int(covered(reference, dim)[-1]) for dim in ("width", "depth"))
    last = int(reference["step"].values[-1])
    sheet, legend = Sheet(1, len(found) + (shift is not None)), {}
    for ax, (name, values) in zip(sheet.axes[0], found.items(), strict=False):
        legend |= _kernel_panel(ax, values.sel(width=width, depth=depth, step=last))
        ax.set_title("⟨φ(h) φ(h′)⟩" if name == "feature" else "⟨b b′⟩")
        ax.set_xlabel("t = ℓ/L")
        ax.set_ylabel("mean over pairs of samples")
    if shift is not None:
        legend |= _shift_panel(
            sheet.axes[0, -1], shift.sel(width=width, depth=depth, step=last), moved, width, last
        )
    caption = (
        f"After {count(last, 'update')}, n = {width}, L = {depth}, mean over seeds. Kernels are averages over coordinates for the samples "
        "of the batch. Right: mean square by which h has moved since step 0 on fixed probe samples."
    )
    return sheet.finish("kernels", "Kernels and movement of features along the depth", caption, legend)


def _kernel_panel(ax: Axes, values: xr.DataArray) -> dict[str, Line]:
    same, legend = np.eye(values.sizes["sample"], dtype=bool), {}
    for words, mask in {"a sample with itself": same, "two samples": ~same}.items():
        if not mask.any():
            continue
        kept = values.where(xr.DataArray(mask, dims=("sample", "sample2")))
        mean = kept.mean(["sample", "sample2", "seed"])
        for flag in FLAGS:
            if flag not in values["backward_weights"]:
                continue
            for source in map(str, values["source"].values):
                part, hollow = mean.sel(source=source, backward_weights=flag), words == "two samples"
                if part.notnull().any():
                    legend[f"{flag} {'network' if source == 'finite' else 'limit'}, {words}"] = _along(
                        ax, part, source, flag, hollow
                    )
    return legend


def _along(ax: Axes, part: xr.DataArray, source: str, flag: str, hollow: bool) -> Line:
    style = NETWORK[flag] if source == "finite" else LIMIT[flag]
    color = NETWORK[flag].color
    line = (
        Line(color, style.marker, "", hollow)
        if source == "finite"
        else Line(color, "", ":" if hollow else "-")
    )
    ax.plot(part["t"], part, **line.keywords())
    return line


def _shift_panel(
    ax: Axes, finite: xr.DataArray, limit: xr.DataArray | None, width: int, last: int
) -> dict[str, Line]:
    for flag in FLAGS:
        if flag in finite["backward_weights"]:
            _along(ax, finite.sel(backward_weights=flag).mean("seed"), "finite", flag, False)
        if limit is not None and flag in limit["backward_weights"]:
            _along(
                ax,
                matched(limit.sel(backward_weights=flag, step=last), width).mean("seed"),
                "limit",
                flag,
                False,
            )
    ax.set_title("movement of h since step 0")
    ax.set_xlim(-0.04, 1.04)
    ax.set_xlabel("t = ℓ/L")
    ax.set_ylabel("mean square per coordinate")
    return {}


def residual(view: View) -> Drawing | None:
    """Where histories are bounded: the largest part of a query that is not remembered, over steps."""
    found = {group: view.get(f"{group}/history_residual") for group in ("finite", "limit")}
    found = {
        group: values for group, values in found.items() if values is not None and float(values.max()) > 0
    }
    if not found:
        return None
    sheet, legend = Sheet(1, len(found)), {}
    for ax, (group, values) in zip(sheet.axes[0], found.items(), strict=True):
        over = [dim for dim in values.dims if dim not in ("backward_weights", "step")]
        for flag in FLAGS:
            if flag in values["backward_weights"]:
                line = Line(NETWORK[flag].color, "", NETWORK[flag].dashes)
                ax.plot(values["step"], values.sel(backward_weights=flag).max(over), **line.keywords())
                legend[f"{flag} weights"] = line
        step_axis(ax, values["step"].values)
        ax.set_title("networks" if group == "finite" else "limits")
        log_y(ax)
    sheet.axes[0, 0].set_ylabel("norm not remembered / norm")
    most = max(float(values.max()) for values in found.values())
    caption = (
        "Bounded histories answer what they do not remember by fresh noise of the right size; the error is of second order in this "
        "share. Largest over sizes and seeds."
    )
    return sheet.finish(
        "residual", f"Bounded histories forget at most {most:.2g} of a query", caption, legend
    )
