"""How far a sweep is, read from its folder while another process may be writing to it."""

from pathlib import Path

import xarray as xr

from nfd_jax.verdicts import counts


def members(folder: Path) -> dict[str, Path]:
    """Folders with results: {"": folder} for a sweep, name → sub-folder for one with variants, those of the
    latest run; empty without any."""
    from nfd_jax.store import variant_names

    if (folder / "results.zarr").exists():
        return {"": folder}
    every = [path.parent.name for path in sorted(folder.glob("*/results.zarr"))]
    found = {name: folder / name for name in variant_names(folder) or every}
    return {name: path for name, path in found.items() if (path / "results.zarr").exists()}


def progress(folder: Path) -> dict[str, int] | None:
    """Cells by state, from /status alone; None where it can't be read (yet)."""
    try:
        with xr.open_dataset(folder / "results.zarr", engine="zarr", group="status") as status:
            return counts(status["cell"].load())
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # no store yet, or one that is being rebuilt this moment
        return None


def failures(folder: Path) -> list[str]:
    """A line for each batch that failed, with its error."""
    from nfd_jax.store import failed_batches

    return failed_batches(folder)
