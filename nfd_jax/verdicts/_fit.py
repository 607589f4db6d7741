"""The law of a quantity over a width × depth grid, and what is left of it as both grow.

    E Q(n, L) = d + a/n + b g_β(L) + c g_β(L)/n

by weighted least squares of the means over seeds, with as many terms as the grid carries. At a fixed exponent
every coefficient is linear in the data, so it has one value a seed, and its interval is that of a mean. The
exponent is free within [0.3, 2.5]. Two intervals bound d, and both hold: that of the fit linearized at the
best exponent, and the union over all exponents which the data do not refuse of those at fixed exponents.
Their intersection is taken: the first is sharp where the exponent is known, the second bounded where it is
not.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import special

from nfd_jax.verdicts._laws import Law, by_depth, terms
from nfd_jax.verdicts._seeds import LEVEL, Array, Interval, student
from nfd_jax.verdicts._targets import Target

REFUSED = 0.01
"""Level at which an exponent is refused."""
MISFIT = 0.003
"""Level at which a fit is said not to describe its points: a run tests some sixty."""
CLOSE = 0.01
"""A law this close to every point, relative to it, describes them even where noise would tell it from the
truth; what it leaves then widens intervals.
"""
EXACT = 1e-9
"""Relative spread over seeds below which data have no noise to speak of."""


def weights_of(samples: Array, widths: Array, depths: Array) -> Array:
    """(points,) inverse variances of samples (seeds, points, channels), smoothed as a power law in n and L.

    The variance of a single point, known from a few seeds, is small by chance at some points, and a fit would
    go through those.
    """
    variance = samples.var(0, ddof=1).sum(-1) if len(samples) > 1 else np.zeros(len(widths))
    if not np.all(variance > 0):
        variance = (samples.mean(0) ** 2).sum(-1)
    if not np.all(variance > 0):
        return np.ones(len(widths))
    # Means that fall by orders of magnitude still have a say: no point weighs over a million times another.
    variance = np.maximum(variance, 1e-6 * variance.max())
    columns = np.stack([np.ones(len(widths)), np.log(widths), np.log(depths)], 1)
    smooth = np.exp(columns @ np.linalg.lstsq(columns, np.log(variance), rcond=1e-9)[0])
    return smooth.min() / smooth


@dataclass(frozen=True)
class GridFit:
    """A fitted law. `names` are of the columns; operators (K, columns, points) take values to coefficients at
    every exponent tried, `linearized` (columns, points) at the best one with the exponent free; `drift` (K,
    points) gives by how much the exponent should change, times its coefficient. `p` is the test of fit's, NaN
    where it can't be tested.
    """

    samples: Array
    names: tuple[str, ...]
    exponents: Array
    best: int
    operators: Array
    linearized: Array | None
    drift: Array
    residual: Array
    p: float
    exact: bool
    squares: bool = False
    impossible: bool = False

    @property
    def seeds(self) -> int:
        return len(self.samples)

    @property
    def described(self) -> bool:
        """Whether the law describes its points, to their noise or closely: what it doesn't, decides
        nothing.
        """
        return not self.impossible and (self.fits or self._misfit() <= CLOSE)

    @property
    def fits(self) -> bool:
        """Whether the points do not differ from the law beyond their noise."""
        return not self.exact and not self.p < MISFIT

    def _misfit(self) -> float:
        """The largest residual relative to its point."""
        off, size = np.abs(self.residual).max(1), np.abs(self.samples.mean(0)).max(1)
        return float(np.divide(off, size, out=np.where(off > 0, np.inf, 0.0), where=size > 0).max())

    def target(self, weights: dict[str, float]) -> "Target":
        """The sum of these multiples of coefficients, as one value a seed."""
        pick = np.array([weights.get(name, 0.0) for name in self.names])
        slack = 3 * float(np.abs(self.residual).max()) if not self.fits else 0.0

        def values(operator: Array) -> Array:
            return np.einsum("p,spc->sc", pick @ operator, self.samples)

        inside = np.array([self._accepts(k, REFUSED) for k in range(len(self.exponents))])
        inside[self.best] = True
        # The truth may lie between two exponents tried: a neighbour of what is not refused counts too.
        accepted = np.flatnonzero(inside | np.append(inside[1:], False) | np.append(False, inside[:-1]))
        free = None if self.linearized is None else values(self.linearized)
        return Target(
            values(self.operators[self.best]),
            free,
            [values(self.operators[k]) for k in accepted],
            slack,
            self.squares,
        )

    @cached_property
    def drifts(self) -> tuple[Array, Array]:
        """By how much each exponent should change, times its coefficient, along the channels' mean; standard
        errors.
        """
        found = np.einsum("kp,spc->ksc", self.drift, self.samples)
        scalar = found @ self.samples.mean((0, 1)) if found.shape[2] > 1 else found[..., 0]
        error = scalar.std(1, ddof=1) / np.sqrt(self.seeds) if self.seeds > 1 else np.full(len(found), np.inf)
        return scalar.mean(1), error

    def _accepts(self, k: int, level: float) -> bool:
        if not np.any(self.drift[k]):
            return True
        mean, error = self.drifts[0][k], self.drifts[1][k]
        return bool(abs(mean) <= student(self.seeds, level) * error)

    def exponent(self, level: float = LEVEL) -> Interval:
        """The exponent of the depth law, with the exponents that the data do not refuse; infinite ends at the
        range's.
        """
        if not np.any(self.drift) or self.seeds < 2:
            return Interval(float(self.exponents[self.best]), -np.inf, np.inf)
        quantile = student(self.seeds, level)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = self.drifts[0] / self.drifts[1]
        fine = np.arange(self.exponents[0], self.exponents[-1] + 1e-9, 0.002)
        # Without any noise t is infinite but where it changes its sign.
        bent = np.interp(fine, self.exponents, np.clip(np.nan_to_num(t), -1e6, 1e6))
        inside = (
            fine[np.abs(bent) <= quantile]
            if np.abs(bent).min() <= quantile
            else fine[[np.argmin(np.abs(bent))]]
        )
        low = inside[0] if inside[0] > fine[0] else -np.inf
        high = inside[-1] if inside[-1] < fine[-1] else np.inf
        if not self.fits:
            low, high = low - 0.05, high + 0.05
        estimate = (
            fine[np.argmin(np.abs(bent))]
            if np.isfinite(low) or np.isfinite(high)
            else self.exponents[self.best]
        )
        return Interval(float(estimate), float(low), float(high))


def fit_grid(
    samples: Array,
    widths: Array,
    depths: Array,
    law: Law,
    *,
    constant: bool = True,
    rays: bool = False,
    curved: bool = False,
    positive: bool = False,
) -> GridFit:
    """Fits samples (seeds, points, channels) at widths and depths (points,).

    positive says that the constant cannot be negative: a law whose constant surely is, does not describe its
    points. curved adds the terms of next order in 1/n and in depth.
    """
    root = np.sqrt(weights_of(samples, widths, depths))
    wide = law.over_width(widths)
    fixed = terms(wide, depths, constant=constant, curved=curved, rays=rays)
    betas, columns, changes = law.candidates(depths)
    if len(set(depths)) < 2:
        betas, columns, changes = betas[:1], columns[:1], changes[:1]
    parts = [fixed | by_depth(wide, column, depths, curved=curved) for column in columns]
    names, designs = tuple(parts[0]), [np.stack(list(part.values()), 1) for part in parts]
    design = np.stack(designs)
    operators = np.linalg.pinv(design * root[:, None], rcond=1e-10) * root
    mean = samples.mean(0)
    residuals = mean - design @ (operators @ mean)
    best = int(np.argmin(((residuals * root[:, None]) ** 2).sum((1, 2))))
    # Two terms in depth beside the constant leave nothing to find the exponent from below five depths.
    free = len(set(depths)) > (4 if "g²" in names else 2) and len(widths) > design.shape[2]
    drift, linearized = np.zeros((len(betas), len(widths))), None
    if free:
        wider = np.concatenate([design, changes[..., None]], -1)
        widened = np.linalg.pinv(wider * root[:, None], rcond=1e-10) * root
        drift, linearized, design_best = widened[:, -1], widened[best, :-1], wider[best]
    else:
        design_best = design[best]
    residual = mean - design_best @ (np.linalg.pinv(design_best * root[:, None], rcond=1e-10) * root @ mean)
    scale = np.abs(mean).max()
    exact = bool(len(samples) > 1 and samples.std(0).max() <= EXACT * scale)
    p = np.nan if exact else _test_of_fit(samples, widths, depths, design_best, columns[best], root)
    fit = GridFit(samples, names, betas, best, operators, linearized, drift, residual, p, exact, law.squares)
    if positive and constant:
        below = fit.target({"constant": 1.0}).interval(MISFIT).high < -CLOSE * np.abs(mean).max(1).min()
        fit = replace(fit, impossible=bool(below))
    return fit


def _test_of_fit(
    samples: Array, widths: Array, depths: Array, design: Array, column: Array, root: Array
) -> float:
    """p of the terms next in order being absent: Hotelling's T² of the residuals along them, seeds as the
    sample.
    """
    seeds, wide, deep = len(samples), widths.max() / widths, np.log(depths / depths.max())
    most = min(4, (seeds - 1) // 3, len(widths) - design.shape[1])
    if most < 1:
        return np.nan
    nexts = [
        wide**2,
        column * deep**2,
        column * wide**2,
        column * deep * wide,
        np.sqrt(wide),
        wide**3,
        column * deep**3,
    ]
    basis = np.linalg.qr(design * root[:, None])[0]
    directions: list[Array] = []
    for extra in nexts:
        vector = extra * root
        size = np.linalg.norm(vector)
        for _ in range(2):
            vector = vector - basis @ (basis.T @ vector)
        length = np.linalg.norm(vector)
        if length > 1e-4 * size:
            directions.append(vector / length)
            basis = np.concatenate([basis, directions[-1][:, None]], 1)
        if len(directions) == most:
            break
    if not directions:
        return np.nan
    scalar = samples[..., 0]
    if samples.shape[2] > 1:
        pattern = samples.mean((0, 1))
        scalar = samples @ (pattern / max(np.linalg.norm(pattern), 1e-300))
    scores = (scalar * root) @ np.stack(directions, 1)
    mean, covariance = scores.mean(0), np.cov(scores.T).reshape(len(directions), -1)
    covariance = covariance + 1e-14 * np.eye(len(directions)) * (scalar * root).var()
    if not np.trace(covariance) > 0:
        return np.nan
    count = len(directions)
    statistic = seeds * mean @ np.linalg.solve(covariance, mean) * (seeds - count) / (count * (seeds - 1))
    return float(special.fdtrc(count, seeds - count, statistic))
