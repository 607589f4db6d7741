"""The coordinate check: do training's changes of h and f keep their size as networks grow wider and
deeper?"""

import numpy as np
import xarray as xr

from nfd_jax.verdicts._seeds import UNKNOWN, Array, Interval, Spread
from nfd_jax.verdicts._slopes import FLAT
from nfd_jax.verdicts._tree import measured, section, settings

SIZES = ("width", "depth")


def coordinate_check(
    tree: xr.DataTree, *, backward_weights: str = "reused", step: int = -1
) -> xr.Dataset | None:
    """Root mean square of what training has changed in h and f by a step, against width and depth; None where
    it was not measured.

    Dims quantity = h, f and learning_rate, width, depth:

    - `size`, `size_low`, `size_high`: rms of h_k − h_0 (at the t where it is largest) and of f_k − f_0, with
      95 % intervals. f needs the same samples at every step and is NaN on others.
    - `width_slope` … `_low`, `_high` (quantity, learning_rate): power of n that sizes follow, depths taken
      out; `depth_slope` that of L. NaN where there are fewer than two sizes.
    - `width_verdict`, `depth_verdict` (quantity, learning_rate): "flat" (the interval lies within ±FLAT),
      "grows", "falls" (beyond it), "undecided", "" where there is no slope.
    """
    changed = _changes(tree, backward_weights, step)
    if not changed:
        return None
    first = next(iter(changed.values()))
    labels = {name: first[name].values for name in ("learning_rate", *SIZES)}
    shape = (2, *(len(x) for x in labels.values()))
    size = np.full((3, *shape), np.nan)
    slopes = {axis: np.full((3, *shape[:2]), np.nan) for axis in SIZES}
    verdicts = {axis: np.full(shape[:2], "", "U16") for axis in SIZES}
    for q, values in ((("h", "f").index(name), values) for name, values in changed.items()):
        for r in range(shape[1]):
            whole = values.values[r]  # width, depth, seed
            for place in np.ndindex(shape[2:]):
                one = whole[place][np.isfinite(whole[place])]
                if len(one):
                    found = Spread.of(one).interval()
                    size[(slice(None), q, r, *place)] = np.sqrt(
                        np.maximum((found.estimate, found.low, found.high), 0)
                    )
            for axis in SIZES:
                found = _slope(whole, labels[axis], SIZES.index(axis))
                slopes[axis][:, q, r] = found.estimate, found.low, found.high
                verdicts[axis][q, r] = _verdict(found)
    data = {}
    for end, x in zip(("", "_low", "_high"), range(3), strict=True):
        data[f"size{end}"] = (("quantity", "learning_rate", *SIZES), size[x])
        data |= {f"{axis}_slope{end}": (("quantity", "learning_rate"), slopes[axis][x]) for axis in SIZES}
    data |= {f"{axis}_verdict": (("quantity", "learning_rate"), verdicts[axis]) for axis in SIZES}
    return xr.Dataset(data, {"quantity": ["h", "f"], **labels}, {"flat": FLAT})


def _changes(tree: xr.DataTree, flag: str, step: int) -> dict[str, xr.DataArray]:
    """Mean squares of what has changed in h and f, (learning_rate, width, depth, seed), of those that were
    measured."""
    found = {}
    shift, output = (measured(tree, f"finite/{name}") for name in ("feature_shift_ms", "output"))
    has = lambda x: x is not None and flag in np.atleast_1d(x.coords.get("backward_weights", "")).tolist()
    order = ("learning_rate", *SIZES, "seed")
    if has(shift):
        h = shift.sel(backward_weights=flag).isel(step=step, drop=True).max("t", skipna=False)
        found["h"] = h.transpose(*order)
    if has(output) and section(settings(tree), "problem").get("batches", "fixed") == "fixed":
        f = output.sel(backward_weights=flag)
        moved = (f.isel(step=step, drop=True) - f.isel(step=0, drop=True)) ** 2
        moved = moved.mean([dim for dim in moved.dims if dim not in order], skipna=False)
        found["f"] = moved.transpose(*order)
    return {name: values for name, values in found.items() if values.notnull().any()}


def _slope(values: Array, sizes: Array, axis: int) -> Interval:
    """Power of the root of mean squares (width, depth, seed) along one axis, the other one's levels taken
    out. Of logarithms, seed by seed: of a mean one seed that explodes decides alone."""
    values = values if axis == 0 else values.swapaxes(0, 1)
    seeds = np.isfinite(values).all((0, 1))
    values = values[..., seeds]
    if len(sizes) < 2 or not seeds.any() or not np.all(values > 0):
        return UNKNOWN
    x = np.log(sizes)
    x = x - x.mean()
    slopes = np.einsum("a,abs->s", x / (x @ x), np.log(values)) / (2 * values.shape[1])
    return Spread.of(slopes).interval()


def _verdict(slope: Interval) -> str:
    if not np.isfinite(slope.estimate):
        return ""
    if slope.low > -FLAT and slope.high < FLAT:
        return "flat"
    return "grows" if slope.low > FLAT else "falls" if slope.high < -FLAT else "undecided"
