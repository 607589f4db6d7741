"""The programs of a batch: networks and limits on drawn noise, as pure functions of (problem, keys, sizes).

Every program maps over seeds, and within a seed over learning rates and backward-weight flags, which share
one draw of the noise; results come back with leading axes (seed, learning_rate, flag). A map over a single
one of them is none: each further loop around diffrax's own adds seconds to what a program takes to compile.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax import training
from nfd_jax.finite import MatrixFree, initial_weights, innovations
from nfd_jax.limit import Limit
from nfd_jax.noise import AbstractNoise, KeyedNoise, Noise, keyed_noise, sample_noise
from nfd_jax.problem import Heldout, Problem
from nfd_jax.programs import Program
from nfd_jax.sharding import map_seeds
from nfd_jax.trajectory import Trajectory

PATHS = ("features", "gradients")

EXACT = {"directions": None, "tolerance": 0.05}
"""How many directions histories hold, None for all, and the relative residual from which a query is a new
one."""


def _of_products(function: Callable) -> Program:
    """Compiled for its products, unless noise is drawn at each use."""
    drawn = lambda arguments: any(isinstance(one, KeyedNoise) for one in arguments)
    return Program(function, lambda arguments: not drawn(arguments))


def grid_over(one: Callable, rates: Array, reuse: Array, *, at_once: int) -> Any:
    """`one(rate, reuse)` for every learning rate and flag, leading axes (rate, flag); `at_once` of them
    vectorized together."""
    if rates.size == reuse.size == 1:
        return jax.tree.map(lambda x: x[None, None], one(rates[0], reuse[0]))
    pairs = jnp.repeat(rates, reuse.size), jnp.tile(reuse, rates.size)
    flat = jax.lax.map(lambda pair: one(*pair), pairs, batch_size=at_once if at_once > 1 else None)
    return jax.tree.map(lambda x: x.reshape(rates.size, reuse.size, *x.shape[1:]), flat)


class Asked(NamedTuple):
    """What a seed's runs are asked besides training, with the noise of their answers: held-out inputs, and
    the first batch at every step; None where they are not. Leading axis: seed."""

    heldout: training.Questions | None = None
    probe: training.Questions | None = None


@Program
def draw_questions(
    problem: Problem, heldout: Heldout | None, keys: Array, width: int, layers: int, probe: bool
) -> Asked:
    """Drawn once a seed, for all its depths, learning rates and flags; networks are asked the first layers'
    part."""

    def one(key):
        sizes = layers, width, key
        return Asked(
            training.heldout_questions(problem, heldout.inputs, *sizes) if heldout is not None else None,
            training.probe_questions(problem, *sizes) if probe else None,
        )

    return map_seeds(one, keys)


@_of_products
def solve_limits(
    problem: Problem,
    noise: AbstractNoise,
    asked: Asked,
    rates: Array,
    reuse: Array,
    grid: int,
    along: bool,
    at_once: int,
    remember: Mapping = EXACT,
    width: Array | None = None,
) -> Trajectory:
    """Limits on `noise` (leading axis: seed), one per learning rate and flag, `asked` besides; with a bounded
    history the first batch runs `along`.

    They have the noise's particles, or the first `width` of them, which is traced: one compilation for all
    widths that the noise has room for. Coordinates beyond are zero.
    """

    def solve(learning, reuse, noise, options):
        n, room = _width(noise, width)
        limit = Limit(learning, reuse, noise.depth, n, room=room)
        return training.train(learning, noise, limit, **options)

    return _each_seed(solve, problem, noise, asked, rates, reuse, grid, along, False, at_once, remember)


@_of_products
def train_networks(
    problem: Problem,
    noise: AbstractNoise,
    asked: Asked,
    rates: Array,
    reuse: Array,
    depth: Array,
    grid: int,
    along: bool,
    coupling: bool,
    at_once: int,
    remember: Mapping = EXACT,
    width: Array | None = None,
) -> Trajectory:
    """Matrix-free networks of `depth` on `noise` (leading axis: seed), one per learning rate and flag; the
    rest is as for `solve_limits`.

    `depth` is traced and at most the noise's: one compilation for all depths. Several depths (D,) run side by
    side on the noise of each, `side_by_side`'s, with results' leading axes (seed, learning_rate, flag,
    depth): all visit as many layers as the deepest has.
    """
    deepest = depth.max() if depth.ndim else depth

    def train(learning, reuse, noise, options):
        def one(depth, noise):
            n, room = _width(noise, width)
            network = MatrixFree.of(learning, reuse, depth, n, room=room, bound=deepest)
            return training.train(learning, noise, network, **options)

        if not depth.ndim:
            return one(depth, noise)
        return jax.vmap(lambda at, motions: one(at, Noise(noise.U, noise.V, *motions)))(
            depth, _motions(noise)
        )

    return _each_seed(train, problem, noise, asked, rates, reuse, grid, along, coupling, at_once, remember)


def _each_seed(
    run, problem, noise, asked, rates, reuse, grid, along, coupling, at_once, remember
) -> Trajectory:

    def one_seed(at):
        noise, asked = at
        heldout, probe = (questions and questions.first(noise.depth) for questions in asked)
        options = {
            **remember,
            "record": PATHS,
            "grid": grid,
            "coupling": coupling,
            "heldout": heldout,
            "probe": probe or along,
        }

        def one(rate, reuse):
            return run(problem.at_rate(rate), reuse, noise, options)

        return grid_over(one, rates, reuse, at_once=at_once)

    with jax.default_matmul_precision("highest"):
        # Twice the rates, whether this batch has one flag or both: what `_memory` counts on.
        return map_seeds(one_seed, (noise, asked), at_once=max(1, at_once // (2 * rates.size)))


def _width(noise: AbstractNoise, width: Array | None) -> tuple[int | Array, int | None]:
    """The coordinates of what runs on `noise`, and how many there is room for where that is more."""
    return (noise.width, None) if width is None else (width, noise.width)


@_of_products
def first_steps(
    problem: Problem, noise: Noise, rates: Array, reuse: Array, depth: Array, width: Array | None = None
) -> Array:
    """Outputs (R, F, K, P, C) of matrix-free networks of `depth` and `width` on one seed's `noise`, nothing
    recorded besides."""

    def one(rate, reuse):
        learning = problem.at_rate(rate)
        n, room = _width(noise, width)
        network = MatrixFree.of(learning, reuse, depth, n, room=room)
        return training.train(learning, noise, network, grid=1).output

    with jax.default_matmul_precision("highest"):
        return grid_over(one, rates, reuse, at_once=rates.size * reuse.size)


def with_probe_rows(problem: Problem) -> Problem:
    """The problem whose batches hold the first one's samples besides, as bounded histories follow them."""
    double = lambda x: jnp.concatenate([x, jnp.broadcast_to(x[:1], x.shape)], axis=1)
    both = lambda p: (p.inputs, p.targets)
    return eqx.tree_at(both, problem, (double(problem.inputs), double(problem.targets)))


