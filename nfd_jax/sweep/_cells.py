"""One batch of cells: the networks of a width at several depths, the limit on the same noise, and what tells them apart.

Pure functions of (problem, keys, sizes). Every program maps over seeds, and within a seed over learning rates and
backward-weight flags, which share one draw of the noise; results come back with leading axes (seed, learning_rate, flag).
A map over a single one of them is none: each further loop around diffrax's own adds seconds to what a program takes to compile.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax import observables, training
from nfd_jax.activations import activation
from nfd_jax.finite._dense import initial_weights
from nfd_jax.finite._engine import Grid, train_grids
from nfd_jax.finite._grid import Heldout
from nfd_jax.finite._innovations import innovations
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.limit import Limit
from nfd_jax.losses import accuracy, loss_function
from nfd_jax.noise import AbstractNoise, Noise, keyed_noise, sample_noise, stream
from nfd_jax.problem import Problem, Trajectory
from nfd_jax.runtime import CompiledOnce
from nfd_jax.sharding import map_seeds

PATHS = ("features", "gradients")


def seed_key(seed: int, repetition: int) -> Array:
    """The key of one repetition under a sweep's master seed."""
    return stream(jax.random.key(seed), repetition)


def grid_over(one: Callable, rates: Array, reuse: Array, *, at_once: int) -> Trajectory:
    """`one(rate, reuse)` for every learning rate and flag, leading axes (rate, flag); `at_once` of them vectorized together."""
    if rates.size == reuse.size == 1:
        return jax.tree.map(lambda x: x[None, None], one(rates[0], reuse[0]))
    pairs = jnp.repeat(rates, reuse.size), jnp.tile(reuse, rates.size)
    flat = jax.lax.map(lambda pair: one(*pair), pairs, batch_size=at_once if at_once > 1 else None)
    return jax.tree.map(lambda x: x.reshape(rates.size, reuse.size, *x.shape[1:]), flat)


def with_rate(problem: Problem, rate: Array) -> Problem:
    """The same problem at another learning rate."""
    return eqx.tree_at(lambda p: p.learning_rate, problem, rate)


@CompiledOnce
def solve_limits(
    problem: Problem, heldout: Heldout, noise: AbstractNoise, keys: Array, rates: Array, reuse: Array, grid: int, probe: bool, at_once: int
) -> Trajectory:
    """Limits on `noise` (leading axis: seed), one per learning rate and flag."""
    interior = lambda learning, reuse: Limit(learning, reuse, noise.depth, width=noise.V.shape[-2])
    return _each_seed(interior, problem, heldout, noise, keys, rates, reuse, grid, probe, False, at_once)


@CompiledOnce
def train_networks(
    problem: Problem,
    heldout: Heldout,
    noise: AbstractNoise,
    keys: Array,
    rates: Array,
    reuse: Array,
    depth: Array,
    grid: int,
    probe: bool,
    coupling: bool,
    at_once: int,
) -> Trajectory:
    """Matrix-free networks of `depth` on `noise` (leading axis: seed), one per learning rate and flag.

    `depth` is traced and at most the noise's: one compilation for all depths of a width.
    """
    interior = lambda learning, reuse: MatrixFree.of(learning, reuse, depth, noise.V.shape[-2])
    return _each_seed(interior, problem, heldout, noise, keys, rates, reuse, grid, probe, coupling, at_once)


