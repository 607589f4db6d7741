"""How far networks are from each limit, and what of it matters: the numbers that the terminal and the first
screen lead with."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfd_jax.report._learning import learning_words
from nfd_jax.report._numbers import Estimate, count, listed, number, percent
from nfd_jax.report._pick import in_blocks, largest, matched, pick
from nfd_jax.report._plot import NETWORK, SYMBOL
from nfd_jax.report._trends import FEWEST_POINTS, mean, moves, trend
from nfd_jax.report._words import LIMIT_NAMES
from nfd_jax.verdicts import View, by_seed, covered


@dataclass(frozen=True)
class Distance:
    """Mean square of a network's h minus a limit's at the largest width and the last step, against depth.

    size is at the largest depth, share its root over that of what learning moves, slope over depths (NaN for
    fewer than three).
    """

    limit: str
    step: int
    width: int
    depths: np.ndarray
    samples: np.ndarray
    size: Estimate
    share: float
    slope: Estimate

    @property
    def depth(self) -> int:
        return int(self.depths[-1])

    def trend(self, slope: bool = True) -> str:
        """What it does along depth, with its slope or in words alone ("" where words alone can't say)."""
        found = moves(self.slope)
        if found:
            return found if slope else found.partition(",")[0]
        if not slope:
            return ""
        if len(self.depths) < FEWEST_POINTS:
            return "two depths, no slope: add a third" if len(self.depths) == 2 else "one depth, no slope"
        return "zero to rounding"


def distance(view: View, network: str, limit: str) -> Distance | None:
    """None where it was not measured."""
    labels = {"backward_weights": network, "limit_backward_weights": limit, "quantity": "h"}
    values = pick(view.get("compare/limit_error_ms"), **labels)
    values = pick(values, step=values["step"].values[-1]) if values is not None else None
    if values is None:
        return None
    values = largest(values, "width")
    width, depths = int(values["width"]), covered(values, "depth")
    samples = by_seed(values.sel(depth=depths), "depth")
    size, step = mean(samples[:, -1]), int(values["step"])
    shift = pick(view.get("finite/feature_shift_ms"), backward_weights=network, width=width, depth=depths[-1])
    moved = math.nan if shift is None else float(shift.isel(step=-1).mean("seed").max("t"))
    share = math.sqrt(size.value / moved) if moved > view.floor and size.value > 0 else math.nan
    slope = trend(depths, samples, view.floor)
    return Distance(limit, step, width, depths, samples, size, share, slope)


Losses = dict[str, np.ndarray]


def losses_at(view: View) -> tuple[Losses, Losses, str]:
    """Losses (seed, step) of the largest networks and of the limits beside them, each by backward weights;
    where that is, in words."""
    finite, solved = view.get("finite/loss"), view.get("limit/loss")
    where = ""
    if finite is not None:
        finite = largest(finite, "width", "depth")
        where = f"n = {int(finite['width'])}, L = {int(finite['depth'])}"
    if solved is not None:
        solved = matched(solved, int(finite["width"]) if finite is not None else 0)

    def split(values) -> Losses:
        parts = {flag: pick(values, backward_weights=flag) for flag in NETWORK}
        return {
            flag: part.transpose("seed", "step").values for flag, part in parts.items() if part is not None
        }

    return split(finite), split(solved), where


SHADED = "Shaded: 95 % intervals of the limits, their bias included."
"""What `estimate_band` is, in a caption."""


def estimate_band(view: View, name: str, flag: str, *along: str) -> xr.DataArray | None:
    """Half widths, along these dims, of 95 % intervals about /limit's variable `name` of a limit that was
    estimated to a tolerance, its bias included; None of one that was solved."""
    error, bias = (
        pick(view.get(f"limit/{name}_{kind}"), backward_weights=flag) for kind in ("standard_error", "bias")
    )
    if error is None or bias is None:
        return None
    half = 1.96 * error + np.abs(bias)
    return half.mean([dim for dim in half.dims if dim not in along])


def loss_gap(view: View, limit: str) -> tuple[float, float] | None:
    """Of the reused network at the largest width and depth against a limit: the largest gap over steps (of
    long runs, over means of some steps) as part of the loss that the network has lost, with its standard
    error over seeds."""
    finite, solved, _ = losses_at(view)
    if "reused" not in finite or limit not in solved:
        return None
    ours, theirs = finite["reused"], solved[limit]
    both = np.isfinite(ours).all(1) & np.isfinite(theirs).all(1)
    if not both.any():
        return None
    steps = range(ours.shape[1])
    network, solution = (in_blocks(steps, runs[both])[1] for runs in (ours, theirs))
    dropped, gaps = network.mean(0)[0] - network.mean(0).min(), network - solution
    at = np.abs(gaps.mean(0)).argmax()
    error = gaps[:, at].std(ddof=1) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.inf
    return (abs(gaps[:, at].mean()) / dropped, error / dropped) if dropped > 0 else None


def summary_of(view: View) -> list[str]:
    """A line for each limit that reused networks were compared with; what else can be said where none was."""
    found = [item for limit in LIMIT_NAMES if (item := distance(view, "reused", limit)) is not None]
    if not found:
        return [_losses(view), *learning_words(view)]
    first = found[0]
    where = f"n = {first.width}, L = {first.depth}, {count(first.step, 'update')}"
    subjects = [f"h of networks ({where})", *["It"] * (len(found) - 1)]
    return [f"{who} {_misses(item)}." for who, item in zip(subjects, found, strict=True)]


def _misses(item: Distance) -> str:
    size, limit = f"mean square {number(item.size.value)}, {item.trend()}", LIMIT_NAMES[item.limit]
    if not math.isfinite(item.share):
        return f"is off the {limit}: {size}"
    return f"misses the {limit} by {percent(item.share)} of what learning moves (rms): {size}"


def _losses(view: View) -> str:
    """Where no limit was compared with: what was trained, and to which loss."""
    finite = view.get("finite/loss")
    loss = view.get("limit/loss") if finite is None else finite
    if loss is None:
        return "No cell is finished yet."
    parts = []
    for flag in loss["backward_weights"].values:
        one = pick(loss, backward_weights=flag)
        if one is None:
            continue
        one = largest(one, *(dim for dim in ("width", "particles", "depth") if dim in one.dims))
        first, last = one.isel(step=[0, -1]).mean("seed").values
        sizes = [
            f"{SYMBOL[dim]} = {int(one[dim])}" if int(one[dim]) else "to a tolerance"
            for dim in ("width", "particles", "depth")
            if dim in one.coords
        ]
        parts.append(f"{flag} weights {number(float(first))} → {number(float(last))} ({listed(sizes)})")
    steps = count(loss.sizes["step"] - 1, "update")
    rate = "" if view.rate is None else f" at η = {view.rate:g}"
    return f"Training loss over {steps}{rate}: {'; '.join(parts)}. No limit was compared with path by path."
