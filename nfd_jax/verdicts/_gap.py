"""How far the losses of networks with reused and with independent backward weights stay apart while they
learn.

The relative gap at a step,

    g = (loss_independent − loss_reused) / (loss_0 − loss_reused)

with means over seeds above and below: the share of what reused weights have learned by then that independent
ones have not. It is linearized to one value a seed, so seeds are paired; seeds of both kinds share their
noise. Two curves look alike for one of two reasons: the gap vanished, or both have learned everything and
there is nothing left to differ in.
"""

import numpy as np
import xarray as xr

from nfd_jax.verdicts._family import fit_laws
from nfd_jax.verdicts._fit import fit_grid
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._sample import MOST_DIVERGED
from nfd_jax.verdicts._seeds import FEWEST_SEEDS, UNKNOWN, Array, Interval, Spread
from nfd_jax.verdicts._tree import measured, section, settings

GAP_MARGIN = 0.01
"""Relative gaps below this are none."""
LEARNED = 0.05
"""Where both losses are below this share of the first one, nothing is left to differ in."""
DROPPED = 0.02
"""Before the loss has dropped by this share of itself a relative gap says nothing."""
DEEPEST = 10**6
"""Depth up to which laws are followed."""

REASONS = ("they differ", "both learned everything", "the gap vanished", "undecided", "too many diverged")
Ends = tuple[str, ...]


def relative_gap(
    tree: xr.DataTree, *, heldout: bool = False, margin: float = GAP_MARGIN
) -> xr.Dataset | None:
    """The relative gap along training; None where the tree has not both kinds of backward weights.

    Of training losses, or with `heldout` of held-out ones. Dims (learning_rate, width, depth, step), for the
    limits (learning_rate, particles, step):

    - `gap`, `gap_low`, `gap_high`: with its 95 % interval; NaN before the loss has dropped by DROPPED of
      itself.
    - `scatter`: standard deviation over seeds of the reused networks' loss, in units of what they have
      learned: the eye's measure.
    - `left_reused`, `left_independent`: mean loss over the mean loss at step 0.
    - `reason`: of REASONS: "both learned everything" (both `left` are below LEARNED), else "they differ" (the
      interval lies beyond ±margin), "the gap vanished" (within ±margin though there is something left),
      "undecided" (also below FEWEST_SEEDS seeds); "too many diverged" where that are more than MOST_DIVERGED
      of the seeds, and the gap is NaN; "" where there is no gap.
    - `limit_gap` and the rest with `limit_` in front, where both limits were solved.
    """
    name = "heldout_loss" if heldout else "loss"
    found = _gaps(measured(tree, f"finite/{name}"), ("width", "depth"), margin)
    limits = _gaps(measured(tree, f"limit/{name}"), ("particles",), margin)
    if found is None and limits is None:
        return None
    limits = (
        xr.Dataset() if limits is None else limits.rename({key: f"limit_{key}" for key in limits.data_vars})
    )
    return xr.merge(
        [xr.Dataset() if found is None else found, limits], compat="no_conflicts", join="outer"
    ).assign_attrs(margin=margin)


