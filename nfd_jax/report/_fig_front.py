"""The two figures of the first screen: the loss of a network beside its limits, and its distance to each limit against depth."""

import numpy as np

from nfd_jax.report._distances import Distance, distance, loss_at, loss_gap
from nfd_jax.report._numbers import count, percent
from nfd_jax.report._plot import (
    GREEN,
    GUIDE,
    GUIDES,
    LIMIT,
    NETWORK,
    VERMILION,
    Drawing,
    Line,
    Sheet,
    curve,
    guide,
    log_y,
    size_axis,
    spans_decade,
    step_axis,
)
from nfd_jax.verdicts import View, covered

WIDE = (5.3, 2.55)
SERIES = {"reused": Line(GREEN, "^"), "independent": Line(VERMILION, "o")}
"""Distances of a standard network, by the limit's backward weights."""


def front_loss(view: View) -> Drawing | None:
    """Training loss of the standard network at the largest width and depth, and of both limits."""
    finite, solved = view.get("finite/loss"), view.get("limit/loss")
    if finite is None and solved is None:
        return None
    sheet, legend = Sheet(1, 1, panel=WIDE), {}
    ax = sheet.axes[0, 0]
    where, steps = {}, (solved if finite is None else finite)["step"].values
    if finite is not None:
        where = {dim: int(covered(finite, dim)[-1]) for dim in ("width", "depth")}
    for flag in ("reused", "independent"):
        values = loss_at(solved, backward_weights=flag, **where)
        if values is not None:
            ax.plot(steps, np.nanmean(values, 0), **(LIMIT[flag].keywords() | {"linewidth": 2.2}))
            legend["reused limit" if flag == "reused" else "independent limit (NFD)"] = LIMIT[flag]
    shown = [flag for flag in ("reused", "independent") if solved is None or flag == "reused"]
    for flag in shown:
        values = loss_at(finite, backward_weights=flag, **where)
        if values is not None:
            line = Line(NETWORK[flag].color, NETWORK[flag].marker, "" if solved is not None else "-")
            curve(ax, steps, values[np.isfinite(values).all(1)], line, floor=-np.inf, zorder=4)
            legend[f"network, {flag} weights, n = {where['width']}, L = {where['depth']}"] = line
    if not ax.lines:
        return None
    step_axis(ax, steps)
    ax.set_ylabel("training loss, mean over seeds")
    if spans_decade(sheet.axes):
        log_y(ax)
    elif ax.get_ylim()[0] < 0:
        ax.set_ylim(bottom=0)
    seeds = (solved if finite is None else finite).sizes["seed"]
    caption = (
        f"Bars: one standard error over {count(seeds, 'seed')}. Loss of the step's batch before its update."
    )
    return sheet.finish("front_loss", _loss_title(view), caption, legend)


def _loss_title(view: View) -> str:
    gaps = {flag: loss_gap(view, flag) for flag in ("reused", "independent")}
    said = {flag: percent(gap.share) for flag, gap in gaps.items() if gap is not None}
    if len(said) == 2:
        return f"Loss: the network stays within {said['reused']} of the reused limit, within {said['independent']} of NFD"
    if said:
        flag, share = next(iter(said.items()))
        return f"Loss: the network stays within {share} of the {flag} limit"
    return "Loss along training"


def front_error(view: View) -> Drawing | None:
    """h of a standard network minus each limit against depth, with the 1/L line."""
    found = [item for limit in SERIES if (item := distance(view, "reused", limit)) is not None]
    if not found or len(found[0].depths) < 2:
        return None
    sheet, legend = Sheet(1, 1, panel=WIDE), {}
    ax = sheet.axes[0, 0]
    for item in found:
        if curve(ax, item.depths, item.samples, SERIES[item.limit], floor=view.floor):
            legend[f"to the {'reused limit' if item.limit == 'reused' else 'independent limit (NFD)'}"] = (
                SERIES[item.limit]
            )
    if not ax.lines:
        return None
    means = [item.samples.mean(0)[0] for item in found]
    guide(ax, found[0].depths, 1, min(value for value in means if value > 0))
    legend["slope of 1/L"] = Line(GUIDE, "", GUIDES)
    log_y(ax)
    size_axis(ax, found[0].depths, "depth L")
    ax.set_ylabel("mean square per coordinate")
    first = found[0]
    caption = (
        f"h of networks with reused weights minus h of each limit on the same noise, n = {first.width}, after "
        f"{count(first.step, 'update')}, largest over t. Bars: one standard error over seeds."
    )
    return sheet.finish("front_error", _error_title(found), caption, legend)


def _error_title(found: list[Distance]) -> str:
    names = {"reused": "the reused limit", "independent": "NFD"}
    if len(found[0].depths) < 3:
        return "Distance in h to each limit: two depths, no slope"
    return "Distance in h: " + "; ".join(f"to {names[item.limit]} it {item.trend()}" for item in found)
