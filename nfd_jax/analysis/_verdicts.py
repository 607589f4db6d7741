"""From a results tree to verdicts on claims C1–C6 of arXiv 2512.21075, from data alone.

A row is one quantity against width or depth: its rate (`classify`), and whether a test of its claim holds for it.

    rate r     holds where the quantity decays with the slope's interval below -r + TOLERANCE; fails where it plateaus, grows, or the
               interval lies above. All quantities are mean squares: O(1/L) is slope -1.
    bounded    holds where the slope's interval lies below FLAT, fails where it lies above
    persists   holds where the quantity plateaus or grows, fails where it decays or is zero
    vanishes   the reverse of persists
    joint      holds where the error falls at rate 1 along the diagonal of the width × depth grid, and its extrapolation to n = L = ∞, and the
               difference between taking those limits together and in turn, are under SHARE of the error at the largest width and depth
    positive   holds where no seed's smallest relative eigenvalue is below the threshold and it does not decay with width
    reported   for comparison: says nothing of the claim

A claim holds if all its rows do, and does not if one fails; C2 says that *a* term survives, so there one row is enough. All of this is
about the range measured. Cells that diverged, failed or are pending are left out and counted, and so is learning rate 0, which trains nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
import yaml

from nfd_jax.analysis._rates import FLAT, MOST_SEEDS, SHARE, Fit, JointFit, Rate, classify, fit_joint, open_verdict, seeds_needed

TOLERANCE = 0.2  # a claimed rate r is met by slopes up to -r + TOLERANCE: higher orders bend the curve over depths one can run
THRESHOLD = 1e-6  # smallest eigenvalue over largest, below which a Gram matrix counts as singular
FLOOR = {"float64": 1e-24, "float32": 1e-9}  # mean squares that rounding alone produces along a run, features being of order 1
EACH_RATE = 3  # up to this many learning rates have a row each; more share one row, their worst value
FINE = 16  # a reference of fewer than FINE steps per step of the deepest network biases slopes: theory's coarsening law is fitted instead

STATEMENTS = {
    "C1": "At initialization the coupling caused by reusing W and its transpose is O(1/n), uniformly in depth.",
    "C2": "During training a coupling term survives n → ∞.",
    "C3": "That term is O(1/L²) per layer, and its accumulated effect is negligible as L → ∞.",
    "C4": "Finite networks converge to the limit with independent backward weights at O(1/L).",
    "C5": "Feature and gradient covariances stay nondegenerate along training.",
    "C6": "At initialization the error to the limit is O(1/n + 1/L), and the two limits commute.",
}
DEMANDS = {
    "bounded": "no growth",
    "persists": "no decay",
    "vanishes": "decay",
    "joint": "rate at least 0.8 as n and L grow together, the same limit 0 in either order",
    "positive": "above the threshold",
    "reported": "",
}


@dataclass(frozen=True)
class Row:
    """One quantity against `axis` (width, depth or joint). `state` is what it says of its claim: holds, fails, open, missing or reported.

    Rows with the same `part` are views of one statement, of which the more favourable decides. `more_seeds` counts towards `state`.
    """

    name: str
    claim: str
    quantity: str
    axis: str
    rate: Rate
    verdict: str
    demand: str
    state: str
    more_seeds: float
    part: str
    diverged: int
    pending: int
    joint: JointFit | None = None

    @property
    def slope(self) -> Fit:
        return self.rate.slope

    @property
    def plateau(self) -> Fit:
        return self.joint.d if self.joint else self.rate.plateau


@dataclass(frozen=True)
class Claim:
    """The verdict on one claim; `reasons` name the rows that decide, or what is missing."""

    key: str
    statement: str
    verdict: str
    reasons: list[str]


@dataclass(frozen=True)
class _Spec:
    """A row to look for: the labels of `select` of a variable, at the last step (training) or the first."""

    claim: str
    variable: str
    select: dict[str, str]
    axis: str
    test: str
    rate: float = 1.0
    training: bool = True
    richardson: bool = False  # extrapolated to n = ∞ from the two largest widths: the claim is about what survives there

    @property
    def subject(self) -> str:
        labels = list(self.select.values())
        if "limit_backward_weights" in self.select:
            labels[:2] = [f"{labels[0]} to {labels[1]}"]
        return " ".join([self.variable.split("/")[1], *labels])

    @property
    def part(self) -> str:
        return f"{self.claim} {self.subject} {'training' if self.training else 'initialization'} against {self.axis}"

    @property
    def demand(self) -> str:
        return f"rate at least {self.rate - TOLERANCE:g}" if self.test == "rate" else DEMANDS[self.test]


def _specs() -> Iterator[_Spec]:
    effect, displacement, layer = (f"coupling/coupling_{name}_ms" for name in ("effect", "displacement", "layer"))
    quantities, directions = [{"quantity": q} for q in "hbf"], [{"direction": d} for d in ("forward", "backward")]
    accumulated = [(displacement, d) for d in directions] + [(effect, q) for q in quantities]
    for axis, test in (("width", "rate"), ("depth", "bounded")):
        yield _Spec("C1", effect, {"quantity": "b"}, axis, test, training=False)
        yield _Spec("C1", displacement, {"direction": "backward"}, axis, test, training=False)
        yield _Spec("C1", effect, {"quantity": "h"}, axis, "reported", training=False)  # no coupling yet: exactly zero
    for variable, select in accumulated:
        yield _Spec("C2", variable, select, "width", "persists")
    for select in directions:
        yield _Spec("C3", layer, select, "depth", "rate", 2.0)
        yield _Spec("C3", layer, select, "depth", "rate", 2.0, richardson=True)
    for variable, select in accumulated:
        yield _Spec("C3", variable, select, "depth", "vanishes")
    flags = ("reused", "independent")
    pairs = [{"backward_weights": a, "limit_backward_weights": b, **q} for a in flags for b in flags[::-1] for q in quantities]
    for pair in pairs:
        yield _Spec("C4", "compare/limit_error_ms", pair, "depth", "rate" if pair in pairs[:3] else "reported")
    for kind in ("feature", "gradient"):
        for scope in ("step", "joint"):
            for flag in flags:
                select = {"kind": kind, "scope": scope, "backward_weights": flag}
                yield _Spec("C5", "spectrum/min_eigenvalue", select, "width", "positive")
    for training in (False, True):
        for pair in pairs[:2]:
            yield _Spec("C6", "compare/limit_error_ms", pair, "joint", "reported" if training else "joint", training=training)


def _array(tree: xr.DataTree, path: str) -> xr.DataArray | None:
    group, name = path.split("/")
    dataset = tree.children[group].dataset if group in tree.children else {}
    return dataset[name] if name in dataset else None


@dataclass(frozen=True)
class _Slice:
    """A spec's data: values over width, depth, seed (and step, for eigenvalues), NaN where there are none, and the cells they come from."""

    values: xr.DataArray
    cells: xr.DataArray
    label: str

    def at_largest(self, other: str, points: int = 2) -> "_Slice":
        """At the largest width (or depth) with data at `points` depths (or widths), or else at the most there are."""
        axis = "depth" if other == "width" else "width"
        counts = self.values.notnull().any([d for d in self.values.dims if d not in ("width", "depth")]).sum(axis).values
        best = int(np.flatnonzero(counts >= min(points, counts.max()))[-1])
        label = f"{self.label}, {other} {self.values[other].values[best]}"
        return _Slice(self.values.isel({other: best}), self.cells.isel({other: best}), label)


