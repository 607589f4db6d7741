"""Memory is predicted from sizes alone: against what XLA reports for the programs that really run, and what
follows from it."""

from dataclasses import replace

import numpy as np
import pytest
from _configs import config_with

from nfd_jax import measures
from nfd_jax.config import ConfigError, SweepConfig
from nfd_jax.finite import _engine
from nfd_jax.problem import Heldout, Problem
from nfd_jax.store import Batch
from nfd_jax.sweep import _cells, _execute, _memory, _systems
from nfd_jax.sweep._plan import make_plan
from nfd_jax.sweep._task import Task

FACTOR = 1.5  # between prediction and report, either way
GIB = 2**30


def sweep(**changes) -> SweepConfig:
    tree = {
        "name": "memory",
        "seeds": 2,
        "problem": {"dataset": "gaussian", "input_dim": 8, "steps": 4, "batch_size": 4},
        "finite": {"widths": [64], "depths": [4, 8, 16]},
        "limit": {"depth_steps": 32},
    }
    return config_with(tree, changes)


def task(config: SweepConfig, batch: Batch) -> Task:
    return Task.of(config, batch)


def fits(config: SweepConfig, plan: list[Batch], **options) -> list[str]:
    return _memory.check_fits([Task.of(config, batch) for batch in plan], **options)


class Measured(Exception):
    """Raised once the last program of interest is compiled, so that nothing after it is."""


def reported(monkeypatch, config: SweepConfig, batch: Batch, programs: dict[str, str]) -> dict[str, int]:
    """Bytes of temporaries and results of each program of a batch (name: function of `_cells`), compiled as a
    sweep does it."""
    found: dict[str, int] = {}
    last = list(programs)[-1]

    def watched(name: str, function):
        def call(*arguments):
            memory = function.executable(*arguments).run.memory_analysis()
            found[name] = memory.temp_size_in_bytes + memory.output_size_in_bytes
            if name == last:
                raise Measured
            return function(*arguments)

        return call

    for name, function in programs.items():
        monkeypatch.setattr(_cells, function, watched(name, getattr(_cells, function)))
    monkeypatch.setattr(_execute._Run, "_runs", lambda self, run: measures.Runs(run, {}, "tanh"))
    monkeypatch.setattr(measures, "MEASURES", [m for m in measures.MEASURES if not m.of_limits])
    with pytest.raises(Measured):
        _execute.run_batch(config, batch)
    return found


MATRIX_FREE = {"noise": "draw_noise", "limit": "solve_limits", "network": "train_networks"}
DENSE = {"noise": "draw_noise", "limit": "solve_limits", "innovations": "train_with_noise"}


@pytest.mark.parametrize(
    "simulator, programs, width, batch_size, redrawn",
    [
        ("matrix_free", MATRIX_FREE, 96, 8, False),
        pytest.param("matrix_free", {"limit": "solve_limits"}, 1024, 4, True, marks=pytest.mark.long),
        pytest.param("dense", DENSE, 128, 4, False, marks=pytest.mark.long),
    ],
)
def test_prediction_is_near_what_the_compiled_programs_take(
    monkeypatch, simulator, programs, width, batch_size, redrawn
):
    config = sweep(problem={"batch_size": batch_size}, finite={"widths": [width], "simulator": simulator})
    batch = replace(make_plan(config)[0], redrawn=redrawn)
    found = reported(monkeypatch, config, batch, programs)
    predicted = _memory.program_bytes(task(config, batch))
    assert found.keys() == programs.keys()
    for name, size in found.items():
        assert size / FACTOR < predicted[name][1] < size * FACTOR, name


BOTH = ["reused", "independent"]


