"""The samples a problem draws from, checked so thoroughly that whatever is drawn from them will do."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nfd_jax.data._datasets import locate, read
from nfd_jax.data._files import DataError
from nfd_jax.data._samples import Samples
from nfd_jax.data._scale import check_scale, standardization
from nfd_jax.data._source import digest, stamps

if TYPE_CHECKING:
    from nfd_jax.config import ProblemConfig

MOST_HELDOUT = 32


@dataclass(frozen=True, eq=False)
class _Facts:
    """What takes a pass over all samples: their digest, and mean and scale of the training samples."""

    source: str
    mean: np.ndarray
    scale: float


@dataclass(frozen=True, eq=False)
class Choice:
    """All samples of the chosen classes. `heldout`: how many are held out, of the test samples, or of the
    training samples where there are none. `source`: see `Data`.
    """

    train: Samples
    test: Samples | None
    classes: tuple[int, ...]
    heldout: int
    facts: _Facts

    @property
    def source(self) -> str:
        return self.facts.source

    def standardization(self, train: Samples) -> tuple[np.ndarray, float]:
        """Mean and scale of what is left of the training samples."""
        whole = self.test is not None
        return (self.facts.mean, self.facts.scale) if whole else standardization(train)


def choose(problem: "ProblemConfig") -> Choice:
    """Read and check. Raises every DataError that there is about a problem's data: later draws raise none."""
    files = locate(problem.dataset, problem.data_dir)
    stamp = stamps(files)
    train, test = read(problem.dataset, files)
    stamp = stamp if stamps(files) == stamp else None  # changed while they were read
    classes = _classes(train, problem)
    train, test = _only(train, classes), None if test is None else _only(test, classes)
    heldout = min(MOST_HELDOUT, max(1, len(train) // 4) if test is None else len(test))
    left = len(train) - (heldout if test is None else 0)
    key = "pool" if problem.batches == "epochs" and problem.pool is not None else "batch_size"
    needed = getattr(problem, key)
    if left < needed or not heldout:
        raise DataError(
            f"{train.place}: {left} training and {heldout} held-out samples of the chosen classes;"
            f" expected at least {key} = {needed} and 1: lower {key} or choose other classes"
        )
    return Choice(train, test, classes, heldout, _facts(stamp, train, test, classes, heldout))


_known: dict[Hashable, _Facts] = {}
_MOST_KNOWN = 16


def _facts(
    stamp: Hashable, train: Samples, test: Samples | None, classes: tuple[int, ...], heldout: int
) -> _Facts:
    """Worked out once for files that have not changed: data drawn per seed ask for each repetition."""
    key = (stamp, classes)
    if stamp is not None and (found := _known.get(key)):
        return found
    mean, scale = check_scale(train, test, heldout if test is None else 0)
    found = _Facts(digest(classes, train, test), mean, scale)
    if stamp is not None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = found
    return found


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
    if not classes or (chosen := np.isin(samples.targets, classes)).all():
        return samples
    return samples[chosen]
