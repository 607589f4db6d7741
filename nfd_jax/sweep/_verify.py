"""Whether numbers can be believed: stored batches computed again, float32 beside float64, and the place where
a run diverges."""

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax import observables
from nfd_jax.config import SweepConfig
from nfd_jax.finite import initial_weights, innovations, train_finite, train_weights
from nfd_jax.limit import solve_limit
from nfd_jax.measures import Paths
from nfd_jax.names import DIVERGED
from nfd_jax.noise import Noise, sample_noise, seed_key
from nfd_jax.problem import Problem
from nfd_jax.programs import Program
from nfd_jax.runtime import in_precision, in_threads
from nfd_jax.store import Batch, describe, read_batches, stored_batches
from nfd_jax.sweep import _cells, _systems
from nfd_jax.sweep._cells import PATHS
from nfd_jax.sweep._compute import computed
from nfd_jax.sweep._memory import redraws
from nfd_jax.sweep._plan import shared_sizes
from nfd_jax.sweep._task import Task
from nfd_jax.trajectory import Trajectory, Weights

ROUNDING = {"float64": 1e-7, "float32": 1e-3}
"""How far numbers computed again may be off, relative to their variable's scale: more than what the order of
sums changes on another device."""

MOST_HELD = 2**28
"""Bytes of noise beyond which the float32 check of a bounded history is left out."""

TOO_LARGE = "its noise does not fit in memory, nor would all of its layers"


class Verified(NamedTuple):
    """What computing stored batches again showed: `text`, and whether they came out the `same`."""

    text: str
    same: bool


