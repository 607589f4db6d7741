"""C6: at initialization, path by path against a limit of many more particles than the widest network, and in
law against the closed forms of both kernels.
"""

from collections.abc import Iterator

from nfd_jax.verdicts._constants import CONSTANT, needs_grid
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._errors import FLAGS, MISSES, pair
from nfd_jax.verdicts._family import Fits, fit_laws
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._row import Row
from nfd_jax.verdicts._rows import Found, constant_of, guarded, slope_row
from nfd_jax.verdicts._sample import NotMeasured
from nfd_jax.verdicts._slopes import TOLERANCE, swapped

REFERENCE = "compare/reference_error_ms"
RAYS = {
    "": CONSTANT,
    " along n ∝ L": {"constant": 1.0, "L/n": 1.0, "n/L": 1.0},
    " along n ∝ L²": {"constant": 1.0, "n/L": 1.0},
    " along n ∝ √L": {"constant": 1.0, "L/n": 1.0},
}


INITIAL = {
    "feature kernel bias": ("law/initial_feature_kernel_bias", "h"),
    "gradient kernel bias": ("law/initial_gradient_kernel_bias", "b"),
}


def initial_rows(context: Context) -> Iterator[Found]:
    """C6 in law: kernels of step 0 against E[φφ'] and G, which are known without solving a limit."""
    for name, (path, quantity) in INITIAL.items():
        select = {"backward_weights": FLAGS[0]}
        text = f"bias of the {name.removesuffix(' bias')} at initialization against its closed form"
        yield from _ray_rows(context, "law", name, path, select, quantity, text, verb="is")


def _ray_rows(
    context: Context,
    reading: str,
    name: str,
    path: str,
    select: dict,
    quantity: str,
    text: str,
    *,
    verb: str,
) -> Iterator[Found]:
    """What is left over the grid and along each ray."""
    for suffix, weights in RAYS.items():
        words = f"{text}{suffix}"
        base = Row(f"C6 {reading} {name}{suffix}", "C6", reading, quantity, "both", "constant", text=words)

        def constant(base: Row, weights: dict = weights, what: str = f"{words} {verb}") -> Found:
            asked = {"key": (path, quantity), "what": what, "rays": True, "weights": weights}
            return constant_of(base, context, path, select, training=False, sizes=3, **asked)

        yield guarded(base, constant)


def reference_rows(context: Context, reading: str) -> Iterator[Found]:
    """C6: at initialization, against a limit of many more particles, with the columns L/n and n/L in the
    fit.
    """
    claimed = 2.0 if reading == "rms" else 1.0
    for quantity in "hbf":
        select = {**pair(*FLAGS), "quantity": quantity}
        text = f"distance to the reference limit in {quantity}"
        yield from _ray_rows(context, reading, quantity, REFERENCE, select, quantity, text, verb="tends to")
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
                    control=_reference_misses(context, axis, quantity, claimed),
                    fit=lambda: context.fits(("reference", axis, quantity), sample, law, positive=True),
                )

            yield guarded(base, rate)


def _reference_misses(context: Context, axis: str, quantity: str, claimed: float) -> str:
    """`controls_miss` along the axis: the control is independent networks against the reference of their own
    flag.
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
    except NotMeasured as lacking:
        return f"no control in this run, {lacking}"
    attained = fits.described and fits.reaches(claimed - TOLERANCE, context.level)
    return "" if attained else MISSES
