"""`train_grid`, one program over width, depth, key and flag, against a call of `train_finite` for each of its
networks."""

import jax
import numpy as np

import nfd_jax as nfd

from ._tools import Figure, alternate, median, once

STEPS, BATCH, DIM = 10, 16, 32


def measure(quick: bool) -> list[Figure]:
    sizes = ((8, 16), (2, 4), 2) if quick else ((128, 256), (4, 16), 4)
    return [_against_calls(simulator, *sizes, 1 if quick else 3) for simulator in ("dense", "matrix_free")]


def _against_calls(simulator: str, widths: tuple, depths: tuple, keys: int, repeats: int) -> Figure:
    """Both are compiled before; calls of one shape share a program."""
    steps = STEPS if simulator == "dense" else 4  # the narrowest matrix-free network holds K·P ≤ n samples
    problem, flags = _problem(steps, BATCH if widths[0] > 2 * BATCH else 2), ("reused", "independent")
    drawn = jax.random.split(jax.random.key(0), keys)
    common = {"simulator": simulator}
    grid = lambda: nfd.train_grid(problem, widths=widths, depths=depths, keys=drawn, **common).loss
    each = [
        {"width": n, "depth": depth, "key": key, "backward_weights": flag, **common}
        for n in widths
        for depth in depths
        for flag in flags
        for key in drawn
    ]
    calls = lambda: [nfd.train_finite(problem, **one).loss for one in each]
    first = {"grid": once(grid), "calls": once(calls)}
    samples = alternate({"grid": grid, "calls": calls}, repeats)
    ours, theirs = (median(samples[name]) for name in ("grid", "calls"))
    note = f"{ours:.3g} s / {theirs:.3g} s, {len(each)} networks; with compiling {first['grid']:.3g} s / "
    return Figure(
        f"grid {simulator}",
        f"train_grid / one call a network, {simulator}",
        ours / theirs,
        samples={"runs": samples, "first": first},
        note=note + f"{first['calls']:.3g} s",
    )


def _problem(steps: int, batch: int) -> nfd.Problem:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((batch, DIM)), rng.standard_normal((batch, 1))
    every = lambda a: np.repeat(a[None].astype("float32"), steps, axis=0)
    return nfd.Problem(every(x), every(y), 0.1)
