"""E[φ(z)φ(z')] and E[φ'(z)φ'(z')] against quadrature by panels, Price's theorem, and each other; their
derivatives, and kernels of inputs that are zero, parallel or opposite."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, ndtr

import nfd_jax as nfd
from nfd_jax.activations import ACTIVATIONS
from nfd_jax.limit._kernels import expectations

SMOOTH = {
    "tanh": (np.tanh, lambda z: 4 * expit(2 * z) * expit(-2 * z)),
    "sigmoid": (expit, lambda z: expit(z) * expit(-z)),
    "softplus": (lambda z: np.logaddexp(0, z), expit),
    "gelu": (
        lambda z: z * ndtr(z),
        lambda z: ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi),
    ),
}
NAMES = (*SMOOTH, "erf", "sin", "relu", "abs")

PAIRS = [
    (1e-8, 1e-8, 0.3), (1e-6, 1e-6, -1.0), (1e-8, 1e4, 0.9), (1e-2, 3.0, 0.0), (1.0, 1.0, 1.0),
    (4.0, 4.0, 0.5), (10.0, 10.0, 0.999999), (100.0, 100.0, 0.999999), (100.0, 100.0, -0.999999),
    (1e4, 1.0, 0.99), (1e4, 50.0, -0.7), (1e4, 1e4, 1.0), (1e4, 1e4, 0.999999), (1e4, 1e4, 0.2),
    (1e4, 1e4, -0.9), (2e3, 9e3, -1.0),
]  # fmt: skip
"""Variances and correlation."""


def covariance(v, w, rho):
    c = rho * np.sqrt(v) * np.sqrt(w)
    return jnp.array([[v, c], [c, w]])


def panels(low, high, marks):
    """Gauss-Legendre nodes and weights (..., N) between the `marks` (..., M) within low and high."""
    edges = np.sort(np.clip(marks, low, high), axis=-1)
    x, w = np.polynomial.legendre.leggauss(12)
    left, size = edges[..., :-1, None], np.diff(edges)[..., None]
    nodes, weights = left + size * (x + 1) / 2, size * w / 2
    return (a.reshape(*a.shape[:-2], -1) for a in (nodes, weights))


def reference(f, v, w, rho):
    """E f(z) f(z'), z' given z; panels of both resolve distances of 1/2 around 0 and either Gaussian."""
    a, b = np.sqrt(max(v, w)), np.sqrt(min(v, w))
    tau, slope = b * np.sqrt((1 - rho) * (1 + rho)), rho * b / a
    fixed = np.concatenate([[0.0], *((m, -m) for m in np.geomspace(0.5, 2e3, 25))])
    own = np.linspace(-9, 9, 19)
    z, weight = panels(-9 * a, 9 * a, np.concatenate([fixed, a * own]))
    weight = weight * np.exp(-((z / a) ** 2) / 2) / np.sqrt(2 * np.pi) / a
    inner = f(slope * z)
    if tau > 0:
        mean = (slope * z)[:, None]
        marks = np.concatenate([np.broadcast_to(fixed, (z.size, fixed.size)), mean + tau * own], axis=1)
        z2, weight2 = panels(mean - 9 * tau, mean + 9 * tau, marks)
        weight2 = weight2 * np.exp(-(((z2 - mean) / tau) ** 2) / 2) / np.sqrt(2 * np.pi) / tau
        inner = (weight2 * f(z2)).sum(1)
    return (weight * f(z) * inner).sum()


of_name = jax.jit(expectations, static_argnums=0)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_activations_are_right_at_every_variance_and_correlation(name):
    for pair in PAIRS:
        found = [float(E[0, 1]) for E in of_name(name, covariance(*pair))]
        for value, f in zip(found, SMOOTH[name], strict=True):
            v, w, _ = pair
            size = np.sqrt(reference(f, v, v, 1.0) * reference(f, w, w, 1.0))
            expected = reference(f, *pair)
            assert abs(value - expected) < 1e-9 * size, (pair, value, expected)
            if name != "gelu":  # whose two signs cancel
                np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-14 * size, err_msg=str(pair))


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus"])
def test_a_function_has_the_expectations_of_its_name_at_every_variance(name):
    for v, w, rho in PAIRS:
        K = covariance(v, w, rho)
        for closed, nodes in zip(of_name(name, K), of_name(ACTIVATIONS[name], K), strict=True):
            size = np.sqrt(closed[0, 0] * closed[1, 1])
            assert np.max(np.abs(nodes - closed)[0] / np.array([closed[0, 0], size])) < 1e-6, (v, w, rho)


@pytest.mark.parametrize("name", ["relu", "abs"])
def test_kinks_cost_functions_no_more_than_stated(name):
    for v in (1e-8, 1.0, 30.0, 1e4):
        for rho in (1.0, 0.99, 0.5, 0.0, -0.8, -1.0):
            K = covariance(v, 2 * v, rho)
            both = zip((5e-3, 4e-2), of_name(name, K), of_name(ACTIVATIONS[name], K), strict=True)
            for part, closed, nodes in both:
                size = np.sqrt(closed[0, 0] * closed[1, 1])
                np.testing.assert_allclose(nodes[0, 1], closed[0, 1], atol=part * size, err_msg=f"{v} {rho}")


@pytest.mark.parametrize("name", NAMES)
def test_the_second_is_the_derivative_of_the_first_in_the_covariance(name):
    """Price: ∂/∂K_pq E[φ(z)φ(z')] = E[φ'(z)φ'(z')]."""
    for pair in ((1.3, 0.4, 0.6), (1e-6, 1e-4, -0.3), (1e-3, 50.0, 0.0), (1e4, 1e4, 0.95)):
        K = covariance(*pair)
        one = lambda c, K=K: expectations(name, K.at[0, 1].set(c))[0][0, 1]
        slope = float(of_name(name, K)[1][0, 1])
        np.testing.assert_allclose(jax.jit(jax.grad(one))(K[0, 1]), slope, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("name", [*NAMES, "linear", jnp.tanh])
def test_derivatives_are_finite_and_right_for_parallel_opposite_and_zero_samples(name):
    rng = np.random.default_rng(1)
    x, move = rng.standard_normal((2, 5, 3))
    x[1], x[2], x[3] = x[0], -x[0], 0.0
    move[1], move[2], move[3] = move[0], -move[0], 0.0  # kinks of E[φ'φ'] in ρ aside

    def both(x):
        return jnp.stack(expectations(name, x @ x.T))

    along = jax.jit(lambda x, move: jax.jvp(both, (x,), (move,))[1])
    by_difference = (both(x + 1e-6 * move) - both(x - 1e-6 * move)) / 2e-6
    rtol = 1e-5 if isinstance(name, str) else 1e-4
    np.testing.assert_allclose(along(x, move), by_difference, rtol=rtol, atol=1e-6)
    backward = jax.jit(jax.grad(lambda x: both(x).sum()))(x)
    assert np.isfinite(backward).all()
    assert abs(np.sum(backward * move) - by_difference.sum()) < 1e-4
    assert np.isfinite(along(np.zeros_like(x), move)).all()


def test_what_stays_in_single_precision():
    for name in NAMES:
        for pair in PAIRS:
            exact = of_name(name, covariance(*pair))
            for single, double in zip(of_name(name, covariance(*pair).astype("float32")), exact, strict=True):
                size = np.sqrt(double[0, 0] * double[1, 1])
                assert single.dtype == np.float32
                if abs(pair[2]) < 0.99999 and name != "sin":  # ρ itself is known to 1e-7
                    assert abs(single[0, 1] - double[0, 1]) < 2e-5 * size, (name, pair)


@pytest.mark.parametrize("activation", [*NAMES, "linear", jnp.tanh])
def test_inputs_of_zero_have_the_kernels_of_h_that_begins_at_zero(activation):
    """K is what small inputs tend to; relu'(0) = abs'(0) = 0, as in networks, where b then never moves."""
    targets = np.ones((1, 2, 1))
    problem = lambda x: nfd.Problem(x, targets, 0.1, activation=activation)
    x = np.random.default_rng(0).standard_normal((1, 2, 4))
    zero, small = (nfd.init_kernels(problem(scale * x), ts=(0, 0.5, 1)) for scale in (0, 1e-6))
    for name in ("preactivation", "feature"):
        np.testing.assert_allclose(getattr(zero, name), getattr(small, name), atol=1e-5)
    if activation in ("relu", "abs"):
        np.testing.assert_array_equal(zero.gradient, 1)
    elif activation not in ("sigmoid", "softplus"):
        slope = 0.25 if activation == "gelu" else 4 / np.pi if activation == "erf" else 1.0
        expected = np.exp(slope * np.array([1, 0.5, 0]))[:, None, None] * np.ones((2, 2))
        np.testing.assert_allclose(zero.gradient, expected, rtol=1e-8)
    assert all(np.isfinite(x).all() for x in nfd.first_step_gain(problem(0 * x), points=3))
    if isinstance(activation, str):
        assert np.isfinite(nfd.lazy_limit(problem(0 * x), backward_weights="reused")).all()


def test_kernels_of_inputs_of_zero_against_networks():
    """sigmoid: features grow from 0 alone, and all samples agree."""
    problem = nfd.Problem(np.zeros((1, 1, 3)), np.ones((1, 1, 1)), 0.1, activation="sigmoid")
    expected = nfd.init_kernels(problem, ts=(1.0,)).preactivation[0, 0, 0]
    options = {"width": 2048, "simulator": "matrix_free", "record": "features"}
    runs = [nfd.train_finite(problem, depth=16, key=jax.random.key(i), **options) for i in range(8)]
    found = np.array([np.mean(run.features[0, -1] ** 2) for run in runs])
    assert abs(found.mean() / expected - 1) < 0.03


@pytest.mark.parametrize("simulator", ["dense", pytest.param("matrix_free", marks=pytest.mark.long)])
def test_gradients_of_networks_on_inputs_of_zero_are_finite(simulator):
    problem = nfd.Problem(np.zeros((2, 2, 3)), np.ones((2, 2, 1)), 0.1)

    def loss(x, rate):
        moved = eqx.tree_at(lambda p: (p.inputs, p.learning_rate), problem, (x, rate))
        run = nfd.train_finite(moved, width=8, depth=2, key=jax.random.key(0), simulator=simulator)
        return run.loss[-1]

    assert all(np.isfinite(g).all() for g in jax.grad(loss, (0, 1))(problem.inputs, problem.learning_rate))


@pytest.mark.long
def test_kernels_have_derivatives_in_both_modes_with_the_same_sample_twice():
    x = np.random.default_rng(0).standard_normal((1, 3, 4))
    x[0, 2] = x[0, 0]
    problem = nfd.Problem(x, np.ones((1, 3, 1)), 0.1)

    def total(horizon):
        kernels = nfd.init_kernels(eqx.tree_at(lambda p: p.horizon, problem, horizon), ts=(0.0, 1.0))
        return sum(map(jnp.sum, jax.tree.leaves(kernels)))

    at, one = jnp.asarray(0.8), jnp.asarray(1.0)
    by_difference = (total(at + 1e-4) - total(at - 1e-4)) / 2e-4
    np.testing.assert_allclose(jax.jvp(total, (at,), (one,))[1], by_difference, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(total)(at), by_difference, rtol=1e-6)
