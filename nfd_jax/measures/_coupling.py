"""/coupling: what reusing W as Wᵀ adds to a network, against the same network with backward weights of their
own."""

import jax
import numpy as np
from jaxtyping import Array, Float

from nfd_jax import observables
from nfd_jax.config import obstacle
from nfd_jax.measures._measure import NETWORK, Cells, Measure, Named, Paths, Variable
from nfd_jax.programs import Program

CELL = NETWORK[1:]
DIMS = ("seed", "learning_rate", "step")


def _compute(cells: Cells) -> dict[str, Named]:
    assert cells.networks is not None
    run = cells.networks.trajectory
    reused, independent = map(cells.facts.flags.index, ("reused", "independent"))
    effect = np.asarray(_effect(Paths.of(run), reused, independent), float)
    found = {"coupling/coupling_effect_ms": Named((*DIMS, "quantity"), effect)}
    for name, value in (("layer", run.coupling.layer_ms), ("displacement", run.coupling.displacement_ms)):
        found[f"coupling/coupling_{name}_ms"] = Named(
            (*DIMS, "direction"), np.asarray(value, float)[:, :, reused]
        )
    return found


@Program
def _effect(networks: Paths, reused: int, independent: int) -> Float[Array, "S R K 3"]:
    """Networks on the same noise that differ in their backward weights alone."""
    pick = lambda flag: jax.tree.map(lambda x: x[:, :, flag], networks)
    return jax.vmap(jax.vmap(observables.differences))(pick(reused), pick(independent))


COUPLING = Measure(
    "coupling",
    {
        "coupling/coupling_effect_ms": Variable(
            (*CELL, "quantity"), "mean square of reused minus independent on the same noise"
        ),
        "coupling/coupling_layer_ms": Variable(
            (*CELL, "direction"), "mean square of one layer's coupling term"
        ),
        "coupling/coupling_displacement_ms": Variable(
            (*CELL, "direction"), "mean square of the sum of coupling terms"
        ),
    },
    lambda config: obstacle(config, "coupling"),
    _compute,
    frozenset({"coupling"}),
)
