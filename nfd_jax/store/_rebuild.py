"""Changes to the shape of a store (creation, extension, repair), none of which a kill can leave half done.

A complete store is built in DIR/.nfd-building around hard links to the stored chunks, renamed to
DIR/.nfd-next, and swapped in; whoever opens the store next finishes a swap that was cut short. Only files
that a store gives their names to are ever removed.
"""

import os
import re
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
    batch_of,
    is_record,
    read_record,
    record_path,
    stored_for,
    swapping,
)
from nfd_jax.store._zarr import metadata_files, remove, sha256, sync_folder, write, write_tree

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

_CHUNK = re.compile(r"\.?(c\.[\d.]*|zarr\.json)(\.tmp)?")


def recovered(directory: Path, config: "SweepConfig", samples: str, outputs: int) -> tuple[Manifest, int]:
    """What the commit records tell of a store without a manifest, an empty plan for a new store; and how many
    of them belong elsewhere: to another config, or under another name, as copies do."""
    root, folder = directory / RESULTS, directory / BATCHES
    paths = [path for path in sorted(folder.glob("*.json")) if path != directory / RECORD]
    if root.exists() and not (
        paths or os.path.lexists(directory / MANIFEST) or (directory / CONFIG).exists()
    ):
        raise StoreError(f"{root}: not written by nfd run; give another --out")
    found = {path: record for path in paths if (record := read_record(path)) is not None}
    own = [record for path, record in found.items() if path == record_path(directory, batch_of(record))]
    fitting = [record for record in own if stored_for(record) == (config.digest(), samples)]
    records = sorted(fitting or own[:1], key=lambda record: record["position"])
    plan = tuple(map(batch_of, records))
    axes = _layout.axes(config, {})
    for batch in plan:
        held = {}
        if batch.kind == "cells":
            held = {"width": (batch.width,), "depth": batch.depths, "seed": batch.seeds}
        for name, values in held.items():
            known = axes.get(name, ())
            axes[name] = (*known, *(value for value in values if value not in known))
    axes = _layout.axes(config, axes)
    grid = _layout.layout(config, axes, outputs=outputs, attributes={}).grid
    digest, samples = stored_for(records[0]) if records else (config.digest(), samples)
    return Manifest(digest, samples, grid, plan, {}, {}, outputs), len(found) - len(records)


def clean(directory: Path, manifest: Manifest, records: Mapping[str, dict]) -> None:
    """Removes files of the store's own that no valid record vouches for: records first, so that a kill in
    between leaves batches pending."""
    root = directory / RESULTS
    keep = {record_path(directory, batch) for batch in manifest.plan if batch.id in records} | {
        directory / RECORD
    }
    named = (path for path in (directory / BATCHES).iterdir() if is_record(path.name))
    remove(path for path in named if path not in keep)
    held: dict[str, set[str]] = {name: {"zarr.json"} for name in manifest.grid.dims}
    for batch_id, record in records.items():
        for chunk in manifest.chunks[batch_id]:
            if chunk.cell in record["sha256"].get(chunk.array, {}):
                held[chunk.array].add(Path(chunk.path).name)
    for name, names in held.items():
        if (root / name).is_dir():
            own = (path for path in (root / name).iterdir() if _CHUNK.fullmatch(path.name))
            remove(path for path in own if path.name not in names)
    remove(root.glob(".zarr.json.tmp"))


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
    if root.is_symlink():
        raise StoreError(
            f"{root}: a link, and what is added could not be put in place beside what it leads to; "
            f"make {directory} the link"
        )
    manifest = Manifest(
        config.digest(), stored.samples, layout.grid, plan, attributes, hashes, stored.outputs
    )
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
    """Puts DIR/.nfd-next in place; may be cut short anywhere and repeated. The manifest, which vouches for
    all, goes last."""
    newer, root = directory / NEXT, directory / RESULTS
    if swapping(directory):
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
    elif not root.exists() and (directory / MANIFEST).exists():  # cut short half way, and damaged besides
        for left in (newer / RESULTS, directory / DISCARDED):
            if left.exists() and not root.exists():
                os.rename(left, root)
    for name in (NEXT, BUILDING, DISCARDED):
        shutil.rmtree(directory / name, ignore_errors=True)


def discard(directory: Path) -> None:
    """Empties a store, records first; what is not the store's stays."""
    folder, root = directory / BATCHES, directory / RESULTS
    remove(path for path in (folder.iterdir() if folder.is_dir() else ()) if is_record(path.name))
    if root.is_symlink():
        raise StoreError(f"{root}: a link, allowed: a folder; remove it, or give another --out")
    remove([directory / MANIFEST])
    shutil.rmtree(directory / DISCARDED, ignore_errors=True)
    if root.exists():
        os.rename(root, directory / DISCARDED)
    remove([directory / CONFIG, directory / NOTES])
    for name in (NEXT, BUILDING, DISCARDED):
        shutil.rmtree(directory / name, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """The same file in a second place: chunks are replaced, never altered, so both stay right."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
