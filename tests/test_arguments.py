"""What public calls take, and the one ValueError with which they refuse the rest."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import config

import nfd_jax as nfd

KEY = jax.random.key(0)


def of_shape(steps=2, rows=2, dim=3, outputs=1, dtype="float64", **options):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((steps, rows, dim)), rng.standard_normal((steps, rows, outputs))
    return nfd.Problem(x.astype(dtype), y.astype(dtype), 0.1, **options)


PROBLEM = of_shape()
CALLS = {
    "train_finite": lambda p, **options: nfd.train_finite(
        p, **{"width": 8, "depth": 2, "key": KEY} | options
    ),
    "solve_limit": lambda p, **options: nfd.solve_limit(
        p, **{"particles": 8, "depth_steps": 2, "key": KEY} | options
    ),
    "train_grid": lambda p, **options: nfd.train_grid(
        p, **{"widths": [8], "depths": [2], "keys": KEY} | options
    ),
    "train_with_innovations": lambda p: nfd.train_with_innovations(p, width=8, depth=2, key=KEY),
    "estimate_limit": lambda p, **options: nfd.estimate_limit(p, **{"tolerance": 0.5, "key": KEY} | options),
    "sample_noise": lambda p: nfd.sample_noise(p, width=8, depth=2, key=KEY),
    "keyed_noise": lambda p: nfd.keyed_noise(p, width=8, depth=2, key=KEY),
    "init_kernels": lambda p, ts=(0.0, 1.0): nfd.init_kernels(p, ts=ts),
    "first_order_change": lambda p: nfd.first_order_change(p),
    "first_step_gain": lambda p: nfd.first_step_gain(p),
    "lazy_limit": lambda p: nfd.lazy_limit(p, backward_weights="reused"),
}


@pytest.fixture(autouse=True)
def as_for_users():
    """Without the check of types that tests put before each function."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("draw", [nfd.sample_noise, nfd.keyed_noise])
@pytest.mark.parametrize(
    "other, what",
    [
        ({"steps": 3}, "it has K = 2; this problem has K = 3:"),
        ({"rows": 1}, "it has P = 2; this problem has P = 1:"),
        ({"dim": 4}, "it has d = 3; this problem has d = 4:"),
        ({"outputs": 2}, "it has C = 1; this problem has C = 2:"),
        ({"dtype": "float32"}, "it has dtype = float64; this problem has dtype = float32:"),
        ({"steps": 3, "outputs": 2}, "it has K = 2, C = 1; this problem has K = 3, C = 2:"),
    ],
)
def test_noise_of_another_problem_is_refused_by_what_differs(draw, other, what):
    noise = draw(PROBLEM, width=8, depth=2, key=KEY)
    for call in (nfd.solve_limit, lambda p, noise: nfd.train_finite(p, noise=noise, simulator="matrix_free")):
        with pytest.raises(ValueError, match=what):
            call(of_shape(**other), noise=noise)


def test_noise_of_many_networks_or_of_parts_that_differ_is_refused():
    keys = jax.random.split(KEY, 2)
    many = jax.vmap(lambda key: nfd.sample_noise(PROBLEM, width=8, depth=2, key=key))(keys)
    noise = nfd.sample_noise(PROBLEM, width=8, depth=2, key=KEY)
    torn = eqx.tree_at(lambda n: n.backward, noise, noise.backward[:, :1])
    for wrong in (many, torn):
        with pytest.raises(ValueError, match=r"noise must be U \(n, d\).* received U \("):
            nfd.train_finite(PROBLEM, noise=wrong, simulator="matrix_free")


