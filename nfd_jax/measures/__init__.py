"""What is measured: one file a measured group, and the list of them all.

A new observable is one new file and its line in `MEASURES`; those a config can choose are named in
`nfd_jax.names` besides.
"""

from typing import TYPE_CHECKING

from nfd_jax.config import measures
from nfd_jax.measures._compare import LIMIT_ERROR, REFERENCE_ERROR
from nfd_jax.measures._coupling import COUPLING
from nfd_jax.measures._kernels import KERNELS
from nfd_jax.measures._law import LAW
from nfd_jax.measures._measure import (
    PAIR,
    RUN,
    Cells,
    FirstSteps,
    Measure,
    Named,
    Paths,
    Runs,
    Variable,
    simulator_of,
)
from nfd_jax.measures._response import RATES as RESPONSE_RATES
from nfd_jax.measures._response import RESPONSE
from nfd_jax.measures._spectrum import SPECTRUM
from nfd_jax.measures._trajectory import (
    ESTIMATES,
    KERNEL_ESTIMATES,
    LIMITS,
    NETWORKS,
    dense_runs,
    summarize,
)

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

__all__ = [
    "MEASURES",
    "PAIR",
    "RESPONSE_RATES",
    "RUN",
    "Cells",
    "FirstSteps",
    "Measure",
    "Named",
    "Paths",
    "Runs",
    "Variable",
    "dense_runs",
    "simulator_of",
    "summarize",
    "taken",
]

MEASURES: list[Measure] = [
    NETWORKS,
    LIMITS,
    ESTIMATES,
    KERNEL_ESTIMATES,
    LIMIT_ERROR,
    REFERENCE_ERROR,
    LAW,
    RESPONSE,
    COUPLING,
    SPECTRUM,
    KERNELS,
]


def taken(config: "SweepConfig") -> list[Measure]:
    """The measures of a config's sweep: of those that a config can choose the chosen ones, of the others all
    that apply."""
    chosen = lambda measure: measure.name in config.measure or measure.name not in measures()
    return [measure for measure in MEASURES if chosen(measure) and measure.obstacle(config) is None]
