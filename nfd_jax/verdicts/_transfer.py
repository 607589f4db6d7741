"""Which learning rate is best, how that moves with depth and width, and whether the limit's serves.

A rate serves where every seed trains at it: its loss is finite and not above its first one. (Of a few seeds
one whose loss has grown to 10¹⁴ would decide every mean.) The best rate η* of a network is the vertex of a
parabola fitted to log loss against log η, through the best rate that serves and its neighbour on each side.
It is linearized to one value a seed, so that networks of other sizes, which share their seeds, are compared
in pairs. Where a neighbour does not serve, or the list ends, there is no vertex: η* lies between the
neighbours.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfd_jax.verdicts._seeds import UNKNOWN, Array, Interval, Places, Spread, resamples
from nfd_jax.verdicts._tree import measured

NEIGHBOURS = 1
"""Rates on each side of the best one that the parabola goes through: further ones, where log loss is no
parabola, shift its vertex by more than its interval."""


def transfer(
    tree: xr.DataTree, *, backward_weights: str = "reused", step: int = -1, heldout: bool = False
) -> xr.Dataset | None:
    """Loss at a step against the learning rate, with the best rate; None below three rates.

    Dims (learning_rate, width, depth) or less; for the limit (learning_rate, particles) with `limit_` in
    front:

    - `untrained`: share of the seeds that diverged, or have a loss above their first one.
    - `loss`, `loss_low`, `loss_high`: mean over seeds with its 95 % interval; NaN where a seed is untrained.
    - `optimum`, `optimum_low`, `optimum_high` (width, depth): η*. Where it is no vertex `inner` is False: it
      is the best rate of the list, and the ends are the rates next to it (0 or inf beyond the list's ends).
    - `depth_shift` … `_low`, `_high` (width): power p of η* ∝ L^p, `width_shift` (depth) that of η* ∝ n^p;
      NaN unless two sizes and more have a best rate, and all of them a vertex.
    - `cost`, `cost_low`, `cost_high` (width, depth): loss at the limit's η* over the loss at the own one; 1
      is as good. NaN unless both are vertices. The limit is that of as many particles as the width, or of
      most.
    """
    name = "heldout_loss" if heldout else "loss"
    finite = _losses(measured(tree, f"finite/{name}"), backward_weights, step, ("width", "depth"))
    limits = _losses(measured(tree, f"limit/{name}"), backward_weights, step, ("particles",))
    if finite is None and limits is None:
        return None
    found, best = _optima(finite)
    solved, at_limit = _optima(limits)
    if finite is not None:
        found |= _shifts(best, finite)
        if limits is not None:
            found |= _costs(best, at_limit, finite, limits)
    coords = {}
    for values in (finite, limits):
        if values is not None:
            coords |= {dim: values[dim].values for dim in values.dims if dim != "seed"}
    return xr.Dataset(found | {f"limit_{name}": value for name, value in solved.items()}, coords)


@dataclass(frozen=True)
class Best:
    """A parabola y = log loss in x = log η about `centre`: `window` are the rates it goes through, `operator`
    (3, window) takes their y to its coefficients, constant first. `log_rate` is its vertex with one value a
    seed, whose mean it is. Where that is not `inner`, it is a rate of the list, between `neighbours`."""

    losses: Array
    x: Array
    window: Places
    operator: Array
    log_rate: Array
    inner: bool
    neighbours: tuple[float, float]

    @property
    def centre(self) -> float:
        return float(self.x[self.window].mean())

    def interval(self) -> Interval:
        """Of η*."""
        if not self.inner:
            return Interval(float(np.exp(self.log_rate.mean())), *self.neighbours)
        found = Spread.of(self.log_rate).interval()
        return Interval(*(float(np.exp(end)) for end in (found.estimate, found.low, found.high)))


def best_rate(rates: Array, losses: Array) -> Best | None:
    """η* from losses (seeds, rates); rates at which a seed has none do not serve. None where none serves."""
    serves = np.isfinite(losses).all(0) & (losses.mean(0) > 0) & (rates > 0)
    if not serves.any():
        return None
    best = int(np.argmin(np.where(serves, losses.mean(0), np.inf)))
    ends = np.concatenate([[0.0], rates, [np.inf]])
    neighbours = float(ends[best]), float(ends[best + 2])
    usable = np.flatnonzero(serves)
    x, losses = np.log(rates[usable]), losses[:, usable]
    mean, i = losses.mean(0), int(np.searchsorted(usable, best))
    window = np.arange(max(0, i - NEIGHBOURS), min(len(x), i + NEIGHBOURS + 1))
    design = np.vander(x[window] - x[window].mean(), 3, increasing=True)
    operator = np.linalg.pinv(design)
    _, slope, curvature = operator @ np.log(mean[window])
    beside = [at for at in (best - 1, best + 1) if 0 <= at < len(serves) and serves[at]]
    if len(beside) < 2 or not curvature > 0:
        return Best(losses, x, window, operator, np.full(len(losses), x[i]), False, neighbours)
    vertex = x[window].mean() - slope / (2 * curvature)
    # To first order in each seed's deviation from the mean.
    change = (losses[:, window] / mean[window] - 1) @ operator.T
    values = vertex - change[:, 1] / (2 * curvature) + slope * change[:, 2] / (2 * curvature**2)
    return Best(losses, x, window, operator, values, True, neighbours)


def _losses(values: xr.DataArray | None, flag: str, step: int, sizes: tuple[str, ...]) -> xr.DataArray | None:
    """(learning_rate, *sizes, seed) of one kind of backward weights, at rates above 0, infinite where a loss
    is above its first one; None below three rates."""
    if values is None or flag not in np.atleast_1d(values.coords.get("backward_weights", "")).tolist():
        return None
    values = values.sel(backward_weights=flag).drop_vars("backward_weights")
    first, values = values.isel(step=0, drop=True), values.isel(step=step, drop=True)
    values = values.where(~(values > first), np.inf)
    values = values.isel(learning_rate=values["learning_rate"].values > 0).transpose(
        "learning_rate", *sizes, "seed"
    )
    return values if values.sizes["learning_rate"] >= 3 and values.notnull().any() else None


def _seeds(losses: Array) -> Array:
    """Losses (rates, seeds) as (seeds, rates), of the seeds that have any."""
    return losses[:, ~np.isnan(losses).all(0)].T


def _optima(values: xr.DataArray | None) -> tuple[dict, dict]:
    """What `transfer` says of each size by itself, and `Best` by place."""
    if values is None:
        return {}, {}
    rates, sizes = values["learning_rate"].values, values.dims[1:-1]
    shape = values.shape[1:-1]
    loss, optimum = np.full((3, *values.shape[:-1]), np.nan), np.full((3, *shape), np.nan)
    untrained, inner, best = np.full(values.shape[:-1], np.nan), np.zeros(shape, bool), {}
    for place in np.ndindex(shape):
        here = _seeds(values.values[(slice(None), *place)])
        if not len(here):
            continue
        untrained[(slice(None), *place)] = (~np.isfinite(here)).mean(0)
        for k in np.flatnonzero(np.isfinite(here).all(0)):
            loss[(slice(None), k, *place)] = _ends(Spread.of(here[:, k]).interval())
        if (found := best_rate(rates, here)) is not None:
            best[place] = found
            optimum[(slice(None), *place)], inner[place] = _ends(found.interval()), found.inner
    return {
        **_named("loss", values.dims[:-1], loss),
        **_named("optimum", sizes, optimum),
        "inner": (sizes, inner),
        "untrained": (values.dims[:-1], untrained),
    }, best


def _ends(found: Interval) -> tuple[float, float, float]:
    return found.estimate, found.low, found.high


def _named(name: str, dims: tuple, values: Array) -> dict:
    """Estimate, low and high end (3, …) under their names."""
    return {f"{name}{end}": (dims, x) for end, x in zip(("", "_low", "_high"), values, strict=True)}


def _shifts(best: dict, values: xr.DataArray) -> dict:
    widths, depths = values["width"].values, values["depth"].values
    along = {"depth_shift": ("width", 1, depths), "width_shift": ("depth", 0, widths)}
    out = {}
    for name, (other, axis, sizes) in along.items():
        count = values.sizes[other]
        found = [
            _shift([(sizes[p[axis]], b) for p, b in best.items() if p[1 - axis] == i]) for i in range(count)
        ]
        out |= _named(name, (other,), np.array([_ends(one) for one in found]).T)
    return out


def _shift(found: list[tuple[int, Best]]) -> Interval:
    """Slope of log η* on log size, by seed; networks of other sizes have the same seeds."""
    inner = [(size, best.log_rate) for size, best in found if best.inner]
    if len(inner) < max(2, len(found)) or len({len(values) for _, values in inner}) > 1:
        return UNKNOWN
    x = np.log([size for size, _ in inner])
    x = x - x.mean()
    return Spread.of(np.stack([values for _, values in inner], 1) @ (x / (x @ x))).interval()


def _costs(best: dict, at_limit: dict, finite: xr.DataArray, limits: xr.DataArray) -> dict:
    particles = limits["particles"].values
    cost = np.full((3, finite.sizes["width"], finite.sizes["depth"]), np.nan)
    for (i, j), own in best.items():
        same = np.flatnonzero(particles == finite["width"].values[i])
        limit = at_limit.get((int(same[0]) if len(same) else len(particles) - 1,))
        if limit is not None and limit.inner and own.inner:
            cost[:, i, j] = _cost(own, limit)
    return _named("cost", ("width", "depth"), cost)


def _parabolas(x: Array, y: Array, targets: Array) -> Array:
    """Rows of y (R, rates) at a target each, on the parabola through the three rates about the one nearest to
    it."""
    nearest = np.abs(x[:, None] - targets).argmin(0).clip(1, len(x) - 2)
    places = nearest + np.array([[-1], [0], [1]])  # (3, R)
    nodes, values = x[places], y[np.arange(len(y)), places]
    steps = targets - nodes
    total = 0.0
    for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):
        weight = steps[j] * steps[k] / ((nodes[i] - nodes[j]) * (nodes[i] - nodes[k]))
        total = total + weight * values[i]
    return np.asarray(total)


def _cost(own: Best, limit: Best) -> tuple[float, float, float]:
    """Loss at the limit's η* over the smallest, on parabolas through the measured points: the one of the own
    best rate within its window, elsewhere that of the three rates about the one nearest."""

    def ratio(means: Array, target: Array) -> Array:
        y = np.log(means)  # (R, rates)
        coefficients = y[:, own.window] @ own.operator.T
        vertex = -coefficients[:, 1] / (2 * coefficients[:, 2])
        least = coefficients[:, 0] + coefficients[:, 1] * vertex / 2
        shift = target - own.centre
        parabola = np.einsum("rc,cr->r", coefficients, np.stack([np.ones_like(shift), shift, shift**2]))
        between = _parabolas(own.x, y, np.broadcast_to(target, len(y)))
        inside = (own.x[own.window[0]] <= target) & (target <= own.x[own.window[-1]])
        with np.errstate(over="ignore"):  # far off, where training diverges: infinite
            return np.exp(np.where(inside, parabola, between) - least)

    estimate = float(ratio(own.losses.mean(0)[None], np.array([limit.log_rate.mean()]))[0])
    if len(own.losses) < 2:
        return estimate, -np.inf, np.inf
    weights = resamples(len(own.losses))
    target = (
        weights @ limit.log_rate
        if len(limit.log_rate) == len(own.losses)
        else np.full(len(weights), limit.log_rate.mean())
    )
    low, high = np.percentile(ratio(weights @ own.losses, target), [2.5, 97.5])
    return estimate, float(low), float(high)
