"""A limit to a tolerance in a sweep: what is stored is the estimate with its bars, one for repetitions of
equal samples; and the same numbers to the last bit where workers take its samples."""

import itertools
import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from _compiler import QUICK_TO_RUN
from _configs import config_with
from matplotlib.collections import PolyCollection

import nfd_jax as nfd
from nfd_jax import launch, programs, sweep
from nfd_jax.limit import Sampler, TimeTooShort, _multilevel, initial_averages
from nfd_jax.problem import Heldout
from nfd_jax.report._distances import estimate_band
from nfd_jax.report._fig_front import front_loss
from nfd_jax.report._fig_training import kernels, losses
from nfd_jax.report._plot import styled
from nfd_jax.sweep import _cluster, _estimates
from nfd_jax.sweep._execute import run_batch
from nfd_jax.sweep._plan import make_plan
from nfd_jax.sweep._spread import A_WORKER, LEAST, Share, Spread, _parts, taken
from nfd_jax.sweep._task import Task
from nfd_jax.sweep._unfinished import Unfinished
from nfd_jax.verdicts import View

TREE = {
    "name": "estimated",
    "seeds": 2,
    "precision": "float64",
    "problem": {"dataset": "gaussian", "input_dim": 4, "steps": 2, "batch_size": 2},
    "limit": {"tolerance": 0.1, "kernels": True, "depth_steps": 2},
}
CONFIG = config_with(TREE, {})
[BATCH] = make_plan(CONFIG)


