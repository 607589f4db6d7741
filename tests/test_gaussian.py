"""The conditional-Gaussian matrix: exact splitting of queries, rank-deficient blocks first of all, and the law of its answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfd_jax import gaussian
from nfd_jax.gaussian import Answers, Basis, draw, images, tolerance

split = jax.jit(gaussian.split)


def queries(case: str, dtype) -> tuple[np.ndarray, np.ndarray]:
    """(rows already known, new queries) of width 64."""
    rng = np.random.default_rng(1)
    known = np.linalg.qr(rng.standard_normal((64, 3)))[0].T
    a, b, c, d = rng.standard_normal((4, 64)) * 8
    new = {
        "generic": [a, b, c],
        "duplicate first": [a, a, b],
        "duplicate last": [a, b, a],
        "inside the known span": [2 * known[0] - known[1], a, known[2]],
        "all zero": [0 * a, 0 * a, 0 * a],
        "zero then others": [0 * a, b, c],
        "nearly repeated": [a, a + 1e-4 * b, a + 1e-4 * b + 1e-5 * c],
        "nearly known": [known[0] * 8 + 1e-4 * b, known[0] * 8 + 1e-4 * b + 1e-5 * c, d],
    }[case]
    return known.astype(dtype), np.stack(new).astype(dtype)


CASES = ("generic", "duplicate first", "duplicate last", "inside the known span", "all zero", "zero then others",
         "nearly repeated", "nearly known")  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_split_is_exact_and_orthonormal(case, dtype):
    known, new = queries(case, dtype)
    parts = split(jnp.asarray(known), jnp.asarray(new))
    q = np.asarray(parts.q, np.float64)
    norms = np.linalg.norm(new, axis=1, keepdims=True)
    rebuilt = np.asarray(parts.known, np.float64) @ known + np.asarray(parts.new, np.float64) @ q
    # A dropped direction may take `tolerance` of the query with it; everything else is rounding.
    assert np.all(np.abs(rebuilt - new) <= 2 * tolerance(dtype) * norms + 1e-30)
    eps = np.finfo(dtype).eps
    gram = q @ q.T
    kept = np.diag(gram) > 0.5
    assert np.allclose(gram, np.diag(kept.astype(float)), atol=50 * eps)
    assert np.allclose(q @ known.T, 0, atol=50 * eps)
    assert np.all(np.diag(parts.new) >= 0)
    assert np.allclose(np.triu(parts.new, 1), 0)
    assert np.all(np.asarray(parts.new)[:, ~kept] == 0)


@pytest.mark.parametrize("case", CASES)
def test_known_directions_are_dropped(case):
    """The number of new directions is the rank of what is left of the block."""
    known, new = queries(case, np.float64)
    rest = new - new @ known.T @ known
    rank = np.linalg.matrix_rank(rest, tol=1e-9 * max(np.linalg.norm(new), 1))
    assert np.count_nonzero(np.diag(split(jnp.asarray(known), jnp.asarray(new)).new)) == rank


def conversation(key, width: int, reuse: float):
    """A backward query, then an adaptive forward one, then a backward one that depends on both answers; (3, width) answers."""
    keys = jax.random.split(key, 3)
    normal = lambda k: jax.random.normal(k, (1, width))
    ratio = lambda x: x / jnp.linalg.norm(x)
    one = jnp.asarray(reuse)
    empty = jax.tree.map(lambda rows: rows[0], Basis.empty(1, 2, width, float))
    noise = lambda *rows: jnp.concatenate([*rows, jnp.zeros((2 - len(rows), width))])

    def ask(own, own_xi, other, other_xi, x, key, row, seen):
        parts, xi = split(own.q, x), normal(key)
        correction, response = draw(parts.q, xi, other.q, other_xi, one)
        answer = images(parts, xi, correction, own_xi, own.correction, other.q)
        new = Answers(parts.q, correction, response, parts.known, parts.new)
        every = jax.tree.map(lambda rows: rows[None], (own, new))
        return answer, jax.tree.map(lambda rows: rows[0], every[0].append(every[1], jnp.array(row), jnp.array(seen))), xi

    u1 = ratio(jnp.arange(1.0, width + 1)[None])
    z1, backward, xi_back = ask(empty, noise(), empty, noise(), u1, keys[0], 0, 0)
    x1 = ratio(jnp.tanh(z1))
    y1, forward, xi = ask(empty, noise(), backward, noise(xi_back), x1, keys[1], 0, 1)
    z2, _, _ = ask(backward, noise(xi_back), forward, noise(xi), y1 - 0.5, keys[2], 1, 1)
    return jnp.concatenate([z1, y1, z2])


def explicit_conversation(key, width: int, reused: bool):
    """The same with a matrix."""
    forward, other = jax.random.split(key)
    W = jax.random.normal(forward, (width, width))
    back = W if reused else jax.random.normal(other, (width, width))
    ratio = lambda x: x / jnp.linalg.norm(x)
    u1 = ratio(jnp.arange(1.0, width + 1))
    z1 = back.T @ u1
    y1 = W @ ratio(jnp.tanh(z1))
    return jnp.stack([z1, y1, back.T @ (y1 - 0.5)])


def covariance_gap(reuse: float, reused: bool, runs: int = 20_000, width: int = 5) -> float:
    """Largest difference of second moments of the answers, in standard errors."""
    keys = jax.random.split(jax.random.key(3), runs)
    free = jax.jit(jax.vmap(lambda k: conversation(k, width, reuse)))(keys).reshape(runs, -1)
    full = jax.jit(jax.vmap(lambda k: explicit_conversation(k, width, reused)))(keys).reshape(runs, -1)
    products = [np.asarray(x[:, :, None] * x[:, None, :]).reshape(runs, -1) for x in (free, full)]
    mean = [x.mean(0) for x in products]
    error = np.sqrt(sum(x.var(0) for x in products) / runs)
    return float(np.max(np.abs(mean[0] - mean[1]) / error))


# The largest of 225 normal deviates exceeds 4.8 with probability below 4e-4.
@pytest.mark.parametrize("reused", [True, False])
def test_answers_have_the_matrix_law(reused):
    assert covariance_gap(float(reused), reused) < 4.8


def test_the_comparison_sees_a_missing_response():
    assert covariance_gap(0.0, True) > 8
    assert covariance_gap(-1.0, True) > 8
