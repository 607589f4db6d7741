"""`nfd plan`: its counts are those of the programs that run, the machine is measured, and no cell is
started."""

import json
import math
import os
import time
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import pytest
from _configs import config_with

from nfd_jax import history, launch, noise
from nfd_jax.config import SweepConfig
from nfd_jax.finite import _engine, _grid
from nfd_jax.finite._draws import Initial
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.problem import HELDOUT_SAMPLES, Heldout, Problem
from nfd_jax.store import Batch
from nfd_jax.sweep import _cells, _estimate, _execute, _machine, _plan, _work
from nfd_jax.sweep._machine import Machine
from nfd_jax.sweep._plan import make_plan
from nfd_jax.sweep._task import Task

SPEEDS = Machine(
    "cpu: test", compile_seconds=2.0, flops=1e11, normals=1e8, bytes=1e10, operation_seconds=1e-6
)


def config(**changes) -> SweepConfig:
    tree = {
        "name": "estimate",
        "seeds": 4,
        "problem": {"dataset": "gaussian", "input_dim": 8, "steps": 3, "batch_size": 2},
        "finite": {"widths": [64, 128], "depths": [4, 8, 16]},
        "limit": {"depth_steps": 32},
    }
    return config_with(tree, changes)


def work(config: SweepConfig, batch: Batch) -> _work.Work:
    return _work.work(Task.of(config, batch))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, and a stand-in for the measurement that notes its calls."""
    calls = []

    def measure(precision):
        calls.append(precision)
        return SPEEDS

    monkeypatch.setattr(_machine, "user_cache_dir", lambda name: str(tmp_path / name))
    monkeypatch.setattr(_machine, "measure", measure)
    return tmp_path / "nfd_jax", calls


def test_the_machine_is_measured_once_for_each_precision(cache):
    folder, calls = cache
    assert _machine.machine("float32") == _machine.machine("float32") == SPEEDS
    _machine.machine("float64")
    assert calls == ["float32", "float64"]
    assert all(json.loads(file.read_text())["flops"] == 1e11 for file in folder.iterdir())
    assert len(list(folder.iterdir())) == 2, "something was left behind"


def spoiled(**speeds) -> str:
    return json.dumps(asdict(SPEEDS) | speeds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"flops": 1}', "\x00", "[" * 5000, "[" * 50_000),
        *(spoiled(flops=value) for value in (0, 0.0, -1.0, math.nan, math.inf, 1e300, "fast", None, True)),
        *(spoiled(operation_seconds=value) for value in (0.0, math.nan, [1e-6])),
        *(spoiled(device=value) for value in (None, 3)),
    ],
)
def test_a_damaged_measurement_is_repeated(cache, text):
    folder, calls = cache
    _machine.machine("float32")
    (file,) = folder.iterdir()
    file.write_text(text)
    assert _machine.machine("float32") == SPEEDS and len(calls) == 2
    assert json.loads(file.read_text())["normals"] == 1e8


@pytest.mark.parametrize("age", [2 * _machine.FRESH, -60.0])
def test_old_speeds_are_measured_again_and_the_best_are_kept(cache, age):
    """What was measured on a busy machine is not believed for ever; a clock that was set back counts as
    old."""
    folder, calls = cache
    _machine.machine("float32")
    (file,) = folder.iterdir()
    file.write_text(spoiled(flops=1e9, normals=1e12, operation_seconds=1e-9, compile_seconds=50.0))
    os.utime(file, (time.time() - age,) * 2)
    best = replace(SPEEDS, normals=1e12, operation_seconds=1e-9)
    assert _machine.machine("float32") == _machine.machine("float32") == best and len(calls) == 2


def test_without_a_cache_folder_the_machine_is_measured_all_the_same(cache):
    folder, calls = cache
    folder.write_text("a file where the folder should be")
    assert _machine.machine("float32") == _machine.machine("float32") == SPEEDS
    assert len(calls) == 2


def test_speeds_are_measured():
    found = _machine.measure("float32")
    assert 0.01 < found.compile_seconds < 300
    assert 1e8 < found.flops < 1e16 and 1e5 < found.normals < 1e13
    assert 1e7 < found.bytes < 1e14 and 1e-9 < found.operation_seconds < 1e-2


def test_plan_starts_no_cell_and_says_what_it_would_do(cache, monkeypatch):
    def started(*_, **__):
        raise RuntimeError("a cell was started")

    draws, runs = ("draw_noise", "draw_questions"), ("solve_limits", "train_networks", "first_steps")
    for name in (*draws, *runs, "train_with_noise"):
        monkeypatch.setattr(_cells, name, started)
    for name in ("run_batch", "train_grids"):
        monkeypatch.setattr(_execute, name, started)
    varied = config(variants={"tanh": {}, "wide": {"finite.widths": [256, 512, 1024]}})
    text = launch.describe_plan(varied)
    assert [line for line in text.splitlines() if not line.startswith(" ")] == ["tanh", "wide"]
    facts = {line.split()[0]: line for line in text.splitlines()[1:10]}
    networks = "48 networks (2 widths × 3 depths × 4 seeds × 1 learning rate × reused and independent)"
    assert f"{networks}, 16 limits of 32 steps" in facts["cells"]
    assert "4 (1 limit, 1 network, 1 noise, 1 response)" in facts["compilations"]
    assert "start, verdicts and report" in facts["time"]
    assert facts.keys() >= {"batches", "arithmetic", "random", "memory", "speeds", "time", "grouping"}
    assert "all depths of a width together" in text and "4 of 4 seeds a batch" in text
    assert text.count("1 × width") == 5


def test_a_cell_too_large_for_this_machine_is_said_in_the_plan(cache, monkeypatch):
    monkeypatch.setattr(_estimate, "device_memory", lambda: 2**20)
    lines = _estimate.describe(config(), "").splitlines()
    refused = [line for line in lines if "does not fit" in line]
    assert len(refused) == 2 and all("lower finite.widths" in line for line in refused)


@pytest.mark.parametrize("stream", [False, True])
def test_normals_are_those_that_are_drawn(stream):
    c = config(problem={"batches": "stream" if stream else "fixed"})
    counted = work(c, Batch("cells", 64, (4, 8, 16), (0, 1)))
    problem = Problem.from_config(c)
    draw = lambda key: noise.sample_noise(problem, width=64, depth=32, key=key)
    shape = jax.eval_shape(draw, jax.random.key(0))
    shared = sum(math.prod(array.shape) for array in (shape.U, shape.forward, shape.backward))
    asked = HELDOUT_SAMPLES + (12 if stream else 0)  # rows besides training, the same for all runs of a seed
    assert counted.normals == 2 * (shared + asked * 32 * 64)


def test_one_draw_of_weights_serves_all_learning_rates():
    dense = {"finite": {"simulator": "dense", "backward_weights": ["reused"], "widths": [64]}, "limit": None}

    def normals(rates):
        return work(config(problem={"learning_rate": rates}, **dense), Batch("cells", 64, (4,), (0,))).normals

    assert normals([0.1]) == normals([0.1, 0.2, 0.3]) == 4 * 64**2 + 64 * 8


def compiled_flops(function, *arguments) -> float:
    analysis = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return analysis["flops"]


def test_flops_of_a_matrix_free_layer_are_those_xla_counts(make_problem):
    """One row and one layer: XLA counts the body of a loop once."""
    width, samples = 512, 32
    problem = make_problem(steps=samples, rows=1, dtype=jnp.float64)
    empty = history.History.empty(1, samples, width, jnp.float64)
    row, learned = jnp.ones((1, width)), history.Learned(jnp.ones(()), jnp.ones((1, samples)))
    system = MatrixFree.of(problem, jnp.ones(()), 1, width)
    drawn = noise.sample_noise(problem, width=width, depth=1, key=jax.random.key(0))
    found = compiled_flops(
        lambda past, drawn: system.forward(row, row[None], learned, past, drawn).path, empty, drawn
    )
    c = config(problem={"steps": samples, "batch_size": 1}, finite={"widths": [width]}, limit=None)
    heldout = HELDOUT_SAMPLES * (20 * samples + 18 * HELDOUT_SAMPLES) * width
    counted = (_work._system(Task.of(c, Batch("cells", width, (1,), (0,))), 1).flops - samples * heldout) / (
        2 * samples
    )
    assert counted == pytest.approx(found, rel=0.25)


@pytest.mark.parametrize("rows, form", [(64, "explicit"), (32, "factored")])
def test_flops_of_a_dense_step_are_those_xla_counts(make_problem, rows, form):
    """One step and one layer: XLA counts the body of a loop once."""
    width, flags = 512, ("reused",)
    finite = {"widths": [width], "depths": [1], "simulator": "dense", "backward_weights": flags}
    c = config(problem={"steps": 4, "batch_size": rows}, finite=finite, limit=None, measure=[])
    [batch] = make_plan(c)
    problem = make_problem(steps=4, rows=rows, dtype=jnp.float64)
    heldout = Heldout(jnp.ones((16, problem.input_dim)), jnp.ones((16, problem.outputs)))
    shape, _ = _engine.shape_of(problem.samples, Task.of(c, batch).grid, "cpu")
    assert shape.form == form and shape.flags == flags
    ones, one = lambda *sizes: jnp.ones(sizes), jnp.asarray(1)
    initial = Initial(
        ones(1, width, problem.input_dim), ones(1, width, problem.outputs), ones(1, 1, width, width)
    )
    found = compiled_flops(
        lambda w: _grid._side_by_side(
            problem, heldout, w, ones(1), ones(1), jnp.asarray(width), one, one, shape
        ),
        initial,
    )
    assert work(c, Batch("cells", width, (1,), (0,))).flops / 4 == pytest.approx(found, rel=0.25)


def test_costs_add_up(monkeypatch):
    one, two = Batch("cells", 64, (4, 8, 16), (0,)), Batch("cells", 64, (4, 8, 16), (0, 1))
    assert work(config(), two) == work(config(), one) * 2
    wide = Batch("cells", 128, (4, 8, 16), (0,))
    assert work(config(), wide).flops == 2 * work(config(), one).flops
    known = _estimate.Work(flops=2e11, normals=1e8, bytes=1e10, operations=1e6)
    monkeypatch.setattr(_work, "cores", lambda: 4)
    assert known.seconds(SPEEDS) == pytest.approx(2 + 1 + 1 / 4), (
        "arithmetic above traffic, then normals; operations on each core"
    )


@pytest.mark.parametrize(
    "changes, counted",
    [
        # All widths by the widest one's programs.
        ({}, {"limit": 1, "network": 1, "noise": 1, "response": 1}),
        ({"measure": ["limit_error"]}, {"limit": 1, "network": 1, "noise": 1}),
        (
            {"measure": ["limit_error"], "limit": {"reference_particles": 512}},
            {"limit": 2, "network": 1, "noise": 2},
        ),
        (
            {"problem": {"steps": 16}, "finite": {"widths": [64, 4096]}, "measure": []},
            {"limit": 2, "network": 2, "noise": 2},
        ),
        (
            {"limit": None, "finite": {"simulator": "dense"}, "measure": []},
            {"dense": 1},
        ),  # the narrower width is padded
        (
            {"limit": None, "finite": {"simulator": "dense", "widths": [64, 1024]}, "measure": []},
            {"dense": 2},
        ),
        ({"finite": None, "limit": {"particles": 64}}, {"limit": 1, "noise": 1}),
    ],
)
def test_one_program_for_each_set_of_shapes(changes, counted, monkeypatch):
    monkeypatch.setattr(_plan, "typical", lambda: replace(SPEEDS, compile_seconds=0.2))
    c = config(**changes)
    found = _estimate.programs([Task.of(c, batch) for batch in make_plan(c)])
    del found["measures"]
    assert found == counted


def test_what_a_plan_says_costs_no_more_for_many_seeds(cache, monkeypatch):
    """Batches alike are worked out once."""
    asked = []
    honest = _estimate.work
    monkeypatch.setattr(_estimate, "work", lambda task: asked.append(task) or honest(task))
    said = {}
    for seeds in (8, 4000):
        asked.clear()
        _estimate.describe(config(seeds=seeds), "")
        said[seeds] = len(asked)
    assert said[8] == said[4000]
