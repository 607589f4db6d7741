"""Learning rates side by side: what each does to the loss and to the distance from either limit."""

import xarray as xr

from nfd_jax.report import _html as html
from nfd_jax.report._distances import distance
from nfd_jax.report._numbers import number, percent
from nfd_jax.verdicts import View, array, covered


def by_learning_rate(tree: xr.DataTree) -> str:
    """A table with a line for each rate, at the largest width and depth; "" where there is one rate only."""
    cells = array(tree, "status/cell")
    if cells is None or cells.sizes.get("learning_rate", 1) < 2:
        return ""
    config = View.of(tree).config
    lines = [
        _line(View(tree, config, float(rate)), cells.sel(learning_rate=rate))
        for rate in sorted(cells["learning_rate"].values)
    ]
    head = [
        "η",
        "last loss, reused",
        "last loss, independent",
        "h to the reused limit",
        "h to NFD",
        "diverged cells",
    ]
    return html.table(
        head,
        lines,
        caption="Standard networks at the largest width and depth; distances as shares of what learning moves",
    )


def _line(view: View, cells: xr.DataArray) -> list[str]:
    return [
        f"{view.rate:g}",
        *(_last_loss(view, flag) for flag in ("reused", "independent")),
        *(_distance(view, limit) for limit in ("reused", "independent")),
        f"{int((cells == 2).sum())} of {cells.size}",
    ]


def _last_loss(view: View, flag: str) -> str:
    loss = view.get("finite/loss")
    if loss is None or flag not in loss["backward_weights"]:
        return "–"
    loss = loss.sel(backward_weights=flag)
    if not loss.notnull().any():
        return "diverged"
    return number(
        float(
            loss.sel(width=covered(loss, "width")[-1], depth=covered(loss, "depth")[-1]).isel(step=-1).mean()
        )
    )


def _distance(view: View, limit: str) -> str:
    found = distance(view, "reused", limit)
    if found is None:
        return "–"
    return percent(found.share) if found.share == found.share else number(found.size.value)
