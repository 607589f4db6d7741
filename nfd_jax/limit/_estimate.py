"""What an estimate of the limit holds: quantities with their bars, and the table of levels behind them."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nfd_jax.limit._levels import KINDS
from nfd_jax.limit._multilevel import State, Sum, rms


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


@dataclass(frozen=True)
class LimitEstimate:
    """What `estimate_limit` found.

    `output` (K, P, C), `loss` (K,) and, where asked for, `heldout` (K, H, C), each a `Quantity`'s value in
    `quantities`; `standard_error` and `bias` are those of the output. `error` is the bound on the rms error
    that was reached, two standard errors and the bias, and `met` whether it is within the tolerance asked
    for. `levels` is a table of all levels.
    """

    quantities: dict[str, Quantity]
    error: float
    met: bool
    levels: tuple[LevelRow, ...]
    state: State = field(repr=False)
    identity: tuple = field(repr=False)

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
        return self.quantities["heldout"].value if "heldout" in self.quantities else None


def put_together(
    shapes: dict[str, tuple[int, ...]],
    state: State,
    total: Sum,
    reached: float,
    tolerance: float,
    identity: tuple,
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
    return LimitEstimate(quantities, reached, reached <= tolerance, tuple(rows), state, identity)
