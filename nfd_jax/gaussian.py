"""A Gaussian matrix known only through what it was asked.

W has independent N(0, 1) entries and is seen through forward queries W x and backward queries Wᵀ u, each
chosen in view of the earlier answers. Conditioning a Gaussian matrix on linear observations gives the law of
the next answer in closed form. Keep for each family an orthonormal basis of its queries, the rows of Q
(forward: span of the x; backward: span of the u), and the fresh standard normals ξ that each direction's
image was drawn from, the rows of Ξ. Write new queries, the rows of X, as X = C Q + R q with q orthonormal,
orthogonal to Q, and R lower triangular with R_jj ≥ 0 (rows here are the columns of the usual notation). Then

    image of X = C Y + R y        Y = Ξ + M Q'     images of the directions known
    y = ξ + m Q'                  m = ρ (q Ξ'ᵀ − ξ Q'ᵀ)
    reused weights: ρ = 1         independent ones: ρ = 0, the other family acts through a matrix of its own

with Q', Ξ' those of the other family. Images are made anew from the noise and from m, A numbers a direction,
and never kept. (The condition is q Y'ᵀ; as Y' − Ξ' lies in the span of Q, to which q is orthogonal, q Ξ'ᵀ is
the same.) The response term q Ξ'ᵀ Q' is the coupling between the two passes; what remains is a Gaussian that
knows nothing of the other family. Exact in law for every width, at O(n) a query instead of O(n²).

Orthogonalization decides whether this works: SGD repeats its queries almost exactly. So Q is projected out
twice, the block is made orthonormal after each, and directions that bring nothing new are dropped on the way
(`_orthogonal`): their rows of q and columns of R are zero, and the answer stays exact.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax._indexing import put
from nfd_jax._orthogonal import orthonormalize
from nfd_jax._types import Rows
from nfd_jax.runtime import on_cpu


class Basis(eqx.Module):
    """One family's queries: an orthonormal basis of them, `q` (…, A, n); unfilled rows are zero.

    `correction` (…, A, A') holds the m of each row, by which its image differs from its noise. `response` (…,
    A, A'), the part q Ξ'ᵀ of it, is the coupling inside the image. `coordinates` (…, A, A): the queries
    themselves, as rows, are coordinates @ q. The first `offset` rows are queries that training did not learn
    from (those of `centered` outputs).
    """

    q: Float[Array, "... A n"]
    correction: Float[Array, "... A B"]
    response: Float[Array, "... A B"]
    coordinates: Float[Array, "... A A"] | None
    offset: int = eqx.field(static=True, default=0)

    @classmethod
    def empty(
        cls, layers: int, directions: int, width: int, dtype, *, others: int | None = None, offset: int = 0
    ) -> "Basis":
        """No queries yet, with room for `directions` of them in view of `others` (default: as many) of the
        other family."""
        rows = lambda columns: jnp.zeros((layers, directions, columns), dtype)
        others = directions if others is None else others
        return cls(rows(width), rows(others), rows(others), rows(directions), offset)

    def append(self, new: "Answers", row: int | Array, seen: int | Array) -> "Basis":
        """The basis of every layer with a block of answers at `row`, given in view of the other family's
        first `seen` queries."""
        put = lambda block, rows: jax.lax.dynamic_update_slice_in_dim(block, rows, row, axis=1)
        own = jax.lax.dynamic_update_slice_in_dim(new.known, new.new, row, axis=2)
        # Directions to come were zero in Q' then, and will not be.
        past = lambda x: jnp.where(jnp.arange(x.shape[-1]) < seen, x, 0)
        seen_by = put(self.correction, past(new.correction)), put(self.response, past(new.response))
        return Basis(put(self.q, new.q), *seen_by, put(self.coordinates, own), self.offset)

    def overlaps(self, x: Rows) -> Float[Array, "P A"]:
        """x · X_i of each row x with each query X_i that training learned from, of one layer."""
        return ((x @ self.q.T) @ self.coordinates.T)[:, self.offset :]

    def combine(self, weights: Float[Array, "P A"]) -> Rows:
        """Σ_i weights_i X_i over one layer's queries that training learned from."""
        return (weights @ self.coordinates[self.offset :]) @ self.q


class Answers(eqx.Module):
    """What to remember of a block of P queries: new directions `q` with their `correction` and `response`,
    and the queries as `known` Q + `new` q; (P, …), or (L, P, …) of all layers; A directions of this family, B
    of the other."""

    q: Float[Array, "*L P n"]
    correction: Float[Array, "*L P B"]
    response: Float[Array, "*L P B"]
    known: Float[Array, "*L P A"]
    new: Float[Array, "*L P P"]

    @classmethod
    def empty(cls, layers: int, rows: int, own: Basis, other: Basis) -> "Answers":
        """Room for the answers of a pass that asks the family `own`."""
        zeros = lambda columns: jnp.zeros((layers, rows, columns), own.q.dtype)
        width, directions, others = own.q.shape[-1], own.q.shape[-2], other.q.shape[-2]
        return cls(zeros(width), zeros(others), zeros(others), zeros(directions), zeros(rows))

    def put(self, i: Array, one: "Answers") -> "Answers":
        """With the answers of layer `i` filled in."""
        return put(self, one, i)


class Split(eqx.Module):
    """Queries resolved against a basis: X = `known` Q + `new` q, with q (P, n) orthonormal or zero.

    For queries that are discarded q holds what is left of them as it is, `new` is the identity and `mix` a
    root of the Gram matrix q qᵀ, which gives independent noise their covariance.
    """

    known: Float[Array, "P A"]
    new: Float[Array, "P P"]
    q: Rows
    mix: Float[Array, "P P"] | None = None

    def noise(self, xi: Rows) -> Rows:
        """Standard normals ξ as the noise of the rows of q."""
        return xi if self.mix is None else self.mix @ xi


def split(q_known: Float[Array, "A n"], x: Rows) -> Split:
    """Resolve the queries x against the orthonormal rows `q_known`; rank-deficient blocks are the normal
    case."""
    return _split(q_known, x, orthonormalize)


@partial(
    jax.jit, static_argnames="orthonormalize", inline=True
)  # traced once, where diffrax traces a step often
def _split(q_known: Float[Array, "A n"], x: Rows, orthonormalize: Callable) -> Split:
    norms = _norms(x)
    # Whatever was chosen for other products: directions must stay orthogonal.
    with jax.default_matmul_precision("highest"):
        once = x @ q_known.T
        r1, q1 = orthonormalize(x - once @ q_known, norms)
        twice = q1 @ q_known.T
        r2, q = orthonormalize(q1 - twice @ q_known, _norms(q1), True)
        return Split(once + r1 @ twice, r1 @ r2, q)


def _norms(x: Rows) -> Float[Array, " P"]:
    """‖x_p‖, with derivative 0 at x_p = 0."""
    square = jnp.sum(x * x, axis=1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def split_discarded(q_known: Float[Array, "A n"], x: Rows) -> Split:
    """Resolve queries whose answers will not be remembered: right in law, jointly, without an orthonormal
    basis of them.

    The root is taken of a Gram matrix, so nearly dependent queries are told apart to √eps only: enough where
    nothing is built on them.
    """
    with jax.default_matmul_precision("highest"):
        once = x @ q_known.T
        rest = x - once @ q_known
        twice = rest @ q_known.T
        rest = rest - twice @ q_known
        values, vectors = _eigh(rest @ rest.T)
        # The symmetric root: eigenvectors alone are arbitrary, and rounding would change the answers.
        root = (vectors * jnp.where(values > 0, jnp.sqrt(jnp.where(values > 0, values, 1)), 0)) @ vectors.T
    return Split(once + twice, jnp.eye(x.shape[0], dtype=x.dtype), rest, root)


def _eigh(gram: Float[Array, "P P"]) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors.

    On a CPU one matrix of a batch after the other: LAPACK's calls on batches wait for threads of the pool
    they run on, so that two programs at once could wait for each other for ever.
    """
    alone = lambda gram: tuple(jnp.linalg.eigh(gram))
    return jax.custom_batching.sequential_vmap(alone)(gram) if on_cpu() else alone(gram)


def draw(
    q: Rows, xi: Rows, other_q: Float[Array, "A n"], other_xi: Float[Array, "A n"], reuse: Array
) -> tuple[Array, Array]:
    """Corrections m of new directions with noise ξ, and their responses q Ξ'ᵀ to the other family's queries;
    `reuse` is ρ, 0 or 1.

    A number rather than a flag: one compiled program then serves networks of either kind, side by side.
    """
    response = reuse * (q @ other_xi.T)
    return response - reuse * (xi @ other_q.T), response


def images(
    parts: Split,
    xi: Rows,
    correction: Array,
    own_xi: Float[Array, "A n"],
    own_correction: Array,
    other_q: Array,
) -> Rows:
    """Images of the queries X, from the noise ξ and m of their new directions and those of the directions
    known."""
    corrected = parts.known @ own_correction + parts.new @ correction
    return parts.known @ own_xi + parts.new @ xi + corrected @ other_q


class Answer(eqx.Module):
    """Answer of one layer's matrix to P queries: their `image`, the `coupled` part of it, and what there is
    to remember."""

    image: Rows
    coupled: Rows
    new: Answers


def answer(
    parts: Split,
    own: Basis,
    own_xi: Float[Array, "A n"],
    other: Basis,
    other_xi: Float[Array, "B n"],
    xi: Rows,
    reuse: Array,
) -> Answer:
    """The one place where a Gaussian matrix answers: queries resolved as `parts`, of the family `own`, with
    fresh noise ξ.

    `own_xi` and `other_xi` are Ξ and Ξ', `reuse` is ρ.
    """
    fresh = parts.noise(xi)
    correction, response = draw(parts.q, fresh, other.q, other_xi, reuse)
    image = images(parts, fresh, correction, own_xi, own.correction, other.q)
    # The coupling inside the image; what earlier coupling left in the images known is part of it.
    coupled = (parts.known @ own.response + parts.new @ response) @ other.q
    return Answer(image, coupled, Answers(parts.q, correction, response, parts.known, parts.new))
