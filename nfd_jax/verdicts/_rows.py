"""The rows of every claim: which quantity, what is asked of it, and what it says.

`states` are what a row says of its claim: holds, fails, undecided, not detectable or not measured. A row that fails says
at which level it still does, for Holm's rule over the rows of a claim.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nfd_jax.verdicts._constants import CONSTANT, Constant, enough, judge_constant, needs_grid
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._fit import Fits, fit_laws
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._sample import NotMeasured, Sample
from nfd_jax.verdicts._seeds import Interval
from nfd_jax.verdicts._slopes import FLAT, TOLERANCE, at_infinite_width, growth, steepens, swapped

STEEP = tuple(np.round(np.arange(0.3, 5.05, 0.1), 10))
"""Exponents tried for one layer's coupling, of which rates up to 4 are claimed."""


@dataclass(frozen=True)
class Found:
    """A row with what it says of its claim."""

    row: Row
    state: str
    fails_at: Callable[[float], bool] = lambda level: False
    holds_at: Callable[[float], bool] = lambda level: True


def short(select: dict[str, str]) -> str:
    """Labels as a name has them: reused → independent h."""
    labels = dict(select)
    network, limit = labels.pop("backward_weights", ""), labels.pop("limit_backward_weights", "")
    pair = f"{network} → {limit}" if limit else network
    return " ".join(part for part in (pair, *labels.values()) if part)


def guarded(base: Row, make: Callable[[Row], Found]) -> Found:
    """The row, or why it was not measured."""
    try:
        return make(base)
    except NotMeasured as lacking:
        row = replace(base, verdict="not measured", reason=str(lacking), text=f"{base.text}: not measured, {lacking}")
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
    """An effect as a reader would say it."""
    if not np.isfinite(found.effect.estimate):
        return f"{what}: {found.verdict}, {found.reason}"
    share, low, high = (f"{100 * np.sqrt(max(value, 0.0)):.2g} %" for value in (found.effect.estimate, found.effect.low, found.effect.high))
    return f"{what} {share} of what learning moves, in root mean square ({low} to {high}): {found.verdict}"


def constant_row(
    base: Row, context: Context, sample: Sample, signal: str, law: Law, *, key: object, what: str, positive: bool = True,
    survives: bool = False, rays: bool = False, weights: dict[str, float] | None = None,
) -> Found:
    """What remains of a sample; a claim asks that it vanishes, or that it survives."""
    level = context.level / sample.candidates

    def make() -> Constant:
        return judge_constant(
            sample, signal, law, margin=context.margin, floor=context.floor, level=level, weights=weights,
            fit=lambda: context.fits(key, sample, law, positive=positive, rays=rays),
        )

    found = context.once(("constant", key, tuple((weights or CONSTANT).items())), make)
    row = replace(
        described(base, sample), verdict=found.verdict, reason=found.reason, text=in_words(what, found),
        constant=found.constant, effect=found.effect, signal=found.signal, smallest_effect_seen=found.smallest,
        seeds_needed=found.seeds_needed,
    )
    if survives:
        return _survival(row, found, context)
    state = {"vanishes": "holds", "remains": "fails"}.get(found.verdict, found.verdict)
    return Found(row, state, lambda part: found.at(part / sample.candidates).low > context.margin)


def _survival(row: Row, found: Constant, context: Context) -> Found:
    """For claims that something survives: above 0 in each way that counts, and not below the margin."""
    if found.verdict == "vanishes" or found.verdict == "not detectable":
        return Found(row, "not detectable")
    judged = found.fits is not None and found.fits.described and not enough(found.sample, row.quantity)
    if judged and found.constant.low > 0:
        candidates = found.sample.candidates
        text = f"above 0: constant {found.constant.text()}; {found.reason}"
        return Found(
            replace(row, reason=text), "holds",
            holds_at=lambda level: found.at(level / candidates, relative=False).low > 0,
        )
    return Found(row, "undecided")


