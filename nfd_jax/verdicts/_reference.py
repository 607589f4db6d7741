"""C6: at initialization, against a limit of many more particles than the widest network."""

from collections.abc import Iterator

from nfd_jax.verdicts._constants import CONSTANT, needs_grid
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._errors import FLAGS, pair
from nfd_jax.verdicts._family import Fits, fit_laws
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._rows import Found, constant_row, guarded, slope_row
from nfd_jax.verdicts._sample import NotMeasured
from nfd_jax.verdicts._slopes import TOLERANCE, swapped

REFERENCE = "compare/reference_error_ms"
RAYS = {
    "": CONSTANT,
    " along n ∝ L": {"constant": 1.0, "L/n": 1.0, "n/L": 1.0},
    " along n ∝ L²": {"constant": 1.0, "n/L": 1.0},
    " along n ∝ √L": {"constant": 1.0, "L/n": 1.0},
}


def reference_rows(context: Context, reading: str) -> Iterator[Found]:
    """C6: at initialization, against a limit of many more particles, with the columns L/n and n/L in the
    fit.
    """
    claimed = 2.0 if reading == "rms" else 1.0
    for quantity in "hbf":
        select = {**pair(*FLAGS), "quantity": quantity}
        for suffix, weights in RAYS.items():
            text = f"distance to the reference limit in {quantity}{suffix}"
            what = f"{text} tends to"
            base = Row(
                f"C6 {reading} {quantity}{suffix}", "C6", reading, quantity, "both", "constant", text=text
            )

            def constant(
                base: Row,
                select: dict = select,
                quantity: str = quantity,
                weights: dict = weights,
                what: str = what,
            ) -> Found:
                sample = context.sample(REFERENCE, select, quantity, False)
                needs_grid(sample, depths=3, widths=3)
                return constant_row(
                    base,
                    context,
                    sample,
                    quantity,
                    context.law(REFERENCE),
                    key=(REFERENCE, quantity),
                    what=what,
                    rays=True,
                    weights=weights,
                    positive=False,
                )

            yield guarded(base, constant)

        for axis in ("width", "depth"):
            base = Row(
                f"C6 {reading} {quantity} against {axis}",
                "C6",
                reading,
                quantity,
                axis,
                "slope",
                text=f"distance to the reference limit in {quantity} against {axis}",
            )

            def rate(base: Row, axis: str = axis, select: dict = select, quantity: str = quantity) -> Found:
                sample = context.sample(REFERENCE, select, quantity, False)
                needs_grid(sample, depths=3, widths=3)
                law = context.law(REFERENCE)
                if axis == "width":
                    sample, law = swapped(sample), Law()
                return slope_row(
                    base,
                    context,
                    sample,
                    claimed=claimed,
                    what=f"distance to the reference limit in {quantity}",
                    attains=_reference_attains(context, axis, quantity, claimed),
                    fit=lambda: context.fits(("reference", axis, quantity), sample, law, positive=True),
                )

            yield guarded(base, rate)


def _reference_attains(context: Context, axis: str, quantity: str, claimed: float) -> bool:
    """Whether the control, independent networks against the reference of their own flag, attains the rate
    along the axis.
    """

    def make() -> Fits:
        control = context.sample(
            REFERENCE, {**pair(FLAGS[1], FLAGS[1]), "quantity": quantity}, quantity, False
        )
        needs_grid(control, depths=3, widths=3)
        turned, law = (swapped(control), Law()) if axis == "width" else (control, context.law(REFERENCE))
        return fit_laws(turned.values, turned.widths, turned.depths, law, positive=True)

    try:
        fits = context.once(("reference control", axis, quantity), make)
    except NotMeasured:
        return False
    return fits.described and fits.reaches(claimed - TOLERANCE, context.level)
