"""The store: what it holds and under which names, transactions, resuming, extending, refusing, and real
kills."""

import errno
import multiprocessing
import os
import random
import shutil
import signal
import time
import warnings
import zlib
from contextlib import suppress
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nfd_jax.config import SweepConfig
from nfd_jax.measures import Named
from nfd_jax.store import (
    Batch,
    ConfigChanged,
    Store,
    StoreError,
    StoreLocked,
    StoreUnwritable,
    _layout,
    open_results,
)
from nfd_jax.store._zarr import sealed, unsealed

NETWORK = ("backward_weights", "learning_rate", "width", "depth", "seed", "step")
OUTPUTS = 2
ATTRIBUTES = {"version": "0", "device": "none"}


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    """Only a power cut, which no test here stages, tells whether files are synced; the disk need not wait for
    it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def sweep(
    widths=(8, 16),
    depths=(2, 4),
    seeds=2,
    particles="matched",
    finite=True,
    limit=True,
    measure=None,
    **problem,
) -> SweepConfig:
    tree = {
        "name": "test",
        "seeds": seeds,
        "problem": {"dataset": "gaussian", "steps": 2, "batch_size": 3} | problem,
    }
    if finite:
        tree["finite"] = {"widths": list(widths), "depths": list(depths)}
    if measure is not None:
        tree["measure"] = measure
    if limit:
        tree["limit"] = {"particles": particles, "depth_steps": 96}
    return SweepConfig.model_validate(tree)


def plan(config, covered):
    """One batch for each width and seed, of all its depths; a limit on its own for each seed."""
    left = sorted(_layout.asked(config) - covered)
    depths = {}
    for width, depth, seed in left:
        depths.setdefault((width, seed, depth == 0), []).append(depth)
    return [
        Batch("limit", width, (), (seed,)) if alone else Batch("cells", width, tuple(found), (seed,))
        for (width, seed, alone), found in depths.items()
    ]


def single_cells(config, covered):
    return [
        Batch("cells", width, (depth,), (seed,))
        for width, depth, seed in sorted(_layout.asked(config) - covered)
    ]


@cache
def described(config):
    return _layout.layout(config, _layout.axes(config, {}), outputs=OUTPUTS, attributes={})


def numbers(name: str, width: int, depth: int, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """What the stand-in for a simulation finds: numbers that depend on the cell alone."""
    if name == "status/cell":
        return np.full(shape, 2 if (width + depth + seed) % 5 == 0 else 1, "int8")
    return np.random.default_rng([zlib.crc32(name.encode()), width, depth, seed]).standard_normal(shape)


def compute(config, batch) -> dict[str, Named]:
    """Dims in another order than the store's, as measures may have them."""
    layout, arrays = described(config), {}
    for name in layout.grid.arrays(batch):
        dims = layout.grid.dims[name]
        sizes = {dim: n for dim, n in zip(dims, layout.nodes[name]["shape"], strict=True)}
        sizes |= {"width": 1, "particles": 1, "depth": len(batch.depths), "seed": len(batch.seeds)}
        out = np.empty([sizes[dim] for dim in dims])
        for (i, depth), (j, seed) in product(enumerate(batch.depths or (0,)), enumerate(batch.seeds)):
            depth = depth if "depth" in dims else 0
            index = tuple(
                {"depth": slice(i, i + 1), "seed": slice(j, j + 1)}.get(dim, slice(None)) for dim in dims
            )
            out[index] = numbers(name, batch.width, depth, seed, out[index].shape)
        arrays[name] = Named(dims[::-1], out.transpose())
    return arrays


def opened(directory, config, make_plan=plan, **options) -> Store:
    return Store.open(
        directory, config, outputs=OUTPUTS, make_plan=make_plan, attributes=ATTRIBUTES, **options
    )


def run(directory, config, make_plan=plan, most=None) -> list[str]:
    """Runs at most `most` of the pending batches; what the store found damaged."""
    with opened(directory, config, make_plan) as store:
        for batch in store.pending()[:most]:
            store.commit(batch, compute(config, batch))
        return store.damaged