@pytest.mark.parametrize(
    "depth, what", [(0, "positive integer"), (2.0, "positive integer"), (True, "positive")]
)
def test_depths_that_noise_cannot_have(depth, what):
    noise = nfd.sample_noise(PROBLEM, width=8, depth=4, key=KEY)
    keyed = nfd.keyed_noise(PROBLEM, width=8, depth=4, key=KEY)
    for change in (noise.coarsen, keyed.coarsen, lambda depth: noise.refine(depth, KEY)):
        with pytest.raises(ValueError, match=f"depth must be a {what}.*; received {depth}"):
            change(depth)
    for change in (noise.coarsen, keyed.coarsen):
        with pytest.raises(ValueError, match="depth 3 must divide the noise's depth 4"):
            change(3)
    with pytest.raises(ValueError, match="depth 6 must be a multiple of the noise's depth 4"):
        noise.refine(6, KEY)


@pytest.mark.parametrize("kind", [np.int64, np.int32, lambda n: np.asarray(n), lambda n: jnp.asarray(n)])
def test_sizes_are_any_integers(kind):
    """And give the same numbers, from the same programs."""
    options = {"key": KEY, "simulator": "matrix_free"}
    plain = nfd.train_finite(PROBLEM, width=8, depth=4, grid=2, directions=4, **options)
    again = nfd.train_finite(
        PROBLEM,
        width=kind(8),
        depth=kind(4),
        grid=kind(2),
        directions=kind(4),
        tolerance=np.float32(0.05),
        **options,
    )
    np.testing.assert_allclose(again.output, plain.output, rtol=1e-6)
    np.testing.assert_array_equal(
        nfd.solve_limit(PROBLEM, particles=kind(8), depth_steps=kind(4), key=KEY).output,
        nfd.solve_limit(PROBLEM, particles=8, depth_steps=4, key=KEY).output,
    )
    grid = nfd.train_grid(PROBLEM, widths=[kind(8)], depths=[kind(2), 4], keys=KEY)
    assert grid.loss.shape == (1, 2, 1, 1, 2, 2)
    assert nfd.train_with_innovations(PROBLEM, width=kind(8), depth=kind(2), key=KEY)[1].depth == 2
    noise = nfd.sample_noise(PROBLEM, width=kind(8), depth=kind(4), key=KEY)
    assert (noise.coarsen(kind(2)).depth, noise.refine(kind(8), KEY).depth, noise.narrow(kind(3)).width) == (
        2,
        8,
        3,
    )
    coarse = nfd.keyed_noise(PROBLEM, width=kind(8), depth=kind(4), key=KEY).coarsen(kind(2))
    assert type(coarse.depth) is int and type(coarse.fine) is int
    np.testing.assert_array_equal(
        nfd.first_order_change(PROBLEM, points=kind(5)), nfd.first_order_change(PROBLEM, points=5)
    )
    assert nfd.train_finite(PROBLEM, noise=noise, width=kind(8), simulator="matrix_free").output.shape == (
        2,
        2,
        1,
    )


@pytest.mark.parametrize(
    "size", [2.0, np.float64(2), True, np.bool_(True), jnp.asarray(2.0), "2", [2], np.ones(1, int)]
)
def test_sizes_are_nothing_but_integers(size):
    calls = {
        "width": lambda: nfd.train_finite(PROBLEM, width=size, depth=2, key=KEY),
        "depth_steps": lambda: nfd.solve_limit(PROBLEM, particles=8, depth_steps=size, key=KEY),
        "grid": lambda: CALLS["train_finite"](PROBLEM, grid=size),
        "directions": lambda: CALLS["solve_limit"](PROBLEM, directions=size),
        "kernels": lambda: CALLS["estimate_limit"](PROBLEM, kernels=size),
        "(each of )?depths": lambda: CALLS["train_grid"](PROBLEM, depths=[size]),
        "points": lambda: nfd.first_order_change(PROBLEM, points=size),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name} must be .*; received"):
            call()


