"""From results to rates, verdicts, figures and the report.

Loaded when used: processes that only compute need neither matplotlib nor the terminal.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

__all__ = ["rates", "show", "write_report"]


def rates(tree: "xr.DataTree") -> "xr.Dataset":
    """The group /rates of a results tree: slopes, plateaus, their 95 % intervals and verdicts, over row, with claims.

    Slopes are of log mean square on log width or depth, plateaus in units of the quantity; rows follow the claims of
    arXiv 2512.21075.
    """
    from nfd_jax.verdicts._verdicts import rows, to_dataset

    return to_dataset(rows(tree))


def write_report(folder: Path) -> Path:
    """Writes folder/report.html and folder/figures/*.png and *.svg; returns the report's path.

    In a folder of variants, which has no results.zarr of its own but sub-folders with one, the report puts them side by
    side and links to their own. Raises StoreError where there are no results.
    """
    from nfd_jax.report._report import write

    return write(Path(folder))


def show(folder: Path, console: "Console", watch: bool = False) -> None:
    """Prints progress and verdicts of the sweep in `folder`, variants side by side.

    With `watch` they are refreshed until the sweep is finished or Ctrl-C, which is no error. Reads only: the sweep may
    be running in another process. Raises StoreError where there are no results, unless it is to wait for them.
    """
    from nfd_jax.report import _show

    _show.show(Path(folder), console, watch)
