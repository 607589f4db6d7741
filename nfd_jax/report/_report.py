"""Reports as files: of one sweep, of a sweep's variants, of several runs side by side."""

import os
from collections.abc import Sequence
from pathlib import Path

from nfd_jax.report._draw import draw_all
from nfd_jax.report._figures import drawings
from nfd_jax.report._page import sweep_page
from nfd_jax.report._page_variants import variants_page
from nfd_jax.report._progress import failures, members


def write(folder: Path) -> Path:
    """`report.write_report`."""
    from nfd_jax.store import open_results

    found = members(folder)
    if found and "" not in found:
        trees = {name: open_results(path) for name, path in found.items()}
        return write_page(
            folder, variants_page(folder, trees, {name: f"{name}/report.html" for name in trees})
        )
    tree = open_results(folder)
    return write_page(
        folder, sweep_page(tree, draw_all(folder / "figures", drawings(tree)), failures(folder), folder)
    )


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
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path
