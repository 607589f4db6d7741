"""The conditional-Gaussian matrix: exact splitting of queries, rank-deficient blocks first of all, and the
law of its answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfd_jax import gaussian, training
from nfd_jax._orthogonal import by_products, by_rows, tolerance
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.gaussian import Answers, Basis, draw, images
from nfd_jax.noise import sample_noise

split = jax.jit(gaussian.split)


@pytest.fixture(params=[by_rows, by_products], ids=["rows", "products"])
def split_by(request, monkeypatch):
    """`split` with either way to make rows orthonormal, whatever the device."""
    monkeypatch.setattr(gaussian, "orthonormalize", request.param)
    return jax.jit(lambda q, x: gaussian.split(q, x))


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


CASES = (
    "generic", "duplicate first", "duplicate last", "inside the known span", "all zero", "zero then others",
    "nearly repeated", "nearly known",
)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_split_is_exact_and_orthonormal(split_by, case, dtype):
    known, new = queries(case, dtype)
    parts = split_by(jnp.asarray(known), jnp.asarray(new))
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
def test_known_directions_are_dropped(split_by, case):
    """The number of new directions is the rank of what is left of the block."""
    known, new = queries(case, np.float64)
    rest = new - new @ known.T @ known
    rank = np.linalg.matrix_rank(rest, tol=1e-9 * max(np.linalg.norm(new), 1))
    assert np.count_nonzero(np.diag(split_by(jnp.asarray(known), jnp.asarray(new)).new)) == rank


@pytest.mark.parametrize("dtype, most", [(np.float32, 5), (np.float64, 11)])
def test_nearly_dependent_rows_are_told_apart(dtype, most):
    """Each row the one before and a new direction of 10⁻¹, 10⁻², … its norm: both ways find the same R and q,
    to what is known of them."""
    rng = np.random.default_rng(5)
    size = 10.0 ** -np.arange(1, most + 1)
    new = np.cumsum(
        np.concatenate([[1.0], size])[:, None] * rng.standard_normal((most + 1, 256)), axis=0
    ).astype(dtype)
    norms = jnp.linalg.norm(new, axis=1)
    (r1, q1), (r2, q2) = (jax.jit(form)(jnp.asarray(new), norms) for form in (by_rows, by_products))
    assert np.all(np.diag(r1) > 0) and np.all(np.diag(r2) > 0)
    eps = np.finfo(dtype).eps
    for r, q in ((r1, q1), (r2, q2)):
        np.testing.assert_allclose(np.float64(r) @ np.float64(q), new, rtol=0, atol=50 * eps)
    assert np.all(np.abs(np.sum(q1 * q2, axis=1) - 1) < 50 * eps / np.concatenate([[1.0], size]))


def test_training_is_the_same_either_way(monkeypatch, make_problem):
    """Repeated batches of more samples than outputs: queries that are nearly, and exactly, dependent."""
    problem = make_problem(steps=5, rows=4)
    noise = sample_noise(problem, width=64, depth=4, key=jax.random.key(0))
    outputs = []
    for form in (by_rows, by_products):
        monkeypatch.setattr(gaussian, "orthonormalize", form)
        train = jax.jit(
            lambda noise: (
                training.train(problem, noise, MatrixFree.of(problem, jnp.ones(()), 4, noise.width)).output
            )
        )
        outputs.append(train(noise))
    np.testing.assert_allclose(*outputs, rtol=1e-8)


@pytest.mark.parametrize("resolve", [gaussian.split, gaussian.split_discarded])
def test_projections_keep_their_precision_whatever_was_chosen(resolve):
    """Coarse products would leave directions that are not orthogonal."""
    known, new = map(jnp.asarray, queries("generic", np.float32))
    with jax.default_matmul_precision("bfloat16"):
        products = [
            line
            for line in str(jax.make_jaxpr(resolve)(known, new)).split(" = ")
            if line.startswith("dot_general")
        ]
        coarse = str(jax.make_jaxpr(lambda a: a @ a.T)(new))
    assert "HIGHEST" not in coarse, "what is told apart below"
    assert len(products) >= 4 and all("HIGHEST" in line for line in products)


def conversation(key, width: int, reuse: float):
    """A backward query, then an adaptive forward one, then a backward one that depends on both answers; (3,
    width) answers."""
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
        return (
            answer,
            jax.tree.map(lambda rows: rows[0], every[0].append(every[1], jnp.array(row), jnp.array(seen))),
            xi,
        )

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
