"""/compare: how far networks are from limits on the same noise, path by path."""

import jax
import numpy as np
from jaxtyping import Array, Float

from nfd_jax import observables
from nfd_jax.config import obstacle
from nfd_jax.measures._measure import (
    COMPARED,
    PAIR,
    Cells,
    Measure,
    Named,
    Paths,
    Runs,
    Variable,
)
from nfd_jax.programs import Program
from nfd_jax.sharding import map_seeds


def differences(networks: Runs, limits: Runs) -> np.ndarray:
    """Mean squares of every network minus every limit it is set against, (S, R, F, G, K, quantity)."""
    own = limits.trajectory.loss.ndim == networks.trajectory.loss.ndim + 1
    return np.asarray(_differences(Paths.of(networks.trajectory), Paths.of(limits.trajectory), own), float)


@Program
def _differences(networks: Paths, limits: Paths, own: bool) -> Float[Array, "S R F G K 3"]:
    several = jax.vmap(observables.differences, (None, 0))
    pairs = jax.vmap(several) if own else jax.vmap(several, (0, None))
    return map_seeds(lambda at: jax.lax.map(lambda rate: pairs(*rate), at), (networks, limits))


def _limit_error(cells: Cells) -> dict[str, Named]:
    return {"compare/limit_error_ms": Named((*PAIR, "step", "quantity"), differences(*cells.pairs()))}


def _reference_error(cells: Cells) -> dict[str, Named]:
    assert cells.networks is not None
    return {
        "compare/reference_error_ms": Named(
            (*PAIR, "step", "quantity"), differences(cells.networks, cells.reference())
        )
    }


LIMIT_ERROR = Measure(
    "limit_error",
    {
        "compare/limit_error_ms": Variable(
            (*COMPARED, "quantity"), "mean square of network minus limit on the same noise"
        )
    },
    lambda config: obstacle(config, "limit_error"),
    _limit_error,
    frozenset({"pairs"}),
)
REFERENCE_ERROR = Measure(
    "reference_error",
    {
        "compare/reference_error_ms": Variable(
            (*COMPARED, "quantity"),
            "mean square of network minus a limit of many more particles on nested noise",
        )
    },
    lambda config: obstacle(config, "reference_error"),
    _reference_error,
    frozenset({"reference"}),
)