@pytest.mark.parametrize(
    "width, batch_size, form, rates, flags, rule",
    [
        (64, 8, "explicit", 1, ["reused"], {}),
        (64, 8, "explicit", 4, BOTH, {}),
        (128, 4, "factored", 1, ["reused"], {}),
        (128, 4, "factored", 4, BOTH, {}),
        (256, 32, "explicit", 1, ["reused"], {}),
        (256, 32, "explicit", 4, BOTH, {}),
        (128, 32, "explicit", 1, BOTH, {"name": "sgd", "momentum": 0.9}),
        (128, 8, "explicit", 1, ["reused"], {"name": "adam"}),
        (128, 8, "explicit", 2, BOTH, {"name": "adam"}),
    ],
)
def test_prediction_for_weight_matrices_is_near_what_the_engine_takes(
    width, batch_size, form, rates, flags, rule
):
    problem = {"batch_size": batch_size, "learning_rate": [0.1 * (1 + i) for i in range(rates)]}
    problem |= {"optimizer": rule} if rule else {}
    finite = {"widths": [width], "simulator": "dense", "backward_weights": flags}
    config = sweep(problem=problem, finite=finite, limit=None, measure=["kernels"], seeds=4)
    [batch], loaded, heldout = make_plan(config), Problem.from_config(config), Heldout.from_config(config)
    grid = task(config, batch).grid
    shape, seeds = _engine.shape_of(loaded.samples, grid, "cpu")
    assert shape.form == form
    found = _engine.compile_grid(loaded, heldout, grid).run.memory_analysis()
    together = min(_engine.runs_at_once(shape, 4), 4 // seeds) * (
        found.temp_size_in_bytes + found.output_size_in_bytes
    )
    assert together / FACTOR < _memory.program_bytes(task(config, batch))["dense"][1] < together * FACTOR


def test_the_peak_is_that_of_the_largest_program():
    config, batch = sweep(measure=["limit_error"]), Batch("cells", 64, (4, 8, 16), (0, 1))
    programs = _memory.program_bytes(task(config, batch))
    assert (
        _memory.batch_bytes(task(config, batch))
        == max(held + own for held, own in programs.values())
        == sum(programs["limit"])
    )


def test_each_core_has_a_run_of_its_own():
    config, batch = sweep(), Batch("cells", 64, (4, 8, 16), (0, 1))
    need = lambda cores: _memory.batch_bytes(task(config, batch), at_once=cores)
    assert need(4) - need(3) == need(3) - need(2) == need(2) - need(1) > 0
    assert need(100) == need(16), "2 seeds × (2 limits + 3 depths × 2 flags)"


@pytest.mark.parametrize("seeds", [1, 2, 3, 4])
def test_as_many_seeds_as_fit(seeds):
    config, batch = sweep(seeds=4), Batch("cells", 64, (4, 8, 16), tuple(range(seeds)))
    need = int(_memory.batch_bytes(task(config, batch)) / _memory.USABLE) + 1
    assert _memory.seeds_at_once(task(config, batch), most=4, memory=need) == seeds
    assert _memory.seeds_at_once(task(config, batch), most=4, memory=need - 2) == max(seeds - 1, 1)


def test_noise_is_drawn_anew_only_where_it_would_not_fit():
    config = sweep(problem={"steps": 32}, finite={"widths": [512]})
    [kept] = make_plan(config)
    one, again = (replace(kept, seeds=(0,), redrawn=redrawn) for redrawn in (False, True))
    most, least = (
        int(_memory.batch_bytes(task(config, batch)) / _memory.USABLE) + 1 for batch in (one, again)
    )
    assert not kept.redrawn and least < 0.8 * most
    at = lambda memory: make_plan(config, memory=memory)
    assert at(most) == [one, replace(one, seeds=(1,))]
    assert at(most - 2) == at(least) == [again, replace(again, seeds=(1,))]
    assert fits(config, at(least), memory=least) == []
    assert len(fits(config, at(least - 2), memory=least - 2)) == 1


@pytest.mark.long
@pytest.mark.parametrize("together", [False, True])
def test_noise_drawn_anew_gives_the_same_results(monkeypatch, together):
    """Networks and limits of both flags, one by one as on a CPU or all in one program."""
    finite, limit = {"widths": [64, 128], "depths": [1, 2, 4]}, {"depth_steps": 8}
    config = sweep(precision="float64", finite=finite, limit=limit, measure=["limit_error", "coupling"])
    if together:
        monkeypatch.setattr(_systems, "one_by_one", lambda: False)
    batch = replace(make_plan(config)[0], depths=(2,))
    kept, again = (_execute.run_batch(config, replace(batch, redrawn=redrawn)) for redrawn in (False, True))
    assert kept.keys() == again.keys()
    for name in kept:
        np.testing.assert_allclose(again[name].values, kept[name].values, rtol=1e-6, atol=1e-6, err_msg=name)


