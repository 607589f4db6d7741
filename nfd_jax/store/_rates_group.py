"""The group /rates, the one part of a store that is replaced: at any moment all of it is seen, or nothing.

A reader finds the group through the root's metadata, so that file alone says whether it is there.
"""

import json
import os
import shutil
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

RECORD = "batches/rates.json"


def write_rates(directory: Path, root: Path, building: Path, dataset: xr.Dataset) -> None:
    """Replaces the group below `root`; `building` is a folder to build it in. TypeError for odd dtypes."""
    nodes = {"rates": group_metadata(dataset.attrs)}
    chunks = {}
    beside = " ".join(str(name) for name in dataset.coords if name not in dataset.dims)
    for name, variable in dataset.variables.items():
        data = variable.values if variable.dtype.kind in "fiu" else variable.values.astype(str)
        attributes = variable.attrs | ({"coordinates": beside} if name in dataset.data_vars and beside else {})
        dims = tuple(map(str, variable.dims))
        nodes[f"rates/{name}"] = array_metadata(dims, data.shape, data.shape, data.dtype, attributes)
        chunks[f"rates/{name}/c.{'.'.join('0' * data.ndim)}"] = encode(data)
    files = metadata_files(nodes) | chunks
    drop_rates(directory, root)
    shutil.rmtree(building, ignore_errors=True)
    write_tree(building, files)
    os.rename(building / "rates", root / "rates")
    os.rmdir(building)
    sync_folder(root)
    base = json.loads((root / "zarr.json").read_bytes())
    base["consolidated_metadata"]["metadata"] |= nodes
    record = {"files": {path: sha256(raw) for path, raw in files.items()}, "root": sha256(to_json(base))}
    write({directory / RECORD: sealed(record)})
    write({root / "zarr.json": to_json(base)})


def drop_rates(directory: Path, root: Path) -> None:
    """Takes the group out again."""
    base = without_rates(read(root / "zarr.json"))
    if base is not None:
        write({root / "zarr.json": base})
    remove([directory / RECORD])
    shutil.rmtree(root / "rates", ignore_errors=True)


def rates_state(directory: Path, root: Path) -> str:
    """ "absent", "sound" or "damaged"."""
    metadata = read(root / "zarr.json") or b""
    if metadata == without_rates(metadata):
        return "absent"
    record = unsealed(directory / RECORD)
    if record is None or sha256(metadata) != record["root"]:
        return "damaged"
    whole = all(sha256(read(root / path) or b"") == digest for path, digest in record["files"].items())
    return "sound" if whole else "damaged"


def without_rates(raw: bytes | None) -> bytes | None:
    """The root's metadata as before rates were added; None where it cannot be read."""
    try:
        node = json.loads(raw or b"")
        members = node["consolidated_metadata"]["metadata"]
        for path in [path for path in members if path == "rates" or path.startswith("rates/")]:
            del members[path]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return to_json(node)
