"""Compiled programs: none calls the host, so that each is kept in JAX's cache; a grid is one program of the
deepest network's loops."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nfd_jax as nfd

KEY = jax.random.key(0)
CALLS = {
    "dense": lambda p: nfd.train_finite(p, width=12, depth=3, key=KEY, record=("features", "coupling")),
    "matrix_free": lambda p: nfd.train_finite(
        p, width=12, depth=3, key=KEY, simulator="matrix_free", heldout=np.ones((2, 5))
    ),
    "limit": lambda p: nfd.solve_limit(p, particles=12, depth_steps=4, key=KEY, heldout=np.ones((2, 5))),
    "bounded": lambda p: nfd.solve_limit(p, particles=12, depth_steps=4, key=KEY, directions=6),
    "grid": lambda p: nfd.train_grid(p, widths=[4, 9], depths=[2, 3], keys=jax.random.split(KEY)),
    "noise": lambda p: nfd.sample_noise(p, width=12, depth=3, key=KEY),
    "lazy": lambda p: nfd.lazy_limit(p, backward_weights="reused"),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_program_calls_the_host(make_problem, name):
    problem = make_problem(steps=2, rows=2)
    assert "callback" not in str(jax.make_jaxpr(lambda p: eqx.filter(CALLS[name](p), eqx.is_array))(problem))


def test_the_limits_compiled_program_calls_no_host(make_problem):
    problem = make_problem(steps=2, rows=2)
    text = (
        jax.jit(lambda p: nfd.solve_limit(p, particles=8, depth_steps=4, key=KEY).output)
        .lower(problem)
        .compile()
        .as_text()
    )
    assert "callback" not in text


@st.composite
def grids(draw):
    pick = lambda *options: draw(st.sampled_from(options))
    simulator = pick("dense", "matrix_free")
    widths = pick([6, 9], [8], [7, 6, 12]) if simulator == "matrix_free" else pick([1, 5], [12, 3], [4])
    sizes = {"widths": widths, "depths": pick([1], [2, 3], [3, 1])}
    flags = pick(("reused",), ("independent",), ("independent", "reused"), ("reused", "independent"))
    options = {
        "activation": pick("tanh", "relu", "sigmoid"),
        "train": pick("all", "hidden"),
        "stream": pick(True, False),
    }
    options |= {"loss": pick("squared", "cross_entropy"), "outputs": 2}
    return simulator, sizes, flags, options


@given(grids())
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_grid_is_its_single_calls(make_problem, case):
    simulator, sizes, flags, options = case
    problem, keys, rates = make_problem(steps=3, rows=2, **options), jax.random.split(KEY, 2), (0.1, 0.4)
    grid = nfd.train_grid(
        problem,
        **sizes,
        keys=keys,
        learning_rates=rates,
        backward_weights=flags,
        simulator=simulator,
        record=("gradients",),
    )
    assert grid.loss.shape == (len(sizes["widths"]), len(sizes["depths"]), 2, 2, len(flags), 3)
    i, j, f = len(sizes["widths"]) - 1, len(sizes["depths"]) - 1, len(flags) - 1
    width, depth = sizes["widths"][i], sizes["depths"][j]
    for r, rate in enumerate(rates):
        learning = eqx.tree_at(lambda p: p.learning_rate, problem, jnp.asarray(rate))
        single = nfd.train_finite(
            learning,
            width=width,
            depth=depth,
            key=keys[1],
            backward_weights=flags[f],
            simulator=simulator,
            record=("gradients",),
        )
        np.testing.assert_allclose(grid.output[i, j, 1, r, f], single.output, rtol=0, atol=1e-12)
        found = grid.gradients[i, j, 1, r, f]
        np.testing.assert_allclose(found[:, : depth + 1, :, :width], single.gradients, rtol=0, atol=1e-11)
        assert np.all(found[..., width:] == 0)


@pytest.mark.parametrize("simulator", ["dense", "matrix_free"])
def test_a_grid_is_one_program_that_visits_the_deepest_networks_layers(make_problem, simulator):
    """One compilation; no loop runs longer than the largest depth; W(0) and noise have no axis of the
    networks that share them."""
    problem = make_problem(steps=2, rows=2)
    options = {
        "widths": [8, 24],
        "depths": [2, 5],
        "keys": jax.random.split(KEY, 3),
        "learning_rates": (0.1, 0.2),
    }
    program = jax.jit(lambda p: nfd.train_grid(p, **options, simulator=simulator).output).lower(problem)
    text = program.compile().as_text()
    trips = {int(n) for n in re.findall(r'known_trip_count":\{"n":"(\d+)"', text)}
    assert 5 in trips and not trips & set(range(6, 11)), f"loops of {sorted(trips)} steps; depths add up to 7"
    shapes = re.findall(r"f64\[([\d,]+)\]", text)
    if (
        simulator == "dense"
    ):  # width, depth, rate and flag share W(0): no array has their axes and two of width 24
        stacks = {shape for shape in shapes if shape.count("24") == 2 and "5" in shape.split(",")}
        assert all(np.prod([int(n) for n in shape.split(",")]) <= 3 * 2 * 5 * 24 * 24 for shape in stacks), (
            stacks
        )


def test_refusals_of_grids(make_problem):
    problem, options = make_problem(), {"widths": [16], "depths": [2], "keys": jax.random.split(KEY)}
    for change, message in (
        ({"widths": []}, "nonempty list"),
        ({"depths": [0]}, "positive integer"),
        ({"backward_weights": ("reused", "reused")}, "different"),
        ({"simulator": "sparse"}, "dense, matrix_free"),
        ({"record": ("weights",)}, "features, gradients"),
        ({"simulator": "matrix_free", "widths": [4, 32]}, "too small"),
    ):
        with pytest.raises(ValueError, match=message):
            nfd.train_grid(problem, **options | change)
    with pytest.raises(TypeError, match="jax.random"):
        nfd.train_grid(problem, **options | {"keys": 3})


def test_a_grid_as_a_labelled_dataset(make_problem):
    """Axes under their names; networks of several depths have layers in common, and no t."""
    problem, keys = make_problem(steps=2, rows=2), jax.random.split(KEY, 3)
    grid = nfd.train_grid(problem, widths=(4, 6), depths=(2, 3), keys=keys, record=("features",))
    axes = {"width": (4, 6), "depth": (2, 3), "key": range(3), "learning_rate": [0.4]}
    axes["backward_weights"] = ("reused", "independent")
    found = grid.to_xarray(axes)
    assert found.features.dims == (*axes, "step", "layer", "sample", "coordinate")
    assert found.layer.values.tolist() == [0, 1, 2, 3] and "t" not in found.coords
    one = found.loss.sel(width=6, depth=3, key=1, learning_rate=0.4, backward_weights="independent")
    np.testing.assert_array_equal(one, grid.loss[1, 1, 1, 0, 1])
    alone = nfd.train_grid(problem, widths=(4, 6), depths=(2,), keys=keys, record=("features",))
    assert alone.to_xarray(axes | {"depth": [2]}).t.values.tolist() == [0, 0.5, 1]
    assert grid.to_xarray().loss.dims[:2] == ("batch_0", "batch_1")
    for wrong in ({"width": (4, 6)}, axes | {"key": range(2)}):
        with pytest.raises(ValueError, match=r"leading must name axes of lengths \(2, 2, 3, 1, 2\)"):
            grid.to_xarray(wrong)
