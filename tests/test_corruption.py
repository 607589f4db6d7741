"""Flipped, truncated and deleted files: noticed or harmless, the cell named and computed again, the rest
kept."""

import random
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_store import check_cells, compute, loaded, opened, plainly, run, sweep

from nfd_jax.store import ConfigChanged, StoreError, _layout, open_results

CONFIG = sweep(widths=(8, 16), depths=(2, 4), seeds=2)
RATES = xr.Dataset(
    {"slope": ("row", [-1.0, 0.5]), "verdict": ("row", ["decays", "plateaus"])}, {"row": ["a", "b"]}
)
VERDICTS = xr.Dataset({"verdict": ("claim", ["holds", "fails"])}, {"claim": ["C1", "C2"]})
KINDS = {
    "chunk": "results.zarr/*/*/c.*",
    "metadata": "results.zarr/**/zarr.json",
    "record": "batches/*",
    "manifest": "store.json",
    "any": "results.zarr/**/*",
}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A finished store."""
    directory = tmp_path_factory.mktemp("template")
    with opened(directory, CONFIG) as store:
        for batch in store.pending():
            store.commit(batch, compute(CONFIG, batch))
        store.write_derived({"rates": RATES, "verdicts": VERDICTS})
    return directory


def damage(directory: Path, chance: random.Random, kind: str) -> tuple[Path, str]:
    """Damages one file; which, and how."""
    path = chance.choice(sorted(path for path in directory.glob(KINDS[kind]) if path.is_file()))
    raw = bytearray(path.read_bytes())
    how = chance.choice(["flip", "truncate", "delete"])
    match how:
        case "flip":
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
            path.write_bytes(raw)
        case "truncate":
            path.write_bytes(raw[: chance.randrange(len(raw))])
        case "delete":
            path.unlink()
    return path.relative_to(directory), how


def read_and_repair(template: Path, directory: Path, seed: int) -> None:
    shutil.copytree(template, directory)
    chance = random.Random(seed)
    path, how = damage(directory, chance, chance.choice(list(KINDS)))
    expected, said = loaded(template), []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tree = open_results(directory)
        said = [str(warning.message) for warning in caught]
    except StoreError as error:
        said = [str(error)]
    else:
        done = check_cells(tree, CONFIG)  # what is there is right
        lost_record = (path.parent.name, how) == ("batches", "delete")  # looks like a batch never run
        if done < 8 and not lost_record:
            assert re.search(r"width \d+, depths 2, 4, seed \d", said[0])
        if not said and not lost_record:
            xr.testing.assert_identical(tree, expected)
        for group in {"rates", "verdicts"} & set(tree.children):
            xr.testing.assert_identical(tree[group], expected[group])

    with opened(directory, CONFIG) as store:
        noticed = store.damaged
        again = store.pending()
        assert len(again) <= 1
        for batch in again:
            store.commit(batch, compute(CONFIG, batch))
        store.write_derived({"rates": RATES, "verdicts": VERDICTS})
    assert noticed or said or again or path.name == "derived.json", f"{path}: {how} went unnoticed"
    xr.testing.assert_identical(loaded(directory), expected)
    xr.testing.assert_identical(plainly(directory), expected)
    assert run(directory, CONFIG) == []


@pytest.mark.parametrize("seed", range(12))
def test_random_damage(template, tmp_path, seed):
    read_and_repair(template, tmp_path / "store", seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 150))
def test_fifty_random_damages(template, tmp_path, seed):
    read_and_repair(template, tmp_path / "store", seed)


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_damaged_chunk_names_its_cell_and_leaves_the_others(template, tmp_path, how):
    directory = tmp_path / "store"
    shutil.copytree(template, directory)
    grid = _layout.layout(CONFIG, _layout.axes(CONFIG, {}), outputs=2, attributes={}).grid
    with opened(directory, CONFIG) as store:
        chunk = next(
            c for c in grid.assign(store._manifest.plan)["cells-n16-L2_4-s1"] if c.array == "finite/loss"
        )
    path = directory / "results.zarr" / chunk.path
    if how == "delete":
        path.unlink()
    else:
        raw = path.read_bytes()
        path.write_bytes(raw[:-9] if how == "truncate" else bytes([raw[0] ^ 1]) + raw[1:])
    if how != "delete":  # zarr itself checks the bytes, though not that they are there
        with pytest.raises(ValueError):
            plainly(directory)
    with pytest.warns(
        UserWarning, match="width 16, depths 2, 4, seed 1: finite/loss at width 16, depth 2, seed 1"
    ) as caught:
        tree = open_results(directory)
    assert "width 8" not in str(caught[0].message) and "seed 0" not in str(caught[0].message)
    assert check_cells(tree, CONFIG) == 6
    kept = {file: file.stat().st_mtime_ns for file in (directory / "batches").iterdir()}
    with opened(directory, CONFIG) as store:
        assert [line.split(":")[0] for line in store.damaged] == ["width 16, depths 2, 4, seed 1"]
        assert [batch.id for batch in store.pending()] == ["cells-n16-L2_4-s1"]
        assert store.progress() == (6, 8)
        store.commit(store.pending()[0], compute(CONFIG, store.pending()[0]))
    changed = {file for file, time in kept.items() if file.stat().st_mtime_ns != time}
    assert {file.name for file in changed} == {"cells-n16-L2_4-s1.json"}
    xr.testing.assert_identical(loaded(directory), loaded(template))


def test_swapped_chunks_are_no_longer_believed(template, tmp_path):
    directory = tmp_path / "store"
    shutil.copytree(template, directory)
    one, two = sorted((directory / "results.zarr/finite/loss").glob("c.*"))[:2]
    one_raw, two_raw = one.read_bytes(), two.read_bytes()
    one.write_bytes(two_raw)
    two.write_bytes(one_raw)
    with pytest.warns(UserWarning, match="does not match its checksum"):
        tree = open_results(directory)
    assert 0 < check_cells(tree, CONFIG) < 8


def test_all_metadata_lost_and_all_cells_kept(template, tmp_path):
    directory = tmp_path / "store"
    shutil.copytree(template, directory)
    for path in [
        *directory.glob("results.zarr/**/zarr.json"),
        directory / "store.json",
        directory / "config.yaml",
    ]:
        path.unlink()
    with pytest.raises(StoreError, match="store.json is damaged; nfd run"):
        open_results(directory)
    with opened(directory, CONFIG) as store:
        assert store.pending() == [] and store.damaged
    assert check_cells(loaded(directory), CONFIG) == 8


def test_a_lost_manifest_does_not_let_another_config_in(template, tmp_path):
    directory = tmp_path / "store"
    shutil.copytree(template, directory)
    (directory / "store.json").write_text("{}")
    with pytest.raises(ConfigChanged, match="learning_rate"):
        opened(directory, sweep(learning_rate=0.125))
    with opened(directory, CONFIG) as store:
        assert store.pending() == []


def test_everything_lost_is_computed_again(template, tmp_path):
    directory = tmp_path / "store"
    shutil.copytree(template, directory)
    shutil.rmtree(directory / "results.zarr")
    damaged = run(directory, CONFIG)
    for width in (8, 16):
        assert any(line.startswith(f"width {width}, depths 2, 4, seed 1: ") for line in damaged)
    assert check_cells(loaded(directory), CONFIG) == 8
    assert not np.isnan(loaded(directory)["limit/loss"]).any()
