"""Figures along training: losses, kernels along the depth, and how far features move."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.report._plot import (
    FLAGS,
    MARKERS,
    PAIRS,
    Drawing,
    band,
    below,
    empty,
    levels,
    log_y,
    panels,
    step_axis,
)
from nfd_jax.verdicts._view import View, covered, spread


def _over_steps(values: xr.DataArray) -> np.ndarray:
    return values.transpose("seed", "step").values


def _mean(samples: np.ndarray) -> np.ndarray:
    """Mean over the seeds that are finite at every point; NaN where none is."""
    whole = samples[np.isfinite(samples).all(1)]
    return whole.mean(0) if len(whole) else np.full(samples.shape[1], np.nan)


def _networks(ax: Axes, values: xr.DataArray) -> None:
    """A curve for each depth, (depth, seed, step), at most five, with the range over seeds at the largest."""
    depths = spread(list(covered(values, "depth")), 5)
    for color, marker, depth in zip(levels(len(depths)), MARKERS, depths, strict=False):
        samples = _over_steps(values.sel(depth=depth))
        style = {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.1}
        ax.plot(values["step"], _mean(samples), label=f"network, L = {depth}", **style)
        if depth == depths[-1]:
            band(ax, values["step"].values, samples, color)


def _limits(ax: Axes, values: xr.DataArray | None, width: int) -> None:
    """The limits of both flags, with the particles that match the width, else the most there are."""
    if values is None:
        return
    values = _particles(values, width)
    for flag, line in FLAGS.items():
        if flag in values["backward_weights"]:
            mean = _mean(_over_steps(values.sel(backward_weights=flag)))
            if np.isfinite(mean).any():
                dashes = (0, (4, 2)) if flag == "independent" else (0, (1, 1))
                style = {"color": line.color, "linestyle": dashes, "linewidth": 2}
                ax.plot(values["step"], mean, label=f"{flag} limit", zorder=3, **style)


def losses(view: View, held_out: bool) -> Drawing | None:
    """Training or held-out loss over steps: networks of each depth at the largest width, and the limits."""
    name = "heldout_loss" if held_out else "loss"
    finite, limit = view.get(f"finite/{name}"), view.get(f"limit/{name}")
    either = limit if finite is None else finite
    if either is None:
        return None
    difference = held_out and finite is not None and limit is not None
    flags = [flag for flag in FLAGS if finite is not None and flag in finite["backward_weights"]] or [""]
    figure, axes = panels(1, len(flags) + difference, height=4.0, width=11.0 if len(flags) + difference > 1 else 6.5)
    width = int(covered(finite, "width")[-1]) if finite is not None else 0
    for ax, flag in zip(axes[0], flags, strict=False):
        if finite is not None:
            _networks(ax, finite.sel(backward_weights=flag, width=width))
            ax.set_title(f"{flag} backward weights, n = {width}")
        _limits(ax, limit, width)
        step_axis(ax, either["step"].values)
        _loss_scale(ax)
        below(ax, ncols=2)
    if finite is not None and limit is not None and difference:
        _difference(axes[0, -1], finite, limit, width)
    words = "held-out" if held_out else "training"
    axes[0, 0].set_ylabel(f"{name}, mean over samples")
    figure.suptitle(f"{words.capitalize()} loss ({view.subject})")
    caption = (
        f"Mean over seeds of the {words} loss before each update. Shaded: from the smallest to the largest seed, at the largest depth."
    )
    if difference:
        caption += (
            " Right: what is left of it when a limit predicts it, in the order network → limit: mean over seeds of "
            "the difference, at the largest width and depth, with bars of one standard error. Held-out samples have "
            "noise of their own in network and limit, so a difference within its bars is Monte Carlo error."
        )
    title = "Held-out loss: networks, and what each limit predicts" if held_out else "Training loss"
    return Drawing(name, title, caption, figure)


def _loss_scale(ax: Axes) -> None:
    data = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines]) if ax.lines else np.zeros(0)
    data = data[np.isfinite(data)]
    if data.size and data.min() > 0 and data.max() / data.min() > 10:
        log_y(ax)


def _difference(ax: Axes, finite: xr.DataArray, limit: xr.DataArray, width: int) -> None:
    """Mean over seeds of network - limit for every pair of flags, at the largest depth, and its standard error."""
    depth = covered(finite, "depth")[-1]
    matched = _particles(limit, width)
    for shift, ((network, other), line) in enumerate(PAIRS.items()):
        if network in finite["backward_weights"] and other in matched["backward_weights"]:
            one = finite.sel(backward_weights=network, width=width, depth=depth, drop=True)
            gap = _over_steps(one - matched.sel(backward_weights=other, drop=True))
            gap = gap[np.isfinite(gap).all(1)]
            if len(gap):
                error = gap.std(0, ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else None
                x = finite["step"].values + 0.06 * (shift - 1.5)  # side by side, so that bars can be told apart
                style = line.keywords() | {"linewidth": 1.1, "capsize": 2}
                ax.errorbar(x, gap.mean(0), error, label=f"{network} → {other}", **style)
    ax.set_title(f"network − limit, n = {width}, L = {depth}")
    if not ax.lines:
        empty(ax, "no pair of network and limit")
        return
    ax.axhline(0, color="black", linewidth=0.8)
    step_axis(ax, finite["step"].values)
    below(ax, ncols=2)


def _particles(limit: xr.DataArray, width: int) -> xr.DataArray:
    """The limit with as many particles as the network is wide, else with the most there are."""
    counts = covered(limit, "particles")
    return limit.sel(particles=width if width in counts else counts[-1], drop=True)


def kernels(view: View) -> Drawing | None:
    """Mean diagonal and off-diagonal of both kernels along t, networks against limits; and the shift of features."""
    found = {name: values for name in ("feature", "gradient") if (values := view.get(f"kernels/{name}_kernel")) is not None}
    shift, moved = view.get("finite/feature_shift_ms"), view.get("limit/feature_shift_ms")
    columns = len(found) + (shift is not None)
    reference = next(iter(found.values()), shift)
    if reference is None:
        return None
    width, depth = (int(covered(reference, dim)[-1]) for dim in ("width", "depth"))
    last = int(reference["step"].values[-1])
    figure, axes = panels(1, columns, height=4.4, width=11.0 if columns > 1 else 6.0)
    for ax, (name, values) in zip(axes[0], found.items(), strict=False):
        _kernel_panel(ax, values.sel(width=width, depth=depth, step=last))
        symbol = "⟨φ(h) φ(h′)⟩" if name == "feature" else "⟨b b′⟩"
        ax.set_title(f"{name}_kernel {symbol}, step {last}")
    if shift is not None:
        _shift_panel(axes[0, -1], shift.sel(width=width, depth=depth, step=last), moved, width, last)
    figure.suptitle(f"Along the depth: networks of n = {width}, L = {depth}, and limits ({view.subject})")
    caption = (
        "Markers: networks; lines: limits on the same noise; mean over seeds. Kernels are averages over coordinates "
        "for the samples of the batch: filled markers and full lines for a sample with itself, open markers and "
        "dashes for two different samples. feature_shift_ms is the mean square by which h has moved since step 0 on "
        "fixed probe samples."
    )
    return Drawing("kernels", "Kernels and feature shift along t", caption, figure)


def _kernel_panel(ax: Axes, values: xr.DataArray) -> None:
    same = np.eye(values.sizes["sample"], dtype=bool)
    parts = {"same sample": same, "two samples": ~same}
    for flag, line in FLAGS.items():
        if flag not in values["backward_weights"]:
            continue
        for words, mask in parts.items():
            kept = values.sel(backward_weights=flag).where(xr.DataArray(mask, dims=("sample", "sample2")))
            mean = kept.mean(["sample", "sample2", "seed"])
            for source in values["source"].values:
                part = mean.sel(source=source)
                if part.notnull().any():
                    _source(
                        ax,
                        part,
                        str(source),
                        f"{flag} {source}, {words}",
                        line.color,
                        words == "same sample",
                        line.marker,
                    )
    ax.set_xlabel("t = ℓ/L")
    ax.set_ylabel("mean over pairs of samples")
    below(ax)


def _source(ax: Axes, part: xr.DataArray, source: str, label: str, color: str, full: bool, marker: str) -> None:
    if source == "finite":
        face = color if full else "white"
        ax.plot(part["t"], part, label=label, linestyle="none", color=color, marker=marker, markerfacecolor=face)
    else:
        ax.plot(part["t"], part, label=label, color=color, linestyle="-" if full else "--")


def _shift_panel(ax: Axes, finite: xr.DataArray, limit: xr.DataArray | None, width: int, last: int) -> None:
    for flag, line in FLAGS.items():
        if flag in finite["backward_weights"]:
            part = finite.sel(backward_weights=flag).mean("seed")
            _source(ax, part, "finite", f"{flag} finite", line.color, True, line.marker)
        if limit is not None and flag in limit["backward_weights"]:
            part = _particles(limit.sel(backward_weights=flag, step=last), width)
            _source(ax, part.mean("seed"), "limit", f"{flag} limit", line.color, True, line.marker)
    ax.set_title(f"feature_shift_ms, step {last}")
    ax.set_xlabel("t = ℓ/L")
    ax.set_ylabel("mean square per coordinate")
    below(ax)
