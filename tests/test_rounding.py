"""Float32 against float64, determinism, padding and batching, compilations, and the memory of a very wide
network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax import training
from nfd_jax.conditional import _on
from nfd_jax.finite._dense import initial_weights, train_weights
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.limit import Limit
from nfd_jax.noise import BACKWARD, FORWARD, shared_keyed_noise, shared_noise
from nfd_jax.sweep._cells import coarsened_noise

PATHS = ("features", "gradients")


@pytest.mark.parametrize("case", ["generic", "duplicates"])
def test_float32_paths_over_ten_repeated_batches(case, make_problem):
    """rms errors of h and b; four samples and one output, so that every block of backward queries at the last
    layer has rank 1."""
    base = make_problem(steps=10, rows=4, dim=6)
    x = np.array(base.inputs)
    if case == "duplicates":
        x[:, 1] = x[:, 0]
    double = nfd.Problem(x, base.targets, 0.5)
    noise = nfd.sample_noise(double, width=1024, depth=32, key=jax.random.key(0))
    single = jax.tree.map(lambda a: a.astype(np.float32), (double, noise))
    for rate in (0.5, 0.0):
        for flag in ("reused", "independent"):
            runs = []
            for problem, xi in ((double, noise), single):
                problem = eqx.tree_at(lambda p: p.learning_rate, problem, jnp.asarray(rate, problem.dtype))
                options = {
                    "width": 1024,
                    "depth": 32,
                    "noise": xi,
                    "simulator": "matrix_free",
                    "backward_weights": flag,
                }
                runs.append(nfd.train_finite(problem, record=PATHS, **options))
            rms = lambda a, b: float(np.sqrt(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)))
            assert rms(runs[0].features, runs[1].features) < 1e-3
            assert rms(runs[0].gradients, runs[1].gradients) < 3e-3


def test_repeated_queries_get_the_same_answers(make_problem):
    """A zero learning rate asks the same at every step; duplicated samples ask it twice: all answers agree to
    rounding."""
    base = make_problem(steps=4, rows=3)
    x = np.array(base.inputs)
    x[:, 2] = x[:, 0]
    problem = nfd.Problem(x, base.targets, 0.0)
    run = nfd.train_finite(
        problem, width=32, depth=6, key=jax.random.key(1), simulator="matrix_free", record=PATHS
    )
    for path in (run.features, run.gradients):
        assert np.all(np.isfinite(path))
        np.testing.assert_allclose(path, np.broadcast_to(path[:1], path.shape), rtol=0, atol=1e-11)
    np.testing.assert_allclose(run.features[:, :, 2], run.features[:, :, 0], rtol=0, atol=1e-11)


def test_converged_samples_are_no_obstacle(make_problem):
    """χ = 0 exactly: targets equal to the outputs, several outputs, so that s = 0 and b = 0."""
    problem = make_problem(steps=3, rows=2, outputs=2)
    noise = nfd.sample_noise(problem, width=32, depth=4, key=jax.random.key(0))
    options = {"width": 32, "depth": 4, "noise": noise, "simulator": "matrix_free", "record": PATHS}
    f0 = nfd.train_finite(problem, **options).output[:1]
    converged = eqx.tree_at(lambda p: p.targets, problem, jnp.broadcast_to(f0, problem.targets.shape))
    run = nfd.train_finite(converged, **options)
    np.testing.assert_allclose(run.output, np.broadcast_to(f0, run.output.shape), rtol=0, atol=1e-12)
    assert np.all(np.isfinite(run.gradients))


def test_same_seed_same_bits(make_problem):
    problem = make_problem()
    for call in (
        lambda: nfd.train_finite(problem, width=16, depth=3, key=jax.random.key(7)),
        lambda: nfd.train_finite(problem, width=16, depth=3, key=jax.random.key(7), simulator="matrix_free"),
        lambda: nfd.solve_limit(problem, particles=16, depth_steps=3, key=jax.random.key(7)),
    ):
        np.testing.assert_array_equal(call().output, call().output)


def test_noise_nests_and_coarsens(make_problem):
    """Width n is the first n entries of any width; keyed and stored noise are the same numbers; coarsening
    sums increments."""
    problem = make_problem()
    wide = nfd.sample_noise(problem, width=33, depth=6, key=jax.random.key(0))
    narrow = nfd.sample_noise(problem, width=20, depth=6, key=jax.random.key(0))
    for a, b in zip(jax.tree.leaves(wide.narrow(20)), jax.tree.leaves(narrow), strict=True):
        np.testing.assert_array_equal(a, b)
    coarse = wide.coarsen(2)
    np.testing.assert_allclose(coarse.forward[:, 1], wide.forward[:, 3:].sum(1) / np.sqrt(3), rtol=1e-12)
    assert coarse.depth == 2
    stored = nfd.train_finite(problem, width=20, depth=6, noise=narrow, simulator="matrix_free")
    drawn = nfd.train_finite(problem, width=20, depth=6, key=jax.random.key(0), simulator="matrix_free")
    np.testing.assert_allclose(stored.output, drawn.output, rtol=1e-12)


def test_motions_shared_by_all_halvings_of_a_step(make_problem):
    """Held or drawn at each use: those of 12 layers, seen by half as many, are those of 6, and not those of
    networks."""
    problem = make_problem(centered=True, stream=True)
    sizes = {"width": 5, "key": jax.random.key(1)}

    @jax.jit
    def every():
        held = [shared_noise(problem, depth=depth, **sizes) for depth in (12, 6)]
        drawn = shared_keyed_noise(problem, depth=12, **sizes)
        parts = [
            [noise.increments(FORWARD, 1), noise.layer(BACKWARD, 2), noise.initial_layer(1)]
            for noise in (held[0], drawn, held[0].coarsen(6), drawn.coarsen(6), held[1])
        ]
        return parts, nfd.sample_noise(problem, depth=6, **sizes).increments(FORWARD, 1)

    (held, drawn, *halves), other = every()
    for pair in ((held, drawn), halves[::2], halves[1:]):
        for a, b in zip(*pair, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert np.max(np.abs(other - halves[2][0])) > 0.1


@pytest.mark.parametrize("flag", ["reused", "independent"])
def test_noise_drawn_at_each_use_is_the_same_noise(make_problem, flag):
    problem = make_problem()
    stored, keyed = (
        draw(problem, width=20, depth=6, key=jax.random.key(0))
        for draw in (nfd.sample_noise, nfd.keyed_noise)
    )
    for noise in (stored, keyed):
        with pytest.raises(ValueError, match="must divide"):
            noise.coarsen(4)
    network = lambda noise: nfd.train_finite(
        problem, width=20, depth=3, noise=noise, simulator="matrix_free", backward_weights=flag
    )
    limit = lambda noise: nfd.solve_limit(
        problem, particles=20, depth_steps=6, noise=noise, backward_weights=flag
    )
    np.testing.assert_allclose(
        network(keyed.coarsen(3)).output, network(stored.coarsen(3)).output, rtol=1e-10
    )
    np.testing.assert_allclose(limit(keyed).output, limit(stored).output, rtol=1e-10)


def test_padding_and_batching_change_nothing(make_problem):
    problem = make_problem(steps=2)
    noise = nfd.sample_noise(problem, width=24, depth=8, key=jax.random.key(0))

    @eqx.filter_jit
    def padded(noise, depth, reuse):
        return training.train(
            problem,
            noise,
            MatrixFree.of(problem, reuse, depth, noise.width),
            record=PATHS,
            grid=2,
            coupling=True,
        )

    pairs = jnp.array([4, 8]), jnp.array([1.0, 0.0])
    stack = jax.tree.map(lambda *x: jnp.stack(x), coarsened_noise(noise, 4, 8), noise)
    together = eqx.filter_jit(jax.vmap(padded))(stack, *pairs)
    for i, (depth, flag) in enumerate(((4, "reused"), (8, "independent"))):
        options = {"simulator": "matrix_free", "backward_weights": flag, "record": PATHS}
        run = nfd.train_finite(problem, noise=noise.coarsen(depth), **options)
        np.testing.assert_allclose(together.output[i], run.output, rtol=0, atol=1e-12)
        np.testing.assert_allclose(together.features[i], run.features[:, :: depth // 2], rtol=0, atol=1e-11)
        np.testing.assert_allclose(together.gradients[i], run.gradients[:, :: depth // 2], rtol=0, atol=1e-11)
    assert np.all(together.coupling.layer_ms[1] == 0)  # independent weights have none
    assert np.all(together.coupling.layer_ms[0, 1] > 0)


def test_one_compilation_per_shape(make_problem, caplog):
    """Learning rate, horizon, key and flag are no shapes; width and depth are."""
    problem = make_problem(steps=2, rows=2)

    def count(work):
        with jax.log_compiles(), caplog.at_level("WARNING"):
            caplog.clear()
            work()
            return sum(
                f"Compiling jit({name})" in record.message
                for name in ("_train_dense", "_on")
                for record in caplog.records
            )

    def run(simulator, width=19, depth=3, **changes):
        here = nfd.Problem(problem.inputs, problem.targets, **({"learning_rate": 0.1} | changes))
        return nfd.train_finite(
            here, width=width, depth=depth, key=jax.random.key(len(changes)), simulator=simulator
        )

    for simulator in ("dense", "matrix_free"):
        assert (
            count(lambda s=simulator: [run(s), run(s, learning_rate=0.2), run(s, horizon=2.0), run(s)]) == 1
        )
        assert count(lambda s=simulator: run(s, depth=4)) == 1


def test_memory_of_a_very_wide_network(make_problem):
    """n = 100 000, L = 32, K·P = 8 in float32: what the compiled program asks for, without running it."""
    problem = make_problem(steps=4, rows=2, dtype=np.float32)
    reuse = jnp.ones((), jnp.float32)
    key = jax.random.key(0)
    draw = lambda key: nfd.sample_noise(problem, width=100_000, depth=32, key=key)
    noise = eqx.filter_eval_shape(draw, key)
    train = lambda noise: _on(problem, noise, key, MatrixFree.of, reuse, None, {})
    sizes = jax.jit(train).lower(noise).compile().memory_analysis()
    total = sizes.temp_size_in_bytes + sizes.output_size_in_bytes + sizes.argument_size_in_bytes
    assert 0 < total < 8e9


@pytest.mark.long
def test_a_very_wide_network_trains(make_problem):
    problem = make_problem(steps=4, rows=2, dtype=np.float32, rate=0.2)
    run = nfd.train_finite(problem, width=100_000, depth=32, key=jax.random.key(0), simulator="matrix_free")
    assert np.all(np.isfinite(run.loss))


@pytest.mark.parametrize("interior", [MatrixFree.of, pytest.param(Limit, marks=pytest.mark.long)])
def test_held_out_questions_about_training_inputs_get_the_training_answers(make_problem, interior):
    problem = make_problem(steps=3, rows=3, stream=True)
    noise = nfd.sample_noise(problem, width=32, depth=4, key=jax.random.key(0))

    @eqx.filter_jit
    def ask(reuse, rate):
        learning = eqx.tree_at(lambda p: p.learning_rate, problem, jnp.asarray(rate))
        heldout = training.heldout_questions(problem, problem.inputs[0], 4, 32, jax.random.key(1))
        probe = training.probe_questions(problem, 4, 32, jax.random.key(1))
        return training.train(
            learning, noise, interior(learning, reuse, 4, 32), record=PATHS, heldout=heldout, probe=probe
        )

    root = 10 * np.sqrt(np.finfo(float).eps)  # discarded queries go through the root of a Gram matrix
    for reuse in (0.0, 1.0):
        reuse = jnp.asarray(reuse)
        run = ask(reuse, 0.4)
        np.testing.assert_allclose(run.heldout[0], run.output[0], rtol=0, atol=root)
        np.testing.assert_allclose(run.probe[0], run.features[0], rtol=0, atol=root)
        frozen = ask(reuse, 0.0).probe  # one network asked again: what it does not learn it answers as before
        np.testing.assert_allclose(frozen, np.broadcast_to(frozen[:1], frozen.shape), rtol=0, atol=root)


def test_held_out_answers_have_the_dense_law(make_problem):
    """Second moments of held-out outputs of one network, two inputs, before and after training."""
    problem = make_problem(steps=2, rows=2, dim=3, rate=1.0)
    questions = jax.random.normal(jax.random.key(9), (2, 3))
    seeds, width, depth = 6000, 8, 3

    def free(key):
        noise = nfd.sample_noise(problem, width=width, depth=depth, key=key)
        heldout = training.heldout_questions(problem, questions, depth, width, key)
        return training.train(
            problem, noise, MatrixFree.of(problem, jnp.asarray(1.0), depth, width), heldout=heldout
        ).heldout[..., 0]

    def dense(key):
        weights = initial_weights(problem, width=width, depth=depth, key=key, backward_weights="reused")
        return train_weights(problem, weights, "reused", heldout=questions).heldout[..., 0]

    moments = []
    for draw, key in ((free, 0), (dense, 1)):
        f = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(key), seeds)))
        products = np.concatenate([f, f**2, f[..., :1] * f[..., 1:]], -1).reshape(seeds, -1)
        moments.append((products.mean(0), products.var(0) / seeds))
    (a, va), (b, vb) = moments
    assert np.max(np.abs(a - b) / np.sqrt(va + vb)) < 4.5  # ten numbers
