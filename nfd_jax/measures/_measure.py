"""What a measure is, and what it is computed from.

A measure is one file: its variables with their dims, when it applies, what it needs recorded and how it is
computed. The store's layout, what runs record, and the arrays of a batch all follow from the list `MEASURES`.
Arrays carry the names of their dims, in any order: the store transposes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Array

from nfd_jax import observables
from nfd_jax.activations import resolve
from nfd_jax.names import KERNEL_NAMES
from nfd_jax.problem import Problem
from nfd_jax.programs import Program
from nfd_jax.sharding import map_seeds
from nfd_jax.trajectory import Trajectory

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

RUN = ("seed", "learning_rate", "backward_weights")
"""Leading dims of runs: networks of one width and depth, or limits."""

PAIR = (*RUN, "limit_backward_weights")
"""Leading dims of what tells networks from limits on the same noise."""

NETWORK = ("backward_weights", "learning_rate", "width", "depth", "seed", "step")
LIMIT = ("backward_weights", "learning_rate", "particles", "seed", "step")
COMPARED = ("backward_weights", "limit_backward_weights", *NETWORK[1:])


class Named(NamedTuple):
    """An array with the names of its dims."""

    dims: tuple[str, ...]
    values: np.ndarray

    def over(self, dims: tuple[str, ...]) -> np.ndarray:
        """The array with its dims in this order, those that it lacks of length 1. ValueError for dims that
        are not among these."""
        if (
            len(set(self.dims)) < len(self.dims)
            or not set(self.dims) <= set(dims)
            or np.ndim(self.values) != len(self.dims)
        ):
            raise ValueError(
                f"shape {np.shape(self.values)} over {', '.join(self.dims)}, expected dims {', '.join(dims)}"
            )
        absent = [dim for dim in dims if dim not in self.dims]
        every = (*absent, *self.dims)
        values = np.reshape(self.values, (*(1,) * len(absent), *np.shape(self.values)))
        return values.transpose([every.index(dim) for dim in dims])


class Paths(NamedTuple):
    """What runs are compared by, any leading axes: f, losses, and, where recorded, h and b on the t grid."""

    output: Any
    loss: Any
    features: Any
    gradients: Any

    @classmethod
    def of(cls, run: "Trajectory | Paths") -> "Paths":
        """Those of a trajectory, without whatever else it recorded."""
        return cls(run.output, run.loss, run.features, run.gradients)


@dataclass(frozen=True)
class Variable:
    """One variable of a group: its dims in the store's order, a short name for people, and its unit ("1" for
    a pure number)."""

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"


class Facts(Protocol):
    """What a measure may ask of the batch that it is computed for."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Backward weights of the networks."""
        ...

    @property
    def limit_flags(self) -> tuple[str, ...]:
        """Backward weights of the limits on their noise; () where there are none."""
        ...

    @property
    def fixed_batch(self) -> bool:
        """Whether every step sees the same samples, so that features of different steps can be compared as
        they are."""
        ...


@dataclass
class Runs:
    """Networks of one depth, or limits; leading axes RUN, or PAIR where each network has limits of its own.

    `found` holds the variables of /finite or /limit by name. `trajectory` has h and b on the grid of t,
    `features` and `gradients` (…, K, G, P, n), as far as they were recorded.
    """

    trajectory: Trajectory | Paths
    found: Mapping[str, np.ndarray]
    activation: str

    @cached_property
    def kernels(self) -> dict[str, np.ndarray]:
        """`feature_kernel` ⟨φφ'⟩ and `gradient_kernel` ⟨bb'⟩, (…, K, G, P, P)."""
        if all(name in self.found for name in KERNEL_NAMES):
            return {name: np.asarray(self.found[name], float) for name in KERNEL_NAMES}
        kernels = _kernels(self.trajectory.features, self.trajectory.gradients, self.activation)
        return dict(zip(KERNEL_NAMES, (np.asarray(x, float) for x in kernels), strict=True))

    def end(self, name: str) -> np.ndarray:
        """h at t = 1 or b at t = 0, (…, K, P, n)."""
        place = -1 if name == "h" else 0
        paths = self.trajectory.features if name == "h" else self.trajectory.gradients
        return np.asarray(paths[..., place, :, :], float)


@dataclass
class Cells:
    """What a batch has at one depth: its networks, and the limits on their noise.

    `networks` is None for what is asked of the limits alone. `pairs` gives networks, leading axes RUN, and
    the limits to set them against: one for all networks of a seed, leading axes RUN, or for each network one
    on its own noise, leading axes PAIR. `reference` gives limits of more particles on nested noise, cut to
    the networks' width. `first_steps` trains networks of the same sizes for one step on one sample at each of
    two learning rates, in float64. `initial_averages` gives each seed's ⟨φφ'⟩ and ⟨bb'⟩ of step 0 at n = L =
    ∞, each (S, G, P, P), from their closed forms.
    """

    facts: Facts
    networks: Runs | None
    limits: Runs | None
    pairs: Callable[[], tuple[Runs, Runs]] = field(default=lambda: _absent("pairs"))
    reference: Callable[[], Runs] = field(default=lambda: _absent("reference"))
    first_steps: Callable[[], "FirstSteps"] = field(default=lambda: _absent("first steps"))
    initial_averages: Callable[[], tuple[np.ndarray, np.ndarray]] = field(
        default=lambda: _absent("initial averages")
    )


class FirstSteps(NamedTuple):
    """One step on one sample: for each seed its problem, the learning rates (two), outputs (S, R, F, K = 2,
    1, C), and the step's gain at n = L = ∞, `predicted` (S, 2) for reused and independent backward
    weights."""

    problems: list[Problem]
    rates: np.ndarray
    output: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Measure:
    """A measured group, or a part of one.

    `variables`: by "group/variable", dims in the store's order. `obstacle(config)`: why it does not apply,
    with what is allowed, or None. `compute(cells)`: arrays by the same names; "width", "particles" and
    "depth" may be left out where there is one. `coordinates(config)`: values along dims of its group that
    differ from the usual ones. `needs`: what networks must record, "paths" (h and b), "kernels", "coupling",
    and what it asks of `Cells` besides, "pairs", "reference", "first_steps".
    """

    name: str
    variables: Mapping[str, Variable]
    obstacle: Callable[["SweepConfig"], str | None]
    compute: Callable[[Cells], Mapping[str, Named]]
    needs: frozenset[str] = frozenset()
    coordinates: Callable[["SweepConfig"], Mapping[str, tuple[Any, ...]]] = field(default=lambda config: {})

    @property
    def of_limits(self) -> bool:
        """Whether it is taken of the limits of a batch, once for all depths."""
        return any("particles" in variable.dims for variable in self.variables.values())


def simulator_of(config: "SweepConfig", width: int) -> str:
    """ "dense" or "matrix_free" for networks of `width`: auto is dense where matrix-free is impossible or
    limits don't apply."""
    asked = config.finite.simulator
    if asked != "auto":
        return asked
    return "dense" if config.needs_matrices or width < config.directions else "matrix_free"


def _absent(what: str):
    raise ValueError(f"this batch has no {what}")


@Program
def _kernels(features: Array, gradients: Array, name: str) -> tuple[Array, Array]:
    phi = resolve(name).value
    return map_seeds(
        lambda at: (observables.kernel(phi(at[0])), observables.kernel(at[1])), (features, gradients)
    )
