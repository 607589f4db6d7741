"""Archives of numpy arrays, which are believed only where their sizes agree: members of the archive, headers
of the arrays and the file itself. What is allocated is at most DEFLATE_RATIO times the file, and MAX_BYTES.
"""

import math
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from nfd_jax.data import _files
from nfd_jax.data._files import DataError, parsing, shown, unpackable

MAX_MEMBERS = 64
MAX_DIRECTORY = 2**20
"""Bytes of the list of an archive's members; each entry becomes an object of many times its size."""

MAX_HEADER = 2048
"""Bytes of an array's header; of plain numbers it has about 120. Longer ones are not safe to parse."""

_CHUNK = 2**20
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_LENGTHS = {(1, 0): "<H", (2, 0): "<I"}
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Layouts = tuple[tuple[str, ...], ...]


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(path: Path, layouts: Layouts) -> dict[str, np.ndarray]:
    """Arrays of the first of `layouts` whose first two names the archive holds, with the other two where
    present.

    Raises DataError for anything but a .npz of plain numeric arrays of at most MAX_BYTES together.
    """
    expected = _expected(layouts)
    with parsing(path, expected), _archive(path) as archive:
        members, layout = _members(archive, path, layouts)
        return {name: _read(archive, members[name], path, name) for name in layout if name in members}


def npz_shape(path: Path, layouts: Layouts) -> tuple[int, ...]:
    """Shape of the first array of the layout that `read_npz` would take, from its header alone. Raises
    DataError.
    """
    with parsing(path, _expected(layouts)), _archive(path) as archive:
        members, layout = _members(archive, path, layouts)
        with archive.open(members[layout[0]]) as stream:
            return _header(stream, members[layout[0]], path, layout[0]).shape


def _expected(layouts: Layouts) -> str:
    return f"a .npz with numeric arrays {' or '.join(', '.join(names[:2]) for names in layouts)}"


class _Directory:
    """A file as zipfile sees it, which hands out no more than MAX_DIRECTORY bytes at a time."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(MAX_DIRECTORY + 1 if size < 0 else min(size, MAX_DIRECTORY + 1))
        if len(found) > MAX_DIRECTORY:
            raise ValueError(f"a list of members of more than {MAX_DIRECTORY} bytes")
        return found

    def seekable(self) -> bool:
        return True


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with path.open("rb") as stream, zipfile.ZipFile(_Directory(stream)) as archive:  # type: ignore[arg-type]
        yield archive


def _members(
    archive: zipfile.ZipFile, path: Path, layouts: Layouts
) -> tuple[dict[str, zipfile.ZipInfo], tuple[str, ...]]:
    """The members of an archive by name, and the first layout whose first two names are among them; those of
    the layout have been checked.
    """
    listed = archive.infolist()
    if len(listed) > MAX_MEMBERS:
        raise DataError(f"{path}: {len(listed)} members; allowed are {MAX_MEMBERS}: keep the arrays it needs")
    members = {info.filename.removesuffix(".npy"): info for info in listed}
    layout = next((names for names in layouts if set(names[:2]) <= set(members)), None)
    if layout is None:
        found = ", ".join(map(shown, sorted(members)[:8])) or "nothing"
        raise DataError(f"{path}: holds {found}; expected {_expected(layouts)}")
    used = {name: members[name] for name in layout if name in members}
    for name, info in used.items():
        _check_member(info, path, name)
    total = sum(info.file_size for info in used.values())
    if total > _files.MAX_BYTES:
        raise DataError(f"{path}: {', '.join(used)} unpack to {total} bytes; allowed are {_files.MAX_BYTES}")
    return members, layout


def _check_member(info: zipfile.ZipInfo, path: Path, name: str) -> None:
    if info.flag_bits & 1:
        raise DataError(f"{path}: {name} is encrypted; expected arrays as numpy.savez writes them")
    if info.compress_type not in _METHODS:
        allowed = " or ".join(_METHODS.values())
        raise DataError(f"{path}: {name} is packed by method {info.compress_type}; expected {allowed}")
    packed, stored = info.compress_size, info.compress_type == zipfile.ZIP_STORED
    fits = info.file_size == packed if stored else unpackable(info.file_size, packed)
    if not fits or info.header_offset + packed > os.path.getsize(path):
        raise DataError(
            f"{path}: {name} claims {info.file_size} bytes, packed {packed}, which the file cannot hold;"
            " expected sizes that are true: write it anew with numpy.savez"
        )


def _header(stream: IO[bytes], info: zipfile.ZipInfo, path: Path, name: str) -> _Header:
    """What an array says of itself, if its numbers are exactly what is left of the member."""
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"{name} has version {version} of the format, which plain numbers do not need")
    field = stream.read(struct.calcsize(_LENGTHS[version]))
    (length,) = struct.unpack(_LENGTHS[version], field)
    if length > MAX_HEADER:
        raise ValueError(f"{name} has a header of {length} bytes, allowed are {MAX_HEADER}")
    text = BytesIO(field + stream.read(length))
    header = _Header(*_READERS[version](text, max_header_size=MAX_HEADER))
    if header.dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded, for they are pickles")
    if header.dtype.kind not in "buif":
        found = shown(str(header.dtype))
        raise DataError(f"{path}: {name} has dtype {found}; expected integers or floats")
    if min(header.shape, default=1) < 1:
        shape = shown(str(header.shape), 80)
        raise DataError(f"{path}: {name} has shape {shape}; expected sizes of at least 1")
    left = info.file_size - np.lib.format.MAGIC_LEN - len(field) - length
    if header.size < left:
        raise DataError(f"{path}: {name} goes on after its last number; expected {header.size} bytes of them")
    if header.size > left:
        shape = shown(str(header.shape), 80)
        raise DataError(f"{path}: {name} has {left} bytes; expected {header.size}, for its shape is {shape}")
    return header


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> np.ndarray:
    with archive.open(info) as stream:
        header = _header(stream, info, path, name)
        content = np.empty(header.size, np.uint8)
        for start in range(0, header.size, _CHUNK):
            piece = memoryview(content)[start : start + _CHUNK]
            if (found := stream.read(len(piece))) and len(found) == len(piece):
                piece[:] = found
            else:
                raise EOFError(f"{name} ends early")
        if stream.read(1):  # reaching the end also checks the member's checksum
            raise ValueError(f"{name} goes on after its last number")
    return content.view(header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
