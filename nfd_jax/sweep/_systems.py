"""The limits and networks of a batch: all in one program on an accelerator, one by one on the cores of a CPU.

One by one, because a CPU gains nothing from products of small blocks side by side: each core takes a run of
its own, and a program for a single run compiles in half the time. Which core does what changes no number.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import chain, product, zip_longest
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax import limit
from nfd_jax.data import data_of
from nfd_jax.measures import RESPONSE_RATES, FirstSteps, Paths
from nfd_jax.noise import AbstractNoise, seed_key
from nfd_jax.problem import Heldout, Problem
from nfd_jax.programs import Turns
from nfd_jax.runtime import in_precision, in_threads, on_cpu, one_by_one
from nfd_jax.sharding import shard_noise, shard_questions
from nfd_jax.sweep import _cells, _memory
from nfd_jax.sweep._task import Task, doubled
from nfd_jax.trajectory import Trajectory

GAIN_LAYERS = 64
"""Layers of noise that depths share where the first step's gain is measured."""

PLAIN = ("loss", "activation", "horizon", "parametrization", "train")
"""What of a problem the first step's gain is measured with; all else is as usual there."""


def problem_of_seed(task: Task, seed: int) -> tuple[Problem, Heldout]:
    """What the networks of a seed learn, and their held-out samples."""
    return Problem.from_config(task, repetition=seed), Heldout.from_config(task, repetition=seed)


def solve(task: Task) -> tuple[Trajectory | None, dict[int, Trajectory]]:
    """The limits of a batch, where it has some, and its matrix-free networks by depth; leading axes (seed,
    rate, flag)."""
    at_once = _memory.runs_at_once(task, most=_memory.most_at_once(task))
    if one_by_one():
        parts = (Part(task.at(seeds=(seed,)), 1) for seed in task.seeds)
        runs = in_threads((run for part in parts for run in _tasks(part, single=True)), at_once)
    else:
        at_once = 1 if on_cpu() else at_once
        groups = [(seed,) for seed in task.seeds] if task.data_by_seed else [task.seeds]
        runs = [
            run() for group in groups for run in _tasks(Part(task.at(seeds=group), at_once), single=False)
        ]
    found: dict[int | None, list[Trajectory]] = {}
    for depth, run in chain.from_iterable(runs):
        found.setdefault(depth, []).append(run)
    whole = {depth: _joined(run, len(task.seeds), len(task.rates)) for depth, run in found.items()}
    return whole.pop(None, None), {depth: run for depth, run in whole.items() if depth is not None}


_TURNS = Turns()


@lru_cache(maxsize=64)
def reference(task: Task, samples: str) -> Paths:
    """Limits of one seed with `task.reference` particles, leading axes (1, R, G), cut to the widest networks'
    coordinates.

    Kept for the batches of other widths, as long as the `samples` are the same.
    """
    limits, _ = solve(task.reference_task)
    widest = max(task.widths)
    cut = lambda path: np.asarray(path[..., :widest])
    assert limits is not None
    return Paths(
        np.asarray(limits.output), np.asarray(limits.loss), cut(limits.features), cut(limits.gradients)
    )


def _plain(task: Task, seed: int) -> Task:
    """The task of a seed without what tells one batch of a sweep from another: what caches look at."""
    return task.at(width=max(task.widths), depths=(), seeds=(seed,), redrawn=False, size=None)


def _of_samples(function: Callable, task: Task, seed: int) -> Any:
    """What `function` finds for the samples of a seed: once for all seeds and batches that have the same."""
    plain = _plain(task, seed if task.data_by_seed else 0)
    with _TURNS.first((function, plain)):  # batches that are computed at the same time want the same
        return function(plain, _source(plain))


def _source(task: Task) -> str:
    """What identifies the samples of a task's first seed."""
    return data_of(task.problem, task.seed, task.seeds[0]).source


def references(task: Task) -> Paths:
    """`reference` of all seeds, leading axes (S, R, G), cut to the task's width."""
    each = []
    for one in (_plain(task, seed) for seed in task.seeds):
        with _TURNS.first(one):  # batches of other widths, computed at the same time, want the same
            each.append(reference(one, _source(one)))
    cut = lambda x: x[..., : task.width] if x.ndim == 7 else x
    return jax.device_put(jax.tree.map(lambda *x: cut(np.concatenate(x)), *each))


