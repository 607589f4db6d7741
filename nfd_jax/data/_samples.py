"""Samples and the split into training and test samples, checked: shapes that fit one another, finite
numbers.
"""

from dataclasses import dataclass, replace

import numpy as np

from nfd_jax.data._files import DataError

LARGEST = 1e30
"""Of targets and of standardized inputs: float32 holds numbers up to 3e38."""


@dataclass(frozen=True, eq=False)
class Samples:
    """inputs (N, d), any real dtype of at most 64 bits; targets (N,) int64 labels or (N, C) float64; `place`:
    their origin, for errors.
    """

    place: str
    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: np.ndarray) -> "Samples":
        return replace(self, inputs=self.inputs[index], targets=self.targets[index])

    @property
    def labelled(self) -> bool:
        return self.targets.ndim == 1


Splits = tuple[Samples, Samples | None]
"""Training samples, and test samples where the data set has them."""


def splits(place: str, inputs: np.ndarray, targets: np.ndarray, *test: np.ndarray) -> Splits:
    train = samples(place, inputs, targets)
    if not test:
        return train, None
    heldout = samples(place, *test)
    if (
        heldout.inputs.shape[1] != train.inputs.shape[1]
        or heldout.targets.shape[1:] != train.targets.shape[1:]
    ):
        raise DataError(
            f"{place}: test inputs {heldout.inputs.shape} and targets {heldout.targets.shape} do not fit"
            f" training inputs {train.inputs.shape} and targets {train.targets.shape};"
            " expected equal sizes but for the first"
        )
    return train, heldout


def samples(place: str, inputs: np.ndarray, targets: np.ndarray) -> Samples:
    shaped = inputs.ndim >= 2 and targets.ndim in (1, 2) and len(inputs) == len(targets)
    if not shaped or not inputs.size or not targets.size:
        raise DataError(
            f"{place}: inputs of shape {inputs.shape} and targets of shape {targets.shape};"
            " expected (N, ...) and (N,) or (N, C) with the same N of at least 1"
        )
    inputs, targets = (_finite(place, array) for array in (inputs, targets))
    if targets.dtype.kind != "f" and targets.size == len(targets):
        if targets.dtype.kind == "u" and int(targets.max()) > np.iinfo(np.int64).max:
            raise DataError(f"{place}: a label {int(targets.max())}; expected labels below 2^63")
        targets = targets.reshape(-1).astype(np.int64)
    else:
        targets = targets.reshape(len(targets), -1).astype(np.float64)
        if (size := float(np.abs(targets).max())) > LARGEST:
            raise DataError(f"{place}: targets of up to {size:g}; expected at most {LARGEST:g}: scale them")
    return Samples(place, inputs.reshape(len(inputs), -1), targets)


def _finite(place: str, array: np.ndarray) -> np.ndarray:
    """The array, extended precision rounded to double. Raises DataError for what is no finite number."""
    dtype = array.dtype
    if dtype.kind == "f" and dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    if dtype.kind not in "buif" or (dtype.kind == "f" and not np.isfinite(array).all()):
        raise DataError(f"{place}: non-finite or non-numeric values ({dtype}); expected finite numbers")
    return array
