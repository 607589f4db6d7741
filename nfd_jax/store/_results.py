"""Reading a store: every array in memory, and nothing in it that is not what was committed."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

from nfd_jax.store._errors import StoreError, reporting
from nfd_jax.store._layout import PENDING
from nfd_jax.store._rates_group import rates_state
from nfd_jax.store._records import MANIFEST, NEXT, RESULTS, Manifest, examine
from nfd_jax.store._zarr import decode


def open_results(path: str | os.PathLike[str]) -> xr.DataTree:
    """The results in DIR or DIR/results.zarr, in memory, every file checked against its checksum.

    Cells that are not stored, or found damaged, are NaN with status 0; a UserWarning names the damaged ones. Raises
    StoreError where there are no results or their metadata is damaged.
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
            raise StoreError(f"{directory}: {found}; nfd run with the same config writes it, stored cells are kept")
        if flaws := manifest.flaws(root):
            listed = ", ".join(flaws)
            raise StoreError(f"{root}: {listed} damaged; nfd run with the same config repairs it, stored cells are kept")
        metadata = json.loads((root / "zarr.json").read_bytes())
        nodes = metadata["consolidated_metadata"]["metadata"]
        arrays = {
            name: np.full(nodes[name]["shape"], PENDING if name == "status/cell" else np.nan, nodes[name]["data_type"])
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
        rates = rates_state(directory, root)
        if rates == "sound":
            with xr.open_dataset(root, engine="zarr", group="rates") as stored:
                groups["rates"] = stored.load()
        elif rates == "damaged":
            damaged.append("rates")
    if damaged:
        listed = "; ".join(damaged)
        warnings.warn(f"{directory}: damaged, left out until nfd run computes it again: {listed}", stacklevel=2)
    # xarray takes the variable `output` for a coordinate, as a dimension has its name, and means over seeds would drop it
    return xr.DataTree.from_dict({name: ds.reset_coords({"output"} & set(ds.coords)) for name, ds in groups.items()})
