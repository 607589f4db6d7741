"""What does not depend on the path: biases and marginal laws, network against limit, and the first step as η
→ 0."""

import math

import numpy as np
import xarray as xr

from nfd_jax.report import _plot as plot
from nfd_jax.report._fig_error import SIZE, pairs
from nfd_jax.report._numbers import count, number
from nfd_jax.report._pick import largest, pick
from nfd_jax.verdicts import View, by_seed, covered, section, student

BIASES = {
    "output_bias": "bias² of outputs f",
    "feature_kernel_bias": "bias² of ⟨φ(h) φ(h′)⟩",
    "gradient_kernel_bias": "bias² of ⟨b b′⟩",
}
MARGINALS = {"h": "W₂² of h at t = 1", "b": "W₂² of b at t = 0"}


def bias_squared(values: xr.DataArray, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """(points,) unbiased bias², mean² − variance/S over seeds, the mean over whatever other dims there are;
    and its jackknife standard error (NaN below three seeds)."""
    samples = values.transpose("seed", axis, ...).values
    samples = samples.reshape(*samples.shape[:2], -1)
    samples = samples[np.isfinite(samples).all((1, 2))]
    seeds = len(samples)

    def square(part: np.ndarray) -> np.ndarray:
        if len(part) < 2:
            return np.full(values.sizes[axis], math.nan)
        return (part.mean(0) ** 2 - part.var(0, ddof=1) / len(part)).mean(1)

    if seeds < 3:
        return square(samples), np.full(values.sizes[axis], math.nan)
    without = np.stack([square(np.delete(samples, i, 0)) for i in range(seeds)])
    return square(samples), np.sqrt((seeds - 1) * without.var(0))


def _cut(values: xr.DataArray) -> tuple[str, np.ndarray, dict, str]:
    """The axis along which there is most to see, its sizes, where they are taken, and where that is in
    words."""
    axis = "width" if len(covered(values, "width")) > 1 else "depth"
    other, sizes = plot.OTHER[axis], covered(values, axis)
    size = int(largest(values, other)[other])
    return axis, sizes, {other: size, axis: sizes}, f"{other} {plot.SYMBOL[other]} = {size}"


def law(view: View) -> plot.Drawing | None:
    """Bias² of outputs and kernels, and W₂² of marginals, against width, standard network against both
    limits."""
    found = {name: values for name in BIASES if (values := view.get(f"law/{name}")) is not None}
    w2, null = view.get("law/marginal_w2"), view.get("law/marginal_w2_null")
    any_of = next(iter(found.values()), w2)
    if any_of is None or section(view.config, "problem").get("data_seed") == "per_seed":
        return None  # a law is told from seeds with the same samples
    axis, sizes, at, where = _cut(any_of)
    columns = len(found) + (0 if w2 is None else len(MARGINALS))
    sheet, shares = plot.Sheet(-(-columns // 3), min(columns, 3)), {}
    spots = iter(sheet.axes.flat)
    for name, values in found.items():
        ax = next(spots)
        for pair, line, part in pairs(values.isel(step=-1).sel(at)):
            if pair[0] == "reused":
                mean, error = bias_squared(part, axis)
                sheet.bars(ax, sizes, mean, error, line, plot.pair_name(*pair))
                shares[name, pair[1]] = mean[-1], error[-1]
        ax.set_title(BIASES[name])
        ax.set_ylabel("square, unbiased")
        plot.size_axis(ax, sizes, axis, "not measured")
        plot.zero_line(ax)
    for quantity, words in MARGINALS.items() if w2 is not None else ():
        ax = next(spots)
        for pair, line, part in pairs(w2.isel(step=-1).sel(at | {"quantity": quantity})):
            if pair[0] == "reused":
                sheet.curve(ax, sizes, by_seed(part, axis), line, plot.pair_name(*pair))
        if null is not None:
            part = null.isel(step=-1).sel(at | {"quantity": quantity})
            part = part.mean([dim for dim in part.dims if dim not in ("seed", axis)])
            sheet.curve(
                ax, sizes, by_seed(part, axis), plot.GUIDES, "limit against limit on other noise (null)"
            )
        ax.set_title(words)
        ax.set_ylabel(SIZE)
        plot.size_axis(ax, sizes, axis, "not measured")
    for ax in spots:
        ax.set_axis_off()
    caption = (
        f"Network minus limit of one seed, then over {count(any_of.sizes['seed'], 'seed')}, after the last "
        f"update; {where}. A bias is what is left of a difference when noise is averaged out: its square "
        "less the variance of the mean, so that it may be negative. Bars: one standard error."
    )
    return sheet.finish("law", _law_title(shares), caption)


def _law_title(shares: dict) -> str:
    said = []
    for limit, words in (("reused", "the reused limit"), ("independent", "NFD")):
        if ("output_bias", limit) in shares:
            value, error = shares["output_bias", limit]
            if not math.isfinite(value):
                continue
            far = "more than 2 standard errors from" if value > 2 * error else "within 2 standard errors of"
            known = f", {far} 0" if math.isfinite(error) else ", from too few seeds for a standard error"
            said.append(f"against {words} {number(value)}{known}")
    return (
        f"In law: bias² of outputs {'; '.join(said)}" if said else "In law: marginals of network and limits"
    )


def response(view: View) -> plot.Drawing | None:
    """Gain of the first step as η → 0 against width, measured and by the formulas of both systems."""
    gain, expected = view.get("response/first_step_gain"), view.get("response/first_step_gain_predicted")
    if gain is None:
        return None
    axis, sizes, at, where = _cut(gain)
    sheet, said = plot.Sheet(1, 1, panel=(5.3, 3.05)), []
    ax = sheet.axes[0, 0]
    for flag, line in plot.NETWORK.items():
        part = pick(gain, backward_weights=flag)
        if part is None:
            continue
        samples = by_seed(part.sel(at), axis)
        if not sheet.curve(ax, sizes, samples, line, f"{flag} network, measured", floor=-np.inf):
            continue
        formula = pick(expected, backward_weights=flag)
        if formula is None:
            continue
        exact = by_seed(formula.sel(at), axis)[:, -1]
        formula = float(exact.mean())
        drawn = plot.Line(line.color, "", plot.LIMIT[flag].dashes)
        ax.axhline(formula, color=drawn.color, linestyle=drawn.dashes)
        sheet.legend[f"{flag} system, formula"] = drawn
        apart = samples[:, -1] - (exact if len(exact) == len(samples) else formula)
        error = apart.std(ddof=1) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
        if error > 0:
            middle = samples[:, -1].mean()
            off = abs(apart.mean()) / error
            said.append(f"{flag} {number(middle)} against {number(formula)} ({off:.1f} standard errors)")
    if not ax.lines:
        return None
    plot.size_axis(ax, sizes, axis)
    ax.set_ylabel("gain of the first step")
    plot.same_range(sheet.axes, log=False)
    seeds = gain.sizes["seed"]
    caption = (
        f"(f₁ − f₀)/(−η χ₀) as η → 0 on one sample, {where}, against the closed forms at n = L = ∞: no fit "
        f"stands between them. Bars: one standard error over {count(seeds, 'seed')}"
    )
    caption += f"; 95 % intervals are {student(seeds):.2g} times as wide." if seeds > 1 else "."
    title = "First step as η → 0"
    return sheet.finish("response", f"{title}: {'; '.join(said)}" if said else title, caption)
