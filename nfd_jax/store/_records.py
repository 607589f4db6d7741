"""What a store says about itself, and whether it is still true: the manifest, the commit records, their
checksums."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from nfd_jax.store._batch import Batch, describe
from nfd_jax.store._derived import concluded_from, without_derived
from nfd_jax.store._errors import StoreError
from nfd_jax.store._layout import Chunk, Grid
from nfd_jax.store._zarr import read, sealed, sha256, unsealed

RESULTS, BATCHES, MANIFEST, CONFIG, NOTES = (
    "results.zarr",
    "batches",
    "store.json",
    "config.yaml",
    "notes.json",
)
VARIANTS = "variants.json"
NEXT, BUILDING, DISCARDED = ".nfd-next", ".nfd-building", ".nfd-discarded"
"""Where a store is built and taken apart: names that nobody else gives a folder."""

_FORMAT = 3
_RECORD = re.compile(r"\.?((cells|limit)-n\d.*|derived)\.json(\.tmp)?")
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What a sealed file that another program wrote may raise when it is read."""


@dataclass(frozen=True)
class Manifest:
    """`store.json`: the plan of batches, where their cells lie, and checksums of metadata and coordinates.

    `digest` is that of the config, `samples` that of the data set's samples, `outputs` is C.
    """

    digest: str
    samples: str
    grid: Grid
    plan: tuple[Batch, ...]
    attributes: dict
    files: dict[str, str]
    outputs: int = 1

    @classmethod
    def load(cls, directory: Path) -> "Manifest | None":
        """The manifest in a folder; None where it is absent or damaged. StoreError where another version
        wrote it."""
        content = unsealed(directory / MANIFEST)
        if content is None:
            return None
        if content.get("format") != _FORMAT:
            raise StoreError(
                f"{directory}: store of format {content.get('format')}, "
                f"this version of nfd_jax has format {_FORMAT}; "
                "use the version that wrote it, another --out, or --fresh to replace it"
            )
        try:
            grid = content["grid"]
            axes = {name: tuple(values) for name, values in grid["axes"].items()}
            dims = {name: tuple(names) for name, names in grid["dims"].items()}
            found = cls(
                content["digest"],
                content["samples"],
                Grid(axes, dims, grid["matched"], dict(grid["chunk_bytes"])),
                tuple(map(batch_from, content["plan"])),
                dict(content["attributes"]),
                dict(content["files"]),
                content["outputs"],
            )
            return found if found._sound() and len(found.chunks) == len(found.plan) else None
        except _DAMAGE:
            return None

    def _sound(self) -> bool:
        """Whether everything is of its kind: a sealed file may be another program's."""
        grid = self.grid
        words = [self.digest, self.samples, *self.files, *self.files.values(), *grid.dims]
        words += [dim for dims in grid.dims.values() for dim in dims]
        numbers = [
            self.outputs,
            *grid.chunk_bytes.values(),
            *(n for axis in grid.axes.values() for n in axis),
        ]
        return (
            all(isinstance(word, str) for word in words)
            and all(type(number) is int for number in numbers)
            and grid.chunk_bytes.keys() == grid.dims.keys()
            and isinstance(grid.matched, bool)
        )

    @cached_property
    def chunks(self) -> dict[str, list[Chunk]]:
        """The chunks of each batch, by its id."""
        return self.grid.assign(self.plan)

    @property
    def stored_for(self) -> tuple[str, str]:
        """What every number hangs on: digests of config and samples."""
        return self.digest, self.samples

    def to_bytes(self) -> bytes:
        """What `load` reads."""
        return sealed({"format": _FORMAT} | asdict(self))

    def flaws(self, root: Path) -> list[str]:
        """Metadata and coordinate files that are not what was written. Derived groups, which come and go, are
        left out."""
        found = {path: read(root / path) for path in self.files}
        found["zarr.json"] = without_derived(found.get("zarr.json"))
        return [path for path, digest in self.files.items() if sha256(found[path] or b"") != digest]