def _each_seed(interior, problem, heldout, noise, keys, rates, reuse, grid, probe, coupling, at_once) -> Trajectory:
    def one_seed(at):
        noise, key = at
        # Drawn once a seed, for all its learning rates and flags.
        questions = {"heldout": training.heldout_questions(problem, heldout.inputs, noise.depth, noise.width, key)}
        if probe:
            questions["probe"] = training.probe_questions(problem, noise.depth, noise.width, key)

        def one(rate, reuse):
            learning = with_rate(problem, rate)
            options = {"record": PATHS, "grid": grid, "coupling": coupling}
            return training.train(learning, noise, interior(learning, reuse), **options, **questions)

        return grid_over(one, rates, reuse, at_once=at_once)

    with jax.default_matmul_precision("highest"):
        # Twice the rates, whether this batch has one flag or both: what `_memory` counts on.
        return map_seeds(one_seed, (noise, keys), at_once=max(1, at_once // (2 * rates.size)))


class Paths(NamedTuple):
    """`features` h and `gradients` b of networks, leading axes (S, R, F), where they were asked for."""

    features: Float[np.ndarray, "S R F K G P n"] | None
    gradients: Float[np.ndarray, "S R F K G P n"] | None


def train_dense(problem: Problem, heldout: Heldout, master: int, grid: Grid) -> list[tuple[Paths, dict[str, np.ndarray]]]:
    """Networks with weight matrices at every depth of `grid`, in one program.

    For each depth, leading axes (S, R, F), the paths where `grid` records them, and what `summarize` gives, kernels where recorded.
    """
    [found] = train_grids(problem, heldout, master, [grid])

    def at_depth(i: int) -> tuple[Paths, dict[str, np.ndarray]]:
        here = {name: x[i] for name, x in found.items()}
        return Paths(*(here.pop(name, None) for name in PATHS)), here

    return [at_depth(i) for i in range(len(grid.depths))]


@CompiledOnce
def draw_noise(problem: Problem, keys: Array, width: int, depth: int, redrawn: bool) -> AbstractNoise:
    """The noise of every seed, leading axis (seed,); `redrawn` gives only what it can be drawn from again."""
    drawn = keyed_noise if redrawn else sample_noise
    return map_seeds(lambda key: drawn(problem, width=width, depth=depth, key=key), keys)


def coarsened_noise(noise: AbstractNoise, depth: int, layers: int) -> AbstractNoise:
    """The same noise for `depth` layers, padded with zeros to `layers` so that networks of all depths have one shape.

    Noise drawn layer by layer has no layers to pad.
    """
    if not isinstance(noise, Noise):
        return noise.coarsen(depth)
    pad = lambda xi: jnp.pad(xi, [(0, 0), (0, layers - depth), (0, 0), (0, 0)])
    coarse = noise.coarsen(depth)
    return Noise(noise.U, noise.V, pad(coarse.forward), pad(coarse.backward))


@CompiledOnce
def coarsened_seeds(noise: AbstractNoise, depth: int, layers: int) -> AbstractNoise:
    """`coarsened_noise` of every seed, leading axis (seed,)."""
    return jax.vmap(lambda one: coarsened_noise(one, depth, layers))(noise)


@CompiledOnce
def summarize(problem: Problem, heldout: Heldout, run: Trajectory) -> dict[str, Array]:
    """`summary` of each run; leading axes as in `run`."""
    return _over_runs(lambda one: summary(problem, heldout, one))(run)


def summary(problem: Problem, heldout: Heldout, run: Trajectory) -> dict[str, Array]:
    """What /finite and /limit hold of one run, with the kernels."""
    loss = loss_function(problem.loss).value
    return {
        "loss": run.loss,
        "output": run.output,
        "accuracy": jax.vmap(accuracy)(run.output, problem.targets),
        "heldout_loss": jax.vmap(lambda f: loss(f, heldout.targets))(run.heldout),
        "heldout_accuracy": jax.vmap(lambda f: accuracy(f, heldout.targets))(run.heldout),
        "feature_shift_ms": observables.feature_shift(run.features if run.probe is None else run.probe),
        "feature_kernel": observables.kernel(activation(problem.activation).value(run.features)),
        "gradient_kernel": observables.kernel(run.gradients),
    }


@CompiledOnce
def compare_limits(networks: Trajectory, limits: Trajectory) -> Float[Array, "S R F G K 3"]:
    """`limit_error_ms` of every network flag (F) against every limit flag (G)."""
    pairs = jax.vmap(jax.vmap(observables.differences, (None, 0)), (0, None))
    return map_seeds(lambda at: jax.lax.map(lambda rate: pairs(*rate), at), (networks, limits))


@CompiledOnce
def train_with_noise(
    problem: Problem, key: Array, rate: Array, flag: str, width: int, depth: int, steps: int, grid: int
) -> tuple[Trajectory, Noise]:
    """One network with weight matrices, leading axes (1, 1, 1), and its innovations in `steps` layers, leading axis (1,)."""
    places = jnp.arange(grid + 1) * (depth // grid)
    learning = with_rate(problem, rate)
    with jax.default_matmul_precision("highest"):
        weights = initial_weights(problem, width=width, depth=depth, key=key, backward_weights=flag)
        run, noise = innovations(learning, weights, flag, key)
        fine = noise.refine(steps, key)
    run = Trajectory(run.output, run.loss, run.features[:, places], run.gradients[:, places])
    return jax.tree.map(lambda x: x[None, None, None], run), jax.tree.map(lambda x: x[None], fine)


@CompiledOnce
def compare_flags(networks: Trajectory, reused: int, independent: int) -> Float[Array, "S R K 3"]:
    """`coupling_effect_ms`: networks on the same noise that differ in their backward weights alone."""
    pick = lambda flag: jax.tree.map(lambda x: x[:, :, flag], networks)
    return jax.vmap(jax.vmap(observables.differences))(pick(reused), pick(independent))


def _over_runs(one: Callable) -> Callable:
    """Map over the leading axes (seed, learning_rate, flag), seeds in turn."""
    return lambda run: map_seeds(jax.vmap(jax.vmap(one)), run)