@pytest.fixture(scope="module", autouse=True)
def few_samples():
    """Of each level: most of the time here goes into taking them, by programs that run for longer than they
    compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_multilevel, "PILOT", {"base": 32, "particles": 32, "steps": 16, "mixed": 8})
        patch.setattr(programs, "compiler_options", lambda **_: QUICK_TO_RUN)
        yield


def stored(folder, **changes):
    config = config_with(TREE, changes)
    outcome = launch.run_sweep(config, folder, quiet=True, report=False)
    return nfd.open_results(folder), outcome.failed


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    tree, failed = stored(tmp_path_factory.mktemp("estimated"))
    assert not failed
    return tree


def direct(flag, key, tolerance=0.1):
    with jax.enable_x64(True):
        problem, heldout = nfd.Problem.from_config(CONFIG), Heldout.from_config(CONFIG)
        options = {"backward_weights": flag, "heldout": heldout.inputs, "kernels": 2}
        return nfd.estimate_limit(problem, tolerance=tolerance, key=key, **options)


@pytest.mark.parametrize("flag", ["reused", "independent"])
def test_stored_outputs_are_the_estimate_and_lie_within_its_bars_of_another(results, flag):
    found = results["limit"].to_dataset().sel(backward_weights=flag, particles=0, seed=1)
    found = found.squeeze("learning_rate")
    assert found.output.dims == found.output_bias.dims == ("step", "sample", "component")
    same, other = direct(flag, nfd.seed_key(CONFIG, 0)), direct(flag, jax.random.key(5))
    np.testing.assert_allclose(found.output, same.output, rtol=1e-10)
    np.testing.assert_allclose(found.loss, same.loss, rtol=1e-10)
    bars = 4 * np.hypot(found.output_standard_error.values, other.standard_error)
    bars = bars + found.output_bias.values + other.bias
    assert np.all(np.abs(found.output.values - other.output) < bars)
    same, other = (run.quantities["loss"] for run in (same, other))
    np.testing.assert_allclose(found.loss_standard_error, same.standard_error, rtol=1e-8)
    bars = 4 * np.hypot(found.loss_standard_error.values, other.standard_error) + found.loss_bias.values
    assert np.all(np.abs(found.loss.values - other.value) < bars + other.bias)
    assert 0 < np.sqrt(np.mean(found.output_standard_error.values**2)) < 0.1


def test_bars_of_held_out_losses_are_those_of_the_outputs_carried_over(results):
    """To first order: outputs off by a little, all of them to the side that hurts most."""
    found = results["limit"].to_dataset().sel(backward_weights="reused", particles=0, seed=1)
    found = found.squeeze("learning_rate")
    estimate = direct("reused", nfd.seed_key(CONFIG, 0)).quantities["heldout"]
    with jax.enable_x64(True):
        y = np.asarray(Heldout.from_config(CONFIG).targets)
    loss = lambda f: ((f - y) ** 2).sum(-1).mean(-1) / 2
    np.testing.assert_allclose(found.heldout_loss, loss(estimate.value), rtol=1e-9)
    for part in ("standard_error", "bias"):
        worst = np.sign(estimate.value - y) * np.abs(getattr(estimate, part)) * 1e-6
        step = (loss(estimate.value + worst) - loss(estimate.value)) / 1e-6
        np.testing.assert_allclose(found[f"heldout_loss_{part}"], step, rtol=1e-4)


def test_kernels_come_with_bars_about_their_closed_form(results):
    limit = results["limit"].to_dataset().isel(seed=0).squeeze(["particles", "learning_rate"], drop=True)
    with jax.enable_x64(True):
        closed = initial_averages(nfd.Problem.from_config(CONFIG), ts=(0.0, 0.5, 1.0))
    for name, expected in zip(("feature_kernel", "gradient_kernel"), closed, strict=True):
        found, error = limit[name], limit[f"{name}_standard_error"]
        assert found.dims == error.dims == ("backward_weights", "step", "t", "sample", "sample2")
        assert found.t.values.tolist() == [0, 0.5, 1] and "standard error" in error.long_name
        assert np.all(np.isfinite(found)) and 0 < error.max() < 0.1
        bars = 4.5 * error + limit[f"{name}_bias"]
        # At step 0 nothing has been learned, and the two systems are one.
        assert np.all(np.abs(found.isel(step=0).values - expected) < bars.isel(step=0).values)
        assert np.any(np.abs(found.isel(step=1) - found.isel(step=0)) > bars.isel(step=1))
    with styled():
        drawing = kernels(View.of(results))
    for ax, name in zip(drawing.figure.axes, ("feature_kernel", "gradient_kernel"), strict=True):
        lines = [line.get_ydata() for line in ax.lines]
        bands = [shape for shape in ax.collections if isinstance(shape, PolyCollection)]
        assert len(lines) == len(bands) == 4  # two systems; a sample with itself, and two
        own = limit[name].sel(backward_weights="reused").isel(step=-1).values
        own = np.stack([own[:, 0, 0] + own[:, 1, 1], own[:, 0, 1] + own[:, 1, 0]]) / 2
        for expected in own:
            assert any(np.allclose(expected, line, rtol=1e-6) for line in lines)
    assert "95 % intervals" in drawing.caption and "n = " not in drawing.caption


def test_the_two_systems_differ_and_repetitions_of_equal_samples_share_one(results):
    limit = results["limit"].to_dataset()
    assert np.all(np.isfinite(limit.heldout_loss)) and limit.sizes["seed"] == 2
    reused, independent = (limit.output.sel(backward_weights=flag) for flag in ("reused", "independent"))
    assert not np.allclose(reused.isel(step=1), independent.isel(step=1))
    assert np.array_equal(limit.output.isel(seed=0), limit.output.isel(seed=1))
    assert np.all(results["status/cell"] == 1)
    assert "feature_shift_ms" not in limit


def test_the_limits_lines_have_bands(results):
    view = View.of(results)
    half = estimate_band(view, "loss", "reused", "step")
    limit = results["limit"].to_dataset().sel(backward_weights="reused").squeeze()
    np.testing.assert_allclose(
        half, (1.96 * limit.loss_standard_error + limit.loss_bias).mean("seed").values, rtol=1e-12
    )
    with styled():
        drawing = front_loss(view)
        bands = [shape for shape in drawing.figure.axes[0].collections if isinstance(shape, PolyCollection)]
        assert len(bands) == 2 and "95 % intervals of the limits" in drawing.caption
        held_out = losses(view, held_out=True)
        bands = [shape for shape in held_out.figure.axes[0].collections if isinstance(shape, PolyCollection)]
        assert len(bands) == 2 and "95 % intervals of the limits" in held_out.caption


def test_samples_of_its_own_give_each_repetition_an_estimate_of_its_own(tmp_path, monkeypatch):
    seen, calls = [], itertools.count()  # two run side by side: a count gives each number once

    def estimate(problem, *, key, backward_weights, **options):
        seen.append(jax.random.key_data(key).tolist())
        if next(calls) == 1:
            raise FloatingPointError("systems diverged")
        return found

    found = direct("independent", jax.random.key(5))
    monkeypatch.setattr(_estimates, "estimate_limit", estimate)
    own = {"limit": {"backward_weights": "reused"}, "problem": {"data_seed": "per_seed"}}
    tree, failed = stored(tmp_path / "own", **own)
    assert len(seen) == 2 and seen[0] != seen[1] and not failed
    status = tree["status/cell"].values.ravel()
    assert sorted(status.tolist()) == [1, 2]  # a diverged limit is a result
    assert np.isnan(tree["limit/output"].isel(seed=int(np.argmax(status)))).all()


def test_a_time_too_short_fails_that_batch_alone(tmp_path, monkeypatch):
    def estimate(*problem, max_seconds, **options):
        raise TimeTooShort(f"max_seconds = {max_seconds:g} is too short")

    monkeypatch.setattr(_estimates, "estimate_limit", estimate)
    tree, failed = stored(tmp_path / "short", limit={"max_seconds": 2.0})
    assert failed == ["limit to a tolerance, seeds 0, 1: TimeTooShort: max_seconds = 2 is too short"]
    assert np.all(tree["status/cell"] == 3)


def test_the_plan_says_what_it_is(monkeypatch):
    text = sweep.describe(CONFIG, "")
    assert "2 limits to a tolerance of 0.1" in text and "does not fit" not in text


LEFT = "NFD_TEST_LEFT"


def one_dies(text, work):
    """Does what a worker does, but the first one to take the third share dies. Every share leaves a file."""
    left = Path(os.environ[LEFT]) / f"{work.id}.{os.getpid()}"
    if work.number == 2 and not list(left.parent.glob(f"{work.id}.*")):
        left.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    left.touch()
    return _cluster.compute(text, work)


def assert_same(found, results, rtol=0.0):
    """A batch's arrays, and what was stored of an estimate by one process."""
    stored = results["limit"].to_dataset()
    arrays = {name: array for name, array in found.items() if name.startswith("limit/")}
    assert {name.removeprefix("limit/") for name in arrays} == set(stored.data_vars)
    for name, array in arrays.items():
        own = stored[name.removeprefix("limit/")].squeeze("particles", drop=True)
        np.testing.assert_allclose(array.over(own.dims), own.values, rtol=rtol, atol=rtol, err_msg=name)


