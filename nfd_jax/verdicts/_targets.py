"""Intervals of a fit's coefficients, from one value a seed (and a channel, for biases of several outputs or
kernels).
"""

from dataclasses import dataclass

import numpy as np

from nfd_jax.verdicts._seeds import LEVEL, Array, Interval, Spread, student


@dataclass(frozen=True)
class Target:
    """A coefficient as (seeds, channels): at the best exponent, with the exponent free (None: not known that
    way), and at every exponent not refused. `slack` widens intervals of data without noise by what the law
    leaves. `squares`: the values are biases, and the mean over channels of their squares is asked for.
    """

    best: Array
    free: Array | None
    each: list[Array]
    slack: float
    squares: bool = True

    def scaled_by(self, signal: Array) -> "Target":
        """Over the mean of signal (seeds,), a mean square, its spread over seeds included to first order:
        biases over its root, so that their squares are over it.
        """
        power = 0.5 if self.squares else 1.0
        size = signal.mean() ** power

        def over(values: Array) -> Array:
            return (values - values.mean(0) * power * (signal / signal.mean() - 1)[:, None]) / size

        free = None if self.free is None else over(self.free)
        each = [over(values) for values in self.each]
        return Target(over(self.best), free, each, self.slack / size, self.squares)

    def interval(self, level: float = LEVEL) -> Interval:
        """Of the channel's mean; of biases that of the mean over channels of squared means."""
        of = _of_squares if self.squares else _of_one
        found, spread = of(self.best, level)
        low, high = found.low, found.high
        for values in self.each:
            other, _ = of(values, level, spread)
            low, high = min(low, other.low), max(high, other.high)
        if self.free is not None:
            sharp, _ = of(self.free, level)
            if sharp.low < high and sharp.high > low:
                low, high = max(low, sharp.low), min(high, sharp.high)
        if self.squares:
            root = np.sqrt(max(low, 0.0)) - self.slack
            low = root**2 if root > 0 else min(low, 0.0) - self.slack**2
            high = (np.sqrt(max(high, 0.0)) + self.slack) ** 2
        else:
            low, high = low - self.slack, high + self.slack
        return Interval(float(np.clip(found.estimate, low, high)), low, high)

    def error(self) -> float:
        """A standard error that matches the interval's length."""
        found = self.interval()
        return (found.high - found.low) / (2 * student(len(self.best)))


def _of_one(values: Array, level: float, shape: Spread | None = None) -> tuple[Interval, Spread]:
    """Interval of a mean; with the shape of a like one, whose resamples are then not drawn again."""
    values = values[:, 0]
    if shape is None or not len(shape.pivots) or len(values) < 2:
        shape = Spread.of(values)
    else:
        shape = Spread(
            float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), len(values), shape.pivots
        )
    return shape.interval(level), shape


def _of_squares(values: Array, level: float, _: None = None) -> tuple[Interval, None]:
    """Interval of the mean over channels of squared means: mean² - var/S is unbiased."""
    seeds, channels = values.shape
    mean = values.mean(0)
    if seeds < 2:
        return Interval(float((mean**2).mean()), -np.inf, np.inf), None
    centred = values - mean
    gram = centred @ centred.T / (seeds - 1)  # seeds by seeds: traces of the covariance without forming it
    trace, squares = float(np.trace(gram)), float((gram**2).sum())
    # Unbiased for the sum of squared eigenvalues, where samples are Gaussian.
    squares = max(
        (seeds - 1) ** 2 / ((seeds + 1) * max(seeds - 2, 1)) * (squares - trace**2 / (seeds - 1)), 0.0
    )
    size = float(mean @ mean)
    if not size > 0:
        return Interval(0.0, 0.0, 0.0), None
    # Along the mean its length has Student's interval; across it chance adds to the square, by trace/S on
    # average.
    along = float(((centred @ mean) ** 2).sum() / (seeds - 1)) / size
    length = np.sqrt(max(size - max(trace - along, 0.0) / seeds, 0.0))
    estimate = size - trace / seeds
    found = Spread.of(values @ mean / np.sqrt(size)).interval(level)
    below, above = found.estimate - found.low, found.high - found.estimate
    across = student(seeds, level) * np.sqrt(2 * max(squares - along**2, 0.0)) / seeds
    low = estimate - np.hypot(max(estimate - max(length - below, 0.0) ** 2, 0.0), across)
    high = estimate + np.hypot((length + above) ** 2 - estimate, across)
    return Interval(estimate / channels, float(low) / channels, float(high) / channels), None
