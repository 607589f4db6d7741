"""Rates: the slope of what is left beside the constant and the other axis, and whether curves still
steepen.
"""

import numpy as np

from nfd_jax.verdicts._sample import NotMeasured, Sample
from nfd_jax.verdicts._seeds import LEVEL, Array, Interval, Spread

TOLERANCE = 0.2
"""A claimed rate r is met by exponents above r - TOLERANCE: higher orders bend curves at depths in reach."""
FLAT = 0.15
"""Smaller slopes are no growth."""
STEEPENS = 0.1
"""Local slopes that fall by more than this along the axis have not settled."""


def swapped(sample: Sample) -> Sample:
    """Width in the place of depth, to find exponents of n."""
    return sample.with_values(sample.values, sample.depths, sample.widths)


def at_infinite_width(sample: Sample) -> Sample:
    """The constant in 1/n at every depth, one value a seed, as the points of a single width (1)."""
    values, depths = [], []
    for depth in sorted(set(sample.depths.tolist())):
        here = sample.depths == depth
        widths = sample.widths[here]
        if len(widths) < 2:
            continue
        design = np.stack([np.ones(len(widths)), widths.min() / widths], 1)
        operator = np.linalg.pinv(design)[0]
        values.append(sample.values[:, here].transpose(0, 2, 1) @ operator)
        depths.append(depth)
    if not depths:
        raise NotMeasured("add widths: the grid has one, at least two are needed")
    return sample.with_values(np.stack(values, 1), np.ones(len(depths)), np.array(depths))


def steepens(sample: Sample, level: float = LEVEL) -> bool:
    """Whether the local slope between the two largest depths may be steeper than that between the two
    smallest, of what is left as n → ∞: what does not fall with depth would hide it.
    """
    if len(set(sample.widths.tolist())) > 1:
        sample = at_infinite_width(sample)
    order = np.argsort(sample.depths)
    depths, values = sample.depths[order], sample.values.mean(2)[:, order]
    mean = values.mean(0)
    if len(depths) < 3 or np.any(mean <= 0):
        return True
    local = np.diff(np.log(mean) + values / mean - 1, axis=1) / np.diff(np.log(depths))
    found = Spread.of(local[:, -1] - local[:, 0]).interval(level)
    return bool(found.low < -STEEPENS)


def growth(sample: Sample, level: float = LEVEL) -> Interval:
    """Slope of log mean on log depth at fixed width."""
    values = sample.values.mean(2)
    mean = values.mean(0)
    if np.any(mean <= 0):
        return Interval(np.nan, -np.inf, np.inf)
    columns: list[Array] = [np.log(sample.depths)]
    columns += [(sample.widths == width).astype(float) for width in sorted(set(sample.widths.tolist()))]
    operator = np.linalg.pinv(np.stack(columns, 1))[0]
    slopes = (np.log(mean) + values / mean - 1) @ operator
    return Spread.of(slopes).interval(level)
