"""(c): a step of a dense network, forward, backward and update, against one matrix product of the same number of operations.

The product is (3 L P, n) @ (n, n): as many operations as the 3 L products (P, n) @ (n, n) of a step of L layers, in the shape that suits
the hardware best. The weights of a few layers exceed every cache, as those of a whole network do.
"""

from functools import partial

import jax
import jax.numpy as jnp

from nfd_jax.finite._draws import Initial
from nfd_jax.finite._grid import Shape, train
from nfd_jax.problem import Problem

from ._tools import Figure, alternate, compiled, matmul, median

DIM = 8


def measure(quick: bool) -> list[Figure]:
    accelerator = jax.default_backend() != "cpu"
    widths = [32] if quick else [256, 512, 1024, 2048, 4096] + ([8192] if accelerator else [])
    batches = [4] if quick else [16, 256]
    return [_step(n, rows, 1 if quick else 5) for rows in batches for n in widths]


def _step(n: int, rows: int, repeats: int) -> Figure:
    """Seconds of K steps, of which all but the last have a backward pass and an update."""
    layers = max(2, min(32, 2**25 // n**2))
    steps = 4 if n >= 1024 else 8
    ours, _ = compiled(partial(train, shape=Shape("explicit", ("reused",), n, layers, 1, 1)), *_arguments(n, rows, layers, steps))
    arguments = _arguments(n, rows, layers, steps)
    samples = alternate({"train": lambda: ours(*arguments), "matmul": matmul(3 * layers * rows, n)}, repeats)
    operations = 2 * rows * n * n * layers * (3 * steps - 2)
    rate = operations / median(samples["train"])
    limit = 2 * 3 * layers * rows * n * n / median(samples["matmul"])
    goal = 0.5 if n >= 1024 and rows >= 256 else None
    note = f"{rate / 1e9:.0f} of {limit / 1e9:.0f} GFLOP/s, {layers} layers"
    return Figure(f"c n={n}, batch {rows}", "dense step / matrix product, FLOP/s", rate / limit, at_least=goal, samples=samples, note=note)


def _arguments(n: int, rows: int, layers: int, steps: int) -> tuple:
    key = iter(jax.random.split(jax.random.key(0), 5))
    normal = lambda *shape: jax.random.normal(next(key), shape)
    problem = Problem(normal(steps, rows, DIM), normal(steps, rows, 1), 0.1)
    initial = Initial(normal(1, n, DIM), normal(1, n, 1), normal(layers, 1, n, n))
    return problem, None, initial, jnp.full(1, 0.1), jnp.asarray(n), jnp.asarray(layers)
