"""Figure 2 of the paper: do the losses of reused and independent networks become the same with depth, or only at zero loss?"""

import math

import numpy as np

from nfd_jax.report._numbers import Estimate, count, percents
from nfd_jax.report._plot import (
    LIMIT,
    MARKERS,
    Drawing,
    Line,
    Sheet,
    levels,
    same_range,
    size_axis,
    step_axis,
)
from nfd_jax.report._trends import student
from nfd_jax.verdicts import View, covered, spread

SMALLEST_DROP = 0.05  # of the first loss: relative to less, a gap says nothing


def relative_gap(reused: np.ndarray, independent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss_independent − loss_reused)/(loss_0 − loss_reused) of paired seeds' means and its 95 % half-width, each (steps,).

    Both are (seeds, steps). A ratio of means, its error by the jackknife over seeds; NaN while the loss has not dropped.
    """
    both = np.isfinite(reused).all(1) & np.isfinite(independent).all(1)
    reused, independent = reused[both], independent[both]
    seeds = len(reused)
    if not seeds:
        return np.full(reused.shape[1], math.nan), np.full(reused.shape[1], math.nan)

    def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        dropped = a[0] - a
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(dropped > SMALLEST_DROP * a[0], (b - a) / dropped, math.nan)

    found = ratio(reused.mean(0), independent.mean(0))
    if seeds < 2:
        return found, np.full_like(found, math.inf)
    total = reused.sum(0), independent.sum(0)
    left = [
        (ratio((total[0] - a) / (seeds - 1), (total[1] - b) / (seeds - 1)))
        for a, b in zip(reused, independent, strict=True)
    ]
    without = np.stack(left)
    return found, student(seeds) * np.sqrt((seeds - 1) * without.var(0))


def gap(view: View) -> Drawing | None:
    """Relative gap against depth at three steps, and over steps at each depth, at the largest width, with the limits' own gap."""
    loss = view.get("finite/loss")
    if (
        loss is None
        or not {"reused", "independent"} <= set(map(str, loss["backward_weights"].values))
        or loss.sizes["step"] < 3
    ):
        return None
    width, depths = int(covered(loss, "width")[-1]), covered(loss, "depth")
    loss = loss.sel(width=width, depth=depths)
    found = {int(depth): relative_gap(*_both(loss.sel(depth=depth))) for depth in depths}
    if not any(np.isfinite(value).any() for value, _ in found.values()):
        return None
    limit = _limit_gap(view, width)
    steps = loss["step"].values
    shown = [int(step) for step in spread(list(range(1, len(steps))), 3)]
    sheet, legend = Sheet(1, 1 + (len(depths) > 1)), {}
    ax = sheet.axes[0, 0]
    for color, marker, depth in zip(levels(len(depths)), MARKERS * 9, map(int, depths), strict=False):
        if depth in spread(list(map(int, depths)), 5):
            line = Line(color, marker)
            every = max(1, len(steps) // 10)
            ax.plot(steps, found[depth][0], **line.keywords(), markevery=every, markersize=4.5)
            legend[f"networks, L = {depth}"] = line
    if limit is not None:
        ax.plot(steps, limit[0], **LIMIT["independent"].keywords() | {"color": "black", "linewidth": 2.2})
        legend["limits, L = ∞"] = Line("black", "", LIMIT["independent"].dashes)
    ax.axhline(0, color="black", linewidth=0.8)
    step_axis(ax, steps)
    ax.set_title(f"over steps, n = {width}")
    ax.set_ylabel("relative gap of losses")
    if len(depths) > 1:
        ax = sheet.axes[0, 1]
        for step, (dashes, marker) in zip(shown, (("-", "o"), ("--", "s"), (":", "^")), strict=False):
            middle = np.array([found[int(depth)][0][step] for depth in depths])
            half = np.array([found[int(depth)][1][step] for depth in depths])
            if np.isfinite(middle).any():
                line = Line("#4B5A6B", marker, dashes)
                ax.errorbar(
                    depths,
                    middle,
                    np.where(np.isfinite(half), half, 0),
                    capsize=2,
                    elinewidth=0.8,
                    **line.keywords(),
                )
                legend[f"after {count(int(steps[step]), 'update')}"] = line
        ax.axhline(0, color="black", linewidth=0.8)
        size_axis(ax, depths, "depth L")
        ax.set_title("against depth, 95 % intervals")
    same_range(sheet.axes, log=False)
    caption = (
        "(loss of independent − loss of reused) / (loss before training − loss of reused), of paired seeds. Where both have learned "
        "everything it is 0 at any depth: read it while there is still loss to lose. Steps at which the loss has dropped by less than "
        "5 % are left out."
    )
    return sheet.finish("gap", _title(found, [int(depth) for depth in depths], shown, steps), caption, legend)


def _both(loss) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        loss.sel(backward_weights=flag).transpose("seed", "step").values for flag in ("reused", "independent")
    )


def _limit_gap(view: View, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    loss = view.get("limit/loss")
    if loss is None or not {"reused", "independent"} <= set(map(str, loss["backward_weights"].values)):
        return None
    counts = covered(loss, "particles")
    return relative_gap(*_both(loss.sel(particles=width if width in counts else counts[-1])))


def _title(found: dict, depths: list[int], shown: list[int], steps: np.ndarray) -> str:
    for step in shown[::-1]:
        ends = [found[depth] for depth in (depths[0], depths[-1])]
        if all(np.isfinite(middle[step]) for middle, _ in ends):
            words = [
                f"{percents(Estimate(middle[step], middle[step] - half[step], middle[step] + half[step]))} at L = {depth}"
                for (middle, half), depth in zip(ends, (depths[0], depths[-1]), strict=True)
            ][: len(set(depths))]
            return f"Gap of losses, independent − reused, after {count(int(steps[step]), 'update')}: {', '.join(words)}"
    return "Gap of losses, independent − reused"