def slope_row(
    base: Row, context: Context, sample: Sample, *, claimed: float, fit: Callable[[], Fits], attains: bool | None, what: str,
) -> Found:
    """Whether a quantity falls at the claimed rate along depth (of `sample`; width where the two are swapped).

    attains: whether the control of the same run attains that rate, None where there is none to compare with.
    """
    base = described(base, sample)
    level = context.level / sample.candidates
    if np.all(np.abs(sample.values.mean(0)) <= context.floor):
        row = replace(base, verdict="not detectable", reason="zero to rounding at every point", text=f"{what}: zero to rounding")
        return Found(row, "not detectable")
    if len(set(sample.depths.tolist())) < 3:
        raise NotMeasured(f"add {base.axis}s: the grid has {len(set(sample.depths.tolist()))}, a slope needs at least three")
    fits = fit()
    found = fits.exponent(level)
    slope = Interval(-found.estimate, -found.high, -found.low)
    row = replace(base, slope=slope)
    least = claimed - TOLERANCE

    def result(verdict: str, reason: str, state: str) -> Found:
        text = f"{what} falls as {base.axis} to the power {slope.text('.2f')}, claimed {-claimed:g}: {verdict}"

        def fails_at(part: float) -> bool:
            return fits.exponent(part / sample.candidates).high < least

        return Found(replace(row, verdict=verdict, reason=reason, text=text), state, fails_at)

    if lack := enough(sample, base.quantity):
        return result("undecided", lack, "undecided")
    if not fits.described:
        return result("undecided", "no law of the family describes its points", "undecided")
    if found.low >= least:
        return result("attained", f"slope {slope.text('.2f')}, claimed {-claimed:g}", "holds")
    if found.high >= least:
        return result("undecided", f"slope {slope.text('.2f')} reaches both sides of {-least:g}: add {base.axis}s or seeds", "undecided")
    if attains is False:
        return result("undecided", f"{deeper(base.axis)} needed: the control of this run does not attain the rate either", "undecided")
    if steepens(sample):
        return result("undecided", f"{deeper(base.axis)} needed: local slopes still steepen", "undecided")
    return result("not attained", f"slope {slope.text('.2f')}, claimed {-claimed:g}", "fails")


def deeper(axis: str) -> str:
    return "deeper networks" if axis == "depth" else "wider networks"


def growth_row(base: Row, context: Context, sample: Sample, what: str) -> Found:
    """No growth with depth within FLAT."""
    base = described(base, sample)
    if np.all(sample.values.mean(0) <= context.floor):
        return Found(replace(base, verdict="not detectable", reason="zero to rounding at every point"), "not detectable")
    needs_grid(sample, widths=1)
    found = growth(sample, context.level)
    row = replace(base, slope=found)
    lack = enough(sample, base.quantity)
    if not lack and found.high < FLAT:
        verdict, state, reason = "attained", "holds", f"slope {found.text('.2f')} below {FLAT:g}"
    elif not lack and found.low > FLAT:
        verdict, state, reason = "not attained", "fails", f"slope {found.text('.2f')} above {FLAT:g}"
    else:
        verdict, state = "undecided", "undecided"
        reason = lack or f"slope {found.text('.2f')} reaches both sides of {FLAT:g}: add depths or seeds"
    text = f"{what} grows as depth to the power {found.text('.2f')}: no growth {verdict}"
    return Found(replace(row, verdict=verdict, reason=reason, text=text), state, lambda level: growth(sample, level).low > FLAT)


EFFECT, DISPLACEMENT, LAYER = (f"coupling/coupling_{name}_ms" for name in ("effect", "displacement", "layer"))
PASS = {"forward": "h", "backward": "b"}
WHAT = {EFFECT: "what reuse changes in {} is", DISPLACEMENT: "coupling summed over layers, {} pass, is"}


