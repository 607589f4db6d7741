"""The data sets by name: sizes, classes, where their files lie, and their samples as they are (not
standardized).

A new one is an entry of DATASETS with its reader; everything else asks here.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nfd_jax.data._cifar import read_cifar_pickle
from nfd_jax.data._files import DataError
from nfd_jax.data._formats import CIFAR_PIXELS, read_cifar_binary, read_idx
from nfd_jax.data._npz import npz_shape, read_npz
from nfd_jax.data._samples import Samples, Splits, samples, splits
from nfd_jax.data._source import Stamps, stamps

DEBIAN_FASHION_MNIST = Path("/usr/share/dataset-fashion-mnist")  # Debian's package dataset-fashion-mnist
_FASHION_FOLDERS = ("", "data/fashion", "FashionMNIST/raw")  # flat, as in its repository, as in torchvision
_CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_IMAGES = ("train_images", "train_labels", "test_images", "test_labels")
_INPUTS = ("inputs", "targets", "heldout_inputs", "heldout_targets")

Files = tuple[Path, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set with a name.

    `locate`: its files, from the folder given, or from where it looks by itself; `read`: training and test
    samples in them; None where samples are drawn. `input_dim`: d, None where the config says it. `classes`:
    how many, with labels 0, 1, …. `from_folder`: whether the config's `data_dir` means anything to it.
    """

    locate: Callable[[Path | None], Files] | None
    read: Callable[[Files], Splits] | None
    input_dim: int | None
    classes: int
    class_names: tuple[str, ...] = ()
    from_folder: bool = False


def locate(dataset: str, data_dir: str | Path | None) -> Files:
    """The files in which the samples of a data set lie, by its name or a .npz path; a .npz need not be there.

    Raises DataError naming where it looked, what was found and what is expected.
    """
    if dataset.endswith(".npz"):
        return (Path(dataset),)
    known = DATASETS.get(dataset)
    if known is None or known.locate is None:
        raise DataError(f"dataset {dataset!r} is unknown; allowed: {', '.join(DATASETS)} or a .npz path")
    return known.locate(None if data_dir is None else Path(data_dir))


def read(dataset: str, files: Files) -> Splits:
    """The samples of a data set in the files that `locate` found. Raises DataError naming the path, what was
    found and what is expected.
    """
    known = None if dataset.endswith(".npz") else DATASETS[dataset].read
    return _npz(files) if known is None else known(files)


def class_names(dataset: str) -> tuple[str, ...]:
    """Names of the classes 0, 1, … of a data set; () where they have none."""
    return DATASETS[dataset].class_names if dataset in DATASETS else ()


def reads_folder(dataset: str) -> bool:
    """Whether `data_dir` means anything to a data set."""
    return dataset in DATASETS and DATASETS[dataset].from_folder


def dimension(dataset: str) -> int | None:
    """Number of features d of a data set, from the header alone of a .npz; None where the config says it.

    Raises DataError for a .npz that is missing or damaged.
    """
    if not dataset.endswith(".npz"):
        return DATASETS[dataset].input_dim
    path = Path(dataset)
    stamp = stamps((path,))
    return _npz_dimension(path) if stamp is None else _npz_dimension_kept(path, stamp)


def _npz_dimension(path: Path) -> int:
    return math.prod(npz_shape(path, (_IMAGES, _INPUTS))[1:])


@lru_cache(maxsize=16)
def _npz_dimension_kept(path: Path, _: Stamps) -> int:
    return _npz_dimension(path)