def _labelled(tree: xr.DataTree, spec: _Spec) -> xr.DataArray | None:
    """The spec's variable at its labels, for eigenvalues the smallest ratio to the largest over interior t; None where the tree lacks it."""
    values = _array(tree, spec.variable)
    if values is None or any(key not in values.dims or label not in values[key].values for key, label in spec.select.items()):
        return None
    values = values.sel(spec.select)
    if spec.test != "positive":
        return values
    largest = _array(tree, "spectrum/max_eigenvalue")
    # At t = 0 and 1 frozen U or V, or a rank of at most C, make the Gram matrices singular whatever the network does.
    inside = (values["t"].values > 1e-9) & (values["t"].values < 1 - 1e-9)
    if largest is None or not inside.any():
        return None
    return (values.clip(0) / largest.sel(spec.select)).isel(t=inside).min("t")


def _status(tree: xr.DataTree, spec: _Spec, values: xr.DataArray) -> xr.DataArray:
    """Status over learning_rate, width, depth, seed; a comparison of both flags is done only where both are."""
    cells = _array(tree, "status/cell")
    if cells is None:
        return xr.ones_like(values.isel(step=0), dtype=np.int8)
    if "backward_weights" in spec.select:
        return cells.sel(backward_weights=spec.select["backward_weights"])
    return xr.where((cells == 1).all("backward_weights"), 1, xr.where((cells == 2).any("backward_weights"), 2, 0))


