"""Power laws, plateaus and the coarsening law fitted to mean squares, with bootstrap intervals over seeds.

Samples are (seeds, points): one value of a quantity per seed at every width or depth x. Seeds share their noise across
x, so whole seeds are resampled. The laws are fitted to the logarithm of the mean over seeds by weighted least squares:

    q ∝ x^slope                      `fit_slope`
    q = a x^-alpha + c, c ≥ 0        `fit_plateau`
    q ∝ (1/m) Σ_{j<m} (j/M)^alpha    `fit_coarsening`: depth L = M/m against a reference of M steps on the same noise
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]

DECAYS = (0.3, 4.0)  # alpha of `fit_plateau`: a slower decay can't be told from a constant over any range of depths run


@dataclass(frozen=True)
class Fit:
    """An estimate and its 95 % interval: infinite ends from a single seed, NaN where nothing was fitted."""

    estimate: float
    low: float
    high: float

    def text(self, digits: str = ".3g") -> str:
        return f"{self.estimate:{digits}} [{self.low:{digits}}, {self.high:{digits}}]"


UNKNOWN = Fit(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Plateau:
    """a x^-alpha + c: alpha, c, and c as a share of the fitted value at the largest x (0: pure decay, 1: flat)."""

    alpha: Fit
    level: Fit
    share: Fit


@lru_cache(maxsize=32)
def _resamples(seeds: int, count: int) -> Array:
    """(count, seeds) bootstrap weights, the same at every call: the same data give the same verdict."""
    return np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds


def resampled_means(samples: Array, n_boot: int) -> Array:
    """Means over seeds, (1 + seeds + n_boot, points): of all, leaving each out, of resamples; of one seed (1, points).

    The input of an estimator whose output goes to `interval`.
    """
    seeds, mean = len(samples), samples.mean(0, keepdims=True)
    if seeds == 1:
        return mean
    left_out = mean + (mean - samples) / (seeds - 1)
    # Extrapolated samples can have a resampled mean that isn't positive, and so no logarithm.
    resampled = np.concatenate([left_out, _resamples(seeds, n_boot) @ samples])
    return np.concatenate([mean, np.maximum(resampled, 1e-3 * mean)])


def interval(values: Array, seeds: int, low: float = -np.inf, high: float = np.inf) -> Fit:
    """The 95 % interval, within [low, high], of the values of an estimator at `resampled_means`.

    A bootstrap percentile interval, widened about the estimate by Student's t over the normal quantile, and by the
    jackknife's standard error over the bootstrap's: resamples of S seeds spread too little, by √((S-1)/S) and more.
    """
    estimate, left_out, boots = float(values[0]), values[1 : 1 + seeds], values[1 + seeds :]
    if seeds == 1:
        return Fit(estimate, low, high)
    spread, jackknife = boots.std(), left_out.std() * np.sqrt(seeds - 1)
    widen = np.clip(jackknife / spread if spread > 0 else 0.0, np.sqrt(seeds / (seeds - 1)), 2.0)
    widen *= stats.t.ppf(0.975, seeds - 1) / stats.norm.ppf(0.975)
    below, above = widen * (np.quantile(boots, (0.025, 0.975)) - estimate)
    return Fit(estimate, float(max(low, estimate + min(below, 0.0))), float(min(high, estimate + max(above, 0.0))))


def relative_error(samples: Array) -> Array:
    """(points,) standard error of the mean over the mean; NaN for one seed."""
    if len(samples) == 1:
        return np.full(samples.shape[1], np.nan)
    return samples.std(0, ddof=1) / np.sqrt(len(samples)) / samples.mean(0)


def weights_of(samples: Array) -> Array:
    """(points,) weights of the log means, of sum 1: inverse variances.

    A few seeds know their variances badly, so each is drawn to their mean as if that were known from 30 seeds more.
    """
    variance, seeds = relative_error(samples) ** 2, len(samples)
    variance = ((seeds - 1) * variance + 30 * variance.mean()) / (seeds + 29)
    weights = 1 / variance if np.all(variance > 0) else np.ones(samples.shape[1])
    return weights / weights.sum()


def _check(x: ArrayLike, samples: ArrayLike, least: int) -> tuple[Array, Array]:
    x, samples = np.asarray(x, float), np.asarray(samples, float)
    if samples.ndim != 2 or x.shape != samples.shape[1:] or len(samples) == 0:
        raise ValueError(f"samples of shape {samples.shape} for x of shape {x.shape}: give shape (seeds, len(x))")
    if len(x) < least or np.any(np.diff(x) <= 0) or x[0] <= 0:
        raise ValueError(f"x is {x.tolist()}: give at least {least} positive values in increasing order")
    if not (np.all(np.isfinite(samples)) and np.all(samples.mean(0) > 0)):
        raise ValueError("samples must be finite, with a positive mean at every x: leave the other points out")
    return x, samples


def fit_slope(x: ArrayLike, samples: ArrayLike, *, n_boot: int = 1000) -> Fit:
    """Slope of log(mean over seeds) on log x; x (points,), samples (seeds, points). ValueError below 2 points."""
    x, samples = _check(x, samples, 2)
    weights = weights_of(samples)
    centred = np.log(x) - weights @ np.log(x)
    coefficients = weights * centred / (weights @ centred**2)
    return interval(np.log(resampled_means(samples, n_boot)) @ coefficients, len(samples))


def fit_plateau(x: ArrayLike, samples: ArrayLike, *, reference: int | None = None, n_boot: int = 1000) -> Plateau:
    """a x^-alpha + c, c ≥ 0, alpha within DECAYS; with a `reference` its coarsening law in place of x^-alpha.

    x is (points,), samples (seeds, points); ValueError below 3 points.
    """
    x, samples = _check(x, samples, 3)
    alphas = np.linspace(*DECAYS, 186)
    alpha, share, last = _search(x, samples, reference, alphas, np.linspace(0, 1, 17), n_boot)
    seeds = len(samples)
    return Plateau(
        alpha=interval(alpha, seeds, *DECAYS),
        level=interval(share * np.exp(last), seeds, 0.0),
        share=interval(share, seeds, 0.0, 1.0),
    )


def fit_coarsening(depths: ArrayLike, samples: ArrayLike, *, reference: int, n_boot: int = 1000) -> Fit:
    """alpha within [0.05, 4] of the error at each depth against `reference` steps on the same noise: order L^-alpha.

    depths is (points,), proper divisors of reference, samples (seeds, points); ValueError otherwise.
    """
    x, samples = _check(depths, samples, 2)
    alpha, _, _ = _search(x, samples, reference, np.linspace(0.05, 4.0, 198), np.zeros(1), n_boot)
    return interval(alpha, len(samples), 0.05, 4.0)


def _log_law(x: Array, alphas: Array, reference: int | None) -> Array:
    """(len(alphas), points) logarithm of x^-alpha, or of the coarsening law, relative to its value at the last x."""
    if reference is None:
        return alphas[:, None] * np.log(x[-1] / x)
    if np.any(reference % x) or x[-1] >= reference:
        raise ValueError(f"depths {x.tolist()} against a reference of {reference} steps: give proper divisors of it")
    means = [np.mean((np.arange(reference // depth) / reference) ** alphas[:, None], axis=1) for depth in x]
    return np.log(np.stack(means, 1)) - np.log(means[-1])[:, None]


def _search(x: Array, samples: Array, reference: int | None, alphas: Array, shares: Array, n_boot: int) -> tuple[Array, Array, Array]:
    """Least squares of log q = log A + log(s + (1 - s) law_alpha): alpha, s and log A at every resampled mean.

    The best of a grid, then Levenberg–Marquardt steps for all resamples at once; scipy polishes the estimate.
    """
    logs, weights = np.log(resampled_means(samples, n_boot)), weights_of(samples)
    table, spacing = _log_law(x, alphas, reference), alphas[1] - alphas[0]

    def centre(values: Array) -> Array:
        return values - (values @ weights)[..., None]

    def model(p: Array) -> tuple[Array, Array]:
        """log q - log A (…, points) at p = (alpha, s), and its derivatives (…, points, 2)."""
        place, share = (p[..., 0] - alphas[0]) / spacing, p[..., 1, None]
        left = np.clip(place.astype(int), 0, len(alphas) - 2)
        slope = table[left + 1] - table[left]
        law = np.exp(table[left] + (place - left)[..., None] * slope)
        q = share + (1 - share) * law
        return np.log(q), np.stack([(1 - share) * law * slope / spacing, 1 - law], -1) / q[..., None]

    def cost(p: Array) -> Array:
        return centre(logs - model(p)[0]) ** 2 @ weights

    grid = np.stack(np.meshgrid(alphas[::5], shares, indexing="ij"), -1).reshape(-1, 2)
    candidates = centre(model(grid)[0])
    p = grid[np.argmin((candidates**2) @ weights - 2 * (centre(logs) * weights) @ candidates.T, axis=1)]
    least, most = np.array([alphas[0], 0.0]), np.array([alphas[-1], shares[-1]])
    best, damping = cost(p), np.full(len(p), 1e-2)
    for _ in range(15):
        value, jacobian = model(p)
        jacobian -= np.einsum("bpk,p->bk", jacobian, weights)[:, None]
        gradient = np.einsum("bpk,bp->bk", jacobian, weights * centre(logs - value))
        # A parameter at its bound and pulled beyond it stays; the step is one in the other alone.
        free = np.where(gradient > 0, p < most, p > least)
        jacobian, gradient = jacobian * free[:, None], gradient * free
        normal = np.einsum("bpk,p,bpl->bkl", jacobian, weights, jacobian)
        normal += (damping[:, None] * np.einsum("bkk->bk", normal) + 1e-12)[..., None] * np.eye(2)
        tried = np.clip(p + np.linalg.solve(normal, gradient[..., None])[..., 0], least, most)
        costs = cost(tried)
        better = costs < best
        p, best = np.where(better[:, None], tried, p), np.where(better, costs, best)
        damping = np.where(better, damping / 5, damping * 5)

    def residual(p: Array) -> Array:
        law = np.exp(_log_law(x, p[:1], reference)[0])
        return np.sqrt(weights) * centre(logs[0] - np.log(p[1] + (1 - p[1]) * law))

    found = optimize.least_squares(residual, p[0], bounds=(least - 1e-9, most + 1e-9), x_scale=(1.0, 0.1)).x
    p[0] = np.clip(found, least, most)
    return p[:, 0], p[:, 1], (logs - model(p)[0]) @ weights