def coupling_rows(context: Context, claim: str, reading: str) -> Iterator[Found]:
    """C1 to C3 from /coupling."""
    factor = 2.0 if reading == "rms" else 1.0
    both = [(DISPLACEMENT, {"direction": name}) for name in PASS] + [(EFFECT, {"quantity": name}) for name in "hbf"]
    if claim == "C1":
        both = [(EFFECT, {"quantity": "b"}), (DISPLACEMENT, {"direction": "backward"})]
    for path, select in both:
        label = next(iter(select.values()))
        signal = PASS.get(label, label)
        name, what = f"{path.split('_')[1]} {label}", WHAT[path].format(label)
        if claim == "C3":
            name = f"{name} accumulated"
        base = Row(f"{claim} {reading} {name}", claim, reading, signal, "both", "constant", text=what.removesuffix(" is"))
        training = claim != "C1"

        def constant(base: Row, path: str = path, select: dict = select, signal: str = signal, training: bool = training,
                     what: str = what) -> Found:
            sample = context.sample(path, select, signal, training)
            if claim == "C2":
                needs_grid(sample, depths=1)
                return _at_fixed_depth(replace(base, axis="width"), context, sample, signal, path, select, what)
            needs_grid(sample)
            key = (path, tuple(select.items()), training)
            return constant_row(base, context, sample, signal, Law(), key=key, what=what)

        yield guarded(base, constant)
        if claim != "C1":
            continue
        step0 = replace(base, test="slope")

        def rate(base: Row, path: str = path, select: dict = select, signal: str = signal, what: str = what) -> Found:
            sample = swapped(context.sample(path, select, signal, False))
            key = ("slope", path, tuple(select.items()))
            found = slope_row(
                base, context, sample, claimed=factor, fit=lambda: context.fits(key, sample, Law(), positive=True), attains=None, what=what
            )
            return replace(found, row=replace(found.row, width=0, depth=0))

        yield guarded(replace(step0, name=f"{base.name} against width", axis="width"), rate)
        yield guarded(
            replace(step0, name=f"{base.name} against depth", axis="depth"),
            lambda base, path=path, select=select, signal=signal, what=what: growth_row(
                base, context, context.sample(path, select, signal, False), what
            ),
        )
    if claim == "C3":
        yield from layer_rows(context, reading, 2.0 * factor)


def _at_fixed_depth(base: Row, context: Context, sample: Sample, signal: str, path: str, select: dict, what: str) -> Found:
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
    found = constant_row(
        base, context, mean, signal, Law(), key=("fixed", path, tuple(select.items())), what=what, survives=True
    ) if sample.signal is not None else _unscaled(base, context, mean)
    return replace(found, row=replace(found.row, depth=int(whole[0]) if len(whole) == 1 else 0))


def _unscaled(base: Row, context: Context, sample: Sample) -> Found:
    """Whether anything survives needs no signal to compare with; how much it is does."""
    row = described(base, sample)
    if np.all(sample.values.mean(0) <= context.floor):
        return Found(replace(row, verdict="not detectable", reason="zero to rounding at every point"), "not detectable")
    fits = context.fits(("unscaled", row.name), sample, Law(), positive=True)
    constant = fits.interval(CONSTANT, None, context.level / sample.candidates)
    row = replace(row, constant=constant, verdict="undecided", reason=f"constant {constant.text()}")
    if enough(sample, base.quantity) or not fits.described:
        return Found(replace(row, reason=enough(sample, base.quantity) or "no law of the family describes its points"), "undecided")
    if constant.low > 0:
        row = replace(row, verdict="remains", reason=f"above 0: constant {constant.text()}")
        return Found(row, "holds", holds_at=lambda level: fits.interval(CONSTANT, None, level / sample.candidates).low > 0)
    return Found(row, "undecided")


def layer_rows(context: Context, reading: str, claimed: float) -> Iterator[Found]:
    """One layer's coupling as n → ∞ against depth."""
    for label, signal in PASS.items():
        what = f"one layer's coupling as n → ∞, {label} pass,"
        base = Row(f"C3 {reading} layer {label}", "C3", reading, signal, "depth", "slope", text=what)

        def rate(base: Row, label: str = label, signal: str = signal, what: str = what) -> Found:
            sample = context.sample(LAYER, {"direction": label}, signal, True)
            if np.all(sample.values.mean(0) <= context.floor):
                row = replace(described(base, sample), verdict="not detectable", reason="zero to rounding at every point")
                return Found(row, "holds" if sample.signal is not None and sample.signal.mean() > context.floor else "not detectable")
            wide = context.once(("wide", label), lambda: at_infinite_width(sample))
            found = slope_row(
                base, context, wide, claimed=claimed, attains=controls_attain(context, "h", claimed / 2), what=what,
                fit=lambda: context.fits(("layer", label), wide, Law(exponents=STEEP), constant=False),
            )
            return replace(found, row=replace(found.row, width=0, depth=0))

        yield guarded(base, rate)


