"""Intervals for means over seeds.

Every number of a run is linearized to one value a seed, whose mean it is: points of a grid share their noise,
so whole seeds are what is resampled. Percentiles of resamples are too narrow for few seeds, and Student's t
is too short on the long side of skewed noise (a single output's error is χ²₁). The bootstrap of the
studentized mean is right within two points in a hundred at 8 seeds, for Gaussian and χ²₁ noise alike.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special  # not stats, which takes a second to import

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.intp]

LEVEL = 0.05
RESAMPLES = 1999
FEWEST_SEEDS = 4
"""Fewer decide nothing."""
FEWEST_FOR_OUTPUTS = 8
"""Fewer decide nothing about outputs, whose errors are far from Gaussian."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval: infinite ends from a single seed, NaN where nothing was measured."""

    estimate: float
    low: float
    high: float

    def text(self, digits: str = ".3g") -> str:
        """The estimate with its interval; an end that is not known is named, never printed as a number."""
        return _with_ends(*(_shown(value, digits) for value in (self.estimate, self.low, self.high)))

    def power(self) -> str:
        """An exponent with its interval."""
        return self.text(f".{decimals(self.low, self.high)}f")

    def share(self) -> str:
        """A ratio of mean squares as a share in rms: its square root in percent, 0 where it is negative."""
        return _with_ends(*(percent(value) for value in (self.estimate, self.low, self.high)))

    def scaled(self, factor: float) -> "Interval":
        ends = sorted((self.low * factor, self.high * factor))
        return Interval(self.estimate * factor, *ends)


def percent(value: float) -> str:
    """The square root of a ratio of mean squares in percent; empty where it is not finite."""
    return f"{100 * np.sqrt(max(value, 0.0)):.2g} %" if np.isfinite(value) else ""


def _shown(value: float, digits: str) -> str:
    """A number without the sign of what is zero to the digits shown; empty where it is not finite."""
    if not np.isfinite(value):
        return ""
    text = f"{value:{digits}}"
    return text if any(digit in text for digit in "123456789") else text.removeprefix("-")


def _with_ends(estimate: str, low: str, high: str) -> str:
    estimate = estimate or "unknown"
    if low and high:
        return f"{estimate} [{low}, {high}]"
    if low or high:
        return f"{estimate} [{'at least' if low else 'at most'} {low or high}]"
    return f"{estimate} [no bounds]"


UNKNOWN = Interval(np.nan, np.nan, np.nan)


@lru_cache(maxsize=32)
def resamples(seeds: int) -> Array:
    """(RESAMPLES, seeds) bootstrap weights, the same at every call: the same data give the same verdict."""
    return np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds


@dataclass(frozen=True)
class Spread:
    """The mean of values over seeds, its standard error, and quantiles of the studentized mean."""

    mean: float
    error: float
    seeds: int
    pivots: Array
    """Sorted (mean* - mean)/error* of the resamples; empty from a single seed or without any spread."""

    @classmethod
    def of(cls, values: Array) -> "Spread":
        seeds, mean = len(values), float(values.mean())
        if seeds < 2:
            return cls(mean, np.inf, seeds, np.empty(0))
        deviation = float(values.std(ddof=1))
        if not deviation > 1e-13 * abs(mean):
            return cls(mean, 0.0, seeds, np.empty(0))
        centred = (values - mean) / deviation
        weights = resamples(seeds)
        means = weights @ centred
        variances = (weights @ centred**2 - means**2) * seeds / (seeds - 1)
        # A resample of nearly equal values has no spread of its own; its pivot would be noise divided by
        # zero.
        pivots = means / np.sqrt(np.maximum(variances, 1e-3) / seeds)
        return cls(mean, deviation / np.sqrt(seeds), seeds, np.sort(pivots))

    def interval(self, level: float = LEVEL) -> Interval:
        """Two-sided, at 1 - level."""
        if self.seeds < 2:
            return Interval(self.mean, -np.inf, np.inf)
        if not len(self.pivots):
            return Interval(self.mean, self.mean, self.mean)
        place = LEVEL / 2 * (RESAMPLES + 1)  # a whole number: the quantiles are order statistics
        low, high = self.pivots[int(place) - 1], self.pivots[-int(place)]
        # Levels beyond what resamples resolve: stretched as Student's t is.
        stretch = student(self.seeds, level) / student(self.seeds)
        return Interval(
            self.mean, self.mean - stretch * high * self.error, self.mean - stretch * low * self.error
        )


def decimals(low: float, high: float) -> int:
    """How many an exponent is shown with: two, or what it takes to tell the ends of its interval apart, four
    at most."""
    if not np.isfinite(low) or not np.isfinite(high):
        return 2
    return next((n for n in (2, 3) if round(low, n) != round(high, n)), 4)


@lru_cache(maxsize=1024)
def student(seeds: int, level: float = LEVEL) -> float:
    """Student's t quantile of a two-sided interval at 1 - level from this many seeds."""
    return float(special.stdtrit(seeds - 1, 1 - level / 2)) if seeds > 1 else np.inf
