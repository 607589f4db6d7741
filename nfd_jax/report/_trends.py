"""Slopes as they are drawn: straight lines through logarithms of means over seeds. They describe; verdicts
rest on /rates.

Fewer than three points give no slope. Intervals are at 95 % over whole seeds, by `nfd_jax.verdicts`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from nfd_jax.report._numbers import Estimate, slope
from nfd_jax.verdicts import FLAT, Interval, Spread, fit_slope

FEWEST_POINTS = 3
FALLING = 0.3


def _known(found: Interval) -> Estimate:
    """Without ends where a single seed has none."""
    bounded = math.isfinite(found.low) and math.isfinite(found.high)
    return Estimate(found.estimate, *((found.low, found.high) if bounded else ()))


def mean(samples: NDArray) -> Estimate:
    """Mean over seeds, (seeds,); NaN are left out."""
    samples = np.asarray(samples, float)
    samples = samples[np.isfinite(samples)]
    return _known(Spread.of(samples).interval()) if len(samples) else Estimate(math.nan)


def trend(x: NDArray, samples: NDArray, floor: float = 0.0) -> Estimate:
    """Log-log slope of the mean over seeds of samples (seeds, points) at the points above floor."""
    x, samples = np.asarray(x, float), np.asarray(samples, float)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(samples).all(0) & (samples.sum(0) > floor * len(samples))
    if good.sum() < FEWEST_POINTS:
        return Estimate(math.nan)
    return _known(fit_slope(x[good], samples[:, good]))


def moves(found: Estimate, symbol: str = "L") -> str:
    """What a quantity does along an axis, in words and with its slope; "" where there is no slope."""
    if math.isnan(found.value):
        return ""
    if math.isnan(found.low):
        return f"has slope {slope(found)} in {symbol} (one seed)"
    if found.high < -FALLING:
        word = "falls"
    elif found.low > FLAT:
        word = "grows"
    elif found.low > -FLAT and found.high < FLAT:
        word = "stays level"
    elif found.high < 0:
        word = "falls slowly"
    else:
        word = "shows no clear trend"
    return f"{word} with {symbol}, slope {slope(found)}"
