"""What a store says about itself, and whether it is still true: the manifest, the commit records, their
checksums."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from nfd_jax.store._batch import Batch, describe
from nfd_jax.store._derived import without_derived
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
NEXT, BUILDING, DISCARDED = "next", "next.tmp", "discarded"

_FORMAT = 2


@dataclass(frozen=True)
class Manifest:
    """`store.json`: the plan of batches, where their cells lie, and checksums of metadata and coordinates."""

    digest: str
    grid: Grid
    plan: tuple[Batch, ...]
    attributes: dict
    files: dict[str, str]

    @classmethod
    def load(cls, directory: Path) -> "Manifest | None":
        """The manifest in a folder; None where it is absent or damaged. StoreError where another version
        wrote it."""
        content = unsealed(directory / MANIFEST)
        if content is None:
            return None
        if content["format"] != _FORMAT:
            raise StoreError(
                f"{directory}: store of format {content['format']}, "
                f"this version of nfd_jax has format {_FORMAT}; "
                "use the version that wrote it, another --out, or --fresh to replace it"
            )
        axes = {name: tuple(values) for name, values in content["grid"]["axes"].items()}
        dims = {name: tuple(names) for name, names in content["grid"]["dims"].items()}
        return cls(
            content["digest"],
            Grid(axes, dims, content["grid"]["matched"]),
            tuple(map(batch_from, content["plan"])),
            content["attributes"],
            content["files"],
        )

    @cached_property
    def chunks(self) -> dict[str, list[Chunk]]:
        """The chunks of each batch, by its id."""
        return self.grid.assign(self.plan)

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
    """Checks every batch that has a record, in the plan's order. One without is pending, whatever its chunks
    hold."""
    for batch in manifest.plan:
        path = record_path(directory, batch)
        if not path.exists():
            continue
        record = unsealed(path)
        if record is None or record["digest"] != manifest.digest:
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
    """A batch from its JSON."""
    return Batch(**plain | {"depths": tuple(plain["depths"]), "seeds": tuple(plain["seeds"])})


def record_path(directory: Path, batch: Batch) -> Path:
    """The commit record of a batch; file names have 255 bytes at most, so long ids are cut."""
    name = batch.id
    if len(name) > 120:
        name = f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return directory / BATCHES / f"{name}.json"
