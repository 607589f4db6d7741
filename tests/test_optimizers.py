"""Optimizers and schedules: coefficients, one system in every simulator, what is linear and what is
refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _oracle import value_and_gradients
from scipy.stats import ks_2samp

import nfd_jax as nfd
from nfd_jax import optimizers, training
from nfd_jax.finite._dense import initial_weights, train_weights
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.noise import sample_noise
from nfd_jax.optimizers import Settings

PATHS = ("features", "gradients")
ALL = Settings(
    momentum=0.9, nesterov=True, weight_decay=0.2, schedule="cosine", warmup_steps=1, end_factor=0.1, steps=4
)
RULES = {
    "momentum": Settings(momentum=0.9),
    "nesterov": Settings(momentum=0.9, nesterov=True),
    "weight decay": Settings(weight_decay=0.2),
    "cosine": Settings(schedule="cosine", steps=4),
    "all at once": ALL,
}
NONLINEAR = {
    "adam": optax.adam,
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate)),
    "sign": lambda rate: optax.sign_sgd(rate),
}
EACH = [pytest.param(name, marks=() if name == "all at once" else pytest.mark.long) for name in RULES]
FLAGS = ["reused", pytest.param("independent", marks=pytest.mark.long)]


@pytest.mark.parametrize("name", RULES)
def test_coefficients_are_what_optax_makes_of_matrices(name):
    """W(k) = α_k W(0) + Σ_j c_{k,j} G_j for matrices W and gradients G that optax is run on."""
    rng, rate, steps = np.random.default_rng(0), jnp.asarray(0.3), 5
    W, G = jnp.asarray(rng.standard_normal((3, 2))), jnp.asarray(rng.standard_normal((steps, 3, 2)))
    found = optimizers.coefficients(RULES[name], rate, steps)
    rule = RULES[name](rate)
    now, state = W, rule.init(W)
    for k in range(steps):
        np.testing.assert_allclose(
            found.alpha[k] * W + jnp.tensordot(found.steps[k], G, 1), now, rtol=0, atol=1e-14
        )
        updates, state = rule.update(G[k], state, now)
        now = optax.apply_updates(now, updates)
    frozen = optimizers.coefficients(RULES[name], rate, steps, learns=False)
    assert np.all(frozen.alpha == 1) and not np.any(frozen.steps)


@pytest.mark.parametrize("name", EACH)
def test_euler_is_the_network(make_problem, name):
    problem = make_problem(steps=4, rows=2, optimizer=RULES[name], horizon=0.8, stream=True, richness=0.7)
    noise = nfd.sample_noise(problem, width=24, depth=6, key=jax.random.key(2))
    for flag in ("reused", "independent"):
        options = {"noise": noise, "backward_weights": flag, "record": PATHS}
        network, limit = (
            nfd.train_finite(problem, simulator="matrix_free", **options),
            nfd.solve_limit(problem, **options),
        )
        for a, b in zip(jax.tree.leaves(network), jax.tree.leaves(limit), strict=True):
            assert np.max(np.abs(a - b)) <= 1e-12 * max(1.0, np.max(np.abs(a)))


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", EACH)
def test_matrix_free_follows_the_dense_network(make_problem, name, flag):
    problem = make_problem(steps=4, rows=2, optimizer=RULES[name], rate=0.8, richness=0.7)
    size = {"width": 24, "depth": 4, "key": jax.random.key(4)}
    dense, noise = nfd.train_with_innovations(problem, **size, backward_weights=flag)
    options = {"noise": noise, "simulator": "matrix_free", "record": PATHS}
    free = nfd.train_finite(problem, backward_weights=flag, **options)
    for a, b in zip(jax.tree.leaves(dense), jax.tree.leaves(free), strict=True):
        assert np.max(np.abs(a - b)) < 1e-10 * max(1.0, np.max(np.abs(a)))


def distances(one, other):
    """Smallest KS p-value over steps, and largest difference of means of log losses in standard errors."""
    p = min(ks_2samp(a, b).pvalue for a, b in zip(one.T, other.T, strict=True))
    one, other = np.log(one), np.log(other)
    z = np.abs(one.mean(0) - other.mean(0)) / np.sqrt((one.var(0) + other.var(0)) / len(one))
    return p, z.max()


@eqx.filter_jit
def losses(problem, simulator, seeds, width=8, depth=3):
    def dense(key):
        draw = {"width": width, "depth": depth, "key": key, "backward_weights": "reused"}
        return train_weights(problem, initial_weights(problem, **draw), "reused").loss

    def free(key):
        noise = sample_noise(problem, width=width, depth=depth, key=key)
        return training.train(problem, noise, MatrixFree.of(problem, jnp.asarray(1.0), depth, width)).loss

    keys = jax.random.split(jax.random.key(simulator == "dense"), seeds)
    return jax.vmap(dense if simulator == "dense" else free)(keys)


@pytest.mark.long
def test_dense_and_matrix_free_agree_in_law(make_problem):
    """Momentum, weight decay and a schedule together, three steps; the test sees it when updates are
    larger."""
    problem = make_problem(steps=3, rows=2, dim=3, rate=0.5, horizon=1.5, optimizer=ALL._replace(steps=3))
    dense = losses(problem, "dense", 2_000)
    p, z = distances(dense, losses(problem, "matrix_free", 2_000))
    assert p > 1e-4 and z < 4
    other = eqx.tree_at(lambda p: p.learning_rate, problem, jnp.asarray(0.75))
    p, z = distances(dense, losses(other, "matrix_free", 2_000))
    assert p < 1e-6 and z > 6


@pytest.mark.long
@pytest.mark.parametrize("name", RULES)
def test_each_agrees_in_law(make_problem, name):
    problem = make_problem(steps=3, rows=2, dim=3, rate=0.5, horizon=1.5, optimizer=RULES[name])
    p, z = distances(losses(problem, "dense", 20_000), losses(problem, "matrix_free", 20_000))
    assert p > 1e-4 and z < 4


@pytest.mark.parametrize("name, simulator", [("momentum", "matrix_free"), ("nesterov", "dense")])
def test_first_order_of_the_second_step(make_problem, name, simulator):
    """(f_2 − f_0)/(f_1 − f_0) → what optax makes of a scalar with a constant gradient: 2 + μ for momentum
    μ."""
    problem = make_problem(steps=3, rows=1, optimizer=RULES[name])
    rule, gradient, place = RULES[name](jnp.asarray(1.0)), jnp.asarray(1.0), [jnp.asarray(0.0)]
    state = rule.init(place[0])
    for _ in range(2):
        update, state = rule.update(gradient, state, place[-1])
        place.append(place[-1] + update)
    predicted = place[2] / place[1]
    if name == "momentum":
        np.testing.assert_allclose(predicted, 2.9)

    def ratio(rate):
        run = eqx.tree_at(lambda p: p.learning_rate, problem, jnp.asarray(rate))
        f = nfd.train_finite(run, width=12, depth=3, key=jax.random.key(0), simulator=simulator).output[
            :, 0, 0
        ]
        return (f[2] - f[0]) / (f[1] - f[0])

    near, far = ratio(1e-5), ratio(2e-5)
    assert abs(far - predicted) < 2e-3
    np.testing.assert_allclose(2 * near - far, predicted, rtol=2e-6)  # the first order in η drops out


@pytest.mark.parametrize("name", NONLINEAR)
def test_what_is_not_linear_needs_matrices(make_problem, name):
    problem = make_problem(steps=2, rows=1, optimizer=NONLINEAR[name])
    key, size = jax.random.key(0), {"width": 8, "depth": 2}
    assert not optimizers.is_linear(NONLINEAR[name])
    with pytest.raises(ValueError, match="not linear in the gradients"):
        nfd.train_finite(problem, **size, key=key, simulator="matrix_free")
    with pytest.raises(ValueError, match="not linear in the gradients"):
        nfd.train_finite(problem, **size, key=key, simulator="matrix_free", directions=2)
    with pytest.raises(ValueError, match="not linear in the gradients"):
        nfd.solve_limit(problem, particles=8, depth_steps=2, key=key)


def test_what_is_linear_is_found_to_be():
    clipped = lambda rate: optax.chain(optax.clip(1e6), optax.sgd(rate))  # linear only on small gradients
    assert all(map(optimizers.is_linear, (None, optax.sgd, *RULES.values())))
    assert optimizers.is_linear(
        lambda rate: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(rate, 0.9, True))
    )
    assert not optimizers.is_linear(lambda rate: optax.chain(optax.clip(10.0), optax.sgd(rate)))
    assert optimizers.is_linear(clipped)  # beyond every size that is tried, and that networks have


ADAM = {
    "adam": Settings("adam", eps=1e-3),
    "adamw": Settings("adamw", weight_decay=0.3, schedule="linear", steps=4, end_factor=0.5),
}


@pytest.mark.parametrize(
    "name, parametrization",
    [
        ("adamw", "depth_mup"),
        *(pytest.param("adam", name, marks=pytest.mark.long) for name in ("depth_mup", "mup", "vanilla")),
    ],
)
def test_adam_is_optax_on_matrices_in_units_of_their_own(make_problem, name, parametrization):
    """W is held in units of γ/(√n √(TL)) (depth_mup), U and V in γ, and so are the gradients."""
    problem = make_problem(
        steps=4,
        rows=2,
        outputs=2,
        optimizer=ADAM[name],
        richness=0.6,
        horizon=1.4,
        parametrization=parametrization,
        rate=0.05,
    )
    width, depth, T = 6, 3, 1.4
    start = initial_weights(
        problem, width=width, depth=depth, key=jax.random.key(1), backward_weights="reused"
    )
    a = {"depth_mup": (T / depth) ** 0.5, "mup": T**0.5, "vanilla": 1.0}[parametrization]
    layers = depth if parametrization == "depth_mup" else 1
    unit = {"U": 0.6, "V": 0.6, "W": 0.6 / (width**0.5 * a * layers)}
    found = eqx.filter_jit(train_weights)(problem, start, "reused", record=("weights",))
    at = jax.jit(lambda weights, x, y: value_and_gradients(problem, weights, x, y))
    rule = (
        optax.adam(0.05, eps=1e-3)
        if name == "adam"
        else optax.adamw(lambda k: 0.05 * (1 - 0.5 * k / 3), weight_decay=0.3)
    )
    held = {key: getattr(start, key) / unit[key] for key in unit}
    state, weights = rule.init(held), start
    for k, (x, y) in enumerate(zip(problem.inputs, problem.targets, strict=True)):
        loss, f, _, _, grad = at(weights, x, y)
        np.testing.assert_allclose(found.output[k], f, rtol=0, atol=1e-11)
        gradient = {key: getattr(grad, key) / unit[key] for key in unit}
        updates, state = rule.update(gradient, state, held)
        held = optax.apply_updates(held, updates)
        W = held["W"] * unit["W"]
        weights = type(start)(held["U"] * unit["U"], held["V"] * unit["V"], W, W)
    np.testing.assert_allclose(found.weights.W, weights.W, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.weights.U, weights.U, rtol=0, atol=1e-11)


@pytest.mark.parametrize("flag", ["reused", "independent"])
def test_clipping_that_never_happens_changes_nothing(make_problem, flag):
    options = {"steps": 3, "rows": 2, "horizon": 2.0, "richness": 0.3}
    rarely = lambda rate: optax.chain(optax.clip_by_global_norm(500.0), optax.sgd(rate))
    assert not optimizers.is_linear(rarely)
    clipped, plain = (make_problem(**options, optimizer=rule) for rule in (rarely, None))
    run = lambda problem: nfd.train_finite(
        problem, width=9, depth=3, key=jax.random.key(0), simulator="dense", backward_weights=flag
    )
    np.testing.assert_allclose(run(clipped).output, run(plain).output, rtol=1e-10)


LOOKS_AT_MATRICES = {
    "decay of matrices alone": lambda rate: optax.chain(
        optax.add_decayed_weights(0.5, mask=lambda tree: jax.tree.map(lambda x: x.ndim >= 2, tree)),
        optax.sgd(rate),
    ),
    "lamb": lambda rate: optax.lamb(rate, weight_decay=0.1),
}


@pytest.mark.parametrize("name", LOOKS_AT_MATRICES)
def test_backward_weights_of_their_own_are_a_parameter_of_such_rules(make_problem, name):
    """What a rule does to a matrix it does to both, each by itself."""
    problem = make_problem(steps=3, rows=2, optimizer=LOOKS_AT_MATRICES[name], rate=0.2)
    assert not optimizers.is_linear(problem.optimizer)
    start = initial_weights(problem, width=8, depth=2, key=jax.random.key(1), backward_weights="independent")
    found = eqx.filter_jit(train_weights)(problem, start, "independent", record=("gradients",))
    unit = {"U": 1.0, "V": 1.0, "W": 1 / (8 * 2) ** 0.5, "W_backward": 1 / (8 * 2) ** 0.5}
    rule = problem.optimizer(0.2)
    held = {key: getattr(start, key) / unit[key] for key in unit}
    state, weights = rule.init(held), start
    for k, (x, y) in enumerate(zip(problem.inputs, problem.targets, strict=True)):
        _, f, _, b, grad = value_and_gradients(problem, weights, x, y)
        np.testing.assert_allclose(found.output[k], f, rtol=1e-10)
        np.testing.assert_allclose(found.gradients[k], b, rtol=1e-10, atol=1e-12)
        every = {"U": grad.U, "V": grad.V, "W": grad.W, "W_backward": grad.W}
        gradient = {key: every[key] / unit[key] for key in unit}
        updates, state = rule.update(gradient, state, held)
        held = optax.apply_updates(held, updates)
        weights = type(start)(*(held[key] * unit[key] for key in ("U", "V", "W", "W_backward")))


def test_adam_moves_features_alike_at_every_width_and_depth(make_problem):
    """Changes of h under depth-μP's units, with hidden weights alone learning: flat in n and L."""
    problem = make_problem(steps=3, rows=2, optimizer=optax.adam, rate=0.05, train="hidden")
    widths, depths = (32, 128), (4, 32)
    keys = jax.random.split(jax.random.key(0), 2)
    options = {"keys": keys, "backward_weights": ("reused",), "record": ("features",)}
    h = nfd.train_grid(problem, widths=widths, depths=depths, **options).features[:, :, :, 0, 0, :, -1]
    change = np.sqrt(
        np.sum((h[..., 2, :, :] - h[..., 0, :, :]) ** 2, (-2, -1)) / np.array(widths)[:, None, None]
    ).mean(-1)
    assert change.min() > 0.02
    slopes = np.log(change[1] / change[0]) / np.log(4), np.log(change[:, 1] / change[:, 0]) / np.log(8)
    assert np.abs(slopes).max() < 0.2  # without the units the powers are 1/2 and more