def _locate_digits(_: Path | None) -> Files:
    """The file that scikit-learn carries: importing it takes two seconds."""
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        expected = "expected: pip install scikit-learn"
        raise DataError(f"digits: scikit-learn, which carries them, is not installed; {expected}")
    return (Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz",)


@lru_cache(maxsize=1)
def _digits(files: Files) -> Splits:
    """8 × 8 images and labels."""
    try:
        rows = np.loadtxt(files[0], delimiter=",")
    except (OSError, ValueError) as error:
        raise DataError(f"{files[0]}: {error}; expected the digits that scikit-learn carries") from None
    return splits("scikit-learn's digits", rows[:, :-1], rows[:, -1].astype(int))


def _npz(files: Files) -> Splits:
    (path,) = files
    arrays = read_npz(path, (_IMAGES, _INPUTS))
    inputs, targets, *test = _IMAGES if _IMAGES[0] in arrays else _INPUTS
    present = [arrays[name] for name in test if name in arrays]
    if len(present) == 1:
        raise DataError(f"{path}: holds only one of {test[0]} and {test[1]}; expected both or neither")
    return splits(str(path), arrays[inputs], arrays[targets], *present)


def _locate_cifar10(root: Path | None) -> Files:
    expected = "data_dir to be a .npz, or a folder with cifar-10-batches-py, cifar-10-batches-bin or one .npz"
    if root is None:
        raise DataError(f"cifar10: no data_dir given; expected {expected}")
    if root.suffix == ".npz":
        return (root,)
    for folder in (root, root / "cifar-10-batches-py", root / "cifar-10-batches-bin"):
        for suffix in ("", ".bin"):
            if os.path.isfile(folder / (_CIFAR_BATCHES[0] + suffix)):
                return tuple(folder / (name + suffix) for name in _CIFAR_BATCHES)
    archives = [path for path in _listing(root) if path.suffix == ".npz"]
    archives = [path for path in archives if path.name.startswith("cifar")] or archives
    if len(archives) != 1:
        found = ", ".join(path.name for path in archives[:8]) or "none of these"
        raise DataError(f"{root}: {found if os.path.isdir(root) else 'no such folder'}; expected {expected}")
    return (archives[0],)


def _cifar10(files: Files) -> Splits:
    if len(files) == 1:
        return _npz(files)
    place = str(files[0].parent)
    parse = read_cifar_binary if files[0].suffix == ".bin" else read_cifar_pickle
    *train, test = [samples(place, *parse(path)) for path in files]
    images = np.concatenate([batch.inputs for batch in train])
    return Samples(place, images, np.concatenate([batch.targets for batch in train])), test


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):  # absent, unreadable, or no possible name: for the caller as good as empty
        return []


def _locate_fashion_mnist(root: Path) -> Files:
    def find(name: str) -> Path:
        candidates = (
            root / folder / (name + suffix) for folder in _FASHION_FOLDERS for suffix in (".gz", "")
        )
        path = next((path for path in candidates if os.path.isfile(path)), None)
        if path is None:
            raise DataError(
                f"{root}: no {name}.gz; expected the four IDX files, .gz or unpacked: set data_dir to them"
            )
        return path

    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return tuple(find(f"{split}-{kind}") for split in ("train", "t10k") for kind in kinds)


def _fashion_mnist(files: Files) -> Splits:
    items = ((28, 28), ()) * 2
    arrays = (read_idx(path, item) for path, item in zip(files, items, strict=True))
    return splits(str(files[0].parent), *arrays)


def _ten_classes(splits: Splits, size: int) -> Splits:
    for part in splits:
        if part is None:
            continue
        if part.inputs.shape[1] != size or not part.labelled or not np.isin(part.targets, range(10)).all():
            found = f"inputs {part.inputs.shape}, targets from {part.targets.min()} to {part.targets.max()}"
            raise DataError(f"{part.place}: {found}; expected inputs (N, {size}) and integer labels 0 to 9")
    return splits


DATASETS: dict[str, Dataset] = {
    "digits": Dataset(_locate_digits, _digits, 64, 10),
    "cifar10": Dataset(
        _locate_cifar10,
        lambda files: _ten_classes(_cifar10(files), CIFAR_PIXELS),
        CIFAR_PIXELS,
        10,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        from_folder=True,
    ),
    "fashion_mnist": Dataset(
        lambda folder: _locate_fashion_mnist(folder or DEBIAN_FASHION_MNIST),
        lambda files: _ten_classes(_fashion_mnist(files), 28 * 28),
        28 * 28,
        10,
        (
            "t_shirt_top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle_boot",
        ),
        from_folder=True,
    ),
    "gaussian": Dataset(None, None, None, 2),
}