def loaded(path) -> xr.DataTree:
    """The results, with any warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return open_results(path)


def plainly(directory) -> xr.DataTree:
    """What any reader sees, with any warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(directory / "results.zarr", engine="zarr").load()
    return tree


def check_cells(tree: xr.DataTree, config) -> int:
    """Every done cell holds its numbers bit for bit, every other one nothing; the number of done cells."""
    cell = tree["status/cell"]
    grid = _layout.asked(config)
    done = 0
    for width, depth, seed in grid:
        here = {"width": width, "depth": depth, "seed": seed}
        status = cell.sel(here).values
        finished = bool((status != 0).all())
        assert finished or (status == 0).all()
        done += finished
        for path in (
            path for path in described(config).grid.dims if "depth" in described(config).grid.dims[path]
        ):
            values = tree[path].sel({dim: [value] for dim, value in here.items()}).values
            expected = numbers(path, width, depth, seed, values.shape)
            empty = np.zeros_like(values) if path == "status/cell" else np.full_like(values, np.nan)
            np.testing.assert_array_equal(values, expected if finished else empty, err_msg=f"{path} {here}")
    return done


def test_names_and_dims_are_the_contract(tmp_path):
    config = sweep(learning_rate=[0.5, 0.25])
    run(tmp_path, config)
    trees = loaded(tmp_path), loaded(tmp_path / "results.zarr"), plainly(tmp_path)
    for tree in trees[1:]:
        xr.testing.assert_identical(trees[0], tree)
    trajectory = {
        "loss": (), "accuracy": (), "heldout_loss": (), "heldout_accuracy": (), "history_residual": (),
        "output": ("sample", "component"), "feature_shift_ms": ("t",), "gradient_shift_ms": ("t",),
    }  # fmt: skip
    limit = ("backward_weights", "learning_rate", "particles", "seed", "step")
    expected = {f"finite/{name}": NETWORK + more for name, more in trajectory.items()}
    expected |= {f"limit/{name}": limit + more for name, more in trajectory.items()}
    compared = ("backward_weights", "limit_backward_weights", *NETWORK[1:])
    expected["compare/limit_error_ms"] = (*compared, "quantity")
    expected["law/output_bias"] = (*compared, "sample", "component")
    for name in ("feature_kernel_bias", "gradient_kernel_bias"):
        expected[f"law/{name}"] = (*compared, "t", "sample", "sample2")
        expected[f"law/initial_{name}"] = (*NETWORK[:-1], "t", "sample", "sample2")
    for name in ("marginal_w2", "marginal_w2_null"):
        expected[f"law/{name}"] = (*compared, "quantity")
    for name in ("first_step_gain", "first_step_gain_predicted"):
        expected[f"response/{name}"] = ("backward_weights", "width", "depth", "seed")
    expected["coupling/coupling_effect_ms"] = (*NETWORK[1:], "quantity")
    for name in ("coupling_layer_ms", "coupling_displacement_ms"):
        expected[f"coupling/{name}"] = (*NETWORK[1:], "direction")
    for name in ("min_eigenvalue", "max_eigenvalue"):
        expected[f"spectrum/{name}"] = ("kind", "scope", *NETWORK, "t")
    for name in ("feature_kernel", "gradient_kernel"):
        expected[f"kernels/{name}"] = ("source", *NETWORK, "t", "sample", "sample2")
    expected["status/cell"] = NETWORK[:-1]
    tree = trees[0]
    found = {
        f"{group}/{name}": a.dims
        for group, child in tree.children.items()
        for name, a in child.data_vars.items()
    }
    assert found == expected
    for path, dims in expected.items():
        array = tree[path]
        assert array.dtype == ("int8" if path == "status/cell" else "float64")
        assert set(array.coords) == set(dims) and array.attrs["long_name"] and array.attrs["units"]
        assert array.name not in array.dims and all(array[dim].attrs["long_name"] for dim in dims)
    assert tree.attrs == ATTRIBUTES
    assert tree["finite/t"].values.tolist() == [0, 0.5, 1]
    assert tree["finite/learning_rate"].values.tolist() == [0.5, 0.25]
    assert tree["finite/backward_weights"].values.tolist() == ["reused", "independent"]
    assert tree["limit/particles"].values.tolist() == [8, 16]
    assert tree["kernels/source"].values.tolist() == ["finite", "limit"]
    assert tree["law/quantity"].values.tolist() == ["h", "b"] and tree[
        "compare/quantity"
    ].values.tolist() == ["h", "b", "f"]
    assert tree["finite/component"].values.tolist() == [0, 1]
    assert SweepConfig.from_yaml((tmp_path / "config.yaml").read_text()) == config
    assert check_cells(tree, config) == 8
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".tmp")]


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"limit": False}, {"finite", "coupling", "spectrum", "kernels", "response", "status"}),
        ({"particles": 32}, {"finite", "limit", "coupling", "spectrum", "kernels", "response", "status"}),
        ({"finite": False, "particles": 32}, {"limit", "status"}),
    ],
)
def test_absent_sections_write_no_group(tmp_path, options, groups):
    config = sweep(**options)
    run(tmp_path, config)
    tree = loaded(tmp_path)
    assert set(tree.children) == groups
    assert (tree["status/cell"] > 0).all()
    if "limit" in groups:
        assert tree["limit/particles"].values.tolist() == [32]
        assert np.isfinite(tree["limit/loss"]).all()
    if "finite" not in groups:
        assert tree["status/cell"].dims == ("backward_weights", "learning_rate", "particles", "seed")
        assert tree["limit/t"].size == 17


