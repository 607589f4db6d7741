"""Reading a store: every array in memory, and nothing in it that is not what was committed."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from nfd_jax.names import PENDING
from nfd_jax.store._batch import Batch, describe
from nfd_jax.store._derived import DAMAGED, derived_state
from nfd_jax.store._errors import StoreError, reporting
from nfd_jax.store._layout import CELL, layout
from nfd_jax.store._records import (
    BATCHES,
    MANIFEST,
    NEXT,
    RESULTS,
    Examined,
    Manifest,
    batch_of,
    examine,
    read_record,
    swapping,
)
from nfd_jax.store._zarr import CHECKSUM, decode, dtype_of, metadata_files, read, sha256


class Stored(NamedTuple):
    """A stored batch: arrays that it computed, and how to read the same part of what it computes again."""

    batch: Batch
    arrays: list[tuple[str, tuple[str, ...], tuple[slice, ...], np.ndarray]]
    """Of each chunk the array's name, its dims, its place in the batch's own array and its numbers."""


def stored_batches(path: str | os.PathLike[str]) -> list[Batch]:
    """Batches of DIR that are stored, in the plan's order; none where there is no store."""
    return [found.batch for found in _whole(Path(path))]


def read_batches(path: str | os.PathLike[str], batches: Iterable[Batch]) -> Iterator[Stored]:
    """The numbers of some of DIR's stored batches."""
    directory, wanted = Path(path), set(batches)
    manifest = Manifest.load(directory)
    if manifest is None:
        return
    described = _described(directory / RESULTS, manifest, manifest.flaws(directory / RESULTS))
    for found in _whole(directory):
        if found.batch not in wanted:
            continue
        nodes, arrays = described.nodes, []
        for chunk, raw in found.contents:
            dims, dtype = manifest.grid.dims[chunk.array], np.dtype(nodes[chunk.array]["data_type"])
            sizes = nodes[chunk.array]["chunk_grid"]["configuration"]["chunk_shape"]
            arrays.append((chunk.array, dims, chunk.within, decode(raw, dtype, tuple(sizes))))
        yield Stored(found.batch, arrays)


def cell_states(path: str | os.PathLike[str]) -> np.ndarray | None:
    """The state of every run of DIR, flat, as it is this moment and unchecked: what another process stores
    meanwhile is seen. None where there is no store, or not yet."""
    directory = Path(path)
    manifest = Manifest.load(directory)
    if manifest is None:
        return None
    runs, found = manifest.grid.chunk_bytes[CELL] - CHECKSUM, []
    for chunk in (chunk for chunks in manifest.chunks.values() for chunk in chunks if chunk.array == CELL):
        raw = read(directory / RESULTS / chunk.path) or b""
        sound = len(raw) == runs + CHECKSUM
        found.append(decode(raw, np.dtype("int8"), (runs,)) if sound else np.full(runs, int(PENDING), "int8"))
    return np.concatenate(found) if found else np.zeros(0, "int8")


def failed_batches(path: str | os.PathLike[str]) -> list[str]:
    """A line for each batch of DIR that failed, with its error."""
    folder = Path(path) / BATCHES
    records = map(read_record, sorted(folder.glob("*.json")) if folder.is_dir() else ())
    failed = [record for record in records if record is not None and record["status"] == "failed"]
    return [f"{describe(batch_of(record))}: {record.get('error')}" for record in failed]


def _whole(directory: Path) -> list[Examined]:
    manifest = Manifest.load(directory)
    examined = examine(directory, directory / RESULTS, manifest) if manifest else ()
    return [found for found in examined if found.record is not None and found.record["status"] == "done"]