def verify_sample(config: SweepConfig, folder: Path, *, count: int = 3, seed: int | None = None) -> Verified:
    """Computes `count` of the batches stored in `folder` again, on the device at hand, and says how far they
    differ.

    The first line has the largest difference relative to its variable's scale, the largest of its stored
    numbers in the sample; a line for each variable that differs follows. They are the same if none differs by
    more than ROUNDING of its scale, which another device may, and all could be computed. `seed` fixes the
    sample, which otherwise is another one each time.
    """
    stored = stored_batches(folder)
    sample = random.Random(seed).sample(stored, min(count, len(stored)))
    scale: dict[str, float] = {}
    worst: dict[str, float] = {}
    lines, most, lost = [], ROUNDING[config.precision], 0
    for found in read_batches(folder, sample):
        again = computed(config, found.batch)
        if isinstance(again, str):
            lines.append(f"  {describe(found.batch)}: could not be computed again: {again}")
            lost += 1
            continue
        for name, dims, within, was in found.arrays:
            now = again[name].over(dims)[within]
            largest = float(np.max(np.abs(was), initial=0, where=np.isfinite(was)))
            scale[name] = max(scale.get(name, 0.0), largest)
            worst[name] = max(worst.get(name, 0.0), largest_difference(was, now))
    relative = {
        name: (worst[name] / scale[name] if scale[name] else inf) if worst[name] else 0.0 for name in worst
    }
    lines += [
        f"  {name}: {worst[name]:.2g}, {relative[name]:.2g} of its scale" for name in worst if worst[name]
    ]
    first = max(relative, key=relative.__getitem__, default=None)
    same, what = not lost, "nothing to compare"
    if first is not None:
        same = same and relative[first] <= most
        what = f"largest relative difference {relative[first]:.2g} ({first})"
        what += f", allowed: at most {most:g}" if relative[first] > most else ""
    return Verified("\n".join([f"verified {len(sample)} of {len(stored)} batches: {what}", *lines]), same)


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest |one − other|; 0 where both are the same, if not finite, and infinite where only one is."""
    one, other = np.asarray(one, float), np.asarray(other, float)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    both = np.isfinite(one) & np.isfinite(other)
    apart = np.abs(np.subtract(one, other, out=np.full(one.shape, inf), where=both))
    return float(np.max(apart, initial=0, where=~same))


def precision_check(config: SweepConfig) -> dict[str, str | float | None]:
    """What rounding does: the smallest cell of a sweep in float32 and in float64, from the same draw of
    weights or noise.

    Relative root mean square differences of `loss`, `output` and, where it is measured, `limit_error`, first
    flags and learning rate; None where a run diverges. `cell` says which one it was.
    """
    finite, limit = config.finite, config.limit
    alone = Batch("limit", limit.alone or 0, (), (0,)) if limit else None
    cell = alone
    if finite:
        width = min(finite.widths)
        cell = Batch("cells", width, (min(finite.depths),), (0,), size=shared_sizes(config).get(width))
    if redraws(Task.of(config, cell)) or _held_bytes(Task.of(config, cell)) > MOST_HELD:
        return {"error": f"{describe(cell)}: {TOO_LARGE}"}
    if cell.kind == "limit" and cell.width == 0:  # one of the many small systems of an estimate
        cell = replace(cell, width=max(64, 2 * config.problem.steps * config.problem.batch_size))
    of = lambda name: Task.of(config.model_copy(update={"precision": name}), cell)
    doubles, singles = map(of, ("float64", "float32"))
    if doubles.dense:
        exact, rounded = _dense_twice(doubles, singles)
    else:
        exact, rounded = _systems_twice(doubles, singles, depths=finite.depths if finite else ())
    return {"cell": describe(cell)} | {name: _relative_rms(rounded[name], exact[name]) for name in exact}


def _held_bytes(task: Task) -> int:
    """Bytes of the noise of bounded histories as arrays in float64, which runs draw at each use."""
    layers = max(task.depth_steps, *task.noise_depths.values(), 1)
    return 16 * task.steps * task.followed * layers * task.width if task.bounded else 0


def _systems_twice(doubles: Task, singles: Task, *, depths: tuple[int, ...]) -> tuple[dict, dict]:
    """A matrix-free network and its limit in both precisions, on the noise that a sweep in float32 draws.

    In float32 by the programs of the sweep itself, whose networks have all its `depths` in one batch. In
    float64 by one program for both, as a network of M layers is the limit of M steps to rounding; it asks
    nothing after training, and is compiled in half the time.
    """
    [seed], alone = singles.seeds, not singles.depths
    with_limit = alone or "pairs" in singles.needs
    with in_precision("float32"):
        part = _systems.Part(singles.at(depths=depths) if depths else singles, 1)
        numbers = lambda flags: (
            jax.device_put(np.asarray(singles.rates[:1], "float32")),
            jax.device_put(np.asarray([flags[0] == "reused"], "float32")),
        )
        limit = part.limits(*numbers(singles.limit_flags)) if with_limit else None
        run = None if alone else part.networks(singles.depths[:1], *numbers(singles.flags))
        layers = singles.depth_steps if with_limit else singles.noise_depths[singles.depths[0]]
        noise = jax.tree.map(lambda x: np.asarray(x, float), part.held_noise(layers))
        noise = noise.narrow(singles.width)
        rounded = _quantities(*(_single(run and part.own(run)) for run in (run, limit)))
    with in_precision("float64"):
        problem, _ = _systems.problem_of_seed(doubles, seed)

        def again(depth: int, flag: str) -> Trajectory:
            return _cells.train_networks(
                problem,
                _cells.coarsened_seeds(noise, depth, noise.depth),
                _cells.Asked(),
                np.asarray(doubles.rates[:1]),
                np.asarray([flag == "reused"], float),
                np.int32(depth),
                doubles.intervals,
                doubles.probe and doubles.bounded,
                False,
                1,
                doubles.remember,
            )

        limit = again(noise.depth, doubles.limit_flags[0]) if with_limit else None
        run = None if alone else again(doubles.depths[0], doubles.flags[0])
        return _quantities(_single(run), _single(limit)), rounded


def _single(run: Trajectory | None) -> Paths | None:
    """Without the axes of seeds, learning rates and flags, each of length 1."""
    return run and jax.tree.map(lambda x: x[0, 0, 0], Paths.of(run))


def _quantities(run: Trajectory | Paths | None, limit: Trajectory | Paths | None) -> dict[str, np.ndarray]:
    """Losses and outputs of the network, or of the limit where there is none, and their distance."""
    one = run or limit
    found = {"loss": one.loss, "output": one.output}
    if run and limit:
        found["limit_error"] = observables.differences(run, limit)
    return {name: np.asarray(x, float) for name, x in found.items()}


class Drawn(NamedTuple):
    """What is random about a dense cell: `weights`, and the limit's noise where one is compared with."""

    weights: Weights
    noise: Noise | None


def _dense_twice(doubles: Task, singles: Task) -> tuple[dict, dict]:
    """A network with weight matrices, and the limit on its innovations, in both precisions from one draw."""
    with in_precision("float64"):
        drawn = _draw(doubles)

    def measured(task: Task) -> dict[str, np.ndarray]:
        with in_precision(task.precision):
            return _measured(task, jax.tree.map(lambda x: jnp.asarray(np.asarray(x), task.precision), drawn))

    exact, rounded = in_threads([partial(measured, doubles), partial(measured, singles)], 2)
    return exact, rounded


def _draw(task: Task) -> Drawn:
    [seed] = task.seeds
    problem = Problem.from_config(task, repetition=seed)
    key, size = seed_key(task, seed), {"width": task.width, "depth": task.depths[0]}
    weights = initial_weights(problem, **size, key=key, backward_weights=task.flags[0])
    if "pairs" not in task.needs:
        return Drawn(weights, None)
    _, noise = _with_innovations(problem, weights, task.flags[0], key)
    return Drawn(weights, noise.refine(task.depth_steps, key))


def _noise(task: Task, problem: Problem) -> Noise:
    depth = task.noise_depths[task.depths[0]] if task.depths else task.depth_steps
    return sample_noise(problem, width=task.width, depth=depth, key=seed_key(task, task.seeds[0]))


