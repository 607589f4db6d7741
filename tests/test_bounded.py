"""Bounded histories: exact while nothing is left out, what is left out measured, and what it costs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax import training
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.noise import keyed_noise, sample_noise
from nfd_jax.optimizers import Settings

PATHS = ("features", "gradients")
RULE = Settings(momentum=0.9, nesterov=True, weight_decay=0.1, schedule="linear", steps=4)


def test_it_is_exact_while_nothing_is_left_out(make_problem):
    """With room for all queries and tolerance 0: network and limit, both kinds of backward weights, held-out
    samples and coupling."""
    problem = make_problem(steps=4, rows=3, optimizer=RULE, richness=0.7, stream=True)
    noise = nfd.sample_noise(problem, width=24, depth=4, key=jax.random.key(2))
    bounds = {"directions": 12, "tolerance": 0.0}
    heldout, compared = (
        np.random.default_rng(3).standard_normal((2, 5)),
        ("output", "loss", *PATHS, "coupling"),
    )
    for flag in ("reused", "independent"):
        options = {
            "noise": noise,
            "backward_weights": flag,
            "record": (*PATHS, "coupling"),
            "heldout": heldout,
        }
        exact = nfd.train_finite(problem, simulator="matrix_free", **options)
        network = nfd.train_finite(problem, simulator="matrix_free", **options, **bounds)
        limit = nfd.solve_limit(problem, **options, **bounds)
        # Held-out samples are asked given what is remembered by then: in the end, all there is.
        last = lambda run: (run.heldout[-1], *(getattr(run, name) for name in compared))
        for a, b, c in zip(*(jax.tree.leaves(last(run)) for run in (exact, network, limit)), strict=True):
            size = max(1.0, np.max(np.abs(a)))
            assert np.max(np.abs(a - b)) < 1e-10 * size and np.max(np.abs(c - b)) < 1e-10 * size
        assert network.history_residual.max() < 1e-10


def left_out(queries, room, tolerance):
    """Largest share (K,) of a query that a basis of at most `room` directions does not get, for queries (K,
    P, n) in order."""
    basis, out = np.zeros((0, queries.shape[-1])), []
    for block in queries:
        new, rows = np.zeros((0, basis.shape[1])), []
        for x in block:
            rest = x - (x @ basis.T) @ basis
            rest = rest - (rest @ basis.T) @ basis
            inside = rest - (rest @ new.T) @ new
            rows.append((x, rest))
            if np.linalg.norm(inside) > 1e-12 * np.linalg.norm(x):
                new = np.concatenate([new, inside[None] / np.linalg.norm(inside)])
        entering = set()
        for x, rest in rows:  # the largest parts of each, until what is left may be
            parts = (new @ rest) ** 2
            order = np.argsort(parts)
            left = np.cumsum(parts[order])
            entering |= set(order[left > (tolerance * np.linalg.norm(x)) ** 2].tolist())
        kept = new[sorted(entering)[: room - len(basis)]]
        out.append(max(np.linalg.norm(rest - (rest @ kept.T) @ kept) / np.linalg.norm(x) for x, rest in rows))
        basis = np.concatenate([basis, kept])
    return np.array(out)


@pytest.mark.parametrize("room, tolerance", [(10, 0.3), pytest.param(5, 0.0, marks=pytest.mark.long)])
def test_the_residual_is_what_was_left_out(make_problem, room, tolerance):
    """Against Gram–Schmidt of the recorded queries, φ(h_{ℓ-1}) and b_ℓ of every layer."""
    problem = make_problem(steps=5, rows=3, stream=True, rate=0.8)
    noise = nfd.sample_noise(problem, width=24, depth=3, key=jax.random.key(2))
    bounds = {"directions": room, "tolerance": tolerance}
    run = nfd.train_finite(problem, noise=noise, simulator="matrix_free", record=PATHS, **bounds)
    expected = np.zeros(5)
    for ell in range(3):
        for queries in (np.tanh(run.features[:, ell]), run.gradients[:, ell + 1]):
            expected = np.maximum(expected, left_out(np.asarray(queries), room, tolerance))
    np.testing.assert_allclose(run.history_residual, expected, rtol=0, atol=1e-9)
    assert expected[-1] > 0.1


@pytest.mark.parametrize("tolerance", [0.05, 0.15])
def test_while_there_is_room_no_query_keeps_more_than_the_tolerance(make_problem, tolerance):
    """Samples of a batch that nearly repeat one another: a direction that one of them can do without may be
    the one that the next needs."""
    rng = np.random.default_rng(0)
    one = rng.standard_normal(4)
    x = np.stack([[one, 0.98 * one + 0.2 * rng.standard_normal(4)] for _ in range(6)])
    problem = nfd.Problem(x, rng.standard_normal((6, 2, 1)), 0.5)
    run = nfd.train_finite(
        problem, width=64, depth=4, key=jax.random.key(0), simulator="matrix_free",
        directions=32, tolerance=tolerance,
    )  # fmt: skip
    assert 0.3 * tolerance < run.history_residual.max() <= tolerance * (1 + 1e-9)


@eqx.filter_jit
def outputs(problem, seeds, directions, tolerance):
    """Outputs (seeds, K, P) of narrow networks, exact or with a bounded history, on the same noise; and the
    largest residual."""

    def one(key):
        noise = sample_noise(problem, width=12, depth=3, key=key)
        network = MatrixFree.of(problem, jnp.asarray(1.0), 3, 12)
        if directions is None:
            return training.train(problem, noise, network).output[..., 0], jnp.zeros(())
        run = training.train(problem, noise, network, directions=directions, tolerance=tolerance)
        return run.output[..., 0], run.history_residual.max()

    return jax.vmap(one)(jax.random.split(jax.random.key(0), seeds))


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1_500, 40_000])
def test_the_law_survives_what_is_left_out(make_problem, seeds):
    """Nearly repeated samples at n = 12: means and variances of f are right to the second order of the
    residual, its paths are not."""
    problem = make_problem(steps=4, rows=3, dim=3, rate=0.8)
    exact, _ = outputs(problem, seeds, None, 0.0)
    found, residual = outputs(problem, seeds, 12, 0.25)
    apart = np.asarray(found - exact)
    path = np.sqrt((apart**2).mean((0, 2)))[-1]
    error = apart.std(0) / np.sqrt(seeds)
    bias = np.abs(apart.mean(0))[-1]
    variance = np.abs(np.var(found, 0) / np.var(exact, 0) - 1)[-1]
    second = float(np.mean(residual)) ** 2
    assert path > 3e-3
    assert np.all(bias < 3 * error[-1] + second * np.asarray(exact).std(0)[-1])
    assert np.all(variance < 4 * np.sqrt(2 / seeds) * path + second)


def test_refusals(make_problem):
    problem = make_problem(steps=4, rows=3)
    run = lambda problem=problem, **bounds: nfd.train_finite(
        problem, width=8, depth=2, key=jax.random.key(0), simulator="matrix_free", **bounds
    )
    solve = lambda **bounds: nfd.solve_limit(
        problem, particles=8, depth_steps=2, key=jax.random.key(0), **bounds
    )
    for call in (run, solve):
        for directions in (2, 9):
            with pytest.raises(ValueError, match=f"batch size, 3, to the width, 8; received {directions}"):
                call(directions=directions)
        for tolerance in (-0.1, 1.0, float("nan")):
            with pytest.raises(ValueError, match="tolerance must be a number from 0 to below 1"):
                call(directions=6, tolerance=tolerance)
        with pytest.raises(ValueError, match="positive integer"):
            call(directions=2.5)
    with pytest.raises(ValueError, match="same batch at every step"):
        run(make_problem(steps=4, rows=3, stream=True, centered=True), directions=6)
    with pytest.raises(ValueError, match="exactly|too small"):
        run()  # K·P = 12 directions do not fit in 8 coordinates


@pytest.mark.long
def test_the_probe_is_followed_without_being_learned_from(make_problem):
    """The first batch runs along: on a fixed batch it is the batch itself; training is the same with it and
    without."""
    problem = make_problem(steps=3, rows=2, rate=0.8)
    twice = make_problem(steps=3, rows=4, rate=0.8)  # noise of 2 P rows
    noise = keyed_noise(twice, width=16, depth=3, key=jax.random.key(0))
    own = keyed_noise(problem, width=16, depth=3, key=jax.random.key(0))
    network = MatrixFree.of(problem, jnp.asarray(1.0), 3, 16)
    options = {"directions": 16, "tolerance": 0.0, "record": PATHS}
    found = training.train(problem, noise, network, probe=True, **options)
    plain = training.train(problem, own, network, **options)
    np.testing.assert_allclose(found.output, plain.output, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.probe, found.features, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.probe_gradients, found.gradients, rtol=0, atol=1e-6)


@pytest.mark.long
def test_a_hundred_steps_on_a_pool(make_problem):
    """K = 100 batches of 4 from a pool of 16 at n = 1024, against the exact history: rms of f below 2e-2 at
    tolerance 0.1, 8e-3 at 0.05."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 8)), np.sign(rng.standard_normal((16, 1)))
    picks = np.concatenate([rng.permutation(16) for _ in range(25)]).reshape(100, 4)
    problem = nfd.Problem(x[picks].astype("f4"), y[picks].astype("f4"), np.float32(0.3))
    noise = nfd.sample_noise(problem, width=1024, depth=4, key=jax.random.key(0))
    run = lambda **bounds: nfd.train_finite(problem, noise=noise, simulator="matrix_free", **bounds).output
    exact = run()
    for tolerance, allowed in ((0.05, 8e-3), (0.1, 2e-2)):
        assert np.sqrt(np.mean((run(directions=256, tolerance=tolerance) - exact) ** 2)) < allowed
