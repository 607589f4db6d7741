"""Figures across variants or runs: distances side by side, losses by parametrization, best learning rates, rich against lazy."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.config import flat
from nfd_jax.report._fig_phase import phase_map
from nfd_jax.report._fig_transfer import losses_by_rate, optimum
from nfd_jax.report._numbers import count, listed
from nfd_jax.report._plot import (
    LIMIT,
    MARKERS,
    NETWORK,
    QUANTITIES,
    SERIES,
    Drawing,
    Line,
    Sheet,
    curve,
    empty,
    levels,
    log_y,
    same_range,
    size_axis,
    spans_decade,
    step_axis,
)
from nfd_jax.report._trends import trend
from nfd_jax.verdicts import View, by_seed, covered, spread

PARAMETRIZATIONS = ("vanilla", "mup", "depth_mup")
PARAMETRIZATION_WORDS = {"vanilla": "vanilla", "mup": "μP", "depth_mup": "depth-μP"}


def varying(trees: Mapping[str, xr.DataTree]) -> dict[str, dict[str, object]]:
    """For each variant, the keys of the config in which the variants differ, with its values; measures are left out."""
    configs = {name: dict(flat(View.of(tree).config)) for name, tree in trees.items()}
    keys = dict.fromkeys(
        key for config in configs.values() for key in config if key not in ("name", "measure")
    )
    differ = [key for key in keys if len({repr(config.get(key)) for config in configs.values()}) > 1]
    return {name: {key: config.get(key) for key in differ} for name, config in configs.items()}


def variant_drawings(trees: Mapping[str, xr.DataTree]) -> Iterator[Drawing]:
    """Every figure across variants there is data for, to be drawn within `styled`."""
    differing = varying(trees)
    keys = {key for changes in differing.values() for key in changes}
    made = []
    if "problem.parametrization" in keys:
        made += [parametrizations(trees), optima(trees)]
    if "problem.richness" in keys:
        made.append(richness(trees))
    if "problem.horizon" in keys:
        made += [phase_map(group) for group in _by_other_keys(trees, differing)]
    else:
        made.append(side_by_side(trees))
    yield from filter(None, made)


def _by_other_keys(
    trees: Mapping[str, xr.DataTree], differing: Mapping[str, dict]
) -> list[dict[str, xr.DataTree]]:
    """Groups of variants that differ in the horizon (and learning rates) alone."""
    groups: dict[str, dict[str, xr.DataTree]] = {}
    for name, changes in differing.items():
        rest = {
            key: value
            for key, value in changes.items()
            if key not in ("problem.horizon", "problem.learning_rate")
        }
        groups.setdefault(repr(rest), {})[name] = trees[name]
    return [group for group in groups.values() if len(group) > 1]


def side_by_side(trees: Mapping[str, xr.DataTree]) -> Drawing | None:
    """Distance of standard networks to both limits against depth, last step, a colour for each variant."""
    views = {name: View.of(tree) for name, tree in trees.items()}
    views = {name: views[name] for name in spread(list(views), len(SERIES))}
    sheet, legend, said = Sheet(1, 3), {}, []
    for (name, view), color, marker in zip(views.items(), SERIES, MARKERS, strict=False):
        error = view.get("compare/limit_error_ms")
        if error is None or "reused" not in error["backward_weights"]:
            continue
        for limit, dashes in (("independent", "-"), ("reused", "--")):
            if limit not in error["limit_backward_weights"]:
                continue
            line = Line(color, marker, dashes, hollow=limit == "reused")
            for ax, quantity in zip(sheet.axes[0], QUANTITIES, strict=True):
                part = error.sel(
                    backward_weights="reused", limit_backward_weights=limit, quantity=quantity
                ).isel(step=-1)
                if not part.notnull().any():
                    continue
                part = part.sel(width=covered(part, "width")[-1])
                if curve(ax, part["depth"].values, by_seed(part, "depth"), line, floor=view.floor):
                    legend[f"{name}, to {'NFD' if limit == 'independent' else 'the reused limit'}"] = line
                if quantity == "h" and limit == "independent":
                    slope = trend(part["depth"].values, by_seed(part, "depth"), view.floor).value
                    said += [f"{name} {slope:.2f}".replace("-", "−")] if np.isfinite(slope) else []
    if not legend:
        return None
    for ax, words in zip(sheet.axes[0], QUANTITIES.values(), strict=True):
        ax.set_title(words)
        _depth_axis(ax)
    same_range(sheet.axes)
    sheet.axes[0, 0].set_ylabel("mean square per coordinate")
    title = "Distance of standard networks to each limit against depth"
    title += f"; slope of h to NFD: {', '.join(said)}" if said else ""
    caption = "At each variant's largest width, last step and largest learning rate that did not diverge. Bars: one standard error over seeds."
    return sheet.finish("variants", title, caption, legend)


def _depth_axis(ax: Axes) -> None:
    if not ax.lines:
        empty(ax, "not measured, or zero to rounding")
        return
    depths = sorted({float(x) for line in ax.lines for x in np.atleast_1d(line.get_xdata())})
    size_axis(ax, depths, "depth L")


def parametrization(view: View) -> str:
    """Of a run."""
    return (view.config.get("problem") or {}).get("parametrization", PARAMETRIZATIONS[-1])


def _ordered(trees: Mapping[str, xr.DataTree]) -> dict[str, View]:
    views = {name: View.of(tree) for name, tree in trees.items()}
    views = {name: view for name, view in views.items() if view.get("finite/loss") is not None}
    names = sorted(views, key=lambda name: PARAMETRIZATIONS.index(parametrization(views[name])))
    return {name: views[name] for name in spread(names, 4)} if names else {}


def parametrizations(trees: Mapping[str, xr.DataTree]) -> Drawing | None:
    """Training and held-out loss over steps, a column for each variant: reused full, independent dashed, limits black."""
    found = _ordered(trees)
    if not found:
        return None
    sheet, legend = Sheet(2, len(found)), {}
    for (name, view), column in zip(found.items(), sheet.axes.T, strict=True):
        for ax, (variable, words) in zip(
            column, {"loss": "training", "heldout_loss": "held-out"}.items(), strict=True
        ):
            values = view.get(f"finite/{variable}")
            own = PARAMETRIZATION_WORDS[parametrization(view)]
            ax.set_title(
                f"{words}, {own}" if name in (own, parametrization(view)) else f"{words}, {name} ({own})"
            )
            if values is None:
                empty(ax, "every network diverged")
                continue
            legend |= _by_depth(ax, values, view.get(f"limit/{variable}"))
    for row, words in zip(sheet.axes, ("training loss", "held-out loss"), strict=True):
        same_range(row, log=spans_decade(row))
        row[0].set_ylabel(words)
    rates = sorted({view.rate for view in found.values() if view.rate is not None})
    steps = max(_window(values) for view in found.values() if (values := view.get("finite/loss")) is not None)
    over = f"seeds and {steps} steps" if steps > 1 else "seeds"
    caption = (
        f"Mean over {over} of the loss before each update at the largest width, η = {listed(rates)}. Full: reused backward weights; "
        "dashed: independent; black: the limits. Networks that diverged are left out."
    )
    title = f"Losses by parametrization: {listed(PARAMETRIZATION_WORDS[parametrization(view)] for view in found.values())}"
    return sheet.finish("parametrizations", title, caption, legend)


def _window(values: xr.DataArray) -> int:
    """Steps that are averaged over, so that at most 40 points are drawn: a streamed batch's loss alone is noise."""
    return max(1, values.sizes["step"] // 40)


def _by_depth(ax: Axes, values: xr.DataArray, limit: xr.DataArray | None) -> dict[str, Line]:
    values, legend, window = values.sel(width=covered(values, "width")[-1]), {}, _window(values)
    depths = spread(list(covered(values, "depth")), 5)
    for flag, dashes in (("reused", "-"), ("independent", "--")):
        if flag in values["backward_weights"]:
            for color, marker, depth in zip(levels(len(depths)), MARKERS, depths, strict=False):
                mean = (
                    values.sel(backward_weights=flag, depth=depth)
                    .mean("seed")
                    .coarsen(step=window, boundary="trim")
                    .mean()
                )
                if mean.notnull().any():
                    line = Line(color, marker, dashes, hollow=flag == "independent")
                    every = max(1, mean.size // 8)
                    ax.plot(
                        mean["step"], mean, **line.keywords(), markersize=4.5, markevery=every, linewidth=1.2
                    )
                    legend[f"L = {depth}, {flag}"] = line
        if limit is not None and flag in limit["backward_weights"]:
            solved = limit.sel(backward_weights=flag)
            solved = solved.sel(particles=covered(solved, "particles")[-1]).mean("seed")
            solved = solved.coarsen(step=window, boundary="trim").mean()
            line = Line("#000000", "", LIMIT[flag].dashes)
            ax.plot(solved["step"], solved, **line.keywords())
            legend[f"{flag} limit, L = ∞"] = line
    step_axis(ax, values["step"].values)
    return legend


def optima(trees: Mapping[str, xr.DataTree]) -> Drawing | None:
    """Loss after training against η for every depth, a column for each parametrization, and where the best η lies."""
    found = {}
    for name, view in _ordered(trees).items():
        loss, _ = losses_by_rate(view.tree)
        if (
            loss is not None
            and "reused" in loss["backward_weights"]
            and len(covered(loss, "learning_rate")) > 2
        ):
            found[name] = (view, loss.sel(backward_weights="reused", width=covered(loss, "width")[-1]))
    if not found:
        return None
    sheet, legend, said = Sheet(1, len(found) + 1), {}, []
    for ax, (view, loss), color, mark in zip(
        sheet.axes[0], found.values(), SERIES, MARKERS, strict=False
    ):
        own, rates = PARAMETRIZATION_WORDS[parametrization(view)], loss["learning_rate"].values
        depths, best = spread(list(covered(loss, "depth")), 5), []
        for shade, marker, depth in zip(levels(len(depths)), MARKERS, depths, strict=False):
            samples = loss.sel(depth=depth).transpose("seed", "learning_rate").values
            line = Line(shade, marker)
            mean = np.where(np.isfinite(samples).all(0), samples.mean(0), np.nan)
            ax.plot(rates, mean, **line.keywords(), markersize=4.5)
            legend[f"L = {depth}"] = line
            best.append(optimum(rates, samples))
        ax.set_title(own)
        size_axis(ax, rates, "learning rate η")
        last, line = sheet.axes[0, -1], Line(color, mark, "--")
        ends = np.array([[max(item.rate - item.low, 0), max(item.high - item.rate, 0)] for item in best]).T
        last.errorbar(depths, [item.rate for item in best], np.nan_to_num(ends), capsize=2, **line.keywords())
        legend[f"best η, {own}"] = line
        said.append(f"{own} {best[0].rate:.2g} → {best[-1].rate:.2g}")
    same_range(sheet.axes[0, :-1])
    last = sheet.axes[0, -1]
    log_y(last)
    _depth_axis(last)
    last.set_title("best η against depth")
    last.set_ylabel("learning rate η*")
    sheet.axes[0, 0].set_ylabel("training loss after the last update")
    caption = "Reused weights, largest width, means over seeds. Best η by a parabola around the best point, 95 % bootstrap intervals."
    title = f"Best learning rate from the shallowest to the deepest network: {'; '.join(said)}"
    return sheet.finish("optima", title, caption, legend)


def richness(trees: Mapping[str, xr.DataTree]) -> Drawing | None:
    """Over γ: how far features move, the loss reached, and how far networks are from either limit."""
    views = sorted((View.of(tree) for tree in trees.values()), key=_gamma)
    gammas = [_gamma(view) for view in views]
    if len(set(gammas)) < len(gammas) or len(gammas) < 2:
        return None
    sheet, legend = Sheet(1, 3), {}
    moved, lost, apart = sheet.axes[0]
    for flag in NETWORK:
        for group, line in (("finite", NETWORK[flag]), ("limit", LIMIT[flag])):
            who = f"{flag} {'network' if group == 'finite' else 'limit'}"
            for ax, name in ((moved, "feature_shift_ms"), (lost, "loss")):
                points = [_last(view, f"{group}/{name}", flag) for view in views]
                if np.isfinite(points).any():
                    ax.plot(gammas, points, **line.keywords())
                    legend[who] = line
    for flag, line in NETWORK.items():
        points = [_error(view, flag) for view in views]
        if np.isfinite(points).any():
            drawn = Line(line.color, "D", ":", hollow=True)
            apart.plot(gammas, points, **drawn.keywords())
            legend[f"reused network minus {flag} limit"] = drawn
    titles = {
        moved: "movement of h since step 0",
        lost: "training loss at the end",
        apart: "outputs: network − limit",
    }
    for ax, title in titles.items():
        ax.set_title(title)
        if not ax.lines:
            empty(ax, "not measured")
            continue
        size_axis(ax, gammas, "richness γ")
        if spans_decade([ax]):
            log_y(ax)
    moved.set_ylabel("mean square per coordinate")
    caption = (
        "Small γ: features stay, the network is kernel regression (lazy). γ = 1: depth-μP (rich). After the last update, at the largest "
        "width and depth, means over seeds."
    )
    return sheet.finish("richness", f"Rich against lazy: {count(len(gammas), 'value')} of γ", caption, legend)


def _gamma(view: View) -> float:
    return float((view.config.get("problem") or {}).get("richness", 1.0))


def _last(view: View, path: str, flag: str) -> float:
    values = view.get(path)
    if values is None or flag not in values["backward_weights"]:
        return np.nan
    values = values.sel(backward_weights=flag).isel(step=-1)
    for dim in ("width", "depth", "particles"):
        if dim in values.dims:
            values = values.sel({dim: covered(values, dim)[-1]})
    values = values.mean("seed")
    return float(values.max())


def _error(view: View, limit: str) -> float:
    values = view.get("compare/limit_error_ms")
    if (
        values is None
        or "reused" not in values["backward_weights"]
        or limit not in values["limit_backward_weights"]
    ):
        return np.nan
    values = values.sel(backward_weights="reused", limit_backward_weights=limit, quantity="f").isel(step=-1)
    return float(values.sel(width=covered(values, "width")[-1], depth=covered(values, "depth")[-1]).mean())
