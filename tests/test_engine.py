"""The engine for grids of dense networks gives the numbers of one network at a time, and compiles and copies
as little as it says."""

import json
import re
from dataclasses import replace
from functools import partial
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _oracle import train as by_definition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nfd_jax as nfd
from nfd_jax import bench, observables
from nfd_jax.activations import ACTIVATIONS
from nfd_jax.finite import _engine
from nfd_jax.finite._dense import initial_weights
from nfd_jax.finite._engine import Grid, compile_grid, program_sizes, shape_of, together, train_grids
from nfd_jax.losses import accuracy, loss_function
from nfd_jax.names import PARAMETRIZATIONS
from nfd_jax.noise import stream
from nfd_jax.problem import Heldout
from nfd_jax.sweep import make_plan, run_batch

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def compilations():
    """Grows by an entry with each program that XLA compiles."""
    found = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: found.append(event) if event == COMPILED else None
    )
    return found


@jax.jit
def drawn(master, seed):
    """Weights of a network larger than any below, whose own are their first rows and columns."""
    large = nfd.Problem(jnp.zeros((1, 1, 9)), jnp.zeros((1, 1, 3)), 0.0)
    key = stream(jax.random.wrap_key_data(jnp.stack([jnp.zeros_like(master), master])), seed)
    return initial_weights(large, width=6, depth=4, key=key, backward_weights="independent")


@partial(jax.jit, static_argnames=("grid", "depth", "flag"))
def one_at_a_time(problem, heldout, large, rate, *, grid, depth, flag):
    """The engine switched off: the definition on weights drawn for this network, and what is measured of it.
    """
    learning = eqx.tree_at(lambda p: p.learning_rate, problem, rate)
    n, hidden = grid.width, lambda W: W[:depth, : grid.width, : grid.width]
    W = hidden(large.W)
    back = hidden(large.W_backward) if flag == "independent" else W
    weights = nfd.Weights(large.U[:n, : problem.input_dim], large.V[:n, : problem.outputs], W, back)
    run, _ = by_definition(learning, weights, heldout=heldout.inputs, probe=grid.probe)
    places = jnp.arange(grid.grid + 1) * (depth // grid.grid)
    loss, phi = loss_function(problem.loss).value, ACTIVATIONS[problem.activation].value
    h, b = run.features[:, places], run.gradients[:, places]
    followed = (run.probe[:, places], run.probe_gradients[:, places]) if grid.probe else (h, b)
    return {
        "loss": run.loss,
        "output": run.output,
        "accuracy": jax.vmap(accuracy)(run.output, problem.targets),
        "heldout_loss": jax.vmap(lambda f: loss(f, heldout.targets))(run.heldout),
        "heldout_accuracy": jax.vmap(lambda f: accuracy(f, heldout.targets))(run.heldout),
        "feature_shift_ms": observables.feature_shift(followed[0]),
        "gradient_shift_ms": observables.feature_shift(followed[1]),
        "feature_kernel": observables.kernel(phi(h)),
        "gradient_kernel": observables.kernel(b),
        "features": h,
        "gradients": b,
    }


def difference_from_one_at_a_time(problem, heldout, master, grid):
    """The largest difference of any number, relative to the largest number of its kind in the run."""
    [together] = train_grids(problem, heldout, master, [grid])
    worst = 0.0
    d, f = (
        master % len(grid.depths),
        master % len(grid.flags),
    )  # of each example one depth and flag: others are other programs
    for (s, seed), (r, rate) in product(enumerate(grid.seeds), enumerate(grid.rates)):
        large = drawn(np.uint32(master), seed)
        alone = one_at_a_time(
            problem, heldout, large, jnp.asarray(rate), grid=grid, depth=grid.depths[d], flag=grid.flags[f]
        )
        assert set(alone) == set(together)
        for name, expected in alone.items():
            scale = max(1.0, float(jnp.max(jnp.abs(expected))))
            worst = max(worst, float(np.max(np.abs(together[name][d, s, r, f] - expected))) / scale)
    return worst


@st.composite
def grids(draw):
    """Problems and grids of every kind, small."""
    pick = lambda *options: draw(st.sampled_from(options))
    loss, outputs = pick(("squared", 1), ("squared", 2), ("cross_entropy", 3))
    options = {
        "loss": loss,
        "activation": pick(*ACTIVATIONS),
        "parametrization": pick(*PARAMETRIZATIONS),
        "train": pick("all", "hidden"),
        "horizon": pick(0.5, 1.0),
    }
    sizes = {
        "steps": pick(1, 2, 3),
        "rows": pick(1, 2),
        "dim": pick(1, 3, 9),
        "outputs": outputs,
        "stream": pick(True, False),
    }
    width = pick(1, 2, 5, 6)
    grid = Grid(
        width=width,
        depths=pick((1,), (2, 4), (1, 2, 3)),
        seeds=pick((0,), (3, 1)),
        rates=pick((0.3,), (0.1, 0.4), (0.0, 0.2, 0.5)),
        flags=pick(("reused",), ("independent",), ("reused", "independent"), ("independent", "reused")),
        grid=1,
        probe=sizes["stream"],
        record=("features", "gradients", "kernels"),
        size=width + pick(0, 0, 3),
    )
    return sizes | options, grid, pick("explicit", "factored"), draw(st.integers(0, 2**32 - 1))


@given(grids())
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_engine_on_and_off_agree(make_problem, case):
    options, grid, form, master = case
    problem = make_problem(**options)
    rng = np.random.default_rng(1)
    targets = (
        rng.standard_normal((4, problem.outputs))
        if problem.loss == "squared"
        else np.eye(problem.outputs)[[0, 1, 2, 0]]
    )
    heldout = Heldout(jnp.asarray(rng.standard_normal((4, problem.input_dim))), jnp.asarray(targets))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_engine, "form", lambda width, samples, **_: form)
        assert difference_from_one_at_a_time(problem, heldout, master, grid) < 1e-11


