"""Several devices give one device's results, and send each other nothing as wide as a layer."""

import json
import os
import re
import subprocess
import sys

import pytest

DEVICES, WIDTH, DEPTH, STEPS, BATCH = 2, 64, 4, 2, 3
COLLECTIVE = re.compile(
    r"= (\S+|\(.*?\)) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


@pytest.fixture(scope="module")
def measured() -> dict:
    """What a process with several CPU devices found: this file, run as a program."""
    env = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("system", ["finite", "limit", "products"])
def test_sharded_coordinates_give_the_results_of_one_device(measured, system):
    found = measured[system]
    assert found["error"] < 1e-10
    assert found["feature_shards"] == [WIDTH // DEVICES] * DEVICES


@pytest.mark.parametrize("system", ["finite", "limit", "products"])
def test_only_averages_over_coordinates_are_sent(measured, system):
    sent = measured[system]["sent"]
    assert {kind for kind, _ in sent} == {"all-reduce"}
    assert max(size for _, size in sent) <= BATCH * STEPS * BATCH < WIDTH // DEVICES


def test_sharded_noise_is_the_same_noise_drawn_in_place(measured):
    assert measured["noise"] == {"equal": True, "sent": [], "shards": [WIDTH // DEVICES] * DEVICES}


def test_the_noise_of_questions_lies_beside_it(measured):
    parts = [WIDTH // DEVICES] * DEVICES
    assert measured["questions"] == {"equal": True, "xi": parts, "xi_back": parts, "inputs": [5] * DEVICES}


def test_a_width_that_cannot_be_shared_out_is_refused(measured):
    received = f"width {WIDTH - 1} cannot be shared out equally among {DEVICES} devices"
    assert measured["refused"] == f"{received}: take a multiple of them"


def test_each_device_keeps_to_its_seeds(measured):
    seeds = measured["seeds"]
    assert seeds["error"] < 1e-12 and seeds["sent"] == []
    assert seeds["shards"] == [2] * DEVICES, "four seeds on two devices"
    assert seeds["odd_shards"] == [3], "three seeds don't divide: one device takes them all"


def _measure() -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from nfd_jax import Problem, gaussian, sample_noise, sharding, solve_limit, train_finite, training
    from nfd_jax._orthogonal import by_products, by_rows
    from nfd_jax.finite._matrix_free import MatrixFree

    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(STEPS, BATCH, 5)), rng.normal(size=(STEPS, BATCH, 1))
    problem = Problem(inputs, targets, 0.5)
    noise = sample_noise(problem, width=WIDTH, depth=DEPTH, key=jax.random.key(0))
    error = lambda a, b: max(
        float(abs(np.asarray(x) - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )
    shards = lambda x, axis: [part.data.shape[axis] for part in x.addressable_shards]

    def run(function, argument) -> tuple:
        """The result, and (kind, elements) of everything that the compiled program sends between devices."""
        compiled = jax.jit(function).lower(argument).compile()
        shapes = lambda result: re.findall(r"\[([\d,]*)\]", result)
        size = lambda shape: int(np.prod([int(n) for n in shape.split(",") if n]))
        found = COLLECTIVE.findall(compiled.as_text())
        return compiled(argument), sorted(
            {(kind, size(shape)) for result, kind in found for shape in shapes(result)}
        )

    def by_products_of_rows(noise):
        """The network as accelerators orthogonalize."""
        gaussian.orthonormalize = by_products
        try:
            return training.train(
                problem, noise, MatrixFree.of(problem, jnp.ones(()), DEPTH, noise.width), record=record
            )
        finally:
            gaussian.orthonormalize = by_rows

    record, spread = ("features", "gradients"), sharding.shard_noise(noise)
    systems = {
        "finite": lambda noise: train_finite(
            problem, width=WIDTH, depth=DEPTH, simulator="matrix_free", noise=noise, record=record
        ),
        "limit": lambda noise: solve_limit(
            problem, particles=WIDTH, depth_steps=DEPTH, backward_weights="reused", noise=noise, record=record
        ),
        "products": by_products_of_rows,
    }
    out: dict = {}
    for name, system in systems.items():
        several, sent = run(system, spread)
        error_of = error(system(noise), several)
        out[name] = {"error": error_of, "sent": sent, "feature_shards": shards(several.features, -1)}

    draw = lambda key: sharding.sample_sharded_noise(problem, width=WIDTH, depth=DEPTH, key=key)
    drawn, sent = run(draw, jax.random.key(0))
    out["noise"] = {"equal": error(noise, drawn) == 0, "sent": sent, "shards": shards(drawn.U, 0)}
    asked = training.probe_questions(problem, DEPTH, WIDTH, jax.random.key(1))
    apart = sharding.shard_questions(asked)
    lies = {name: shards(getattr(apart, name), -1) for name in ("xi", "xi_back", "inputs")}
    out["questions"] = {"equal": error(asked, apart) == 0} | lies
    assert sharding.shard_questions(None) is None
    try:
        sharding.shard_noise(noise.narrow(WIDTH - 1))
    except ValueError as refused:
        out["refused"] = str(refused)

    settled = lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y + jnp.tanh(x @ y), jnp.ones_like(x))
    every = lambda x: sharding.map_seeds(settled, x)
    blocks = jnp.asarray(rng.normal(size=(4, 8, 8)))
    mapped = jax.jit(every)(blocks)
    _, sent = run(every, mapped)  # from where the seeds lie already
    out["seeds"] = {
        "error": error(jax.lax.map(settled, blocks), mapped),
        "sent": sent,
        "shards": shards(mapped, 0),
        "odd_shards": shards(jax.jit(every)(blocks[:3]), 0),
    }
    return out


if __name__ == "__main__":
    json.dump(_measure(), sys.stdout)