@Program
def draw_noise(problem: Problem, keys: Array, width: int, depth: int, redrawn: bool) -> AbstractNoise:
    """The noise of every seed, leading axis (seed,); `redrawn` gives only what it can be drawn from again."""
    drawn = keyed_noise if redrawn else sample_noise
    return map_seeds(lambda key: drawn(problem, width=width, depth=depth, key=key), keys)


def coarsened_noise(noise: AbstractNoise, depth: int, layers: int) -> AbstractNoise:
    """The same noise for `depth` layers, padded with zeros to `layers` so that networks of all depths have
    one shape.

    Noise drawn layer by layer has no layers to pad.
    """
    coarse = noise.coarsen(depth)
    return coarse.padded(layers) if isinstance(coarse, Noise) else coarse


@Program
def coarsened_seeds(noise: AbstractNoise, depth: int, layers: int) -> AbstractNoise:
    """`coarsened_noise` of every seed, leading axis (seed,)."""
    return jax.vmap(lambda one: coarsened_noise(one, depth, layers))(noise)


@Program
def side_by_side(noises: tuple[Noise, ...]) -> Noise:
    """The noise of each seed for several depths as one: increments have a second axis, U and V are shared."""
    motions = jax.tree.map(lambda *xi: jnp.stack(xi, axis=1), *map(_motions, noises))
    return eqx.tree_at(_motions, noises[0], motions, is_leaf=lambda x: x is None)


def _motions(noise: Noise) -> tuple[Array | None, ...]:
    """Its increments."""
    return noise.forward, noise.backward, noise.initial


@Program
def train_with_noise(
    problem: Problem, key: Array, rate: Array, flag: str, width: int, depth: int, steps: int, grid: int
) -> tuple[Trajectory, Noise]:
    """One network with weight matrices, leading axes (1, 1, 1), and its innovations in `steps` layers,
    leading axis (1,). It draws its weights itself, so it is not one of products alone."""
    places = jnp.arange(grid + 1) * (depth // grid)
    learning = problem.at_rate(rate)
    with jax.default_matmul_precision("highest"):
        weights = initial_weights(problem, width=width, depth=depth, key=key, backward_weights=flag)
        run, noise = innovations(learning, weights, flag, key)
        fine = noise.refine(steps, key)
    run = Trajectory(run.output, run.loss, run.features[:, places], run.gradients[:, places])
    return jax.tree.map(lambda x: x[None, None, None], run), jax.tree.map(lambda x: x[None], fine)
