"""The bytes of a zarr v3 hierarchy: metadata as JSON, one file a chunk, every file replaced atomically.

Chunks are written here and not through zarr because a commit must know its files, order them and hash them. A
chunk is the array's bytes, uncompressed (small files of rounding-level noise do not compress), with zarr's
crc32c behind them so that any reader refuses a damaged one.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import google_crc32c
import numpy as np

CHECKSUM = 4
"""Bytes of a chunk's checksum."""


def array_metadata(
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype,
    attributes: Mapping,
) -> dict:
    """A node of an array; strings are fixed-length UTF-32. `TypeError` for anything but numbers and
    strings."""
    match dtype.kind:
        case "U":
            name, fill = {"name": "fixed_length_utf32", "configuration": {"length_bytes": dtype.itemsize}}, ""
        case "f":
            name, fill = dtype.name, "NaN"
        case "i" | "u":
            name, fill = dtype.name, 0
        case _:
            raise TypeError(
                f"{'/'.join(dims)}: dtype {dtype} cannot be stored; only floats, integers and strings can"
            )
    endian = {"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n) for n in chunks]}},
        # "." keeps an array's chunks in one folder: one fsync instead of one per dimension and index
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": [{"name": "bytes", **endian}, {"name": "crc32c"}],
        "attributes": dict(attributes),
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def group_metadata(attributes: Mapping) -> dict:
    """A node of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def metadata_files(nodes: Mapping[str, dict]) -> dict[str, bytes]:
    """`zarr.json` of every node by its path. Groups carry their members' metadata, which spares readers the
    search."""
    files = {}
    for path, node in nodes.items():
        if node["node_type"] == "group":
            prefix = f"{path}/" if path else ""
            members = {
                p.removeprefix(prefix): n for p, n in nodes.items() if p != path and p.startswith(prefix)
            }
            node = node | {
                "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": members},
            }
        files[f"{path}/zarr.json".lstrip("/")] = to_json(node)
    return files


def encode(data: np.ndarray) -> bytes:
    """A chunk's file: little-endian bytes in C order and their crc32c."""
    raw = np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()
    return raw + google_crc32c.value(raw).to_bytes(4, "little")


def dtype_of(node: Mapping) -> np.dtype:
    """The dtype that a node of an array stands for."""
    kind = node["data_type"]
    return np.dtype(kind if isinstance(kind, str) else f"<U{kind['configuration']['length_bytes'] // 4}")


def file_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Length of a chunk's file."""
    return math.prod(shape) * dtype.itemsize + CHECKSUM


def decode(raw: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a chunk file known to be whole."""
    return np.frombuffer(raw[:-CHECKSUM], dtype.newbyteorder("<")).reshape(shape)


def sha256(data: bytes) -> str:
    """Checksum of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def to_json(content: object) -> bytes:
    """JSON, the same bytes for the same content."""
    return json.dumps(content).encode()


def sealed(content: dict) -> bytes:
    """JSON that carries its own checksum."""
    return to_json({"sha256": sha256(to_json(content)), "content": content})


def unsealed(path: Path) -> dict | None:
    """Content of a sealed file; None where it is absent or not what was written."""
    raw = read(path)
    try:
        found = json.loads(raw) if raw is not None else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {"sha256", "content"}:
        return None
    content = found["content"]
    return content if isinstance(content, dict) and sealed(content) == raw else None


def read(path: Path) -> bytes | None:
    """A file's bytes; None where there is no such file, or something else, like a folder, a pipe or a link
    in a circle. Other errors (permissions, the medium) are raised."""
    try:
        return path.read_bytes() if path.is_file() else None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def write(files: Mapping[Path, bytes]) -> None:
    """Writes files durably and atomically: temporary file, fsync, rename, then the folders; in threads, as
    fsync waits."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_replace, files.keys(), files.values()))
        list(pool.map(sync_folder, {path.parent for path in files}))


def write_tree(root: Path, files: Mapping[str, bytes]) -> None:
    """Writes files below `root`, with their folders."""
    for folder in {(root / path).parent for path in files}:
        folder.mkdir(parents=True, exist_ok=True)
    write({root / path: raw for path, raw in files.items()})


def remove(paths: Iterable[Path]) -> None:
    """Removes files durably, and an empty folder that stands in a file's place; a full one raises OSError."""
    paths = list(paths)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            os.rmdir(path)
        else:
            path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths if path.parent.exists()}:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Makes renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666), "wb"
        ) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
