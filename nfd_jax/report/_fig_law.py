"""What does not depend on the path: biases and marginal laws, network against limit, and the first step as η → 0."""

import math

import numpy as np
import xarray as xr

from nfd_jax.report._fig_error import pairs
from nfd_jax.report._numbers import count, number
from nfd_jax.report._plot import (
    GUIDE,
    GUIDES,
    NETWORK,
    Drawing,
    Line,
    Sheet,
    curve,
    empty,
    pair_name,
    same_range,
    size_axis,
)
from nfd_jax.report._trends import student
from nfd_jax.verdicts import View, covered

BIASES = {
    "output_bias": "bias² of outputs f",
    "feature_kernel_bias": "bias² of ⟨φ(h) φ(h′)⟩",
    "gradient_kernel_bias": "bias² of ⟨b b′⟩",
}


def unbiased_square(samples: np.ndarray) -> np.ndarray:
    """mean² − variance/S over axis 0, the mean over whatever axes follow the second: (points,) from (seeds, points, …)."""
    seeds = len(samples)
    if seeds < 2:
        return np.full(samples.shape[1], math.nan)
    squared = samples.mean(0) ** 2 - samples.var(0, ddof=1) / seeds
    return squared.reshape(len(squared), -1).mean(1)


def bias_squared(values: xr.DataArray, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """(points,) unbiased bias² and its jackknife standard error over seeds."""
    rest = [dim for dim in values.dims if dim not in ("seed", axis)]
    samples = values.transpose("seed", axis, *rest).values
    samples = samples[np.isfinite(samples).reshape(len(samples), -1).all(1)]
    if len(samples) < 3:
        return unbiased_square(samples) if len(samples) else np.full(values.sizes[axis], math.nan), np.zeros(
            values.sizes[axis]
        )
    without = np.stack([unbiased_square(np.delete(samples, i, 0)) for i in range(len(samples))])
    error = np.sqrt((len(samples) - 1) * without.var(0))
    return unbiased_square(samples), error


def law(view: View) -> Drawing | None:
    """Bias² of outputs and kernels, and W₂² of marginals, against width, standard network against both limits."""
    found = {name: values for name in BIASES if (values := view.get(f"law/{name}")) is not None}
    w2, null = view.get("law/marginal_w2"), view.get("law/marginal_w2_null")
    if not found and w2 is None:
        return None
    any_of = next(iter(found.values()), w2)
    axis = "width" if len(covered(any_of, "width")) > 1 else "depth"
    other = "depth" if axis == "width" else "width"
    size, sizes = int(covered(any_of, other)[-1]), covered(any_of, axis)
    columns = len(found) + (0 if w2 is None else 2)
    sheet, legend = Sheet(-(-columns // 3), min(columns, 3)), {}
    spots = iter(sheet.axes.flat)
    shares = {}
    for name, values in found.items():
        ax = next(spots)
        for pair, line, part in pairs(values.isel(step=-1).sel({other: size, axis: sizes})):
            if pair[0] != "reused":
                continue
            mean, error = bias_squared(part, axis)
            ax.errorbar(sizes, mean, error, capsize=2, elinewidth=0.8, **line.keywords())
            legend[pair_name(*pair)] = line
            shares[name, pair[1]] = (mean[-1], error[-1])
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_title(BIASES[name])
        ax.set_ylabel("square, unbiased")
        size_axis(ax, sizes, f"{axis} {'n' if axis == 'width' else 'L'}")
    for quantity, words in (
        {"h": "W₂² of h at t = 1", "b": "W₂² of b at t = 0"}.items() if w2 is not None else ()
    ):
        ax = next(spots)
        for pair, line, part in pairs(w2.isel(step=-1).sel({other: size, axis: sizes, "quantity": quantity})):
            if pair[0] == "reused" and curve(ax, sizes, _seeds_first(part, axis), line):
                legend[pair_name(*pair)] = line
        if null is not None:
            part = null.isel(step=-1).sel({other: size, axis: sizes, "quantity": quantity})
            part = part.mean([dim for dim in part.dims if dim not in ("seed", axis)])
            if curve(ax, sizes, _seeds_first(part, axis), Line(GUIDE, "", GUIDES)):
                legend["limit against limit on other noise (null)"] = Line(GUIDE, "", GUIDES)
        ax.set_title(words)
        ax.set_ylabel("mean square per coordinate")
        if ax.lines:
            size_axis(ax, sizes, f"{axis} {'n' if axis == 'width' else 'L'}")
        else:
            empty(ax, "not measured")
    for ax in spots:
        ax.set_axis_off()
    caption = (
        f"Network minus limit of one seed, then over {count(any_of.sizes['seed'], 'seed')}, after the last update; {other} = {size}. A bias is "
        "what is left of a difference when noise is averaged out: its square less the variance of the mean, so that it may be negative. "
        "Bars: one standard error."
    )
    return sheet.finish("law", _law_title(shares), caption, legend)


def _seeds_first(part: xr.DataArray, axis: str) -> np.ndarray:
    samples = part.transpose("seed", axis).values
    return samples[np.isfinite(samples).all(1)]


def _law_title(shares: dict) -> str:
    said = []
    for limit, words in (("reused", "the reused limit"), ("independent", "NFD")):
        if ("output_bias", limit) in shares:
            value, error = shares["output_bias", limit]
            far = (
                "more than 2 standard errors from 0" if value > 2 * error else "within 2 standard errors of 0"
            )
            said.append(f"against {words} {number(value)}, {far}")
    return (
        f"In law: bias² of outputs {'; '.join(said)}" if said else "In law: marginals of network and limits"
    )


def response(view: View) -> Drawing | None:
    """Gain of the first step as η → 0 against width, measured and by the formulas of both systems."""
    gain, expected = view.get("response/first_step_gain"), view.get("response/first_step_gain_predicted")
    if gain is None:
        return None
    axis = "width" if len(covered(gain, "width")) > 1 else "depth"
    other = "depth" if axis == "width" else "width"
    size, sizes = int(covered(gain, other)[-1]), covered(gain, axis)
    sheet, legend, said = Sheet(1, 1, panel=(5.3, 3.05)), {}, []
    ax = sheet.axes[0, 0]
    for flag, line in NETWORK.items():
        if flag not in gain["backward_weights"]:
            continue
        where = {"backward_weights": flag, other: size, axis: sizes}
        samples = _seeds_first(gain.sel(where), axis)
        if not len(samples) or not curve(ax, sizes, samples, line, floor=-np.inf):
            continue
        legend[f"{flag} network, measured"] = line
        if expected is None:
            continue
        formula = float(expected.sel(where).mean())
        drawn = Line(line.color, "", (0, (5, 1.5)) if flag == "reused" else (0, (1.5, 1.2)))
        ax.axhline(formula, **{key: value for key, value in drawn.keywords().items() if key != "marker"})
        legend[f"{flag} system, formula"] = drawn
        error = samples[:, -1].std(ddof=1) / math.sqrt(len(samples)) if len(samples) > 1 else math.nan
        if error > 0:
            off = (samples[:, -1].mean() - formula) / error
            said.append(
                f"{flag} {samples[:, -1].mean():.3g} against {formula:.3g} ({abs(off):.1f} standard errors)".replace(
                    "-", "−"
                )
            )
    if not ax.lines:
        return None
    size_axis(ax, sizes, f"{axis} {'n' if axis == 'width' else 'L'}")
    ax.set_ylabel("gain of the first step")
    same_range(sheet.axes, log=False)
    caption = (
        f"(f₁ − f₀)/(−η χ₀) as η → 0 on one sample, {other} = {size}, against the closed forms at n = L = ∞: no fit stands between them. "
        f"Bars: one standard error over {count(gain.sizes['seed'], 'seed')}; 95 % intervals are {student(gain.sizes['seed']):.2g} times as wide."
    )
    return sheet.finish(
        "response",
        f"First step as η → 0: {'; '.join(said)}" if said else "First step as η → 0",
        caption,
        legend,
    )