def gap_constants(
    tree: xr.DataTree, *, heldout: bool = False, margin: float = GAP_MARGIN, steps: int = 12
) -> xr.Dataset | None:
    """What remains of the relative gap as L → ∞ (and n → ∞, where there are several widths); None without two
    depths of both kinds, and for parametrizations without a limit.

    Dims (learning_rate, step), at up to `steps` steps evenly spread, the last one among them:

    - `constant`, `constant_low`, `constant_high`: of the law d + a/n + b L^-β + c L^-β/n with its 95 %
      interval.
    - `verdict`: "remains" (beyond ±margin), "vanishes" (within it), "undecided" (also where no law describes
      the points, and where the deepest networks don't show what is to remain).
    - `scatter`: standard deviation over seeds of the reused networks' loss at the largest width, over depths,
      in units of what they have learned.
    - `drop_depth`: the depth from which on the fitted gap of the widest networks is below the seeds' scatter,
      so that pictures of single runs no longer show it: the shallowest depth run where it always is, inf
      where the law never gets there.
    """
    values = measured(tree, f"finite/{'heldout_loss' if heldout else 'loss'}")
    pair = _pair(values, ("width", "depth"))
    limitless = section(settings(tree), "problem").get("parametrization", "depth_mup") != "depth_mup"
    if pair is None or pair[0].sizes["depth"] < 2 or limitless:
        return None
    reused, independent = pair
    count = reused.sizes["step"]
    at = (
        np.unique(np.linspace(1, count - 1, min(steps, count - 1)).round().astype(int))
        if count > 1
        else np.array([], int)
    )
    rates, shape = reused["learning_rate"].values, (reused.sizes["learning_rate"], len(at))
    ends = [np.full(shape, np.nan) for _ in range(5)]
    verdicts = np.full(shape, "undecided", "U16")
    widths, depths = (
        x.ravel() for x in np.meshgrid(reused["width"].values, reused["depth"].values, indexing="ij")
    )
    for i, j in np.ndindex(shape):
        one = [x.values[i].reshape(len(widths), -1, count)[:, :, [0, at[j]]] for x in pair]
        seeds = np.isfinite(one[0]).all((0, 2)) & np.isfinite(one[1]).all((0, 2))
        if not seeds.any() or any(_too_many(a, b) for a, b in zip(*one, strict=True)):
            continue
        samples = np.stack([gap_by_seed(a[seeds], b[seeds])[:, -1] for a, b in zip(*one, strict=True)], 1)
        if not np.isfinite(samples).all():
            continue
        constant, verdict = _constant(samples, widths.astype(float), depths.astype(float), margin)
        widest = widths == widths.max()
        deepest = Spread.of(samples[:, widest & (depths == depths.max())][:, 0]).interval()
        if verdict == "remains" and not _shows(deepest, constant, margin):
            verdict = "undecided"
        drop = np.mean([a[seeds, 0].mean() - a[seeds, 1].mean() for a in one[0][widest]])
        scatter = (
            np.mean([a[seeds, 1].std(ddof=1) for a in one[0][widest]]) / drop if seeds.sum() > 1 else np.nan
        )
        found = (
            constant.estimate,
            constant.low,
            constant.high,
            scatter,
            _drop_depth(samples[:, widest], depths[widest], scatter),
        )
        for array, value in zip(ends, found, strict=True):
            array[i, j] = value
        verdicts[i, j] = verdict
    dims = ("learning_rate", "step")
    names = ("constant", "constant_low", "constant_high", "scatter", "drop_depth")
    data = {name: (dims, x) for name, x in zip(names, ends, strict=True)} | {"verdict": (dims, verdicts)}
    return xr.Dataset(data, {"learning_rate": rates, "step": reused["step"].values[at]}, {"margin": margin})


def gap_by_seed(reused: Array, independent: Array) -> Array:
    """The gap of paired losses (seeds, steps) as one value a seed, whose mean it is; NaN before the loss has
    dropped.
    """
    dropped = reused[:, :1] - reused
    size, first = dropped.mean(0), reused[:, 0].mean()
    size = np.where(size > max(DROPPED * first, 0), size, np.nan)
    ratio = (independent - reused).mean(0) / size
    return ratio + ((independent - reused) - ratio * dropped) / size


def _pair(values: xr.DataArray | None, sizes: Ends) -> tuple[xr.DataArray, xr.DataArray] | None:
    """The losses of both kinds, dims (learning_rate, *sizes, seed, step); None where one is missing."""
    if values is None or not {"reused", "independent"} <= set(
        np.atleast_1d(values.coords.get("backward_weights", "")).tolist()
    ):
        return None
    order = ("learning_rate", *sizes, "seed", "step")
    one, other = (values.sel(backward_weights=kind).transpose(*order) for kind in ("reused", "independent"))
    return (one, other) if one.notnull().any() and other.notnull().any() else None