def test_workers_take_the_samples_and_a_death_costs_a_retry(results, tmp_path, monkeypatch):
    monkeypatch.setenv(LEFT, str(tmp_path))
    monkeypatch.setattr(_cluster, "compute", one_dies)
    found = dict(_cluster.on_cluster(CONFIG, [BATCH], scheduler=None, workers=2))
    assert_same(found[BATCH], results, rtol=1e-10)  # workers compile as users do, and round otherwise
    taken_by = [path.name.rsplit(".", 1) for path in tmp_path.iterdir()]
    assert len({share for share, _ in taken_by}) > A_WORKER
    assert len({process for share, process in taken_by if share == f"{BATCH.id}-2"}) == 2


def test_what_was_interrupted_goes_on_where_it_stood(results, tmp_path, monkeypatch):
    """To the same bits; and nothing is left of it once it is done."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    taken_now, chunks, keep = [], Sampler.chunks, Unfinished.keep

    def counted(self, wanted):
        taken_now.extend((self.reused, *one) for one in wanted)
        return chunks(self, wanted)

    monkeypatch.setattr(Sampler, "chunks", counted)

    def stopped(self, estimate):
        keep(self, estimate)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Unfinished, "keep", stopped)
        run_batch(CONFIG, BATCH)
    kept = lambda: list((tmp_path / "nfd_jax" / "estimates").iterdir())
    assert len(kept()) == 1 and taken_now
    before = taken_now.copy()
    taken_now.clear()
    assert_same(run_batch(CONFIG, BATCH), results)
    assert kept() == [] and taken_now and not set(before) & set(taken_now)
    sampler = _estimates._sampler(Task.of(CONFIG, BATCH), _estimates.Run(0, 0.1, "reused"))
    for damaged in (b"", b"no estimate"):
        found = Unfinished(sampler, 0.1)
        found.path.write_bytes(damaged)
        assert found.load() is None
    assert Unfinished(sampler, 0.1).path == found.path != Unfinished(sampler, 0.2).path


def through(spread, change=lambda share, answer: answer):
    """Takes all that an estimate asks for, here, the last that is asked for first; its outcome."""
    while not spread.ended:
        shares = []
        while (share := spread.next()) is not None:
            shares.append(share)
        for share in reversed(shares):
            spread.give(share, change(share, taken(CONFIG, share)))
        time.sleep(0.01)
    return spread.outcome()


def test_the_order_in_which_shares_come_back_changes_nothing(results):
    assert_same(through(Spread(CONFIG, BATCH, workers=3)), results)


def test_a_share_that_cannot_be_taken_fails_the_batch_in_a_line():
    broken = lambda share, answer: "out of memory" if share.number == 1 else answer
    spread = Spread(CONFIG, BATCH, workers=3)
    assert through(spread, broken) == "out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):  # its threads have ended, too
        spread._work.result()


def test_what_diverges_is_a_result_and_its_other_shares_are_dropped(results):
    def diverging(share, answer):
        if share.run.flag == "independent":
            answer = [one._replace(samples=np.full_like(one.samples, np.nan)) for one in answer]
        return answer

    spread = Spread(CONFIG, BATCH, workers=3)
    found = through(spread, diverging)
    assert spread.next() is None
    loss = found["limit/loss"].over(("backward_weights", "seed", "learning_rate", "step"))
    for flag, values in zip(CONFIG.limit.backward_weights, loss, strict=True):
        stored = results["limit/loss"].sel(backward_weights=flag, particles=0)
        expected = stored.transpose("seed", "learning_rate", "step").values
        np.testing.assert_array_equal(values, expected * (np.nan if flag == "independent" else 1))


def test_shares_are_the_whole_in_order_and_of_about_equal_cost():
    kept = []

    def take(sampler, wanted):
        kept.append(list(wanted))
        yield sampler.chunks(wanted)

    problem = nfd.Problem.from_config(CONFIG)
    nfd.estimate_limit(problem, tolerance=0.02, key=jax.random.key(0), take=take)
    cost = lambda chunks: sum(level.cost * level.systems for level, _ in chunks)
    largest = max(kept, key=cost)
    for workers in (1, 4):
        parts = _parts(largest, workers)
        assert [chunk for part in parts for chunk in part] == largest
        assert len(parts) <= A_WORKER * workers + 1
        dearest = max(cost([chunk]) for chunk in largest)
        assert max(map(cost, parts)) <= max(LEAST, cost(largest) / (A_WORKER * workers)) + dearest
    assert len(_parts(largest, 4)) > 1 and _parts([], 4) == []
    assert len({Share(BATCH, None, part, i) for i, part in enumerate(_parts(largest, 4))}) == len(
        _parts(largest, 4)
    )


def test_who_takes_too_little_is_told_and_who_is_late_is_closed():
    problem, options = nfd.Problem.from_config(CONFIG), {"tolerance": 0.05, "key": jax.random.key(0)}

    def half(sampler, wanted):
        yield sampler.chunks(wanted[: len(wanted) // 2])

    with pytest.raises(ValueError, match=r"take= must yield all chunks that are wanted: received \d+ of \d+"):
        nfd.estimate_limit(problem, take=half, **options)

    closed = []

    def slow(sampler, wanted):
        try:
            for one in wanted:
                yield sampler.chunks([one])
                time.sleep(0.05)
        finally:
            closed.append(True)

    with pytest.raises(TimeTooShort):
        nfd.estimate_limit(problem, take=slow, max_seconds=0.05, **options)
    assert closed == [True]