def test_unfinished_cells_are_empty_and_resuming_keeps_the_stored_plan(tmp_path):
    config = sweep()
    run(tmp_path, config, most=3)
    tree = loaded(tmp_path)
    xr.testing.assert_identical(tree, plainly(tmp_path))
    assert check_cells(tree, config) == 6
    with opened(tmp_path, config, make_plan=lambda *_: pytest.fail("planned twice")) as store:
        assert store.progress() == (6, 8) and [batch.depths for batch in store.pending()] == [(2, 4)]
    run(tmp_path, config)
    whole = sweep()
    run(tmp_path / "whole", whole)
    xr.testing.assert_identical(loaded(tmp_path), loaded(tmp_path / "whole"))


@pytest.mark.parametrize(
    "larger",
    [{"seeds": 4}, {"widths": (7, 8, 12, 16)}, {"depths": (6, 2, 4)}, {"seeds": 3, "widths": (16, 8, 7)}],
)
def test_extension_keeps_stored_cells_bit_for_bit(tmp_path, larger):
    run(tmp_path, sweep(), most=3)
    config = sweep(**larger)
    with opened(tmp_path, config) as store:
        done, total = store.progress()
        assert done == 6 and total == len(_layout.asked(config))
        assert check_cells(loaded(tmp_path), config) == 6
        plainly(tmp_path)
    assert run(tmp_path, config) == []
    run(tmp_path / "whole", config)
    xr.testing.assert_identical(loaded(tmp_path), loaded(tmp_path / "whole"))
    assert SweepConfig.from_yaml((tmp_path / "config.yaml").read_text()) == config


def test_a_smaller_config_runs_what_it_asks_for_and_keeps_the_rest(tmp_path):
    run(tmp_path, sweep(), most=1)
    small = sweep(widths=(16,), seeds=1)
    with opened(tmp_path, small) as store:
        assert store.progress() == (0, 2) and [batch.width for batch in store.pending()] == [16]
    run(tmp_path, small)
    assert check_cells(loaded(tmp_path), sweep()) == 4


def test_a_changed_config_is_refused_with_the_difference(tmp_path):
    run(tmp_path, sweep())
    before = loaded(tmp_path)
    with pytest.raises(ConfigChanged) as refused:
        opened(tmp_path, sweep(learning_rate=0.25))
    assert any("learning_rate" in line and "0.25" in line for line in refused.value.problems)
    assert "--fresh" in refused.value.problems[-1]
    with pytest.raises(ConfigChanged, match="1/2, now of 1/1"):
        opened(tmp_path, sweep(depths=(2, 4, 1)))
    xr.testing.assert_identical(loaded(tmp_path), before)
    with opened(tmp_path, sweep(learning_rate=0.25), fresh=True) as store:
        assert store.progress() == (0, 8)
    assert np.isnan(loaded(tmp_path)["finite/loss"]).all()


