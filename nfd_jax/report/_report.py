"""Reports as files: of one sweep, of a sweep's variants, of several runs side by side."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from nfd_jax.report._draw import Drawn, drawn, remove_others
from nfd_jax.report._figures import FIGURES, Figures
from nfd_jax.report._helper import Helper
from nfd_jax.report._page import sweep_page
from nfd_jax.report._page_variants import variants_page
from nfd_jax.report._plot import styled
from nfd_jax.report._progress import failures, members


def write(folder: Path, helper: Helper, tree: xr.DataTree | None = None) -> Path:
    """`report.write_report`."""
    from nfd_jax.store import open_results

    found = {} if tree is not None else members(folder)
    if found and "" not in found:
        trees = {name: open_results(path) for name, path in found.items()}
        return write_page(
            folder, variants_page(folder, trees, {name: f"{name}/report.html" for name in trees})
        )
    tree = open_results(folder) if tree is None else tree
    lost: dict[str, str] = {}
    saved = _drawn(folder, tree, helper, lost)
    if lost:
        said = "; ".join(f"{name}: {why}" for name, why in lost.items())
        warnings.warn(f"{folder}: figures that could not be drawn: {said}", stacklevel=3)
    return write_page(folder, sweep_page(tree, saved, failures(folder), folder, lost))


def _drawn(folder: Path, tree: xr.DataTree, helper: Helper, lost: dict[str, str]) -> dict[str, Drawn]:
    """Every figure of a sweep that there is data for; `lost` gets those that fail, and why."""
    figures, target = Figures(tree), folder / "figures"

    def here(name: str) -> Drawn | None:
        try:
            made = figures.make(name)
            return None if made is None else drawn(target, made)
        except OSError:
            raise
        except Exception as error:  # the others, and all numbers, are still worth a page
            words = str(error).splitlines()
            lost[name] = f"{type(error).__name__}: {words[0] if words else 'no message'}"
            return None

    with styled():
        found = helper.draw(folder, list(FIGURES), here)
    saved = {name: drawn for name, drawn in found.items() if drawn is not None}
    remove_others(target, saved)
    return saved


def compare(folders: Sequence[Path]) -> Path:
    """`report.write_comparison`."""
    from nfd_jax.store import StoreError, open_results

    if len(folders) < 2:
        raise ValueError(f"{len(folders)} folders to compare, allowed: two or more")
    trees, links = {}, {}
    target = folders[0] / "comparison"
    for folder in folders:
        found = members(folder)
        if not found:
            raise StoreError(f"{folder}: no results, allowed: folders that nfd run has written")
        for variant, path in found.items():
            name = _unused(
                trees, "/".join(filter(None, [path.name if not variant else folder.name, variant]))
            )
            trees[name] = open_results(path)
            links[name] = os.path.relpath(path / "report.html", target)
    target.mkdir(exist_ok=True)
    return write_page(target, variants_page(target, trees, links, kind="run"))


def _unused(taken: dict, name: str) -> str:
    """The name, with a number where another run has it."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name} ({number})", number + 1
    return found


def write_page(folder: Path, text: str) -> Path:
    """folder/report.html, replaced in one go."""
    path, temporary = folder / "report.html", folder / ".report.html.tmp"
    temporary.write_text(text, encoding="utf-8", errors="replace")
    os.replace(temporary, path)
    return path
