"""The first step without extrapolation: the gain of outputs per -ηχ at η → 0, against the closed forms of
both systems.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nfd_jax.verdicts._constants import enough
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._errors import FLAGS
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._rows import Found, guarded
from nfd_jax.verdicts._sample import NotMeasured, Sample
from nfd_jax.verdicts._seeds import Array, Interval, Spread

GAIN, PREDICTED = "response/first_step_gain", "response/first_step_gain_predicted"


def response_rows(context: Context) -> Iterator[Found]:
    """Each network's gain against the closed form of its own system (for comparison), and the reused
    network's against that of the independent system, which decides: a miss of ε in mean square is √ε of the
    gain. Closed forms are of infinite networks: what decides is a miss that the control, the independent
    network of the same size, does not share.
    """
    for network, limit in ((FLAGS[0], FLAGS[0]), (FLAGS[1], FLAGS[1]), FLAGS):
        text = f"first step's gain of the {network} network against the closed form of the {limit} system"
        base = Row(
            f"C4 law first step {network} → {limit}",
            "C4",
            "law",
            "f",
            "both",
            "value",
            text=text,
            decides=network != limit,
        )

        def judged(base: Row, network: str = network, limit: str = limit) -> Found:
            return _judge(base, context, network, limit)

        found = guarded(base, judged)
        # The claim can be judged without it.
        yield (
            found if found.state != "not measured" else replace(found, row=replace(found.row, decides=False))
        )


def _largest(context: Context, path: str, flag: str) -> Sample:
    """The values of the widest and, at that width, deepest networks with data."""
    found = context.sample(path, {"backward_weights": flag}, "f", False)
    widest = found.widths == found.widths.max()
    here = np.flatnonzero(widest & (found.depths == found.depths[widest].max()))[:1]
    return found.with_values(found.values[:, here], found.widths[here], found.depths[here])


def _judge(base: Row, context: Context, network: str, limit: str) -> Found:
    gain, predicted = _largest(context, GAIN, network), _largest(context, PREDICTED, limit)
    measured, expected = gain.values[:, 0].mean(1), predicted.values[:, 0].mean(1)
    size = float(measured.mean())
    if not abs(size) > 0:
        raise NotMeasured("add a problem whose first step changes its outputs")
    found = _apart(measured, expected)
    miss, effect = found.interval(context.level), _effect(found, size, context.level)
    errors = abs(found.mean) / found.error if found.error > 0 else (np.inf if found.mean else 0.0)
    apart = f"{errors:.1f} standard errors apart" if np.isfinite(errors) else "apart without any scatter"
    if gain.seeds < 2:
        apart = "without a standard error, from one seed"
    row = replace(
        base,
        constant=miss,
        effect=effect,
        signal=size**2,
        seeds=gain.seeds,
        width=int(gain.widths[0]),
        depth=int(gain.depths[0]),
        step=1,
        text=f"{base.text}: {size:.4g} against {expected.mean():.4g}, {apart}",
    )
    reason = f"{apart}, {miss.scaled(1 / size).text('.1%')} of the gain"
    if lack := enough(gain, "f"):
        return Found(replace(row, verdict="undecided", reason=lack), "undecided")
    alike, every = "", [found]
    if network != limit:
        try:
            control = _apart(measured, _largest(context, GAIN, limit).values[:, 0].mean(1))
        except NotMeasured as lacking:
            return Found(replace(row, verdict="undecided", reason=f"no control, {lacking}"), "undecided")
        share = control.interval(context.level).scaled(1 / size).text(".1%")
        alike, every = f"; from the {limit} network of this size it is {share} off", [found, control]
    effects = [_effect(one, size, context.level) for one in every]
    reason += alike
    if all(one.low > context.margin for one in effects):
        return Found(
            replace(row, verdict="remains", reason=reason),
            "fails",
            lambda level: all(_effect(one, size, level).low > context.margin for one in every),
        )
    if all(one.high < context.margin for one in effects):
        return Found(replace(row, verdict="vanishes", reason=reason), "holds")
    return Found(replace(row, verdict="undecided", reason=reason), "undecided")


def _apart(measured: Array, other: Array) -> Spread:
    """Differences of seeds; from the mean of `other` where that has other seeds."""
    return Spread.of(measured - (other if len(other) == len(measured) else other.mean()))


def _effect(apart: Spread, size: float, level: float) -> Interval:
    """The square of a difference of gains, relative to the gain."""
    ends = apart.interval(level).scaled(1 / size)
    low = 0.0 if ends.low <= 0 <= ends.high else min(ends.low**2, ends.high**2)
    return Interval(ends.estimate**2, low, max(ends.low**2, ends.high**2))
