"""Every file operation of a store fails once, or is the last before the process dies.

A sweep is created, extended, concluded from and repaired, and at its k-th operation the system refuses (no
space, a broken medium, no permission) or all is over. Whatever k: the store says so in one line or not at
all, it opens again, no finished batch is lost, and the resumed sweep is the same bit for bit.
"""

import errno
import fcntl
import io
import itertools
import os
import shutil
import warnings
from pathlib import Path

import pytest
import xarray as xr
from test_store import compute, loaded, opened, plainly, sweep

from nfd_jax.store import StoreError, _zarr, open_results

SMALL, LARGE = (
    sweep(widths=(8,), depths=(2,), seeds=seeds, limit=False, measure=[], steps=1) for seeds in (2, 3)
)
DERIVED = {"rates": xr.Dataset({"slope": ("row", [1.0])}, {"row": ["a"]})}
CALLS = {
    os: ("open", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "link", "pwrite", "scandir"),
    io: ("open",),
    fcntl: ("flock",),
    shutil: ("rmtree", "copy2"),
}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


class Died(BaseException):
    """Stands in for the death of the process: from here on nothing more is done."""


class Serial:
    """In place of threads, so that the k-th operation is always the same."""

    def __init__(self, count):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, *arguments):
        return list(map(*arguments))


class Faults:
    """Counts the operations; number `at` fails with `error`, or is never done, nor is any later one."""

    def __init__(self, patch, at: int, error: int | None):
        self.at, self.error, self.made, self.hit = at, error, 0, ""
        for module, names in CALLS.items():
            for name in names:
                patch.setattr(module, name, self._counted(name, getattr(module, name)))
        patch.setattr(_zarr, "open", self._opened, raising=False)
        patch.setattr(_zarr, "ThreadPoolExecutor", Serial)

    def _count(self, name: str, place: object) -> None:
        self.made += 1
        if self.error is None and self.made > self.at:
            raise Died
        if self.made == self.at + 1:
            self.hit = f"{name} {place}"
            raise OSError(self.error, os.strerror(self.error), str(place))

    def _counted(self, name, function):
        def call(*arguments, **named):
            self._count(name, arguments[0])
            return function(*arguments, **named)

        return call

    def _opened(self, descriptor, mode):
        """What `write` writes to."""
        file, count = io.FileIO(descriptor, mode), self._count

        class Counted(io.BufferedWriter):
            def write(self, data):
                count("write", "a file")
                return super().write(data)

        return Counted(file)


def act(directory: Path, done: list[str]) -> None:
    for config in (SMALL, LARGE):
        with opened(directory, config) as store:
            for batch in store.pending()[: 1 if config is SMALL else None]:
                store.commit(batch, compute(config, batch))
                done.append(batch.id)
            store.note("noted", 1)
    with opened(directory, LARGE) as store:
        store.write_derived(DERIVED)
    (directory / "results.zarr/finite/loss/c.0.0.0.0.0.0").write_bytes(b"damaged")
    done[:] = done[1:]
    with opened(directory, LARGE) as store:  # which repairs
        store.commit(store.pending()[0], compute(LARGE, store.pending()[0]))


def files(directory: Path) -> dict[str, bytes]:
    results = directory / "results.zarr"
    return {str(path.relative_to(results)): path.read_bytes() for path in results.glob("*/*/c.*")}


def fault(directory: Path, at: int, error: int | None, monkeypatch) -> str:
    """What was hit; "" once there are no more operations."""
    done: list[str] = []
    with monkeypatch.context() as patch:
        faults = Faults(patch, at, error)
        try:
            act(directory, done)
        except StoreError as refusal:
            assert "\n" not in str(refusal)
        except Died:
            pass
        except OSError:  # of the damage itself, which is no operation of the store
            assert faults.hit.startswith("open") and faults.hit.endswith("c.0.0.0.0.0.0")
    if faults.made <= at:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = open_results(directory)
            assert int((tree["status/cell"] > 0).sum()) >= 2 * len(done)
        except StoreError as refusal:
            assert not done, refusal
    with opened(directory, LARGE) as store:
        left = {batch.id for batch in store.pending()}
        assert not left & set(done), "a finished batch was lost"
        for batch in store.pending():
            store.commit(batch, compute(LARGE, batch))
        store.write_derived(DERIVED)
    return f"{faults.hit or 'death'}"


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    """Only a power cut tells whether files are synced; that it is asked for is counted all the same."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    with opened(directory, LARGE) as store:
        for batch in store.pending():
            store.commit(batch, compute(LARGE, batch))
        store.write_derived(DERIVED)
    return loaded(directory), files(directory)


def check(tmp_path, monkeypatch, expected, kinds, every: int, start: int = 0) -> int:
    """Faults at every so-manieth operation, the kinds in turn where they are not all tried; how many."""
    tree, chunks = expected
    for count, at in enumerate(itertools.count(start, every)):
        errors = kinds if every == 1 else [kinds[count % len(kinds)]]
        for error in errors:
            directory = tmp_path / f"{at}-{error}"
            if not fault(directory, at, error, monkeypatch):
                return count * len(errors)
            xr.testing.assert_identical(loaded(directory), tree)
            if count % 8 == 0:  # slow: every chunk through zarr
                xr.testing.assert_identical(plainly(directory), tree)
            assert files(directory) == chunks
            shutil.rmtree(directory)


def test_a_few_operations_fail_once_or_are_the_last(tmp_path, monkeypatch, expected):
    assert check(tmp_path, monkeypatch, expected, (*ERRORS, None), every=97) > 10


@pytest.mark.long
@pytest.mark.parametrize(
    "error", [*ERRORS, None], ids=["no space", "broken medium", "no permission", "death"]
)
def test_every_operation_fails_once_or_is_the_last(tmp_path, monkeypatch, expected, error):
    count = check(tmp_path, monkeypatch, expected, (error,), every=1)
    print(f"{count} operations, each {'the last' if error is None else os.strerror(error)}")
    assert count > 1000