def test_as_many_runs_of_a_seed_as_fit():
    config, batch = sweep(problem={"learning_rate": [0.1, 0.2, 0.3]}), Batch("cells", 64, (4, 8, 16), (0,))
    need = lambda runs: int(_memory.batch_bytes(task(config, batch), at_once=runs) / _memory.USABLE) + 1
    assert [_memory.runs_at_once(task(config, batch), most=6, memory=need(k)) for k in (6, 5, 3, 2, 1)] == [
        6,
        3,
        3,
        2,
        1,
    ]
    assert _memory.runs_at_once(task(config, batch), most=6, memory=1) == 1


@pytest.mark.parametrize(
    "changes, line",
    [
        ({}, "finite.widths: width 65536 at depth 16 with 512 depth_steps needs about 17.9 GiB"),
        ({"limit": None}, ""),
        (
            {"limit": {"particles": 65536}},
            "limit.particles: 65536 particles with 512 depth_steps needs about",
        ),
        (
            {"limit": None, "finite": {"simulator": "dense"}},
            "finite.widths: width 65536 at depth 16 needs about",
        ),
    ],
)
def test_a_cell_that_cannot_fit_is_named_with_its_size_and_what_to_lower(changes, line):
    base = {
        "problem": {"batch_size": 8},
        "finite": {"widths": [64, 65536], "depths": [2, 4, 16]},
        "limit": {"depth_steps": 512},
    }
    tree = {
        key: {**base.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in (base | changes).items()
    }
    config = sweep(measure=["kernels"], **tree)
    lines = fits(config, make_plan(config, memory=16 * GIB), memory=16 * GIB)
    if not line:
        assert lines == []
        return
    assert len({text.split(":")[0] for text in lines}) == 1 and lines[0].startswith(line)
    assert all("allowed: at most 12.8 GiB, 80% of what is free; lower " in text for text in lines)


def test_processes_on_one_machine_share_its_memory():
    config = sweep()
    plan = make_plan(config)
    one = _memory.batch_bytes(task(config, Batch("cells", 64, (4, 8, 16), (0,))))
    memory = int(1.5 * one / _memory.USABLE)
    assert fits(config, plan, memory=memory) == []
    assert len(fits(config, plan, memory=memory, processes=2)) == 1


def test_the_refusal_is_a_config_error_of_its_lines():
    error = _memory.CellTooLarge(["one", "two"])
    assert isinstance(error, ConfigError) and error.problems == ("one", "two")


def test_free_memory_is_read_from_the_device_or_the_host():
    free = _memory.device_memory()
    assert 2**26 < free < 2**50
    assert sweep().seeds == _memory.seeds_at_once(task(sweep(), Batch("cells", 64, (4, 8, 16), (0,))), most=2)


def test_several_accelerators_share_seeds_or_the_coordinates_of_one_cell(monkeypatch):
    config, sizes = sweep(), ("cells", 64, (4, 8, 16))
    one, four = Batch(*sizes, (0,)), Batch(*sizes, (0, 1, 2, 3))
    assert _memory.spread(task(config, one), memory=1) == 1
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    alone, together = _memory.batch_bytes(task(config, one)), _memory.batch_bytes(task(config, four))
    assert together > alone
    monkeypatch.setattr("jax.local_device_count", lambda: 4)
    assert _memory.batch_bytes(task(config, four)) == alone, "a seed each"
    memory = int(alone / _memory.USABLE)
    assert _memory.spread(task(config, one), memory=memory + 1) == 1
    assert _memory.spread(task(config, one), memory=memory // 2) == 4
    assert fits(config, [one], memory=memory // 3) == []
    assert len(fits(config, [one], memory=memory // 5)) == 1
    narrow = Batch("cells", 63, (4, 8, 16), (0,))
    assert _memory.spread(task(config, narrow), memory=1) == 1, "63 coordinates cannot be shared out among 4"
