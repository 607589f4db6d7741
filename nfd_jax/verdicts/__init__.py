"""From measurements to verdicts: pure functions of a results tree.

`nfd_jax.verdicts(tree)` is the `/verdicts` group: the package itself can be called. `rates(tree)` is the
`/rates` group, the rows that the verdicts rest on.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import xarray as xr

from nfd_jax.verdicts._assumptions import THRESHOLD
from nfd_jax.verdicts._claims import MARGIN, conclusions, judge, rates
from nfd_jax.verdicts._curves import fit_coarsening, fit_slope
from nfd_jax.verdicts._seeds import UNKNOWN, Interval, Spread, decimals, student
from nfd_jax.verdicts._slopes import FLAT, TOLERANCE
from nfd_jax.verdicts._training import (
    DROPPED,
    GAP_MARGIN,
    LEARNED,
    REASONS,
    coordinate_check,
    gap_constants,
    relative_gap,
    transfer,
)
from nfd_jax.verdicts._tree import (
    FLOOR,
    STATES,
    View,
    array,
    by_seed,
    counts,
    covered,
    measured,
    section,
    settings,
    spread,
)
from nfd_jax.verdicts._words import (
    ARGUMENTS,
    CLAIMS,
    NOT_KNOWN,
    READINGS,
    SOURCES,
    STATEMENTS,
    VERDICTS,
    Statement,
)

if TYPE_CHECKING:
    from nfd_jax.verdicts._claims import judge as verdicts

__all__ = [
    "ARGUMENTS",
    "CLAIMS",
    "DROPPED",
    "FLAT",
    "FLOOR",
    "GAP_MARGIN",
    "Interval",
    "LEARNED",
    "MARGIN",
    "NOT_KNOWN",
    "READINGS",
    "REASONS",
    "SOURCES",
    "STATEMENTS",
    "STATES",
    "Spread",
    "Statement",
    "THRESHOLD",
    "TOLERANCE",
    "UNKNOWN",
    "VERDICTS",
    "View",
    "array",
    "by_seed",
    "conclusions",
    "coordinate_check",
    "counts",
    "covered",
    "decimals",
    "fit_coarsening",
    "fit_slope",
    "gap_constants",
    "measured",
    "rates",
    "relative_gap",
    "section",
    "settings",
    "spread",
    "student",
    "transfer",
    "verdicts",
]


class _Callable(ModuleType):
    """The package is the public function of its name too: an attribute can't be both otherwise."""

    def __call__(self, tree: xr.DataTree, *, margin: float = MARGIN) -> xr.Dataset:
        """See `judge`."""
        return judge(tree, margin=margin)


sys.modules[__name__].__class__ = _Callable
if not TYPE_CHECKING:
    verdicts = sys.modules[__name__]