def test_a_store_of_the_old_layout_is_refused_in_one_line(tmp_path):
    run(tmp_path, sweep(), most=1)
    manifest = unsealed(tmp_path / "store.json")
    (tmp_path / "store.json").write_bytes(sealed(manifest | {"format": 1}))
    for use in (lambda: opened(tmp_path, sweep()), lambda: open_results(tmp_path)):
        with pytest.raises(
            StoreError, match="store of format 1, .* use the version that wrote it, another --out, or --fresh"
        ) as error:
            use()
        assert "\n" not in str(error.value)
    with opened(tmp_path, sweep(), fresh=True) as store:
        assert store.progress() == (0, 8)


def test_what_a_run_need_not_find_out_again_is_kept_until_discarded(tmp_path):
    with opened(tmp_path, sweep()) as store:
        assert store.noted("check") is None
        before = store.state()
        store.note("check", {"loss": 1e-7})
        store.note("other", "text")
        assert store.state() == before
        store.commit(store.pending()[0], compute(sweep(), store.pending()[0]))
        assert store.state() != before
    with opened(tmp_path, sweep(seeds=3)) as store:
        assert store.noted("check") == {"loss": 1e-7} and store.noted("other") == "text"
    with opened(tmp_path, sweep(), fresh=True) as store:
        assert store.noted("check") is None


def test_another_zarr_folder_is_left_alone(tmp_path):
    foreign = tmp_path / "results.zarr" / "data"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    with pytest.raises(StoreError, match="not written by"):
        opened(tmp_path, sweep())
    assert foreign.read_text() == "mine"
    with pytest.raises(StoreError, match="no results"):
        open_results(tmp_path / "elsewhere")


def test_what_does_not_fit_is_not_stored(tmp_path):
    config = sweep()
    with opened(tmp_path, config) as store:
        first, second, *_ = store.pending()
        arrays = compute(config, first)
        loss = arrays["finite/loss"]
        with pytest.raises(ValueError, match="finite/loss has shape"):
            store.commit(first, arrays | {"finite/loss": Named(loss.dims, loss.values[..., :0])})
        with pytest.raises(
            ValueError, match="finite/loss has shape .* expected dims backward_weights, learning_rate, width"
        ):
            store.commit(first, arrays | {"finite/loss": Named(("stop", *loss.dims[1:]), loss.values)})
        with pytest.raises(ValueError, match="'finite/lost'"):
            store.commit(first, arrays | {"finite/lost": loss})
        with pytest.raises(ValueError, match="allowed: 1"):
            cell = arrays["status/cell"]
            store.commit(first, arrays | {"status/cell": Named(cell.dims, 0 * cell.values)})
        with pytest.raises(ValueError, match="not in the plan"):
            store.commit(Batch("cells", 8, (4,), (0,)), compute(config, Batch("cells", 8, (4,), (0,))))
        assert store.progress() == (0, 8)
        store.commit(first, arrays, {"seconds": 1.0})
        with pytest.raises(ValueError, match="already stored"):
            store.commit(first, arrays)
        assert store.pending()[0] == second


def test_a_limit_computed_twice_is_stored_once(tmp_path):
    run(tmp_path, sweep(), single_cells, most=1)
    before = {path: path.stat().st_ino for path in (tmp_path / "results.zarr/limit").rglob("c.*")}
    run(tmp_path, sweep())
    assert {path: path.stat().st_ino for path in before} == before
    assert np.isfinite(loaded(tmp_path)["limit/loss"]).all()


