"""Problems on data sets, and the files of each format, written here."""

import gzip
import pickle
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROWS = 12  # per CIFAR-10 batch written here


def make_problem(dataset: str = "digits", **changes: Any) -> Any:
    defaults = dict(
        data_dir=None, input_dim=32, classes=(0, 1), steps=3, batch_size=4, batches="fixed", loss="squared"
    )
    defaults |= dict(pool=None, data_seed="fixed")
    return SimpleNamespace(dataset=str(dataset), **{**defaults, **changes})


def cifar_rows(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(batch)
    return rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8), np.arange(ROWS, dtype=np.uint8) % 3


def python2_pickle(images: np.ndarray, labels: np.ndarray) -> bytes:
    """The byte stream Python 2 wrote for CIFAR-10: protocol 2, byte strings, numpy.core names."""
    return (
        b"\x80\x02}(U\x06labels](" + b"".join(b"K%c" % label for label in labels.tolist()) + b"e"
        b"U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + b"".join(b"M" + struct.pack("<H", size) for size in images.shape) + b"\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<I", images.size) + images.tobytes() + b"tbu."
    )


def python3_pickle(images: np.ndarray, labels: np.ndarray) -> bytes:
    return pickle.dumps({b"data": images, b"labels": labels.tolist()}, protocol=2)


def binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None], images], axis=1).tobytes()


def write_cifar(folder: Path, write: Any, suffix: str = "") -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        (folder / (name + suffix)).write_bytes(write(*cifar_rows(number)))
    return folder


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder: Path, suffix: str) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("t10k", 20)):
        for name, array in (
            ("images-idx3", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            ("labels-idx1", np.arange(count, dtype=np.uint8) % 10),
        ):
            content = idx(array)
            path = folder / f"{split}-{name}-ubyte{suffix}"
            path.write_bytes(gzip.compress(content) if suffix else content)
    return folder


def write_npz(path: Path, **arrays: Any) -> str:
    np.savez_compressed(path, **arrays)
    return str(path)