ERROR = "compare/limit_error_ms"
FLAGS = ("reused", "independent")
PAIRS = (FLAGS, FLAGS[::-1], FLAGS[:1] * 2, FLAGS[1:] * 2)


def pair(network: str, limit: str) -> dict[str, str]:
    return {"backward_weights": network, "limit_backward_weights": limit}


def error_fits(context: Context, select: dict[str, str], signal: str) -> tuple[Sample, Fits]:
    """The samples of a distance to a limit, and the laws that describe them."""
    sample = context.sample(ERROR, select, signal, True)
    needs_grid(sample)
    law = context.law(ERROR)
    return sample, context.fits((ERROR, tuple(select.items())), sample, law, positive=True)


def controls_attain(context: Context, quantity: str, claimed: float) -> bool:
    """Whether both controls (each network against the limit of its own flag) attain the rate on this grid."""

    def one(flag: str) -> bool:
        try:
            _, fits = error_fits(context, {**pair(flag, flag), "quantity": quantity}, quantity)
        except NotMeasured:
            return False
        return fits.described and fits.exponent(context.level).low >= claimed - TOLERANCE

    return context.once(("control", quantity, claimed), lambda: all(one(flag) for flag in FLAGS))


def error_rows(context: Context, reading: str) -> Iterator[Found]:
    """C4 from distances to the limits, for every pair of flags: the paper's pair decides."""
    claimed = 2.0 if reading == "rms" else 1.0
    for network, limit in PAIRS:
        decides = (network, limit) == FLAGS
        for quantity in "hbf":
            select = {**pair(network, limit), "quantity": quantity}
            what = f"the {limit} limit misses the {network} network's {quantity} by"
            base = Row(
                f"C4 {reading} {network} → {limit} {quantity}", "C4", reading, quantity, "both", "constant",
                text=f"{network} network to {limit} limit, {quantity}", decides=decides,
            )

            def constant(base: Row, select: dict = select, quantity: str = quantity, what: str = what) -> Found:
                sample = context.sample(ERROR, select, quantity, True)
                needs_grid(sample)
                return constant_row(base, context, sample, quantity, context.law(ERROR), key=(ERROR, tuple(select.items())), what=what)

            found = guarded(base, constant)
            yield found

            def rate(base: Row, select: dict = select, quantity: str = quantity, what: str = what) -> Found:
                sample = context.sample(ERROR, select, quantity, True)
                needs_grid(sample)
                crossed = select["backward_weights"] != select["limit_backward_weights"]
                return slope_row(
                    base, context, sample, claimed=claimed, fit=lambda: error_fits(context, select, quantity)[1],
                    attains=controls_attain(context, quantity, claimed) if crossed else True, what=base.text,
                )

            yield guarded(replace(base, name=f"{base.name} against depth", axis="depth", test="slope"), rate)


REFERENCE = "compare/reference_error_ms"
RAYS = {
    "": CONSTANT,
    " along n ∝ L": {"constant": 1.0, "L/n": 1.0, "n/L": 1.0},
    " along n ∝ L²": {"constant": 1.0, "n/L": 1.0},
    " along n ∝ √L": {"constant": 1.0, "L/n": 1.0},
}


