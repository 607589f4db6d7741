"""How far a sweep is, read from its folder while another process may be writing to it."""

from pathlib import Path

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
    """Cells by state; None where they can't be read (yet)."""
    from nfd_jax.store import StoreError, cell_states

    try:
        found = cell_states(folder)
    except (OSError, StoreError):  # being rebuilt this moment, or another version's
        return None
    return None if found is None else counts(found)


def failures(folder: Path) -> list[str]:
    """A line for each batch that failed, with its error."""
    from nfd_jax.store import failed_batches

    return failed_batches(folder)