def _slices(tree: xr.DataTree, spec: _Spec) -> Iterator[_Slice]:
    """One slice per learning rate, or one for the worst of many; one at initialization, which knows no learning rate."""
    values = _labelled(tree, spec)
    if values is None or (spec.training and values.sizes["step"] < 2):
        return
    cells = _status(tree, spec, values)
    values = values.where((cells == 1) & np.isfinite(values))
    if not spec.training:
        yield _Slice(values.isel(step=0).max("learning_rate"), cells.min("learning_rate"), "step 0")
        return
    when = "all steps" if spec.test == "positive" else f"step {values['step'].values[-1]}"
    values = values if spec.test == "positive" else values.isel(step=-1)
    rates = values["learning_rate"].values
    values, cells = values.isel(learning_rate=rates != 0), cells.isel(learning_rate=rates != 0)
    if values.sizes["learning_rate"] > EACH_RATE:
        worst = values.min("learning_rate") if spec.test == "positive" else values.max("learning_rate")
        yield _Slice(worst, cells, f"{when}, worst learning rate")
        return
    for i, rate in enumerate(values["learning_rate"].values):
        label = when if len(rates) == 1 else f"{when}, learning rate {rate:g}"
        yield _Slice(values.isel(learning_rate=i), cells.isel(learning_rate=i), label)


def _judge(test: str, claimed: float, rate: Rate) -> tuple[str, float]:
    """(state, seeds still needed) of a row under the tests on one axis."""
    if test == "reported" or rate.kind == "unmeasured":
        return ("reported" if test == "reported" else "missing"), np.inf
    if test in ("persists", "vanishes"):
        kept = rate.kind in ("plateaus", "grows")
        return ("open" if rate.kind == "open" else "holds" if kept == (test == "persists") else "fails"), rate.more_seeds
    if rate.kind == "zero":
        return "holds", 0
    if test == "rate" and rate.kind in ("plateaus", "grows"):
        return "fails", 0
    limit = TOLERANCE - claimed if test == "rate" else FLAT
    below, above = (seeds_needed(rate.slope, limit, rate.seeds, above=side) for side in (False, True))
    if above <= rate.seeds:
        return "fails", 0
    if below <= rate.seeds and (test == "bounded" or rate.kind == "decays"):
        return "holds", 0
    return "open", max(rate.more_seeds if test == "rate" or np.isnan(rate.slope.low) else 0, min(below, above) - rate.seeds)


def _judge_joint(fit: JointFit, rate: Rate) -> tuple[str, float]:
    """(state, seeds still needed) under the joint test."""
    state, more = _judge("rate", 1.0, rate)
    limit = SHARE * fit.corner
    sides = [(fit.together, limit, False), (fit.gap, limit, False), (fit.gap, -limit, True)]
    holds = max(seeds_needed(part, at, rate.seeds, above=above) for part, at, above in sides)
    fails = min(seeds_needed(part, at, rate.seeds, above=not above) for part, at, above in sides)
    if state == "fails" or fails <= rate.seeds:
        return "fails", 0
    if state == "holds" and holds <= rate.seeds:
        return "holds", 0
    return "open", max(more, min(holds, fails) - rate.seeds)


