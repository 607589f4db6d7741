"""/kernels: ⟨φφ'⟩ and ⟨bb'⟩ of networks and, with as many particles, of limits."""

from typing import TYPE_CHECKING

import numpy as np

from nfd_jax.config import obstacle
from nfd_jax.measures._measure import NETWORK, RUN, Cells, Measure, Named, Variable
from nfd_jax.names import KERNEL_NAMES

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

DIMS = ("source", *NETWORK, "t", "sample", "sample2")


def _flags(own: tuple[str, ...], limits: tuple[str, ...]) -> tuple[str, ...]:
    return (*own, *(flag for flag in limits if flag not in own))


def _compute(cells: Cells) -> dict[str, Named]:
    assert cells.networks is not None
    facts = cells.facts
    sources = [(cells.networks.kernels, facts.flags)]
    if cells.limits is not None:
        sources.append((cells.limits.kernels, facts.limit_flags))
    every, found = _flags(facts.flags, facts.limit_flags), {}
    for name in KERNEL_NAMES:
        *lead, _, steps, grid, rows, columns = sources[0][0][name].shape
        both = np.full((len(sources), *lead, len(every), steps, grid, rows, columns), np.nan)
        for place, (kernels, own) in zip(both, sources, strict=True):
            place[:, :, [every.index(flag) for flag in own]] = kernels[name]
        found[f"kernels/{name}"] = Named(("source", *RUN, "step", "t", "sample", "sample2"), both)
    return found


def _coordinates(config: "SweepConfig") -> dict[str, tuple]:
    if config.finite is None:
        return {}
    matched = config.limit is not None and config.limit.particles == "matched"
    limits = config.limit.backward_weights if matched else ()
    source = ("finite", "limit") if matched else ("finite",)
    return {"source": source, "backward_weights": _flags(config.finite.backward_weights, limits)}


KERNELS = Measure(
    "kernels",
    {
        "kernels/feature_kernel": Variable(DIMS, "average over coordinates of phi(h) phi(h')"),
        "kernels/gradient_kernel": Variable(DIMS, "average over coordinates of b b'"),
    },
    lambda config: (
        obstacle(config, "kernels") or (None if config.finite else "is stored for finite networks")
    ),
    _compute,
    frozenset({"kernels"}),
    _coordinates,
)
