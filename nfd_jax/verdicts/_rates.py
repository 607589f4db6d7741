"""How a mean-square quantity depends on width or depth, and when that is decided.

A quantity *grows* where its log-log slope is above FLAT and *plateaus* where it is within ±FLAT. Where it falls faster,
it *plateaus* if the fitted constant c of a x^-alpha + c is more than SHARE of the value at the largest x and the slope
between the last two points is flatter than -STEEP, and *decays* if either is not so. A verdict stands when the 95 %
intervals it rests on lie on its side of these thresholds; while they don't, the number of further seeds is read off
the width of an interval of S seeds, which falls as t_{S-1}/√S. Fewer than FEWEST_SEEDS decide nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nfd_jax.verdicts._fits import (
    UNKNOWN,
    Array,
    Fit,
    Plateau,
    fit_coarsening,
    fit_plateau,
    fit_slope,
    interval,
    relative_error,
    resampled_means,
    weights_of,
)
from nfd_jax.verdicts._joint import JointFit, fit_joint

__all__ = [
    "FEWEST_SEEDS",
    "FLAT",
    "SHARE",
    "STEEP",
    "UNKNOWN",
    "Fit",
    "JointFit",
    "Plateau",
    "Rate",
    "classify",
    "fit_coarsening",
    "fit_joint",
    "fit_plateau",
    "fit_slope",
    "open_verdict",
    "seeds_needed",
]

FLAT = 0.15  # smaller slopes are no trend
SHARE = 0.5  # a plateau is more than this share of the value at the largest x
STEEP = 0.4  # what still falls faster than x^-STEEP at the largest x has not levelled off
NOISE = 0.5  # a mean with a larger relative standard error is Monte Carlo noise
FLATTENS = 0.1  # a decay's verdict names its fitted constant if that is surely more than this share
HUGE = 1e100  # a larger mean square is a run that diverged, whose loss just didn't overflow yet
FEWEST_SEEDS = 4  # fewer decide nothing: intervals from them hold only on paper
MOST_SEEDS = 1000  # further seeds than which it isn't seeds that are missing


@dataclass(frozen=True)
class Rate:
    """What `classify` found: kind is grows, plateaus, decays, open (undecided), zero (to rounding) or unmeasured.

    x, mean, error (standard error of the mean; NaN for one seed) and kept are (points,), dropped points included.
    slope is d log q / d log x, and -alpha of the coarsening law for a decay against a finite reference; plateau is c,
    share its share of the value at the largest x, end the slope between the last two points. more_seeds is what a
    decision is short of.
    """

    x: Array
    mean: Array
    error: Array
    kept: NDArray[np.bool_]
    seeds: int
    kind: str
    more_seeds: float
    verdict: str
    slope: Fit = UNKNOWN
    plateau: Fit = UNKNOWN
    share: Fit = UNKNOWN
    end: Fit = UNKNOWN

    @property
    def used(self) -> int:
        return int(self.kept.sum())

    @property
    def dropped(self) -> int:
        return int((~self.kept).sum())


def open_verdict(more_seeds: float) -> str:
    """The wording of an undecided verdict."""
    count = f"about {more_seeds:.0f}" if np.isfinite(more_seeds) else f"more than {MOST_SEEDS}"
    return f"inconclusive: {count} more seeds needed"


def seeds_needed(fit: Fit, threshold: float, seeds: int, *, above: bool) -> float:
    """Seeds in all for the interval to lie above (or below) the threshold; inf where the estimate does not.

    It is `seeds` where the interval does already, and at least FEWEST_SEEDS; beyond MOST_SEEDS more it is inf.
    """
    gap = fit.estimate - threshold if above else threshold - fit.estimate
    side = fit.estimate - fit.low if above else fit.high - fit.estimate
    if not gap > 0:
        return np.inf
    if seeds == 1 or side < gap:
        return max(seeds, FEWEST_SEEDS)
    counts = np.arange(seeds, seeds + MOST_SEEDS + 1)
    widths = stats.t.ppf(0.975, counts - 1) / np.sqrt(counts)
    enough = np.flatnonzero(widths / widths[0] < gap / side)
    return max(float(counts[enough[0]]), FEWEST_SEEDS) if len(enough) else np.inf


def _decide(slope: Fit, share: Fit, end: Fit, seeds: int) -> tuple[str, float]:
    """The kind that the estimates give, and the seeds at which it stands: the other kinds need infinitely many."""

    def above(fit: Fit, threshold: float) -> float:
        return seeds_needed(fit, threshold, seeds, above=True)

    def below(fit: Fit, threshold: float) -> float:
        return seeds_needed(fit, threshold, seeds, above=False)

    flat = max(above(slope, -FLAT), below(slope, FLAT))
    levelled = max(above(share, SHARE), above(end, -STEEP), below(slope, FLAT))
    falling = max(below(slope, -FLAT), min(below(share, SHARE), below(end, -STEEP)))
    needs = {"grows": above(slope, FLAT), "plateaus": min(flat, levelled), "decays": falling}
    kind = min(needs, key=needs.__getitem__)
    return kind, needs[kind]


def classify(x: ArrayLike, samples: ArrayLike, *, floor: float = 0.0, reference: int | None = None, n_boot: int = 1000) -> Rate:
    """The verdict on how a quantity depends on x, by the rule at the top of this module.

    x is (points,), samples (seeds, points); NaN marks what was not measured. Dropped are points that fewer than half of
    the best-covered point's seeds have, then seeds that lack one of the others (points compare sharply only on the same
    seeds), and points with a mean of at most `floor` (rounding), a relative standard error above NOISE, or
    x ≥ `reference`, the number of steps of the solution an error was measured against.
    """
    order = np.argsort(np.asarray(x, float))
    x, samples = np.asarray(x, float)[order], np.asarray(samples, float)[:, order]
    finite = np.abs(samples) < HUGE  # NaN is not
    counts = finite.sum(0)
    covered = (counts > 0) & (2 * counts >= counts.max(initial=0))
    samples = samples[finite[:, covered].all(1)]
    seeds = len(samples) if covered.any() else 0
    mean = relative = np.full(len(x), np.nan)
    if seeds:
        mean = np.where(covered, samples.mean(0), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(covered, relative_error(samples), np.nan)
    real = mean > floor
    noisy = real & (relative > NOISE)
    kept = real & ~noisy & (x < (reference or np.inf))

    def result(kind: str, more: float, verdict: str, *fits: Fit) -> Rate:
        return Rate(x, mean, relative * np.abs(mean), kept, seeds, kind, more, verdict, *fits)

    if kept.sum() < 2:
        if covered.sum() > 1 and seeds and not real.any():
            return result("zero", 0, f"zero to rounding: all {covered.sum()} points at or below {floor:.0e}")
        if noisy.any() and (noisy | kept).sum() > 1:
            more = np.ceil(seeds * (np.median(relative[noisy]) / NOISE) ** 2) - seeds
            return result("open", more, open_verdict(more))
        return result("unmeasured", np.inf, f"not measured: {kept.sum()} of {len(x)} points usable, at least 2 needed")

    x_, kept_samples = x[kept], samples[:, kept]
    slope = fit_slope(x_, kept_samples, n_boot=n_boot)
    end = fit_slope(x_[-2:], kept_samples[:, -2:], n_boot=n_boot)
    level = share = UNKNOWN
    if len(x_) > 2:
        plateau = fit_plateau(x_, kept_samples, reference=reference, n_boot=n_boot)
        level, share = plateau.level, plateau.share
    kind, total = _decide(slope, share, end, seeds)
    if kind == "plateaus" and abs(slope.estimate) <= FLAT:  # a flat line has no exponent: its level is its mean
        means = np.exp(np.log(resampled_means(kept_samples, n_boot)) @ weights_of(kept_samples))
        level = interval(means, seeds, 0.0)
    if kind == "decays" and reference is not None:
        alpha = fit_coarsening(x_, kept_samples, reference=reference, n_boot=n_boot)
        slope = Fit(-alpha.estimate, -alpha.high, -alpha.low)
    if total > seeds:
        short = len(x_) == 2 and np.isinf(total)
        text = "inconclusive: needs a third point" if short else open_verdict(total - seeds)
        return result("open", total - seeds, text, slope, level, share, end)
    if kind == "plateaus":
        text = f"plateaus at {level.text()}"
    elif kind == "grows":
        text = f"grows at rate {slope.text('.2f')}"
    else:
        text = f"decays at rate {Fit(-slope.estimate, -slope.high, -slope.low).text('.2f')}"
        text += f", towards {level.text()}" if share.low > FLATTENS else ""
    return result(kind, 0, text, slope, level, share, end)
