"""Standardization, and whether inputs and targets can be standardized at all, however samples are drawn.

**Standardization.** From the training samples x of the chosen classes, held-out samples left out, take the
mean m of each feature and one scale s for all, s² = mean over samples and features of (x − m)². Every input,
held-out ones too, becomes (x − m)/s, so that the mean of ‖x‖²/d over the training samples is exactly 1
(single samples scatter about it) and h_0 = U x/√d has coordinates of order one. One scale keeps the
proportions of the features; a constant feature becomes 0 and still counts in d.

**What is refused.** Inputs that do not vary, or overflow. Where held-out samples are drawn from the training
samples, those that are left must vary whichever are drawn, so that data are refused before a sweep or never.
Say that H of N are drawn. If all others lay within ε of some point, so would the median c of any 2 H + 1, in
each of d features, and at most H samples were further than ε (1 + √d) from c. So let δ be the distance from
c of the sample that is the (H + 1)-th furthest: what is left has s ≥ δ/((1 + √d) √(N d)).
"""

import numpy as np

from nfd_jax.data._files import DataError
from nfd_jax.data._samples import LARGEST, Samples

_ROUNDING, _SMALLEST = 1e-12, 1e-150  # of a scale to the inputs' size; and on its own, as squares underflow
_CHUNK = 1024  # samples; a float64 copy of all of CIFAR-10 takes 1.2 GB


def standardization(train: Samples) -> tuple[np.ndarray, float]:
    """Mean (d,) and scale s of the inputs."""
    x = train.inputs
    with np.errstate(over="ignore", invalid="ignore"):  # judged by `check_scale`
        mean = x.mean(axis=0, dtype=np.float64)
        total = sum(float(np.square(x[i : i + _CHUNK] - mean).sum()) for i in range(0, len(x), _CHUNK))
        return mean, float(np.sqrt(total / x.size))


def check_scale(train: Samples, test: Samples | None, drawn: int) -> tuple[np.ndarray, float]:
    """Mean and scale of the training samples, of which `drawn` will be held out. Raises DataError."""
    mean, scale = standardization(train)
    # Where all inputs are equal, the rounding of the mean still leaves about 1e-16 of their size.
    if not max(_ROUNDING * float(np.abs(mean).max()), _SMALLEST) < scale < np.inf:
        raise DataError(
            f"{train.place}: inputs lie {scale:g} rms about their mean; expected finite inputs that vary"
        )
    least = min(scale, _least_scale(train, drawn)) if drawn else scale
    size = max(_size(samples.inputs) for samples in (train, test) if samples is not None)
    with np.errstate(over="ignore"):
        furthest = np.float64(size) + np.abs(mean).max()
        if not furthest / least <= LARGEST:
            raise DataError(
                f"{train.place}: inputs of up to {size:g} with others that vary by {least:.1g}; expected at"
                f" most {LARGEST:g} times that: leave those samples out"
            )
    return mean, scale


def _least_scale(train: Samples, drawn: int) -> float:
    """A bound from below on s of what is left when any `drawn` samples are held out. Raises DataError where
    it may not vary.
    """
    x, left = train.inputs, len(train) - drawn
    if left < 2:
        raise DataError(
            f"{train.place}: {len(train)} samples of the chosen classes, and {drawn} held out of them;"
            " expected two or more to be left, so that inputs vary"
        )
    centre = np.median(np.asarray(x[: 2 * drawn + 1], np.float64), axis=0)
    with np.errstate(over="ignore"):
        apart = [np.square(x[i : i + _CHUNK] - centre).sum(axis=1) for i in range(0, len(x), _CHUNK)]
    distances = np.sqrt(np.concatenate(apart))
    dimension, known = x.shape[1], max(_ROUNDING * float(np.abs(centre).max()), _SMALLEST)
    loss = (1 + np.sqrt(dimension)) * np.sqrt(float(left) * dimension)
    least = float(np.partition(distances, left - 1)[left - 1]) / loss
    if not least > known:
        same = int((distances <= known * loss).sum())
        raise DataError(
            f"{train.place}: {same} of {len(train)} samples of the chosen classes have the same inputs, up to"
            f" rounding, and {drawn} held out of all; expected more than {drawn} others, or test samples"
        )
    return least


def _size(x: np.ndarray) -> float:
    return max(abs(float(x.max())), abs(float(x.min())))
