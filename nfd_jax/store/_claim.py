"""Whose a folder is: a store is written only where nothing lies yet, or where a store lies already.

A folder counts as a store if it holds a sealed manifest, a sealed commit record, or the lock that every run
takes first, with its mark; what a run that was cut short in an empty folder left behind counts as nothing.
"""

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

from nfd_jax.store._errors import StoreError, StoreLocked, reporting
from nfd_jax.store._records import (
    BATCHES,
    BUILDING,
    DISCARDED,
    MANIFEST,
    NEXT,
    VARIANTS,
    is_record,
    swapping,
)
from nfd_jax.store._zarr import sealed, unsealed, write

LOCK = "lock"
_MARK = "nfd_jax store, process"
_LEFT = {LOCK, BATCHES, NEXT, BUILDING, DISCARDED}  # by a run that was killed before its store was created


def check_free(directory: Path) -> None:
    """StoreError, naming what is there, unless the folder is empty, absent, or a store."""
    found = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    if variants := variant_names(directory):
        raise StoreError(
            f"{directory}: holds variants ({', '.join(variants)}), and the config has none; "
            "give another --out, or move them away"
        )
    if not _begun(directory, found) and not _is_store(directory):
        raise StoreError(_foreign(directory, found))


def take_lock(directory: Path, stack: ExitStack) -> None:
    """Marks the folder as a store's and holds it until `stack` is closed. StoreLocked where another process
    does."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(directory / LOCK, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise StoreError(f"{directory / LOCK}: a link, allowed: a file; remove it and run again") from None
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 80, 0).decode(errors="replace").removeprefix(_MARK).strip()
        message = f"{directory}: in use by another nfd run (process {holder or 'unknown'})"
        raise StoreLocked(f"{message}; wait for it or give another --out") from None
    os.pwrite(descriptor, f"{_MARK} {os.getpid():<10}\n".encode(), 0)  # never empty in between


def claim_variants(directory: Path, names: list[str]) -> list[str]:
    """Marks a folder as one of variants; those that an earlier run stored there and that have no place among
    `names`. StoreError where the folder holds anything else."""
    with reporting(directory):
        return _claimed(directory, names)


def _claimed(directory: Path, names: list[str]) -> list[str]:
    before = variant_names(directory)
    found = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    if not before and _is_store(directory):
        raise StoreError(
            f"{directory}: holds a sweep without variants, and the config has some; "
            "give another --out, or move it away"
        )
    if not before and not _begun(directory, found):
        raise StoreError(_foreign(directory, found))
    directory.mkdir(parents=True, exist_ok=True)
    if before != names:
        write({directory / VARIANTS: sealed({"names": names})})
    return [name for name in before if name not in names]


def variant_names(directory: Path) -> list[str]:
    """Names of the variants that a folder holds; none where it is not one of variants."""
    content = unsealed(directory / VARIANTS) or {}
    names = content.get("names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _begun(directory: Path, found: list[str]) -> bool:
    """Nothing there but what a run leaves that was killed before its store was created."""
    batches = directory / BATCHES
    return (
        set(found) <= _LEFT
        and (LOCK not in found or _lock_is_ours(directory))
        and (BATCHES not in found or (batches.is_dir() and not any(batches.iterdir())))
    )


def _is_store(directory: Path) -> bool:
    if unsealed(directory / MANIFEST) is not None or swapping(directory) or _marked(directory):
        return True
    batches = directory / BATCHES
    records = [path for path in batches.iterdir() if is_record(path.name)] if batches.is_dir() else []
    return any(unsealed(path) is not None for path in records)


def _marked(directory: Path) -> bool:
    return (_lock_text(directory) or "").startswith(_MARK)


def _lock_is_ours(directory: Path) -> bool:
    """Marked, or made a moment before it is marked."""
    return _marked(directory) or _lock_text(directory) == ""


def _lock_text(directory: Path) -> str | None:
    path = directory / LOCK
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(80).decode(errors="replace")


def _foreign(directory: Path, found: list[str]) -> str:
    shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return (
        f"{directory}: not empty, and not written by nfd run: it holds {shown}; "
        "give --out a new or an empty folder"
    )
