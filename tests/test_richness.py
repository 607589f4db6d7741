"""Richness γ and centered outputs in every simulator and the limit; the lazy end in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax import training
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.noise import sample_noise


def outputs(simulator, problem):
    if simulator == "dense":
        return nfd.train_finite(problem, width=24, depth=4, key=jax.random.key(0))
    noise = nfd.sample_noise(problem, width=24, depth=4, key=jax.random.key(0))
    kept = {"directions": 24, "tolerance": 0.0} if simulator == "bounded" else {}
    if simulator == "limit":
        return nfd.solve_limit(problem, noise=noise, backward_weights="reused")
    return nfd.train_finite(problem, noise=noise, simulator="matrix_free", **kept)


@pytest.mark.parametrize(
    "simulator",
    ["dense", "matrix_free", *(pytest.param(name, marks=pytest.mark.long) for name in ("limit", "bounded"))],
)
def test_richness_is_the_size_of_targets(make_problem, simulator):
    """Under squared loss training at γ towards y is training at 1 towards γ y with outputs divided by γ;
    centered outputs begin at 0."""
    gamma = 0.3
    problem = make_problem(steps=3, rows=2, centered=True, richness=gamma)
    scaled = eqx.tree_at(
        lambda p: (p.richness, p.targets), problem, (jnp.asarray(1.0), gamma * problem.targets)
    )
    rich, plain = outputs(simulator, problem), outputs(simulator, scaled)
    np.testing.assert_allclose(rich.output, plain.output / gamma, rtol=0, atol=1e-11)
    np.testing.assert_allclose(rich.loss, plain.loss / gamma**2, rtol=1e-10)
    for run in (rich, plain):
        assert np.abs(run.output[0]).max() < 1e-13 and np.abs(run.output[1]).min() > 1e-4


@pytest.mark.parametrize("simulator", ["matrix_free", pytest.param("dense", marks=pytest.mark.long)])
def test_centered_outputs_on_batches_that_differ(make_problem, simulator):
    """Each step's outputs are centered by those of the same samples under the initial weights: without
    learning all are 0."""
    problem = make_problem(steps=3, rows=2, stream=True, centered=True, rate=0.0)
    assert np.abs(outputs(simulator, problem).output).max() < 1e-13
    moved = eqx.tree_at(lambda p: p.learning_rate, problem, jnp.asarray(0.4))
    assert np.abs(outputs(simulator, moved).output[1:]).min() > 1e-4


@eqx.filter_jit
def lazy_runs(problem, reuse, width, depth, seeds):
    """Outputs (seeds, K, P, C) of matrix-free networks."""

    def one(key):
        noise = sample_noise(problem, width=width, depth=depth, key=key)
        return training.train(problem, noise, MatrixFree.of(problem, reuse, depth, width), grid=1).output

    return jax.lax.map(one, jax.random.split(jax.random.key(1), seeds))


def check_lazy(make_problem, activation, flag, *, width, depth, seeds):
    problem = make_problem(
        steps=10, rows=2, dim=4, rate=0.3, activation=activation, richness=0.01, centered=True, horizon=1.3
    )
    found = np.asarray(lazy_runs(problem, jnp.asarray(float(flag == "reused")), width, depth, seeds))
    exact = {
        other: np.asarray(nfd.lazy_limit(problem, backward_weights=other))
        for other in ("reused", "independent")
    }
    error = found.std(0, ddof=1) / np.sqrt(seeds)
    z = (found.mean(0) - exact[flag])[1:] / error[1:]
    # Errors of all steps are nearly one and the same: largest of two samples' paths.
    assert np.abs(z).max() < 3, z
    other = exact["independent" if flag == "reused" else "reused"]
    assert np.abs((found.mean(0) - other)[1:] / error[1:]).max() > 6


@pytest.mark.parametrize("flag", ["reused", "independent"])
def test_the_lazy_limit_is_the_lazy_end_of_networks(make_problem, flag):
    check_lazy(make_problem, "tanh", flag, width=128, depth=32, seeds=32)


@pytest.mark.long
@pytest.mark.parametrize("flag", ["reused", "independent"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_lazy_limit_at_length(make_problem, activation, flag):
    # At n = 512 the finite-width bias of relu shows: 3.8 standard errors.
    check_lazy(make_problem, activation, flag, width=1024, depth=64, seeds=96)


@pytest.mark.long
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_order_in_richness(make_problem, activation, record_property):
    """How outputs leave the lazy end as γ grows, path by path and in the mean over seeds: reported, and above
    order 1/2."""
    gammas, seeds = np.array([0.01, 0.1, 0.2, 0.4]), 48
    problem = make_problem(
        steps=10, rows=2, dim=4, rate=0.3, activation=activation, centered=True, horizon=1.3
    )

    @eqx.filter_jit
    def at(gamma):
        learning = eqx.tree_at(lambda p: p.richness, problem, gamma)
        return jax.lax.map(lambda key: one(learning, key), jax.random.split(jax.random.key(1), seeds))

    def one(learning, key):
        noise = sample_noise(learning, width=256, depth=32, key=key)
        return training.train(
            learning, noise, MatrixFree.of(learning, jnp.asarray(1.0), 32, 256), grid=1
        ).output

    f = np.stack([at(jnp.asarray(gamma)) for gamma in gammas])[:, :, -1]
    apart = f[1:] - f[0]
    orders = {}
    for name, size in (
        ("path", np.sqrt((apart**2).mean((1, 2, 3)))),
        ("mean", np.abs(apart.mean(1)).mean((1, 2))),
    ):
        orders[name] = float(np.polyfit(np.log(gammas[1:]), np.log(size), 1)[0])
        record_property(f"{activation} order in γ, {name}", orders[name])
    print(activation, orders)
    assert orders["path"] > 0.5