@pytest.mark.parametrize("form", ["explicit", "factored"])
def test_a_network_that_diverges_leaves_the_others_alone(make_problem, monkeypatch, form):
    monkeypatch.setattr(_engine, "form", lambda width, samples, **_: form)
    monkeypatch.setattr(_engine, "divisor", lambda count, most: count)  # all side by side
    problem = make_problem(steps=4, activation="relu")
    grid = Grid(8, (2,), (0, 1), (0.1, 1e200, 0.2), ("reused", "independent"), 2)
    [found] = train_grids(problem, None, 0, [grid])
    assert not np.isfinite(found["loss"][:, :, 1]).all()
    [calm] = train_grids(problem, None, 0, [replace(grid, rates=(0.1, 0.1, 0.2))])
    for name in found:
        np.testing.assert_array_equal(found[name][:, :, [0, 2]], calm[name][:, :, [0, 2]])


def test_programs_are_compiled_once_and_nothing_else_is(make_problem, compilations):
    """A program a size, whatever widths, seeds, rates' values and master seeds; none when it is run again."""
    problem = make_problem(rows=2)
    cells = {"depths": (1, 3), "seeds": (0, 1), "rates": (0.1, 0.2), "flags": ("reused",), "grid": 1}
    every = [Grid(width=width, size=size, **cells) for width, size in ((10, 10), (4, 10), (3, 3))]
    before = len(compilations)
    first = train_grids(problem, None, 0, every)
    assert len(compilations) - before == 2
    train_grids(
        problem, None, 7, [replace(grid, seeds=(4, 9), rates=(0.3, 0.5), depths=(2, 3)) for grid in every]
    )
    again = train_grids(problem, None, 0, every)
    assert len(compilations) - before == 2
    for one, other in zip(first, again, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


SWEEP = """
name: reference
seeds: 4
problem: {dataset: gaussian, input_dim: 8, steps: 5, batch_size: 4, learning_rate: [0.2, 0.5]}
finite: {simulator: dense, widths: [4, 8, 16, 32], depths: [2, 4, 8]}
measure: []
"""


def test_a_sweep_compiles_a_program_a_size_and_gives_single_networks(tmp_path, compilations):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    config = nfd.load_config(path)
    plan = make_plan(config)
    assert {batch.depths for batch in plan} == {(2, 4, 8)}, "depths share a draw and a program"
    nfd.Problem.from_config(config)
    before = len(compilations)
    found = {batch.width: run_batch(config, batch) for batch in plan}
    assert len(compilations) - before <= 4
    problem = nfd.Problem.from_config(config)
    learning = eqx.tree_at(lambda p: p.learning_rate, problem, jnp.asarray(0.5, problem.dtype))
    for width, flag in ((4, 0), (32, 1)):
        single = nfd.train_finite(
            learning,
            width=width,
            depth=4,
            key=nfd.seed_key(config, 2),
            backward_weights=config.finite.backward_weights[flag],
        )
        outputs = found[width]["finite/output"].over(
            ("backward_weights", "learning_rate", "depth", "seed", "step", "sample", "component")
        )
        np.testing.assert_allclose(outputs[flag, 1, 1, 2], single.output, atol=1e-5)


@pytest.mark.parametrize("form", ["explicit", "factored"])
def test_stacks_are_rewritten_where_they_lie(make_problem, monkeypatch, form):
    """XLA copies a stack of matrices, or of corrections, at most once: before training, out of W(0) or zeros.
    """
    monkeypatch.setattr(_engine, "form", lambda width, samples, **_: form)
    problem = make_problem(steps=3, rows=2, dtype=np.float32)
    grid = Grid(24, (4, 8), (0,), (0.1,), ("reused", "independent"), 4)
    text = compile_grid(problem, None, grid).run.as_text()
    stack = r"f32\[1,8,24,24\]" if form == "explicit" else r"f32\[1,2,8,6,24\]"  # rate, (flag,) layer
    assert re.search(stack, text), "the program's stacks have another shape than this test looks for"
    assert len(re.findall(rf"= {stack}\S* copy\(", text)) <= (1 if form == "explicit" else 2)


@pytest.mark.parametrize(
    "depths, groups",
    [
        ((8,), ()),
        ((2, 4), ((1, 0),)),
        ((8, 16, 32, 64), ((3, 2, 1), (0,))),
        ((64, 8, 32, 16), ((0, 2, 3), (1,))),
        ((1, 100), ((1, 0),)),
        ((2, 1, 100), ((2, 0), (1,))),
        ((4, 4, 4), ((0, 1, 2),)),
    ],
)
def test_depths_side_by_side_waste_less_than_half(depths, groups):
    assert together(depths) == groups
    for places in groups:
        mine = [depths[place] for place in places]
        assert 2 * sum(mine) > len(mine) * max(mine)


@pytest.mark.parametrize("form", [pytest.param("explicit", marks=pytest.mark.long), "factored"])
def test_accelerators_train_depths_side_by_side_to_the_same_numbers(make_problem, monkeypatch, form):
    """Their program, run here: one group of three depths, whose loops visit as many layers as the deepest
    has, and one depth alone."""
    monkeypatch.setattr(_engine, "form", lambda width, samples, **_: form)
    problem = make_problem(steps=3, rows=2, outputs=2, stream=True)
    heldout = Heldout(jnp.ones((4, problem.input_dim)), jnp.zeros((4, 2)))
    record = ("features", "gradients", "kernels")
    flags = ("independent", "reused")
    grid = Grid(12, (1, 8, 2, 5), (0, 3), (0.1, 0.4), flags, 1, probe=True, record=record, size=14)
    [expected] = train_grids(problem, heldout, 5, [grid])
    honest = _engine.shape_of
    shapes = []

    def of_accelerators(samples, grid, platform, devices):
        shapes.append(honest(samples, grid, "gpu", devices))
        return shapes[-1]

    monkeypatch.setattr(_engine, "shape_of", of_accelerators)
    [found] = train_grids(problem, heldout, 5, [grid])
    assert shapes[0][0].together == ((1, 3, 2), (0,))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-10, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("width", [2, 32, 100, 256, 1024])
def test_groups_divide_what_they_group(make_problem, platform, width):
    problem = make_problem(steps=10, rows=16)
    grid = Grid(width, (4, 8), (0, 1, 2, 3, 4, 5), tuple(range(8)), ("reused", "independent"), 4)
    for devices in (1, 2, 4):
        shape, group = shape_of(problem.samples, grid, platform, devices)
        assert 8 % shape.rates == 0 and 6 % group == 0
        assert shape.independent and shape.layers == 8


def test_a_width_shares_a_wider_program_where_padding_is_cheap():
    widths = [32, 64, 128, 256]
    assert program_sizes(widths, 160, entry=0, program=1) == dict.fromkeys(widths, 256)
    assert program_sizes(widths, 160, entry=1, program=1) == {width: width for width in widths}
    # Forms are never mixed: 128 is wide enough beside 40 samples for the factored one, 64 is not.
    assert program_sizes([32, 64, 128], 40, entry=0, program=1) == {32: 64, 64: 64, 128: 128}


def test_a_master_seed_of_more_than_32_bits_is_refused(make_problem):
    with pytest.raises(ValueError, match="master seed"):
        train_grids(make_problem(), None, 2**32, [Grid(4, (1,), (0,), (0.1,), ("reused",), 1)])


def test_benchmarks_run_and_write_what_they_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SCRIPTS", ("dense_step",))
    figures = bench.main(tmp_path / "found.json", quick=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"device", "versions", "cores", "load", "quick", "figures"} <= set(found)
    assert [row["value"] for row in found["figures"]] == [figure.value for figure in figures]
    assert all(
        len(samples) == 1 and samples[0] > 0
        for row in found["figures"]
        for samples in row["samples"].values()
    )
    assert "dense step" in capsys.readouterr().out


def test_a_benchmark_of_another_name_is_refused():
    with pytest.raises(nfd.ConfigError, match="--only speed: no such benchmark, allowed: sweep, grid"):
        bench.main(only=["speed"], quick=True)


def test_benchmarks_that_are_not_there_are_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    with pytest.raises(nfd.ConfigError) as error:
        bench.main(quick=True)
    [line] = error.value.problems
    assert str(tmp_path) in line and "allowed" in line
