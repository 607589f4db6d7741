"""Programs that several widths share: arrays have room for the widest, and what lies beyond a width is
nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _configs import config_with

import nfd_jax as nfd
from nfd_jax import training
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.limit import Limit
from nfd_jax.sweep import _execute, _plan
from nfd_jax.sweep._plan import make_plan

WIDTH, ROOM, DEPTH = 20, 32, 4
INTERIORS = {"network": MatrixFree.of, "limit": Limit}


def shifted(x):
    """Neither it nor its derivative is zero at 0, where coordinates beyond the width lie."""
    return jnp.cos(x - 1)


@pytest.mark.parametrize("kind", ["limit", pytest.param("network", marks=pytest.mark.long)])
def test_a_system_is_the_same_in_arrays_with_room_for_more(make_problem, kind):
    problem = make_problem(steps=2, rows=2, outputs=2, stream=True, activation=shifted, richness=0.7)
    key, inputs = jax.random.key(5), jnp.ones((3, problem.input_dim)) * jnp.arange(3.0)[:, None]

    def run(room):
        noise = nfd.sample_noise(problem, width=room, depth=DEPTH, key=key)
        sizes = (noise.width, None) if room == WIDTH else (jnp.asarray(WIDTH), room)
        interior = INTERIORS[kind](problem, jnp.asarray(1.0), DEPTH, sizes[0], room=sizes[1])
        return training.train(
            problem,
            noise,
            interior,
            record=("features", "gradients", "coupling"),
            heldout=training.heldout_questions(problem, inputs, DEPTH, room, key),
            probe=training.probe_questions(problem, DEPTH, room, key),
        )

    alone, among = run(WIDTH), run(ROOM)
    for name in ("features", "gradients", "probe", "probe_gradients"):
        assert np.all(np.asarray(getattr(among, name))[..., WIDTH:] == 0), name
    found, expected = map(jax.tree.leaves, (among.narrow(WIDTH), alone))
    # Directions of queries that nearly repeat earlier ones, as a probe's, know rounding amplified.
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)
    assert np.max(alone.coupling.layer_ms) > 1e-3


def test_coupling_of_a_grid_is_an_average_over_each_networks_own_coordinates(make_problem):
    problem, keys = make_problem(steps=2, rows=2), jax.random.split(jax.random.key(1), 2)
    options = {"simulator": "matrix_free", "record": ("coupling",)}
    grid = nfd.train_grid(
        problem, widths=(8, 24), depths=(3,), keys=keys, backward_weights="reused", **options
    )
    one = nfd.train_finite(problem, width=8, depth=3, key=keys[1], **options)
    for a, b in zip(jax.tree.leaves(grid.coupling), jax.tree.leaves(one.coupling), strict=True):
        np.testing.assert_allclose(a[0, 0, 1, 0, 0], b, rtol=1e-9)


CONFIG = {
    "name": "shared",
    "seeds": 2,
    "precision": "float64",
    "problem": {
        "dataset": "gaussian",
        "input_dim": 6,
        "steps": 2,
        "batch_size": 2,
        "batches": "stream",
    },
    "finite": {"simulator": "matrix_free", "widths": [16, 24], "depths": [2]},
    "limit": {"depth_steps": 4},
}


@pytest.mark.parametrize("together", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_sweep_has_the_same_numbers_by_shared_programs(monkeypatch, together):
    """All that it stores of the narrower width, by the programs of a CPU or, `together`, by those of an
    accelerator."""
    changes = {"finite": {"depths": [1, 2]}, "problem": {"learning_rate": [0.2, 0.5]}}
    config = config_with(CONFIG, changes if together else {})
    if together:
        monkeypatch.setattr("nfd_jax.sweep._systems.one_by_one", lambda: False)
    shared = make_plan(config)
    monkeypatch.setattr(_plan._Planner, "shared_sizes", lambda self: {})
    own = make_plan(config)
    assert {batch.size for batch in shared} == {24} and {batch.size for batch in own} == {None}
    assert shared[0].width == own[0].width == 16
    found, expected = (_execute.run_batch(config, plan[0]) for plan in (shared, own))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        scale = np.nanmax(np.abs(array.values), initial=1e-12)
        np.testing.assert_allclose(found[name].values / scale, array.values / scale, atol=1e-8, err_msg=name)