def test_failed_batches_are_marked_and_tried_again_next_time(tmp_path):
    config = sweep()
    with opened(tmp_path, config) as store:
        first = store.pending()[0]
        store.fail(first, "killed three workers")
        assert first not in store.pending()
        assert store.failed() == ["width 8, depths 2, 4, seed 0: killed three workers"]
    status = loaded(tmp_path)["status/cell"].sel(seed=0)
    assert (status.sel(width=8) == 3).all() and (status.sel(width=16) == 0).all()
    with opened(tmp_path, config) as store:
        assert store.failed() and store.pending()[0] == first
        store.commit(first, compute(config, first))
        assert store.failed() == []
    assert check_cells(loaded(tmp_path), config) == 2


def test_derived_groups_are_replaced_as_a_whole(tmp_path):
    def rates(rows):
        texts = [f"decays at rate {row}, α" for row in range(rows)]
        variables = {"slope": ("row", np.arange(rows) - 0.5), "verdict": ("row", np.array(texts, object))}
        coordinates = {"row": [f"row {row}" for row in range(rows)], "claim": ("row", ["C1"] * rows)}
        return xr.Dataset(variables, coordinates)

    run(tmp_path, sweep())
    for rows in (2, 5, 0):
        with opened(tmp_path, sweep()) as store:
            store.write_derived({"rates": rates(rows), "verdicts": rates(2 * rows)})
            assert store.concluded()
        tree = loaded(tmp_path)
        assert tree["verdicts/slope"].size == 2 * rows
        xr.testing.assert_identical(tree, plainly(tmp_path))
        assert tree["rates/verdict"].dtype.kind == "U"
        assert tree["rates/claim"].dims == ("row",) and "claim" in tree["rates"].coords
        np.testing.assert_array_equal(tree["rates/slope"], np.arange(rows) - 0.5)
        assert tree["rates/verdict"].values.tolist() == [f"decays at rate {row}, α" for row in range(rows)]
    run(tmp_path, sweep(seeds=3), most=0)
    assert not {"rates", "verdicts"} & set(loaded(tmp_path).children)
    with opened(tmp_path, sweep(seeds=3)) as store:
        assert not store.concluded()


def test_ids_longer_than_file_names_may_be(tmp_path):
    config = sweep(widths=(8,), depths=(2,), seeds=90, limit=False)
    run(tmp_path, config, lambda config, covered: [Batch("cells", 8, (2,), tuple(range(90)))])
    assert check_cells(loaded(tmp_path), config) == 90


def hold(directory, ready):
    with opened(directory, sweep()):
        ready.set()
        time.sleep(60)


