"""Sweeps: a grid of networks and limits from a config, planned and computed batch by batch."""

from nfd_jax.sweep._compute import CELL_ERRORS, first_line
from nfd_jax.sweep._estimate import describe
from nfd_jax.sweep._execute import run_batch
from nfd_jax.sweep._memory import CellTooLarge
from nfd_jax.sweep._plan import make_plan, too_large
from nfd_jax.sweep._progress import Progress
from nfd_jax.sweep._results import results
from nfd_jax.sweep._task import Task
from nfd_jax.sweep._verify import locate_nonfinite, precision_check, verify_sample

__all__ = [
    "CELL_ERRORS",
    "CellTooLarge",
    "Progress",
    "Task",
    "describe",
    "first_line",
    "locate_nonfinite",
    "make_plan",
    "precision_check",
    "results",
    "run_batch",
    "too_large",
    "verify_sample",
]
