"""A row of the table of rates: one number, its interval, and what it says of one claim under one reading."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfd_jax.verdicts._seeds import UNKNOWN, Interval


@dataclass(frozen=True)
class Row:
    """One quantity and what it says of a claim.

    test: constant (what is left as n, L → ∞), slope (of what is left beside that constant), or value (a
    number that is compared with a closed form or a threshold). verdict: remains, vanishes, attained, not
    attained, above, below, or undecided, not detectable, not measured. `decides` is False for rows of
    comparison. width, depth and step are 0, 0 and -1 where the row is about no single one. seeds_needed is
    inf where seeds alone decide nothing.
    """

    name: str
    claim: str
    reading: str
    quantity: str
    axis: str
    test: str
    verdict: str = "not measured"
    reason: str = ""
    text: str = ""
    decides: bool = True
    slope: Interval = UNKNOWN
    constant: Interval = UNKNOWN
    effect: Interval = UNKNOWN
    signal: float = np.nan
    smallest_effect_seen: float = np.nan
    seeds: int = 0
    seeds_needed: float = np.inf
    width: int = 0
    depth: int = 0
    step: int = -1
    learning_rate: float = np.nan


_NUMBERS = {
    "slope": ("slope of log quantity on log axis", "1"),
    "constant": ("what is left as n and L grow without bound, mean square", "1"),
    "effect": ("constant over what learning moves", "1"),
}
_LABELS = {
    "claim": ("claim the row bears on", str),
    "reading": ("mean square, root mean square or law", str),
    "quantity": ("what is measured", str),
    "axis": ("axis along which the row looks", str),
    "test": ("constant, slope or value", str),
    "width": ("width n, 0 where the row rests on several", int),
    "depth": ("depth L, 0 where the row rests on several", int),
    "step": ("SGD step, -1 where the row rests on several", int),
    "learning_rate": ("learning rate", float),
    "decides": ("whether the claim's verdict rests on the row", bool),
}


def to_dataset(rows: Sequence[Row]) -> xr.Dataset:
    """The `/rates` group."""

    def column(name: str, dtype: type) -> np.ndarray:
        return np.array([getattr(row, name) for row in rows], dtype=dtype)

    data: dict[str, tuple] = {}
    for name, (meaning, units) in _NUMBERS.items():
        for suffix, part in (("", "estimate"), ("_low", "low"), ("_high", "high")):
            values = np.array([getattr(getattr(row, name), part) for row in rows], float)
            end = {"": "", "_low": ", lower end", "_high": ", upper end"}[suffix]
            data[name + suffix] = ("row", values, {"long_name": meaning + end, "units": units})
    for name, meaning in (
        ("signal", "what learning moves, mean square"),
        ("smallest_effect_seen", "smallest effect this run would have called remaining four times in five"),
        ("seeds", "seeds the row rests on"),
        ("seeds_needed", "seeds that would decide the row, were its estimate the truth"),
    ):
        data[name] = ("row", column(name, float), {"long_name": meaning, "units": "1"})
    for name, meaning in (
        ("verdict", "what the row says"),
        ("reason", "why, or what would settle it"),
        ("text", "the row in words"),
    ):
        data[name] = ("row", column(name, str), {"long_name": meaning, "units": "1"})
    coords: dict[str, tuple] = {"row": ("row", column("name", str), {"long_name": "row"})}
    coords |= {
        name: ("row", column(name, kind), {"long_name": text}) for name, (text, kind) in _LABELS.items()
    }
    return xr.Dataset(data, coords)
