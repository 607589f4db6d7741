"""The data sets by name: where their files lie, and their samples as they are (no standardization, no choice)."""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from nfd_jax.data._formats import CIFAR_PIXELS, DataError, read_cifar_binary, read_cifar_pickle, read_idx, read_npz

DEBIAN_FASHION_MNIST = Path("/usr/share/dataset-fashion-mnist")  # Debian's package dataset-fashion-mnist
_FASHION_FOLDERS = ("", "data/fashion", "FashionMNIST/raw")  # flat, as in its repository, as in torchvision
_CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_IMAGES = ("train_images", "train_labels", "test_images", "test_labels")
_INPUTS = ("inputs", "targets", "heldout_inputs", "heldout_targets")


@dataclass(frozen=True, eq=False)
class Samples:
    """inputs (N, d), any real dtype; targets (N,) int64 labels or (N, C) float64; `place`: their origin, for errors."""

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


def read_dataset(dataset: str, data_dir: str | Path | None) -> Splits:
    """Read digits, cifar10, fashion_mnist or a .npz path.

    Raises DataError naming the path, what was found and what is expected.
    """
    folder = None if data_dir is None else Path(data_dir)
    if dataset == "digits":
        return _digits()
    if dataset == "cifar10":
        return _ten_classes(_cifar10(folder), CIFAR_PIXELS)
    if dataset == "fashion_mnist":
        return _ten_classes(_fashion_mnist(folder or DEBIAN_FASHION_MNIST), 28 * 28)
    if dataset.endswith(".npz"):
        return _npz(Path(dataset))
    raise DataError(f"dataset {dataset!r} is unknown; allowed: digits, cifar10, fashion_mnist, gaussian or a .npz path")


@lru_cache(maxsize=1)
def _digits() -> Splits:
    from sklearn.datasets import load_digits  # a slow import that the other data sets do without

    images, labels = load_digits(return_X_y=True)
    return _splits("scikit-learn's digits", np.asarray(images), np.asarray(labels))


def _npz(path: Path) -> Splits:
    arrays = read_npz(path, (_IMAGES, _INPUTS))
    inputs, targets, *test = _IMAGES if _IMAGES[0] in arrays else _INPUTS
    present = [arrays[name] for name in test if name in arrays]
    if len(present) == 1:
        raise DataError(f"{path}: holds only one of {test[0]} and {test[1]}; expected both or neither")
    return _splits(str(path), arrays[inputs], arrays[targets], *present)


def _cifar10(root: Path | None) -> Splits:
    expected = "data_dir to be a .npz, or a folder with cifar-10-batches-py, cifar-10-batches-bin or one .npz"
    if root is None:
        raise DataError(f"cifar10: no data_dir given; expected {expected}")
    if root.suffix == ".npz":
        return _npz(root)
    for folder in (root, root / "cifar-10-batches-py", root / "cifar-10-batches-bin"):
        for suffix, read in (("", read_cifar_pickle), (".bin", read_cifar_binary)):
            if os.path.isfile(folder / (_CIFAR_BATCHES[0] + suffix)):
                *train, test = [_samples(str(folder), *read(folder / (name + suffix))) for name in _CIFAR_BATCHES]
                images = np.concatenate([batch.inputs for batch in train])
                return Samples(str(folder), images, np.concatenate([batch.targets for batch in train])), test
    archives = [path for path in _listing(root) if path.suffix == ".npz"]
    archives = [path for path in archives if path.name.startswith("cifar")] or archives
    if len(archives) != 1:
        found = ", ".join(path.name for path in archives[:8]) or "none of these"
        raise DataError(f"{root}: {found if os.path.isdir(root) else 'no such folder'}; expected {expected}")
    return _npz(archives[0])


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):  # absent, unreadable, or no possible name: for the caller as good as empty
        return []


def _fashion_mnist(root: Path) -> Splits:
    def locate(name: str) -> Path:
        candidates = (root / folder / (name + suffix) for folder in _FASHION_FOLDERS for suffix in (".gz", ""))
        path = next((path for path in candidates if os.path.isfile(path)), None)
        if path is None:
            raise DataError(f"{root}: no {name}.gz; expected the four IDX files, .gz or unpacked: set data_dir to them")
        return path

    kinds = (("images-idx3-ubyte", (28, 28)), ("labels-idx1-ubyte", ()))
    arrays = (read_idx(locate(f"{split}-{name}"), item) for split in ("train", "t10k") for name, item in kinds)
    return _splits(str(root), *arrays)


def _splits(place: str, inputs: np.ndarray, targets: np.ndarray, *test: np.ndarray) -> Splits:
    train = _samples(place, inputs, targets)
    if not test:
        return train, None
    heldout = _samples(place, *test)
    if heldout.inputs.shape[1] != train.inputs.shape[1] or heldout.targets.shape[1:] != train.targets.shape[1:]:
        raise DataError(
            f"{place}: test inputs {heldout.inputs.shape} and targets {heldout.targets.shape} do not fit training"
            f" inputs {train.inputs.shape} and targets {train.targets.shape}; expected equal sizes but for the first"
        )
    return train, heldout


def _samples(place: str, inputs: np.ndarray, targets: np.ndarray) -> Samples:
    shaped = inputs.ndim >= 2 and targets.ndim in (1, 2) and len(inputs) == len(targets)
    if not shaped or not inputs.size or not targets.size:
        raise DataError(
            f"{place}: inputs of shape {inputs.shape} and targets of shape {targets.shape};"
            " expected (N, ...) and (N,) or (N, C) with the same N of at least 1"
        )
    for array in (inputs, targets):
        if array.dtype.kind not in "buif" or not np.isfinite(array).all():
            raise DataError(f"{place}: non-finite or non-numeric values ({array.dtype}); expected finite numbers")
    if targets.dtype.kind != "f" and targets.size == len(targets):
        targets = targets.reshape(-1).astype(np.int64)
    else:
        targets = targets.reshape(len(targets), -1).astype(np.float64)
    return Samples(place, inputs.reshape(len(inputs), -1), targets)


def _ten_classes(splits: Splits, size: int) -> Splits:
    for part in splits:
        if part is None:
            continue
        if part.inputs.shape[1] != size or not part.labelled or not np.isin(part.targets, range(10)).all():
            found = f"inputs {part.inputs.shape}, targets from {part.targets.min()} to {part.targets.max()}"
            raise DataError(f"{part.place}: {found}; expected inputs (N, {size}) and integer labels 0 to 9")
    return splits
