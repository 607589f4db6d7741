"""A fuzzer for stores: whatever lies in the folder, reading and resuming end in a result, a repair or a line.

Up to three damages at a time: bytes, lengths, files that are gone, empty, folders, links or pipes, files in
one another's place, sealed files with another content under a new seal. Every outcome is one of

    harmless    all cells are read as they were, nothing is said
    noticed     what is read is right, the rest is named, and resuming gives the same bit for bit
    refused     one line, by reading or by resuming

and numbers that are not those stored are never returned.
"""

import io
import json
import os
import random
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pytest
import xarray as xr
from rich.console import Console
from test_store import check_cells, compute, loaded, opened, plan, sweep

from nfd_jax import report
from nfd_jax.report import _show
from nfd_jax.store import (
    ConfigChanged,
    Store,
    StoreError,
    failed_batches,
    open_results,
    read_batches,
    stored_batches,
)
from nfd_jax.store._zarr import sealed, unsealed

CONFIG = sweep(widths=(8, 16), depths=(2,), seeds=2, measure=[], steps=1)
CELLS = 4
DERIVED = {
    "rates": xr.Dataset({"slope": ("row", [-1.0, 0.5])}, {"row": ["a", "b"]}),
    "verdicts": xr.Dataset({"verdict": ("claim", ["holds", "fails"])}, {"claim": ["C1", "C2"]}),
}
ODD = (None, 0, -1, 1e300, "x", "../..", [], {}, [[]], True, float("nan"), 10**30)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waiting for the disk; the terminal shows progress and remarks, whose verdicts are another test's."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(_show, "judged", lambda tree: tree)
    monkeypatch.setattr(_show, "cards", lambda tree: [])
    monkeypatch.setattr(_show, "counted", lambda tree: "")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A finished store with derived groups, notes and a failed batch in its history."""
    directory = tmp_path_factory.mktemp("template")
    told = {"config": CONFIG.to_yaml(), "device": "none"}
    with Store.open(directory, CONFIG, outputs=2, make_plan=plan, attributes=told) as store:
        store.fail(store.pending()[0], "no memory")
    with opened(directory, CONFIG) as store:
        for batch in store.pending():
            store.commit(batch, compute(CONFIG, batch))
        store.write_derived(DERIVED)
        store.note("noted", 1)
    return directory


def damage(directory: Path, chance: random.Random) -> str:
    """Damages one file, or a folder and all in it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    weights = [1 if "results.zarr" in path.parts else 12 for path in files]
    path, other = chance.choices(files, weights, k=2)
    how = chance.choice(
        [
            *("flip", "truncate", "extend", "empty", "delete", "folder", "full folder", "no folder", "link"),
            *("dangling", "loop", "pipe", "swap", "copy", "reseal", "reseal", "nested"),
        ]
    )
    raw = path.read_bytes()
    match how:
        case "flip" if raw:
            place = chance.randrange(len(raw))
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << chance.randrange(8)]) + raw[place + 1 :])
        case "truncate":
            path.write_bytes(raw[: chance.randrange(len(raw) + 1)])
        case "extend":
            path.write_bytes(raw + chance.randbytes(chance.randrange(1, 50)))
        case "empty":
            path.write_bytes(b"")
        case "nested":
            path.write_bytes(b"[" * 100_000)
        case "copy":
            path.write_bytes(other.read_bytes())
        case "swap":
            content = other.read_bytes()
            other.write_bytes(raw)
            path.write_bytes(content)
        case "no folder" if path.parent != directory:
            shutil.rmtree(path.parent)
        case "reseal" if (content := unsealed(path)) is not None:
            path.write_bytes(sealed(altered(content, chance)))
        case _:
            path.unlink()
            if how in ("folder", "full folder"):
                path.mkdir()
            if how == "full folder":
                (path / "mine").write_text("mine")
            if how in ("link", "dangling", "loop"):
                path.symlink_to({"link": other, "dangling": "nowhere", "loop": path.name}[how])
            if how == "pipe":
                os.mkfifo(path)
    return f"{how} {path.relative_to(directory)}"


def altered(content: dict, chance: random.Random) -> dict:
    """Another value at a random place."""
    content = json.loads(json.dumps(content))
    place = content
    while True:
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        deeper = isinstance(place[key], dict | list) and place[key] and chance.random() < 0.7
        if not deeper:
            place[key] = chance.choice(ODD)
            return content
        place = place[key]


def fuzz(template: Path, directory: Path, seed: int) -> str:
    """One damaged store, looked at in every way and resumed; the outcome."""
    shutil.copytree(template, directory)
    chance = random.Random(seed)
    done = [damage(directory, chance) for _ in range(chance.choice([1, 1, 2, 3]))]
    try:
        return _outcome(template, directory)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {'; '.join(done)}: {type(error).__name__}: {error}") from error


def _outcome(template: Path, directory: Path) -> str:
    said, expected = [], loaded(template)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tree = open_results(directory)
            assert check_cells(tree, CONFIG) + CELLS * bool(caught) >= CELLS, "cells were lost in silence"
            for group in {"rates", "verdicts"} & set(tree.children):
                xr.testing.assert_identical(tree[group], expected[group])
        except StoreError as refusal:
            said.append(str(refusal))
    said += [str(warning.message) for warning in caught]
    assert len(caught) <= 1 and not any("\n" in line for line in said)
    for look in (_read_all, failed_batches, _shown):
        try:
            look(directory)
        except StoreError as refusal:
            assert "\n" not in str(refusal)
    try:
        with opened(directory, CONFIG) as store:
            said += store.damaged
            again = store.pending()
            for batch in again:
                store.commit(batch, compute(CONFIG, batch))
            store.write_derived(DERIVED)
    except StoreError as refusal:
        assert "\n" not in str(refusal)
        return "refused"
    except ConfigChanged as refusal:
        assert not any("\n" in line for line in refusal.problems)
        return "refused"
    found = loaded(directory)
    assert check_cells(found, CONFIG) == CELLS
    for group in expected.children:
        xr.testing.assert_identical(found[group].to_dataset(), expected[group].to_dataset())
    return "noticed" if said or again else "harmless"


def _read_all(directory: Path) -> None:
    for batch in read_batches(directory, stored_batches(directory)):
        assert batch.arrays


def _shown(directory: Path) -> None:
    report.show(directory, Console(file=io.StringIO()))


@pytest.mark.parametrize("seed", range(5))
def test_damaged_stores(template, tmp_path, seed):
    outcomes = Counter(fuzz(template, tmp_path / str(i), 1000 * seed + i) for i in range(4))
    assert set(outcomes) <= {"harmless", "noticed", "refused"}


@pytest.mark.long
def test_a_thousand_damaged_stores(template, tmp_path):
    outcomes: Counter[str] = Counter()
    for seed in range(10_000, 11_000):
        outcomes[fuzz(template, tmp_path / str(seed), seed)] += 1
        shutil.rmtree(tmp_path / str(seed))
    print(dict(outcomes))
    assert outcomes["noticed"] > 300 and outcomes["refused"] > 30
