"""Dense networks: passes and updates against autodiff and optax on plain matrices, shapes and refusals of the
public calls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _oracle import train as by_definition

import nfd_jax as nfd
from nfd_jax import names
from nfd_jax.activations import ACTIVATIONS
from nfd_jax.finite._dense import initial_weights, train_weights
from nfd_jax.losses import LOSSES
from nfd_jax.names import PARAMETRIZATIONS
from nfd_jax.parametrization import block

CASES = [("squared", 1), ("squared", 3), ("cross_entropy", 3)]
PATHS = ("features", "gradients")


def drawn(problem, backward_weights="reused", width=7, depth=3):
    return initial_weights(
        problem, width=width, depth=depth, key=jax.random.key(1), backward_weights=backward_weights
    )


def agrees(ours, theirs, tolerance=1e-10):
    return np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


def check_against_definition(problem, flag, *, width=7, depth=3, tolerance=1e-10, jit=False):
    """Outputs, losses, h, b and the final matrices of a trained network, explicit and factored, are those of
    the definition."""
    weights = drawn(problem, flag, width, depth)
    heldout = jax.random.normal(jax.random.key(3), (2, problem.input_dim))

    def compare():
        expected, after = by_definition(problem, weights, heldout=heldout)
        found = train_weights(problem, weights, flag, record=(*PATHS, "weights"), heldout=heldout)
        for name in ("output", "loss", *PATHS, "heldout"):
            assert agrees(getattr(found, name), getattr(expected, name), tolerance), name
        for name in ("U", "V", "W", "W_backward"):
            assert agrees(getattr(found.weights, name), getattr(after, name), tolerance), name
        if 3 * problem.samples <= width:  # the form that is chosen where nobody asks for matrices
            assert agrees(train_weights(problem, weights, flag).output, expected.output, tolerance)

    if jit:
        return compare()
    with jax.disable_jit():  # three layers of width 7 run sooner than they compile
        compare()


def every_pair():
    """All combinations of activation, case and parametrization; in the test line each pair of values comes
    up."""
    for i, activation in enumerate(ACTIVATIONS):
        for j, (loss, outputs) in enumerate(CASES):
            for k, parametrization in enumerate(PARAMETRIZATIONS):
                marks = () if (i + j + k) % 3 == 0 else pytest.mark.long
                yield pytest.param(activation, loss, outputs, parametrization, marks=marks)


@pytest.mark.parametrize("activation, loss, outputs, parametrization", every_pair())
def test_backward_pass_is_the_gradient(make_problem, activation, loss, outputs, parametrization):
    options = {"loss": loss, "activation": activation, "parametrization": parametrization, "horizon": 0.7}
    check_against_definition(make_problem(steps=1, outputs=outputs, **options), "reused")


FUNCTIONS = {"elu": jax.nn.elu, "cubic": lambda z: z - 0.1 * z**3}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_ones_own_are_as_good_as_names(make_problem, name):
    """An activation and a loss of one's own: gradients, and the same numbers as a named one where it is the
    same function."""
    huber = lambda f, y: jnp.sum(jnp.sqrt(1 + (f - y) ** 2) - 1) / f.shape[0]
    check_against_definition(
        make_problem(steps=2, outputs=2, activation=FUNCTIONS[name], loss=huber), "reused"
    )
    named = make_problem(activation="tanh")
    mine = make_problem(activation=lambda z: jnp.tanh(z), loss=lambda f, y: LOSSES["squared"].value(f, y))
    for simulator in ("dense", "matrix_free"):
        run = lambda problem, s=simulator: (
            nfd.train_finite(problem, width=9, depth=2, key=jax.random.key(0), simulator=s).output
        )
        np.testing.assert_allclose(run(mine), run(named), rtol=1e-10)


LINEAR = {
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "decay": lambda rate: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(rate)),
    "cosine": lambda rate: optax.sgd(lambda k: rate * (1 + jnp.cos(jnp.pi * k / 4)) / 2, momentum=0.5),
}


@pytest.mark.parametrize("flag", ["reused", "independent"])
@pytest.mark.parametrize("rule", [None, *LINEAR])
@pytest.mark.parametrize("train", ["all", "hidden"])
def test_optimizers_are_optax_on_plain_matrices(make_problem, train, rule, flag):
    """50 steps in one go where it compiles, a few elsewhere; explicit and factored form, both kinds of
    backward weights."""
    long = rule == "momentum" and train == "all"
    problem = make_problem(
        steps=50 if long else 3, rows=1, optimizer=LINEAR.get(rule), train=train, richness=0.6, rate=0.2
    )
    check_against_definition(problem, flag, width=7 if long else 10, depth=2, jit=long)


def test_centered_outputs_start_at_zero(make_problem):
    for stream in (False, True):
        problem = make_problem(steps=3, rows=2, stream=stream, centered=True, richness=0.5)
        check_against_definition(problem, "reused", width=19)
        run = nfd.train_finite(problem, width=19, depth=2, key=jax.random.key(0))
        np.testing.assert_allclose(run.output[0], 0, atol=1e-15)


def test_names_agree_with_what_a_config_may_say():
    assert set(names.ACTIVATIONS) == set(ACTIVATIONS)
    assert set(names.LOSSES) == set(LOSSES)
    for name in PARAMETRIZATIONS:
        assert block(name, jnp.ones(()), 2).scale > 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives(activation):
    z = jnp.linspace(-3, 3, 13) + 0.01
    phi = ACTIVATIONS[activation]
    autodiff = jax.vmap(jax.grad(lambda v: phi.value(v)))(z)
    np.testing.assert_allclose(phi.derivative(z), autodiff, rtol=1e-12, atol=1e-14)


def test_reverse_mode_through_the_limit_is_refused_at_once(make_problem):
    problem, options = (
        make_problem(steps=2, rows=2),
        {"particles": 8, "depth_steps": 3, "key": jax.random.key(0)},
    )

    def final(rate):
        return nfd.solve_limit(dataclasses.replace(problem, learning_rate=rate), **options).loss[-1]

    with pytest.raises(ValueError, match="jax.jvp"):
        jax.grad(final)(0.3)
    with pytest.raises(ValueError, match="matrix_free"):
        jax.vmap(jax.grad(final))(jnp.ones(2))
    _, forward = jax.jvp(final, (jnp.asarray(0.3),), (jnp.ones(()),))
    np.testing.assert_allclose((final(0.3 + 1e-5) - final(0.3 - 1e-5)) / 2e-5, forward, rtol=1e-6)


def test_independent_backward_weights_are_others_and_get_the_same_updates(make_problem):
    problem = make_problem(steps=2)
    run = nfd.train_finite(
        problem, width=7, depth=3, key=jax.random.key(1), backward_weights="independent", record="weights"
    )
    before = drawn(problem, "independent")
    assert not np.allclose(before.W, before.W_backward)
    np.testing.assert_allclose(
        run.weights.W - before.W, run.weights.W_backward - before.W_backward, atol=1e-12
    )


@pytest.mark.parametrize("simulator", ["dense", "matrix_free"])
def test_derivatives_through_training(make_problem, simulator):
    """Forward and reverse mode, and differences of the learning rate, agree."""
    problem = make_problem(steps=3, rows=2)

    def final(rate):
        here = dataclasses.replace(problem, learning_rate=rate)
        return nfd.train_finite(here, width=12, depth=2, key=jax.random.key(0), simulator=simulator).loss[-1]

    rate = jnp.asarray(0.3)
    _, forward = jax.jvp(final, (rate,), (jnp.ones(()),))
    np.testing.assert_allclose(jax.grad(final)(rate), forward, rtol=1e-9)
    np.testing.assert_allclose((final(rate + 1e-5) - final(rate - 1e-5)) / 2e-5, forward, rtol=1e-6)


def test_recorded_shapes(make_problem):
    problem = make_problem(steps=2, rows=3, outputs=2)
    run = nfd.train_finite(problem, width=9, depth=4, key=jax.random.key(0), record=("features", "gradients"))
    assert run.output.shape == (2, 3, 2) and run.loss.shape == (2,)
    assert run.features.shape == run.gradients.shape == (2, 5, 3, 9)


def test_dtype_follows_the_inputs(make_problem):
    problem = make_problem(dtype=np.float32)
    for simulator in ("dense", "matrix_free"):
        run = nfd.train_finite(problem, width=16, depth=2, key=jax.random.key(0), simulator=simulator)
        assert run.output.dtype == run.loss.dtype == jnp.float32
    limit = nfd.solve_limit(problem, particles=16, depth_steps=2, key=jax.random.key(0), record=("features",))
    assert limit.features.dtype == jnp.float32


@pytest.mark.parametrize(
    "change,message",
    [
        ({"width": 0}, "positive integer"),
        ({"depth": 2.5}, "positive integer"),
        ({"backward_weights": "tied"}, "reused, independent"),
        ({"simulator": "sparse"}, "dense, matrix_free"),
        ({"record": ("losses",)}, "features, gradients"),
        ({"simulator": "matrix_free", "record": ("weights",)}, 'no "weights"'),
        ({"directions": 4}, "matrix_free"),
        ({"grid": 3}, "divisor of the depth"),
        ({"heldout": np.ones((2, 4))}, "d = 5"),
        ({"key": None}, "key="),
        ({"simulator": "matrix_free", "width": 4}, "too small"),
    ],
)
def test_refusals(make_problem, change, message):
    arguments = {"width": 16, "depth": 2, "key": jax.random.key(0)} | change
    with pytest.raises(ValueError, match=message):
        nfd.train_finite(make_problem(), **arguments)


def test_noise_must_fit(make_problem):
    problem = make_problem()
    noise = nfd.sample_noise(problem, width=16, depth=4, key=jax.random.key(0))
    with pytest.raises(ValueError, match="dense"):
        nfd.train_finite(problem, width=16, depth=4, noise=noise)
    for width, depth in ((16, 2), (12, 4)):
        with pytest.raises(ValueError, match="width 16 and depth 4"):
            nfd.train_finite(problem, width=width, depth=depth, noise=noise, simulator="matrix_free")
        with pytest.raises(ValueError, match="width 16 and depth 4"):
            nfd.solve_limit(problem, particles=width, depth_steps=depth, noise=noise)
    with pytest.raises(ValueError, match="must divide"):
        noise.coarsen(3)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"inputs": np.ones((2, 3))}, "(K, P, d)"),
        ({"targets": np.ones((2, 4, 1))}, "same K and P"),
        ({"loss": "hinge"}, "squared, cross_entropy"),
        ({"loss": "cross_entropy"}, "two outputs"),
        ({"activation": "swish"}, "choose one of"),
        ({"parametrization": "ntk"}, "depth_mup"),
        ({"train": "readout"}, "all, hidden"),
        ({"learning_rate": -0.1}, "0 or above"),
        ({"learning_rate": np.ones(2)}, "one number"),
        ({"horizon": 0.0}, "above 0"),
        ({"richness": -1.0}, "above 0"),
        ({"inputs": np.full((2, 3, 5), np.nan)}, "NaN"),
        ({"activation": lambda z: z.sum()}, "must keep both"),
        ({"activation": lambda z: jax.nn.softmax(z)}, "not elementwise"),
        ({"activation": lambda z: (z > 0).astype(int)}, "dtype"),
        ({"activation": lambda z: jnp.asarray(np.tanh(np.asarray(z)))}, "differentiable"),
        ({"loss": lambda f, y: f - y}, "its value"),
        ({"optimizer": "adam"}, "learning_rate -> optax"),
    ],
)
def test_problem_refusals(change, message):
    arguments = {"inputs": np.ones((2, 3, 5)), "targets": np.ones((2, 3, 1)), "learning_rate": 0.1} | change
    with pytest.raises(ValueError) as error:
        nfd.Problem(**arguments)
    assert message in str(error.value)


def test_only_depth_mup_has_a_limit(make_problem):
    with pytest.raises(ValueError, match="depth_mup"):
        nfd.solve_limit(
            make_problem(parametrization="mup"), particles=16, depth_steps=4, key=jax.random.key(0)
        )


@pytest.mark.parametrize("simulator", ["dense", "matrix_free", "limit"])
def test_calls_are_vmappable(make_problem, simulator):
    """Over keys and learning rates, equal to one call at a time."""
    problem = make_problem()

    def loss(key, rate):
        here = dataclasses.replace(problem, learning_rate=rate)
        if simulator == "limit":
            return nfd.solve_limit(here, particles=16, depth_steps=3, key=key).loss
        return nfd.train_finite(here, width=16, depth=3, key=key, simulator=simulator).loss

    keys, rates = jax.random.split(jax.random.key(5), 2), jnp.array([0.1, 0.3])
    together = jax.vmap(loss)(keys, rates)
    for each, key, rate in zip(together, keys, rates, strict=True):
        np.testing.assert_allclose(each, loss(key, rate), rtol=1e-10)


def test_matmul_precision_is_chosen_by_name(make_problem):
    problem, key = make_problem(), jax.random.key(0)
    train = lambda **options: nfd.train_finite(problem, width=8, depth=2, key=key, **options).loss
    np.testing.assert_array_equal(train(), train(matmul_precision="highest"))
    assert np.all(np.isfinite(train(matmul_precision="bfloat16")))
    with pytest.raises(ValueError, match="matmul_precision must be one of highest, tensorfloat32.*tf32"):
        train(matmul_precision="tf32")
    with pytest.raises(ValueError, match="matmul_precision"):
        nfd.solve_limit(problem, particles=8, depth_steps=2, key=key, matmul_precision="fast")
