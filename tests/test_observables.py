"""Observables against their definitions, computed another way."""

import jax.numpy as jnp
import numpy as np
import pytest

from nfd_jax.losses import accuracy
from nfd_jax.observables import extreme_eigenvalues


@pytest.mark.parametrize("width", [4, 8, 12, 40])
def test_extreme_eigenvalues_are_those_of_gram_matrices(width):
    """Of each step's samples and of all so far; exactly zero once samples outnumber coordinates, and a sample
    that comes twice is as good as zero."""
    steps, grid, rows = 3, 2, 5
    x = np.random.default_rng(0).standard_normal((2, steps, grid, rows, width))
    x[1, 1, 0, 3] = x[1, 0, 0, 2]
    smallest, largest = extreme_eigenvalues(x)
    assert smallest.shape == largest.shape == (2, 2, steps, grid)
    for run in range(2):
        for k in range(steps):
            for g in range(grid):
                joint = x[run, : k + 1, g].reshape(-1, width)
                for scope, samples in enumerate((x[run, k, g], joint)):
                    values = np.linalg.eigvalsh(samples @ samples.T / width)
                    at = scope, run, k, g
                    np.testing.assert_allclose(largest[at], values[-1], rtol=1e-10)
                    np.testing.assert_allclose(smallest[at], max(values[0], 0), rtol=1e-8, atol=1e-13)
                    if len(samples) > width:
                        assert smallest[at] == 0


def test_accuracy_counts_a_tie_half():
    f, y = jnp.array([[0.3], [-0.1], [0.0], [0.2]]), jnp.array([[1.0], [1.0], [1.0], [-1.0]])
    assert accuracy(f, y) == (1 + 0 + 0.5 + 0) / 4
    f, y = jnp.array([[0.3, 0.1], [0.2, 0.4]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
    assert accuracy(f, y) == 0.5