def innovation_pairs(task: Task, depth: int) -> tuple[Paths, Paths]:
    """Networks with weight matrices, leading axes (S, R, F), and limits on the innovations of each, (S, R, F,
    G)."""
    rates, steps, grid = np.asarray(task.rates, task.precision), task.depth_steps, task.intervals
    numbers = lambda value: jax.device_put(np.asarray([value], task.precision))
    # Nothing need be asked, but so this is the program that a batch's own limits have. With a bounded history
    # the first batch would run along, on noise that a network of the batch alone does not have.
    probe = task.probe and not task.bounded

    def run(seed: int, learning_rate: float, flag: str) -> tuple[Paths, Paths]:
        problem, heldout = problem_of_seed(task, seed)
        key, rate = seed_key(task, seed), numbers(learning_rate)
        network, noise = _cells.train_with_noise(problem, key, rate[0], flag, task.width, depth, steps, grid)
        asked = _cells.draw_questions(problem, heldout, key[None], task.width, steps, probe)
        found = []
        for limit_flag in task.limit_flags:
            reuse = numbers(limit_flag == "reused")
            limit = _cells.solve_limits(problem, noise, asked, rate, reuse, grid, False, 1, task.remember)
            found.append(jax.device_get(Paths.of(limit)))
        every = jax.tree.map(lambda *x: np.stack([one[0, 0, 0] for one in x]), *found)
        return jax.tree.map(lambda x: x[0, 0, 0], jax.device_get(Paths.of(network))), every

    every = product(task.seeds, rates, task.flags)
    at_once = _memory.runs_at_once(task, most=_memory.most_at_once(task)) if one_by_one() else 1
    runs = in_threads((partial(run, *one) for one in every), at_once)
    shape = len(task.seeds), len(rates), len(task.flags)
    join = lambda *parts: np.stack(parts).reshape(*shape, *parts[0].shape)
    networks, limits = zip(*runs, strict=True)
    return jax.device_put((jax.tree.map(join, *networks), jax.tree.map(join, *limits)))


def first_steps(task: Task, depth: int) -> FirstSteps:
    """One step on the first training sample at two small learning rates, in float64, by networks of the
    task's width."""
    with in_precision("float64"):
        rates = np.asarray(RESPONSE_RATES)
        reuse = np.asarray([flag == "reused" for flag in task.flags], float)
        deepest, problems, gains, outputs = max(task.depths), [], [], []
        for seed in task.seeds:
            problem, gain = _of_samples(_first_sample, task, seed)
            layers = doubled(depth, GAIN_LAYERS)
            noise = _cells.draw_noise(problem, seed_key(task, seed)[None], task.room, layers, False)
            noise = _cells.coarsened_seeds(noise, depth, deepest)
            noise = jax.tree.map(lambda x: x[0], noise)
            sizes = np.int32(depth), _width(task)
            outputs.append(np.asarray(_cells.first_steps(problem, noise, rates, reuse, *sizes)))
            problems.append(problem)
            gains.append(gain)
    return FirstSteps(problems, rates, np.stack(outputs), np.stack(gains))


@lru_cache(maxsize=64)
def _first_sample(task: Task, samples: str) -> tuple[Problem, np.ndarray]:
    """Two steps on the first training sample, and what the first gains at n = L = ∞."""
    with in_precision("float64"):
        whole = Problem.from_config(replace(task, precision="float64"), repetition=task.seeds[0])
        first = lambda x: np.broadcast_to(np.asarray(x)[:1, :1], (2, 1, x.shape[2]))
        plain = {name: getattr(whole, name) for name in PLAIN}
        problem = Problem(first(whole.inputs), first(whole.targets), 0.0, **plain)
        return problem, np.asarray([gain[0, 0] for gain in limit.first_step_gain(problem)])


def _width(task: Task) -> np.integer | None:
    """The width as programs take it that serve others besides; None for those that don't."""
    return None if task.dense or task.batch.size is None else np.int32(task.width)


