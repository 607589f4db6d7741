"""(i): time to a digit: `estimate_limit` against one system of N particles and M steps of equal error.

The error of an estimate is what it says of itself, standard error and bias together, rms over the outputs;
tests/test_tolerance.py holds it against costlier references. The one system gets as many particles as give
its outputs that standard deviation, from their variance at fewer particles, and as many steps as bring what
is left of the sum over t under it. Where so many are too many to run, its time is that of fewer, in
proportion: nothing in it costs less when there is more.
"""

import sys
from math import ceil
from time import perf_counter

import jax
import numpy as np

import nfd_jax as nfd

from ._tools import Figure, compiled, median, once, slope

STEPS, BATCH, DIM = 4, 2, 4
MOST = 2**14
"""Particles of the largest single system that is run."""


def measure(quick: bool) -> list[Figure]:
    asked = {"tanh": [3e-2]} if quick else {"tanh": [1e-2, 3e-3, 1e-3], "relu": [1e-2, 3e-3]}
    return [figure for activation, tolerances in asked.items() for figure in _digits(activation, tolerances)]


def _problem(activation: str) -> nfd.Problem:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1, BATCH, DIM)), rng.standard_normal((1, BATCH, 1))
    every = lambda a: np.broadcast_to(a, (STEPS, *a.shape[1:])).astype("float32")
    return nfd.Problem(every(x), every(y), 0.5, activation=activation)


def _digits(activation: str, tolerances: list[float]) -> list[Figure]:
    problem = _problem(activation)
    estimate = lambda tolerance, key: nfd.estimate_limit(
        problem, tolerance=tolerance, key=jax.random.key(key)
    )
    figures, spent, wanted = [], [], []
    for tolerance in tolerances:
        estimate(tolerance, 0)  # compiles
        begun = perf_counter()
        found = estimate(tolerance, 1)  # arrays of NumPy: nothing to wait for
        seconds = perf_counter() - begun
        error = _rms(np.hypot(found.standard_error, found.bias))
        alone, note = _one_system(problem, found, error)
        spent.append(seconds)
        wanted.append(tolerance)
        samples = {"estimate": seconds, "error": error, "one system": alone}
        what = f"time to {tolerance:g} (rms of f), {activation}: estimate / one system of equal error"
        note = f"{seconds:.3g} s / {alone:.3g} s at an error of {error:.1g}; {note}"
        goal = 0.1 if (activation, tolerance) == ("tanh", 1e-3) else None
        ratio = seconds / alone
        figures.append(
            Figure(f"i {activation} {tolerance:g}", what, ratio, at_most=goal, samples=samples, note=note)
        )
    if len(spent) > 1:
        exponent = -slope(wanted, spent)
        what = f"exponent of time in 1/tolerance, {activation}"
        goal = 2.2 if activation == "tanh" else None
        figures.append(Figure(f"i exponent {activation}", what, exponent, at_most=goal))
    return figures


def _one_system(problem: nfd.Problem, found: nfd.LimitEstimate, error: float) -> tuple[float, str]:
    """Seconds of one system whose outputs have this error, its square shared by chance and Euler steps."""
    base = next(row for row in found.levels if row.kind == "base")
    particles = ceil(base.variance * base.particles / (error**2 / 2))
    changes = [(row.steps, row.mean) for row in found.levels if row.kind == "steps"]
    finest, change = changes[-1]
    # What is left at M is as large as the last change that led to it, and falls like 1/M.
    steps = max(2, ceil(finest * change / (error * 0.5**0.5)))
    run = min(particles, MOST)
    noise = nfd.sample_noise(problem, width=run, depth=steps, key=jax.random.key(0))
    solve, _ = compiled(
        lambda problem, noise: nfd.solve_limit(problem, particles=run, depth_steps=steps, noise=noise),
        problem,
        noise,
    )
    once(solve, problem, noise)
    seconds = median([once(solve, problem, noise) for _ in range(3)])
    note = f"N = {particles}, M = {steps}" + (f", timed at N = {run}" if run < particles else "")
    return seconds * particles / run, note


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


if __name__ == "__main__":
    for figure in measure("--quick" in sys.argv):
        print(f"{figure.what}: {figure.value:.3g} ({figure.note})")
