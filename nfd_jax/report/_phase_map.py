"""The phase map: coupling effect and limit error over horizon T and learning rate, with the first-order prediction."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from nfd_jax.report._figures_rates import QUANTITIES
from nfd_jax.report._plot import Drawing, empty, number, panels
from nfd_jax.verdicts._view import array, covered, measured, settings

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def phase_map(trees: Mapping[str, xr.DataTree]) -> Drawing | None:
    """Heat maps of h, b and f at the largest width and depth, last step, from variants that differ in the horizon."""
    horizons = sorted({_horizon(tree) for tree in trees.values()})
    rates = sorted({float(rate) for tree in trees.values() for rate in _rates(tree)})
    error = {"backward_weights": "reused", "limit_backward_weights": "independent"}
    sources = (("coupling/coupling_effect_ms", {}), ("compare/limit_error_ms", error))
    found = [(path.split("/")[1], _corner(trees, path, select, rates, horizons)) for path, select in sources]
    found = [(name, grids) for name, grids in found if grids is not None]
    if not found or len(horizons) < 2:
        return None
    one_each = {_horizon(tree): tree for tree in trees.values()}
    gaps = first_order_gaps([one_each[horizon] for horizon in horizons])
    figure, axes = panels(len(found), 3, height=3.4)
    for row, (name, grids) in zip(axes, found, strict=True):
        for ax, (quantity, words) in zip(row, QUANTITIES.items(), strict=True):
            mesh = _heat(ax, grids[quantity], horizons, rates)
            if mesh is not None:
                bar = figure.colorbar(mesh, ax=ax, fraction=0.05, pad=0.02)
                bar.ax.yaxis.set_major_formatter(lambda value, _: number(value))
                bar.ax.minorticks_off()
            if gaps is not None and mesh is not None:
                _contours(ax, gaps)
            ax.set_title(f"{name}: {words}", pad=22 if gaps is not None else 6)
        row[0].set_ylabel("learning rate η")
    what = settings(next(iter(trees.values()))).get("problem", {})
    figure.suptitle(f"Phase map, {what.get('activation', '')}: mean squares at the last step over horizon T and learning rate")
    caption = (
        "Mean over seeds at the largest width and depth, mean square per coordinate, on a logarithmic colour scale. "
        "Top: reused minus independent network on the same noise. Bottom: reused network minus independent limit. A "
        "cross marks what diverged or is not there yet. "
    )
    caption += (
        "White and black lines with percentages above: the first-order prediction at initialization, the relative gap "
        "(T∫E[φφ]G dt − T∫E[φφ] dt) / T∫E[φφ] dt of the change that a sample makes to its own f in the first step when "
        "hidden weights learn; it depends on T alone."
        if gaps is not None
        else "The first-order prediction is not drawn: it needs the data set and depth_mup."
    )
    changes = "-".join(str(what.get(key)) for key in ("activation", "train"))
    return Drawing(f"phase_map-{changes}", f"Phase map over T and learning rate ({changes})", caption, figure)


def _horizon(tree: xr.DataTree) -> float:
    return float(settings(tree).get("problem", {}).get("horizon", 1.0))


def _rates(tree: xr.DataTree) -> np.ndarray:
    cells = array(tree, "status/cell")
    return cells["learning_rate"].values if cells is not None else np.zeros(0)


def _corner(
    trees: Mapping[str, xr.DataTree], path: str, select: Mapping[str, str], rates: list[float], horizons: list[float]
) -> dict[str, np.ndarray] | None:
    """(rates, horizons) for each of h, b, f; None where no variant has the variable."""
    grids = {quantity: np.full((len(rates), len(horizons)), np.nan) for quantity in QUANTITIES}
    for tree in trees.values():
        values = measured(tree, path)
        if values is None or any(label not in values[dim] for dim, label in select.items()):
            continue
        values = values.sel(select).isel(step=-1)
        if not values.notnull().any():
            continue
        corner = values.sel(width=covered(values, "width")[-1], depth=covered(values, "depth")[-1]).mean("seed")
        for rate in corner["learning_rate"].values:
            for quantity, grid in grids.items():
                place = rates.index(float(rate)), horizons.index(_horizon(tree))
                grid[place] = corner.sel(learning_rate=rate, quantity=quantity)
    return grids if any(np.isfinite(grid).any() for grid in grids.values()) else None


def _heat(ax: Axes, grid: np.ndarray, horizons: list[float], rates: list[float]):
    shown = np.where(grid > 0, grid, np.nan)
    if not np.isfinite(shown).any():
        empty(ax, "zero to rounding, or diverged")
        return None
    low, high = np.nanmin(shown), np.nanmax(shown)
    colors = matplotlib.colormaps["cividis"]
    norm = LogNorm(low, high if high > low else 10 * low)
    mesh = ax.pcolormesh(np.arange(len(horizons)), np.arange(len(rates)), shown, norm=norm, cmap=colors, shading="nearest")
    ax.grid(False)
    ax.set_xticks(range(len(horizons)), [f"{T:g}" for T in horizons])
    ax.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    ax.set_xlabel("horizon T")
    if max(grid.shape) <= 8:
        for (i, j), value in np.ndenumerate(grid):
            real = np.isfinite(value) and value > 0
            ink = "white" if real and norm(value) < 0.55 else "black"
            ground = colors(norm(value)) if real else "white"
            text = number(value) if np.isfinite(value) else "×"
            box = {"facecolor": ground, "edgecolor": "none", "pad": 1.5}  # contours stop short of the number
            ax.text(j, i, text, ha="center", va="center", fontsize=7, color=ink, bbox=box, zorder=3)
    return mesh


def _contours(ax: Axes, gaps: np.ndarray) -> None:
    """Lines where the gap, known at each horizon, crosses LEVELS; their values stand above the panel."""
    x = np.arange(len(gaps))
    crossings: list[tuple[float, float]] = []
    for level in LEVELS:
        for i in np.flatnonzero((gaps[:-1] - level) * (gaps[1:] - level) < 0):
            place = x[i] + (level - gaps[i]) / (gaps[i + 1] - gaps[i])
            if all(abs(place - other) > len(gaps) / 12 for other, _ in crossings):
                crossings.append((place, level))
    for place, _ in crossings:
        ax.axvline(place, color="black", linewidth=2.4)
        ax.axvline(place, color="white", linewidth=1.0, linestyle="--")
    above = ax.secondary_xaxis("top")
    above.set_xticks([place for place, _ in crossings], [f"{level:.0%}" for _, level in crossings])
    above.tick_params(labelsize=7.5)


def first_order_gaps(trees: Sequence[xr.DataTree]) -> np.ndarray | None:
    """(trees,) relative gap of the first-order change of f, reused over independent; None where it can't be had."""
    import jax

    from nfd_jax.config import SweepConfig
    from nfd_jax.limit import first_order_change
    from nfd_jax.sweep._execute import load_problem

    gaps = []
    for tree in trees:
        try:
            config = SweepConfig.from_yaml(tree.attrs.get("config", ""))
            with jax.enable_x64(config.precision == "float64"):
                problem, _ = load_problem(config)
                reused, independent = (np.asarray(change, float) for change in first_order_change(problem))
        except (ValueError, OSError):  # ConfigError, DataError: a config or data set that isn't what or where it was
            return None
        if problem.parametrization != "depth_mup":
            return None
        # of a sample with itself: over pairs, terms of both signs nearly cancel in the mean
        gaps.append(np.trace(reused - independent) / np.trace(independent))
    return np.asarray(gaps)
