"""Training of hundreds of steps: what bounded histories cost and what they change, and the cost of linear
optimizers. All long."""

from time import perf_counter

import jax
import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax.config import SweepConfig
from nfd_jax.optimizers import Settings

pytestmark = pytest.mark.long

PARTICLES, EULER = 2048, 16


@pytest.fixture(autouse=True)
def single_precision():
    with jax.enable_x64(False):
        yield


def digits(steps: int, pool: int, **options) -> nfd.Problem:
    """`steps` batches of 4 from a pool of digits, shuffled each pass, in float32."""
    learning = {"steps": steps, "batch_size": 4, "batches": "epochs", "pool": pool} | options
    problem = {"dataset": "digits", "classes": [0, 1]} | learning
    finite = {"simulator": "dense", "widths": [8], "depths": [2]}
    tree = {"name": "digits", "precision": "float32", "problem": problem, "finite": finite}
    return nfd.Problem.from_config(SweepConfig.model_validate(tree))


def solved(problem: nfd.Problem, **options) -> tuple[np.ndarray, float, float]:
    """Outputs of the limit, the seconds it ran without compiling, and the bytes its program needs."""
    solve = lambda p: nfd.solve_limit(p, key=jax.random.key(0), **options).output
    program = jax.jit(solve).lower(problem).compile()
    sizes, start = program.memory_analysis(), perf_counter()
    found = np.asarray(program(problem))
    return found, perf_counter() - start, sizes.temp_size_in_bytes + sizes.output_size_in_bytes


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def test_a_thousand_steps_on_a_pool_of_32():
    """N = 2048, M = 16, P = 4: memory does not grow with the steps, time no faster than they, and at K = 250
    the bounded limit is the exact one on the same noise at a quarter of its time at most."""
    sizes = {"particles": PARTICLES, "depth_steps": EULER}
    runs = {K: solved(digits(K, 32, learning_rate=0.1), **sizes, directions=256) for K in (250, 500, 1000)}
    growth = lambda place: np.log(runs[1000][place] / runs[250][place]) / np.log(4)
    exact, seconds, size = solved(digits(250, 32, learning_rate=0.1), **sizes)
    found = {
        "exponent of time": growth(1),
        "exponent of memory": growth(2),
        "rms of f": rms(runs[250][0] - exact),
        "times as fast": seconds / runs[250][1],
        "MB": {K: round(run[2] / 2**20) for K, run in runs.items()} | {"exact, 250": round(size / 2**20)},
        "seconds": {K: round(run[1], 1) for K, run in runs.items()} | {"exact, 250": round(seconds, 1)},
    }
    print(found)
    assert found["exponent of time"] < 1.1 and found["exponent of memory"] < 0.1
    assert found["rms of f"] < 1e-2 and found["times as fast"] > 4


def test_three_hundred_steps_on_a_pool_of_64():
    """As configs/long.yaml trains: under five minutes, and as with twice the directions and half the
    tolerance."""
    problem = digits(
        300,
        64,
        learning_rate=0.02,
        optimizer={"name": "sgd", "momentum": 0.9},
        schedule={"name": "cosine", "warmup_steps": 10},
    )
    sizes = {"particles": 512, "depth_steps": 32}
    found, seconds, _ = solved(problem, **sizes, directions=256, tolerance=0.1)
    twice, _, _ = solved(problem, **sizes, directions=512, tolerance=0.05)
    print(f"{seconds:.1f} s, rms {rms(found - twice):.1e} of f of rms {rms(twice):.2f}")
    assert seconds < 300 and rms(found - twice) < 1e-2


RUNS = {
    "dense": lambda p: nfd.train_finite(p, width=512, depth=16, key=jax.random.key(0)),
    "matrix_free": lambda p: nfd.train_finite(
        p, width=1024, depth=16, key=jax.random.key(0), simulator="matrix_free"
    ),
    "limit": lambda p: nfd.solve_limit(p, particles=1024, depth_steps=16, key=jax.random.key(0)),
    "bounded": lambda p: nfd.solve_limit(
        p, particles=1024, depth_steps=16, key=jax.random.key(0), directions=64
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_linear_optimizers_cost_what_plain_sgd_costs(name):
    """Medians of 15 pairs in turn: momentum, Nesterov, weight decay and a schedule at once, at most 1.1 times
    plain SGD."""
    rng, run = np.random.default_rng(0), RUNS[name]
    x, y = rng.standard_normal((16, 4, 16)).astype("f4"), rng.standard_normal((16, 4, 1)).astype("f4")
    rule = Settings(momentum=0.9, nesterov=True, weight_decay=0.1, schedule="cosine", steps=16)
    problems = [nfd.Problem(x, y, np.float32(0.1), optimizer=optimizer) for optimizer in (None, rule)]
    samples = []
    for _ in range(16):  # the first compiles
        seconds = []
        for problem in problems:
            start = perf_counter()
            jax.block_until_ready(run(problem).output)
            seconds.append(perf_counter() - start)
        samples.append(seconds)
    plain, all_at_once = np.transpose(samples[1:])
    ratio = float(np.median(all_at_once / plain))
    print(f"{name}: {ratio:.3f} times plain SGD, {np.median(plain):.3f} s")
    assert ratio <= 1.1
