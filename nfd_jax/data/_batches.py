"""Data sets to SGD batches: hold samples of the chosen classes out, standardize, and lay the rest out step by
step. `gaussian` inputs are N(0, I) as drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nfd_jax.data._choice import MOST_HELDOUT, Choice, choose
from nfd_jax.data._datasets import dimension, locate
from nfd_jax.data._samples import Samples
from nfd_jax.data._source import Stamps, stamps
from nfd_jax.names import signed

if TYPE_CHECKING:
    from nfd_jax.config import ProblemConfig

_STREAM = 0x64617461  # keeps these draws apart from any other use of the master seed


@dataclass(frozen=True, eq=False)
class Data:
    """What SGD sees, in float64. Shapes:

    inputs (K, P, d), targets (K, P, C), heldout_inputs (H, d), heldout_targets (H, C), with 1 ≤ H ≤ 32.

    Inputs are standardized as `_scale` says. Two classes under the squared loss: C = 1, target −1 for the
    first of `classes` and +1 for the second; otherwise one-hot in the order of `classes`, which is () for
    real-valued targets.

    `source` identifies the samples they were chosen from: a sha256 (hex) of all training and test samples of
    the chosen classes as the files have them, and of these classes. Every repetition, seed and batch size
    has the same; it differs where any number that could be drawn does. "gaussian" for drawn inputs.
    """

    inputs: np.ndarray
    targets: np.ndarray
    heldout_inputs: np.ndarray
    heldout_targets: np.ndarray
    name: str
    classes: tuple[int, ...]
    source: str


def load_problem_data(problem: "ProblemConfig", seed: int, repetition: int | None = None) -> Data:
    """Batches for K steps of P samples each, a function of `problem`, a config's section, the master
    seed and, where it counts, a repetition.

    `batches`: `fixed` repeats one batch; `stream` takes consecutive disjoint batches of a random order, and
    starts a fresh order when fewer than P samples are left; `epochs` does the same with a pool of `pool`
    samples, chosen once, so that every pass over it is in a new order and leaves out what no longer fills a
    batch. Orders take the classes in turn, so that a batch of at least as many samples as there are classes
    has them all, while the smallest lasts. Held-out samples come from the test split, or else from the
    training samples (at most a quarter of them), and then never appear in a batch.

    `data_seed`: `fixed` gives every repetition the same data, whatever `repetition` is; `per_seed` draws
    held-out samples, pool and order anew for each `repetition` (0, 1, …); the gaussian data's teacher u stays
    the same.

    Raises DataError for missing or malformed files, absent classes, too few samples, or inputs that do not
    vary or are too large, always as `check_data` does, and ValueError where per_seed data are asked for
    without a repetition.
    """
    rng = _generator(problem, seed, repetition)
    if problem.dataset == "gaussian":
        return _gaussian(problem, np.random.default_rng([seed, _STREAM]), rng)
    choice = choose(problem)
    classes, (train, heldout) = choice.classes, _split(choice, rng)
    mean, scale = choice.standardization(train)
    index = _schedule(problem, train, rng)

    def arrays(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        inputs = np.asarray((samples.inputs - mean) / scale, np.float64)
        return inputs, _encode(samples.targets, classes, problem.loss)

    inputs, targets = (array.reshape(*index.shape, -1) for array in arrays(train[index.ravel()]))
    return Data(inputs, targets, *arrays(heldout), Path(problem.dataset).stem, classes, choice.source)


def data_of(problem: "ProblemConfig", seed: int, repetition: int = 0) -> Data:
    """`load_problem_data`, kept for the next who asks while its files stay as they are; repetitions with the
    same data share them.
    """
    drawn = repetition if problem.data_seed == "per_seed" else None
    files = () if problem.dataset == "gaussian" else locate(problem.dataset, problem.data_dir)
    stamp = stamps(files)
    return load_problem_data(problem, seed, drawn) if stamp is None else _kept(problem, seed, drawn, stamp)


@lru_cache(maxsize=16)
def _kept(problem: "ProblemConfig", seed: int, repetition: int | None, _: Stamps) -> Data:
    return load_problem_data(problem, seed, repetition)


def check_data(problem: "ProblemConfig") -> None:
    """Raise the DataError that `load_problem_data` would raise, for whatever seed and repetition."""
    if problem.dataset != "gaussian":
        choose(problem)


def input_dim(problem: "ProblemConfig") -> int:
    """Number of features d of a problem's inputs; of a .npz only the header is read. Raises DataError."""
    known = dimension(problem.dataset)
    return problem.input_dim if known is None else known


