"""From results to rates, verdicts, figures and the report."""

from nfd_jax.analysis._report import write_report
from nfd_jax.analysis._show import show
from nfd_jax.analysis._verdicts import rows, to_dataset

__all__ = ["rates", "show", "write_report"]


def rates(tree):
    """The `/rates` group of a results tree."""
    return to_dataset(rows(tree))
