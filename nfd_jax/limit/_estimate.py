"""What an estimate of the limit holds: quantities with their bars, the table of levels behind them, and a
file of all of it from which it goes on."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from nfd_jax.limit._levels import KINDS, Level
from nfd_jax.limit._multilevel import Moments, State, Sum, rms

FORMAT = 3
"""Of files: raised where what they hold, or the samples that a chunk of a level consists of, change."""


class Quantity(NamedTuple):
    """A `value`, its `standard_error`, and a bound `bias` on what the levels leave out, arrays of one
    shape."""

    value: np.ndarray
    standard_error: np.ndarray
    bias: np.ndarray


class LevelRow(NamedTuple):
    """One level: `kind`, N, M, `samples`, rms over the outputs of its standard deviation squared and of its
    mean, and seconds of work."""

    kind: str
    particles: int
    steps: int
    samples: int
    variance: float
    mean: float
    seconds: float


@dataclass(frozen=True, repr=False)
class LimitEstimate:
    """What `estimate_limit` found.

    `output` (K, P, C), `loss` (K,) and, where asked for, `heldout` (K, H, C), `feature_kernel` and
    `gradient_kernel` (K, G+1, P, P), each a `Quantity`'s value in `quantities`; `standard_error` and `bias`
    are those of the output. `error` is the bound on the rms error that was reached, two standard errors and
    the bias, and `met` whether it is within the tolerance asked for. `levels` is a table of all levels.
    `identity` tells what it is an estimate of.
    """

    quantities: dict[str, Quantity]
    error: float
    met: bool
    levels: tuple[LevelRow, ...]
    state: State = field(repr=False)
    identity: str = field(repr=False)

    @property
    def output(self) -> np.ndarray:
        return self.quantities["output"].value

    @property
    def standard_error(self) -> np.ndarray:
        return self.quantities["output"].standard_error

    @property
    def bias(self) -> np.ndarray:
        return self.quantities["output"].bias

    @property
    def loss(self) -> np.ndarray:
        return self.quantities["loss"].value

    @property
    def heldout(self) -> np.ndarray | None:
        return self._value("heldout")

    @property
    def feature_kernel(self) -> np.ndarray | None:
        """⟨φ(h_p) φ(h_q)⟩ of each step's batch at t = 0, 1/G, …, 1."""
        return self._value("feature_kernel")

    @property
    def gradient_kernel(self) -> np.ndarray | None:
        """⟨b_p b_q⟩ at the same t."""
        return self._value("gradient_kernel")

    def __repr__(self) -> str:
        of = lambda name: f"{name} {self.quantities[name].value.shape}"
        reached = f"error={self.error:.2g}, met={self.met}, {len(self.levels)} levels"
        return f"LimitEstimate({', '.join(map(of, self.quantities))}; {reached})"

    def _value(self, name: str) -> np.ndarray | None:
        return self.quantities[name].value if name in self.quantities else None

    def save(self, path: str | os.PathLike) -> None:
        """Write all of it to `path` (.npz), whole or not at all, for `load` and `estimate_limit(resume=…)` in
        another process. `progress=lambda estimate: estimate.save(path)` keeps what an interrupted call had
        reached."""
        state, path = self.state, Path(path)
        number = {level: i for i, level in enumerate(state.wanted)}
        arrays: dict[str, np.ndarray] = {
            "format": np.asarray(FORMAT),
            "identity": np.asarray(self.identity),
            "reached": np.asarray([self.error, float(self.met)]),
            "names": np.asarray(list(self.quantities)),
            "levels": _table((level.kind, level.particles, level.steps) for level in number),
            "wanted": np.asarray(list(state.wanted.values())),
            "rows": _table(row[:4] for row in self.levels),
            "row_values": np.asarray([row[4:] for row in self.levels]),
        }
        for name, quantity in self.quantities.items():
            arrays |= {f"{name}/{part}": value for part, value in quantity._asdict().items()}
        for level, moments in state.found.items():
            arrays |= {f"{number[level]}/{part}": np.asarray(x) for part, x in moments._asdict().items()}
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with beside.open("wb") as file:
                np.savez(file, **arrays)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LimitEstimate":
        """The estimate that `save` wrote, to the last bit. Raises ValueError where the file is damaged, of
        another version, or something else; OSError where it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if (found := arrays["format"].item()) == FORMAT:
                return cls(*_read(arrays))
        except (ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path}: no estimate of a limit, or a damaged one: {error}") from None
        raise ValueError(f"{path}: an estimate in format {found}, this version reads {FORMAT}: estimate anew")


def _table(rows) -> np.ndarray:
    """Kind, N, M, … of levels, as words."""
    return np.asarray([[str(part) for part in row] for row in rows])


def _read(arrays: dict[str, np.ndarray]) -> tuple:
    """The fields of an estimate, from the arrays of its file."""
    kinds = lambda table: [(str(kind), *map(int, sizes)) for kind, *sizes in table]
    levels = [Level(*words) for words in kinds(arrays["levels"])]
    state = State({}, dict(zip(levels, arrays["wanted"].tolist(), strict=True)))
    for i, level in enumerate(levels):
        if f"{i}/count" in arrays:
            parts = [arrays[f"{i}/{part}"] for part in Moments._fields]
            state.found[level] = Moments(*(x if x.ndim else x.item() for x in parts))
    quantities = {
        str(name): Quantity(*(arrays[f"{name}/{part}"] for part in Quantity._fields))
        for name in arrays["names"]
    }
    values = zip(kinds(arrays["rows"]), arrays["row_values"].tolist(), strict=True)
    rows = tuple(LevelRow(*words, *numbers) for words, numbers in values)
    error, met = arrays["reached"].tolist()
    return quantities, error, bool(met), rows, state, str(arrays["identity"])


def put_together(
    shapes: dict[str, tuple[int, ...]],
    state: State,
    total: Sum,
    reached: float,
    tolerance: float,
    identity: str,
) -> LimitEstimate:
    """The estimate that `total` stands for, vectors of the quantities of `shapes`."""
    places = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    cut = lambda x: [
        part.reshape(shape) for part, shape in zip(np.split(x, places[:-1]), shapes.values(), strict=True)
    ]
    every = zip(cut(total.value), cut(np.sqrt(total.variance)), cut(total.bias), strict=True)
    quantities = {name: Quantity(*parts) for name, parts in zip(shapes, every, strict=True)}
    rows = []
    for kind in KINDS:
        for level in state.series(kind):
            found, outputs = state.found[level], slice(places[0])
            spread, mean = float(np.mean(found.variance[outputs])), rms(found.mean[outputs])
            rows.append(
                LevelRow(kind, level.particles, level.steps, found.count, spread, mean, found.seconds)
            )
    return LimitEstimate(quantities, reached, bool(reached <= tolerance), tuple(rows), state, identity)
