"""The two figures of the first screen: the loss of a network beside its limits, and its distance to each
limit against depth."""

import numpy as np

from nfd_jax.report import _plot as plot
from nfd_jax.report._distances import SHADED, distance, estimate_band, loss_gap, losses_at
from nfd_jax.report._numbers import count, percent
from nfd_jax.report._pick import in_blocks, known_mean
from nfd_jax.report._words import LIMIT_NAMES
from nfd_jax.verdicts import View

WIDE = (5.3, 2.55)
SERIES = {"reused": plot.Line(plot.GREEN, "^"), "independent": plot.Line(plot.VERMILION, "o")}
"""Distances of a standard network, by the limit's backward weights."""
SHORT = {"reused": "the reused limit", "independent": "NFD"}


def front_loss(view: View) -> plot.Drawing | None:
    """Training loss of the standard network at the largest width and depth, and of both limits."""
    finite, solved, where = losses_at(view)
    if not finite and not solved:
        return None
    sheet = plot.Sheet(1, 1, panel=WIDE)
    ax = sheet.axes[0, 0]
    for flag, samples in solved.items():
        steps, mean, _ = in_blocks(range(samples.shape[1]), known_mean(samples))
        sheet.line(ax, steps, mean, plot.LIMIT[flag], LIMIT_NAMES[flag], **plot.THICK)
        sheet.band(ax, steps, mean, estimate_band(view, "loss", flag, "step"), plot.LIMIT[flag])
    for flag, samples in finite.items():
        if not solved or flag == "reused" or "reused" not in finite:
            line = plot.Line(plot.NETWORK[flag].color, plot.NETWORK[flag].marker, "" if solved else "-")
            whole = samples[np.isfinite(samples).all(1)]
            if not len(whole):
                continue
            steps, whole, _ = in_blocks(range(samples.shape[1]), whole)
            sheet.curve(
                ax, steps, whole, line, f"network, {flag} weights, {where}",
                floor=-np.inf, zorder=4,
            )  # fmt: skip
    if not ax.lines:
        return None
    samples = next(iter((finite or solved).values()))
    plot.step_axis(ax, range(samples.shape[1]))
    ax.set_ylabel("training loss, mean over seeds")
    if plot.spans_decade(sheet.axes):
        plot.log_y(ax)
    elif ax.get_ylim()[0] < 0:
        ax.set_ylim(bottom=0)
    bars = f"Bars: one standard error over {count(len(samples), 'seed')}. " if finite else ""
    rate = "" if view.rate is None else f", η = {view.rate:g}"
    caption = f"{bars}Loss of the step's batch before its update{rate}."
    caption += in_blocks(range(samples.shape[1]), samples)[2]
    if any(estimate_band(view, "loss", flag, "step") is not None for flag in solved):
        caption += f" {SHADED}"
    if solved and "reused" in finite:
        caption += " Percentages: of the loss that the network has lost, the largest over steps."
    return sheet.finish("front_loss", _loss_title(view), caption)


SEEN = 3.0
"""Standard errors beyond which the largest gap of many steps is more than scatter of seeds."""


def _loss_title(view: View) -> str:
    said = []
    for flag, name in SHORT.items():
        if (found := loss_gap(view, flag)) is not None:
            gap, error = found
            said.append(f"within {percent(gap)} of {name}")
            if gap < SEEN * error:
                said[-1] += " (no more than seeds scatter)"
    return f"Loss: the network stays {', '.join(said)}" if said else "Loss along training"


def front_error(view: View) -> plot.Drawing | None:
    """h of a standard network minus each limit against depth, with the 1/L line."""
    found = [item for limit in SERIES if (item := distance(view, "reused", limit)) is not None]
    if not found or len(found[0].depths) < 2:
        return None
    first, sheet = found[0], plot.Sheet(1, 1, panel=WIDE)
    ax = sheet.axes[0, 0]
    for item in found:
        sheet.curve(
            ax, item.depths, item.samples, SERIES[item.limit], f"to the {LIMIT_NAMES[item.limit]}",
            floor=view.floor,
        )  # fmt: skip
    if not ax.lines:
        return None
    start = min(height for item in found if (height := item.samples.mean(0)[0]) > 0)
    sheet.guide(ax, first.depths, 1, start, "slope of 1/L")
    plot.log_y(ax)
    plot.size_axis(ax, first.depths, "depth")
    ax.set_ylabel("mean square per coordinate")
    caption = (
        "h of networks with reused weights minus h of each limit on the same noise, "
        f"n = {first.width}, after {count(first.step, 'update')}, largest over t. Bars: one standard error "
        "over seeds."
    )
    if len(first.depths) < 3:
        title = "Distance in h to each limit: two depths, no slope"
    else:
        title = "Distance in h: " + "; ".join(f"to {SHORT[item.limit]} it {item.trend()}" for item in found)
    return sheet.finish("front_error", title, caption)
