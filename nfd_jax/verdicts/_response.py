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
from nfd_jax.verdicts._seeds import Interval, Spread

GAIN, PREDICTED = "response/first_step_gain", "response/first_step_gain_predicted"


def response_rows(context: Context) -> Iterator[Found]:
    """Each network's gain against the closed form of its own system (for comparison), and the reused
    network's against that of the independent system, which decides: a miss of ε in mean square is √ε of the
    gain.
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
    expected = predicted.values[:, 0].mean(1)
    measured = gain.values[:, 0].mean(1)
    if len(expected) != len(measured):
        expected = np.full(len(measured), expected.mean())
    size = float(measured.mean())
    if not abs(size) > 0:
        raise NotMeasured("add a problem whose first step changes its outputs")
    found = Spread.of(measured - expected)
    miss = found.interval(context.level)
    relative = miss.scaled(1 / size)
    low = 0.0 if relative.low <= 0 <= relative.high else min(relative.low**2, relative.high**2)
    effect = Interval(relative.estimate**2, low, max(relative.low**2, relative.high**2))
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
    reason = f"{apart}, {relative.text('.1%')} of the gain"
    if lack := enough(gain, "f"):
        return Found(replace(row, verdict="undecided", reason=lack), "undecided")
    if effect.low > context.margin:
        return Found(
            replace(row, verdict="remains", reason=reason),
            "fails",
            lambda level: _lower(found, size, level) > context.margin,
        )
    if effect.high < context.margin:
        return Found(replace(row, verdict="vanishes", reason=reason), "holds")
    return Found(replace(row, verdict="undecided", reason=reason), "undecided")


def _lower(found: Spread, size: float, level: float) -> float:
    ends = found.interval(level)
    return 0.0 if ends.low <= 0 <= ends.high else min(ends.low**2, ends.high**2) / size**2
