"""Whose files are whose: a store begins only where nothing lies, and replaces only what it wrote itself."""

import errno
import os
import shutil

import pytest
import xarray as xr
from test_store import check_cells, compute, loaded, opened, plainly, plan, run, sweep

from nfd_jax import launch
from nfd_jax.store import (
    ConfigChanged,
    StoreError,
    StoreUnwritable,
    claim_variants,
    open_results,
    variant_names,
)
from nfd_jax.store._zarr import sealed, unsealed

FOREIGN = ("next", "discarded", "batches", "next.tmp", "figures")
NAMES = ("config.yaml", "lock", "report.html", "store.json", "notes.json", "log.jsonl", "mine.txt")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def contents(folder) -> dict:
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", [*FOREIGN, *NAMES])
def test_a_folder_that_holds_anything_else_is_refused_and_left_alone(tmp_path, name, fresh):
    if name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("mine")
    else:
        (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(StoreError, match=f"not empty, and not written by nfd run: it holds {name}"):
        opened(tmp_path, sweep(), fresh=fresh)
    with pytest.raises(StoreError, match="not empty"):
        claim_variants(tmp_path, ["a"])
    assert contents(tmp_path) == before


def test_in_a_store_what_others_put_there_stays(tmp_path):
    run(tmp_path, sweep(), most=2)
    others = [tmp_path / name / "mine.txt" for name in ("next", "discarded", "next.tmp", "batches")]
    others += [tmp_path / "mine.txt", tmp_path / "results.zarr/finite/loss/mine.txt"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    run(tmp_path, sweep())
    run(tmp_path, sweep(seeds=3))
    assert check_cells(loaded(tmp_path), sweep(seeds=3)) == 12
    with opened(tmp_path, sweep(learning_rate=0.25), fresh=True) as store:
        assert store.progress() == (0, 8)
    survived = [path for path in others if "results.zarr" not in path.parts]
    assert all(path.read_text() == "mine" for path in survived)


@pytest.mark.parametrize("left", ["lock", "marked", "building", "batches"])
def test_what_a_run_killed_at_its_start_leaves_is_no_obstacle(tmp_path, left):
    (tmp_path / "lock").write_text("nfd_jax store, process 1\n" if left == "marked" else "")
    if left == "building":
        (tmp_path / ".nfd-building" / "results.zarr").mkdir(parents=True)
    if left == "batches":
        (tmp_path / "batches").mkdir()
    run(tmp_path, sweep())
    assert check_cells(loaded(tmp_path), sweep()) == 8


def test_a_damaged_manifest_leaves_a_store_a_store(tmp_path):
    run(tmp_path, sweep())
    (tmp_path / "store.json").write_text("{}")
    (tmp_path / "lock").unlink()
    with opened(tmp_path, sweep()) as store:
        assert store.pending() == []


def test_variants_and_plain_sweeps_keep_apart(tmp_path):
    run(tmp_path / "plain", sweep())
    with pytest.raises(StoreError, match="holds a sweep without variants"):
        claim_variants(tmp_path / "plain", ["a", "b"])
    assert claim_variants(tmp_path / "varied", ["a", "b"]) == []
    run(tmp_path / "varied" / "a", sweep())
    with pytest.raises(StoreError, match=r"holds variants \(a, b\)"):
        opened(tmp_path / "varied", sweep())
    assert claim_variants(tmp_path / "varied", ["b", "c"]) == ["a"]
    assert variant_names(tmp_path / "varied") == ["b", "c"]
    assert check_cells(loaded(tmp_path / "varied" / "a"), sweep()) == 8, "left as it is"


def test_samples_that_changed_are_refused_with_the_difference(tmp_path):
    make = {"make_plan": plan, "samples": "a" * 64}
    with opened(tmp_path, sweep(), **make) as store:
        batch = store.pending()[0]
        store.commit(batch, compute(sweep(), batch))
    before = contents(tmp_path)
    for outputs_changed in (False, True):
        with pytest.raises(ConfigChanged, match=f"stored {'a' * 16}, now {'b' * 16} .*put the data set back"):
            opened(tmp_path, sweep(), **make | {"samples": "b" * 64})
        if not outputs_changed:
            (tmp_path / "store.json").rename(tmp_path / "kept")  # the records say it too
    (tmp_path / "kept").rename(tmp_path / "store.json")
    assert {path: raw for path, raw in contents(tmp_path).items() if path.name != "lock"} == {
        path: raw for path, raw in before.items() if path.name != "lock"
    }
    with opened(tmp_path, sweep(), **make) as store:
        assert store.progress() == (2, 8)


def test_a_copied_record_loses_no_width(tmp_path):
    """Without the manifest the records alone say what is stored."""
    run(tmp_path, sweep())
    first = sorted((tmp_path / "batches").iterdir())[0]
    shutil.copy(first, first.with_name("cells-n9-L2-s0.json"))
    (tmp_path / "store.json").unlink()
    with opened(tmp_path, sweep()) as store:
        assert store.pending() == []
        assert any("1 commit records of other cells left out" in line for line in store.damaged)
    assert check_cells(loaded(tmp_path), sweep()) == check_cells(plainly(tmp_path), sweep()) == 8


def test_a_record_in_anothers_place_is_not_believed(tmp_path):
    run(tmp_path, sweep())
    one, two = sorted((tmp_path / "batches").iterdir())[:2]
    shutil.copy(one, two)
    with pytest.warns(UserWarning, match="the commit record is damaged"):
        assert check_cells(open_results(tmp_path), sweep()) == 6
    run(tmp_path, sweep())
    assert check_cells(loaded(tmp_path), sweep()) == 8


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    run(tmp_path / "store", sweep())
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "store" / "lock").unlink()
    (tmp_path / "store" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="lock: a link, allowed: a file"):
        opened(tmp_path / "store", sweep())
    assert (tmp_path / "precious").read_text() == "mine"


def test_results_behind_a_link_resume_but_do_not_change_their_shape(tmp_path):
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    run(store, sweep(), most=2)
    (store / "results.zarr").rename(elsewhere)
    (store / "results.zarr").symlink_to(elsewhere)
    run(store, sweep())
    assert check_cells(loaded(store), sweep()) == 8
    for change in ({"seeds": 3}, {"fresh": True, "learning_rate": 0.25}):
        options = {"fresh": change.pop("fresh", False)}
        with pytest.raises(StoreError, match="results.zarr: a link"):
            opened(store, sweep(**change), **options)
    assert (store / "results.zarr").is_symlink() and any(elsewhere.rglob("c.*"))


@pytest.mark.parametrize(
    "place", ["store.json", "config.yaml", "notes.json", "lock", "batches/{record}", "{chunk}", "log.jsonl"]
)
def test_a_folder_in_a_files_place_is_repaired_or_refused_in_one_line(tmp_path, place):
    run(tmp_path, sweep())
    record = sorted((tmp_path / "batches").iterdir())[0].name
    chunk = sorted(tmp_path.glob("results.zarr/finite/loss/c.*"))[0].relative_to(tmp_path)
    path = tmp_path / place.format(record=record, chunk=chunk)
    path.unlink(missing_ok=True)
    (path / "within").mkdir(parents=True)
    (path / "within" / "mine").write_text("mine")
    try:
        run(tmp_path, sweep())
    except StoreError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        assert (path / "within" / "mine").read_text() == "mine"
        shutil.rmtree(path)
        run(tmp_path, sweep())
    assert check_cells(loaded(tmp_path), sweep()) == 8


def test_a_store_removed_while_it_is_open_is_said_in_one_line(tmp_path):
    with opened(tmp_path / "store", sweep()) as store:
        shutil.rmtree(tmp_path / "store")
        with pytest.raises(StoreUnwritable, match="moved or removed while it was in use") as error:
            store.commit(store.pending()[0], compute(sweep(), store.pending()[0]))
        assert "\n" not in str(error.value)


def test_only_stores_of_this_version_are_read(tmp_path):
    run(tmp_path, sweep(), most=1)
    manifest = unsealed(tmp_path / "store.json")
    for spoiled in (manifest | {"plan": 3}, manifest | {"grid": {}}, manifest | {"files": None}):
        (tmp_path / "store.json").write_bytes(sealed(spoiled))
        with pytest.raises(StoreError, match="store.json is damaged"):
            open_results(tmp_path)
    with opened(tmp_path, sweep()) as store:
        assert store.progress() == (2, 8)


def test_strict_reading_raises_what_else_is_a_warning(tmp_path):
    run(tmp_path, sweep())
    open_results(tmp_path, strict=True)
    sorted(tmp_path.glob("results.zarr/finite/loss/c.*"))[0].unlink()
    with pytest.warns(UserWarning, match="finite/loss at width 8, depth 2, seed 0 is missing") as caught:
        open_results(tmp_path)
    assert len(caught) == 1
    with pytest.raises(StoreError, match="finite/loss at width 8, depth 2, seed 0 is missing"):
        open_results(tmp_path, strict=True)


def test_a_record_lost_after_verdicts_were_drawn_is_named(tmp_path):
    with opened(tmp_path, sweep()) as store:
        for batch in store.pending():
            store.commit(batch, compute(sweep(), batch))
        store.write_derived({"rates": xr.Dataset({"slope": ("row", [1.0])}, {"row": ["a"]})})
    sorted((tmp_path / "batches").glob("cells*"))[0].unlink()
    with pytest.warns(UserWarning, match="width .*: the commit record is missing"):
        assert check_cells(open_results(tmp_path), sweep()) == 6
    with opened(tmp_path, sweep()) as store:
        assert len(store.pending()) == 1 and any("missing" in line for line in store.damaged)


def test_metadata_that_is_damaged_is_made_again_from_the_stored_config(tmp_path):
    config = sweep()
    told = {"config": config.to_yaml(), "device": "none"}
    with opened(tmp_path, config) as store:
        assert store.progress() == (0, 8)
    shutil.rmtree(tmp_path)
    from nfd_jax.store import Store

    with Store.open(tmp_path, config, outputs=2, make_plan=plan, attributes=told) as store:
        for batch in store.pending():
            store.commit(batch, compute(config, batch))
    before = loaded(tmp_path)
    for path in tmp_path.glob("results.zarr/**/zarr.json"):
        path.write_bytes(b"{}")
    with pytest.warns(UserWarning, match=r"results.zarr/zarr.json"):
        found = open_results(tmp_path)
    xr.testing.assert_identical(found, before)
    assert found.attrs == told


def test_a_chunk_of_the_wrong_length_is_damage_even_where_its_record_agrees(tmp_path):
    run(tmp_path, sweep())
    from nfd_jax.store._zarr import sha256

    chunk = sorted(tmp_path.glob("results.zarr/finite/loss/c.*"))[0]
    chunk.write_bytes(chunk.read_bytes()[:12])
    record = sorted((tmp_path / "batches").glob("cells-n8-*s0.json"))[0]
    content = unsealed(record)
    cells = content["sha256"]["finite/loss"]
    cells[next(iter(cells))] = sha256(chunk.read_bytes())
    record.write_bytes(sealed(content))
    with pytest.warns(UserWarning, match="has not the size of its shape"):
        assert check_cells(open_results(tmp_path), sweep()) == 6
    run(tmp_path, sweep())
    assert check_cells(loaded(tmp_path), sweep()) == 8


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, capfd):
    (tmp_path / "log.jsonl").mkdir()
    progress = launch.sweep.Progress("sweep", quiet=False)
    with progress.logging_to(tmp_path / "log.jsonl"):
        progress.log("started")
        progress.log("batch")
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and os.strerror(errno.EISDIR) in said[0] and "the log ends here" in said[0]
