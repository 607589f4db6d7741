"""C5, an assumption: smallest over largest eigenvalue of Gram matrices along training, inside (0, 1)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import xarray as xr
from scipy import special

from nfd_jax.verdicts._constants import enough_seeds
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._errors import FLAGS
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._rows import Found, guarded
from nfd_jax.verdicts._sample import MOST_DIVERGED, NotMeasured, labelled, states, variable
from nfd_jax.verdicts._seeds import LEVEL, Interval, Spread
from nfd_jax.verdicts._slopes import FLAT

THRESHOLD = 1e-6
"""Smallest eigenvalue over largest, below which a Gram matrix counts as singular."""
RARE = 0.05
"""Share of networks whose matrices may be singular before the assumption counts as violated."""
ROWS = 8
"""Rows that can violate it: features and gradients, of a step and jointly, of both networks."""


def ratios(context: Context, select: dict[str, str]) -> tuple[xr.DataArray, float]:
    """Smallest over largest eigenvalue, the least over t inside (0, 1): at its ends frozen U or V, or a rank
    of at most C, make Gram matrices singular whatever the network does. And the largest share of a cell's
    seeds that diverged.

    Of the learning rates at which few do, where there are such.
    """
    add = context.advice("spectrum")
    least, most = (
        labelled(variable(context.tree, f"spectrum/{name}_eigenvalue", add), select, add)
        for name in ("min", "max")
    )
    least, diverged = states(context.tree, least)
    lost = diverged.mean("seed") if "seed" in diverged.dims else diverged.astype(float)
    by_rate = lost.max([dim for dim in lost.dims if dim != "learning_rate"])
    if "learning_rate" in lost.dims and (by_rate <= MOST_DIVERGED).any():
        kept = np.flatnonzero(by_rate.values <= MOST_DIVERGED)
        least, most, by_rate = (x.isel(learning_rate=kept) for x in (least, most, by_rate))
    ratio = least.clip(0) / most.where(most > 0)
    if "t" in ratio.dims:
        t = ratio["t"].values if "t" in ratio.coords else np.linspace(0, 1, ratio.sizes["t"])
        inside = (t > 1e-9) & (t < 1 - 1e-9)
        if not inside.any():
            raise NotMeasured("add depths with a common divisor: no layer inside (0, 1) is common to all")
        ratio = ratio.isel(t=inside).min("t")
    if not ratio.notnull().any():
        raise NotMeasured("add finished cells: resume the run")
    return ratio, float(by_rate.min())


def spectrum_rows(context: Context, reading: str) -> Iterator[Found]:
    """The smallest relative eigenvalue of every kind of Gram matrix; joint ones of a repeated batch are for
    comparison.
    """
    for kind in ("feature", "gradient"):
        for scope in ("step", "joint"):
            for flag in FLAGS:
                labels = {"kind": kind, "scope": scope, "backward_weights": flag}
                base = Row(
                    f"C5 {reading} {kind} {scope} {flag}",
                    "C5",
                    reading,
                    kind,
                    "width",
                    "value",
                    text=f"smallest relative eigenvalue of {kind} matrices, {scope}, {flag} network",
                    decides=scope == "step" or not context.repeated,
                )

                def judged(base: Row, labels: dict = labels) -> Found:
                    return _judge(
                        base,
                        *context.once(("ratios", tuple(labels.values())), lambda: ratios(context, labels)),
                    )

                yield guarded(base, judged)


def _judge(base: Row, ratio: xr.DataArray, lost: float) -> Found:
    networks = ratio.min(
        [dim for dim in ratio.dims if dim not in ("learning_rate", "width", "depth", "seed")]
    )
    known = networks.values[np.isfinite(networks.values)]
    by_seed = (
        (networks <= THRESHOLD).where(networks.notnull()).mean([d for d in networks.dims if d != "seed"])
    )
    singular, surely = _share(by_seed.values[np.isfinite(by_seed.values)])
    least = float(known.min())
    slope = _trend(networks)
    row = replace(
        base,
        constant=Interval(least, least, least),
        slope=slope,
        seeds=int(ratio.sizes["seed"]),
        text=f"{base.text}: {least:.1e} at least, over {len(known)} networks",
    )
    if lack := enough_seeds(int(np.isfinite(by_seed.values).sum()), lost, base.quantity):
        return Found(replace(row, verdict="undecided", reason=lack), "undecided")
    if surely > RARE:
        reason = (
            f"{singular:.0%} of the networks have singular matrices (smallest relative eigenvalue "
            f"{least:.1e})"
        )
        return Found(replace(row, verdict="below", reason=reason), "fails", lambda level: True)
    if singular > 0:
        return Found(
            replace(
                row, verdict="undecided", reason=f"{singular:.1%} of the networks have singular matrices"
            ),
            "undecided",
        )
    if slope.high < -FLAT:
        reason = f"falls with width, slope {slope.power()}: add wider networks"
        return Found(replace(row, verdict="undecided", reason=reason), "undecided")
    return Found(
        replace(
            row, verdict="above", reason=f"smallest relative eigenvalue {least:.1e}, above {THRESHOLD:g}"
        ),
        "holds",
    )


def _share(by_seed: np.ndarray) -> tuple[float, float]:
    """The mean over seeds of the share of networks that are singular, and the least it is likely to be.

    Networks of a seed share their noise, so seeds are what counts: Clopper and Pearson's lower end, at 5 %
    over all rows.
    """
    count, seeds = int(np.floor(by_seed.sum() + 1e-9)), len(by_seed)
    low = special.betaincinv(count, seeds - count + 1, LEVEL / ROWS / 2) if count else 0.0
    return float(by_seed.mean()), float(low)


def _trend(networks: xr.DataArray) -> Interval:
    """Slope of the log eigenvalue against log width, a value a seed."""
    with np.errstate(divide="ignore"):
        logs = (
            np.log(networks)
            .mean([dim for dim in networks.dims if dim not in ("width", "seed")])
            .transpose("seed", "width")
            .values
        )
    seeds = np.isfinite(logs).all(1)
    if networks.sizes["width"] < 2 or seeds.sum() < 2:
        return Interval(np.nan, -np.inf, np.inf)
    x = np.log(networks["width"].values.astype(float))
    centred = x - x.mean()
    return Spread.of(logs[seeds] @ centred / (centred @ centred)).interval()
