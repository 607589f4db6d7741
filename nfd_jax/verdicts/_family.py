"""The laws that describe one set of points, and what all of them say."""

from dataclasses import dataclass, replace

import numpy as np

from nfd_jax.verdicts._fit import GridFit, fit_grid
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._seeds import LEVEL, Array, Interval


@dataclass(frozen=True)
class Fits:
    """The laws that describe one set of points, the best first; what is said of them is said of all of
    them.
    """

    fits: list[GridFit]
    described: bool

    def interval(
        self, weights: dict[str, float], signal: Array | None = None, level: float = LEVEL
    ) -> Interval:
        """Of this sum of coefficients, over the mean of signal (seeds,) where given."""
        found = [fit.target(weights) for fit in self.fits]
        found = found if signal is None else [target.scaled_by(signal) for target in found]
        return _union([target.interval(level) for target in found])

    def exponent(self, level: float = LEVEL) -> Interval:
        return _union([fit.exponent(level) for fit in self.fits])

    def reaches(self, least: float, level: float = LEVEL) -> bool:
        """Whether the exponent surely is at least this. Not where the estimate is the largest tried and
        nothing bounds it: what is left then falls too fast, or is too little, to tell how.
        """
        found = self.exponent(level)
        return bool(found.low >= least) and not self.at_the_edge(level)

    def at_the_edge(self, level: float = LEVEL) -> bool:
        """Whether the estimate is the largest exponent tried, and unbounded above."""
        found, largest = self.exponent(level), float(self.fits[0].exponents[-1])
        return bool(found.high == np.inf and found.estimate >= largest - 0.01)


def _union(parts: list[Interval]) -> Interval:
    return Interval(parts[0].estimate, min(part.low for part in parts), max(part.high for part in parts))


def fit_laws(samples: Array, widths: Array, depths: Array, law: Law, **options: bool) -> Fits:
    """`fit_grid` with power laws in L and in L + L₀: those that describe the points.

    Where none does, the one with terms of next order does or nothing. Two widths cannot tell whether what
    they show goes like 1/n: there laws that fall more slowly and faster are among those that describe it.
    """
    shifts = (0.0, float(depths.min())) if len(set(depths)) > 2 else (0.0,)
    fits = [fit_grid(samples, widths, depths, replace(law, shift=shift), **options) for shift in shifts]
    if len(set(widths)) == 2:  # and those between, of which one leaves nothing where the slowest leaves less
        others = replace(law, width_shift=float(widths.min())), replace(law, width_power=1.5)
        fits += [fit_grid(samples, widths, depths, one, **options | {"positive": False}) for one in others]
    good = [fit for fit in fits if fit.described]
    if not good and len(set(widths)) > 2:
        good = [
            fit for fit in [fit_grid(samples, widths, depths, law, curved=True, **options)] if fit.described
        ]
    return Fits(good or fits[:1], bool(good))
