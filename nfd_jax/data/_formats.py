"""File formats to numpy arrays. Nothing in a file is executed, and no file can claim more than MAX_BYTES of
memory.
"""

import gzip
import math
import os
import pickle
import pickletools
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 2**32  # per array, uncompressed: three times CIFAR-10 as float64
CIFAR_PIXELS = 3 * 32 * 32

# What the parsers of the standard library and numpy raise on hostile or damaged files.
_FAULTS = (
    OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError,
    MemoryError, SyntaxError, ImportError, struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError,
    pickle.UnpicklingError,
)  # fmt: skip


class DataError(ValueError):
    """A data set that is missing, malformed or too small: one line with what was found and what is
    expected.
    """


@contextmanager
def _parsing(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a parser raises into one DataError naming the path."""
    try:
        if not os.path.isfile(path):  # also refuses pipes and devices, which would block
            raise DataError(f"{path}: no such file; expected {expected}")
        yield
    except DataError:
        raise
    except _FAULTS as error:
        found = " ".join(str(error).split())[:200] or "damaged or too large"
        raise DataError(f"{path}: {type(error).__name__}: {found}; expected {expected}") from error


def read_npz(path: Path, layouts: tuple[tuple[str, ...], ...]) -> dict[str, np.ndarray]:
    """Arrays of the first of `layouts` whose first two names the archive holds, with the other two where
    present.

    Raises DataError for anything but a .npz of plain numeric arrays of at most MAX_BYTES each.
    """
    expected = _npz_expected(layouts)
    with _parsing(path, expected), zipfile.ZipFile(path) as archive:
        members, layout = _members(archive, path, layouts)
        arrays = {}
        for name in (name for name in layout if name in members):
            if members[name].file_size > MAX_BYTES:
                raise DataError(
                    f"{path}: {name} unpacks to {members[name].file_size} bytes; allowed are {MAX_BYTES}"
                )
            with archive.open(members[name]) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
                if stream.read(1):  # reaching the end also checks the member's checksum
                    raise DataError(f"{path}: {name} goes on after its last number; expected {expected}")
            if arrays[name].dtype.kind not in "buif":
                raise DataError(f"{path}: {name} has dtype {arrays[name].dtype}; expected integers or floats")
        return arrays


def npz_shape(path: Path, layouts: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    """Shape of the first array of the layout that `read_npz` would take, from its header alone. Raises
    DataError.
    """
    with _parsing(path, _npz_expected(layouts)), zipfile.ZipFile(path) as archive:
        members, layout = _members(archive, path, layouts)
        with archive.open(members[layout[0]]) as stream:
            version = np.lib.format.read_magic(stream)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            return header[version](stream)[0]


def _npz_expected(layouts: tuple[tuple[str, ...], ...]) -> str:
    return f"a .npz with numeric arrays {' or '.join(', '.join(names[:2]) for names in layouts)}"


def _members(
    archive: zipfile.ZipFile, path: Path, layouts: tuple[tuple[str, ...], ...]
) -> tuple[dict[str, zipfile.ZipInfo], tuple[str, ...]]:
    """The members of an archive by name, and the first layout whose first two names are among them."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    layout = next((names for names in layouts if set(names[:2]) <= set(members)), None)
    if layout is None:
        found = ", ".join(sorted(members)[:8]) or "nothing"
        raise DataError(f"{path}: holds {found}; expected {_npz_expected(layouts)}")
    return members, layout


def read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """Unsigned bytes (N, *item) of an IDX file, gzipped if its name ends in .gz. Raises DataError."""
    expected = f"an IDX file of unsigned bytes of shape (N{''.join(f', {size}' for size in item)})"
    with _parsing(path, expected), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        zeros, kind, ndim = struct.unpack(">HBB", stream.read(4))
        if (zeros, kind, ndim) != (0, 8, 1 + len(item)):
            raise DataError(
                f"{path}: magic number {zeros << 16 | kind << 8 | ndim:#010x}; expected {expected}"
            )
        shape = struct.unpack(f">{ndim}I", stream.read(4 * ndim))
        size = math.prod(shape)
        if shape[1:] != item or size > MAX_BYTES:
            raise DataError(f"{path}: shape {shape}; expected {expected} of at most {MAX_BYTES} bytes")
        content = stream.read(size + 1)  # never more than the header announces, however far the file unpacks
        if len(content) != size:
            found = "more" if len(content) > size else f"{len(content)} bytes"
            raise DataError(f"{path}: {found} after a header announcing {size} bytes; expected {expected}")
        return np.frombuffer(content, np.uint8).reshape(shape)


def read_cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3072) bytes and (N,) labels of one batch of the binary version. Raises DataError."""
    record = 1 + CIFAR_PIXELS
    expected = f"records of {record} bytes (label, pixels)"
    with _parsing(path, expected):
        content = _small_file(path)
        if not content or len(content) % record:
            raise DataError(f"{path}: {len(content)} bytes; expected {expected}")
        rows = np.frombuffer(content, np.uint8).reshape(-1, record)
        return rows[:, 1:], rows[:, 0]


def read_cifar_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3072) bytes and (N,) labels of one batch of the python version, unpickled inertly. Raises
    DataError.
    """
    with _parsing(path, "a CIFAR-10 python batch: a dict with data (N, 3072) of unsigned bytes and N labels"):
        content = _small_file(path)
        memo = (
            argument or 0
            for opcode, argument, _ in pickletools.genops(content)
            if opcode.name.endswith("PUT")
        )
        if max(memo, default=0) > len(content):  # unpickling allocates the memo up to its highest index
            raise ValueError("memo indices beyond the size of the file")
        batch = _InertUnpickler(BytesIO(content), encoding="bytes").load()
        entries = {_bytes(key): value for key, value in batch.items()}
        images, labels = _uint8_array(entries[b"data"]), np.asarray(entries[b"labels"])
        if images.ndim != 2 or images.shape[1] != CIFAR_PIXELS:
            raise ValueError(f"data of shape {images.shape}")
        return images, labels


def _small_file(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes")
    return path.read_bytes()


class _Record:
    """Stands for a global named in a pickle, and for the result of calling it: remembers, does nothing."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.args = args
        self.state: Any = None

    def __call__(self, *args: Any) -> "_Record":
        return _Record(self.name, args)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Builds containers, strings, numbers and records of the four names an array needs; refuses every other
    name.
    """

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full not in (
            "numpy.core.multiarray._reconstruct",
            "numpy.ndarray",
            "numpy.dtype",
            "_codecs.encode",
        ):
            raise pickle.UnpicklingError(
                f"it names {full}, and a pickle here may name nothing but numpy arrays"
            )
        return _Record(full)  # not numpy's own constructor, which is not made for hostile arguments


def _uint8_array(record: _Record) -> np.ndarray:
    """The array a record describes: state (version, shape, dtype, Fortran order, bytes)."""
    _, shape, dtype, fortran, content = record.state
    if record.name != "numpy.core.multiarray._reconstruct" or dtype.args[0] not in ("u1", b"u1"):
        raise ValueError("data is no array of unsigned bytes")
    return np.frombuffer(_bytes(content), np.uint8).reshape(shape, order="F" if fortran else "C")


def _bytes(value: Any) -> Any:
    """Bytes as they are, or from the latin1 string or call of _codecs.encode that old protocols have in their
    place.
    """
    text = value.args[0] if isinstance(value, _Record) else value
    return text.encode("latin1") if isinstance(text, str) else text
