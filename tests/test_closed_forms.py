"""First-order change of the output, energy identity and kernels at initialization against closed forms and
Monte Carlo."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _compiler import QUICK_TO_RUN

import nfd_jax as nfd
from nfd_jax import observables, training
from nfd_jax.activations import resolve as phi_of
from nfd_jax.finite._dense import initial_weights, train_weights
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.limit import Limit, initial_averages
from nfd_jax.noise import sample_noise

RATE = 1e-5
HORIZON = 0.8
KAPPA = 1.3


INTERIORS = {
    "free": MatrixFree.of,
    "limit": lambda problem, reuse, depth, width: Limit(problem, reuse, depth, width),
}


def single(activation, rate=RATE, horizon=HORIZON, loss_target=2.0):
    """One sample of ‖x‖²/d = KAPPA, two steps, hidden weights learn."""
    x = np.sqrt(KAPPA) * np.ones((2, 1, 4))
    return nfd.Problem(
        x, np.full((2, 1, 1), loss_target), rate, activation=activation, horizon=horizon, train="hidden"
    )


def per_signal(problem, output):
    """δf / (−η χ) of the first update."""
    f0, f1 = output[..., 0, 0, 0], output[..., 1, 0, 0]
    return np.asarray((f1 - f0) / (-RATE * (f0 - problem.targets[0, 0, 0])))


@eqx.filter_jit
def changes(problem, keys, width, depth, reuse, kind):
    def one(key):
        noise = sample_noise(problem, width=width, depth=depth, key=key)
        return training.train(problem, noise, INTERIORS[kind](problem, reuse, depth, noise.width)).output

    return jax.lax.map(one, keys)


def assert_within(samples, expected, errors=4.0):
    """The mean of independent samples lies within so many standard errors."""
    error = samples.std(ddof=1) / np.sqrt(samples.size)
    assert abs(samples.mean() - expected) < errors * error, (samples.mean(), expected, error)


def linear_form(depth, reused):
    growth = 1 + HORIZON / depth
    return KAPPA * HORIZON * growth ** (depth - 1) if reused else KAPPA * (growth**depth - 1)


@pytest.mark.parametrize("kind,depth", [("free", 8), ("limit", 64)])
def test_linear_network(kind, depth):
    problem = single("linear")
    for reused in (True, False):
        output = changes(
            problem, jax.random.split(jax.random.key(4), 24), 2048, depth, jnp.asarray(float(reused)), kind
        )
        assert_within(per_signal(problem, output), linear_form(depth, reused))


def test_the_two_linear_limits_differ_as_stated():
    """κ T e^T and κ (e^T − 1), from the kernels and from the finite-depth form at large depth."""
    reused, independent = nfd.first_order_change(single("linear"))
    assert abs(reused[0, 0] - KAPPA * HORIZON * np.exp(HORIZON)) < 1e-7
    assert abs(independent[0, 0] - KAPPA * (np.exp(HORIZON) - 1)) < 1e-7
    assert abs(linear_form(10**7, True) - reused[0, 0]) < 1e-6
    assert abs(linear_form(10**7, False) - independent[0, 0]) < 1e-6


@pytest.mark.parametrize("backward_weights", ["reused", "independent"])
def test_linear_dense_network(backward_weights):
    problem, depth = single("linear"), 4

    def one(key):
        weights = initial_weights(problem, width=256, depth=depth, key=key, backward_weights=backward_weights)
        return train_weights(problem, weights, backward_weights).output

    output = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(6), 32))
    assert_within(per_signal(problem, output), linear_form(depth, backward_weights == "reused"))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_first_order_integrals(activation):
    """T∫E[φφ]G and T∫E[φφ], the bias in depth removed by extrapolation from two depths on the same noise."""
    problem, width = single(activation), 2048
    expected = [float(x[0, 0]) for x in nfd.first_order_change(problem)]
    keys = jax.random.split(jax.random.key(0), 24)

    @partial(eqx.filter_jit, compiler_options=QUICK_TO_RUN)
    def extrapolated(keys, reuse):
        def one(key):
            noise = nfd.sample_noise(problem, width=width, depth=32, key=key)
            at = lambda noise: (
                training.train(problem, noise, MatrixFree.of(problem, reuse, noise.depth, noise.width)).output
            )
            return 2 * at(noise) - at(noise.coarsen(16)), at(noise)

        return jax.lax.map(one, keys)

    for reuse, value in ((1.0, expected[0]), (0.0, expected[1])):
        sharp, plain = extrapolated(keys, jnp.asarray(reuse))
        f0 = plain[:, 0, 0, 0] - problem.targets[0, 0, 0]
        assert_within(np.asarray((sharp[:, 1, 0, 0] - sharp[:, 0, 0, 0]) / (-RATE * f0)), value, errors=3.0)
    assert abs(expected[0] / expected[1] - 1) > 0.05  # or the two could not be told apart


def energy(problem, run, unit_gradients):
    h, b = run.features[0, :, 0], run.gradients[0, :, 0]
    phi = phi_of(problem.activation).value(h[:-1])
    bb = 1.0 if unit_gradients else jnp.mean(b[1:] ** 2, -1)
    return problem.horizon * jnp.mean(jnp.mean(phi**2, -1) * bb)


@pytest.mark.parametrize("simulator", ["dense", "matrix_free"])
def test_energy_identity_of_reused_networks(simulator):
    """δf = −η χ (T/L) Σ ⟨φφ⟩⟨bb⟩ in every single network, up to terms of higher order in η."""
    defects = []
    for rate in (1e-2, 1e-3):
        problem = single("tanh", rate=rate)
        run = nfd.train_finite(
            problem,
            width=32,
            depth=5,
            key=jax.random.key(3),
            simulator=simulator,
            record=("features", "gradients"),
        )
        chi = run.output[0, 0, 0] - problem.targets[0, 0, 0]
        change = (run.output[1, 0, 0] - run.output[0, 0, 0]) / (-rate * chi)
        defects.append(abs(float(change / energy(problem, run, False)) - 1))
    assert defects[0] < 0.05
    assert defects[1] < 0.2 * defects[0]


def test_independent_weights_have_one_in_place_of_the_gradient_kernel():
    problem = single("tanh")

    def one(key):
        noise = sample_noise(problem, width=2048, depth=8, key=key)
        run = training.train(
            problem,
            noise,
            MatrixFree.of(problem, jnp.asarray(0.0), 8, noise.width),
            record=("features", "gradients"),
        )
        chi = run.output[0, 0, 0] - problem.targets[0, 0, 0]
        change = (run.output[1, 0, 0] - run.output[0, 0, 0]) / (-RATE * chi)
        return change / energy(problem, run, True), change / energy(problem, run, False)

    ones, others = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(8), 32))
    assert_within(np.asarray(ones), 1.0)
    error = np.std(others) / np.sqrt(others.size)
    assert abs(np.mean(others) - 1) > 6 * error  # the identity of reused networks is told apart


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_kernels_against_formulas(activation):
    problem = single(activation)
    ts = np.array([0.0, 0.25, 1.0])
    kernels = nfd.init_kernels(problem, ts=ts)
    slope = {"linear": 1.0, "relu": 0.5}[activation]  # E[φφ] = slope · K and E[φ'φ'] = slope for one sample
    np.testing.assert_allclose(
        kernels.preactivation[:, 0, 0], KAPPA * np.exp(slope * HORIZON * ts), rtol=1e-8
    )
    np.testing.assert_allclose(kernels.gradient[:, 0, 0], np.exp(slope * HORIZON * (1 - ts)), rtol=1e-8)


def test_kernels_that_are_not_reached_are_not_numbers():
    """K of linear networks is K(0) e^{T t}: right as far as the solve gets, and NaN beyond."""
    for horizon, reached in ((30.0, True), (500.0, False)):
        problem = nfd.Problem(
            np.ones((1, 1, 2)), np.ones((1, 1, 1)), 0.1, activation="linear", horizon=horizon
        )
        found = nfd.init_kernels(problem, ts=(0.0, 1.0))
        if reached:
            np.testing.assert_allclose(found.preactivation[-1], np.exp(horizon), rtol=1e-6)
            np.testing.assert_allclose(found.gradient[0], np.exp(horizon), rtol=1e-6)
        else:
            assert np.isnan(found.preactivation[-1]).all() and np.isnan(found.gradient[0]).all()


@pytest.mark.parametrize("activation", ["linear", "relu", "erf", "abs", "tanh", "gelu"])
def test_gaussian_expectations_against_monte_carlo(activation):
    from nfd_jax.limit._kernels import expectations

    K = jnp.array([[1.2, 0.5, -0.7], [0.5, 0.8, 0.1], [-0.7, 0.1, 2.0]])
    z = jax.random.normal(jax.random.key(0), (400_000, 3)) @ jnp.linalg.cholesky(K).T
    phi = phi_of(activation)
    for formula, f in zip(expectations(activation, K), phi, strict=True):
        products = f(z)[:, :, None] * f(z)[:, None, :]
        error = products.std(0) / np.sqrt(z.shape[0]) + 1e-12
        assert np.max(np.abs(products.mean(0) - formula) / error) < 4.5


def test_kernels_against_networks(make_problem):
    """⟨hh⟩, ⟨φφ⟩ and ⟨bb⟩ of wide networks at initialization, several samples and outputs; depth bias removed
    as above."""
    problem = make_problem(steps=1, rows=2, outputs=2, activation="erf", seed=1)
    ts = np.array([0.0, 0.5, 1.0])
    kernels = nfd.init_kernels(problem, ts=ts)
    feature, gradient = initial_averages(problem, ts=ts)
    np.testing.assert_allclose(feature, kernels.feature)
    assert np.max(np.abs(np.asarray(gradient - kernels.gradient))) > 0.1  # the cosine of χ_p and χ_q

    @eqx.filter_jit
    def measured(keys):
        def one(key):
            noise = nfd.sample_noise(problem, width=4096, depth=32, key=key)

            def at(noise):
                run = training.train(
                    problem,
                    noise,
                    MatrixFree.of(problem, jnp.asarray(1.0), noise.depth, noise.width),
                    record=("features", "gradients"),
                    grid=2,
                )
                h, b = run.features[0], run.gradients[0]
                return tuple(map(observables.kernel, (h, jax.scipy.special.erf(h), b)))

            return jax.tree.map(lambda fine, coarse: 2 * fine - coarse, at(noise), at(noise.coarsen(16)))

        return jax.lax.map(one, keys)

    for samples, expected in zip(
        measured(jax.random.split(jax.random.key(1), 24)),
        (kernels.preactivation, feature, gradient),
        strict=True,
    ):
        error = np.asarray(samples).std(0, ddof=1) / np.sqrt(24)
        gap = np.abs(np.asarray(samples).mean(0) - expected)
        assert np.max(gap / error) < 5  # 36 numbers, 23 degrees of freedom