def test_a_size_that_is_traced_is_refused():
    with pytest.raises(ValueError, match="width must be a positive integer; .* not known while tracing"):
        jax.jit(lambda n: nfd.train_finite(PROBLEM, width=n, depth=2, key=KEY).loss)(8)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "part, value, what",
    [
        (
            "learning_rate",
            jnp.ones(3),
            r"learning_rate must be one number; received an array of shape \(3,\)",
        ),
        (
            "learning_rate",
            jnp.asarray(jnp.nan),
            "learning_rate must be a finite number 0 or above; received nan",
        ),
        ("horizon", jnp.asarray(jnp.nan), "horizon must be a finite number above 0; received nan"),
        ("horizon", jnp.asarray(jnp.inf), "horizon must be a finite number above 0; received inf"),
        ("horizon", jnp.asarray(0.0), "horizon must be a finite number above 0; received 0"),
        ("horizon", jnp.ones(2), r"horizon must be one number; received an array of shape \(2,\)"),
        ("richness", jnp.asarray(-1.0), "richness must be a finite number above 0; received -1"),
        ("inputs", jnp.full((2, 2, 3), jnp.nan), "inputs holds NaN or infinity; allowed: finite numbers"),
        ("targets", jnp.full((2, 2, 1), jnp.inf), "targets holds NaN or infinity; allowed: finite numbers"),
        ("inputs", jnp.ones((4, 2, 2, 3)), r"inputs must be \(K, P, d\) .* received \(4, 2, 2, 3\)"),
    ],
)
def test_what_came_into_a_problem_after_its_construction_is_refused_by_every_call(name, part, value, what):
    with pytest.raises(ValueError, match=what):
        CALLS[name](eqx.tree_at(lambda p: getattr(p, part), PROBLEM, value))


def test_batches_that_come_to_differ_are_refused_where_outputs_are_centered():
    x, y = np.ones((2, 1, 3)), np.ones((2, 1, 1))
    differ = lambda problem: eqx.tree_at(lambda p: p.inputs, problem, jnp.asarray(x * [[[1]], [[2]]]))
    with pytest.raises(ValueError, match="inputs must be one batch at every step, as when the problem was"):
        nfd.train_finite(differ(nfd.Problem(x, y, 0.1, centered=True)), width=8, depth=2, key=KEY)
    nfd.train_finite(differ(nfd.Problem(x, y, 0.1)), width=8, depth=2, key=KEY)


def test_an_estimate_cannot_be_traced():
    with pytest.raises(ValueError, match="estimate_limit decides on samples .* received a traced problem"):
        jax.jit(lambda problem: nfd.estimate_limit(problem, tolerance=0.1, key=KEY).output)(PROBLEM)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match=f"inputs must be float32 or float64; received {jnp.dtype(dtype)}"):
        nfd.Problem(jnp.ones((1, 1, 2), dtype), jnp.ones((1, 1, 1), dtype), 0.1)


def test_centered_outputs_of_batches_that_differ_have_no_coupling_of_matrices():
    x, y = np.arange(6.0).reshape(2, 1, 3), np.ones((2, 1, 1))
    problem, size = nfd.Problem(x, y, 0.1, centered=True), {"width": 8, "depth": 2, "key": KEY}
    with pytest.raises(ValueError, match="record: centered outputs of batches that differ have no coupling"):
        nfd.train_finite(problem, **size, simulator="dense", record=("coupling",))
    nfd.train_finite(problem, **size, simulator="matrix_free", record=("coupling",))


@pytest.mark.parametrize("name", CALLS)
def test_only_a_problem_is_a_problem(name):
    with pytest.raises(TypeError, match="problem must be a nfd_jax.Problem; received dict"):
        CALLS[name]({})


@pytest.mark.parametrize("part", ["learning_rate", "horizon", "richness"])
@pytest.mark.parametrize("value", ["1", None, True, 1j, np.nan, np.inf, -1, [1.0], np.ones((1, 1))])
def test_numbers_of_a_problem_are_finite_numbers(part, value):
    x, y = np.ones((1, 1, 2)), np.ones((1, 1, 1))
    with pytest.raises(ValueError, match=f"{part} must be (a finite|one) number.*; received"):
        nfd.Problem(x, y, **({"learning_rate": 0.1} | {part: value}))


