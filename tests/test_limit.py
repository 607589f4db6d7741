"""The diffrax solve against the matrix-free network on the same noise, path by path, and its convergence in
depth."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _compiler import QUICK_TO_RUN

import nfd_jax as nfd
from nfd_jax import observables, training
from nfd_jax.activations import ACTIVATIONS
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.sweep._cells import coarsened_noise
from nfd_jax.verdicts import fit_coarsening

PATHS = ("features", "gradients")
SMOOTH_AND_NOT = ("tanh", "relu", "erf")
EACH = [pytest.param(name, marks=() if name in SMOOTH_AND_NOT else pytest.mark.long) for name in ACTIVATIONS]


def both(problem, noise, backward_weights):
    size = {"width": noise.width, "depth": noise.depth}
    options = {"noise": noise, "backward_weights": backward_weights, "record": PATHS}
    network = nfd.train_finite(problem, **size, simulator="matrix_free", **options)
    limit = nfd.solve_limit(problem, particles=noise.width, depth_steps=noise.depth, **options)
    return network, limit


def assert_same_paths(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.max(np.abs(a - b)) <= 1e-11 * max(1.0, np.max(np.abs(a)))


@pytest.mark.parametrize("activation", EACH)
def test_euler_is_the_network(make_problem, activation):
    problem = make_problem(rows=2, activation=activation, horizon=0.8, stream=True)
    noise = nfd.sample_noise(problem, width=24, depth=6, key=jax.random.key(2))
    runs = {flag: both(problem, noise, flag) for flag in ("reused", "independent")}
    for network, limit in runs.values():
        assert_same_paths(network, limit)
    assert not np.allclose(runs["reused"][1].output, runs["independent"][1].output)


def test_euler_is_the_network_with_several_outputs_and_frozen_ends(make_problem):
    problem = make_problem(rows=4, outputs=3, loss="cross_entropy", train="hidden")
    noise = nfd.sample_noise(problem, width=24, depth=6, key=jax.random.key(2))
    for flag in ("reused", "independent"):
        assert_same_paths(*both(problem, noise, flag))


@pytest.mark.parametrize(
    "activation", ["tanh", *(pytest.param(name, marks=pytest.mark.long) for name in ("erf", "relu"))]
)
def test_order_in_depth(make_problem, activation, record_property):
    """The scheme's mean-square error in h (trained) and b, against a fine solution on the same noise, falls
    as 1/L for smooth activations; for relu the order is recorded, not asserted.

    h carries a part that falls as 1/L² from initialization on, so its order is read after four updates and at
    L ≥ 32.
    """
    depths, fine, width = (32, 64, 128), 512, 1024
    problem = make_problem(steps=5, rows=2, activation=activation, rate=1.0)

    @partial(eqx.filter_jit, compiler_options=QUICK_TO_RUN)
    def paths(noise, reuse, depth):
        run = training.train(
            problem, noise, MatrixFree.of(problem, reuse, depth, noise.width), record=PATHS, grid=8
        )
        return run.features, run.gradients

    errors = []
    for seed in range(2):
        noise = nfd.sample_noise(problem, width=width, depth=fine, key=jax.random.key(seed))
        # All depths padded to the fine one: one compilation. The network at M layers is the limit's solution,
        # tested above.
        at = lambda depth, reuse, noise=noise: paths(
            coarsened_noise(noise, depth, fine), reuse, jnp.asarray(depth)
        )
        for reuse in (jnp.array(0.0), jnp.array(1.0)):
            exact = at(fine, reuse)
            ms = lambda a, b: observables.largest(a - b)
            errors.append(
                [[ms(a, b) for a, b in zip(at(depth, reuse), exact, strict=True)] for depth in depths]
            )
    errors = np.array(errors).reshape(2, 2, len(depths), 2, 5)  # seed, flag, depth, (h, b), step
    for flag in range(2):
        for name, quantity, step in (("h", 0, 4), ("b", 1, 0), ("b", 1, 4)):
            alpha = fit_coarsening(depths, errors[:, flag, :, quantity, step], reference=fine).estimate
            record_property(f"{activation} {name} step {step} flag {flag}", alpha)
            if activation != "relu":
                assert abs(alpha - 1) < 0.15, (name, step, flag, alpha)


def test_the_limit_compiles_once_for_all_steps_and_flags(make_problem, caplog):
    """Four more steps change nothing in the number of programs, nor does the other flag or learning rate."""
    counts = []
    for steps in (2, 6):
        problem = make_problem(steps=steps, rows=2)
        with jax.log_compiles(), caplog.at_level("WARNING"):
            caplog.clear()
            for flag in ("independent", "reused"):
                nfd.solve_limit(
                    problem, particles=23, depth_steps=5, key=jax.random.key(0), backward_weights=flag
                )
            faster = eqx.tree_at(lambda p: p.learning_rate, problem, problem.learning_rate * 2)
            nfd.solve_limit(faster, particles=23, depth_steps=5, key=jax.random.key(1))
            counts.append(sum("Compiling jit(_on)" in record.message for record in caplog.records))
    assert counts == [1, 1]