def open_results(path: str | os.PathLike[str], *, strict: bool = False, derived: bool = True) -> xr.DataTree:
    """The results in DIR or DIR/results.zarr, in memory, every file checked against its checksum.

    Numbers that are not those stored are never returned: cells that are not stored, or found damaged, are NaN
    with status 0. One UserWarning names all that is damaged or lost; `strict` makes it a StoreError. Without
    `derived` /rates and /verdicts are left out. Raises StoreError where there are no results, or nothing to
    read them by.
    """
    directory = Path(path)
    directory = directory.parent if directory.name == RESULTS else directory
    with reporting(directory):
        newer = directory / NEXT  # a complete store whose swap was cut short
        half = swapping(directory)
        root = (newer if half and (newer / RESULTS).exists() else directory) / RESULTS
        manifest = Manifest.load(newer if half else directory)
        if manifest is None:
            if not root.exists():
                raise StoreError(f"{directory}: no results; allowed: a folder that nfd run has written")
            found = f"{MANIFEST} is damaged"
            raise StoreError(
                f"{directory}: {found}; nfd run with the same config writes it anew, stored cells are kept"
            )
        damaged = [f"{RESULTS}/{file}" for file in manifest.flaws(root)]
        described = _described(root, manifest, damaged)
        groups = {"/": xr.Dataset(attrs=described.attributes)} | _groups(directory, root, described, damaged)
        state, concluded = derived_state(directory, root) if derived else ("", ())
        try:
            for group in concluded:
                with xr.open_dataset(root, engine="zarr", group=group) as stored:
                    groups[group] = stored.load()
        except (KeyError, ValueError):  # its files changed while they were read
            state = "damaged"
            groups = {name: dataset for name, dataset in groups.items() if name not in concluded}
        if state == "damaged":
            damaged.append(DAMAGED)
    if damaged:
        told = f"{directory}: damaged, left out until nfd run computes it again: {'; '.join(damaged)}"
        if strict:
            raise StoreError(told)
        warnings.warn(told, stacklevel=2)
    return xr.DataTree.from_dict(groups)


class _Described(NamedTuple):
    """A store's manifest, metadata by path, coordinates' files and attributes of the root."""

    manifest: Manifest
    nodes: dict[str, dict]
    files: dict[str, bytes]
    attributes: dict


def _described(root: Path, manifest: Manifest, damaged: list[str]) -> _Described:
    """What describes the arrays: as stored, or where that is damaged made again from the config among the
    attributes. StoreError where there is none."""
    if not damaged:
        files = {path: read(root / path) or b"" for path in manifest.files}
        node = json.loads(files["zarr.json"])
        return _Described(manifest, node["consolidated_metadata"]["metadata"], files, node["attributes"])
    from nfd_jax.config import SweepConfig

    try:
        config, size = SweepConfig.from_yaml(manifest.attributes["config"]), manifest.outputs
        again = layout(config, manifest.grid.axes, outputs=size, attributes=manifest.attributes)
    except (KeyError, ValueError, TypeError, AttributeError):
        again = None
    files = {} if again is None else metadata_files(again.nodes) | again.files
    if {path: sha256(raw) for path, raw in files.items()} != manifest.files:
        raise StoreError(
            f"{root}: {', '.join(damaged)} damaged; "
            "nfd run with the same config repairs it, stored cells are kept"
        )
    return _Described(manifest, again.nodes, files, manifest.attributes)


def _groups(directory: Path, root: Path, described: _Described, damaged: list[str]) -> dict[str, xr.Dataset]:
    """The measured groups; `damaged` gets a line for each batch that is left out."""
    manifest, nodes = described.manifest, described.nodes
    arrays = {
        name: np.full(
            nodes[name]["shape"], int(PENDING) if name == CELL else np.nan, nodes[name]["data_type"]
        )
        for name in manifest.grid.dims
    }
    for examined in examine(directory, root, manifest):
        damaged += examined.damaged
        for chunk, raw in examined.contents:
            part = arrays[chunk.array][chunk.place]
            part[...] = decode(raw, part.dtype, part.shape)
    groups: dict[str, dict[str, tuple]] = {}
    for name, array in arrays.items():
        group, variable = name.split("/")
        groups.setdefault(group, {})[variable] = (manifest.grid.dims[name], array, nodes[name]["attributes"])
    return {
        group: xr.Dataset(variables, _coordinates(group, described)) for group, variables in groups.items()
    }


def _coordinates(group: str, described: _Described) -> dict[str, tuple]:
    found = {}
    for path, raw in described.files.items():
        own, _, rest = path.partition("/")
        dim, _, file = rest.partition("/")
        if own == group and file.startswith("c."):
            node = described.nodes[f"{group}/{dim}"]
            values = decode(raw, dtype_of(node), tuple(node["shape"]))
            found[dim] = (dim, values, node["attributes"])
    return found
