"""Figures across the variants of a config: side by side, by parametrization, the phase map over T and learning rate."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.config._tree import flat
from nfd_jax.report._figures_rates import QUANTITIES
from nfd_jax.report._phase_map import phase_map
from nfd_jax.report._plot import (
    BLACK,
    BLUE,
    GREEN,
    MARKERS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Drawing,
    below,
    curve,
    empty,
    levels,
    log_y,
    panels,
    size_axis,
    step_axis,
)
from nfd_jax.verdicts._view import View, by_seed, covered, spread

PARAMETRIZATIONS = ("vanilla", "mup", "depth_mup")
COLORS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY, BLACK)


def varying(trees: Mapping[str, xr.DataTree]) -> dict[str, dict[str, object]]:
    """For each variant, the keys of the config in which the variants differ, with its values; measures are left out."""
    configs = {name: dict(flat(View.of(tree).config)) for name, tree in trees.items()}
    keys = dict.fromkeys(key for config in configs.values() for key in config if key not in ("name", "measure"))
    differ = [key for key in keys if len({repr(config.get(key)) for config in configs.values()}) > 1]
    return {name: {key: config.get(key) for key in differ} for name, config in configs.items()}


def variant_drawings(trees: Mapping[str, xr.DataTree]) -> Iterator[Drawing]:
    """Every figure across variants there is data for, to be drawn within `styled`."""
    differing = varying(trees)
    keys = {key for changes in differing.values() for key in changes}
    if "problem.parametrization" in keys:
        yield from filter(None, [parametrizations(trees)])
    if "problem.horizon" in keys:
        yield from filter(None, [phase_map(group) for group in _by_other_keys(trees, differing)])
    else:
        yield from filter(None, [side_by_side(trees)])


def _by_other_keys(trees: Mapping[str, xr.DataTree], differing: Mapping[str, dict]) -> list[dict[str, xr.DataTree]]:
    """Groups of variants that differ in the horizon (and learning rates) alone."""
    groups: dict[str, dict[str, xr.DataTree]] = {}
    for name, changes in differing.items():
        rest = {key: value for key, value in changes.items() if key not in ("problem.horizon", "problem.learning_rate")}
        groups.setdefault(repr(rest), {})[name] = trees[name]
    return [group for group in groups.values() if len(group) > 1]


def side_by_side(trees: Mapping[str, xr.DataTree]) -> Drawing | None:
    """Limit error (reused network, either limit) and coupling effect against depth, last step, a curve a variant."""
    views = {name: View.of(tree) for name, tree in trees.items()}
    views = {name: views[name] for name in spread(list(views), len(COLORS))}
    figure, axes = panels(2, 3, height=3.7)
    for (name, view), color, marker in zip(views.items(), COLORS, MARKERS, strict=False):
        error, effect = view.get("compare/limit_error_ms"), view.get("coupling/coupling_effect_ms")
        style = {"color": color, "marker": marker}
        for column, quantity in enumerate(QUANTITIES):
            if error is not None and "reused" in error["backward_weights"]:
                for limit, dashes in (("independent", "-"), ("reused", "--")):
                    if limit in error["limit_backward_weights"]:
                        part = error.sel(backward_weights="reused", limit_backward_weights=limit, quantity=quantity)
                        full = {"linestyle": dashes} | ({} if limit == "independent" else {"markerfacecolor": "white"})
                        _against_depth(axes[0, column], part, f"{name}, {limit} limit", view.floor, **style, **full)
            if effect is not None:
                _against_depth(axes[1, column], effect.sel(quantity=quantity), name, view.floor, **style)
    if not any(ax.lines for ax in axes.flat):
        return None
    for row, words in zip(axes, ("limit_error_ms of reused networks", "coupling_effect_ms"), strict=True):
        for ax, quantity in zip(row, QUANTITIES.values(), strict=True):
            ax.set_title(f"{words.partition(' ')[0]}: {quantity}")
            _finish(ax)
        row[0].set_ylabel(f"{words.partition(' ')[0]}\n(mean square per coordinate)")
    figure.suptitle("Variants side by side: last step, largest width, against depth")
    caption = (
        "Top: reused networks against the independent limit (full lines) and the reused one (dashed, open markers), "
        "on the same noise. Bottom: what reusing the weights changes. Means over seeds with bars of one standard "
        "error, at each variant's largest width, last step and largest learning rate that did not diverge."
    )
    return Drawing("variants", "Variants side by side", caption, figure)


def _against_depth(ax: Axes, values: xr.DataArray, label: str, floor: float, **style) -> None:
    values = values.isel(step=-1)
    if values.notnull().any():
        part = values.sel(width=covered(values, "width")[-1])
        curve(ax, part["depth"].values, by_seed(part, "depth"), label=label, floor=floor, **style)


def _finish(ax: Axes) -> None:
    if not ax.lines:
        empty(ax, "not measured, or zero to rounding")
        return
    log_y(ax)
    depths = sorted({float(x) for line in ax.lines for x in np.atleast_1d(line.get_xdata())})
    size_axis(ax, depths, "depth L")
    below(ax)


def parametrizations(trees: Mapping[str, xr.DataTree]) -> Drawing | None:
    """Training and held-out loss over steps, a column for each variant: reused full, independent dashed, by depth."""
    views = {name: View.of(tree) for name, tree in trees.items()}
    found = {name: view for name, view in views.items() if view.get("finite/loss") is not None}
    if not found:
        return None
    ordered = sorted(found, key=lambda name: PARAMETRIZATIONS.index(_parametrization(found[name])))
    found = {name: found[name] for name in spread(ordered, 4)}
    figure, axes = panels(2, len(found), height=3.6, width=max(6.5, min(11.0, 3.9 * len(found))))
    names = {"loss": "training loss", "heldout_loss": "held-out loss"}
    for (name, view), column in zip(found.items(), axes.T, strict=True):
        for ax, (variable, words) in zip(column, names.items(), strict=True):
            values = view.get(f"finite/{variable}")
            if values is None:
                empty(ax, "every network diverged")
                continue
            _by_depth(ax, values)
            ax.set_ylabel(words if ax in axes[:, 0] else "")
        title = name if name == _parametrization(view) else f"{name} ({_parametrization(view)})"
        column[0].set_title(title)
        below(column[1], ncols=2)
    rates = {view.rate for view in found.values()}
    rate = f"learning rate {rates.pop():g}" if len(rates) == 1 and None not in rates else "each at its own learning rate"
    widths = sorted({int(covered(values, "width")[-1]) for view in found.values() if (values := view.get("finite/loss")) is not None})
    figure.suptitle(f"Loss by parametrization (width {', '.join(map(str, widths))}; {rate})")
    steps = max(_window(values) for view in found.values() if (values := view.get("finite/loss")) is not None)
    over = f"seeds and {steps} steps" if steps > 1 else "seeds"
    caption = (
        f"Mean over {over} of the loss before each update, at the largest width: full lines for reused backward weights, "
        "dashed for independent ones, one colour and marker for each depth. Networks that diverged are left out."
    )
    return Drawing("parametrizations", "Training and held-out loss by parametrization", caption, figure)


def _parametrization(view: View) -> str:
    return view.config.get("problem", {}).get("parametrization", PARAMETRIZATIONS[-1])


def _window(values: xr.DataArray) -> int:
    """Steps that are averaged over, so that at most 40 points are drawn: with streamed batches the loss of a single one is noise."""
    return max(1, values.sizes["step"] // 40)


def _by_depth(ax: Axes, values: xr.DataArray) -> None:
    values = values.sel(width=covered(values, "width")[-1])
    depths = spread(list(covered(values, "depth")), 5)
    low, high = np.inf, 0.0
    for flag, dashes in (("reused", "-"), ("independent", "--")):
        if flag not in values["backward_weights"]:
            continue
        for color, marker, depth in zip(levels(len(depths)), MARKERS, depths, strict=False):
            mean = values.sel(backward_weights=flag, depth=depth).mean("seed")
            mean = mean.coarsen(step=_window(values), boundary="trim").mean()
            if mean.notnull().any():
                face = color if flag == "reused" else "white"
                style = {
                    "color": color,
                    "marker": marker,
                    "markersize": 4,
                    "markerfacecolor": face,
                    "linestyle": dashes,
                    "markevery": max(1, mean.size // 8),
                }
                ax.plot(mean["step"], mean, label=f"L = {depth}, {flag}", **style)
                low, high = min(low, float(mean.min())), max(high, float(mean.max()))
    step_axis(ax, values["step"].values)
    if 0 < 10 * low < high:
        log_y(ax)
