"""The store of a sweep: labelled arrays in zarr, one transaction a batch, safe against kills, full disks and
damage.

DIR/results.zarr       every array, chunked so that each chunk file belongs to one batch
DIR/batches/<id>.json  commit records: a batch counts as stored once its record, with the checksum of each
                       of its chunk files, is in place; without a valid record it is pending, whatever its
                       chunks hold
DIR/store.json         the plan of batches and checksums of metadata and coordinates
DIR/notes.json         what a run need not find out again
DIR/config.yaml        the resolved config of the latest run
DIR/lock               flock, which the system releases when its holder dies
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from nfd_jax.names import DIVERGED, DONE, FAILED
from nfd_jax.store import _layout
from nfd_jax.store._batch import Batch, describe
from nfd_jax.store._claim import check_free, take_lock
from nfd_jax.store._derived import DAMAGED, derived_state, drop_derived, write_derived
from nfd_jax.store._errors import ConfigChanged, StoreError, reporting
from nfd_jax.store._layout import CELL, Layout
from nfd_jax.store._rebuild import clean, discard, finish_swap, rebuild, recovered
from nfd_jax.store._records import (
    BATCHES,
    BUILDING,
    CONFIG,
    MANIFEST,
    NOTES,
    RESULTS,
    Manifest,
    examine,
    record_path,
)
from nfd_jax.store._zarr import encode, read, sealed, sha256, to_json, unsealed, write

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig
    from nfd_jax.measures import Named

Cells = set[tuple[int, int, int]]


class Store:
    """A store open for writing, by one process at a time; a context manager. `Store.open` makes one.

    `damaged` has a line for each batch of cells found damaged, which are pending again, and for each file
    repaired.
    """

    def __init__(
        self,
        directory: Path,
        lock: ExitStack,
        layout: Layout,
        manifest: Manifest,
        records: dict[str, dict],
        wanted: Cells,
        damaged: list[str],
    ):
        self.directory = directory
        self.damaged = damaged
        self._lock = lock
        self._layout = layout
        self._manifest = manifest
        self._records = records
        self._tried: set[str] = set()
        cells = {batch: len(_layout.cells(batch) & wanted) for batch in manifest.plan}
        self._cells = {batch: count for batch, count in cells.items() if count}

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        config: "SweepConfig",
        *,
        outputs: int,
        samples: str = "",
        make_plan: Callable[["SweepConfig", Cells], list[Batch]],
        attributes: dict,
        fresh: bool = False,
    ) -> Self:
        """Creates, resumes, extends or repairs the store in `directory`.

        Stored cells the config no longer asks for stay. `outputs` is C, `samples` a digest of the data set;
        `make_plan(config, covered)` gives the batches of the cells not in `covered`, (width, depth, seed)
        with depth 0 for a limit on its own; `attributes` become the root's. Raises StoreLocked,
        StoreUnwritable, StoreError, as where the folder holds anything but a store, and ConfigChanged where
        config or samples differ in anything that stored cells depend on.
        """
        directory = Path(directory)
        root = directory / RESULTS
        with reporting(directory), ExitStack() as stack:
            check_free(directory)
            directory.mkdir(parents=True, exist_ok=True)
            take_lock(directory, stack)
            if fresh:
                discard(directory)
            finish_swap(directory)
            stored = Manifest.load(directory)
            damaged: list[str] = []
            if stored is None:
                stored, elsewhere = recovered(directory, config, samples, outputs)
                damaged += [f"{MANIFEST}: written again from the commit records"] * bool(stored.plan)
                damaged += [f"{BATCHES}: {elsewhere} commit records of other cells left out"] * bool(
                    elsewhere
                )
            _check_same(directory, stored, config, samples)
            (directory / BATCHES).mkdir(exist_ok=True)

            records: dict[str, dict] = {}
            for batch, record, _, flaws in examine(directory, root, stored):
                damaged += flaws
                if record is not None:
                    records[batch.id] = record
            clean(directory, stored, records)

            wanted = _layout.asked(config)
            covered: Cells = set().union(*map(_layout.cells, stored.plan))
            new = [] if wanted <= covered else make_plan(config, covered)
            axes = _layout.axes(config, stored.grid.axes)
            grown = bool(new) or axes != stored.grid.axes or not stored.files
            flaws = stored.flaws(root)
            damaged += [f"{RESULTS}/{path}: written again from the config" for path in flaws]
            attributes = attributes if grown else stored.attributes
            layout = _layout.layout(config, axes, outputs=outputs, attributes=attributes)
            if (layout.grid.dims, layout.grid.chunk_bytes) != (stored.grid.dims, stored.grid.chunk_bytes):
                raise StoreError(
                    f"{directory}: holds other arrays, of another version; "
                    "give another --out, or --fresh to replace it"
                )
            manifest = stored
            if grown or flaws:
                manifest = rebuild(
                    directory, stored, records, layout, (*stored.plan, *new), config, attributes
                )
            elif derived_state(directory, root)[0] == "damaged":
                damaged.append(f"{DAMAGED}: left out until they are computed again")
                drop_derived(directory, root)
            if read(directory / CONFIG) != config.to_yaml().encode():
                write({directory / CONFIG: config.to_yaml().encode()})
            return cls(directory, stack.pop_all(), layout, manifest, records, wanted, damaged)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock."""
        self._lock.close()

    def pending(self) -> list[Batch]:
        """Batches with a cell the config asks for that are neither stored nor failed since the store was
        opened."""
        return [
            batch for batch in self._cells if self._status(batch) != "done" and batch.id not in self._tried
        ]

    def failed(self) -> list[str]:
        """A line with the error for each batch that failed, now or in an earlier run, and was not stored
        since."""
        failed = [batch for batch in self._cells if self._status(batch) == "failed"]
        return [f"{describe(batch)}: {self._records[batch.id]['error']}" for batch in failed]

    def progress(self) -> tuple[int, int]:
        """(stored, all) cells the config asks for; one cell is a (width, depth, seed) with all its rates and
        flags."""
        done = sum(count for batch, count in self._cells.items() if self._status(batch) == "done")
        return done, sum(self._cells.values())

    def commit(self, batch: Batch, arrays: "Mapping[str, Named]", attributes: dict | None = None) -> None:
        """Stores a batch: all of it or, at whatever moment the process dies, nothing.

        `arrays` holds what the batch computes by name ("finite/loss"), each as (dims, values) in any order of
        dims, which are the contract's: width and particles of length 1 (or left out), depth and seed as in
        the batch, depth left out where there is one. `attributes` (JSON) stay in its record. Raises
        ValueError for arrays that do not fit, StoreUnwritable where they cannot be written.
        """
        names = self._manifest.grid.arrays(batch)
        if odd := sorted(arrays.keys() ^ set(names)):
            raise ValueError(
                f"{batch.id}: got arrays {sorted(arrays)}, expected {sorted(names)}; check {odd}"
            )
        fitted = {name: self._fit(batch, name, arrays[name]) for name in names}
        if CELL in fitted and not np.isin(fitted[CELL], (DONE, DIVERGED)).all():
            found = np.unique(fitted[CELL]).tolist()
            raise ValueError(
                f"{batch.id}: status/cell holds {found}, allowed: {DONE:d} (done) and {DIVERGED:d} (diverged)"
            )
        self._write(batch, fitted, {"status": "done", "error": None, "attributes": attributes or {}})

    def fail(self, batch: Batch, message: str) -> None:
        """Marks a batch as failed, to be tried again when the store is next opened."""
        names = [name for name in self._manifest.grid.arrays(batch) if name == CELL]
        arrays = {name: np.full(self._shape(batch, name), FAILED, "int8") for name in names}
        self._write(batch, arrays, {"status": "failed", "error": message, "attributes": {}})

    def write_derived(self, groups: Mapping[str, xr.Dataset]) -> None:
        """Replaces what is concluded from the arrays, groups like /rates and /verdicts; readers see all of it
        or nothing."""
        root, building = self.directory / RESULTS, self.directory / BUILDING
        with reporting(self.directory):
            write_derived(self.directory, root, building, groups, self._records)

    def concluded(self) -> bool:
        """Whether derived groups are there and sound."""
        return derived_state(self.directory, self.directory / RESULTS)[0] == "sound"

    def state(self) -> str:
        """A hash of all that is stored: the same as long as nothing is added, lost or computed again."""
        stored = {
            name: [record["status"], record["sha256"]] for name, record in sorted(self._records.items())
        }
        return sha256(to_json(stored))

    def noted(self, name: str) -> Any:
        """What `note` kept under a name, or None."""
        return (unsealed(self.directory / NOTES) or {}).get(name)

    def note(self, name: str, value: Any) -> None:
        """Keeps a JSON value beside the results, until they are discarded."""
        with reporting(self.directory):
            write({self.directory / NOTES: sealed((unsealed(self.directory / NOTES) or {}) | {name: value})})

    def _status(self, batch: Batch) -> str | None:
        return self._records[batch.id]["status"] if batch.id in self._records else None

    def _shape(self, batch: Batch, name: str) -> tuple[int, ...]:
        dims = self._manifest.grid.dims[name]
        sizes = dict(zip(dims, self._layout.nodes[name]["shape"], strict=True))
        sizes |= {"width": 1, "particles": 1, "depth": len(batch.depths), "seed": len(batch.seeds)}
        return tuple(sizes[dim] for dim in dims)

    def _fit(self, batch: Batch, name: str, array: "Named") -> np.ndarray:
        """The array with its dims in the store's order, those of length 1 that were left out put in."""
        wanted, expected = self._manifest.grid.dims[name], self._shape(batch, name)
        try:
            values = array.over(wanted)
        except ValueError as error:
            raise ValueError(f"{batch.id}: {name} has {error}") from None
        if values.shape != expected:
            raise ValueError(
                f"{batch.id}: {name} has shape {values.shape}, expected {expected} over {', '.join(wanted)}"
            )
        return np.asarray(values, self._layout.nodes[name]["data_type"])

    def _write(self, batch: Batch, arrays: Mapping[str, np.ndarray], outcome: dict) -> None:
        """Chunks, then status cells, then the record: no reader sees a cell as done before its numbers are
        there."""
        if batch.id not in self._manifest.chunks or self._status(batch) == "done":
            raise ValueError(
                f"{batch.id}: {'already stored' if batch.id in self._manifest.chunks else 'not in the plan'}"
            )
        data: dict[Path, bytes] = {}
        status: dict[Path, bytes] = {}
        hashes: dict[str, dict[str, str]] = {}
        for chunk in self._manifest.chunks[batch.id]:
            if chunk.array in arrays:
                raw = encode(arrays[chunk.array][chunk.within])
                files = status if chunk.array == CELL else data
                files[self.directory / RESULTS / chunk.path] = raw
                hashes.setdefault(chunk.array, {})[chunk.cell] = sha256(raw)
        record = {
            "batch": asdict(batch),
            "position": self._manifest.plan.index(batch),
            "digest": self._manifest.digest,
            "samples": self._manifest.samples,
            **outcome,
            "sha256": hashes,
        }
        with reporting(self.directory):
            write(data)
            write(status)
            write(
                {record_path(self.directory, batch): sealed(record)}
            )  # from this rename on the batch counts
        self._records[batch.id] = record
        self._tried.add(batch.id)


def _check_same(directory: Path, stored: Manifest, config: "SweepConfig", samples: str) -> None:
    """ConfigChanged where the config, or the samples, differ in what stored cells depend on."""
    if stored.digest != config.digest():
        try:
            lines = type(config).from_yaml((read(directory / CONFIG) or b"").decode()).difference(config)
        except ValueError:
            lines = []
        raise ConfigChanged(
            lines or [f"{CONFIG}: differs from the config of the stored cells, which cannot be read"]
        )
    if stored.samples != samples:
        was, now = (digest[:16] or "not known" for digest in (stored.samples, samples))
        line = f"problem.dataset: other samples than those of the stored cells: stored {was}, now {now}"
        raise ConfigChanged([f"{line} (sha256); put the data set back as it was"])
    if stored.plan and config.finite:
        old, new = gcd(*stored.grid.axes["depth"]), gcd(*config.finite.depths)
        if old != new:
            line = f"finite.depths: t grid: stored multiples of 1/{old}, now of 1/{new} (1/gcd of all depths)"
            raise ConfigChanged([line])
