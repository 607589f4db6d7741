"""How far a sweep is, read from its folder while another process may be writing to it."""

import json
from pathlib import Path

import xarray as xr

from nfd_jax.verdicts import counts


def members(folder: Path) -> dict[str, Path]:
    """Folders with results: {"": folder} for a sweep, name → sub-folder for one with variants; empty without
    any."""
    if (folder / "results.zarr").exists():
        return {"": folder}
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/results.zarr"))}


def progress(folder: Path) -> dict[str, int] | None:
    """Cells by state, from /status alone; None where it can't be read (yet)."""
    try:
        with xr.open_dataset(folder / "results.zarr", engine="zarr", group="status") as status:
            return counts(status["cell"].load())
    except (OSError, ValueError, KeyError):  # no store yet, or one that is being rebuilt this moment
        return None


def failures(folder: Path) -> list[str]:
    """A line for each batch that failed, with its error."""
    lines = []
    for path in sorted((folder / "batches").glob("*.json")):
        try:
            record = json.loads(path.read_bytes())["content"]
        except (OSError, ValueError, KeyError, TypeError):  # being written, or damaged: nfd run says so
            continue
        if isinstance(record, dict) and record.get("status") == "failed":
            lines.append(f"{path.stem}: {record.get('error')}")
    return lines
