"""Learning rates side by side: what each does to the loss and to the distance from either limit."""

import math

import xarray as xr

from nfd_jax.names import DIVERGED
from nfd_jax.report import _html as html
from nfd_jax.report._distances import distance
from nfd_jax.report._numbers import number, percent
from nfd_jax.verdicts import View, array

HEAD = [
    "η", "last loss, reused", "last loss, independent", "h to the reused limit", "h to NFD", "diverged cells",
]  # fmt: skip


def by_learning_rate(tree: xr.DataTree) -> str:
    """A table with a line for each rate, at the largest width and depth; "" where there is one rate only."""
    cells = array(tree, "status/cell")
    if cells is None or cells.sizes.get("learning_rate", 1) < 2:
        return ""
    config, flags = View.of(tree).config, ("reused", "independent")
    lines = []
    for rate in sorted(cells["learning_rate"].values):
        view, here = View(tree, config, float(rate)), cells.sel(learning_rate=rate)
        losses, distances = (
            (_last_loss(view, here, flag) for flag in flags),
            (_distance(view, flag) for flag in flags),
        )
        lines.append([f"{rate:g}", *losses, *distances, f"{int((here == DIVERGED).sum())} of {here.size}"])
    caption = (
        "Largest width and depth. Losses: means over the seeds that have one. Distances of reused networks: "
        "parts of what learning moves, rms."
    )
    empty = {i for i in range(len(HEAD)) if all(line[i] == "–" for line in lines)}
    shown = [[cell for i, cell in enumerate(line) if i not in empty] for line in (HEAD, *lines)]
    return html.table(shown[0], shown[1:], caption=caption)


def _last_loss(view: View, cells: xr.DataArray, flag: str) -> str:
    """Of the largest networks, over the seeds that have one, and how many diverged."""
    loss = view.get("finite/loss")
    if loss is None or flag not in loss["backward_weights"]:
        return "–"
    corner = {dim: -1 for dim in ("width", "depth")}
    last = loss.sel(backward_weights=flag).isel(corner | {"step": -1})
    lost = int((cells.sel(backward_weights=flag).isel(corner) == DIVERGED).sum())
    said = [number(float(last.mean()))] if last.notnull().any() else []
    return ", ".join([*said, *([f"{lost} of {last.sizes['seed']} diverged"] if lost else [])]) or "–"


def _distance(view: View, limit: str) -> str:
    found = distance(view, "reused", limit)
    if found is None:
        return "–"
    return number(found.size.value) if math.isnan(found.share) else percent(found.share)