def _measured(task: Task, drawn: Drawn) -> dict[str, np.ndarray]:
    problem, [depth] = Problem.from_config(task, repetition=task.seeds[0]), task.depths
    run = _train_dense(problem, drawn.weights, task.flags[0])
    if drawn.noise is None:
        return _quantities(run, None)
    # As the network that is the limit to rounding, and compiles faster.
    limit = _network(task, problem, drawn.noise, drawn.noise.depth, task.limit_flags[0])
    coarse = lambda path: path[:, :: drawn.noise.depth // depth]
    limit = Trajectory(limit.output, limit.loss, coarse(limit.features), coarse(limit.gradients))
    return _quantities(run, limit)


@Program
def _train_dense(problem: Problem, weights: Weights, flag: str) -> Trajectory:
    with jax.default_matmul_precision("highest"):
        return train_weights(problem, weights, flag, record=PATHS)


@Program
def _with_innovations(
    problem: Problem, weights: Weights, flag: str, key: jax.Array
) -> tuple[Trajectory, Noise]:
    with jax.default_matmul_precision("highest"):
        return innovations(problem, weights, flag, key)


def _network(task: Task, problem: Problem, noise: Noise, depth: int, flag: str) -> Trajectory:
    options = {"backward_weights": flag, "record": PATHS, **task.remember}
    return train_finite(problem, noise=noise.coarsen(depth), simulator="matrix_free", **options)


def _limit(task: Task, problem: Problem, noise: Noise, flag: str) -> Trajectory:
    return solve_limit(problem, noise=noise, backward_weights=flag, record=PATHS, **task.remember)


def _relative_rms(x: np.ndarray, exact: np.ndarray) -> float | None:
    with np.errstate(all="ignore"):
        ratio = float(np.sqrt(np.mean((x - exact) ** 2) / np.mean(exact**2)))
    return ratio if np.isfinite(ratio) else None


def locate_nonfinite(
    config: SweepConfig, batch: Batch, status: np.ndarray | None = None, *, at_most: int = 3
) -> list[str]:
    """Where the first `at_most` diverged runs of a batch left the finite numbers: a line with cell, step and
    layer for each.

    They are trained once more with every layer kept. `status` is the batch's status/cell, over
    (backward_weights, learning_rate, depth, seed); without it, all are.
    """
    with in_precision(config.precision):
        return list(islice(_divergences(config, batch, status), at_most))


def _divergences(config: SweepConfig, batch: Batch, status: np.ndarray | None) -> Iterator[str]:
    task = Task.of(config, batch)
    if task.tolerance is not None:
        yield f"{describe(batch)}: diverged in some of the systems of the estimate"
        return
    flags, rates = task.flags or task.limit_flags, task.rates
    shape = (len(flags), len(rates), max(1, len(batch.depths)), len(batch.seeds))
    suspects = np.full(shape, DIVERGED) if status is None else status.reshape(shape)
    for i, j, k, seed in np.argwhere(suspects == DIVERGED):
        cell = task.at(depths=batch.depths[k : k + 1], seeds=(batch.seeds[seed],))
        if batch.redrawn:
            yield f"{describe(cell.batch)}: where it diverged was not looked for: {TOO_LARGE}"
            continue
        problem = Problem.from_config(task, repetition=batch.seeds[seed])
        learning = problem.at_rate(jnp.asarray(rates[j], problem.dtype))
        place = _first_nonfinite(_trained(cell, learning, flags[i]))
        if place is not None:
            run = f"{describe(cell.batch)}, {flags[i]}, learning rate {rates[j]:g}"
            yield f"{run}: not finite first in {place}"


def _trained(task: Task, problem: Problem, flag: str) -> Trajectory:
    if task.batch.kind == "limit":
        return _limit(task, problem, _noise(task, problem), flag)
    [depth] = task.depths
    if task.matrix_free:
        return _network(task, problem, _noise(task, problem), depth, flag)
    key = seed_key(task, task.seeds[0])
    return train_finite(problem, width=task.width, depth=depth, key=key, backward_weights=flag, record=PATHS)


def _first_nonfinite(run: Trajectory) -> str | None:
    """In the order of computation: up through the layers, outputs, loss, down through the layers, next
    step."""
    whole = lambda x: np.asarray(np.isfinite(np.asarray(x)).all((-2, -1)))
    up, out, down = map(whole, (run.features, run.output, run.gradients))
    loss = np.isfinite(np.asarray(run.loss))
    last = up.shape[1] - 1
    for step in range(len(up)):
        if not up[step].all():
            return f"the forward features, step {step}, layer {np.argmin(up[step])} of {last}"
        if not (out[step] and loss[step]):
            return f"the {'loss' if out[step] else 'outputs'}, step {step}, after layer {last}"
        if not down[step].all():
            return f"the backward features, step {step}, layer {last - np.argmin(down[step][::-1])} of {last}"
    return None
