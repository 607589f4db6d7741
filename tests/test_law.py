"""Dense and matrix-free networks agree in law; the test sees it when the coupling is dropped."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp

from nfd_jax import training
from nfd_jax._sizes import Sizes
from nfd_jax.finite._dense import hidden_weights, initial_weights, train_weights
from nfd_jax.finite._matrices import train
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.finite._updates import Ends
from nfd_jax.noise import sample_noise

SEEDS, WIDTH, DEPTH = 12_000, 8, 3


@pytest.fixture
def small(make_problem):
    return make_problem(steps=3, rows=2, dim=3, rate=1.0, horizon=1.5)


def dense_losses(problem, backward_weights):
    def one(key):
        draw = {"width": WIDTH, "depth": DEPTH, "key": key, "backward_weights": backward_weights}
        return train_weights(problem, initial_weights(problem, **draw), backward_weights).loss

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), SEEDS)))


def free_losses(problem, reuse):
    @eqx.filter_jit
    def every(keys):
        def one(key):
            noise = sample_noise(problem, width=WIDTH, depth=DEPTH, key=key)
            return training.train(
                problem, noise, MatrixFree.of(problem, jnp.asarray(reuse), DEPTH, WIDTH)
            ).loss

        return jax.vmap(one)(keys)

    return np.asarray(every(jax.random.split(jax.random.key(1), SEEDS)))


def distances(one, other):
    """Smallest KS p-value over steps, and largest difference of means of log losses in standard errors."""
    p = min(ks_2samp(a, b).pvalue for a, b in zip(one.T, other.T, strict=True))
    one, other = np.log(one), np.log(other)
    z = np.abs(one.mean(0) - other.mean(0)) / np.sqrt((one.var(0) + other.var(0)) / len(one))
    return p, z.max()


# Three steps, two kinds of network: a false alarm has probability below 1e-3 in all.
@pytest.mark.parametrize("backward_weights", ["reused", "independent"])
def test_dense_and_matrix_free_agree_in_law(small, backward_weights):
    p, z = distances(
        dense_losses(small, backward_weights), free_losses(small, float(backward_weights == "reused"))
    )
    assert p > 1e-4 and z < 4


def test_dropping_or_flipping_the_coupling_is_seen(small):
    dense = dense_losses(small, "reused")
    for broken in (0.0, -1.0):
        p, z = distances(dense, free_losses(small, broken))
        assert p < 1e-6 and z > 6


def shifts_of_the_probe(problem, simulator, seeds=6_000):
    """Mean squares (seeds, 2, K) of how h(1/3) and b(1/3) of the first batch have moved."""

    @eqx.filter_jit
    def every(keys):
        def dense(key):
            weights = initial_weights(problem, width=WIDTH, depth=DEPTH, key=key, backward_weights="reused")
            sizes = Sizes.of(WIDTH, DEPTH, problem.dtype)
            hidden = hidden_weights(
                "explicit", weights.W, weights.W, jnp.asarray(1.0), problem.samples, sizes.width, reused=True
            )
            seen = lambda memory, seen: (memory, {"h": seen.features[:, -2:], "b": seen.gradients[:, -2:]})
            places = jnp.arange(DEPTH + 1)
            out, *_ = train(
                problem, Ends(weights.U, weights.V), hidden, sizes, seen, None, places=places, probe=True
            )
            return out["h"], out["b"]

        def free(key):
            noise = sample_noise(problem, width=WIDTH, depth=DEPTH, key=key)
            asked = training.probe_questions(problem, DEPTH, WIDTH, key)
            network = MatrixFree.of(problem, jnp.asarray(1.0), DEPTH, WIDTH)
            run = training.train(problem, noise, network, probe=asked)
            return run.probe, run.probe_gradients

        def ms(key):
            paths = (dense if simulator == "dense" else free)(key)
            return jnp.stack([((path - path[0])[:, 1] ** 2).mean((-2, -1)) for path in paths])

        return jax.vmap(ms)(keys)

    return np.asarray(every(jax.random.split(jax.random.key(simulator == "dense"), seeds)))


def test_the_probe_has_the_law_of_dense_networks(make_problem):
    """How h and b of the first batch move while others are learned from: both simulators, three steps."""
    problem = make_problem(
        steps=3, rows=2, dim=3, rate=1.0, horizon=1.5, stream=True, loss="cross_entropy", outputs=2
    )
    dense, free = (shifts_of_the_probe(problem, simulator) for simulator in ("dense", "matrix_free"))
    assert np.abs(free[:, :, 0]).max() < 1e-9  # asked again, what was answered: known but to rounding
    for quantity in range(2):
        p, z = distances(dense[:, quantity, 1:], free[:, quantity, 1:])
        assert p > 1e-4 and z < 4