def _row(spec: _Spec, piece: _Slice, floor: float, steps: int | None, threshold: float) -> Row | None:
    """The row of one slice; None where its axis has too few points to be fitted at all."""
    if not piece.values.notnull().any():
        return None
    joint, values = None, piece.values
    if spec.axis == "joint":
        values = values.dropna("width", how="all").dropna("depth", how="all").transpose("seed", "width", "depth")
        values = values.sel(depth=values["depth"] < (steps or np.inf)).dropna("seed")
        if min(values.sizes.values()) < 1 or min(values.sizes["width"], values.sizes["depth"]) < 2:
            return None
        widths, depths = values["width"].values, values["depth"].values
        k = min(len(widths), len(depths))
        diagonal = values.values[:, np.arange(-k, 0), np.arange(-k, 0)]
        rate = classify(1 / (1 / widths[-k:] + 1 / depths[-k:] - (1 / steps if steps else 0)), diagonal, floor=floor)
        text, (state, more) = f"along the diagonal: {rate.verdict}", _judge(spec.test, 1.0, rate)
        if np.all(values.mean("seed") > floor):
            joint = fit_joint(widths, depths, values.values, constant=spec.training, reference=steps)
            text = f"{joint.text()}; {text}"
            state, more = _judge_joint(joint, rate) if spec.test == "joint" else (state, more)
    elif spec.test == "positive":
        piece = piece.at_largest("depth", values.sizes["width"])
        return _eigenvalue_row(spec, piece, threshold)
    else:
        if spec.richardson:
            values = values.dropna("width", how="all").isel(width=slice(-2, None))
            if values.sizes["width"] < 2:
                return None
            narrow, wide = (float(n) for n in values["width"].values)
            samples = (wide * values.isel(width=1) - narrow * values.isel(width=0)) / (wide - narrow)
            piece = _Slice(samples, piece.cells, f"{piece.label}, width → ∞")
        else:
            piece = piece.at_largest("width" if spec.axis == "depth" else "depth")
        x = piece.values[spec.axis].values
        if len(x) < 2:
            return None
        coarse = steps is not None and spec.variable.startswith("compare") and steps < FINE * x.max()
        rate = classify(x, piece.values.transpose("seed", spec.axis).values, floor=floor, reference=steps if coarse else None)
        text, (state, more) = rate.verdict, _judge(spec.test, spec.rate, rate)
    return _finish(spec, piece, rate, text, state, more, joint)


def _eigenvalue_row(spec: _Spec, piece: _Slice, threshold: float) -> Row:
    """Smallest relative eigenvalue over interior t and steps: every seed and width against the threshold, the mean against width."""
    along = piece.values.median(["seed", "width"]).values
    samples = piece.values.min("step").transpose("seed", "width")
    rate = classify(samples["width"].values, samples.values)
    found = samples.values[np.isfinite(samples.values)]
    low = int((found < threshold).sum())
    text = f"smallest {found.min():.2g} of {found.size} networks"
    text = f"ALARM: {low} of {found.size} networks fall below {threshold:g}, {text}" if low else f"stays above {threshold:g}, {text}"
    text += f"; median {along[0]:.2g} at step 0, {along[-1]:.2g} at step {piece.values['step'].values[-1]}"
    text += f"; against width {rate.verdict}" if samples.sizes["width"] > 1 else ""
    state, more = ("fails", 0.0) if low or rate.kind == "decays" else ("open", 3.0) if rate.seeds < 2 else ("holds", 0.0)
    return _finish(spec, piece, rate, text, state, more, None)


def _finish(spec: _Spec, piece: _Slice, rate: Rate, text: str, state: str, more: float, joint: JointFit | None) -> Row:
    name = f"{spec.claim} {spec.subject} against {'width and depth' if joint else spec.axis} ({piece.label})"
    diverged, pending = int((piece.cells == 2).sum()), int(piece.cells.isin([0, 3]).sum())
    when = piece.label.split(", width")[0].split(", depth")[0]
    part = f"{spec.part} {when}"
    return Row(name, spec.claim, spec.subject, spec.axis, rate, text, spec.demand, state, more, part, diverged, pending, joint)


