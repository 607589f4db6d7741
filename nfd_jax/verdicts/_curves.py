"""Laws of one curve, for figures: a slope in log-log axes, and the exponent of the law of coarsening."""

import numpy as np
from numpy.typing import ArrayLike

from nfd_jax.verdicts._fit import fit_grid
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._seeds import Array, Interval, Spread

EXPONENTS = tuple(np.round(np.arange(0.1, 4.05, 0.1), 10))


def fit_slope(x: ArrayLike, samples: ArrayLike) -> Interval:
    """Slope of log(mean over seeds) on log x, with its 95 % interval.

    Args:
        x: (points,) widths or depths, positive and increasing.
        samples: (seeds, points), finite and with a positive mean at every x.

    Raises:
        ValueError: for other shapes and values, or below 2 points.
    """
    x, samples = _checked(x, samples, 2)
    mean = samples.mean(0)
    centred = np.log(x) - np.log(x).mean()
    # To first order in each seed's deviation, so that the slope is a mean over seeds.
    return Spread.of((np.log(mean) + samples / mean - 1) @ centred / (centred @ centred)).interval()


def fit_coarsening(depths: ArrayLike, samples: ArrayLike, *, reference: int) -> Interval:
    """Exponent of the law of coarsening, of errors at each depth against `reference` steps on the same noise.

    The mean square is proportional to (1/m) Σ_{j<m} (j/M)^β with M the reference and m = M/L.

    Args:
        depths: (points,) proper divisors of reference, increasing.
        samples: (seeds, points), finite and with a positive mean at every depth.
        reference: Euler steps M of the limit.

    Raises:
        ValueError: for other shapes and values, or below 3 depths.
    """
    depths, samples = _checked(depths, samples, 3)
    if np.any(reference % depths) or depths[-1] >= reference:
        raise ValueError(f"depths {depths.tolist()} against {reference} steps: give proper divisors of it")
    law = Law(reference, exponents=EXPONENTS)
    return fit_grid(samples[..., None], np.ones(len(depths)), depths, law, constant=False).exponent()


def _checked(x: ArrayLike, samples: ArrayLike, least: int) -> tuple[Array, Array]:
    x, samples = np.asarray(x, float), np.asarray(samples, float)
    if samples.ndim != 2 or x.shape != samples.shape[1:] or len(samples) == 0:
        raise ValueError(f"samples of shape {samples.shape} for x of shape {x.shape}: give (seeds, len(x))")
    if len(x) < least or np.any(np.diff(x) <= 0) or x[0] <= 0:
        raise ValueError(f"x is {x.tolist()}: give at least {least} positive values in increasing order")
    if not (np.all(np.isfinite(samples)) and np.all(samples.mean(0) > 0)):
        raise ValueError(
            "samples must be finite, with a positive mean at every x: leave the other points out"
        )
    return x, samples
