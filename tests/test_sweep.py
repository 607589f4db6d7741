"""A sweep from a config to labelled arrays: names, dimensions, numbers that agree with single calls, resume,
divergence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax import launch, measures
from nfd_jax.limit import initial_averages
from nfd_jax.measures import Cells, Measure, Named, Variable
from nfd_jax.sweep import Task, _cells, _compute, _memory, _results, _systems, make_plan, run_batch

SMALL = """
name: small
seeds: 2
precision: float64
problem: {dataset: gaussian, input_dim: 6, steps: 2, batch_size: 2, learning_rate: [0.2, 0.6]}
finite: {widths: [12, 16], depths: [2, 4, 8]}
limit: {depth_steps: 16}
"""


def config(tmp_path, text=SMALL, **overrides):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return nfd.load_config(path, [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()])


DIVERGING = {
    "problem__steps": 5,
    "problem__activation": "linear",
    "finite__widths": "[12]",
    "seeds": 1,
    "precision": "float32",
    "measure": "[]",
    "limit": "null",
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    sweep = config(folder)
    return sweep, nfd.run(sweep, folder / "out", progress=False), folder / "out"


def test_groups_and_dimensions(swept):
    _, tree, _ = swept
    network = ("backward_weights", "learning_rate", "width", "depth", "seed", "step")
    expected = {
        "finite/loss": network,
        "finite/output": (*network, "sample", "component"),
        "finite/gradient_shift_ms": (*network, "t"),
        "finite/history_residual": network,
        "finite/feature_shift_ms": (*network, "t"),
        "limit/heldout_loss": ("backward_weights", "learning_rate", "particles", "seed", "step"),
        "compare/limit_error_ms": ("backward_weights", "limit_backward_weights", *network[1:], "quantity"),
        "coupling/coupling_effect_ms": (*network[1:], "quantity"),
        "coupling/coupling_layer_ms": (*network[1:], "direction"),
        "law/output_bias": (
            "backward_weights",
            "limit_backward_weights",
            *network[1:],
            "sample",
            "component",
        ),
        "law/initial_gradient_kernel_bias": (*network[:-1], "t", "sample", "sample2"),
        "law/marginal_w2_null": ("backward_weights", "limit_backward_weights", *network[1:], "quantity"),
        "response/first_step_gain": ("backward_weights", "width", "depth", "seed"),
        "spectrum/min_eigenvalue": ("kind", "scope", *network, "t"),
        "kernels/gradient_kernel": ("source", *network, "t", "sample", "sample2"),
        "status/cell": network[:-1],
    }
    for name, dims in expected.items():
        array = tree[name]
        assert array.dims == dims, name
        assert np.all(np.isfinite(array)), name
    assert np.all(tree["status/cell"] == 1)
    assert {"slope", "slope_low", "slope_high", "constant", "verdict"} <= set(tree["rates"].data_vars)
    assert tree["verdicts/verdict"].dims == ("claim", "reading")
    np.testing.assert_allclose(
        tree["finite"].t if "t" in tree["finite"].coords else tree["finite/feature_shift_ms"].t, [0, 0.5, 1]
    )


def test_numbers_are_those_of_single_calls(swept):
    sweep, tree, _ = swept
    with jax.enable_x64(True):
        problem = nfd.Problem.from_config(sweep)
        problem = eqx.tree_at(lambda p: p.learning_rate, problem, jnp.asarray(0.6))
        noise = nfd.sample_noise(problem, width=16, depth=16, key=nfd.seed_key(sweep, 1))
        options = {"record": ("features", "gradients"), "backward_weights": "reused"}
        network = nfd.train_finite(
            problem, width=16, depth=4, noise=noise.coarsen(4), simulator="matrix_free", **options
        )
        limit = nfd.solve_limit(
            problem,
            particles=16,
            depth_steps=16,
            noise=noise,
            **options | {"backward_weights": "independent"},
        )
        closed, _ = initial_averages(problem, ts=np.array([0, 0.5, 1]))
    here = {"backward_weights": "reused", "learning_rate": 0.6, "seed": 1}
    np.testing.assert_allclose(
        tree["finite/output"].sel(width=16, depth=4, **here), network.output, rtol=0, atol=1e-12
    )
    error = tree["compare/limit_error_ms"].sel(
        width=16, depth=4, limit_backward_weights="independent", **here
    )
    gap = (network.features[:, ::2] - limit.features[:, ::8]) ** 2
    np.testing.assert_allclose(error.sel(quantity="h"), gap.mean((-2, -1)).max(-1), rtol=1e-9)
    kernel = tree["kernels/feature_kernel"].sel(source="finite", width=16, depth=4, **here)
    phi = np.tanh(network.features[:, ::2])
    np.testing.assert_allclose(kernel, phi @ phi.swapaxes(-1, -2) / 16, rtol=1e-9)
    smallest = tree["spectrum/min_eigenvalue"].sel(
        kind="feature", scope="joint", width=16, depth=4, step=1, t=0.5, **here
    )
    both = phi[:, 1].reshape(4, 16)
    np.testing.assert_allclose(smallest, np.linalg.eigvalsh(both @ both.T / 16)[0], rtol=1e-6)
    for name, path in (("feature", network.features), ("gradient", network.gradients)):
        shift = tree[f"finite/{name}_shift_ms"].sel(width=16, depth=4, step=1, **here)
        np.testing.assert_allclose(shift, ((path[1] - path[0])[::2] ** 2).mean((-2, -1)), rtol=1e-9)
    law = tree["law"].sel(width=16, depth=4, limit_backward_weights="independent", **here)
    np.testing.assert_allclose(law["output_bias"], network.output - limit.output, rtol=0, atol=1e-12)
    other = np.tanh(limit.features[:, ::8])
    bias = kernel - other @ other.swapaxes(-1, -2) / 16
    np.testing.assert_allclose(law["feature_kernel_bias"], bias, rtol=0, atol=1e-12)
    ends = (network.features[:, -1], limit.features[:, -1]), (network.gradients[:, 0], limit.gradients[:, 0])
    w2 = [((np.sort(a, -1) - np.sort(b, -1)) ** 2).mean((-2, -1)) for a, b in ends]
    np.testing.assert_allclose(law["marginal_w2"], np.stack(w2, -1), rtol=1e-9)
    np.testing.assert_allclose(law["initial_feature_kernel_bias"], kernel[0] - closed, rtol=0, atol=1e-8)


@pytest.mark.long
def test_resuming_changes_nothing(swept):
    sweep, tree, out = swept
    again = nfd.run(sweep, out, progress=False)
    for name in ("finite/loss", "compare/limit_error_ms"):
        np.testing.assert_array_equal(again[name], tree[name])


def test_identical_runs_are_identical_bit_for_bit(swept):
    sweep, tree, _ = swept
    batch = make_plan(sweep)[0]
    arrays = run_batch(sweep, batch)
    stored = tree["finite/output"].sel(width=[batch.width], seed=list(batch.seeds))
    np.testing.assert_array_equal(arrays["finite/output"].over(stored.dims), stored)


def test_one_by_one_on_any_number_of_cores_or_all_in_one_program(swept, monkeypatch):
    sweep, tree, _ = swept
    batch = make_plan(sweep)[0]
    stored = tree["compare/limit_error_ms"].sel(width=[batch.width])
    again = lambda: run_batch(sweep, batch)["compare/limit_error_ms"].over(stored.dims)
    monkeypatch.setenv("NPROC", "1")
    np.testing.assert_array_equal(again(), stored, "bit for bit, whichever core")
    for module in (_systems,):
        monkeypatch.setattr(module, "one_by_one", lambda: False)
    np.testing.assert_allclose(again(), stored, rtol=1e-9)


def test_batches_beside_one_another_are_what_they_are_in_turn(swept, monkeypatch):
    """Each comes once, with the numbers that it has alone; programs of all widths are compiled first."""
    config, _, _ = swept
    pending = make_plan(config)
    monkeypatch.setattr(_results, "beside", lambda *_: 2)
    found = dict(_results.results(config, pending, None, None))
    assert len(found) == len(pending) and set(found) == set(pending)
    widths = [batch.width for batch in found]
    assert len(set(widths[: len(set(widths))])) == len(set(widths))
    for batch, result in found.items():
        alone = run_batch(config, batch)
        assert result.keys() == alone.keys()
        for name, one in alone.items():
            np.testing.assert_array_equal(result[name].values, one.values, err_msg=name)


def test_two_batches_that_do_not_fit_together_take_turns(swept, monkeypatch):
    config, _, _ = swept
    pending = make_plan(config)
    largest = max(_memory.batch_bytes(Task.of(config, batch)) for batch in pending)
    for free, wanted in ((2.1 * largest, 2), (1.9 * largest, 1)):
        monkeypatch.setattr(_memory, "device_memory", lambda free=free: free / _memory.USABLE)
        assert _results.beside(config, pending) == wanted


def test_a_batch_that_fails_leaves_the_one_beside_it_alone(swept, monkeypatch):
    config, _, _ = swept
    pending = make_plan(config)

    def run(config, batch):
        if batch == pending[0]:
            raise MemoryError("none left")
        return {}

    monkeypatch.setattr(_compute, "run_batch", run)
    found = dict(_results.results(config, pending, None, None))
    assert found == {batch: {} for batch in pending} | {pending[0]: "MemoryError: none left"}


@pytest.mark.long
def test_dense_networks_against_the_limit_on_their_own_noise(tmp_path):
    """The distance of a plain ResNet to its own limit falls in depth as that of a matrix-free one: same law,
    so same mean."""
    common = {"seeds": 24, "problem__learning_rate": 0.5, "finite__widths": "[24]", "limit__depth_steps": 16}
    common |= {"measure": "[limit_error]"}
    means = {}
    for simulator in ("dense", "matrix_free"):
        sweep = config(tmp_path, **common, finite__simulator=simulator)
        order = (
            "backward_weights",
            "limit_backward_weights",
            "depth",
            "seed",
            "learning_rate",
            "step",
            "quantity",
        )
        parts = [run_batch(sweep, batch)["compare/limit_error_ms"].over(order) for batch in make_plan(sweep)]
        log = np.log(np.concatenate(parts, axis=3)[..., 0, :, :2])  # flag, limit, depth, seed, step, (h, b)
        means[simulator] = log.mean(3), log.var(3) / log.shape[3]
    gap = np.abs(means["dense"][0] - means["matrix_free"][0]) / np.sqrt(
        means["dense"][1] + means["matrix_free"][1]
    )
    assert np.max(gap) < 4.5  # 48 numbers


def test_a_diverging_cell_is_data_and_leaves_the_others_alone(tmp_path):
    sweep = config(tmp_path, problem__learning_rate="[0.2, 1.0e+6]", **DIVERGING)
    tree = nfd.run(sweep, tmp_path / "out", progress=False)
    status = tree["status/cell"].isel(width=0, seed=0)
    assert np.all(status.sel(learning_rate=0.2) == 1)
    assert np.all(np.isfinite(tree["finite/loss"].sel(learning_rate=0.2)))
    loss = tree["finite/loss"].isel(width=0, seed=0, learning_rate=1)
    np.testing.assert_array_equal(status.isel(learning_rate=1) == 2, ~np.isfinite(loss).all("step"))
    assert np.any(status == 2)
    log = (tmp_path / "out" / "log.jsonl").read_text()
    assert "width 12, depth" in log and "learning rate 1e+06: not finite first in" in log, "where it diverged"
    check = tree["rates"].attrs["float32_check"]
    assert check["cell"] == "width 12, depth 2, seed 0" and 0 < check["loss"] < 1e-4


def test_a_divergence_that_cannot_be_located_stops_nothing(tmp_path, monkeypatch):
    def out_of_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(launch.sweep, "locate_nonfinite", out_of_memory)
    sweep = config(tmp_path, problem__learning_rate=1.0e6, **DIVERGING)
    tree = nfd.run(sweep, tmp_path / "out", progress=False)
    assert np.any(tree["status/cell"] == 2)
    assert "could not be found: MemoryError" in (tmp_path / "out" / "log.jsonl").read_text()


def test_a_limit_on_its_own(tmp_path):
    text = SMALL.replace("finite: {widths: [12, 16], depths: [2, 4, 8]}", "").replace(
        "limit: {", "limit: {particles: 20, "
    )
    tree = nfd.run(config(tmp_path, text), tmp_path / "out", progress=False)
    assert tree["limit/loss"].dims == ("backward_weights", "learning_rate", "particles", "seed", "step")
    assert tree["limit"].particles.values.tolist() == [20]
    assert "finite" not in tree.children and np.all(np.isfinite(tree["limit/loss"]))


@pytest.mark.parametrize("kind", ["network", pytest.param("limit", marks=pytest.mark.long)])
@pytest.mark.long
def test_runs_side_by_side_give_what_they_give_in_turn(make_problem, kind):
    """As on an accelerator, where seeds, rates and flags are vectorized as far as memory goes: 2 seeds × 2
    rates × 2 flags."""
    problem, keys = make_problem(), jax.random.split(jax.random.key(0), 2)
    heldout = _cells.Heldout(problem.inputs[0], problem.targets[0])
    rates, reuse = jnp.asarray([0.1, 0.4]), jnp.asarray([1.0, 0.0])
    noise = _cells.draw_noise(problem, keys, 24, 4, False)
    asked = _cells.draw_questions(problem, heldout, keys, 24, 4, False)
    shared = problem, noise, asked, rates, reuse

    def run(at_once: int):
        if kind == "limit":
            return _cells.solve_limits(*shared, 2, False, at_once)
        return _cells.train_networks(*shared, jnp.asarray(4, jnp.int32), 2, False, True, at_once)

    in_turn, side_by_side = (jax.tree.leaves(run(at_once)) for at_once in (1, 8))
    for a, b in zip(in_turn, side_by_side, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def _first_loss(cells: Cells) -> dict[str, Named]:
    """A toy observable: a number a network, and one a limb of a dim that nothing else has."""
    loss = cells.networks.found["loss"][..., 0]
    return {
        "toy/first_loss": Named(("seed", "learning_rate", "backward_weights"), loss),
        "toy/powers": Named(("power", "seed"), np.stack([loss[:, 0, 0], loss[:, 0, 0] ** 2])),
    }


TOY = Measure(
    "toy",
    {
        "toy/first_loss": Variable(
            ("backward_weights", "learning_rate", "width", "depth", "seed"), "loss at the start", "nat"
        ),
        "toy/powers": Variable(("width", "depth", "seed", "power"), "powers of the loss at the start"),
    },
    lambda config: None if config.finite else "needs networks, allowed: with a finite section",
    _first_loss,
    coordinates=lambda config: {"power": (1, 2)},
)


def test_a_new_observable_is_one_measure_in_the_list(tmp_path, monkeypatch):
    """Nothing else knows of it: the store has its variables, with dims, coordinates, names and units, after a
    sweep."""
    monkeypatch.setattr(measures, "MEASURES", [*measures.MEASURES, TOY])
    sweep = config(tmp_path, finite__simulator="dense", measure="[]", limit="null")
    launch.run_sweep(sweep, tmp_path / "out", quiet=True, report=False)
    tree = nfd.open_results(tmp_path / "out")
    found = tree["toy/first_loss"]
    assert found.dims == TOY.variables["toy/first_loss"].dims
    assert (found.attrs["units"], found.attrs["long_name"]) == ("nat", "loss at the start")
    np.testing.assert_array_equal(found, tree["finite/loss"].isel(step=0))
    powers = tree["toy/powers"]
    assert powers.dims == ("width", "depth", "seed", "power") and powers.power.values.tolist() == [1, 2]
    np.testing.assert_allclose(powers.sel(power=2), powers.sel(power=1) ** 2)


def test_every_seed_has_samples_of_its_own_where_asked(tmp_path):
    sweep = config(
        tmp_path,
        problem__data_seed="per_seed",
        measure="[limit_error]",
        finite__widths="[12]",
        problem__learning_rate=0.2,
    )
    [batch] = make_plan(sweep)
    arrays = run_batch(sweep, batch)
    with jax.enable_x64(True):
        one, other = (nfd.Problem.from_config(sweep, repetition=repetition) for repetition in (0, 1))
        assert not np.allclose(one.inputs, other.inputs)
        noise = nfd.sample_noise(other, width=12, depth=16, key=nfd.seed_key(sweep, 1))
        alone = nfd.train_finite(
            other, noise=noise.coarsen(4), simulator="matrix_free", backward_weights="reused"
        )
    output = arrays["finite/output"].over(
        ("backward_weights", "depth", "seed", "learning_rate", "step", "sample", "component")
    )
    np.testing.assert_allclose(output[0, 1, 1, 0], alone.output, rtol=0, atol=1e-12)
    assert Task.of(sweep, batch).data_by_seed


def test_a_larger_limit_on_nested_noise(tmp_path):
    """With as many particles as the network it is the matched limit; else its first coordinates are compared,
    f included."""
    sweep = config(
        tmp_path,
        limit__reference_particles=48,
        measure="[limit_error]",
        finite__widths="[12]",
        problem__learning_rate=0.6,
    )
    [batch] = make_plan(sweep)
    arrays = run_batch(sweep, batch)
    order = "backward_weights", "limit_backward_weights", "depth", "seed", "learning_rate", "step", "quantity"
    error = arrays["compare/reference_error_ms"].over(order)
    with jax.enable_x64(True):
        problem = eqx.tree_at(lambda p: p.learning_rate, nfd.Problem.from_config(sweep), jnp.asarray(0.6))
        noise = nfd.sample_noise(problem, width=48, depth=16, key=nfd.seed_key(sweep, 0))
        limit = nfd.solve_limit(problem, noise=noise, backward_weights="independent", record=("features",))
        narrow = noise.narrow(12).coarsen(4)
        run = nfd.train_finite(
            problem, noise=narrow, simulator="matrix_free", backward_weights="reused", record=("features",)
        )
    h = ((run.features[:, ::2] - limit.features[:, ::8, :, :12]) ** 2).mean((-2, -1)).max(-1)
    np.testing.assert_allclose(error[0, 1, 1, 0, 0, :, 0], h, rtol=1e-8)
    np.testing.assert_allclose(
        error[0, 1, 1, 0, 0, :, 2], ((run.output - limit.output) ** 2).mean((-2, -1)), rtol=1e-8
    )


def test_a_finished_store_is_left_as_it_is(tmp_path, monkeypatch, capfd):
    sweep = config(
        tmp_path, finite__simulator="dense", measure="[]", limit="null", precision="float32", seeds=1
    )
    nfd.run(sweep, tmp_path / "out", progress=False)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for name in ("make_plan", "precision_check", "results"):
        monkeypatch.setattr(launch.sweep, name, lambda *_, **__: pytest.fail("done again"))
    nfd.run(sweep, tmp_path / "out", progress=False)
    changed = [path.name for path, time in written.items() if path.stat().st_mtime_ns != time]
    assert set(changed) <= {"log.jsonl", "lock"}
    (tmp_path / "out" / "report.html").unlink()
    capfd.readouterr()
    nfd.run(sweep, tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()
    assert "".join(capfd.readouterr()).splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"


@pytest.mark.parametrize("train", ["all", pytest.param("hidden", marks=pytest.mark.long)])
def test_the_first_step_gain_is_that_of_the_closed_form(tmp_path, train):
    """Each flag within standard errors of its own formula. The wrong one is off by what the formulas
    differ."""
    sizes = {"seeds": 12, "finite__widths": "[512]", "finite__depths": "[64]", "limit": "null"}
    sweep = config(tmp_path, problem__train=train, measure="[response]", problem__learning_rate=0.2, **sizes)
    parts = [run_batch(sweep, batch) for batch in make_plan(sweep)]
    of = lambda name: np.concatenate(
        [part[f"response/{name}"].over(("backward_weights", "seed", "depth"))[..., 0] for part in parts], 1
    )
    measured, predicted = of("first_step_gain"), of("first_step_gain_predicted")
    error = measured.std(1, ddof=1) / np.sqrt(measured.shape[1])
    gap = abs(measured.mean(1) - predicted.mean(1))
    assert np.all(gap < 3.5 * error + 2 * predicted.mean(1) / 64), (
        "standard errors, and what 64 layers leave of 1/L"
    )
    apart = measured[0] - measured[1]
    assert (
        abs(apart.mean() - (predicted[0] - predicted[1]).mean())
        < 3.5 * apart.std(ddof=1) / np.sqrt(apart.size) + 0.02
    )


@pytest.mark.long
def test_long_runs_on_a_pool_with_bounded_histories_say_what_they_forget(tmp_path):
    learned = {"problem__steps": 12, "problem__batches": "epochs", "problem__pool": 6}
    learned |= {"problem__optimizer": "{momentum: 0.9}", "problem__learning_rate": 0.05}
    sizes = {"finite__widths": "[16]", "history__directions": 10, "measure": "[limit_error]"}
    sweep = config(tmp_path, **learned, **sizes)
    [batch] = make_plan(sweep)
    arrays = run_batch(sweep, batch)
    assert all(np.isfinite(array.values).all() for array in arrays.values())
    forgotten = arrays["finite/history_residual"].values
    assert (forgotten >= 0).all() and forgotten.max() > 0, "24 samples, 10 directions"
    np.testing.assert_array_equal(arrays["finite/gradient_shift_ms"].values[..., 0, :], 0)
