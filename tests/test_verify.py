"""Numbers that are checked: stored cells computed again, float32 beside float64, and the place where a run
diverges."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from nfd_jax import launch
from nfd_jax.config import SweepConfig
from nfd_jax.measures import Named
from nfd_jax.store import Store
from nfd_jax.sweep import _verify, make_plan, run_batch
from nfd_jax.trajectory import Trajectory


@pytest.fixture(autouse=True)
def compiled_once():
    launch.use_compilation_cache()


def sweep(
    seeds=5, precision="float64", widths=(8,), depths=(2,), simulator="dense", limit=None, **problem
) -> SweepConfig:
    tree = {
        "name": "test",
        "seeds": seeds,
        "precision": precision,
        "measure": ["limit_error"] if limit else [],
    }
    tree["problem"] = {"dataset": "gaussian", "input_dim": 8, "steps": 2, "batch_size": 2} | problem
    tree["finite"] = {"simulator": simulator, "widths": list(widths), "depths": list(depths)}
    if limit:
        tree["limit"] = limit
    return SweepConfig.model_validate(tree)


def store(folder, config, alter=lambda batch, arrays: None) -> None:
    """A finished store, with what `alter` makes of it."""
    with Store.open(folder, config, outputs=1, make_plan=make_plan, attributes={}) as results:
        for batch in results.pending():
            arrays = run_batch(config, batch)
            alter(batch, arrays)
            results.commit(batch, arrays)


def test_what_was_stored_here_is_the_same_again(tmp_path):
    config = sweep()
    store(tmp_path, config)
    found = _verify.verify_sample(config, tmp_path)
    assert found == ("verified 3 of 5 batches: largest relative difference 0 (finite/loss)", True)
    assert _verify.verify_sample(config, tmp_path / "none") == (
        "verified 0 of 0 batches: nothing to compare",
        True,
    )


def test_differences_are_found_and_measured(tmp_path):
    config = sweep()
    largest = max(
        float(np.abs(run_batch(config, batch)["finite/output"].values).max()) for batch in make_plan(config)
    )

    def alter(batch, arrays):
        if batch.seeds == (3,):
            output, loss = arrays["finite/output"], arrays["finite/heldout_loss"]
            arrays["finite/output"] = Named(output.dims, output.values + 1e-3 * largest)
            arrays["finite/heldout_loss"] = Named(loss.dims, loss.values.copy())
            arrays["finite/heldout_loss"].values.flat[0] = np.inf

    store(tmp_path, config, alter)
    text, same = _verify.verify_sample(config, tmp_path, count=9)
    first, *lines = text.splitlines()
    assert not same
    found = "largest relative difference inf (finite/heldout_loss)"
    assert first == f"verified 5 of 5 batches: {found}, allowed: at most 1e-07"
    assert [line.split(":")[0].strip() for line in lines] == ["finite/output", "finite/heldout_loss"]
    absolute, relative = map(float, re.findall(r": (\S+), (\S+) of", lines[0])[0])
    assert absolute == pytest.approx(1e-3 * largest, rel=0.05) and relative == pytest.approx(1e-3, rel=0.05)


def test_samples_are_drawn_by_their_seed(tmp_path):
    config = sweep()

    def alter(batch, arrays):
        loss = arrays["finite/loss"]
        arrays["finite/loss"] = Named(loss.dims, loss.values + batch.seeds[0])

    store(tmp_path, config, alter)
    said = {
        _verify.verify_sample(config, tmp_path, count=1, seed=seed).text.splitlines()[-1]
        for seed in range(12)
    }
    assert len(said) > 2
    assert _verify.verify_sample(config, tmp_path, seed=1) == _verify.verify_sample(config, tmp_path, seed=1)


def test_not_finite_is_equal_to_itself_alone():
    numbers = np.array([1.0, np.nan, np.inf, -np.inf])
    assert _verify.largest_difference(numbers, numbers) == 0
    assert _verify.largest_difference(numbers, numbers + np.array([0.5, 0, 0, 0])) == 0.5
    for place, value in ((0, np.nan), (1, 0.0), (2, -np.inf), (3, np.nan)):
        changed = numbers.copy()
        changed[place] = value
        assert _verify.largest_difference(numbers, changed) == np.inf


@pytest.mark.parametrize(
    ("simulator", "limit"),
    [
        pytest.param("dense", None, id="dense alone"),
        pytest.param("matrix_free", {"depth_steps": 8}, id="matrix-free and limit"),
        pytest.param("dense", {"depth_steps": 8}, id="dense and limit", marks=pytest.mark.long),
    ],
)
def test_rounding_is_measured_on_the_same_draw(simulator, limit):
    found = _verify.precision_check(sweep(widths=(16, 8), depths=(8, 2, 4), simulator=simulator, limit=limit))
    assert found.pop("cell") == "width 8, depth 2, seed 0"
    assert set(found) == {"loss", "output"} | ({"limit_error"} if limit else set())
    assert all(1e-9 < value < 1e-4 for value in found.values()), found
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_rounding_of_a_diverged_cell_is_not_a_number_json_lacks():
    found = _verify.precision_check(sweep(learning_rate=1e6, activation="relu", steps=8))
    assert found["loss"] is None and found["output"] is None


def test_diverged_runs_are_located():
    config = sweep(seeds=2, precision="float32", learning_rate=[0.5, 1e6], activation="relu", steps=8)
    [batch] = make_plan(config)
    cell = run_batch(config, batch)["status/cell"]
    status = cell.over(("backward_weights", "learning_rate", "depth", "seed"))
    assert (status[:, 1] == 2).all() and (status[:, 0] == 1).all()
    lines = _verify.locate_nonfinite(config, batch, status, at_most=9)
    pattern = r"width 8, depth 2, seed (\d), (\w+), learning rate 1e\+06: not finite first in the"
    cells = [re.match(pattern, line) for line in lines]
    assert [cell and cell.groups() for cell in cells] == [
        (s, flag) for flag in ("reused", "independent") for s in "01"
    ]
    assert lines == _verify.locate_nonfinite(config, batch, at_most=9), (
        "the others were trained too, and are finite"
    )
    assert lines[:1] == _verify.locate_nonfinite(config, batch, status, at_most=1)
    # a rate that overflows the first update leaves step 0 whole
    overflowing = sweep(seeds=1, precision="float32", learning_rate=1e6, activation="relu", steps=8)
    assert "step 0" not in _verify.locate_nonfinite(overflowing, make_plan(overflowing)[0])[0]


PLACES = [
    ("features", (1, 3), "the forward features, step 1, layer 3 of 4"),
    ("output", (1,), "the outputs, step 1, after layer 4"),
    ("loss", (1,), "the loss, step 1, after layer 4"),
    ("gradients", (0, 2), "the backward features, step 0, layer 2 of 4"),
]


@pytest.mark.parametrize(("field", "index", "place"), PLACES, ids=[field for field, *_ in PLACES])
def test_the_first_place_in_the_order_of_computation(field, index, place):
    shapes = {"output": (2, 3, 1), "loss": (2,), "features": (2, 5, 3, 6), "gradients": (2, 5, 3, 6)}
    arrays = {name: np.ones(shape) for name, shape in shapes.items()}
    first = lambda: _verify._first_nonfinite(
        Trajectory(**{name: jnp.asarray(x) for name, x in arrays.items()})
    )
    assert first() is None
    order = ["features", "output", "loss", "gradients"]
    for later in order[order.index(field) :]:  # what follows from it does not hide it
        arrays[later][index[0] :] = np.nan
    arrays[field][index[0]] = 1
    if field == "gradients":
        arrays[field][index[0], : index[1] + 1] = np.inf
    elif field == "features":
        arrays[field][index[0], index[1] :] = np.inf
    else:
        arrays[field][index[0]] = np.inf
    assert first() == place
