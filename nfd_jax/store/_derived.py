"""The derived groups, /rates and /verdicts, which alone are ever replaced: at any moment all of them are
seen, or none.

A reader finds the groups through the root's metadata, so that file alone says whether it is there.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import xarray as xr

from nfd_jax.store._zarr import (
    array_metadata,
    encode,
    group_metadata,
    metadata_files,
    read,
    remove,
    sealed,
    sha256,
    sync_folder,
    to_json,
    unsealed,
    write,
    write_tree,
)

RECORD = "batches/derived.json"

DERIVED = ("rates", "verdicts")
"""Their names, which no measured group has."""

DAMAGED = "derived groups"
"""What lists of damage call them."""


def write_derived(
    directory: Path, root: Path, building: Path, groups: Mapping[str, xr.Dataset], batches: Iterable[str]
) -> None:
    """Replaces the groups below `root`; `building` is a folder to build them in, `batches` are the ids of
    those they were concluded from. TypeError for odd dtypes."""
    nodes: dict[str, dict] = {}
    chunks: dict[str, bytes] = {}
    for group, dataset in groups.items():
        more, own = _encoded(group, dataset)
        nodes |= more
        chunks |= own
    files = metadata_files(nodes) | chunks
    drop_derived(directory, root)
    shutil.rmtree(building, ignore_errors=True)
    write_tree(building, files)
    for group in groups:
        shutil.rmtree(root / group, ignore_errors=True)
        os.rename(building / group, root / group)
    os.rmdir(building)
    sync_folder(root)
    base = json.loads((root / "zarr.json").read_bytes())
    base["consolidated_metadata"]["metadata"] |= nodes
    hashes = {path: sha256(raw) for path, raw in files.items()}
    record = {
        "groups": list(groups),
        "files": hashes,
        "root": sha256(to_json(base)),
        "batches": sorted(batches),
    }
    write({directory / RECORD: sealed(record)})
    write({root / "zarr.json": to_json(base)})


def _encoded(group: str, dataset: xr.Dataset) -> tuple[dict[str, dict], dict[str, bytes]]:
    """A group's metadata and chunks by their paths."""
    nodes = {group: group_metadata(dataset.attrs)}
    chunks = {}
    beside = " ".join(str(name) for name in dataset.coords if name not in dataset.dims)
    for name, variable in dataset.variables.items():
        data = variable.values if variable.dtype.kind in "fiu" else variable.values.astype(str)
        attributes = variable.attrs | (
            {"coordinates": beside} if name in dataset.data_vars and beside else {}
        )
        dims = tuple(map(str, variable.dims))
        nodes[f"{group}/{name}"] = array_metadata(dims, data.shape, data.shape, data.dtype, attributes)
        chunks[f"{group}/{name}/c.{'.'.join('0' * data.ndim)}"] = encode(data)
    return nodes, chunks


def drop_derived(directory: Path, root: Path) -> None:
    """Takes the groups out again."""
    base = without_derived(read(root / "zarr.json"))
    if base is not None:
        write({root / "zarr.json": base})
    remove([directory / RECORD])
    for group in DERIVED:
        shutil.rmtree(root / group, ignore_errors=True)


def derived_state(directory: Path, root: Path) -> tuple[str, list[str]]:
    """ "absent", "sound" or "damaged", and the names of the groups."""
    metadata = read(root / "zarr.json") or b""
    record = _record(directory)
    base = without_derived(metadata)
    if metadata == base or (base is None and record is None):
        return "absent", []
    if record is None or sha256(metadata) != record["root"]:
        return "damaged", []
    whole = all(sha256(read(root / path) or b"") == digest for path, digest in record["files"].items())
    return ("sound", record["groups"]) if whole else ("damaged", [])


def concluded_from(directory: Path) -> set[str]:
    """Ids of the batches that the derived groups were concluded from; none where that is not known."""
    record = _record(directory)
    return set(record["batches"]) if record else set()


def _record(directory: Path) -> dict | None:
    record = unsealed(directory / RECORD)
    kinds = {"groups": list, "files": dict, "root": str, "batches": list}
    if record is None or not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
        return None
    words = [*record["groups"], *record["batches"], *record["files"].values()]
    return (
        record
        if all(isinstance(word, str) for word in words) and set(record["groups"]) <= set(DERIVED)
        else None
    )


def without_derived(raw: bytes | None) -> bytes | None:
    """The root's metadata as before any were added; None where it cannot be read."""
    try:
        node = json.loads(raw or b"")
        members = node["consolidated_metadata"]["metadata"]
        for path in [path for path in members if path.split("/")[0] in DERIVED]:
            del members[path]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return to_json(node)
