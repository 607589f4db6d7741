"""Errors over a grid of widths n and depths L: E = a/n + b/L + c/(nL) + d, and the limit taken in three ways."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nfd_jax.verdicts._fits import UNKNOWN, Array, Fit, interval, resampled_means


@dataclass(frozen=True)
class JointFit:
    """Coefficients of E (d is NaN unless asked for), and E extrapolated to n = L = ∞.

    width_first: n → ∞ at every depth, then L → ∞; depth_first: the reverse; together: along the grid's diagonal. gap
    is together minus width_first, negative extrapolations of an error counted as 0. corner is the mean at the largest
    width and depth, misfit the largest relative residual. All but misfit in units of E.
    """

    a: Fit
    b: Fit
    c: Fit
    d: Fit
    width_first: Fit
    depth_first: Fit
    together: Fit
    gap: Fit
    corner: float
    misfit: float

    def text(self) -> str:
        terms = ((self.a, "/n"), (self.b, "/L"), (self.c, "/(nL)"), (self.d, ""))
        law = " + ".join(f"({fit.text()}){unit}" for fit, unit in terms if fit is not UNKNOWN)
        return (
            f"E = {law}, misfit up to {self.misfit:.0%}; extrapolated in n then L {self.width_first.text()}, "
            f"in L then n {self.depth_first.text()}, together {self.together.text()}"
        )


def _operator(columns: Sequence[Array], values: Array, rcond: float = 1e-12) -> Array:
    """(columns, points) weights that take values to coefficients, by least squares of relative errors.

    Singular directions below rcond are left out: columns that are collinear share their effect.
    """
    scales = np.array([column[-1] for column in columns])
    design = np.stack(columns, 1) / scales / values[:, None]
    return np.linalg.pinv(design, rcond=rcond) / scales[:, None] / values


def diagonal_of(widths: ArrayLike, depths: ArrayLike, samples: Array, reference: int | None = None) -> tuple[Array, Array]:
    """x = (1/n + 1/L)^-1 and samples (seeds, points) along the diagonal that ends in the largest width and depth."""
    n, L = _inverses(widths, depths, reference)
    steps = np.arange(-min(len(n), len(L)), 0)
    return 1 / (n[steps] + L[steps]), samples[:, steps, steps]


def _inverses(widths: ArrayLike, depths: ArrayLike, reference: int | None) -> tuple[Array, Array]:
    """1/n and 1/L; against a reference of M steps 1/L - 1/M, the coarsening law of order 1."""
    return 1 / np.asarray(widths, float), 1 / np.asarray(depths, float) - (1 / reference if reference else 0.0)


def fit_joint(
    widths: ArrayLike,
    depths: ArrayLike,
    samples: ArrayLike,
    *,
    constant: bool = False,
    reference: int | None = None,
    n_boot: int = 1000,
) -> JointFit:
    """E = a/n + b/L + c/(nL), with `constant` + d, by least squares of relative errors; coefficients may be negative.

    samples are (seeds, widths, depths) in increasing order. With a `reference` of M steps 1/L stands for 1/L - 1/M.
    Raises ValueError on fewer than 2 widths or depths, or samples that aren't finite with a positive mean.
    """
    data, (n, L) = np.asarray(samples, float), _inverses(widths, depths, reference)
    shape, seeds = (len(n), len(L)), len(data)
    if data.shape[1:] != shape or min(shape) < 2 or not (np.isfinite(data).all() and (data.mean(0) > 0).all()):
        wanted = "give finite samples of positive mean, (seeds, widths, depths), at least 2 of each"
        raise ValueError(f"samples of shape {data.shape} for {shape[0]} widths and {shape[1]} depths: {wanted}")
    means = resampled_means(data.reshape(seeds, -1), n_boot).reshape(-1, *shape)
    mean, ones = means[0], np.ones(shape)

    terms = [n[:, None] * ones, L * ones, n[:, None] * L, ones][: 4 if constant else 3]
    columns = [term.ravel() for term in terms]
    fitted = means.reshape(len(means), -1) @ _operator(columns, mean.ravel()).T
    misfit = np.abs(np.stack(columns, 1) @ fitted[0] / mean.ravel() - 1).max()

    in_n = [_operator([ones[:, 0], n], mean[:, j])[0] for j in range(shape[1])]
    in_L = [_operator([ones[0], L], mean[i])[0] for i in range(shape[0])]
    width_first = np.stack([means[:, :, j] @ weights for j, weights in enumerate(in_n)], 1) @ in_L[-1]
    depth_first = np.stack([means[:, i] @ weights for i, weights in enumerate(in_L)], 1) @ in_n[-1]
    steps = np.arange(-min(shape), 0)
    diagonal = _operator([np.ones(len(steps)), n[steps], L[steps]], mean[steps, steps], rcond=1e-3)[0]
    together = means[:, steps, steps] @ diagonal
    gap = np.maximum(together, 0) - np.maximum(width_first, 0)

    a, b, c, *d = (interval(values, seeds) for values in fitted.T)
    return JointFit(
        a=a,
        b=b,
        c=c,
        d=d[0] if d else UNKNOWN,
        width_first=interval(width_first, seeds),
        depth_first=interval(depth_first, seeds),
        together=interval(together, seeds),
        gap=interval(gap, seeds),
        corner=float(mean[-1, -1]),
        misfit=float(misfit),
    )