def reference_rows(context: Context, reading: str) -> Iterator[Found]:
    """C6: at initialization, against a limit of many more particles, with the columns L/n and n/L in the fit."""
    claimed = 2.0 if reading == "rms" else 1.0
    for quantity in "hbf":
        select = {**pair(*FLAGS), "quantity": quantity}
        for suffix, weights in RAYS.items():
            what = f"error of {quantity} to the reference limit{suffix} tends to"
            base = Row(f"C6 {reading} {quantity}{suffix}", "C6", reading, quantity, "both", "constant", text=what)

            def constant(base: Row, select: dict = select, quantity: str = quantity, weights: dict = weights, what: str = what) -> Found:
                sample = context.sample(REFERENCE, select, quantity, False)
                needs_grid(sample, depths=3, widths=3)
                return constant_row(
                    base, context, sample, quantity, context.law(REFERENCE), key=(REFERENCE, quantity), what=what, rays=True,
                    weights=weights, positive=False,
                )

            yield guarded(base, constant)

        for axis in ("width", "depth"):
            base = Row(f"C6 {reading} {quantity} against {axis}", "C6", reading, quantity, axis, "slope", text=f"error of {quantity} to the reference limit")

            def rate(base: Row, axis: str = axis, select: dict = select, quantity: str = quantity) -> Found:
                sample = context.sample(REFERENCE, select, quantity, False)
                needs_grid(sample, depths=3, widths=3)
                law = context.law(REFERENCE)
                if axis == "width":
                    sample, law = swapped(sample), Law()
                return slope_row(
                    base, context, sample, claimed=claimed, what=base.text,
                    attains=_reference_attains(context, axis, quantity, claimed),
                    fit=lambda: context.fits(("reference", axis, quantity), sample, law, positive=True),
                )

            yield guarded(base, rate)


def _reference_attains(context: Context, axis: str, quantity: str, claimed: float) -> bool:
    """Whether the control, independent networks against the reference of their own flag, attains the rate along the axis."""

    def make() -> Fits:
        control = context.sample(REFERENCE, {**pair(FLAGS[1], FLAGS[1]), "quantity": quantity}, quantity, False)
        needs_grid(control, depths=3, widths=3)
        turned, law = (swapped(control), Law()) if axis == "width" else (control, context.law(REFERENCE))
        return fit_laws(turned.values, turned.widths, turned.depths, law, positive=True)

    try:
        fits = context.once(("reference control", axis, quantity), make)
    except NotMeasured:
        return False
    return fits.described and fits.exponent(context.level).low >= claimed - TOLERANCE


LAWS = (
    ("output_bias", "f", "", "bias of outputs"),
    ("feature_kernel_bias", "h", "", "bias of feature kernels"),
    ("gradient_kernel_bias", "b", "", "bias of gradient kernels"),
    ("marginal_w2", "h", "h", "distance of marginals of h beyond chance"),
    ("marginal_w2", "b", "b", "distance of marginals of b beyond chance"),
)


def law_rows(context: Context, claim: str) -> Iterator[Found]:
    """What the limit makes deterministic: means of outputs and kernels, marginals of single coordinates."""
    pairs = PAIRS if claim == "C4" else (FLAGS,)
    for network, limit in pairs:
        for variable, quantity, label, words in LAWS:
            if claim == "C1" and quantity != "b":
                continue
            path = f"law/{variable}"
            select = pair(network, limit) | ({"quantity": label} if label else {})
            what = f"{words}, {network} network to {limit} limit: its square root is"
            name = f"{variable.removeprefix('marginal_')} {label}".strip().replace("_", " ")
            base = Row(
                f"{claim} law {network} → {limit} {name}", claim, "law", quantity, "both", "constant",
                text=f"{words}, {network} network to {limit} limit", decides=(network, limit) == FLAGS,
            )

            def constant(base: Row, path: str = path, select: dict = select, quantity: str = quantity, what: str = what) -> Found:
                training = claim != "C1"
                less = f"{path}_null" if path.endswith("w2") else ""
                sample = context.sample(path, select, quantity, training, less)
                needs_grid(sample)
                return constant_row(
                    base, context, sample, quantity, context.law(path), key=(path, tuple(select.items()), training), what=what,
                    positive=False, survives=claim == "C2",
                )

            yield guarded(base, constant)

