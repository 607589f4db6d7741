"""The figures of one sweep, those its results have data for."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import xarray as xr

from nfd_jax.report._fig_coupling import coupling
from nfd_jax.report._fig_error import joint_limits, learning_rates, limit_error
from nfd_jax.report._fig_front import front_error, front_loss
from nfd_jax.report._fig_gap import gap
from nfd_jax.report._fig_law import law, response
from nfd_jax.report._fig_spectrum import eigenvalues, nondegeneracy
from nfd_jax.report._fig_training import kernels, losses, residual
from nfd_jax.report._fig_transfer import coordinate_check, transfer
from nfd_jax.report._plot import Drawing
from nfd_jax.verdicts import View

FIGURES: dict[str, Callable[[View], Drawing | None]] = {
    "front_loss": front_loss,
    "front_error": front_error,
    "coupling_width": partial(coupling, axis="width"),
    "coupling_depth": partial(coupling, axis="depth"),
    "limit_error_depth": partial(limit_error, axis="depth"),
    "limit_error_width": partial(limit_error, axis="width"),
    "law": law,
    "response": response,
    "eigenvalues": eigenvalues,
    "nondegeneracy": nondegeneracy,
    "joint_limits": joint_limits,
    "learning_rates": learning_rates,
    "transfer": transfer,
    "gap": gap,
    "loss": partial(losses, held_out=False),
    "heldout_loss": partial(losses, held_out=True),
    "kernels": kernels,
    "coordinate_check": coordinate_check,
    "residual": residual,
}
VARIANT_FIGURES = ("variants", "parametrizations", "phase_map", "richness", "optima", "comparison")
NAMES = (*FIGURES, *VARIANT_FIGURES, "coupling")
"""Names a report's figures may have, earlier versions' among them; phase_map is followed by a hyphen and
more."""


class Remembering(View):
    """A view that masks and sorts every array once."""

    @cached_property
    def _known(self) -> dict:
        return {}

    def get(self, path: str) -> xr.DataArray | None:
        if path not in self._known:
            self._known[path] = super().get(path)
        return self._known[path]


class Figures:
    """The figures of one tree, by name; to be drawn within `styled`."""

    def __init__(self, tree: xr.DataTree):
        self._view = Remembering.of(tree)

    def make(self, name: str) -> Drawing | None:
        """None where there is no data for it."""
        return FIGURES[name](self._view)


def drawings(tree: xr.DataTree) -> Iterator[Drawing]:
    """Every figure there is data for, one at a time."""
    return filter(None, map(Figures(tree).make, FIGURES))