def _generator(problem: "ProblemConfig", seed: int, repetition: int | None) -> np.random.Generator:
    if problem.data_seed == "fixed":
        return np.random.default_rng([seed, _STREAM])
    if repetition is None or repetition < 0:
        raise ValueError(f"repetition {repetition} with data_seed per_seed, allowed: an integer from 0")
    return np.random.default_rng([seed, _STREAM, repetition + 1])  # a last 0 would change nothing


def _gaussian(problem: "ProblemConfig", master: np.random.Generator, rng: np.random.Generator) -> Data:
    """x ~ N(0, I), classes −1 and +1 by the sign of x·u; the config's `classes` does not apply."""
    d, rows, steps = problem.input_dim, problem.batch_size, problem.steps
    teacher = master.standard_normal(d)
    if problem.data_seed == "fixed":
        rng = master  # one stream, which goes on after the teacher
    heldout = rng.standard_normal((MOST_HELDOUT, d))

    def labels(x: np.ndarray) -> np.ndarray:
        return np.where(x @ teacher < 0, -1, 1)

    if problem.batches == "epochs":
        assert problem.pool is not None
        pool = rng.standard_normal((problem.pool, d))
        inputs = pool[_schedule(problem, Samples("gaussian", pool, labels(pool)), rng)]
    else:
        draws = 1 if problem.batches == "fixed" else steps
        inputs = np.repeat(rng.standard_normal((draws, rows, d)), steps // draws, axis=0)
    targets, heldout_targets = (_encode(labels(x), (-1, 1), problem.loss) for x in (inputs, heldout))
    return Data(inputs, targets, heldout, heldout_targets, "gaussian", (-1, 1), "gaussian")


def _schedule(problem: "ProblemConfig", train: Samples, rng: np.random.Generator) -> np.ndarray:
    """Which sample stands where: indices (K, P) into the training samples."""
    pool = _in_turn(train, rng)[: problem.pool] if problem.batches == "epochs" else np.arange(len(train))
    batches = _batches(train[pool] if problem.batches == "epochs" else train, problem.batch_size, rng)
    first = next(batches)
    rest = (first if problem.batches == "fixed" else next(batches) for _ in range(problem.steps - 1))
    return pool[np.stack([first, *rest])]


def _split(choice: Choice, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """Disjoint training and held-out samples."""
    if choice.test is not None:
        return choice.train, choice.test[_in_turn(choice.test, rng)[: choice.heldout]]
    order = _in_turn(choice.train, rng)
    return choice.train[np.sort(order[choice.heldout :])], choice.train[order[: choice.heldout]]


def _in_turn(samples: Samples, rng: np.random.Generator) -> np.ndarray:
    """A random order (N,) in rounds, each with one sample of every class not yet used up; plain for real
    targets.
    """
    order = rng.permutation(len(samples))
    if not samples.labelled:
        return order
    order = order[np.argsort(samples.targets[order], kind="stable")]
    _, counts = np.unique(samples.targets, return_counts=True)
    rounds = np.concatenate([np.arange(count) for count in (0, *counts)])
    return order[np.lexsort((rng.random(len(order)), rounds))]


def _batches(samples: Samples, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        order = _in_turn(samples, rng)
        yield from order[: len(order) // size * size].reshape(-1, size)


def _encode(targets: np.ndarray, classes: tuple[int, ...], loss: str) -> np.ndarray:
    """(..., C) float64: real-valued targets as they are; labels (...) as ±1 for two classes, squared; else
    one-hot.
    """
    if not classes:
        return targets
    if signed(len(classes), loss):
        return np.where(targets == classes[1], 1.0, -1.0)[..., None]
    return (targets[..., None] == np.asarray(classes)).astype(np.float64)
