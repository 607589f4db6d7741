"""One quantity of a results tree as samples (seeds, points, channels) over a grid, at one step and learning
rate.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfd_jax.verdicts._seeds import Array, Mask
from nfd_jax.verdicts._tree import HUGE, array, status

MOST_DIVERGED = 0.1
"""Share of a cell's seeds above which what rests on it is undecided."""


class NotMeasured(Exception):
    """What a row needs is not in the tree; the text says what to add."""


@dataclass(frozen=True)
class Sample:
    """values (seeds, points, channels) at widths and depths (points,); signal (seeds,) is what learning
    moves, None where it was not measured. `candidates` counts the learning rates it is the worst of.
    """

    values: Array
    widths: Array
    depths: Array
    signal: Array | None
    step: int
    learning_rate: float
    diverged: float
    candidates: int

    @property
    def seeds(self) -> int:
        return len(self.values)

    def with_values(self, values: Array, widths: Array, depths: Array) -> "Sample":
        return Sample(
            values, widths, depths, self.signal, self.step, self.learning_rate, self.diverged, self.candidates
        )


def variable(tree: xr.DataTree, path: str, add: str) -> xr.DataArray:
    """The variable, NaN where it is not finite or its cell not done; NotMeasured says to `add` it."""
    values = array(tree, path)
    if values is None or not np.issubdtype(values.dtype, np.number):
        raise NotMeasured(add)
    lacking = [dim for dim in ("width", "depth", "seed") if dim not in values.dims]
    if lacking:
        raise NotMeasured(f"{path} has no dimension {', '.join(lacking)}: add it")
    for dim in ("width", "depth"):
        if dim not in values.coords:
            raise NotMeasured(f"{path} does not say its {dim}s: add the coordinate")
    return values.astype(float)


def labelled(values: xr.DataArray, select: dict[str, str], add: str) -> xr.DataArray:
    """The values at these labels."""
    for key, label in select.items():
        if key not in values.dims:
            continue
        if key not in values.coords or label not in values[key].values:
            raise NotMeasured(f"{add} with {key.replace('_', ' ')} {label}")
        values = values.sel({key: label})
    return values


def at_step(values: xr.DataArray, training: bool) -> tuple[xr.DataArray, int]:
    """The values at the last step (training) or the first, and its number."""
    if "step" not in values.dims:
        return values, -1
    if training and values.sizes["step"] < 2:
        raise NotMeasured("add a second step: nothing is trained before the first update")
    place = -1 if training else 0
    values = values.isel(step=place)
    return values, int(values["step"]) if "step" in values.coords else place


