"""Rows resolved into orthonormal directions, x = R q with R lower triangular and R_jj ≥ 0, where rows may be
nearly dependent.

A direction is dropped while the process runs: where the residual of a row is below `tolerance` of the row's
own norm, q_j = 0 and column j of R is zero, and what little was left of it stays in the rows below. (Dropped
afterwards, it would be lost from them.)

    by_rows        Gram–Schmidt row by row, each row projected twice: least work, in P small steps
    by_products    R from Gram matrices x xᵀ by Cholesky's columns, twice: few wide products, and P³/3
                   operations on single numbers

CPUs take the first, which was faster there at every size measured. On an accelerator every step costs a
launch, whatever its size: there a few rows go by products, whose numbers are computed in one or two launches
but take the compiler long where there are many.

A Gram matrix knows residuals to √eps of the norm only. So in the first of the two passes pivots below that
are raised to it, which keeps x = R q exact with rows q that are too short rather than wrong, and the second
tells them apart. Rows that are nearly orthonormal already need the second alone.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax._indexing import at, put
from nfd_jax._types import Rows
from nfd_jax.runtime import on_cpu

FEW = 8
"""Rows up to which accelerators orthonormalize by products."""


def tolerance(dtype) -> float:
    """Residual, relative to the query's norm, below which a direction counts as already known."""
    return 1e-6 if jnp.finfo(dtype).bits == 32 else 1e-12


def orthonormalize(
    x: Rows, norms: Float[Array, " P"], nearly: bool = False
) -> tuple[Float[Array, "P P"], Rows]:
    """(R, q) of the rows of x; residuals are held against `norms`, those that the rows once had. `nearly`:
    rows are orthonormal but for a small part."""
    form = by_rows if on_cpu() or x.shape[0] > FEW else by_products
    return form(x, norms, nearly)


def by_rows(x: Rows, norms: Float[Array, " P"], nearly: bool = False) -> tuple[Float[Array, "P P"], Rows]:
    """`orthonormalize`, a row at a time, whether `nearly` or not."""
    rows = x.shape[0]
    least = tolerance(x.dtype) * norms

    def resolve(j, carry):
        r, q = carry
        row, bound = at(x, j), at(least, j)
        once = q @ row
        rest = row - once @ q
        twice = q @ rest
        rest = rest - twice @ q
        square = rest @ rest
        kept = square > bound**2
        norm = jnp.sqrt(jnp.where(kept, square, 1))  # 1 where dropped: a derivative of 0, not NaN
        own = jnp.where(jnp.arange(rows) == j, jnp.where(kept, norm, 0), once + twice)
        return put(r, own, j), put(q, jnp.where(kept, rest / norm, 0), j)

    start = jnp.zeros((rows, rows), x.dtype), jnp.zeros_like(x)
    return jax.lax.fori_loop(0, rows, resolve, start)


def by_products(x: Rows, norms: Float[Array, " P"], nearly: bool = False) -> tuple[Float[Array, "P P"], Rows]:
    """`orthonormalize`, all rows in each product."""
    least, nothing = tolerance(x.dtype) * norms, jnp.zeros_like(norms)
    if nearly:
        return _by_gram(x, least, nothing)
    resolution = 8 * x.shape[0] * jnp.finfo(x.dtype).eps * jnp.sum(x * x, axis=1)
    r1, q1 = _by_gram(x, least, resolution)
    short = jnp.diagonal(r1)
    kept = short > 0
    r2, q = _by_gram(q1, jnp.where(kept, least / jnp.where(kept, short, 1), jnp.inf), nothing)
    return r1 @ r2, q


def _by_gram(
    x: Rows, least: Float[Array, " P"], resolution: Float[Array, " P"]
) -> tuple[Float[Array, "P P"], Rows]:
    """x = R q with R a Cholesky factor of x xᵀ: squared pivots are raised to `resolution`, pivots up to
    `least` drop their row."""
    r, inverse = _factor(x @ x.T, least, resolution)
    # By R⁻¹, a product that devices can share out by coordinates; refined once, as x = R q must hold however
    # small the pivots are.
    q = inverse @ x
    return r, q + inverse @ (x - r @ q)


def _factor(
    gram: Float[Array, "P P"], least: Float[Array, " P"], resolution: Float[Array, " P"]
) -> tuple[Float[Array, "P P"], Float[Array, "P P"]]:
    """(R, R⁻¹) of a Gram matrix, written out number by number; rows that are dropped are zero in R⁻¹."""
    size = range(gram.shape[0])
    zero = jnp.zeros((), gram.dtype)
    r, inverse = ([[zero for _ in size] for _ in size] for _ in range(2))
    for j in size:
        pivot = jnp.sqrt(jnp.maximum(gram[j, j] - sum(r[j][k] ** 2 for k in range(j)), resolution[j]))
        kept = pivot > least[j]
        r[j][j] = jnp.where(kept, pivot, 0)
        inverse[j][j] = jnp.where(kept, 1 / jnp.where(kept, pivot, 1), 0)
        for i in size[j + 1 :]:
            r[i][j] = (gram[i, j] - sum(r[i][k] * r[j][k] for k in range(j))) * inverse[j][j]
        for i in range(j):
            inverse[j][i] = -sum(r[j][k] * inverse[k][i] for k in range(i, j)) * inverse[j][j]
    square = lambda rows: jnp.stack([number for row in rows for number in row]).reshape(gram.shape)
    return square(r), square(inverse)
