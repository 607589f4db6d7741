"""(c): a step of a dense network, forward, backward and update, against one matrix product of the same number
of operations.

The product is (3 L P, n) @ (n, n): as many operations as the 3 L products (P, n) @ (n, n) of a step of L
layers, in the shape that suits the hardware best. The weights of a few layers exceed every cache, as those of
a whole network do.
"""

import jax
import jax.numpy as jnp

from nfd_jax._sizes import Sizes
from nfd_jax.finite._dense import hidden_weights
from nfd_jax.finite._matrices import train
from nfd_jax.finite._updates import Ends
from nfd_jax.problem import Problem

from ._tools import Figure, alternate, compiled, matmul, median

DIM = 8


def measure(quick: bool) -> list[Figure]:
    accelerator = jax.default_backend() != "cpu"
    widths = [32] if quick else [256, 512, 1024, 2048, 4096] + ([8192] if accelerator else [])
    batches = [4] if quick else [16, 256]
    return [_step(n, rows, 1 if quick else 5) for rows in batches for n in widths]


def _step(n: int, rows: int, repeats: int) -> Figure:
    """Seconds of K steps, of which all but the last have an update."""
    layers = max(2, min(32, 2**25 // n**2))
    steps = 4 if n >= 1024 else 8
    arguments = _arguments(n, rows, layers, steps)
    ours, _ = compiled(_train, *arguments)
    samples = alternate({"train": lambda: ours(*arguments), "matmul": matmul(3 * layers * rows, n)}, repeats)
    operations = 2 * rows * n * n * layers * (3 * steps - 1)
    rate = operations / median(samples["train"])
    limit = 2 * 3 * layers * rows * n * n / median(samples["matmul"])
    goal = 0.5 if n >= 1024 and rows >= 256 else None
    note = f"{rate / 1e9:.0f} of {limit / 1e9:.0f} GFLOP/s, {layers} layers"
    return Figure(
        f"c n={n}, batch {rows}",
        "dense step / matrix product, FLOP/s",
        rate / limit,
        at_least=goal,
        samples=samples,
        note=note,
    )


def _arguments(n: int, rows: int, layers: int, steps: int) -> tuple:
    key = iter(jax.random.split(jax.random.key(0), 5))
    normal = lambda *shape: jax.random.normal(next(key), shape)
    problem = Problem(normal(steps, rows, DIM), normal(steps, rows, 1), 0.1)
    return problem, Ends(normal(n, DIM), normal(n, 1)), normal(layers, n, n)


def _train(problem: Problem, ends: Ends, W: jax.Array) -> dict:
    """Losses of a network with explicit weights W (L, n, n)."""
    sizes = Sizes.of(W.shape[-1], W.shape[0], problem.dtype)
    hidden = hidden_weights("explicit", W, W, jnp.ones(()), problem.samples, sizes.width, reused=True)
    observe = lambda memory, seen: (memory, {"loss": seen.loss})
    return train(problem, ends, hidden, sizes, observe, None, places=jnp.zeros(1, int), skip_last=True)[0]
