"""C4: distances of networks to both limits on the same noise; those between equal flags are the controls."""

from collections.abc import Iterator
from dataclasses import replace

from nfd_jax.verdicts._constants import needs_grid
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._family import Fits
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._rows import Found, constant_row, guarded, slope_row
from nfd_jax.verdicts._sample import NotMeasured, Sample
from nfd_jax.verdicts._slopes import TOLERANCE

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


MISSES = "the control of this run does not attain the rate either"


def controls_miss(context: Context, quantity: str, claimed: float) -> str:
    """Why the rate cannot be expected on this grid, as far as the controls tell (each network against the
    limit of its own flag); empty where both attain it."""

    def one(flag: str) -> bool:
        _, fits = error_fits(context, {**pair(flag, flag), "quantity": quantity}, quantity)
        return fits.described and fits.reaches(claimed - TOLERANCE, context.level)

    def both() -> str:
        try:
            return "" if all(one(flag) for flag in FLAGS) else MISSES
        except NotMeasured as lacking:
            return f"no control in this run, {lacking}"

    return context.once(("control", quantity, claimed), both)


def error_rows(context: Context, reading: str) -> Iterator[Found]:
    """C4 from distances to the limits, for every pair of flags: the paper's pair decides."""
    claimed = 2.0 if reading == "rms" else 1.0
    for network, limit in PAIRS:
        decides = (network, limit) == FLAGS
        for quantity in "hbf":
            select = {**pair(network, limit), "quantity": quantity}
            what = f"the {limit} limit misses the {network} network's {quantity} by"
            distance = f"distance of the {network} network to the {limit} limit in {quantity}"
            base = Row(
                f"C4 {reading} {network} → {limit} {quantity}",
                "C4",
                reading,
                quantity,
                "both",
                "constant",
                text=distance,
                decides=decides,
            )

            def constant(
                base: Row, select: dict = select, quantity: str = quantity, what: str = what
            ) -> Found:
                sample = context.sample(ERROR, select, quantity, True)
                needs_grid(sample)
                return constant_row(
                    base,
                    context,
                    sample,
                    quantity,
                    context.law(ERROR),
                    key=(ERROR, tuple(select.items())),
                    what=what,
                )

            found = guarded(base, constant)
            yield found

            def rate(
                base: Row, select: dict = select, quantity: str = quantity, what: str = distance
            ) -> Found:
                sample = context.sample(ERROR, select, quantity, True)
                needs_grid(sample)
                return slope_row(
                    base,
                    context,
                    sample,
                    claimed=claimed,
                    fit=lambda: error_fits(context, select, quantity)[1],
                    control=controls_miss(context, quantity, claimed),
                    what=what,
                )

            against = {"name": f"{base.name} against depth", "text": f"{distance} against depth"}
            yield guarded(replace(base, axis="depth", test="slope", **against), rate)
