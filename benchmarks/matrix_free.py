"""(d): networks without weight matrices against our own dense ones, in time and memory, and how their cost
grows."""

import jax
import numpy as np

from nfd_jax._orthogonal import by_products, by_rows
from nfd_jax.finite import train_finite
from nfd_jax.finite._engine import Grid, compile_grid, train_grids
from nfd_jax.problem import Problem

from ._tools import Figure, alternate, compiled, median, once, peak_bytes, slope

DEPTH, STEPS, BATCH, DIM = 32, 5, 4, 8


def measure(quick: bool) -> list[Figure]:
    if quick:
        return [
            *_against_dense(64, 2, 1),
            *_growth({"n": [64, 128], "L": [2, 4], "K": [1, 2]}, 64, 4, 1),
            _orthogonal(64, 2, 1),
        ]
    against = [figure for n in (1024, 4096) for figure in _against_dense(n, DEPTH, 1 if n > 2048 else 2)]
    growth = _growth(
        {"n": [2048, 4096, 8192, 16384], "L": [8, 16, 32, 64], "K": [2, 5, 10, 20]}, 4096, DEPTH, 3
    )
    return against + growth + [_orthogonal(4096, rows, 5) for rows in (4, 16)]


def _problem(steps: int) -> Problem:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((steps, BATCH, DIM)), rng.standard_normal((steps, BATCH, 1))
    return Problem(x.astype("float32"), y.astype("float32"), 0.1)


def _matrix_free(n: int, depth: int, steps: int):
    problem, key = _problem(steps), jax.random.key(0)
    train = lambda problem, key: train_finite(problem, width=n, depth=depth, key=key, simulator="matrix_free")
    executable, stages = compiled(train, problem, key)
    return lambda: executable(problem, key), executable, stages


def _against_dense(n: int, depth: int, repeats: int) -> list[Figure]:
    """Both draw what they need and train for all steps; the dense one is the engine's, one network of it."""
    ours, executable, stages = _matrix_free(n, depth, STEPS)
    grid = Grid(n, (depth,), (0,), (0.1,), ("reused",), 1)
    problem = _problem(STEPS)
    dense_program = compile_grid(problem, None, grid)
    dense = lambda: train_grids(problem, None, 0, [grid])
    once(ours)
    fast = [once(ours) for _ in range(2 * repeats + 1)]
    slow = [once(dense) for _ in range(repeats)]
    weights = 4 * depth * n**2
    found = {
        "matrix_free": {"seconds": fast, "bytes": peak_bytes(executable)} | stages,
        "dense": {
            "seconds": slow,
            "bytes": peak_bytes(dense_program.run),
            "build": dense_program.build,
            "compile": dense_program.compile,
        },
        "weights_bytes": weights,
    }
    faster, smaller = median(slow) / median(fast), weights / peak_bytes(executable)
    goals = (20.0, 15.0) if n == 4096 else (None, None)
    what = f"L = {depth}, K·P = {STEPS * BATCH}"
    times = f"{median(fast):.3g} s / {median(slow):.3g} s"
    sizes = f"{peak_bytes(executable) / 2**20:.0f} MiB / weights {weights / 2**20:.0f} MiB"
    return [
        Figure(
            f"d time n={n}",
            f"matrix-free faster than dense, {what}",
            faster,
            "×",
            at_least=goals[0],
            samples=found,
            note=times,
        ),
        Figure(
            f"d memory n={n}",
            "less memory than the weights",
            smaller,
            "×",
            at_least=goals[1],
            samples=found,
            note=sizes,
        ),
    ]


def _growth(sizes: dict[str, list[int]], n: int, depth: int, repeats: int) -> list[Figure]:
    """Exponents of run time in width, depth and samples, all else fixed; medians of runs in turn."""
    goals = {"n": 1.1, "L": 1.1}
    figures = []
    for name, values in sizes.items():
        runs = {}
        for value in values:
            at = {"n": n, "L": depth, "K": STEPS} | {name: value}
            runs[value], *_ = _matrix_free(at["n"], at["L"], at["K"])
            once(runs[value])
        samples: dict[int, list[float]] = {value: [] for value in values}
        for _ in range(repeats):
            for value in values:
                samples[value].append(once(runs[value]))
        exponent = slope(values, [median(samples[value]) for value in values])
        note = ", ".join(f"{value}: {median(samples[value]):.3g} s" for value in values)
        what = {"n": "width", "L": "depth", "K": f"steps of {BATCH} samples"}[name]
        figures.append(
            Figure(
                f"d growth {name}",
                f"exponent in {what}",
                exponent,
                at_most=goals.get(name),
                samples=samples,
                note=note,
            )
        )
    return figures


def _orthogonal(n: int, rows: int, repeats: int) -> Figure:
    """The two ways to make a block of rows orthonormal; which one a device takes is fixed, on what was
    measured on CPUs."""
    x = jax.numpy.asarray(np.random.default_rng(0).standard_normal((rows, n)), "float32")
    runs = {}
    for name, form in (("products", by_products), ("rows", by_rows)):
        norms = jax.numpy.linalg.norm(x, axis=1)
        again = lambda x, form=form, norms=norms: jax.lax.fori_loop(
            0, 50, lambda _, y: x + 1e-6 * form(y, norms)[1], x
        )
        executable, _ = compiled(again, x)
        runs[name] = lambda executable=executable: executable(x)
    samples = alternate(runs, repeats)
    ratio = median(samples["products"]) / median(samples["rows"])
    note = f"{median(samples['products']) / 50:.2g} s / {median(samples['rows']) / 50:.2g} s, n = {n}"
    return Figure(
        f"d orthogonal P={rows}", "orthogonalization by products / by rows", ratio, samples=samples, note=note
    )
