"""From stored results to figures, a page and lines in the terminal. Only reads what a run has stored.

Loaded when used: processes that only compute need neither matplotlib nor the terminal.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from nfd_jax.report._helper import Helper

__all__ = ["begin", "helper", "show", "summary_lines", "write_comparison", "write_report"]


def summary_lines(tree: "xr.DataTree") -> list[str]:
    """What a run found, in three lines: distance of networks to each limit, and how many claims hold, fail
    and are open.

    Without a limit what the losses say stands in place of the distances. Slopes are of log mean square on log
    depth, with 95 % intervals over seeds.
    """
    from nfd_jax.report._claims import counted, judged
    from nfd_jax.report._distances import summary_of
    from nfd_jax.verdicts import View

    return [*summary_of(View.of(tree)), counted(judged(tree))]


def helper() -> "Helper":
    """A second process that figures may be shared out to, from the moment of its `start`: a context that it
    ends with."""
    from nfd_jax.report._helper import Helper

    return Helper()


def begin(folder: Path, helper: "Helper") -> None:
    """Have the helper draw figures of `folder`, whose measured arrays are all stored, until `write_report` is
    called with it."""
    from nfd_jax.report._figures import FIGURES

    helper.begin(Path(folder), list(FIGURES))


def write_report(folder: Path, helper: "Helper | None" = None, tree: "xr.DataTree | None" = None) -> Path:
    """Writes folder/report.html and folder/figures/*.png; returns the report's path. `tree`: the results of
    `folder` where they have been opened.

    In a folder of variants, which has no results.zarr of its own but sub-folders with one, the report puts
    them side by side and links to their own. Raises StoreError where there are no results.
    """
    from nfd_jax.report._helper import Helper
    from nfd_jax.report._report import write

    with nullcontext(helper) if helper else Helper() as own:
        return write(Path(folder), own, tree)


def write_comparison(folders: Sequence[Path]) -> Path:
    """Compares runs: writes comparison/report.html and its figures into the first folder; returns the
    report's path.

    Raises ValueError for fewer than two folders, StoreError where one has no results of its own.
    """
    from nfd_jax.report._report import compare

    return compare([Path(folder) for folder in folders])


def show(folder: Path, console: "Console", watch: bool = False) -> None:
    """Prints progress and verdicts of the sweep in `folder`, variants side by side.

    With `watch` they are refreshed until the sweep is finished or Ctrl-C, which is no error. Reads only: the
    sweep may be running in another process. Raises StoreError where there are no results, unless it is to
    wait for them.
    """
    from nfd_jax.report import _show

    _show.show(Path(folder), console, watch)
