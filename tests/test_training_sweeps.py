"""Long training through a sweep: bounded histories, optimizers, schedules, richness, centered outputs."""

import jax
import numpy as np
import pytest
from _configs import config_with

import nfd_jax as nfd
from nfd_jax.optimizers import Settings
from nfd_jax.store import Batch
from nfd_jax.sweep import Task, _systems
from nfd_jax.sweep._verify import precision_check

TREE = {
    "name": "training",
    "seeds": 1,
    "precision": "float64",
    "problem": {
        "dataset": "gaussian",
        "input_dim": 4,
        "steps": 6,
        "batch_size": 2,
        "batches": "epochs",
        "pool": 4,
        "learning_rate": 0.2,
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "schedule": {"name": "cosine", "warmup_steps": 1},
        "richness": 0.7,
    },
    "finite": {"simulator": "matrix_free", "widths": [16], "depths": [4]},
    "limit": {"depth_steps": 4},
    "measure": [],
}


def test_a_config_s_problem_is_what_its_cells_learn():
    config = config_with(TREE, {"problem": {"batches": "fixed", "pool": None, "centered": True}})
    task = Task.of(config, Batch("cells", 16, (4,), (0,)))
    one, (other, _) = nfd.Problem.from_config(config), _systems.problem_of_seed(task, 0)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.optimizer == Settings(momentum=0.9, schedule="cosine", warmup_steps=1, steps=6)
    assert one.centered and one.richness == 0.7


@pytest.mark.parametrize("directions", [pytest.param(None, marks=pytest.mark.long), 8])
def test_networks_and_limits_of_one_depth_are_one_system(tmp_path, directions):
    """Exact and bounded, with h and b of the first batch followed along training; what was left out is
    stored."""
    config = config_with(TREE, {"history": {"directions": directions, "tolerance": 0.3}})
    tree = nfd.run(config, tmp_path / "out", progress=False)
    finite, limit = tree["finite"].isel(width=0, depth=0), tree["limit"].isel(particles=0)
    for name in ("output", "heldout_loss", "feature_shift_ms", "gradient_shift_ms", "history_residual"):
        a, b = (values[name].transpose("backward_weights", ...).values for values in (finite, limit))
        assert np.isfinite(a).all() and np.isfinite(b).all(), name
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=name)
    assert np.all(finite.gradient_shift_ms.isel(step=slice(1, None)).max("t") > 1e-4)
    residual = finite.history_residual.values
    assert np.all(residual == 0) if directions is None else residual.max() > 0.01


@pytest.mark.parametrize("name", ["adam", pytest.param("adamw", marks=pytest.mark.long)])
def test_optimizers_that_are_not_linear_hold_their_matrices_at_every_width(tmp_path, name):
    """Also where width is 3·K·P or more, at which linear ones have factored corrections."""
    problem = {"steps": 2, "learning_rate": 0.01, "optimizer": {"name": name, "weight_decay": 0.1}}
    finite = {"simulator": "dense", "widths": [8, 16], "backward_weights": ["independent", "reused"]}
    config = config_with(TREE, {"problem": problem, "finite": finite, "limit": None})
    tree = nfd.run(config, tmp_path / "out", progress=False)
    key = nfd.seed_key(config, 0)
    with jax.enable_x64(True):
        problem = nfd.Problem.from_config(config)
        for width, flag in ((8, "reused"), (16, "reused"), (16, "independent")):
            run = nfd.train_finite(problem, width=width, depth=4, key=key, backward_weights=flag)
            cell = tree["finite/output"].sel(width=width, depth=4, seed=0, backward_weights=flag).squeeze()
            np.testing.assert_allclose(cell.squeeze(), run.output.squeeze(), rtol=1e-8, atol=1e-10)


CENTERED = {"problem": {"centered": True, "steps": 3}, "finite": {"widths": [24], "depths": [2, 4]}}


def test_centered_outputs_of_batches_that_differ(tmp_path):
    """Each batch under the initial weights is asked before training, on noise that depths coarsen."""
    config = config_with(TREE, CENTERED)
    tree = nfd.run(config, tmp_path / "out", progress=False)
    finite = tree["finite"].isel(width=0, seed=0, learning_rate=0)
    limit = tree["limit/output"].isel(particles=0, seed=0, learning_rate=0)
    np.testing.assert_allclose(finite.output.sel(depth=4), limit, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(finite.output.isel(step=0), 0, atol=1e-12)
    assert np.abs(finite.output.isel(step=1)).min() > 1e-6
    with jax.enable_x64(True):
        problem, key = nfd.Problem.from_config(config), nfd.seed_key(config, 0)
        noise = nfd.sample_noise(problem, width=24, depth=4, key=key).coarsen(2)
        run = nfd.train_finite(problem, noise=noise, simulator="matrix_free", backward_weights="independent")
    cell = finite.output.sel(depth=2, backward_weights="independent")
    np.testing.assert_allclose(cell, run.output, rtol=1e-8, atol=1e-10)


@pytest.mark.long
def test_limits_with_bounded_histories_on_the_innovations_of_dense_networks(tmp_path):
    """On streams, where the first batch is followed: innovations are of the network's own batches alone."""
    finite = {"simulator": "dense", "widths": [16], "depths": [1, 2, 4]}
    config = config_with(TREE, {"finite": finite, "history": {"directions": 12, "tolerance": 0.0}})
    config = config.model_copy(update={"measure": ("limit_error",)})
    tree = nfd.run(config, tmp_path / "out", progress=False)
    error = tree["compare/limit_error_ms"].sel(depth=4, limit_backward_weights="reused")
    exact = error.sel(backward_weights="reused")  # K·P = 12 directions are all there are
    assert np.all(exact < 1e-12) and np.all(error.sel(backward_weights="independent", step=5) > 1e-9)


def test_bounded_histories_in_float32_are_checked_against_float64(tmp_path):
    """On the noise that a sweep draws at each use, held for once."""
    config = config_with(
        TREE | {"precision": "float32"},
        {"limit": None, "history": {"directions": 8}, "problem": {"steps": 4}},
    )
    check = precision_check(config)
    assert check["cell"] == "width 16, depth 4, seed 0" and check.keys() == {"cell", "loss", "output"}
    assert 0 < check["loss"] < 1e-4 and 0 < check["output"] < 1e-4
