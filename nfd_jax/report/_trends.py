"""Slopes as they are drawn: straight lines through logarithms of means over seeds. They describe; verdicts rest on /rates.

Fewer than three points give no slope. Intervals are at 95 %, from standard errors over whole seeds, Student's t.
"""

import math

import numpy as np
from numpy.typing import NDArray

from nfd_jax.report._numbers import Estimate, slope

FEWEST_POINTS = 3
RESAMPLES = 400
LEVEL, FALLING = 0.15, 0.3
# 97.5 % points of Student's t with 1 … 30 degrees of freedom: importing scipy for them would cost half a second
T975 = (
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09,
    2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04,
)  # fmt: skip


def student(seeds: int) -> float:
    """Half-width of a 95 % interval in standard errors of the mean over seeds; inf for one seed."""
    return math.inf if seeds < 2 else T975[seeds - 2] if seeds - 2 < len(T975) else 1.96 + 2.5 / (seeds - 1)


def mean(samples: NDArray) -> Estimate:
    """Mean over seeds, (seeds,); NaN are left out."""
    samples = np.asarray(samples, float)
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return Estimate(math.nan)
    middle = float(samples.mean())
    if len(samples) < 2:
        return Estimate(middle)
    half = student(len(samples)) * float(samples.std(ddof=1)) / math.sqrt(len(samples))
    return Estimate(middle, middle - half, middle + half)


def trend(x: NDArray, samples: NDArray, floor: float = 0.0) -> Estimate:
    """Log-log slope of the mean over seeds of samples (seeds, points) at the points above floor."""
    x, samples = np.asarray(x, float), np.asarray(samples, float)
    with np.errstate(invalid="ignore"):
        good = (
            np.isfinite(samples).all(0) & (samples.mean(0) > floor)
            if len(samples)
            else np.zeros(len(x), bool)
        )
    if good.sum() < FEWEST_POINTS:
        return Estimate(math.nan)
    line = np.log(x[good]) - np.log(x[good]).mean()
    line /= (line**2).sum()
    values, seeds = samples[:, good], len(samples)
    found = float(np.log(values.mean(0)) @ line)
    if seeds < 2:
        return Estimate(found)
    picks = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    means = values[picks].mean(1)
    slopes = np.log(means[(means > 0).all(1)]) @ line
    half = (
        student(seeds) * float(slopes.std()) * math.sqrt(seeds / (seeds - 1)) if len(slopes) > 1 else math.inf
    )
    return Estimate(found, found - half, found + half)


def moves(found: Estimate, symbol: str = "L") -> str:
    """What a quantity does along an axis, in words and with its slope; "" where there is no slope."""
    if math.isnan(found.value):
        return ""
    if math.isnan(found.low):
        return f"has slope {slope(found)} in {symbol} (one seed)"
    if found.high < -FALLING:
        word = "falls"
    elif found.low > LEVEL:
        word = "grows"
    elif found.low > -LEVEL and found.high < LEVEL:
        word = "stays level"
    elif found.high < 0:
        word = "falls slowly"
    else:
        word = "shows no clear trend"
    return f"{word} with {symbol}, slope {slope(found)}"
