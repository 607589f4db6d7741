"""The rows of every claim: which quantity, what is asked of it, and what it says.

`states` are what a row says of its claim: holds, fails, undecided, not detectable or not measured. A row that
fails says at which level it still does, for Holm's rule over the rows of a claim.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nfd_jax.verdicts._constants import CONSTANT, Constant, enough, judge_constant, needs_grid
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._family import Fits
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._sample import NotMeasured, Sample
from nfd_jax.verdicts._seeds import Interval, percent
from nfd_jax.verdicts._slopes import FLAT, TOLERANCE, growth, steepens


@dataclass(frozen=True)
class Found:
    """A row with what it says of its claim."""

    row: Row
    state: str
    fails_at: Callable[[float], bool] = lambda level: False
    holds_at: Callable[[float], bool] = lambda level: True


def guarded(base: Row, make: Callable[[Row], Found]) -> Found:
    """The row, or why it was not measured."""
    try:
        return make(base)
    except NotMeasured as lacking:
        row = replace(
            base, verdict="not measured", reason=str(lacking), text=f"{base.text}: not measured; {lacking}"
        )
        return Found(row, "not measured")


def described(base: Row, sample: Sample) -> Row:
    """The row with where its samples lie."""
    widths, depths = set(sample.widths.tolist()), set(sample.depths.tolist())
    return replace(
        base,
        seeds=sample.seeds,
        width=int(widths.pop()) if len(widths) == 1 else 0,
        depth=int(depths.pop()) if len(depths) == 1 else 0,
        step=sample.step,
        learning_rate=sample.learning_rate,
    )


def in_words(what: str, found: Constant) -> str:
    """An effect as a reader would say it: its share in rms, and once the mean square itself."""
    if not np.isfinite(found.effect.estimate):
        return f"{what} nothing that can be seen, {found.reason}: {found.verdict}"
    size = f"{max(found.constant.estimate, 0.0):.2g}"
    return f"{what} {found.effect.share()} of what learning moves in rms, mean square {size}: {found.verdict}"


def undetectable(row: Row, reason: str = "zero to rounding at every point") -> Row:
    """The row of a quantity too small to be seen."""
    return replace(row, verdict="not detectable", reason=reason, text=f"{row.text}: {reason}: not detectable")


def constant_row(
    base: Row,
    context: Context,
    sample: Sample,
    signal: str,
    law: Law,
    *,
    key: object,
    what: str,
    positive: bool = True,
    survives: bool = False,
    rays: bool = False,
    weights: dict[str, float] | None = None,
) -> Found:
    """What remains of a sample; a claim asks that it vanishes, or that it survives."""
    level = context.level / sample.candidates

    def make() -> Constant:
        return judge_constant(
            sample,
            signal,
            law,
            margin=context.margin,
            floor=context.floor,
            level=level,
            weights=weights,
            fit=lambda: context.fits(key, sample, law, positive=positive, rays=rays),
        )

    found = context.once(("constant", key, tuple((weights or CONSTANT).items())), make)
    row = replace(
        described(base, sample),
        verdict=found.verdict,
        reason=found.reason,
        text=in_words(what, found),
        constant=found.constant,
        effect=found.effect,
        signal=found.signal,
        smallest_effect_seen=found.smallest,
        seeds_needed=found.seeds_needed,
    )
    if survives:
        return _survival(row, found, context)
    state = {"vanishes": "holds", "remains": "fails"}.get(found.verdict, found.verdict)
    return Found(row, state, lambda part: found.at(part / sample.candidates).low > context.margin)


def constant_of(
    base: Row,
    context: Context,
    path: str,
    select: dict,
    *,
    training: bool,
    sizes: int = 2,
    less: str = "",
    **asked: Any,
) -> Found:
    """`constant_row` of a variable at these labels, of a grid of at least `sizes` widths and depths."""
    sample = context.sample(path, select, base.quantity, training, less)
    needs_grid(sample, depths=sizes, widths=sizes)
    return constant_row(base, context, sample, base.quantity, context.law(path), positive=False, **asked)


def _survival(row: Row, found: Constant, context: Context) -> Found:
    """For claims that something survives: above 0 in each way that counts, and not below the margin."""
    if found.verdict == "vanishes" or found.verdict == "not detectable":
        return Found(row, "not detectable")
    judged = found.fits is not None and found.fits.described and not enough(found.sample, row.quantity)
    if judged and found.constant.low > 0:
        candidates = found.sample.candidates
        share = f"{found.effect.share()} of what learning moves in rms"
        text = f"above 0: mean square {found.constant.text()}, {share}, margin {percent(context.margin)}"
        return Found(
            replace(row, reason=text),
            "holds",
            holds_at=lambda level: found.at(level / candidates, relative=False).low > 0,
        )
    return Found(row, "undecided")


def slope_row(
    base: Row,
    context: Context,
    sample: Sample,
    *,
    claimed: float,
    fit: Callable[[], Fits],
    what: str,
    control: str = "",
) -> Found:
    """Whether a quantity falls at the claimed rate along depth (of `sample`; width where the two are
    swapped).

    control: why the rate may not fail on this grid, as the control of the same run does not attain it either.
    """
    base = described(base, sample)
    level = context.level / sample.candidates
    if np.all(np.abs(sample.values.mean(0)) <= context.floor):
        return Found(undetectable(base), "not detectable")
    if len(set(sample.depths.tolist())) < 3:
        raise NotMeasured(
            f"add {base.axis}s: the grid has {len(set(sample.depths.tolist()))}, a slope needs at least three"
        )
    fits = fit()
    found = fits.exponent(level)
    slope = Interval(-found.estimate, -found.high, -found.low)
    row = replace(base, slope=slope)
    least = claimed - TOLERANCE

    def result(verdict: str, reason: str, state: str) -> Found:
        power = f"power {slope.power()}, claimed {-claimed:g}"
        text = f"{what} goes, in mean square, as {base.axis} to the {power}: {verdict}"

        def fails_at(part: float) -> bool:
            return fits.exponent(part / sample.candidates).high < least

        return Found(replace(row, verdict=verdict, reason=reason, text=text), state, fails_at)

    if lack := enough(sample, base.quantity):
        return result("undecided", lack, "undecided")
    if not fits.described:
        return result("undecided", "no law of the family describes its points", "undecided")
    if found.low >= least and fits.at_the_edge(level):
        tried = f"its estimate is the steepest power tried, {slope.estimate:.2f}, and nothing bounds it"
        return result("undecided", f"{tried}: add {base.axis}s or seeds", "undecided")
    if found.low >= least:
        return result("attained", f"slope {slope.power()}, claimed {-claimed:g}", "holds")
    if found.high >= least:
        return result(
            "undecided",
            f"slope {slope.power()} reaches both sides of {-least:g}: add {base.axis}s or seeds",
            "undecided",
        )
    if control:
        return result("undecided", f"{deeper(base.axis)} needed: {control}", "undecided")
    if steepens(sample, level):
        return result("undecided", f"{deeper(base.axis)} needed: local slopes still steepen", "undecided")
    return result("not attained", f"slope {slope.power()}, claimed {-claimed:g}", "fails")


def deeper(axis: str) -> str:
    return "deeper networks" if axis == "depth" else "wider networks"


def growth_row(base: Row, context: Context, sample: Sample, what: str) -> Found:
    """No growth with depth within FLAT."""
    base = described(base, sample)
    if np.all(sample.values.mean(0) <= context.floor):
        return Found(undetectable(base), "not detectable")
    needs_grid(sample, widths=1)
    found = growth(sample, context.level)
    row = replace(base, slope=found)
    lack = enough(sample, base.quantity)
    if not lack and found.high < FLAT:
        verdict, state, reason = "attained", "holds", f"slope {found.power()} below {FLAT:g}"
    elif not lack and found.low > FLAT:
        verdict, state, reason = "not attained", "fails", f"slope {found.power()} above {FLAT:g}"
    else:
        verdict, state = "undecided", "undecided"
        reason = lack or f"slope {found.power()} reaches both sides of {FLAT:g}: add depths or seeds"
    power = f"power {found.power()}, claimed no growth"
    text = f"{what} goes, in mean square, as depth to the {power}: {verdict}"
    return Found(
        replace(row, verdict=verdict, reason=reason, text=text),
        state,
        lambda level: growth(sample, level).low > FLAT,
    )