def initial_averages(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """⟨φφ'⟩ and ⟨bb'⟩ of step 0 at n = L = ∞ for each seed, each (S, G, P, P)."""
    each = [_of_samples(_initial_averages, task, seed) for seed in task.seeds]
    features, gradients = map(np.stack, zip(*each, strict=True))
    return features, gradients


@lru_cache(maxsize=64)
def _initial_averages(task: Task, samples: str) -> tuple[np.ndarray, np.ndarray]:
    with in_precision("float64"):
        problem = Problem.from_config(replace(task, precision="float64"), repetition=task.seeds[0])
        features, gradients = limit.initial_averages(problem, ts=np.linspace(0, 1, task.intervals + 1))
        return np.asarray(features), np.asarray(gradients)


def _joined(runs: list[Trajectory], seeds: int, rates: int) -> Trajectory:
    """Runs, flags within learning rates within seeds, as one; what is one already stays as it is."""
    if len(runs) == 1:
        return runs[0]
    join = lambda *parts: np.concatenate(parts).reshape(seeds, rates, -1, *parts[0].shape[3:])
    return jax.device_put(jax.tree.map(join, *runs))


class Part:
    """Some seeds of a batch, whose noise, and that of what they are asked besides, is drawn when it is first
    needed and kept as long as the part is."""

    def __init__(self, task: Task, at_once: int):
        self.task, self.at_once = task, at_once
        self.problem, heldout = problem_of_seed(task, task.seeds[0])
        self.heldout = heldout if task.asks_more else None
        self._drawn: dict[int, AbstractNoise] = {}
        self._asked: _cells.Asked | None = None
        self._lock = Lock()

    @cached_property
    def keys(self) -> jax.Array:
        return jnp.stack([seed_key(self.task, seed) for seed in self.task.seeds])

    def noise(self, depth: int) -> AbstractNoise:
        """Noise of this many layers; drawn once, as all depths of a batch coarsen the same."""
        with self._lock:
            if depth not in self._drawn:
                noise = self._draw(depth, self.task.redraws)
                self._drawn = {depth: shard_noise(noise) if _memory.spread(self.task) > 1 else noise}
            return self._drawn[depth]

    def asked(self) -> _cells.Asked:
        """What all its runs are asked besides training; drawn once, too."""
        with self._lock:
            if self._asked is None:
                self._asked = self._draw_questions()
            return self._asked

    def _draw_questions(self) -> _cells.Asked:
        task, probe = self.task, self.task.probe and not self.task.bounded
        if self.heldout is None and not probe:
            return _cells.Asked()
        sizes = task.room, task.asked_layers, probe
        asked = _cells.draw_questions(self.problem, self.heldout, self.keys, *sizes)
        return _cells.Asked(*map(shard_questions, asked)) if _memory.spread(task) > 1 else asked

    @property
    def _along(self) -> bool:
        """Whether the first batch runs along with every step's."""
        return self.task.probe and self.task.bounded

    def held_noise(self, depth: int) -> AbstractNoise:
        """The same numbers as arrays, also where runs draw them anew at each use."""
        return self._draw(depth, False) if self.task.redraws else self.noise(depth)

    def _draw(self, depth: int, redrawn: bool) -> AbstractNoise:
        problem = _cells.with_probe_rows(self.problem) if self._along else self.problem
        return _cells.draw_noise(problem, self.keys, self.task.room, depth, redrawn)

    def own(self, run: Trajectory) -> Trajectory:
        """A run without the coordinates that there was room for besides."""
        return run.narrow(self.task.width) if self.task.room > self.task.width else run

    def limits(self, rates: jax.Array, reuse: jax.Array) -> Trajectory:
        task, noise = self.task, self.noise(self.task.depth_steps)
        sizes = task.intervals, self._along, self.at_once, task.remember, _width(task)
        return _cells.solve_limits(self.problem, noise, self.asked(), rates, reuse, *sizes)

    def networks(self, depths: tuple[int, ...], rates: jax.Array, reuse: jax.Array) -> Trajectory:
        """Of one depth, or of several side by side, which then are an axis after the flags."""
        task, deepest = self.task, max(self.task.depths)
        noises = [
            _cells.coarsened_seeds(self.noise(task.noise_depths[depth]), depth, deepest) for depth in depths
        ]
        alone = len(depths) == 1
        noise = noises[0] if alone else _cells.side_by_side(tuple(noises))
        at = jax.device_put(np.asarray(depths[0] if alone else depths, np.int32))
        sizes = task.intervals, self._along, task.coupled, self.at_once, task.remember, _width(task)
        return _cells.train_networks(self.problem, noise, self.asked(), rates, reuse, at, *sizes)


def _tasks(part: Part, *, single: bool) -> Iterator[Callable[[], list[tuple]]]:
    """What a part has to do: calls that give depths (None for limits) and the runs there, all at once or each
    by itself."""
    task, limits, networks = part.task, [], []
    if task.solves_limit:
        limits = _by_run(part, (None,), part.limits, task.limit_flags, single)
    if task.matrix_free:
        at = lambda depths: _by_run(part, depths, partial(part.networks, depths), task.flags, single)
        networks = chain.from_iterable(map(at, _memory.depth_groups(task, at_once=part.at_once)))
    # In turn, so that both programs are compiled at the same time.
    yield from (call for pair in zip_longest(limits, networks) for call in pair if call is not None)


def _by_run(
    part: Part, depths: tuple[int | None, ...], runs: Callable, flags: tuple[str, ...], single: bool
) -> Iterator[Callable[[], list[tuple]]]:
    dtype = part.task.precision
    rates = np.asarray(part.task.rates, dtype)
    reuse = np.asarray([flag == "reused" for flag in flags], dtype)

    def call(rates: np.ndarray, reuse: np.ndarray) -> list[tuple[int | None, Trajectory]]:
        found = runs(jax.device_put(rates), jax.device_put(reuse))
        found = jax.device_get(found) if single or part.task.data_by_seed else found
        found = part.own(found)
        if len(depths) == 1:
            return [(depths[0], found)]
        return [(depth, jax.tree.map(lambda x, i=i: x[:, :, :, i], found)) for i, depth in enumerate(depths)]

    pairs = product(np.split(rates, rates.size), np.split(reuse, reuse.size)) if single else [(rates, reuse)]
    yield from (partial(call, *pair) for pair in pairs)
