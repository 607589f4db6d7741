"""From a results tree to verdicts on claims C1–C6 of arXiv 2512.21075, from data alone.

A row is one quantity against width or depth: its rate (`classify`), and whether a test of its claim holds for it.

    rate r    holds where the quantity decays with the slope's interval below -r + TOLERANCE; fails where it plateaus,
              grows, or the interval lies above. All quantities are mean squares: O(1/L) is slope -1.
    bounded   holds where the slope's interval lies below FLAT, fails where it lies above
    persists  holds where the quantity plateaus or grows, fails where it decays or is zero
    vanishes  the reverse of persists
    joint     holds where the error falls at rate 1 along the diagonal of the width × depth grid, and extrapolated to
              n = L = ∞ is under SHARE of the error at the largest n and L, and so is the difference between taking
              these limits together and in turn
    positive  holds where no network's smallest relative eigenvalue is below the threshold and it doesn't decay with
              width
    reported  for comparison: says nothing of the claim

A claim holds if all its rows do and does not if one fails; C2 says that *a* term survives, so there one row is enough.
All of it is about the range measured, at 95 % a row. Cells that diverged, failed or are pending are left out, and
counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
import yaml

from nfd_jax.verdicts._joint import JointFit, diagonal_of, fit_joint
from nfd_jax.verdicts._rates import FEWEST_SEEDS, FLAT, SHARE, Fit, Rate, classify, open_verdict, seeds_needed
from nfd_jax.verdicts._slices import Slice, Spec, array, labelled, slices, specs

TOLERANCE = 0.2  # a claimed rate r is met by slopes up to -r + TOLERANCE: higher orders bend curves at depths in reach
THRESHOLD = 1e-6  # smallest eigenvalue over largest, below which a Gram matrix counts as singular
FLOOR = {"float64": 1e-24, "float32": 1e-9}  # mean squares that rounding alone makes along a run, features being O(1)
FINE = 16  # a reference of fewer steps than this for each of the deepest network's biases slopes: fit its coarsening

STATEMENTS = {
    "C1": "At initialization the coupling caused by reusing W and its transpose is O(1/n), uniformly in depth.",
    "C2": "During training a coupling term survives n → ∞.",
    "C3": "That term is O(1/L²) per layer, and its accumulated effect is negligible as L → ∞.",
    "C4": "Finite networks converge to the limit with independent backward weights at O(1/L).",
    "C5": "Feature and gradient covariances stay nondegenerate along training.",
    "C6": "At initialization the error to the limit is O(1/n + 1/L), and the two limits commute.",
}
HOLDS, FAILS = "holds as worded in this range", "does not hold as worded"


@dataclass(frozen=True)
class Row:
    """One quantity against axis: width, depth, or joint (both). state: holds, fails, open, missing or reported.

    `verdict` is the rate's, or says more for joint and eigenvalue rows; `demand` is what the claim asks of it, and
    `more_seeds` would settle that. Rows of one `part` are views of one statement: the most favourable decides.
    diverged and pending count cells; `rate` has the points, used and dropped.
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
    """The verdict on one claim; `reasons` name the rows that decide it, then rows for comparison."""

    key: str
    statement: str
    verdict: str
    reasons: list[str]


def _demand(spec: Spec, threshold: float) -> str:
    least = f"{spec.rate - TOLERANCE:g}"
    return {
        "rate": f"decay at rate {least} or more",
        "bounded": "no growth",
        "persists": "no decay",
        "vanishes": "decay",
        "joint": f"decay at rate {least} or more along the diagonal, and 0 in either order of limits",
        "positive": f"above {threshold:g}, no decay with width",
        "reported": "nothing",
    }[spec.test]


def _judge(test: str, claimed: float, rate: Rate) -> tuple[str, float]:
    """(state, further seeds) of a row that has one axis."""
    if test == "reported" or rate.kind == "unmeasured":
        return "reported" if test == "reported" else "missing", np.inf
    if test in ("persists", "vanishes"):
        if rate.kind == "open":
            return "open", rate.more_seeds
        return "holds" if (rate.kind in ("plateaus", "grows")) == (test == "persists") else "fails", 0
    if rate.kind == "zero":
        return "holds", 0
    if test == "rate" and rate.kind in ("plateaus", "grows"):
        return "fails", 0
    if np.isnan(rate.slope.estimate):
        return "open", rate.more_seeds
    limit = FLAT if test == "bounded" else TOLERANCE - claimed
    below, above = (seeds_needed(rate.slope, limit, rate.seeds, above=side) for side in (False, True))
    if above <= rate.seeds:
        return "fails", 0
    if below <= rate.seeds and (test == "bounded" or rate.kind == "decays"):
        return "holds", 0
    return "open", max(min(below, above) - rate.seeds, rate.more_seeds if test == "rate" else 0)


