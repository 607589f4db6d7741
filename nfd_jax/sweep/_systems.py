"""The limits and matrix-free networks of a batch: all in one program on an accelerator, one by one on the cores of a CPU.

One by one, because a CPU gains nothing from products of small blocks side by side: each core takes a run of its own, and a program
for a single run compiles in half the time. Which core does what changes no number.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import chain, product, zip_longest
from threading import Lock
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax.noise import AbstractNoise
from nfd_jax.problem import Problem, Trajectory
from nfd_jax.runtime import in_threads, one_by_one
from nfd_jax.sharding import shard_noise
from nfd_jax.store._batch import Batch, noise_depth, simulator
from nfd_jax.store._layout import intervals
from nfd_jax.sweep import _cells, _memory

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig


def solve(
    config: "SweepConfig", batch: Batch, problem: Problem, heldout: _cells.Heldout
) -> tuple[Trajectory | None, dict[int, Trajectory]]:
    """The limits of a batch, where it has some, and its matrix-free networks by depth; leading axes (seed, rate, flag)."""
    at_once = _memory.runs_at_once(config, batch, most=_memory.most_at_once(config, batch))
    if one_by_one():
        parts = (_Part(config, batch, [seed], problem, heldout, 1) for seed in batch.seeds)
        runs = in_threads((task for part in parts for task in _tasks(part, single=True)), at_once)
    else:
        part = _Part(config, batch, list(batch.seeds), problem, heldout, 1 if _memory.on_cpu() else at_once)
        runs = [task() for task in _tasks(part, single=False)]
    found: dict[int | None, list[Trajectory]] = {}
    for depth, run in runs:
        found.setdefault(depth, []).append(run)
    whole = {depth: _joined(run, len(batch.seeds), len(config.problem.learning_rates)) for depth, run in found.items()}
    return whole.pop(None, None), {depth: run for depth, run in whole.items() if depth is not None}


def dense_errors(config: "SweepConfig", batch: Batch, depth: int, problem: Problem, heldout: _cells.Heldout) -> np.ndarray:
    """`limit_error_ms` of networks with weight matrices, each against limits on its own innovations: (S, R, F, G, K, 3)."""
    rates, flags = np.asarray(config.problem.learning_rates, config.precision), config.finite.backward_weights
    limit_flags, steps, grid = config.limit.backward_weights, config.limit.depth_steps, intervals(config)
    numbers = lambda value: jax.device_put(np.asarray([value], config.precision))

    def task(seed: int, learning_rate: float, flag: str) -> list[np.ndarray]:
        key, rate = _cells.seed_key(config.seed, seed), numbers(learning_rate)
        run, noise = _cells.train_with_noise(problem, key, rate[0], flag, batch.width, depth, steps, grid)
        found = []
        for limit_flag in limit_flags:
            reuse = numbers(limit_flag == "reused")
            probe = config.problem.batches == "stream"  # not needed, but then it is the program that a batch's own limits have
            limit = _cells.solve_limits(problem, heldout, noise, key[None], rate, reuse, grid, probe, 1)
            found.append(np.asarray(_cells.compare_limits(run, limit), float))
        return found

    every = product(batch.seeds, rates, flags)
    at_once = _memory.runs_at_once(config, batch, most=_memory.most_at_once(config, batch)) if one_by_one() else 1
    errors = in_threads((partial(task, *run) for run in every), at_once)
    return np.reshape(errors, (len(batch.seeds), len(rates), len(flags), len(limit_flags), problem.steps, 3))


def _joined(runs: list[Trajectory], seeds: int, rates: int) -> Trajectory:
    """Single runs, flags within learning rates within seeds, as one; what is one already stays as it is."""
    if len(runs) == 1:
        return runs[0]
    join = lambda *parts: np.concatenate(parts).reshape(seeds, rates, -1, *parts[0].shape[3:])
    return jax.device_put(jax.tree.map(join, *runs))


class _Part:
    """Some seeds of a batch, whose noise is drawn when it is first asked for and kept as long as the part is."""

    def __init__(self, config: "SweepConfig", batch: Batch, seeds: list[int], problem: Problem, heldout: _cells.Heldout, at_once: int):
        self.at_once, self.config, self.batch, self.problem, self.heldout = at_once, config, batch, problem, heldout
        self.seeds = seeds
        self._drawn: dict[int, AbstractNoise] = {}
        self._lock = Lock()
        self.shared = intervals(config), config.problem.batches == "stream"

    @cached_property
    def keys(self) -> jax.Array:
        return jnp.stack([_cells.seed_key(self.config.seed, seed) for seed in self.seeds])

    def noise(self, depth: int) -> AbstractNoise:
        """Noise of this many layers; drawn once, as all depths of a batch coarsen the same."""
        with self._lock:
            if depth not in self._drawn:
                noise = _cells.draw_noise(self.problem, self.keys, self.batch.width, depth, self.batch.redrawn)
                self._drawn = {depth: shard_noise(noise) if _memory.spread(self.config, self.batch) > 1 else noise}
            return self._drawn[depth]

    def limits(self, rates: jax.Array, reuse: jax.Array) -> Trajectory:
        noise = self.noise(self.config.limit.depth_steps)
        return _cells.solve_limits(self.problem, self.heldout, noise, self.keys, rates, reuse, *self.shared, self.at_once)

    def networks(self, depth: int, rates: jax.Array, reuse: jax.Array) -> Trajectory:
        config = self.config
        noise = _cells.coarsened_seeds(self.noise(noise_depth(config, depth)), depth, max(self.batch.depths))
        sizes = *self.shared, "coupling" in config.measure, self.at_once
        at = jax.device_put(np.int32(depth))
        return _cells.train_networks(self.problem, self.heldout, noise, self.keys, rates, reuse, at, *sizes)


def _tasks(part: _Part, *, single: bool) -> Iterator[Callable[[], tuple]]:
    """What a part has to do: calls that give a depth (None for limits) and the runs there, all at once or each by itself."""
    config, batch = part.config, part.batch
    limits, networks = [], []
    if config.limit is not None and (batch.kind == "limit" or config.limit.particles == "matched"):
        limits = _by_run(part, None, part.limits, config.limit.backward_weights, single)
    if batch.depths and simulator(config, batch.width) == "matrix_free":
        at = lambda depth: _by_run(part, depth, partial(part.networks, depth), config.finite.backward_weights, single)
        networks = chain.from_iterable(map(at, batch.depths))
    # In turn, so that both programs are compiled at the same time.
    yield from (task for pair in zip_longest(limits, networks) for task in pair if task is not None)


def _by_run(part: _Part, depth: int | None, runs: Callable, flags: tuple[str, ...], single: bool) -> Iterator[Callable[[], tuple]]:
    dtype = part.config.precision
    rates = np.asarray(part.config.problem.learning_rates, dtype)
    reuse = np.asarray([flag == "reused" for flag in flags], dtype)

    def task(rates: np.ndarray, reuse: np.ndarray) -> tuple[int | None, Trajectory]:
        found = runs(jax.device_put(rates), jax.device_put(reuse))
        return depth, jax.device_get(found) if single else found

    pairs = product(np.split(rates, rates.size), np.split(reuse, reuse.size)) if single else [(rates, reuse)]
    yield from (partial(task, *pair) for pair in pairs)
