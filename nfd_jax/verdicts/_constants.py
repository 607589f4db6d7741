"""What is left of a quantity as n → ∞ and then L → ∞, against a margin: remains, vanishes, undecided, not
detectable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from nfd_jax.verdicts._family import Fits
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._sample import MOST_DIVERGED, WANTED, NotMeasured, Sample
from nfd_jax.verdicts._seeds import FEWEST_FOR_OUTPUTS, FEWEST_SEEDS, LEVEL, UNKNOWN, Interval, percent

POWER = 0.8
MOST_SEEDS = 10_000
CONSTANT = {"constant": 1.0}


@dataclass(frozen=True)
class Constant:
    """A constant, its share of the signal, and the verdict. `at` is the share's interval at other levels, or
    None.
    """

    verdict: str
    reason: str
    constant: Interval = UNKNOWN
    effect: Interval = UNKNOWN
    signal: float = np.nan
    smallest: float = np.nan
    seeds_needed: float = np.inf
    fits: Fits | None = None
    weights: dict[str, float] | None = None
    sample: Sample | None = None

    def at(self, level: float, *, relative: bool = True) -> Interval:
        """The effect (or the constant) at another level; of data below rounding the one there is."""
        if self.fits is None:
            return self.effect if relative else self.constant
        return self.fits.interval(self.weights, self.sample.signal if relative else None, level)


def enough(sample: Sample, quantity: str) -> str:
    """Why the sample can decide nothing; empty where it can."""
    return enough_seeds(sample.seeds, sample.diverged, quantity)


def enough_seeds(seeds: int, diverged: float, quantity: str) -> str:
    """As `enough`, of so many seeds and the largest share of a cell's that diverged."""
    if diverged > MOST_DIVERGED:
        return (
            f"{diverged:.0%} of a cell's seeds diverged, more than {MOST_DIVERGED:.0%}: add smaller "
            "learning rates"
        )
    least = FEWEST_FOR_OUTPUTS if quantity == "f" else FEWEST_SEEDS
    if seeds < least:
        count = "1 seed decides" if seeds == 1 else f"{seeds} seeds decide"
        what = " about outputs" if quantity == "f" else ""
        return f"{count} nothing{what}: add seeds, at least {least}"
    return ""


def needs_grid(sample: Sample, depths: int = 2, widths: int = 2) -> None:
    """NotMeasured where the grid carries no extrapolation."""
    words = {1: "one", 2: "two", 3: "three"}
    for name, axis, least in (("width", sample.widths, widths), ("depth", sample.depths, depths)):
        found = len(set(axis.tolist()))
        if found < least:
            raise NotMeasured(
                f"add {name}s: the grid has {words.get(found, found)}, at least {words[least]} are needed"
            )


def judge_constant(
    sample: Sample,
    quantity: str,
    law: Law,
    *,
    margin: float,
    floor: float,
    level: float = LEVEL,
    weights: dict[str, float] | None = None,
    fit: Callable[[], Fits],
) -> Constant:
    """The constant of a sample against margin times its signal, both mean squares; floor is what rounding
    makes, fit() the laws of the sample, of whose coefficients `weights` are summed.
    """
    if sample.signal is None:
        raise NotMeasured(
            f"add {WANTED[quantity]} of finite networks: margins are shares of what learning moves"
        )
    weights = weights or CONSTANT
    size = float(sample.signal.mean())
    means = np.abs(sample.values.mean(0)).max(1)
    if not size > floor:
        return Constant("not detectable", "learning moves nothing beyond rounding", signal=size)
    scale = means**2 if law.squares else means
    if np.all(scale <= floor):
        if margin * size <= floor:
            return Constant("not detectable", "the margin is below rounding", signal=size)
        zero = Interval(0.0, 0.0, floor)
        known = Constant(
            "vanishes", "zero to rounding at every point", zero, zero.scaled(1 / size), size, margin, 0.0
        )
        lack = enough(sample, quantity)
        return Constant("undecided", lack, zero, zero.scaled(1 / size), size) if lack else known
    fits = fit()
    constant = fits.interval(weights, None, level)
    effect = fits.interval(weights, sample.signal, level)
    half = (effect.high - effect.low) / 2
    ratio = special.ndtri(POWER) / special.ndtri(1 - LEVEL / 2)
    smallest = margin + half * (1 + ratio) if np.isfinite(half) else np.inf
    seeds = _seeds_needed(effect, margin, sample.seeds)

    def result(verdict: str, reason: str) -> Constant:
        return Constant(verdict, reason, constant, effect, size, smallest, seeds, fits, weights, sample)

    if lack := enough(sample, quantity):
        return result("undecided", lack)
    if not fits.described:
        return result("undecided", "no law of the family describes its points: add widths and depths")
    said, limit = f"{effect.share()} of what learning moves in rms", f"margin {percent(margin)}"
    if effect.low > margin:
        return result("remains", f"{said}, {limit}")
    if effect.high < margin:
        return result("vanishes", f"{said}, {limit}")
    more = (
        f"about {seeds:.0f} seeds would settle it"
        if np.isfinite(seeds)
        else "seeds alone will not settle it: add widths and depths"
    )
    if len(set(sample.widths.tolist())) == 2:
        more = "two widths do not tell how it falls with n: add widths"
    return result("undecided", f"{said} reaches both sides of the {limit}; {more}")


def _seeds_needed(effect: Interval, margin: float, seeds: int) -> float:
    """Seeds at which the interval would lie on one side of the margin, were the estimate the truth; inf where
    unknown.
    """
    gap, side = abs(effect.estimate - margin), effect.high - effect.estimate
    if effect.estimate > margin:
        side = effect.estimate - effect.low
    if seeds < FEWEST_FOR_OUTPUTS or not np.isfinite(side) or not gap > 0:
        return np.inf
    needed = np.ceil(seeds * max(1.0, (side / gap) ** 2))
    return float(needed) if needed <= MOST_SEEDS else np.inf