def _judge_joint(fit: JointFit, rate: Rate) -> tuple[str, float]:
    """(state, further seeds) under the joint test."""
    state, more = _judge("rate", 1.0, rate)
    limit = SHARE * fit.corner
    sides = [(fit.together, limit, False), (fit.gap, limit, False), (fit.gap, -limit, True)]
    holds = max(seeds_needed(part, at, rate.seeds, above=above) for part, at, above in sides)
    fails = min(seeds_needed(part, at, rate.seeds, above=not above) for part, at, above in sides)
    if state == "fails" or fails <= rate.seeds:
        return "fails", 0
    if state == "holds" and holds <= rate.seeds:
        return "holds", 0
    return ("missing", np.inf) if state == "missing" else ("open", max(more, min(holds, fails) - rate.seeds))


@dataclass(frozen=True)
class _Settings:
    """What rows are made with: rounding floor, the limit's depth_steps, C5's threshold, bootstrap resamples, and whether every
    step sees the same batch."""

    floor: float
    steps: int | None
    threshold: float
    n_boot: int
    repeated: bool


def _axis_row(row: Row, spec: Spec, piece: Slice, using: _Settings) -> Row | None:
    x = piece.values[spec.axis].values
    if len(x) < 2:
        return None
    steps = using.steps if spec.variable.startswith("compare") else None
    reference = steps if steps is not None and steps < FINE * x.max() else None
    samples = piece.values.transpose("seed", spec.axis).values
    rate = classify(x, samples, floor=using.floor, reference=reference, n_boot=using.n_boot)
    state, more = _judge(spec.test, spec.rate, rate)
    return replace(row, rate=rate, verdict=rate.verdict, state=state, more_seeds=more)


def _joint_row(row: Row, spec: Spec, piece: Slice, using: _Settings) -> Row | None:
    values = piece.values.dropna("width", how="all").dropna("depth", how="all").transpose("seed", "width", "depth")
    values = values.sel(depth=values["depth"] < (using.steps or np.inf)).dropna("seed")
    if not values.size or min(values.shape[1:]) < 2:
        return None
    grid = (values["width"].values, values["depth"].values, values.values)
    x, samples = diagonal_of(*grid, reference=using.steps)
    rate, joint = classify(x, samples, floor=using.floor, n_boot=using.n_boot), None
    verdict = f"{rate.verdict} along the diagonal"
    state, more = _judge(spec.test, spec.rate, rate)
    if np.all(grid[2].mean(0) > using.floor):
        joint = fit_joint(*grid, constant=spec.training, reference=using.steps, n_boot=using.n_boot)
        verdict += f"; {joint.text()}"
        state, more = _judge_joint(joint, rate) if spec.test == "joint" else (state, more)
    return replace(row, rate=rate, verdict=verdict, state=state, more_seeds=more, joint=joint)


def _eigenvalue_row(row: Row, spec: Spec, piece: Slice, using: _Settings) -> Row:
    """Smallest relative eigenvalue over interior t and steps: each network against a threshold, the mean over width.

    The claim is about distinct samples: where every step sees one batch, the joint Gram matrix of all steps is only reported.
    """
    first, *_, last = piece.values.median(["seed", "width"]).values
    samples = piece.values.min("step").transpose("seed", "width")
    rate, threshold = classify(samples["width"].values, samples.values, n_boot=using.n_boot), using.threshold
    found = samples.values[np.isfinite(samples.values)]
    low = int((found < threshold).sum())
    text = f"stays above {threshold:g} in {found.size} networks"
    if low:
        text = f"ALARM: falls below {threshold:g} in {low} of {found.size} networks"
    text += f", smallest {found.min():.2g}; median {first:.2g} at step 0, {last:.2g} at the last"
    text += f"; against width {rate.verdict}" if samples.sizes["width"] > 1 else ""
    state, more = ("open", FEWEST_SEEDS - rate.seeds) if rate.seeds < FEWEST_SEEDS else ("holds", 0.0)
    if low or rate.kind == "decays":
        state, more = "fails", 0.0
    if using.repeated and spec.select["scope"] == "joint":
        state, text = "reported", f"{text}; the batch repeats, so its samples are not distinct"
    return replace(row, rate=rate, verdict=text, state=state, more_seeds=more)


def _row(spec: Spec, piece: Slice | None, using: _Settings) -> Row | None:
    """The row of one slice; None where it has no data, or too few points on its axis to be fitted at all."""
    if piece is not None and piece.values.notnull().any():
        if spec.surviving:
            piece = piece.at_infinite_width()
        elif spec.axis != "joint":
            piece = piece.at_largest("width" if spec.axis == "depth" else "depth")
    if piece is None or not piece.values.notnull().any():
        return None
    row = Row(
        name=f"{spec.claim} {spec.part} ({', '.join(filter(None, (piece.when, piece.where)))})",
        claim=spec.claim,
        quantity=spec.subject,
        axis=spec.axis,
        rate=classify([], np.empty((0, 0))),
        verdict="",
        demand=_demand(spec, using.threshold),
        state="missing",
        more_seeds=np.inf,
        part=f"{spec.part}, {piece.when}",
        diverged=int((piece.cells == 2).sum()),
        pending=int(piece.cells.isin([0, 3]).sum()),
    )
    if spec.axis == "joint":
        return _joint_row(row, spec, piece, using)
    if spec.test == "positive":
        return _eigenvalue_row(row, spec, piece, using)
    return _axis_row(row, spec, piece, using)


