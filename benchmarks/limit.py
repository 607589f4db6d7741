"""(e): the limit solved with diffrax against the same scheme in a plain loop, and against the memory traffic
it cannot avoid.

The matrix-free network of as many layers as the limit has Euler steps is the same scheme, layer by layer in a
`fori_loop`.
"""

import jax
import numpy as np

from nfd_jax import training
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.limit import Limit
from nfd_jax.noise import sample_noise
from nfd_jax.problem import Problem

from ._tools import Figure, alternate, bandwidth, compiled, median, once

STEPS, BATCH, DIM = 5, 4, 8


def measure(quick: bool) -> list[Figure]:
    if quick:
        return [_against_loop(64, 4, 1), _against_bandwidth(64, 4, 1), _many_particles(64)]
    on_accelerator = jax.default_backend() != "cpu"
    particles = _many_particles(10**6) if on_accelerator else _unmeasured()
    return [
        _against_loop(1024, 128, 9),
        _against_loop(8192, 32, 9),
        _against_bandwidth(65536, 16, 3),
        particles,
    ]


def _problem(steps: int = STEPS) -> Problem:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((steps, BATCH, DIM)), rng.standard_normal((steps, BATCH, 1))
    return Problem(x.astype("float32"), y.astype("float32"), 0.1)


def _limit(problem: Problem, reuse: jax.Array, steps: int, n: int) -> Limit:
    return Limit(problem, reuse, steps, n)


def _solver(interior, n: int, steps: int):
    """The limit on given noise, compiled, its arguments bound."""
    problem = _problem()
    noise = sample_noise(problem, width=n, depth=steps, key=jax.random.key(0))

    def solve(problem, noise):
        with jax.default_matmul_precision("highest"):
            return training.train(problem, noise, interior(problem, jax.numpy.ones(()), steps, n))

    executable, stages = compiled(solve, problem, noise)
    return lambda: executable(problem, noise), stages


def _against_loop(n: int, steps: int, repeats: int) -> Figure:
    runs, stages = {}, {}
    for name, interior in (("diffrax", _limit), ("loop", MatrixFree.of)):
        runs[name], stages[name] = _solver(interior, n, steps)
    samples = alternate(runs, repeats)
    ratio = median(samples["diffrax"]) / median(samples["loop"])
    note = (
        f"{median(samples['diffrax']):.3g} s / {median(samples['loop']):.3g} s, medians of {repeats} in turn"
    )
    what = "diffrax / the same scheme in a loop"
    return Figure(
        f"e loop N={n}, M={steps}",
        what,
        ratio,
        at_most=1.05,
        samples={"runs": samples, "stages": stages},
        note=note,
    )


def _against_bandwidth(n: int, steps: int, repeats: int) -> Figure:
    """Each Euler step must read its layer once: bases and noise of both families, K·P rows of n numbers."""
    solve, stages = _solver(_limit, n, steps)
    copy, moved = bandwidth(2**18 if n < 1024 else 2**26)
    samples = alternate({"solve": solve, "copy": copy}, repeats)
    history = STEPS * 2 * steps * 4 * STEPS * BATCH * n * 4
    rate, limit = history / median(samples["solve"]), moved / median(samples["copy"])
    note = f"{rate / 1e9:.2g} of {limit / 1e9:.2g} GB/s, N = {n}, M = {steps}"
    what = "bytes of history / s over measured bandwidth"
    return Figure(
        "e bandwidth",
        what,
        rate / limit,
        at_least=0.5,
        samples={"runs": samples, "stages": stages},
        note=note,
    )


def _many_particles(n: int) -> Figure:
    solve, stages = _solver(_limit, n, 16)
    once(solve)
    seconds = [once(solve) for _ in range(3)]
    found = {"runs": seconds, "stages": stages}
    return Figure(
        "e particles", f"limit of {n} particles, 16 Euler steps", median(seconds), "s", samples=found
    )


def _unmeasured() -> Figure:
    return Figure(
        "e particles",
        "limit of 10⁶ particles, 16 Euler steps",
        None,
        "s",
        note="not measured: no accelerator",
    )