def _gaps(values: xr.DataArray | None, sizes: Ends, margin: float) -> xr.Dataset | None:
    pair = _pair(values, sizes)
    if pair is None:
        return None
    reused, independent = pair
    dims = ("learning_rate", *sizes, "step")
    shape = tuple(reused.sizes[dim] for dim in dims)
    names = ("gap", "gap_low", "gap_high", "scatter", "left_reused", "left_independent")
    out = {name: np.full(shape, np.nan) for name in names}
    reasons = np.full(shape, "", "U24")
    for place in np.ndindex(shape[:-1]):
        a, b = reused.values[place], independent.values[place]
        seeds = np.isfinite(a).all(1) & np.isfinite(b).all(1)
        if not seeds.any():
            continue
        if _too_many(a, b):
            reasons[place] = "too many diverged"
            continue
        a, b = a[seeds], b[seeds]
        left = a.mean(0) / a[:, 0].mean(), b.mean(0) / a[:, 0].mean()
        out["left_reused"][place], out["left_independent"][place] = left
        each = gap_by_seed(a, b)
        known = np.isfinite(each).all(0)
        if len(a) > 1:
            out["scatter"][place][known] = a.std(0, ddof=1)[known] / (a[:, :1] - a).mean(0)[known]
        for k in np.flatnonzero(known):
            found = Spread.of(each[:, k]).interval()
            at = (*place, k)
            out["gap"][at], out["gap_low"][at], out["gap_high"][at] = found.estimate, found.low, found.high
            reasons[at] = _reason(found, max(left[0][k], left[1][k]), margin, len(a))
    coords = {dim: reused[dim].values for dim in dims}
    data = {name: (dims, x) for name, x in out.items()} | {"reason": (dims, reasons)}
    return xr.Dataset(data, coords)


def _too_many(reused: Array, independent: Array) -> bool:
    """Whether more than MOST_DIVERGED of the seeds that were begun (seeds, steps) have no loss at some
    step."""
    begun = np.isfinite(reused[:, 0]) & np.isfinite(independent[:, 0])
    whole = np.isfinite(reused).all(1) & np.isfinite(independent).all(1)
    return bool((begun & ~whole).sum() > MOST_DIVERGED * begun.sum())


def _reason(gap: Interval, left: float, margin: float, seeds: int) -> str:
    if left < LEARNED:
        return "both learned everything"
    if seeds < FEWEST_SEEDS:
        return "undecided"
    if gap.low > margin or gap.high < -margin:
        return "they differ"
    return "the gap vanished" if -margin < gap.low and gap.high < margin else "undecided"


def _constant(samples: Array, widths: Array, depths: Array, margin: float) -> tuple[Interval, str]:
    if len(samples) < FEWEST_SEEDS:
        return UNKNOWN, "undecided"
    fits = fit_laws(samples[..., None], widths, depths, Law(signed=True))
    found = fits.interval({"constant": 1.0})
    if not fits.described:
        return found, "undecided"
    if found.low > margin or found.high < -margin:
        return found, "remains"
    return found, "vanishes" if -margin < found.low and found.high < margin else "undecided"


def _shows(deepest: Interval, constant: Interval, margin: float) -> bool:
    """Whether the deepest networks' own gap is beyond the margin, to the side of what is to remain."""
    return deepest.low > margin if constant.estimate > 0 else deepest.high < -margin


def _drop_depth(samples: Array, depths: Array, scatter: float) -> float:
    """The depth from which on the fitted |gap| stays below the scatter."""
    if not np.isfinite(scatter) or len(samples) < 2:
        return np.nan
    fit = fit_grid(samples[..., None], np.ones(len(depths)), depths.astype(float), Law())
    end = lambda name: float(fit.target({name: 1.0}).best.mean())
    far = np.geomspace(depths.min(), DEEPEST, 400)
    law = end("constant") + end("g") * (far / depths.max()) ** -float(fit.exponents[fit.best])
    above = np.flatnonzero(np.abs(law) > scatter)
    if not len(above):
        return float(depths.min())
    return float(far[above[-1] + 1]) if above[-1] + 1 < len(far) else np.inf