def rows(tree: xr.DataTree, *, threshold: float = THRESHOLD, n_boot: int = 1000) -> list[Row]:
    """Every row the tree has data for, in the order of the claims; threshold is C5's, n_boot the bootstrap's size.

    The precision and the limit's depth_steps are read from the resolved config in tree.attrs["config"].
    """
    config = yaml.safe_load(tree.attrs.get("config", "")) or {}
    floor, steps = FLOOR[config.get("precision", "float64")], (config.get("limit") or {}).get("depth_steps")
    repeated = (config.get("problem") or {}).get("batches", "fixed") == "fixed"
    using = _Settings(floor, steps, threshold, n_boot, repeated)
    made = (_row(spec, piece, using) for spec in specs() for piece in slices(tree, spec))
    return [row for row in made if row is not None]


def _absent(tree: xr.DataTree, spec: Spec) -> str:
    """What to add to the config for a row that isn't there."""
    group, values = spec.variable.split("/")[0], array(tree, spec.variable)
    if values is None:
        return f"{'limit_error' if group == 'compare' else group} to measure"
    if labelled(tree, spec) is None:
        return "depths with a common divisor" if group == "spectrum" else "reused networks and an independent limit"
    if spec.training and (values.sizes["step"] < 2 or not values["learning_rate"].values.any()):
        return "a second step, and a learning rate above 0"
    axes = [axis for axis in ("width", "depth") if spec.axis in (axis, "joint") and values.sizes[axis] < 2]
    return f"a second {' and a second '.join(axes)}" if axes else "finished cells: resume the run"


def _combine(key: str, deciding: Sequence[Row], absent: Sequence[str]) -> tuple[str, list[Row]]:
    """(verdict, the rows it rests on) from the rows that bear on a claim and hints on those that aren't there."""
    order = ("holds", "open", "fails", "missing")
    parts: dict[str, Row] = {}
    for row in deciding:
        parts[row.part] = min(parts.get(row.part, row), row, key=lambda row: order.index(row.state))
    groups = {state: [row for row in parts.values() if row.state == state] for state in order}
    one, every = (("holds", HOLDS), ("fails", FAILS))[:: 1 if key == "C2" else -1]
    if groups[one[0]]:
        return one[1], groups[one[0]]
    if absent or groups["missing"]:
        hints = absent or ["points above rounding: other widths or depths"]
        return f"not measured: add {'; '.join(hints)}", groups["missing"]
    if groups["open"]:
        more = (min if key == "C2" else max)(row.more_seeds for row in groups["open"])
        return open_verdict(more).removesuffix(" needed"), groups["open"]
    return every[1], groups[every[0]]


def _found(row: Row) -> str:
    """The verdict, with the slope where that alone decides what the claim asks."""
    known = row.rate.kind == "open" and np.isfinite(row.slope.low)
    return f"{row.verdict}, slope {row.slope.text('.2f')}" if known else row.verdict


def claims(rows: Sequence[Row], tree: xr.DataTree) -> list[Claim]:
    """The verdict on each of C1–C6 from `rows(tree)`: HOLDS, FAILS, "inconclusive: …" or "not measured: add …"."""
    result = []
    for key, statement in STATEMENTS.items():
        mine = [row for row in rows if row.claim == key]
        deciding = [row for row in mine if row.state != "reported"]
        wanted = [spec for spec in specs() if spec.claim == key and spec.test != "reported"]
        if key == "C5":  # the covariances of one flag are enough
            wanted = [] if deciding else wanted[:1]
        lacking = [spec for spec in wanted if not any(row.part.startswith(spec.part) for row in deciding)]
        verdict, why = _combine(key, deciding, list(dict.fromkeys(_absent(tree, spec) for spec in lacking)))
        reasons = [f"{row.name}: {_found(row)} (claimed: {row.demand})" for row in why]
        reasons += [f"for comparison, {row.name}: {row.verdict}" for row in mine if row.state == "reported"]
        diverged = max((row.diverged for row in mine), default=0)
        reasons += [f"diverged cells left out: up to {diverged} in a row"] if diverged else []
        result.append(Claim(key, statement, verdict, reasons))
    return result


def to_dataset(rows: Sequence[Row]) -> xr.Dataset:
    """The `/rates` group: slope, plateau, their intervals and the verdict over row, with the claim as a coordinate."""
    data: dict[str, tuple[str, np.ndarray]] = {}
    for name in ("slope", "plateau"):
        fits: list[Fit] = [getattr(row, name) for row in rows]
        data[name] = ("row", np.array([fit.estimate for fit in fits], float))
        data[f"{name}_low"] = ("row", np.array([fit.low for fit in fits], float))
        data[f"{name}_high"] = ("row", np.array([fit.high for fit in fits], float))
    data["verdict"] = ("row", np.array([row.verdict for row in rows], dtype=str))
    names, keys = (np.array([getattr(row, key) for row in rows], dtype=str) for key in ("name", "claim"))
    return xr.Dataset(data, {"row": names, "claim": ("row", keys)})
