"""The lazy limit and the gain of the first step against simulations, and against regression written out by
hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nfd_jax as nfd
from nfd_jax import training
from nfd_jax.activations import ACTIVATIONS
from nfd_jax.finite import MatrixFree
from nfd_jax.limit._kernels import expectations, first_step_gain
from nfd_jax.noise import Noise

SCALE = 0.02
"""Targets so small that features hardly move: with a squared loss the same as richness."""


@eqx.filter_jit
def mirrored(problem, keys, width, depth, reuse):
    """Outputs over SCALE, (S, K, P, C): the mean over V and −V, which makes f_0 zero."""

    def one(key):
        noise = nfd.sample_noise(problem, width=width, depth=depth, key=key)

        def outputs(sign):
            seen = Noise(noise.U, sign * noise.V, noise.forward, sign * noise.backward)
            return training.train(problem, seen, MatrixFree.of(problem, reuse, depth, noise.width)).output

        return jax.vmap(outputs)(jnp.array([1.0, -1.0])).mean(0) / SCALE

    return jax.lax.map(one, keys)


def small_targets(make_problem, **options):
    problem = make_problem(steps=4, rows=2, stream=True, outputs=2, **options)
    return problem, eqx.tree_at(lambda p: p.targets, problem, SCALE * problem.targets)


@pytest.mark.long
def test_trajectories_of_wide_deep_networks_with_small_targets(make_problem):
    problem, small = small_targets(make_problem)
    predicted = {
        flag: np.asarray(nfd.lazy_limit(problem, backward_weights=flag)) for flag in ("reused", "independent")
    }
    assert (
        np.max(np.abs(predicted["reused"] - predicted["independent"])) > 0.1
    )  # or the two could not be told apart
    for flag, expected in predicted.items():
        found = np.asarray(
            mirrored(
                small, jax.random.split(jax.random.key(2), 16), 512, 32, jnp.asarray(float(flag == "reused"))
            )
        )
        error = found.std(0, ddof=1) / np.sqrt(len(found))
        assert (
            np.max(np.abs(found.mean(0) - expected)[1:] / error[1:]) < 5
        )  # 12 numbers, 15 degrees of freedom
        np.testing.assert_allclose(expected[0], 0, atol=1e-15)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_one_fixed_batch_is_plain_kernel_descent(make_problem, loss):
    problem = make_problem(steps=5, rows=3, outputs=2, activation="relu", loss=loss)
    for theta, flag in zip(first_step_gain(problem), ("reused", "independent"), strict=True):
        f, y = np.zeros((3, 2)), np.asarray(problem.targets[0])
        for found in nfd.lazy_limit(problem, backward_weights=flag):
            np.testing.assert_allclose(found, f, atol=1e-12)
            guess = f if loss == "squared" else np.exp(f) / np.exp(f).sum(1, keepdims=True)
            f = f - 0.4 * np.asarray(theta) @ (guess - y) / 3


def test_learning_rate_may_be_mapped_over(make_problem):
    problem = make_problem(steps=2, rows=2, activation="relu")
    at = lambda rate: nfd.lazy_limit(
        eqx.tree_at(lambda p: p.learning_rate, problem, rate), backward_weights="reused"
    )
    both = jax.vmap(at)(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(both[1], 2 * both[0], atol=1e-14)


@pytest.mark.long
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gain_of_the_first_step_when_all_weights_learn(activation):
    """(f_1 − f_0)/(−η χ_0) of one sample as η → 0, both systems; the bias in depth removed by extrapolation
    on the same noise."""
    x, rate = np.sqrt(1.3) * np.ones((2, 1, 4)), 1e-5
    problem = nfd.Problem(x, np.full((2, 1, 1), 2.0), rate, activation=activation, horizon=0.8)

    @eqx.filter_jit
    def gains(keys, reuse):
        def one(key):
            noise = nfd.sample_noise(problem, width=1024, depth=16, key=key)

            def at(depth):
                interior = MatrixFree.of(problem, reuse, depth, noise.width)
                run = training.train(problem, noise.coarsen(depth), interior)
                f = run.output[:, 0, 0]
                return (f[1] - f[0]) / (-rate * (f[0] - 2.0))

            return 2 * at(16) - at(8)

        return jax.lax.map(one, keys)

    reused, independent = (float(gain[0, 0]) for gain in first_step_gain(problem))
    for reuse, expected in ((1.0, reused), (0.0, independent)):
        found = np.asarray(gains(jax.random.split(jax.random.key(1), 64), jnp.asarray(reuse)))
        error = found.std(ddof=1) / np.sqrt(found.size)
        assert abs(found.mean() - expected) < 3.5 * error
        assert error < 0.05 * abs(reused - independent)  # so that the other system's value would not pass


def test_gain_of_the_hidden_weights_alone():
    problem = nfd.Problem(np.ones((1, 1, 4)), np.ones((1, 1, 1)), 0.1, activation="relu", train="hidden")
    for part, whole in zip(nfd.first_order_change(problem), first_step_gain(problem), strict=True):
        np.testing.assert_array_equal(part, whole)


def test_functions_have_the_kernels_of_their_names():
    K = jnp.array([[1.2, 0.5, -0.7], [0.5, 0.8, 0.1], [-0.7, 0.1, 2.0]])
    for name in ("erf", "sin", "linear"):
        for closed, quadrature in zip(expectations(name, K), expectations(ACTIVATIONS[name], K), strict=True):
            np.testing.assert_allclose(quadrature, closed, atol=1e-10)
    for name in ("relu", "abs"):  # a kink costs the quadrature its digits
        for atol, closed, quadrature in zip(
            (1e-2, 3e-2), expectations(name, K), expectations(ACTIVATIONS[name], K), strict=True
        ):
            np.testing.assert_allclose(quadrature, closed, atol=atol)


@pytest.mark.parametrize("parametrization", ["mup", "vanilla"])
def test_networks_without_a_limit_are_refused(make_problem, parametrization):
    problem = make_problem(parametrization=parametrization)
    calls = (
        lambda: nfd.init_kernels(problem, ts=jnp.array([0.0, 1.0])),
        lambda: nfd.first_order_change(problem),
        lambda: nfd.first_step_gain(problem),
        lambda: nfd.lazy_limit(problem, backward_weights="reused"),
        lambda: nfd.estimate_limit(problem, tolerance=1e-2, key=jax.random.key(0)),
    )
    for call in calls:
        with pytest.raises(ValueError, match=f"only depth_mup .* received '{parametrization}'"):
            call()


@pytest.mark.parametrize("points", [1, 0, -3, 4, 128, True])
def test_simpson_needs_an_odd_number_of_points(make_problem, points):
    for call in (nfd.first_order_change, nfd.first_step_gain):
        with pytest.raises(ValueError, match="odd number of at least 3 .* received"):
            call(make_problem(), points=points)


def test_few_points_already_integrate_a_cubic():
    """The kernels of a linear network grow as exp(T t): with 3 points Simpson's error is T⁵/2880 of it."""
    problem = nfd.Problem(
        np.ones((1, 1, 4)), np.ones((1, 1, 1)), 0.1, activation="linear", horizon=0.1, train="hidden"
    )
    _, independent = nfd.first_order_change(problem, points=3)
    assert abs(float(independent[0, 0]) - np.expm1(0.1)) < 1e-8


def test_names_of_backward_weights(make_problem):
    with pytest.raises(
        ValueError, match="backward_weights must be one of reused, independent; received 'both'"
    ):
        nfd.lazy_limit(make_problem(), backward_weights="both")


def test_momentum_enters_by_its_coefficients(make_problem):
    """Heavy balls: f_2 − f_1 is the kernel's own step and μ times f_1 − f_0."""
    options = {"steps": 3, "rows": 2, "activation": "relu"}
    problem = make_problem(optimizer=lambda rate: optax.sgd(rate, momentum=0.9), **options)
    theta = np.asarray(first_step_gain(problem)[0])
    f = np.asarray(nfd.lazy_limit(problem, backward_weights="reused"))
    y = np.asarray(problem.targets)
    move = lambda k: -0.4 * theta @ (f[k] - y[k]) / 2
    np.testing.assert_allclose(f[1], move(0), atol=1e-12)
    np.testing.assert_allclose(f[2], f[1] + move(1) + 0.9 * f[1], atol=1e-12)
    decayed = make_problem(
        optimizer=lambda rate: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(rate)), **options
    )
    with pytest.raises(ValueError, match="weight decay .* received one that scales them by"):
        nfd.lazy_limit(decayed, backward_weights="reused")
