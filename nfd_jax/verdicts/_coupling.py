"""C1 to C3: coupling at initialization, what of it survives n → ∞, and what that adds up to as L → ∞."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nfd_jax.verdicts._constants import CONSTANT, enough, needs_grid
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._errors import controls_miss
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._rows import (
    Found,
    constant_row,
    described,
    growth_row,
    guarded,
    slope_row,
    undetectable,
)
from nfd_jax.verdicts._sample import NotMeasured, Sample
from nfd_jax.verdicts._slopes import at_infinite_width, swapped

STEEP = tuple(np.round(np.arange(0.3, 5.05, 0.1), 10))
"""Exponents tried for one layer's coupling, of which rates up to 4 are claimed."""

EFFECT, DISPLACEMENT, LAYER = (f"coupling/coupling_{name}_ms" for name in ("effect", "displacement", "layer"))
PASS = {"forward": "h", "backward": "b"}
WHAT = {EFFECT: "what reuse changes in {}", DISPLACEMENT: "coupling summed over the layers of the {} pass"}


def coupling_rows(context: Context, claim: str, reading: str) -> Iterator[Found]:
    """C1 to C3 from /coupling."""
    factor = 2.0 if reading == "rms" else 1.0
    both = [(DISPLACEMENT, {"direction": name}) for name in PASS] + [
        (EFFECT, {"quantity": name}) for name in "hbf"
    ]
    if claim == "C1":
        both = [(EFFECT, {"quantity": "b"}), (DISPLACEMENT, {"direction": "backward"})]
    for path, select in both:
        label = next(iter(select.values()))
        signal = PASS.get(label, label)
        name, what = f"{path.split('_')[1]} {label}", WHAT[path].format(label)
        if claim == "C3":
            name = f"{name} accumulated"
        base = Row(
            f"{claim} {reading} {name}",
            claim,
            reading,
            signal,
            "both",
            "constant",
            text=what,
        )
        training = claim != "C1"

        def constant(
            base: Row,
            path: str = path,
            select: dict = select,
            signal: str = signal,
            training: bool = training,
            what: str = what,
        ) -> Found:
            sample = context.sample(path, select, signal, training)
            if claim == "C2":
                needs_grid(sample, depths=1)
                return _at_fixed_depth(
                    replace(base, axis="width"), context, sample, signal, path, select, f"{what} is"
                )
            needs_grid(sample)
            key = (path, tuple(select.items()), training)
            return constant_row(base, context, sample, signal, Law(), key=key, what=f"{what} is")

        yield guarded(base, constant)
        if claim != "C1":
            continue
        step0 = replace(base, test="slope")

        def rate(
            base: Row, path: str = path, select: dict = select, signal: str = signal, what: str = what
        ) -> Found:
            sample = swapped(context.sample(path, select, signal, False))
            key = ("slope", path, tuple(select.items()))
            found = slope_row(
                base,
                context,
                sample,
                claimed=factor,
                fit=lambda: context.fits(key, sample, Law(), positive=True),
                what=what,
            )
            return replace(found, row=replace(found.row, width=0, depth=0))

        against = {"name": f"{base.name} against width", "text": f"{what} against width"}
        yield guarded(replace(step0, axis="width", **against), rate)
        yield guarded(
            replace(step0, name=f"{base.name} against depth", axis="depth", text=f"{what} against depth"),
            lambda base, path=path, select=select, signal=signal, what=what: growth_row(
                base, context, context.sample(path, select, signal, False), what
            ),
        )
    if claim == "C3":
        yield from layer_rows(context, reading, 2.0 * factor)


def _at_fixed_depth(
    base: Row, context: Context, sample: Sample, signal: str, path: str, select: dict, what: str
) -> Found:
    """The constant as n → ∞ at fixed depth, in the mean over the grid's depths: 0 only if it is 0 at each."""
    widths = np.array(sorted(set(sample.widths.tolist())))
    depths = sorted(set(sample.depths.tolist()))
    whole = [depth for depth in depths if (sample.depths == depth).sum() == len(widths)] or depths[:1]
    values = []
    for depth in whole:
        here = np.flatnonzero(sample.depths == depth)
        values.append(sample.values[:, here[np.argsort(sample.widths[here])]])
    if len({part.shape[1] for part in values}) > 1 or values[0].shape[1] < 2:
        raise NotMeasured("add widths: at least two are needed at one depth")
    widths = np.sort(sample.widths[sample.depths == whole[0]])
    mean = sample.with_values(np.mean(values, 0), widths, np.full(len(widths), whole[-1]))
    found = (
        constant_row(
            base,
            context,
            mean,
            signal,
            Law(),
            key=("fixed", path, tuple(select.items())),
            what=what,
            survives=True,
        )
        if sample.signal is not None
        else _unscaled(base, context, mean)
    )
    return replace(found, row=replace(found.row, depth=int(whole[0]) if len(whole) == 1 else 0))


def _unscaled(base: Row, context: Context, sample: Sample) -> Found:
    """Whether anything survives needs no signal to compare with; how much it is does."""
    row = described(base, sample)
    if np.all(sample.values.mean(0) <= context.floor):
        return Found(undetectable(row), "not detectable")
    fits = context.fits(("unscaled", row.name), sample, Law(), positive=True)
    constant = fits.interval(CONSTANT, None, context.level / sample.candidates)
    said = f"mean square {constant.text()}"
    text = f"{base.text} is, as n → ∞, {said}"
    open_ = {"verdict": "undecided", "reason": f"{said} reaches 0: add seeds", "text": f"{text}: undecided"}
    row = replace(row, constant=constant, **open_)
    if enough(sample, base.quantity) or not fits.described:
        return Found(
            replace(row, reason=enough(sample, base.quantity) or "no law of the family describes its points"),
            "undecided",
        )
    if constant.low > 0:
        row = replace(row, verdict="remains", reason=f"above 0: {said}", text=f"{text}: remains")
        return Found(
            row,
            "holds",
            holds_at=lambda level: fits.interval(CONSTANT, None, level / sample.candidates).low > 0,
        )
    return Found(row, "undecided")


def layer_rows(context: Context, reading: str, claimed: float) -> Iterator[Found]:
    """One layer's coupling as n → ∞ against depth."""
    for label, signal in PASS.items():
        what = f"one layer's coupling in the {label} pass as n → ∞"
        text = f"{what} against depth"
        base = Row(f"C3 {reading} layer {label}", "C3", reading, signal, "depth", "slope", text=text)

        def rate(base: Row, label: str = label, signal: str = signal, what: str = what) -> Found:
            sample = context.sample(LAYER, {"direction": label}, signal, True)
            moved = sample.signal is None or sample.signal.mean() > context.floor
            if not moved or np.all(sample.values.mean(0) <= context.floor):
                reason = (
                    "zero to rounding at every point" if moved else "learning moves nothing beyond rounding"
                )
                row = undetectable(described(base, sample), reason)
                # A coupling that is zero at every depth falls faster than any power.
                return Found(row, "holds" if moved and not enough(sample, signal) else "not detectable")
            wide = context.once(("wide", label), lambda: at_infinite_width(sample))
            found = slope_row(
                base,
                context,
                wide,
                claimed=claimed,
                control=controls_miss(context, signal, claimed / 2),
                what=what,
                fit=lambda: context.fits(("layer", label), wide, Law(exponents=STEEP), constant=False),
            )
            return replace(found, row=replace(found.row, width=0, depth=0))

        yield guarded(base, rate)
