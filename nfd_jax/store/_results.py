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
from nfd_jax.store._batch import Batch
from nfd_jax.store._derived import DAMAGED, derived_state
from nfd_jax.store._errors import StoreError, reporting
from nfd_jax.store._layout import CELL
from nfd_jax.store._records import MANIFEST, NEXT, RESULTS, Examined, Manifest, examine
from nfd_jax.store._zarr import decode


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
    for found in _whole(directory):
        if manifest is None or found.batch not in wanted:
            continue
        metadata = json.loads((directory / RESULTS / "zarr.json").read_bytes())
        nodes, arrays = metadata["consolidated_metadata"]["metadata"], []
        for chunk, raw in found.contents:
            dims, dtype = manifest.grid.dims[chunk.array], np.dtype(nodes[chunk.array]["data_type"])
            sizes = nodes[chunk.array]["chunk_grid"]["configuration"]["chunk_shape"]
            arrays.append((chunk.array, dims, chunk.within, decode(raw, dtype, tuple(sizes))))
        yield Stored(found.batch, arrays)


def _whole(directory: Path) -> list[Examined]:
    manifest = Manifest.load(directory)
    examined = examine(directory, directory / RESULTS, manifest) if manifest else ()
    return [found for found in examined if found.record is not None and found.record["status"] == "done"]


def open_results(path: str | os.PathLike[str]) -> xr.DataTree:
    """The results in DIR or DIR/results.zarr, in memory, every file checked against its checksum.

    Cells that are not stored, or found damaged, are NaN with status 0; a UserWarning names the damaged ones.
    Raises StoreError where there are no results or their metadata is damaged.
    """
    directory = Path(path)
    directory = directory.parent if directory.name == RESULTS else directory
    with reporting(directory):
        newer = directory / NEXT  # a complete store whose swap was cut short
        swapping = (newer / MANIFEST).exists()
        root = (newer if swapping and (newer / RESULTS).exists() else directory) / RESULTS
        manifest = Manifest.load(newer if swapping else directory)
        if manifest is None:
            found = "store.json is damaged" if root.exists() else "no results"
            raise StoreError(
                f"{directory}: {found}; nfd run with the same config writes it, stored cells are kept"
            )
        if flaws := manifest.flaws(root):
            listed = ", ".join(flaws)
            raise StoreError(
                f"{root}: {listed} damaged; nfd run with the same config repairs it, stored cells are kept"
            )
        metadata = json.loads((root / "zarr.json").read_bytes())
        nodes = metadata["consolidated_metadata"]["metadata"]
        arrays = {
            name: np.full(
                nodes[name]["shape"], int(PENDING) if name == CELL else np.nan, nodes[name]["data_type"]
            )
            for name in manifest.grid.dims
        }
        damaged: list[str] = []
        for examined in examine(directory, root, manifest):
            damaged += examined.damaged
            for chunk, raw in examined.contents:
                part = arrays[chunk.array][chunk.place]
                part[...] = decode(raw, part.dtype, part.shape)
        groups = {"/": xr.Dataset(attrs=metadata["attributes"])}
        for group in dict.fromkeys(name.split("/")[0] for name in arrays):
            checked = {
                name.split("/")[1]: (manifest.grid.dims[name], array, nodes[name]["attributes"])
                for name, array in arrays.items()
                if name.startswith(f"{group}/")
            }
            with xr.open_dataset(root, engine="zarr", group=group) as stored:
                groups[group] = stored.drop_vars(checked).load().assign(checked)
        state, derived = derived_state(directory, root)
        for group in derived:
            with xr.open_dataset(root, engine="zarr", group=group) as stored:
                groups[group] = stored.load()
        if state == "damaged":
            damaged.append(DAMAGED)
    if damaged:
        listed = "; ".join(damaged)
        warnings.warn(
            f"{directory}: damaged, left out until nfd run computes it again: {listed}", stacklevel=2
        )
    return xr.DataTree.from_dict(groups)