@pytest.mark.parametrize("values", ["a", None, 1j * np.ones((1, 1, 1)), [[1], [1, 2]], KEY, object()])
def test_arrays_of_a_problem_are_real_numbers(values):
    good = np.ones((1, 1, 1))
    for name, arrays in (("inputs", (values, good)), ("targets", (good, values))):
        with pytest.raises(ValueError, match=f"{name} must be an array of numbers; received"):
            nfd.Problem(*arrays, 0.1)


@pytest.mark.parametrize("call", ["train_finite", "solve_limit", "estimate_limit"])
@pytest.mark.parametrize(
    "heldout, what",
    [
        (np.full((2, 3), np.nan), "heldout holds NaN or infinity"),
        ("a", r"heldout must be \(H, 3\), inputs of the problem's d = 3; received str"),
        (np.ones(3), r"heldout must be \(H, 3\), inputs of the problem's d = 3; received \(3,\)"),
        (np.ones((0, 3)), r"heldout must be \(H, 3\), inputs of the problem's d = 3; received \(0, 3\)"),
    ],
)
def test_heldout_inputs_that_no_network_takes(call, heldout, what):
    with pytest.raises(ValueError, match=what):
        CALLS[call](PROBLEM, heldout=heldout)


@pytest.mark.parametrize(
    "call, options, what",
    [
        ("estimate_limit", {"tolerance": np.nan}, "tolerance must be a number of at least .*; received nan"),
        ("estimate_limit", {"tolerance": "a"}, "tolerance must be a number of at least .*; received 'a'"),
        ("estimate_limit", {"tolerance": True}, "tolerance must be a number of at least .*; received True"),
        ("estimate_limit", {"max_seconds": np.nan}, "max_seconds must be positive or None; received nan"),
        ("estimate_limit", {"max_seconds": "a"}, "max_seconds must be positive or None; received 'a'"),
        (
            "solve_limit",
            {"directions": 4, "tolerance": "a"},
            "tolerance must be a number from 0 .*; received 'a'",
        ),
        ("solve_limit", {"directions": 4, "tolerance": np.nan}, "tolerance must be a number from 0 .* nan"),
        ("solve_limit", {"record": 5}, "record must be a list of features, .*; received 5"),
        ("solve_limit", {"record": ("features", 3)}, "record must be one of features, .*; received 3"),
        ("solve_limit", {"key": jax.random.split(KEY, 2)}, r"key must be one key; .* of shape \(2,\)"),
        ("train_grid", {"keys": jax.random.split(KEY, (2, 2))}, r"keys must be .* list .* shape \(2, 2\)"),
        ("train_grid", {"learning_rates": [0.1, np.nan]}, "learning_rates holds NaN or infinity"),
        (
            "train_grid",
            {"learning_rates": [0.1, -1.0]},
            "learning_rates must be a nonempty list .* received -1",
        ),
        ("train_grid", {"learning_rates": []}, r"learning_rates must be a nonempty list .* shape \(0,\)"),
        (
            "train_grid",
            {"learning_rates": [[0.1]]},
            r"learning_rates must be a nonempty list .* shape \(1, 1\)",
        ),
        (
            "init_kernels",
            {"ts": (-0.1, 1)},
            r"ts must be a list of times in \[0, 1\]; received \[-0.1, 1.0\]",
        ),
        ("init_kernels", {"ts": (0, 1.1)}, r"ts must be a list of times in \[0, 1\]; received \[0.0, 1.1\]"),
        ("init_kernels", {"ts": (0, np.nan)}, "ts holds NaN or infinity"),
        ("init_kernels", {"ts": 0.5}, r"ts must be a list of times in \[0, 1\]; .* shape \(\)"),
        ("init_kernels", {"ts": [[0.5]]}, r"ts must be a list of times in \[0, 1\]; .* shape \(1, 1\)"),
    ],
)
def test_other_arguments_that_cannot_work(call, options, what):
    with pytest.raises(ValueError, match=what):
        CALLS[call](PROBLEM, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_targets_of_cross_entropy_are_distributions(dtype):
    x, raw = np.ones((2, 2, 3), dtype), np.random.default_rng(0).random((2, 2, 7)).astype("float32")
    good = raw / raw.sum(-1, keepdims=True)  # as far as float32 goes
    make = lambda y: nfd.Problem(x, y.astype(dtype), 0.1, loss="cross_entropy")
    assert make(good).outputs == 7
    with pytest.raises(ValueError, match="must be distributions.* received a row that sums to 2"):
        make(2 * good)
    with pytest.raises(ValueError, match="must be distributions.* received -0.25"):
        make(np.array([-0.25, 1.25, 0.0]) * np.ones((2, 2, 3)))
    assert nfd.Problem(x, 2 * good, 0.1).outputs == 7  # with another loss targets are what they are


def test_a_problem_is_a_pytree_of_whatever_leaves():
    leaves, structure = jax.tree.flatten(PROBLEM)
    for stand_in in (None, object(), jax.ShapeDtypeStruct((3,), "float32")):
        jax.tree.unflatten(structure, [stand_in] * len(leaves))
    assert jax.tree.map(jnp.shape, PROBLEM).inputs == (2, 2, 3)

    def loss(x, rate, horizon):
        problem = nfd.Problem(x, PROBLEM.targets, rate, horizon=horizon, activation=lambda z: jnp.tanh(z))
        return nfd.train_finite(problem, width=8, depth=2, key=KEY).loss[-1]

    rates = jnp.array([0.1, 0.2])
    found = jax.jit(jax.vmap(loss, (None, 0, None)))(PROBLEM.inputs, rates, 1.0)
    assert found.shape == (2,) and found[0] != found[1]
    assert np.isfinite(jax.grad(loss, 1)(PROBLEM.inputs, 0.1, 1.0))
    both = jax.vmap(lambda rate: nfd.train_finite(PROBLEM.at_rate(rate), width=8, depth=2, key=KEY).loss)(
        rates
    )
    np.testing.assert_allclose(both[:, -1], found, rtol=1e-12)


SHIPPED = Path(nfd.__file__).parents[1] / "configs" / "quickstart.yaml"


@pytest.mark.parametrize(
    "optimizer,said",
    [(lambda rate: 3, "which gave 3"), (lambda rate: optax.sgd(q=rate), "which raised TypeError")],
)
@pytest.mark.parametrize("call", ["train_finite", "solve_limit"])
def test_what_gives_no_optimizer_is_told(call, optimizer, said):
    problem = of_shape(optimizer=optimizer)
    with pytest.raises(ValueError, match=f"learning_rate -> optax.GradientTransformation; received .*{said}"):
        CALLS[call](problem)


def test_keys_of_a_grid_may_be_a_list():
    keys = jax.random.split(KEY, 2)
    one, other = (CALLS["train_grid"](PROBLEM, keys=given).loss for given in (keys, list(keys)))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="backward_weights must be .* received"):
        CALLS["train_grid"](PROBLEM, backward_weights=None)


def test_seeds_and_overrides_of_a_config():
    config = nfd.load_config(SHIPPED, "seeds=3")
    assert config.seeds == 3 == nfd.load_config(SHIPPED, ["seeds=3"]).seeds
    same = jax.random.key_data(nfd.seed_key(config, np.int64(2)))
    assert np.array_equal(same, jax.random.key_data(nfd.seed_key(config, 2)))
    for wrong in (1.5, -1, None, "0"):
        with pytest.raises(ValueError, match="seed must be an integer, 0 or above; received"):
            nfd.seed_key(config, wrong)
    with pytest.raises(TypeError, match="give the config itself"):
        nfd.seed_key("quickstart.yaml", 0)


def test_a_config_of_another_precision_than_jaxs_is_told():
    config = nfd.load_config(SHIPPED, ["precision=float64"])
    with (
        jax.enable_x64(False),
        pytest.warns(UserWarning, match="asks for float64, and JAX computes in float32"),
    ):
        assert nfd.Problem.from_config(config).dtype == np.float32
    assert nfd.Problem.from_config(config).dtype == np.float64
