"""Rows resolved into orthonormal directions, x = R q with R lower triangular and R_jj ≥ 0, where rows may be
nearly dependent.

A direction is dropped while the process runs: where the residual of a row is below `tolerance` of the row's
own norm, q_j = 0 and column j of R is zero, and what little was left of it stays in the rows below. (Dropped
afterwards, it would be lost from them.)

    by_rows        Gram–Schmidt row by row, each row projected twice: least work, in P small steps
    by_products    R from Gram matrices x xᵀ by Cholesky's columns, twice: few wide products, and P steps
                   on P × P numbers

CPUs take the first, which was faster there at every size measured; accelerators the second, which nobody has
timed on one yet.

A Gram matrix knows residuals to √eps of the norm only. So in the first of the two passes pivots below that
are raised to it, which keeps x = R q exact with rows q that are too short rather than wrong, and the second
tells them apart.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from nfd_jax._types import Rows
from nfd_jax.runtime import on_cpu


def tolerance(dtype) -> float:
    """Residual, relative to the query's norm, below which a direction counts as already known."""
    return 1e-6 if jnp.finfo(dtype).bits == 32 else 1e-12


def orthonormalize(x: Rows, norms: Float[Array, " P"]) -> tuple[Float[Array, "P P"], Rows]:
    """(R, q) of the rows of x; residuals are held against `norms`, those that the rows once had."""
    return (by_rows if on_cpu() else by_products)(x, norms)


def by_rows(x: Rows, norms: Float[Array, " P"]) -> tuple[Float[Array, "P P"], Rows]:
    """`orthonormalize`, a row at a time."""
    rows = x.shape[0]
    tol = tolerance(x.dtype)

    def resolve(j, carry):
        r, q = carry
        once = q @ x[j]
        rest = x[j] - once @ q
        twice = q @ rest
        rest = rest - twice @ q
        square = rest @ rest
        kept = square > (tol * norms[j]) ** 2
        norm = jnp.sqrt(jnp.where(kept, square, 1))  # 1 where dropped: a derivative of 0, not NaN
        q = q.at[j].set(jnp.where(kept, rest / norm, 0))
        return r.at[j].set((once + twice).at[j].set(jnp.where(kept, norm, 0))), q

    start = jnp.zeros((rows, rows), x.dtype), jnp.zeros_like(x)
    return jax.lax.fori_loop(0, rows, resolve, start)


def by_products(x: Rows, norms: Float[Array, " P"]) -> tuple[Float[Array, "P P"], Rows]:
    """`orthonormalize`, all rows in each product."""
    rows, least = x.shape[0], tolerance(x.dtype) * norms
    resolution = 8 * rows * jnp.finfo(x.dtype).eps * jnp.sum(x * x, axis=1)
    r1, q1 = _by_gram(x, least, resolution)
    short = jnp.diagonal(r1)
    kept = short > 0
    r2, q = _by_gram(q1, jnp.where(kept, least / jnp.where(kept, short, 1), jnp.inf), jnp.zeros_like(norms))
    return r1 @ r2, q


def _by_gram(
    x: Rows, least: Float[Array, " P"], resolution: Float[Array, " P"]
) -> tuple[Float[Array, "P P"], Rows]:
    """x = R q with R a Cholesky factor of x xᵀ: squared pivots are raised to `resolution`, pivots up to
    `least` drop their row."""
    gram = x @ x.T
    places = jnp.arange(gram.shape[0])

    def column(j, r):
        rest = gram[:, j] - r @ r[j]
        pivot = jnp.sqrt(jnp.maximum(rest[j], resolution[j]))
        kept = pivot > least[j]
        below = jnp.where(kept & (places > j), rest / jnp.where(kept, pivot, 1), 0)
        return r.at[:, j].set(below.at[j].set(jnp.where(kept, pivot, 0)))

    r = jax.lax.fori_loop(0, gram.shape[0], column, jnp.zeros_like(gram))
    kept = (jnp.diagonal(r) > 0).astype(x.dtype)
    # By R⁻¹, a product that devices can share out by coordinates; refined once, as x = R q must hold however
    # small the pivots are.
    inverse = kept[:, None] * solve_triangular(
        r + jnp.diag(1 - kept), jnp.eye(gram.shape[0], dtype=x.dtype), lower=True
    )
    q = inverse @ x
    return r, q + inverse @ (x - r @ q)