class Examined(NamedTuple):
    """A batch as found: its record and its chunks' bytes if all is well, else a line with its cells and what
    is wrong."""

    batch: Batch
    record: dict | None
    contents: list[tuple[Chunk, bytes]]
    damaged: list[str]


def examine(directory: Path, root: Path, manifest: Manifest) -> Iterator[Examined]:
    """Checks every batch that has a record or, as rates and verdicts were drawn from it, once had one; in the
    plan's order. Any other is pending, whatever its chunks hold."""
    known = concluded_from(directory)
    for batch in manifest.plan:
        path = record_path(directory, batch)
        if not os.path.lexists(path):
            if batch.id in known:
                yield Examined(batch, None, [], [f"{describe(batch)}: the commit record is missing"])
            continue
        record = read_record(path)
        if record is None or batch_of(record) != batch or stored_for(record) != manifest.stored_for:
            yield Examined(batch, None, [], [f"{describe(batch)}: the commit record is damaged"])
            continue
        contents: list[tuple[Chunk, bytes]] = []
        flaws: list[str] = []
        for chunk in manifest.chunks[batch.id]:
            expected = record["sha256"].get(chunk.array, {}).get(chunk.cell)
            if expected is None and record["status"] == "failed":
                continue
            raw = read(root / chunk.path)
            if raw is None:
                flaws.append(f"{chunk.array} at {chunk.cell} is missing")
            elif sha256(raw) != expected:
                flaws.append(f"{chunk.array} at {chunk.cell} does not match its checksum")
            elif len(raw) != manifest.grid.chunk_bytes[chunk.array]:
                flaws.append(f"{chunk.array} at {chunk.cell} has not the size of its shape")
            else:
                contents.append((chunk, raw))
        if not flaws:
            yield Examined(batch, record, contents, [])
        elif record["status"] == "failed":  # killed while it was tried again: nothing is lost
            yield Examined(batch, None, [], [])
        else:
            more = f" and {len(flaws) - 1} more" if len(flaws) > 1 else ""
            yield Examined(batch, None, [], [f"{describe(batch)}: {flaws[0]}{more}"])


def batch_from(plain: dict) -> Batch:
    """A batch from its JSON. ValueError, TypeError or KeyError where it is none."""
    found = Batch(**plain | {"depths": tuple(plain["depths"]), "seeds": tuple(plain["seeds"])})
    numbers = (found.width, *found.depths, *found.seeds, *([] if found.size is None else [found.size]))
    known = found.kind in ("cells", "limit") and isinstance(found.redrawn, bool)
    if not known or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"no batch: {plain}")
    return found


def read_record(path: Path) -> dict | None:
    """A commit record; None where it is absent, damaged, or none at all."""
    record = unsealed(path)
    try:
        _ = batch_of(record), stored_for(record)
        sound = record["status"] in ("done", "failed") and type(record["position"]) is int
        sound = sound and all(isinstance(word, str) for word in stored_for(record))
        hashes = record["sha256"].values()
        return record if sound and all(isinstance(cells, dict) for cells in hashes) else None
    except _DAMAGE:
        return None


def batch_of(record: dict) -> Batch:
    """The batch that a record is of."""
    return batch_from(record["batch"])


def stored_for(record: dict) -> tuple[str, str]:
    """Digests of the config and the samples that a record's numbers hang on."""
    return record["digest"], record["samples"]


def is_record(name: str) -> bool:
    """Whether a store gives this name to a file in BATCHES, or to one on the way there."""
    return _RECORD.fullmatch(name) is not None


def swapping(directory: Path) -> bool:
    """Whether a complete store waits to be put in place, or is half in place."""
    return unsealed(directory / NEXT / MANIFEST) is not None


def record_path(directory: Path, batch: Batch) -> Path:
    """The commit record of a batch; file names have 255 bytes at most, so long ids are cut."""
    name = batch.id
    if len(name) > 120:
        name = f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return directory / BATCHES / f"{name}.json"