def test_the_lock_goes_with_its_holder(tmp_path):
    with opened(tmp_path, sweep()), pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        opened(tmp_path, sweep())
    context = processes()
    ready = context.Event()
    holder = context.Process(target=hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(StoreLocked, match=f"process {holder.pid}"):
        opened(tmp_path, sweep())
    holder.kill()
    holder.join()
    opened(tmp_path, sweep()).close()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = sweep()
    with opened(tmp_path, config) as store:
        first, second, *_ = store.pending()
        store.commit(first, compute(config, first))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(StoreUnwritable, match="No space left.*free some space") as error:
                store.commit(second, compute(config, second))
            assert "\n" not in str(error.value)
            with pytest.raises(StoreUnwritable, match="No space left"):
                store.fail(second, "no space")
        assert store.pending()[0] == second
    assert check_cells(loaded(tmp_path), config) == 2
    run(tmp_path, config)
    assert check_cells(plainly(tmp_path), config) == 8


def test_unwritable_folders(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnwritable, match="file"):
        opened(tmp_path / "file", sweep())
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if not os.access(locked, os.W_OK):  # root may write anywhere
        with pytest.raises(StoreUnwritable, match="Permission denied.*another --out"):
            opened(locked, sweep())
    system = os.open

    def read_only(path, flags, *rest, **named):
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return system(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreUnwritable, match="Read-only file system; the file system is read-only"):
        opened(tmp_path / "mounted", sweep())


class Killed(BaseException):
    """Stands in for a kill at a chosen system call."""


def after(calls: int, monkeypatch, action) -> int:
    """Runs `action` until it has changed names in the file system this often; how often it had."""
    made = 0

    def counted(function):
        def call(*arguments, **named):
            nonlocal made
            made += 1
            if made > calls:
                raise Killed
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "rmdir", "link", "unlink"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
        with suppress(Killed):
            action()
    return made


@pytest.mark.parametrize("change", ["creation", "extension", "derived"])
def test_a_change_of_shape_cut_short_anywhere_is_finished_or_undone(tmp_path, monkeypatch, change):
    small, large = (sweep(widths, limit=False, measure=[]) for widths in ((8,), (8, 16)))
    config = small if change == "derived" else large
    template = tmp_path / "template"
    if change != "creation":
        run(template, small)

    def act(directory):
        with opened(directory, config) as store:
            if change == "derived":
                store.write_derived({"rates": xr.Dataset({"slope": ("row", [1.0])}, {"row": ["a"]})})

    def cut_short(calls) -> tuple[Path, int]:
        directory = tmp_path / str(calls)
        if change != "creation":
            shutil.copytree(template, directory)
        return directory, after(calls, monkeypatch, lambda: act(directory))

    total = cut_short(10**6)[1]
    files = range(0, total - 12, max(1, total // 3))  # a few of the many alike; what matters comes after them
    for calls in (*files, *range(max(0, total - 12), total)):
        directory, _ = cut_short(calls)
        if change != "creation":
            assert check_cells(loaded_leniently(directory), small) == 4
        with opened(directory, config) as store:
            assert store.progress()[0] == (0 if change == "creation" else 4)
            assert not [line for line in store.damaged if not line.startswith("derived groups")]
        plainly(directory)
        shutil.rmtree(directory)


def loaded_leniently(directory):
    """Derived groups, which are computed again in the end, may be found damaged where a replacement was cut
    short."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[^;]*: derived groups$")
        return loaded(directory)


def processes():
    """Real processes that fork from a small server which has the imports behind it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "xarray", "nfd_jax.config", "nfd_jax.store"])
    return context


def sweep_in_child(directory, config, started):
    started.set()
    run(directory, config, single_cells)


def killed_sweeps(directory: Path, kills: int, seed: int) -> None:
    """Sweeps of 60 cells, the last 24 added later, killed again and again; after each kill all stored cells
    are there."""
    first = sweep(widths=(8, 12), depths=(2, 4, 6), seeds=6, limit=False, steps=1, batch_size=2)
    whole = sweep(widths=(8, 12), depths=(2, 4, 6), seeds=10, limit=False, steps=1, batch_size=2)
    run(directory / "whole", whole, single_cells)
    expected = loaded(directory / "whole")
    moments, context = random.Random(seed), processes()
    store, done = directory / "store", 0
    while kills:
        for config in (first, whole):
            complete = False
            while not complete:
                started = context.Event()
                child = context.Process(target=sweep_in_child, args=(store, config, started))
                child.start()
                assert started.wait(60)
                if kills:
                    child.join(moments.uniform(0, 0.25))
                    child.kill()
                child.join()
                assert child.exitcode in (0, -signal.SIGKILL)
                complete = child.exitcode == 0
                kills = max(0, kills - (not complete))
                if not (store / "store.json").exists() and not (store / "next").exists():
                    assert done == 0  # killed before the store was created
                    continue
                found = check_cells(loaded(store), first)
                assert found >= done
                done = found
        xr.testing.assert_identical(loaded(store), expected)
        xr.testing.assert_identical(plainly(store), expected)
        shutil.rmtree(store)
        done = 0


@pytest.mark.long
def test_a_commit_costs_less_than_three_percent_of_one_second_cells(tmp_path, monkeypatch):
    monkeypatch.undo()  # files are synced
    config = sweep(widths=(32,), depths=(8, 16, 32), seeds=20, steps=4, batch_size=4)
    seconds = []
    with opened(tmp_path, config) as store:
        for batch in store.pending():
            arrays = compute(config, batch)
            start = time.perf_counter()
            store.commit(batch, arrays)
            seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.03 * len(batch.depths)


def test_kills_at_random_moments(tmp_path):
    killed_sweeps(tmp_path, 6, seed=0)


@pytest.mark.long
def test_two_hundred_kills(tmp_path):
    killed_sweeps(tmp_path, 200, seed=1)