def rows(tree: xr.DataTree, *, threshold: float = THRESHOLD) -> list[Row]:
    """Every row the tree has data for, in the order of the claims; `threshold` is C5's. Reads depth_steps and precision from attrs["config"]."""
    config = yaml.safe_load(tree.attrs.get("config", "")) or {}
    floor, steps = FLOOR.get(config.get("precision", "float64"), FLOOR["float64"]), (config.get("limit") or {}).get("depth_steps")
    made = (_row(spec, piece, floor, steps, threshold) for spec in _specs() for piece in _slices(tree, spec))
    return [row for row in made if row is not None]


def _absent(tree: xr.DataTree, spec: _Spec) -> str:
    """What to add to the config for a row that is not there."""
    group = spec.variable.split("/")[0]
    values = _array(tree, spec.variable)
    if values is None:
        return f"measure: [{'limit_error' if group == 'compare' else group}]"
    if _labelled(tree, spec) is None:
        return "depths with a common divisor" if group == "spectrum" else "backward_weights: [reused, independent]"
    if spec.training and (values.sizes["step"] < 2 or not values["learning_rate"].values.any()):
        return "at least 2 steps and a learning rate above 0"
    short = [f"at least 2 {axis}s" for axis in ("width", "depth") if spec.axis in (axis, "joint") and values.sizes[axis] < 2]
    return " and ".join(short) or "finished cells (resume the run)"


def _combine(key: str, mine: Sequence[Row], absent: Sequence[str]) -> tuple[str, list[Row]]:
    """(verdict, deciding rows) of a claim from its deciding rows and what has none."""
    order = ("holds", "open", "fails", "missing")
    parts: dict[str, Row] = {}
    for row in mine:
        parts[row.part] = min(parts.get(row.part, row), row, key=lambda r: order.index(r.state))
    by = {state: [row for row in parts.values() if row.state == state] for state in order}
    decided = [("holds", "holds as worded in this range"), ("fails", "does not hold as worded")]
    first, last = decided if key == "C2" else decided[::-1]
    if by[first[0]]:
        return first[1], by[first[0]]
    if absent or by["missing"]:
        hints = absent or ["points above the rounding floor: other widths or depths, or finished cells"]
        return f"not measured: add {'; '.join(hints)}", by["missing"]
    if by["open"]:
        pick = min if key == "C2" else max
        more = pick(row.more_seeds for row in by["open"])
        return open_verdict(more).removesuffix(" needed"), by["open"]
    return last[1], by[last[0]]


def claims(rows: Sequence[Row], tree: xr.DataTree) -> list[Claim]:
    """The verdict on each of C1–C6 from `rows(tree)`: holds as worded in this range, does not hold as worded, inconclusive, not measured."""
    result = []
    for key, statement in STATEMENTS.items():
        deciding = [row for row in rows if row.claim == key and row.state != "reported"]
        wanted = [spec for spec in _specs() if spec.claim == key and spec.test != "reported"]
        if key == "C5":  # one flag's covariances are enough to judge
            wanted = [] if deciding else wanted[:1]
        absent = list(dict.fromkeys(_absent(tree, s) for s in wanted if not any(row.part.startswith(s.part) for row in deciding)))
        verdict, why = _combine(key, deciding, absent)
        reasons = [f"{row.name}: {row.verdict} (claimed: {row.demand})" for row in why]
        reasons += [f"for comparison, {row.name}: {row.verdict}" for row in rows if row.claim == key and row.state == "reported"]
        lost = max((row.diverged for row in rows if row.claim == key), default=0)
        reasons += [f"diverged cells left out: up to {lost} a row"] if lost else []
        result.append(Claim(key, statement, verdict, reasons))
    return result


def to_dataset(rows: Sequence[Row]) -> xr.Dataset:
    """The `/rates` group: slope and plateau with their intervals, and the verdict, over row, with the coordinate claim."""
    data: dict[str, object] = {}
    for name in ("slope", "plateau"):
        fits = [getattr(row, name) for row in rows]
        for suffix, part in (("", "estimate"), ("_low", "low"), ("_high", "high")):
            data[name + suffix] = ("row", np.array([getattr(fit, part) for fit in fits], float))
    data["verdict"] = ("row", np.array([row.verdict for row in rows], dtype=str))
    coords = {"row": np.array([row.name for row in rows], dtype=str), "claim": ("row", np.array([row.claim for row in rows], dtype=str))}
    return xr.Dataset(data, coords)