def states(tree: xr.DataTree, values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """values with NaN for cells that are not done, and which cells diverged (over the dims of cells).

    A cell whose network is done diverged, too, where a number that other seeds have is none: its limit did.
    """
    data = values.values
    with np.errstate(invalid="ignore"):
        usable, lost = np.abs(data) < HUGE, np.abs(data) >= HUGE  # NaN is neither
    dims = [dim for dim in values.dims if dim in ("learning_rate", "width", "depth", "seed")]
    diverged = lost.any(tuple(i for i, dim in enumerate(values.dims) if dim not in dims))
    cells = status(tree, values)
    if cells is not None:
        known = _beside(cells, values)
        if "seed" in dims:
            seeds = values.dims.index("seed")
            missing = np.isnan(data) & (known == 1) & np.isfinite(data).any(seeds, keepdims=True)
            diverged = diverged | missing.any(
                tuple(i for i, dim in enumerate(values.dims) if dim not in dims)
            )
        usable = usable & (known == 1)
        diverged = diverged | (
            known.reshape([n for n, dim in zip(known.shape, values.dims, strict=True) if dim in dims]) == 2
        )
    labels = {dim: values[dim].values for dim in dims if dim in values.coords}
    return values.copy(data=np.where(usable, data, np.nan)), xr.DataArray(diverged, labels, dims)


def _beside(cells: xr.DataArray, values: xr.DataArray) -> np.ndarray:
    """cells with an axis for each of values' dims, of length 1 where they have none."""
    other = {
        dim: values[dim].values
        for dim in cells.dims
        if dim in values.coords
        and dim in cells.coords
        and not np.array_equal(values[dim].values, cells[dim].values)
    }
    cells = cells.reindex(other, fill_value=0) if other else cells
    cells = cells.transpose(*[dim for dim in values.dims if dim in cells.dims])
    return cells.values.reshape([cells.sizes.get(dim, 1) for dim in values.dims])


def choose_rate(
    values: xr.DataArray, diverged: xr.DataArray, training: bool
) -> tuple[xr.DataArray, xr.DataArray, float, int]:
    """The worst (largest) values among the learning rates that are finite in every cell; how many those are.
    Before training, where all are alike, those of the largest of these rates.

    Where none is finite in every cell, the rate with the fewest diverged.
    """
    if "learning_rate" not in values.dims:
        return values, diverged, np.nan, 1
    rates = (
        values["learning_rate"].values
        if "learning_rate" in values.coords
        else np.arange(1.0, 1 + values.sizes["learning_rate"])
    )
    moving = np.flatnonzero(rates != 0) if training else np.arange(len(rates))
    if not len(moving):
        raise NotMeasured("add a learning rate above 0")
    rest = [dim for dim in values.dims if dim != "learning_rate"]
    seen = values.notnull().any(rest).values
    moving = np.array([i for i in moving if seen[i]], int)
    if not len(moving):
        raise NotMeasured("add finished cells: resume the run")
    some = diverged if "learning_rate" in diverged.dims else diverged.expand_dims(learning_rate=rates)
    lost = some.mean([dim for dim in some.dims if dim != "learning_rate"]).values
    whole = values.notnull().all(rest).values
    candidates = [i for i in moving if whole[i]] or [min(moving, key=lambda i: lost[i])]
    sizes = np.abs(values).mean(rest).values
    chosen = max(candidates, key=lambda i: sizes[i] if training else rates[i])
    picked = some.isel(learning_rate=chosen)
    return values.isel(learning_rate=chosen), picked, float(rates[chosen]), len(candidates) if training else 1


def complete(values: Array) -> tuple[Mask, Mask]:
    """Which points (points,) and seeds (seeds,) to keep of values (seeds, points, channels).

    Dropped are points that fewer than half of the best-covered point's seeds have, then seeds that lack one
    of the others.
    """
    finite = np.asarray(np.isfinite(values).all(2))
    counts = finite.sum(0)
    points = (counts > 0) & (2 * counts >= counts.max(initial=0))
    return points, np.asarray(finite[:, points].all(1))


def sample(
    tree: xr.DataTree, values: xr.DataArray, *, training: bool, quantity: str, flag: str, known_signals: dict
) -> Sample:
    """The samples of values (width, depth, seed and more dims), and the signal of a quantity h, b or f at its
    last step.

    known_signals keeps signals that other samples share.
    """
    values, step = at_step(values, training)
    values, diverged = states(tree, values)
    values, diverged, rate, candidates = choose_rate(values, diverged, training)
    by_cell = diverged.mean("seed") if "seed" in diverged.dims else diverged
    lost = float(by_cell.max()) if by_cell.size else 0.0
    extra = [dim for dim in values.dims if dim not in ("seed", "width", "depth")]
    ordered = values.transpose("seed", "width", "depth", *extra)
    whole = ordered.values.reshape(*ordered.shape[:3], -1)
    whole = whole[..., np.isfinite(whole).any((0, 1, 2))]
    flat = whole.reshape(len(whole), whole.shape[1] * whole.shape[2], whole.shape[-1])
    if not flat.size or not np.isfinite(flat).any():
        if lost > MOST_DIVERGED:
            raise NotMeasured("every cell diverged: add smaller learning rates")
        raise NotMeasured("add finished cells: resume the run")
    grid = np.meshgrid(
        ordered["width"].values.astype(float), ordered["depth"].values.astype(float), indexing="ij"
    )
    widths, depths = (axis.ravel() for axis in grid)
    points, seeds = complete(flat)
    if not seeds.any():
        raise NotMeasured("add seeds that are finished at every width and depth")
    labels = values["seed"] if "seed" in values.coords else None
    key = ("signal", quantity, flag, rate, None if labels is None else tuple(labels.values.tolist()))
    if key not in known_signals:
        known_signals[key] = signal(tree, quantity, flag, rate, labels)
    found = known_signals[key]
    if found is not None and len(found) == len(seeds):
        known = np.isfinite(found)
        if (known & seeds).sum() >= max(2, 0.5 * seeds.sum()) or (known & seeds).sum() == seeds.sum():
            seeds = seeds & known
        else:
            found = None
    elif found is not None:
        found = np.full(len(seeds), np.nanmean(found))
    kept = flat[seeds][:, points]
    return Sample(
        kept,
        widths[points],
        depths[points],
        None if found is None else found[seeds],
        step,
        rate,
        lost,
        candidates,
    )


SIGNALS = {"h": "finite/feature_shift_ms", "b": "finite/gradient_shift_ms", "f": "finite/output"}
WANTED = {"h": "feature_shift_ms", "b": "gradient_shift_ms", "f": "output"}


def signal(
    tree: xr.DataTree, quantity: str, flag: str, rate: float, seeds: xr.DataArray | None
) -> Array | None:
    """What learning moves in h, b or f up to the last step, mean square (seeds,), in the widest and deepest
    networks.

    h and b: their shift, at the layer where its mean over seeds is largest; f: (f_k - f_0)². None where it
    was not measured.
    """
    values = array(tree, SIGNALS[quantity])
    if values is None or "step" not in values.dims or values.sizes["step"] < 2 or "seed" not in values.dims:
        return None
    values = values.astype(float)
    if "backward_weights" in values.dims:
        flags = list(values["backward_weights"].values) if "backward_weights" in values.coords else []
        values = values.isel(backward_weights=flags.index(flag) if flag in flags else 0)
    if "learning_rate" in values.dims:
        rates = values["learning_rate"].values if "learning_rate" in values.coords else np.array([rate])
        same = np.flatnonzero(np.isclose(rates, rate)) if np.isfinite(rate) else [len(rates) - 1]
        values = values.isel(learning_rate=int(same[0]) if len(same) else -1)
    last, _ = states(tree, values.isel(step=-1))
    moved = last.copy(data=(last.values - values.isel(step=0).values) ** 2) if quantity == "f" else last
    for dim in ("width", "depth"):
        if dim in moved.dims:
            axes = tuple(i for i, other in enumerate(moved.dims) if other != dim)
            known = np.flatnonzero(np.isfinite(moved.values).any(axes))
            if not len(known):
                return None
            sizes = moved[dim].values if dim in moved.coords else np.arange(moved.sizes[dim])
            moved = moved.isel({dim: int(known[np.argmax(sizes[known])])})
    moved = moved.mean([dim for dim in moved.dims if dim not in ("seed", "t")])
    if "t" in moved.dims:
        moved = moved.isel(t=int(np.argmax(np.nan_to_num(moved.mean("seed").values))))
    if (
        seeds is not None
        and "seed" in moved.coords
        and not np.array_equal(moved["seed"].values, seeds.values)
    ):
        moved = moved.reindex(seed=seeds.values)
    found = moved.values
    return found if np.isfinite(found).any() and np.nanmean(found) > 0 else None
