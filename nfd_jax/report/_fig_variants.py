"""Figures across variants or runs: distances side by side, losses by parametrization, best learning
rates, rich against lazy."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from nfd_jax.config import flat
from nfd_jax.report import _plot as plot
from nfd_jax.report._fig_error import SIZE
from nfd_jax.report._fig_gap import MEANING, gap_row, known
from nfd_jax.report._fig_phase import phase_map
from nfd_jax.report._fig_transfer import BEST, rate_panels
from nfd_jax.report._learning import best_rates, cut, grid_of, rate_word, rate_words
from nfd_jax.report._numbers import listed, number, signed
from nfd_jax.report._pick import largest, pick
from nfd_jax.report._trends import trend
from nfd_jax.verdicts import View, by_seed, covered, relative_gap, section, spread

PARAMETRIZATIONS = {"vanilla": "vanilla", "mup": "μP", "depth_mup": "depth-μP"}
Trees = Mapping[str, xr.DataTree]
Views = Mapping[str, View]


def varying(trees: Trees) -> dict[str, dict[str, object]]:
    """For each variant, the keys of the config in which the variants differ, with its values; measures are
    left out."""
    configs = {name: dict(flat(View.of(tree).config)) for name, tree in trees.items()}
    keys = dict.fromkeys(
        key for config in configs.values() for key in config if key not in ("name", "measure")
    )
    differ = [key for key in keys if len({repr(config.get(key)) for config in configs.values()}) > 1]
    return {name: {key: config.get(key) for key in differ} for name, config in configs.items()}


def variant_drawings(trees: Trees) -> Iterator[plot.Drawing]:
    """Every figure across variants there is data for, to be drawn within `styled`."""
    differing, views = varying(trees), {name: View.of(tree) for name, tree in trees.items()}
    keys = {key for changes in differing.values() for key in changes}
    made = []
    if "problem.parametrization" in keys:
        ordered = _ordered(views)
        made += [optima(ordered), parametrizations(ordered)]
    if "problem.richness" in keys:
        made.append(richness(views))
    if "problem.horizon" in keys:
        made += [phase_map(group) for group in _by_other_keys(trees, differing)]
    else:
        made.append(side_by_side(views))
    yield from filter(None, made)


def _by_other_keys(trees: Trees, differing: Mapping[str, dict]) -> list[dict[str, xr.DataTree]]:
    """Groups of variants that differ in the horizon (and learning rates) alone."""
    groups: dict[str, dict[str, xr.DataTree]] = {}
    for name, changes in differing.items():
        own = ("problem.horizon", "problem.learning_rate")
        rest = {key: value for key, value in changes.items() if key not in own}
        groups.setdefault(repr(rest), {})[name] = trees[name]
    return [group for group in groups.values() if len(group) > 1]


def side_by_side(views: Views) -> plot.Drawing | None:
    """Distance of standard networks to both limits against depth, last step, a colour for each variant."""
    sheet, said = plot.Sheet(1, 3), []
    shown = spread(list(views), len(plot.SERIES))
    for name, color, marker in zip(shown, plot.SERIES, plot.MARKERS, strict=False):
        view = views[name]
        errors = pick(view.get("compare/limit_error_ms"), backward_weights="reused")
        for limit, dashes in (("independent", "-"), ("reused", "--")):
            line = plot.Line(color, marker, dashes, hollow=limit == "reused")
            label = f"{name}, to {'NFD' if limit == 'independent' else 'the reused limit'}"
            for ax, quantity in zip(sheet.axes[0], plot.QUANTITIES, strict=True):
                part = pick(errors, last=True, limit_backward_weights=limit, quantity=quantity)
                if part is None:
                    continue
                part = largest(part, "width")
                depths, samples = part["depth"].values, by_seed(part, "depth")
                sheet.curve(ax, depths, samples, line, label, floor=view.floor)
                slope = trend(depths, samples, view.floor).value
                if (quantity, limit) == ("h", "independent") and np.isfinite(slope):
                    said.append(f"{name} {signed(slope)}")
    if not sheet.legend:
        return None
    for ax, words in zip(sheet.axes[0], plot.QUANTITIES.values(), strict=True):
        ax.set_title(words)
        _depth_axis(ax)
    plot.same_range(sheet.axes)
    sheet.axes[0, 0].set_ylabel(SIZE)
    title = "Distance of standard networks to each limit against depth"
    title += f"; slope of h to NFD: {', '.join(said)}" if said else ""
    caption = (
        "At each variant's largest width, last step and largest learning rate that did not diverge. Bars: "
        "one standard error over seeds."
    )
    return sheet.finish("variants", title, caption)


def _depth_axis(ax: Axes) -> None:
    """The depths of every variant."""
    depths = {float(x) for line in ax.lines for x in np.atleast_1d(line.get_xdata())}
    plot.size_axis(ax, sorted(depths), "depth", "not measured, or zero to rounding")


def parametrization(view: View) -> str:
    """Of a run, as people write it."""
    return PARAMETRIZATIONS[section(view.config, "problem").get("parametrization", "depth_mup")]


def _ordered(views: Views) -> dict[str, View]:
    """At most four with networks, as parametrizations are listed; by their parametrization where that is a
    name."""
    order = list(PARAMETRIZATIONS.values())
    found = {name: view for name, view in views.items() if view.get("finite/loss") is not None}
    names = sorted(found, key=lambda name: order.index(parametrization(found[name])))
    return {_called(name, found[name]): found[name] for name in (spread(names, 4) if names else ())}


def _called(name: str, view: View) -> str:
    own = parametrization(view)
    return own if PARAMETRIZATIONS.get(name, name) == own else f"{name} ({own})"


def parametrizations(found: Views) -> plot.Drawing | None:
    """A column for each variant: the relative gap of losses against depth, training and held-out loss over
    steps (reused full, independent dashed, limits black)."""
    if not found:
        return None
    gaps = any(known(relative_gap(view.tree)) for view in found.values())
    sheet, steps = plot.Sheet(2 + gaps, len(found)), 1
    said = gap_row(sheet, sheet.axes[0], found) if gaps else ""
    variables = {"loss": "training", "heldout_loss": "held-out"}
    for row, (variable, words) in zip(sheet.axes[gaps:], variables.items(), strict=True):
        for ax, (name, view) in zip(row, found.items(), strict=True):
            ax.set_title(f"{words} loss, {name}" + ("" if view.rate is None else f", η = {view.rate:g}"))
            values = view.get(f"finite/{variable}")
            if values is None:
                plot.empty(ax, "not measured, or every network diverged")
                continue
            # At most 40 points are drawn: a streamed batch's loss alone is noise.
            window = max(1, values.sizes["step"] // 40)
            steps = max(steps, window)
            _by_depth(sheet, ax, values, view.get(f"limit/{variable}"), window, grid_of(view))
        plot.same_range(row, log=plot.spans_decade(row))
        row[0].set_ylabel(f"{words} loss")
    bars = f" {MEANING} Bars may leave the frame." if said else ""
    caption = (
        f"Losses: mean over {f'seeds and {steps} steps' if steps > 1 else 'seeds'} before each update at the "
        "largest width. Full: reused backward weights; dashed: independent; black: the limits. Networks that "
        f"diverged are left out.{bars}"
    )
    names = listed(dict.fromkeys(map(parametrization, found.values())))
    title = f"Losses by parametrization: {names}"
    if said:
        title = f"Gap of losses, independent − reused, from the shallowest to the deepest network: {said}"
    return sheet.finish("parametrizations", title, caption)


def _by_depth(
    sheet: plot.Sheet, ax: Axes, values: xr.DataArray, limit: xr.DataArray | None, window: int, grid: str
) -> None:
    def smooth(part: xr.DataArray) -> xr.DataArray:
        return part.mean("seed").coarsen(step=window, boundary="trim").mean()

    values = largest(values, "width")
    for flag, dashes in (("reused", "-"), ("independent", "--")):
        for depth, line in plot.shades(covered(values, "depth"), dashes=dashes):
            part = pick(values, backward_weights=flag, depth=depth)
            if part is not None:
                part, every = smooth(part), max(1, part.sizes["step"] // window // 8)
                sheet.line(ax, part["step"], part, line, f"L = {depth}, {flag}", markevery=every, **plot.THIN)
        solved = pick(limit, backward_weights=flag)
        if solved is not None:
            solved = smooth(largest(solved, "particles"))
            line = plot.LIMIT[flag]
            sheet.line(ax, solved["step"], solved, line, f"{flag} limit, {grid}")
    plot.step_axis(ax, values["step"].values)


def optima(views: Views) -> plot.Drawing | None:
    """Loss after training against η for every depth, a column for each parametrization, and where the best η
    lies."""
    found = {name: best for name, view in views.items() if (best := best_rates(view)) is not None}
    if not found:
        return None
    sheet, styles = plot.Sheet(1, len(found) + 1), zip(plot.SERIES, plot.MARKERS, strict=True)
    last = sheet.axes[0, -1]
    for ax, (name, best), (color, mark) in zip(sheet.axes[0], found.items(), styles, strict=False):
        line = plot.Line(color, mark, "--")
        rate_panels(sheet, ax, last, best, "depth", line, f"best η, {name}")
        ax.set_title(f"{name}, {ax.get_title(loc='left')}")
    plot.same_range(sheet.axes[0, :-1])
    told = ". ".join(f"{name}: {rate_words(best)}" for name, best in found.items())
    flag = next(iter(found.values())).attrs["backward_weights"]
    caption = f"{told}. {flag.capitalize()} backward weights, largest width. {BEST}"
    said = "; ".join(f"{name} {' → '.join(_ends(best))}" for name, best in found.items())
    title = f"Best learning rate from the shallowest to the deepest network: {said}"
    return sheet.finish("optima", title, caption)


def _ends(found: xr.Dataset) -> list[str]:
    """The best rates of the shallowest and the deepest of the widest networks that have one."""
    at = found.sel(cut(found, "depth"))
    depths = covered(at["optimum"], "depth")
    said = (rate_word(at, {"depth": depth}) for depth in (depths[0], depths[-1]))
    return [word.replace("between ", "").replace(" and ", "–") for word in said]


def richness(views: Views) -> plot.Drawing | None:
    """Over γ: how far features move, the loss reached, and how far networks are from either limit."""
    ordered = sorted(views.values(), key=_gamma)
    gammas = [_gamma(view) for view in ordered]
    if len(set(gammas)) < len(gammas) or len(gammas) < 2:
        return None
    compared = any(view.get("compare/limit_error_ms") is not None for view in ordered)
    sheet = plot.Sheet(1, 2 + compared)
    moved, lost, *apart = sheet.axes[0]
    for flag in plot.NETWORK:
        for group, line in (("finite", plot.NETWORK[flag]), ("limit", plot.LIMIT[flag])):
            who = f"{flag} {'network' if group == 'finite' else 'limit'}"
            for ax, name in ((moved, "feature_shift_ms"), (lost, "loss")):
                points = [_last(view, f"{group}/{name}", backward_weights=flag) for view in ordered]
                sheet.line(ax, gammas, points, line, who)
        labels = {"backward_weights": "reused", "limit_backward_weights": flag, "quantity": "f"}
        drawn = plot.Line(plot.NETWORK[flag].color, "D", ":", hollow=True)
        for ax in apart:
            points = [_last(view, "compare/limit_error_ms", **labels) for view in ordered]
            sheet.line(ax, gammas, points, drawn, f"reused network minus {flag} limit")
    titles = ("movement of h since step 0", "training loss at the end", "outputs: network − limit")
    for ax, title in zip(sheet.axes[0], titles, strict=False):
        ax.set_title(title)
        if plot.spans_decade([ax]):
            plot.log_y(ax)
        plot.size_axis(ax, gammas, "richness γ", "not measured")
    moved.set_ylabel(SIZE)
    caption = (
        "Small γ: features stay, the network is kernel regression (lazy). γ = 1: depth-μP (rich). After "
        "the last update, at the largest width and depth, means over seeds."
    )
    return sheet.finish("richness", _richness_title([ordered[0], ordered[-1]]), caption)


def _richness_title(ends: list[View]) -> str:
    """How far features move at the smallest and the largest γ."""
    far = [_last(view, "finite/feature_shift_ms", backward_weights="reused") for view in ends]
    if not np.isfinite(far).all():
        return "Rich against lazy"
    said = [f"{number(size)} at γ = {_gamma(view):g}" for size, view in zip(far, ends, strict=True)]
    return f"Rich against lazy: features move by {' and '.join(said)} (mean square)"


def _gamma(view: View) -> float:
    return float(section(view.config, "problem").get("richness", 1.0))


def _last(view: View, path: str, **labels: str) -> float:
    """Mean over seeds at the last step and the largest sizes, the largest over t; NaN where there is none."""
    values = pick(view.get(path), last=True, **labels)
    return (
        np.nan if values is None else float(largest(values, "width", "depth", "particles").mean("seed").max())
    )
