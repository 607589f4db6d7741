"""How a quantity may fall with depth, and the columns of a fit over a grid of widths and depths.

A power law L^-β; against a limit of M Euler steps on the same noise its law of coarsening m = M/L increments,
which tends to it as M grows:

    strong     (1/m) Σ_{j<m} (j/M)^β        mean squares whose layers' errors are independent
    coherent   L^-β - M^-β                 errors that add up, and signed biases

Low orders bend curves at depths in reach as L + L₀ for L does: L₀ is 0 or the shallowest depth.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nfd_jax.verdicts._seeds import Array

BETAS = tuple(np.round(np.arange(0.3, 2.55, 0.1), 10))
"""Exponents tried: a slower decay can't be told from a constant over any range of depths run."""


@dataclass(frozen=True)
class Law:
    """A family of decays, one per exponent; `reference` is the limit's M or None, `signed` for differences
    of either sign, `squares` where the square of what is fitted is asked for: biases. Over widths a quantity
    falls like 1/(n + `width_shift`) to the `width_power`."""

    reference: int | None = None
    signed: bool = False
    squares: bool = False
    shift: float = 0.0
    width_shift: float = 0.0
    width_power: float = 1.0
    exponents: tuple[float, ...] = BETAS

    def column(self, depths: Array, beta: float) -> Array:
        """Relative to its value at the deepest, or where that is the limit itself at the shallowest."""
        M, x = self.reference, depths + self.shift
        if M is None or depths.max() > M or depths.min() == M:
            return (x / x.max()) ** -beta
        if self.signed or self.shift or np.any(M % depths):
            values = x**-beta - (M + self.shift) ** -beta
            return values / values[np.argmin(depths) if depths.max() == M else np.argmax(depths)]
        return _coarsened(tuple(depths), beta, M)

    def over_width(self, widths: Array) -> Array:
        """Relative to its value at the largest."""
        return ((widths.max() + self.width_shift) / (widths + self.width_shift)) ** self.width_power

    def candidates(self, depths: Array) -> tuple[Array, Array, Array]:
        """(K,) exponents, their columns (K, points), and the derivatives of these by the exponent."""
        step = 0.02
        columns = np.stack([self.column(depths, beta) for beta in self.exponents])
        changed = np.stack([self.column(depths, beta + step) for beta in self.exponents])
        return np.array(self.exponents), columns, (changed - columns) / step


@lru_cache(maxsize=4096)
def _coarsened(depths: tuple[float, ...], beta: float, reference: int) -> Array:
    means = {L: np.mean((np.arange(reference // L) / reference) ** beta) for L in set(depths)}
    # A network of M layers is the limit: nothing to compare with there.
    largest = means[max(depths)] or means[min(depths)]
    return np.array([means[L] for L in depths]) / largest


def terms(
    wide: Array, depths: Array, *, constant: bool = True, curved: bool = False, rays: bool = False
) -> dict[str, Array]:
    """Columns (points,) that do not know the exponent of depth, each 1 at the largest width and depth: as
    many as fit the grid. `wide` is a law's `over_width`.
    """
    deep = depths / depths.max()
    found = {"constant": np.ones(len(wide))} if constant else {}
    count = len(set(wide))
    if count > 1:
        found["1/n"] = wide
    if curved and count > 3:
        found["1/n²"] = wide**2
    if rays:
        found |= {"L/n": wide * deep, "n/L": 1 / (wide * deep)}
    return found


def by_depth(wide: Array, column: Array, depths: Array, *, curved: bool = False) -> dict[str, Array]:
    """Columns that fall with depth: the law, the law over n, and the law's square where the grid carries
    them.
    """
    count = len(set(depths))
    found = {"g": column} if count > 1 else {}
    if count > 1 and len(set(wide)) > 1 and len(wide) > 4:
        found["g/n"] = column * wide
    if curved and count > 3:
        found["g²"] = column**2
    return found
