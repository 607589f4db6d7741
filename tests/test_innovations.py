"""A dense network's innovations drive the matrix-free network along the same path; bridges refine them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

import nfd_jax as nfd


def dense_with_noise(problem, flag, width=32, depth=5):
    return nfd.train_with_innovations(
        problem, width=width, depth=depth, key=jax.random.key(4), backward_weights=flag
    )


@pytest.mark.parametrize("flag", ["reused", "independent"])
@pytest.mark.parametrize("case", ["fixed", "stream", "duplicates"])
def test_matrix_free_follows_the_dense_network(make_problem, case, flag):
    problem = make_problem(steps=4, rows=3, stream=case == "stream", rate=0.8)
    if case == "duplicates":
        problem = nfd.Problem(problem.inputs.at[:, 2].set(problem.inputs[:, 0]), problem.targets, 0.8)
    dense, noise = dense_with_noise(problem, flag)
    free = nfd.train_finite(
        problem,
        width=32,
        depth=5,
        noise=noise,
        simulator="matrix_free",
        backward_weights=flag,
        record=("features", "gradients"),
    )
    # Repeated batches ask almost the same again: a direction with a residual of 1e-12 of its query carries
    # rounding of that size.
    for a, b in zip(jax.tree.leaves(dense), jax.tree.leaves(free), strict=True):
        assert np.max(np.abs(a - b)) < 1e-9
    other = {"reused": "independent", "independent": "reused"}[flag]
    wrong = nfd.train_finite(
        problem, width=32, depth=5, noise=noise, simulator="matrix_free", backward_weights=other
    )
    assert np.max(np.abs(wrong.output - dense.output)) > 1e-3


def test_innovations_are_standard_normal_and_uncorrelated(make_problem):
    problem = make_problem(steps=4, rows=3, rate=0.8)
    for flag in ("reused", "independent"):
        _, noise = dense_with_noise(problem, flag, width=128, depth=8)
        values = np.concatenate([np.ravel(noise.forward), np.ravel(noise.backward)])
        assert kstest(values, "norm").pvalue > 1e-4
        for xi in (noise.forward, noise.backward):
            rows = np.asarray(xi).transpose(1, 0, 2, 3).reshape(8, 12, 128)
            gram = np.einsum("lan,lbn->lab", rows, rows) / 128 - np.eye(12)
            assert np.abs(gram).max() < 5.5 / np.sqrt(
                128 / 2
            )  # 1200 numbers of standard deviation at most √(2/n)


def test_bridges_coarsen_back_and_are_normal(make_problem):
    problem = make_problem()
    noise = nfd.sample_noise(problem, width=40, depth=4, key=jax.random.key(0))
    fine = noise.refine(32, jax.random.key(1))
    for a, b in zip(jax.tree.leaves(fine.coarsen(4)), jax.tree.leaves(noise), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert kstest(np.ravel(fine.forward), "norm").pvalue > 1e-4
    neighbours = jnp.mean(fine.forward[:, 1:] * fine.forward[:, :-1])
    assert abs(neighbours) < 4.5 / np.sqrt(fine.forward[:, 1:].size)
    with pytest.raises(ValueError, match="multiple"):
        noise.refine(10, jax.random.key(1))
