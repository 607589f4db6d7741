"""The phase map: what reuse changes and the distance to NFD over horizon T and learning rate, and the first
step's gap where stored."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from nfd_jax.report._numbers import number, percent
from nfd_jax.report._pick import largest, pick
from nfd_jax.report._plot import QUANTITIES, Drawing, Sheet, empty
from nfd_jax.verdicts import array, measured, section, settings

ROWS = {
    "coupling/coupling_effect_ms": ("what reuse changes", {}),
    "compare/limit_error_ms": (
        "distance to NFD",
        {"backward_weights": "reused", "limit_backward_weights": "independent"},
    ),
}


def phase_map(trees: Mapping[str, xr.DataTree]) -> Drawing | None:
    """Heat maps of h, b and f at the largest width and depth, last step, from variants that differ in the
    horizon."""
    horizons = sorted({_horizon(tree) for tree in trees.values()})
    rates = sorted({float(rate) for tree in trees.values() for rate in _rates(tree)})
    found = [(words, _corner(trees, path, select, rates, horizons)) for path, (words, select) in ROWS.items()]
    found = [(words, grids) for words, grids in found if grids is not None]
    if not found or len(horizons) < 2:
        return None
    sheet = Sheet(len(found), 3)
    for row, (words, grids) in zip(sheet.axes, found, strict=True):
        values = np.concatenate([grid[np.isfinite(grid) & (grid > 0)] for grid in grids.values()])
        for ax, (quantity, name) in zip(row, QUANTITIES.items(), strict=True):
            _heat(ax, grids[quantity], horizons, rates, values)
            ax.set_title(f"{words}: {name}")
        row[0].set_ylabel("learning rate η")
    problem = section(settings(next(iter(trees.values()))), "problem")
    caption = (
        "Mean square per coordinate after the last update, mean over seeds at the largest width and depth; "
        "darker is smaller, on one logarithmic scale a row. A cross marks what diverged or is not there yet."
    )
    gaps = {_horizon(tree): gap for tree in trees.values() if (gap := first_step_gap(tree)) is not None}
    if gaps:
        caption += " First step as η → 0, by the formulas of both systems, reused over independent less one: "
        caption += ", ".join(f"{percent(gaps[T])} at T = {T:g}" for T in sorted(gaps)) + "."
    name = "-".join(str(problem.get(key)) for key in ("activation", "train"))
    words = " and ".join(words for words, _ in found)
    title = f"Over horizon and learning rate, {problem.get('activation')}: {words}"
    return sheet.finish(f"phase_map-{name}", title, caption)


def first_step_gap(tree: xr.DataTree) -> float | None:
    """Predicted gain of the first step, reused over independent, less one; None where /response is not
    stored."""
    gain = measured(tree, "response/first_step_gain_predicted")
    both = [pick(gain, backward_weights=flag) for flag in ("reused", "independent")]
    return None if both[0] is None or both[1] is None else float(both[0].mean() / both[1].mean()) - 1


def _horizon(tree: xr.DataTree) -> float:
    return float(section(settings(tree), "problem").get("horizon", 1.0))


def _rates(tree: xr.DataTree) -> np.ndarray:
    cells = array(tree, "status/cell")
    return cells["learning_rate"].values if cells is not None else np.zeros(0)


def _corner(
    trees: Mapping[str, xr.DataTree],
    path: str,
    select: Mapping[str, str],
    rates: list[float],
    horizons: list[float],
) -> dict[str, np.ndarray] | None:
    """(rates, horizons) for each of h, b, f; None where no variant has the variable."""
    grids = {quantity: np.full((len(rates), len(horizons)), np.nan) for quantity in QUANTITIES}
    for tree in trees.values():
        values = pick(measured(tree, path), last=True, **select)
        if values is None:
            continue
        corner = largest(values, "width", "depth").mean("seed")
        for rate in corner["learning_rate"].values:
            for quantity, grid in grids.items():
                place = rates.index(float(rate)), horizons.index(_horizon(tree))
                grid[place] = corner.sel(learning_rate=rate, quantity=quantity)
    return grids if any(np.isfinite(grid).any() for grid in grids.values()) else None


def _heat(ax: Axes, grid: np.ndarray, horizons: list[float], rates: list[float], row: np.ndarray) -> None:
    shown = np.where(grid > 0, grid, np.nan)
    if not np.isfinite(shown).any():
        empty(ax, "zero to rounding, or diverged")
        return
    low, high = row.min(), row.max()
    colors = matplotlib.colormaps["cividis"]
    norm = LogNorm(low, high if high > low else 10 * low)
    edges = (np.arange(count + 1) - 0.5 for count in (len(horizons), len(rates)))
    ax.pcolormesh(*edges, shown, norm=norm, cmap=colors)
    ax.grid(False)
    ax.set_xticks(range(len(horizons)), [f"{T:g}" for T in horizons])
    ax.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    ax.set_xlabel("horizon T")
    for (i, j), value in np.ndenumerate(grid) if max(grid.shape) <= 8 else ():
        real = np.isfinite(value) and value > 0
        ink = "white" if real and norm(value) < 0.55 else "black"
        text = number(value) if np.isfinite(value) else "×"
        ax.text(j, i, text, ha="center", va="center", fontsize=7.5, color=ink)
