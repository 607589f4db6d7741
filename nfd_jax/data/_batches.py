"""Data sets to SGD batches: choose classes, hold samples out, standardize, and lay the rest out step by step.

**Standardization.** From the training samples x of the chosen classes, held-out samples left out, take the
mean m of each feature and one scale s for all, s² = mean over samples and features of (x − m)². Every input,
held-out ones too, becomes (x − m)/s, so that the mean of ‖x‖²/d over the training samples is exactly 1
(single samples scatter about it) and h_0 = U x/√d has coordinates of order one. One scale keeps the
proportions of the features; a constant feature becomes 0 and still counts in d. `gaussian` inputs are N(0, I)
as drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nfd_jax.data._datasets import dimension, read_dataset
from nfd_jax.data._formats import DataError
from nfd_jax.data._samples import Samples
from nfd_jax.names import signed

if TYPE_CHECKING:
    from nfd_jax.config import ProblemConfig

MOST_HELDOUT = 32
_STREAM = 0x64617461  # keeps these draws apart from any other use of the master seed


@dataclass(frozen=True, eq=False)
class Data:
    """What SGD sees, in float64. Shapes:

    inputs (K, P, d), targets (K, P, C), heldout_inputs (H, d), heldout_targets (H, C), with 1 ≤ H ≤ 32.

    Inputs are standardized as the module says. Two classes under the squared loss: C = 1, target −1 for the
    first of `classes` and +1 for the second; otherwise one-hot in the order of `classes`, which is () for
    real-valued targets.
    """

    inputs: np.ndarray
    targets: np.ndarray
    heldout_inputs: np.ndarray
    heldout_targets: np.ndarray
    name: str
    classes: tuple[int, ...]


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
    vary, and ValueError where per_seed data are asked for without a repetition.
    """
    rng = _generator(problem, seed, repetition)
    if problem.dataset == "gaussian":
        return _gaussian(problem, np.random.default_rng([seed, _STREAM]), rng)
    train, heldout, classes = _split(problem, rng)
    mean, scale = _standardization(train)
    index = _schedule(problem, train, rng)

    def arrays(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        inputs = np.asarray((samples.inputs - mean) / scale, np.float64)
        return inputs, _encode(samples.targets, classes, problem.loss)

    inputs, targets = (array.reshape(*index.shape, -1) for array in arrays(train[index.ravel()]))
    return Data(inputs, targets, *arrays(heldout), Path(problem.dataset).stem, classes)


def data_of(problem: "ProblemConfig", seed: int, repetition: int = 0) -> Data:
    """`load_problem_data`, kept for the next who asks; repetitions with the same data share them."""
    return _kept(problem, seed, repetition if problem.data_seed == "per_seed" else None)


_kept = lru_cache(maxsize=16)(load_problem_data)


def check_data(problem: "ProblemConfig") -> None:
    """Raise the DataError that `load_problem_data` would raise for files, classes or sizes. Reads, prepares
    nothing.
    """
    if problem.dataset != "gaussian":
        _split(problem, np.random.default_rng(0))


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
        pool = rng.standard_normal((problem.pool, d))
        inputs = pool[_schedule(problem, Samples("gaussian", pool, labels(pool)), rng)]
    else:
        draws = 1 if problem.batches == "fixed" else steps
        inputs = np.repeat(rng.standard_normal((draws, rows, d)), steps // draws, axis=0)
    targets, heldout_targets = (_encode(labels(x), (-1, 1), problem.loss) for x in (inputs, heldout))
    return Data(inputs, targets, heldout, heldout_targets, "gaussian", (-1, 1))


def _schedule(problem: "ProblemConfig", train: Samples, rng: np.random.Generator) -> np.ndarray:
    """Which sample stands where: indices (K, P) into the training samples."""
    pool = _in_turn(train, rng)[: problem.pool] if problem.batches == "epochs" else np.arange(len(train))
    batches = _batches(train[pool] if problem.batches == "epochs" else train, problem.batch_size, rng)
    first = next(batches)
    rest = (first if problem.batches == "fixed" else next(batches) for _ in range(problem.steps - 1))
    return pool[np.stack([first, *rest])]


def _split(problem: "ProblemConfig", rng: np.random.Generator) -> tuple[Samples, Samples, tuple[int, ...]]:
    """Disjoint training and held-out samples of the chosen classes, and those classes."""
    train, test = read_dataset(problem.dataset, problem.data_dir)
    classes = _classes(train, problem)
    train = _only(train, classes)
    if test is not None:
        test = _only(test, classes)
        heldout = test[_in_turn(test, rng)[:MOST_HELDOUT]]
    else:
        order = _in_turn(train, rng)
        count = min(MOST_HELDOUT, max(1, len(order) // 4))
        train, heldout = train[np.sort(order[count:])], train[order[:count]]
    key = "pool" if problem.batches == "epochs" and problem.pool is not None else "batch_size"
    needed = getattr(problem, key)
    if len(train) < needed or not len(heldout):
        raise DataError(
            f"{train.place}: {len(train)} training and {len(heldout)} held-out samples of the chosen classes;"
            f" expected at least {key} = {needed} and 1: lower {key} or choose other classes"
        )
    return train, heldout, classes


def _classes(train: Samples, problem: "ProblemConfig") -> tuple[int, ...]:
    """The classes asked for, by default all that the training samples have; () for real-valued targets."""
    if not train.labelled:
        if problem.classes is not None:
            raise DataError(f"{train.place}: targets are no class labels; expected classes: null")
        if problem.loss == "cross_entropy" and train.targets.shape[1] < 2:
            raise DataError(
                f"{train.place}: one real target a sample; cross_entropy expects two or more: use squared"
            )
        return ()
    present = tuple(np.unique(train.targets).tolist())
    classes = present if problem.classes is None else tuple(problem.classes)
    if len(classes) < 2 or len(set(classes)) < len(classes) or not set(classes) <= set(present):
        shown = ", ".join(map(str, present[:20])) + (", …" if len(present) > 20 else "")
        raise DataError(
            f"{train.place}: classes {list(classes)[:20]}; expected two or more different ones of {shown}"
        )
    return classes


def _only(samples: Samples, classes: tuple[int, ...]) -> Samples:
    return samples[np.isin(samples.targets, classes)] if classes else samples


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


def _standardization(train: Samples, chunk: int = 1024) -> tuple[np.ndarray, float]:
    """Mean (d,) and scale s of the inputs, summed by chunks: a float64 copy of all of CIFAR-10 takes 1.2
    GB.
    """
    x = train.inputs
    with np.errstate(over="ignore", invalid="ignore"):  # judged below
        mean = x.mean(axis=0, dtype=np.float64)
        total = sum(float(np.square(x[i : i + chunk] - mean).sum()) for i in range(0, len(x), chunk))
        scale = float(np.sqrt(total / x.size))
    # Where all inputs are equal, the rounding of the mean still leaves about 1e-16 of their size.
    if not 1e-12 * float(np.abs(mean).max()) < scale < np.inf:
        raise DataError(
            f"{train.place}: inputs lie {scale:g} rms about their mean; expected finite inputs that vary"
        )
    return mean, scale


def _encode(targets: np.ndarray, classes: tuple[int, ...], loss: str) -> np.ndarray:
    """(..., C) float64: real-valued targets as they are; labels (...) as ±1 for two classes, squared; else
    one-hot.
    """
    if not classes:
        return targets
    if signed(len(classes), loss):
        return np.where(targets == classes[1], 1.0, -1.0)[..., None]
    return (targets[..., None] == np.asarray(classes)).astype(np.float64)