def test_learning_rates_of_schedules():
    """Linear warm-up from peak/(w + 1), then constant, linear or half a cosine down to end_factor × peak at
    the last step."""

    def rates(**options):
        settings = Settings(steps=11, **options)
        at = optimizers.coefficients(settings, jnp.asarray(2.0), 12).steps
        return -np.diag(np.asarray(at), -1)[:11]

    down = np.arange(9) / 8
    up = [2 / 3, 4 / 3]
    np.testing.assert_allclose(rates(), 2.0)
    np.testing.assert_allclose(rates(warmup_steps=2), [*up, *np.full(9, 2.0)])
    linear = 2 * (1 - 0.9 * down)
    np.testing.assert_allclose(rates(schedule="linear", warmup_steps=2, end_factor=0.1), [*up, *linear])
    cosine = 2 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * down)))
    np.testing.assert_allclose(rates(schedule="cosine", warmup_steps=2, end_factor=0.1), [*up, *cosine])
    np.testing.assert_allclose(rates(schedule="cosine")[[0, 5, 10]], [2, 1, 0], atol=1e-14)


def test_equal_settings_are_one_optimizer():
    """So that they share compiled programs; plain SGD at a constant rate is None."""

    class Section:
        def __init__(self, **values):
            self.__dict__ |= Settings()._asdict() | values

    assert optimizers.from_settings(Section(), Section(name="constant"), 4) is None
    one, two = (optimizers.from_settings(Section(momentum=0.9), Section(name="cosine"), 4) for _ in range(2))
    assert (
        one == two
        and hash(one) == hash(two)
        and one != optimizers.from_settings(Section(momentum=0.9), Section(name="cosine"), 5)
    )
