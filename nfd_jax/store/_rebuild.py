"""Changes to the shape of a store (creation, extension, repair), none of which a kill can leave half done.

A complete store is built in DIR/next.tmp around hard links to the stored chunks, renamed to DIR/next, and
swapped in; whoever opens the store next finishes a swap that was cut short.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nfd_jax.store import _layout
from nfd_jax.store._batch import Batch
from nfd_jax.store._derived import RECORD
from nfd_jax.store._errors import StoreError
from nfd_jax.store._layout import Layout
from nfd_jax.store._records import (
    BATCHES,
    BUILDING,
    CONFIG,
    DISCARDED,
    MANIFEST,
    NEXT,
    NOTES,
    RESULTS,
    Manifest,
    batch_from,
    record_path,
)
from nfd_jax.store._zarr import metadata_files, remove, sha256, sync_folder, unsealed, write, write_tree

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig


def recovered(directory: Path, config: "SweepConfig") -> Manifest:
    """What the commit records tell of a store without a manifest; an empty plan for a new store."""
    root, record = directory / RESULTS, directory / RECORD
    paths = [path for path in sorted((directory / BATCHES).glob("*.json")) if path != record]
    if root.exists() and not (paths or (directory / MANIFEST).exists() or (directory / CONFIG).exists()):
        raise StoreError(f"{root}: not written by nfd run; give another --out, or --fresh to replace it")
    records = sorted(filter(None, map(unsealed, paths)), key=lambda record: record["position"])
    plan = tuple(batch_from(record["batch"]) for record in records)
    axes = _layout.axes(config, {})
    for batch in plan:
        held = {}
        if batch.kind == "cells":
            held = {"width": (batch.width,), "depth": batch.depths, "seed": batch.seeds}
        for name, values in held.items():
            known = axes.get(name, ())
            axes[name] = (*known, *(value for value in values if value not in known))
    axes = _layout.axes(config, axes)
    other = [record["digest"] for record in records if record["digest"] != config.digest()]
    grid = _layout.layout(config, axes, outputs=1, attributes={}).grid
    return Manifest(other[0] if other else config.digest(), grid, plan, {}, {})


def clean(directory: Path, manifest: Manifest, records: Mapping[str, dict]) -> None:
    """Removes what no valid record vouches for: records first, so that a kill in between leaves batches
    pending."""
    root = directory / RESULTS
    keep = {record_path(directory, batch) for batch in manifest.plan if batch.id in records} | {
        directory / RECORD
    }
    remove(path for path in (directory / BATCHES).iterdir() if path not in keep)
    held: dict[str, set[str]] = {name: {"zarr.json"} for name in manifest.grid.dims}
    for batch_id, record in records.items():
        for chunk in manifest.chunks[batch_id]:
            if chunk.cell in record["sha256"].get(chunk.array, {}):
                held[chunk.array].add(Path(chunk.path).name)
    for name, names in held.items():
        if (root / name).is_dir():
            remove(path for path in (root / name).iterdir() if path.name not in names)
    remove(root.glob(".*.tmp"))


def rebuild(
    directory: Path,
    stored: Manifest,
    records: Mapping[str, dict],
    layout: Layout,
    plan: tuple[Batch, ...],
    config: "SweepConfig",
    attributes: dict,
) -> Manifest:
    """The store in a new shape around the stored chunks; derived groups, which it outdates, are left
    behind."""
    building, root = directory / BUILDING, directory / RESULTS
    files = metadata_files(layout.nodes) | layout.files
    hashes = {path: sha256(raw) for path, raw in files.items()}
    manifest = Manifest(config.digest(), layout.grid, plan, attributes, hashes)
    write_tree(building / RESULTS, files)
    for batch_id, record in records.items():
        target = {
            (chunk.array, chunk.cell): building / RESULTS / chunk.path for chunk in manifest.chunks[batch_id]
        }
        for chunk in stored.chunks[batch_id]:
            if chunk.cell in record["sha256"].get(chunk.array, {}):
                _link(root / chunk.path, target[chunk.array, chunk.cell])
    for name in layout.grid.dims:
        sync_folder(building / RESULTS / name)
    write({building / MANIFEST: manifest.to_bytes(), building / CONFIG: config.to_yaml().encode()})
    os.rename(building, directory / NEXT)
    sync_folder(directory)
    finish_swap(directory)
    return manifest


def finish_swap(directory: Path) -> None:
    """Puts DIR/next in place; may be cut short anywhere and repeated. The manifest, which vouches for all,
    goes last."""
    newer, root = directory / NEXT, directory / RESULTS
    if newer.exists():
        remove([directory / RECORD])
    if (newer / RESULTS).exists():
        if root.exists():
            shutil.rmtree(directory / DISCARDED, ignore_errors=True)
            os.rename(root, directory / DISCARDED)
        os.rename(newer / RESULTS, root)
    for name in (CONFIG, MANIFEST):
        if (newer / name).exists():
            os.replace(newer / name, directory / name)
    sync_folder(directory)
    for name in (NEXT, BUILDING, DISCARDED):
        shutil.rmtree(directory / name, ignore_errors=True)


def discard(directory: Path) -> None:
    """Empties a store, records first."""
    for name in (BATCHES, RESULTS, MANIFEST, CONFIG, NOTES, NEXT, BUILDING):
        target = directory / name
        if target.is_dir():
            shutil.rmtree(directory / DISCARDED, ignore_errors=True)
            os.rename(target, directory / DISCARDED)
        else:
            target.unlink(missing_ok=True)
    shutil.rmtree(directory / DISCARDED, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """The same file in a second place: chunks are replaced, never altered, so both stay right."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
