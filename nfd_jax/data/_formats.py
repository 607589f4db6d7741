"""IDX files and CIFAR-10's binary batches to numpy arrays."""

import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from nfd_jax.data import _files
from nfd_jax.data._files import DataError, parsing, unpackable

CIFAR_PIXELS = 3 * 32 * 32
MAX_BATCH = 2**28
"""Bytes of a file of one CIFAR-10 batch: eight times what it has, as a pickle in text has four."""

_CHUNK, _MAX_PARTS = 2**16, 2**12


def read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """Unsigned bytes (N, *item) of an IDX file, gzipped if its name ends in .gz. Raises DataError."""
    expected = f"an IDX file of unsigned bytes of shape (N{''.join(f', {size}' for size in item)})"
    with parsing(path, expected), path.open("rb") as stream:
        held = path.stat().st_size
        if held > _files.MAX_BYTES:
            raise DataError(f"{path}: {held} bytes; expected {expected} of at most {_files.MAX_BYTES} bytes")
        content = _Unpacked(stream) if path.suffix == ".gz" else stream
        zeros, kind, ndim = struct.unpack(">HBB", content.read(4))
        if (zeros, kind, ndim) != (0, 8, 1 + len(item)):
            raise DataError(
                f"{path}: magic number {zeros << 16 | kind << 8 | ndim:#010x}; expected {expected}"
            )
        shape = struct.unpack(f">{ndim}I", content.read(4 * ndim))
        size = math.prod(shape)
        if shape[1:] != item or size > _files.MAX_BYTES:
            raise DataError(f"{path}: shape {shape}; expected {expected} of at most {_files.MAX_BYTES} bytes")
        if not unpackable(size, held) if path.suffix == ".gz" else size > held:
            raise DataError(
                f"{path}: {held} bytes in all after a header announcing {size}; expected {expected}"
            )
        numbers = content.read(size + 1)  # never more than announced, however far the file unpacks
        if len(numbers) != size:
            found = "more" if len(numbers) > size else f"{len(numbers)} bytes"
            raise DataError(f"{path}: {found} after a header announcing {size} bytes; expected {expected}")
        return np.frombuffer(numbers, np.uint8).reshape(shape)


class _Unpacked:
    """A gzipped stream, unpacked no further than it is read. Python's own reads the name in a header byte by
    byte, and a chain of empty parts without an end.
    """

    def __init__(self, stream: IO[bytes]):
        self._stream, self._packed, self._parts = stream, b"", 0
        self._begin()

    def read(self, size: int) -> bytearray:
        """`size` bytes; fewer at the end of the stream, where checksums have been compared."""
        found = bytearray()
        while len(found) < size and not (self._part.eof and not self._next()):
            packed = self._packed or self._stream.read(_CHUNK)
            piece = self._part.decompress(packed, size - len(found))
            if not packed and not piece and not self._part.eof:
                raise EOFError("the gzipped stream ends early")
            found += piece
            self._given += len(piece)
            self._packed = self._part.unconsumed_tail or self._part.unused_data
        return found

    def _next(self) -> bool:
        """Go on to the next part of the stream; False where there is none."""
        self._packed = self._packed.lstrip(b"\0")  # padding
        while not self._packed and (packed := self._stream.read(_CHUNK)):
            self._packed = packed.lstrip(b"\0")
        if self._packed:
            if not self._given or self._parts == _MAX_PARTS:
                raise ValueError(f"a gzipped stream of empty parts, or of more than {_MAX_PARTS}")
            self._begin()
        return bool(self._packed)

    def _begin(self) -> None:
        self._part, self._given, self._parts = zlib.decompressobj(31), 0, self._parts + 1


def read_cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3072) bytes and (N,) labels of one batch of the binary version. Raises DataError."""
    record = 1 + CIFAR_PIXELS
    expected = f"records of {record} bytes (label, pixels)"
    with parsing(path, expected):
        content = read_batch(path)
        if not content or len(content) % record:
            raise DataError(f"{path}: {len(content)} bytes; expected {expected}")
        rows = np.frombuffer(content, np.uint8).reshape(-1, record)
        return rows[:, 1:], rows[:, 0]


def read_batch(path: Path) -> bytes:
    """All of a file of one CIFAR-10 batch. Raises ValueError where it is far larger than any."""
    if (size := path.stat().st_size) > MAX_BATCH:
        raise ValueError(f"{size} bytes, allowed are {MAX_BATCH}")
    with path.open("rb") as stream:
        return stream.read(size)
