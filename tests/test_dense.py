"""Dense networks: passes by hand against autodiff, updates against the formulas, shapes and refusals of the public calls."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax import config
from nfd_jax.activations import ACTIVATIONS
from nfd_jax.finite import _dense
from nfd_jax.losses import LOSSES, loss_function
from nfd_jax.parametrization import PARAMETRIZATIONS

CASES = [("squared", 1), ("squared", 3), ("cross_entropy", 3)]


def drawn(problem, backward_weights="reused", width=7, depth=3):
    return _dense.initial_weights(problem, width=width, depth=depth, key=jax.random.key(1), backward_weights=backward_weights)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("loss,outputs", CASES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backward_pass_is_the_gradient(make_problem, activation, loss, outputs, parametrization):
    problem = make_problem(outputs=outputs, loss=loss, activation=activation, parametrization=parametrization, horizon=0.7)
    weights = drawn(problem)
    x, y = problem.inputs[0], problem.targets[0]
    value = lambda w: loss_function(loss).value(_dense.forward(problem, w, x)[1], y)
    with jax.disable_jit():  # three layers of width 7 run sooner than they compile
        by_hand = _dense.gradients(problem, weights, x, y)[0]
        autodiffed = jax.grad(value)(weights)
    for ours, autodiff in zip(jax.tree.leaves(by_hand), jax.tree.leaves(autodiffed), strict=True):
        assert np.linalg.norm(ours - autodiff) <= 1e-10 * np.linalg.norm(autodiff)


def test_names_agree_with_what_a_config_may_say():
    assert set(config.ACTIVATIONS) == set(ACTIVATIONS)
    assert set(LOSSES) == {"squared", "cross_entropy"}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives(activation):
    z = jnp.linspace(-3, 3, 13) + 0.01
    phi = ACTIVATIONS[activation]
    autodiff = jax.vmap(jax.grad(lambda v: phi.value(v)))(z)
    np.testing.assert_allclose(phi.derivative(z), autodiff, rtol=1e-12, atol=1e-14)


def test_one_step_moves_every_matrix_as_stated(make_problem):
    """ΔΘ = −η n ∂loss/∂Θ, all gradients taken before any update."""
    problem = make_problem(steps=2)
    weights = drawn(problem)
    gradient = _dense.gradients(problem, weights, problem.inputs[0], problem.targets[0])[0]
    moved = jax.tree.map(lambda w, g: w - problem.learning_rate * 7 * g, weights, gradient)
    expected = _dense.forward(problem, moved, problem.inputs[1])[1]
    np.testing.assert_allclose(_dense.train(problem, weights).output[1], expected, rtol=1e-12)


def test_training_hidden_weights_leaves_the_ends(make_problem):
    problem = make_problem(steps=2, train="hidden")
    weights = drawn(problem)
    gradient = _dense.gradients(problem, weights, problem.inputs[0], problem.targets[0])[0]
    moved = eqx.tree_at(lambda w: w.W, weights, weights.W - problem.learning_rate * 7 * gradient.W)
    expected = _dense.forward(problem, moved, problem.inputs[1])[1]
    np.testing.assert_allclose(_dense.train(problem, weights).output[1], expected, rtol=1e-12)


def test_independent_backward_weights_get_the_same_updates(make_problem):
    problem = make_problem(steps=2)
    weights = drawn(problem, "independent")
    assert not np.allclose(weights.W, weights.W_backward)
    gradient = _dense.gradients(problem, weights, problem.inputs[0], problem.targets[0])[0]
    np.testing.assert_array_equal(gradient.W, gradient.W_backward)
    # The backward pass runs on W̃ alone: replacing W̃ by W gives the reused network's gradient of the hidden weights.
    tied = eqx.tree_at(lambda w: w.W_backward, weights, weights.W)
    same = _dense.gradients(problem, tied, problem.inputs[0], problem.targets[0])[0]
    reused = eqx.tree_at(lambda w: w.W_backward, weights, None)
    np.testing.assert_allclose(same.W, _dense.gradients(problem, reused, problem.inputs[0], problem.targets[0])[0].W, rtol=1e-12)
    assert not np.allclose(same.W, gradient.W)


def test_recorded_shapes(make_problem):
    problem = make_problem(steps=2, rows=3, outputs=2)
    run = nfd.train_finite(problem, width=9, depth=4, key=jax.random.key(0), record=("features", "gradients"))
    assert run.output.shape == (2, 3, 2) and run.loss.shape == (2,)
    assert run.features.shape == run.gradients.shape == (2, 5, 3, 9)


def test_dtype_follows_the_inputs(make_problem):
    problem = make_problem(dtype=np.float32)
    for simulator in ("dense", "matrix_free"):
        run = nfd.train_finite(problem, width=16, depth=2, key=jax.random.key(0), simulator=simulator)
        assert run.output.dtype == run.loss.dtype == jnp.float32
    limit = nfd.solve_limit(problem, particles=16, depth_steps=2, key=jax.random.key(0), record=("features",))
    assert limit.features.dtype == jnp.float32


@pytest.mark.parametrize(
    "change,message",
    [
        ({"width": 0}, "positive integer"),
        ({"depth": 2.5}, "positive integer"),
        ({"backward_weights": "tied"}, "reused, independent"),
        ({"simulator": "sparse"}, "dense, matrix_free"),
        ({"record": ("weights",)}, "features, gradients"),
        ({"key": None}, "key="),
        ({"simulator": "matrix_free", "width": 4}, "too small"),
    ],
)
def test_refusals(make_problem, change, message):
    arguments = {"width": 16, "depth": 2, "key": jax.random.key(0)} | change
    with pytest.raises(ValueError, match=message):
        nfd.train_finite(make_problem(), **arguments)


def test_noise_must_fit(make_problem):
    problem = make_problem()
    noise = nfd.sample_noise(problem, width=16, depth=4, key=jax.random.key(0))
    with pytest.raises(ValueError, match="dense"):
        nfd.train_finite(problem, width=16, depth=4, noise=noise)
    for width, depth in ((16, 2), (12, 4)):
        with pytest.raises(ValueError, match="width 16 and depth 4"):
            nfd.train_finite(problem, width=width, depth=depth, noise=noise, simulator="matrix_free")
        with pytest.raises(ValueError, match="width 16 and depth 4"):
            nfd.solve_limit(problem, particles=width, depth_steps=depth, noise=noise)
    with pytest.raises(ValueError, match="must divide"):
        noise.coarsen(3)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"inputs": np.ones((2, 3))}, "(K, P, d)"),
        ({"targets": np.ones((2, 4, 1))}, "same K and P"),
        ({"loss": "hinge"}, "squared, cross_entropy"),
        ({"loss": "cross_entropy"}, "two outputs"),
        ({"activation": "swish"}, "choose one of"),
        ({"parametrization": "ntk"}, "depth_mup"),
        ({"train": "readout"}, "all, hidden"),
    ],
)
def test_problem_refusals(change, message):
    arguments = {"inputs": np.ones((2, 3, 5)), "targets": np.ones((2, 3, 1)), "learning_rate": 0.1} | change
    with pytest.raises(ValueError) as error:
        nfd.Problem(**arguments)
    assert message in str(error.value)


def test_only_depth_mup_has_a_limit(make_problem):
    with pytest.raises(ValueError, match="depth_mup"):
        nfd.solve_limit(make_problem(parametrization="mup"), particles=16, depth_steps=4, key=jax.random.key(0))


@pytest.mark.parametrize("simulator", ["dense", "matrix_free", "limit"])
def test_calls_are_vmappable(make_problem, simulator):
    """Over keys and learning rates, equal to one call at a time."""
    problem = make_problem()

    def loss(key, rate):
        here = dataclasses.replace(problem, learning_rate=rate)
        if simulator == "limit":
            return nfd.solve_limit(here, particles=16, depth_steps=3, key=key).loss
        return nfd.train_finite(here, width=16, depth=3, key=key, simulator=simulator).loss

    keys, rates = jax.random.split(jax.random.key(5), 2), jnp.array([0.1, 0.3])
    together = jax.vmap(loss)(keys, rates)
    for each, key, rate in zip(together, keys, rates, strict=True):
        np.testing.assert_allclose(each, loss(key, rate), rtol=1e-10)


def test_matmul_precision_is_chosen_by_name(make_problem):
    problem, key = make_problem(), jax.random.key(0)
    train = lambda **options: nfd.train_finite(problem, width=8, depth=2, key=key, **options).loss
    np.testing.assert_array_equal(train(), train(matmul_precision="highest"))
    assert np.all(np.isfinite(train(matmul_precision="bfloat16")))
    with pytest.raises(ValueError, match="matmul_precision must be one of highest, tensorfloat32.*tf32"):
        train(matmul_precision="tf32")
    with pytest.raises(ValueError, match="matmul_precision"):
        nfd.solve_limit(problem, particles=8, depth_steps=2, key=key, matmul_precision="fast")
