"""Numbers in words and figures: one format everywhere, with − for minus, singular and plural right."""

import math
from typing import NamedTuple

from nfd_jax.verdicts import decimals


class Estimate(NamedTuple):
    """A number with its 95 % interval, NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def number(value: float) -> str:
    """Three significant digits; powers of ten outside 0.001 … 10 000."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{float(f'{value:.3g}'):g}".replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A slope, with − for minus."""
    return "–" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(value: float) -> str:
    """A share, with the digits that its size is worth."""
    if not math.isfinite(value):
        return "–"
    shown = 100 * value
    if shown == 0:
        return "0 %"
    digits = 0 if abs(shown) >= 9.95 else 1 if abs(shown) >= 0.995 else 2
    return f"{shown:.{digits}f} %".replace("-", "−")


def percents(found: Estimate) -> str:
    """A share with its interval, the unit said once."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return percent(found.value)
    low, high = (percent(end).removesuffix(" %") for end in (found.low, found.high))
    return f"{percent(found.value)} [{low}, {high}]"


def slope(found: Estimate) -> str:
    """A slope with its interval."""
    if not math.isfinite(found.low):
        return signed(found.value)
    digits = decimals(found.low, found.high)
    value, low, high = (signed(x, digits) for x in found)
    return f"{value} [{low}, {high}]"


def count(n: int, one: str, many: str | None = None) -> str:
    """ "1 seed", "8 seeds"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def listed(values) -> str:
    """Values in a row, numbers short."""
    return ", ".join(f"{value:g}" if isinstance(value, int | float) else str(value) for value in values)
