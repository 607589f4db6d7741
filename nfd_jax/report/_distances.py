"""How far networks are from each limit, and what of it matters: the numbers that the terminal and the first screen lead with."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfd_jax.report._numbers import Estimate, count, listed, number, percent
from nfd_jax.report._trends import FEWEST_POINTS, mean, moves, trend
from nfd_jax.verdicts import View, by_seed, covered

LIMIT_NAMES = {"reused": "reused limit", "independent": "independent limit (NFD)"}


@dataclass(frozen=True)
class Distance:
    """Mean square of a network minus a limit at the largest width and the last step, against depth.

    size is at the largest depth, share its root over that of what learning moves, slope over depths (NaN for fewer than three).
    """

    network: str
    limit: str
    quantity: str
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

    def sentence(self) -> str:
        """One line for the terminal."""
        text = (
            f"{self.quantity} to the {LIMIT_NAMES[self.limit]}: {number(self.size.value)} at L = {self.depth}"
        )
        text += f" ({percent(self.share)} of what learning moves, rms)" if math.isfinite(self.share) else ""
        return f"{text}, {self.trend()}"

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


def distance(
    view: View, network: str, limit: str, quantity: str = "h", width: int | None = None
) -> Distance | None:
    """None where it was not measured."""
    values = view.get("compare/limit_error_ms")
    if (
        values is None
        or network not in values["backward_weights"]
        or limit not in values["limit_backward_weights"]
    ):
        return None
    values = values.sel(backward_weights=network, limit_backward_weights=limit, quantity=quantity).isel(
        step=-1
    )
    if not values.notnull().any():
        return None
    width = int(covered(values, "width")[-1]) if width is None else width
    values = values.sel(width=width)
    depths = covered(values, "depth")
    if not len(depths):
        return None
    samples = by_seed(values.sel(depth=depths), "depth")
    size, step = mean(samples[:, -1]), int(values["step"])
    moved = signal(view, network, quantity, width, int(depths[-1]))
    share = math.sqrt(size.value / moved) if moved > view.floor and size.value > 0 else math.nan
    found = trend(depths, samples, view.floor)
    return Distance(network, limit, quantity, step, width, depths, samples, size, share, found)


def signal(view: View, network: str, quantity: str, width: int, depth: int) -> float:
    """What learning has moved by the last step, mean square, largest over t; NaN where it is not stored."""
    name = {"h": "feature_shift_ms", "b": "gradient_shift_ms"}.get(quantity)
    values = view.get(f"finite/{name}") if name else None
    if values is None or network not in values["backward_weights"]:
        return math.nan
    found = values.sel(backward_weights=network, width=width, depth=depth).isel(step=-1).mean("seed")
    return float(found.max("t"))


@dataclass(frozen=True)
class LossGap:
    """Paired seeds: loss of the network minus another's, the largest over steps, as part of the loss it has lost."""

    share: float
    depth: int
    width: int


def loss_at(values: xr.DataArray | None, **where) -> np.ndarray | None:
    """(seed, step) of a loss at one width, depth and flag; None where it is not there."""
    if values is None:
        return None
    flag = where.pop("backward_weights")
    if flag not in values["backward_weights"]:
        return None
    if "particles" in values.dims:
        counts = covered(values, "particles")
        if not len(counts):
            return None
        width = where.get("width")
        where = {"particles": width if width in counts else counts[-1]}
    found = values.sel(backward_weights=flag, **where).transpose("seed", "step").values
    return found if np.isfinite(found).any() else None


def loss_gap(view: View, limit: str) -> LossGap | None:
    """Of the reused network at the largest width and depth against a limit."""
    finite, solved = view.get("finite/loss"), view.get("limit/loss")
    if finite is None or "reused" not in finite["backward_weights"]:
        return None
    width, depth = (int(covered(finite, dim)[-1]) for dim in ("width", "depth"))
    ours = loss_at(finite, backward_weights="reused", width=width, depth=depth)
    theirs = loss_at(solved, backward_weights=limit, width=width)
    if ours is None or theirs is None:
        return None
    both = np.isfinite(ours).all(1) & np.isfinite(theirs).all(1)
    if not both.any():
        return None
    network = ours[both].mean(0)
    gap = np.abs(network - theirs[both].mean(0)).max()
    dropped = network[0] - network.min()
    return LossGap(float(gap / dropped), depth, width) if dropped > 0 else None


def summary_of(view: View) -> list[str]:
    """A line for each limit that reused networks were compared with; what else can be said where none was."""
    found = [item for limit in LIMIT_NAMES if (item := distance(view, "reused", limit)) is not None]
    if found:
        first = found[0]
        head = f"Networks of width {first.width} after {count(first.step, 'update')}, mean square per coordinate:"
        return [f"{head} {first.sentence()}.", *(f"The same for {item.sentence()}." for item in found[1:])]
    return [_losses(view)]


def _losses(view: View) -> str:
    """Where no limit was compared with: what was trained, and to which loss."""
    loss = view.get("finite/loss")
    if loss is None:
        loss = view.get("limit/loss")
    if loss is None:
        return "No cell is finished yet."
    parts = []
    for flag in loss["backward_weights"].values:
        one = loss.sel(backward_weights=flag)
        if not one.notnull().any():
            continue
        sizes = {dim: covered(one, dim)[-1] for dim in ("width", "particles", "depth") if dim in one.dims}
        ends = one.sel(sizes).isel(step=[0, -1]).mean("seed").values
        where = listed(
            f"{ {'width': 'n', 'depth': 'L', 'particles': 'N'}[dim] } = {size}" for dim, size in sizes.items()
        )
        parts.append(f"{flag} weights {number(float(ends[0]))} → {number(float(ends[1]))} ({where})")
    return f"Training loss over {count(loss.sizes['step'] - 1, 'update')}: {'; '.join(parts)}. No limit was compared with."
