"""/spectrum: extreme eigenvalues of the Gram matrices of φ(h) and b, which the paper's theorems assume
nondegenerate."""

import numpy as np

from nfd_jax import observables
from nfd_jax.activations import resolve
from nfd_jax.config import obstacle
from nfd_jax.measures._measure import NETWORK, RUN, Cells, Measure, Named, Variable

DIMS = ("kind", "scope", *NETWORK, "t")


def _compute(cells: Cells) -> dict[str, Named]:
    assert cells.networks is not None
    run, phi = cells.networks.trajectory, resolve(cells.networks.activation).value
    paths = phi(run.features), run.gradients
    kinds = [observables.extreme_eigenvalues(np.asarray(x, float)) for x in paths]
    return {
        f"spectrum/{name}_eigenvalue": Named(("kind", "scope", *RUN, "step", "t"), np.stack(found))
        for name, found in zip(("min", "max"), zip(*kinds, strict=True), strict=True)
    }


SPECTRUM = Measure(
    "spectrum",
    {
        "spectrum/min_eigenvalue": Variable(DIMS, "smallest eigenvalue of the Gram matrix"),
        "spectrum/max_eigenvalue": Variable(DIMS, "largest eigenvalue of the Gram matrix"),
    },
    lambda config: obstacle(config, "spectrum"),
    _compute,
    frozenset({"paths"}),
)
