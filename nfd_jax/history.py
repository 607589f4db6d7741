"""What SGD leaves in the hidden layers, and one layer of it as a pass meets it.

A hidden matrix after some steps is W = α W(0) + Σ_i c_i s_i u_i x_iᵀ · (a n^{-1/2}) over the samples i of
earlier steps, x_i = φ(h_i) and u_i = b_i the queries of its forward and backward passes. So both passes meet,
besides α times what W(0) answers,

    up      Δ_ℓ  = Σ_i c_i s_i ⟨φ_i φ⟩ b_i            down     Δ'_ℓ = Σ_i c_i s_i ⟨b_i b⟩ φ_i

with ⟨·⟩ averages over coordinates. The queries are kept as coordinates in their bases alone; what W(0)
answered them is made anew from the noise.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nfd_jax._indexing import at
from nfd_jax._types import LayerRows, Rows
from nfd_jax.gaussian import Answer, Answers, Basis, Split, answer, split, split_discarded
from nfd_jax.noise import BACKWARD, FORWARD, AbstractNoise


class Learned(eqx.Module):
    """What training has made of every hidden matrix, as the rows of a pass meet it.

    `scale` α, one number or (P, 1) for rows under different weights; `weights` (P, A), γ c_i s_i of each
    sample, zero for samples that a row must not see. Where the history is bounded (P, 1): 1, or 0 for rows
    under the initial weights.
    """

    scale: Array
    weights: Float[Array, "P A"]


class Layer(eqx.Module):
    """One layer's matrix: its two families of queries, the noise that their images were made from, and what
    training added.

    `width` averages are over that many coordinates; `reuse` ρ is 1 where both passes use one matrix. `core`
    D, where the history is bounded, says what training added in the two bases, Q'ᵀ D Q, in place of the
    samples' weights.
    """

    forward: Basis
    backward: Basis
    forward_xi: Float[Array, "A n"]
    backward_xi: Float[Array, "B n"]
    learned: Learned
    width: Array
    reuse: Array
    core: Float[Array, "B A"] | None = None

    def resolve(self, x: Rows, *, transpose: bool, discard: bool = False) -> Split:
        """Queries of W (or of Wᵀ) in the basis of earlier ones."""
        own = self.backward if transpose else self.forward
        return (split_discarded if discard else split)(own.q, x)

    def answer(self, parts: Split, xi: Rows, *, transpose: bool) -> Answer:
        """n^{-1/2} α W(0) x, or the transpose's, with fresh noise ξ."""
        one, two = (self.forward, self.forward_xi), (self.backward, self.backward_xi)
        own, other = (two, one) if transpose else (one, two)
        found = answer(parts, *own, *other, xi, self.reuse)
        gain = self.learned.scale / jnp.sqrt(self.width)
        return Answer(gain * found.image, gain * found.coupled, found.new)

    def drift(self, x: Rows, *, transpose: bool) -> Rows:
        """Δ or Δ': what training has added, as the queries x meet it."""
        own, other = (self.backward, self.forward) if transpose else (self.forward, self.backward)
        if self.core is None:
            return other.combine(self.learned.weights * own.overlaps(x) / self.width)
        core = self.core if transpose else self.core.T
        return self.learned.weights * ((x @ own.q.T) @ core @ other.q) / self.width


class History(eqx.Module):
    """Queries of all hidden layers: A = K·P rows of samples, zero until their step comes; layer ℓ at index ℓ
    − 1.

    `forward` holds the queries φ(h_{ℓ-1}) of W_ℓ(0), `backward` the queries b_ℓ of W_ℓ(0)ᵀ. `after_xi` (L, R,
    n) is the noise of queries asked after training, which then stand first in `forward`.
    """

    forward: Basis
    backward: Basis
    after_xi: LayerRows | None = None

    @classmethod
    def empty(cls, layers: int, directions: int, width: int, dtype, *, offset: int = 0) -> "History":
        """Room for `directions` samples, behind `offset` queries that training does not learn from."""
        every = offset + directions
        forward = Basis.empty(layers, every, width, dtype, others=directions, offset=offset)
        return cls(forward, Basis.empty(layers, directions, width, dtype, others=every))

    def remember(self, new: Answers, row: int | Array, *, transpose: bool) -> "History":
        """With a block of answers, the first that of sample `row`; all blocks asked before were seen."""
        rows, offset = new.q.shape[1], self.forward.offset
        if transpose:
            return History(self.forward, self.backward.append(new, row, offset + row + rows))
        return History(self.forward.append(new, offset + row, jnp.maximum(row, 0)), self.backward)

    def with_questions(self, new: Answers, xi: LayerRows) -> "History":
        """With the answers to forward queries asked after training, so that the backward pass over the same
        rows knows them."""
        rows, old = new.q.shape[1], self.forward
        before = lambda x, axis: jnp.pad(x, [(rows, 0) if i == axis else (0, 0) for i in range(x.ndim)])
        first = lambda x, y: jnp.concatenate([x, y], axis=1)
        coordinates = first(jnp.concatenate([new.new, new.known], axis=2), before(old.coordinates, 2))
        correction, response = first(new.correction, old.correction), first(new.response, old.response)
        forward = Basis(first(new.q, old.q), correction, response, coordinates, rows + old.offset)
        back = self.backward
        backward = Basis(
            back.q, before(back.correction, 2), before(back.response, 2), back.coordinates, back.offset
        )
        return History(forward, backward, xi)

    def layer(self, i: Array, noise: AbstractNoise, learned: Learned, width: Array, reuse: Array) -> Layer:
        """Layer i (from 0), with the noise it was answered from."""
        forward, backward = at((self.forward, self.backward), i)
        return Layer(
            forward,
            backward,
            self.forward_noise(noise, i),
            self.backward_noise(noise, i),
            learned,
            width,
            reuse,
        )

    def forward_noise(self, noise: AbstractNoise, i: Array) -> Float[Array, "A n"]:
        """What the images of layer i's forward queries were made from."""
        after = [] if self.after_xi is None else [at(self.after_xi, i)]
        initial = self.forward.offset - sum(x.shape[0] for x in after)
        return jnp.concatenate(
            [*after, *([noise.initial_layer(i)] if initial else []), noise.layer(FORWARD, i)]
        )

    def backward_noise(self, noise: AbstractNoise, i: Array) -> Float[Array, "A n"]:
        """The same of its backward queries."""
        return noise.layer(BACKWARD, i)


class BoundedHistory(eqx.Module):
    """At most R directions a family and layer, for training of any length: memory and cost of a step depend
    on R alone.

    Of a block's new directions those enter, while there is room, without which some query would keep more
    than `tolerance` of its norm beyond the basis. What does not enter is answered by fresh noise of the right
    variance, and left out of what training adds: an error of second order in the residual. `core` D is what
    training has come to (`Layer`).
    """

    forward: Basis
    backward: Basis
    forward_xi: Float[Array, "L R n"]
    backward_xi: Float[Array, "L R n"]
    filled: Int[Array, "L 2"]
    core: Float[Array, "L B A"]
    tolerance: float = eqx.field(static=True)

    @classmethod
    def empty(cls, layers: int, directions: int, width: int, dtype, tolerance: float) -> "BoundedHistory":
        """Nothing remembered yet, with room for R = `directions`."""
        rows = lambda columns: jnp.zeros((layers, directions, columns), dtype)
        basis = Basis(rows(width), rows(directions), rows(directions), None)
        filled = jnp.zeros((layers, 2), int)
        return cls(basis, basis, rows(width), rows(width), filled, rows(directions), tolerance)

    def remember(
        self, new: Answers, xi: LayerRows, *, transpose: bool
    ) -> tuple["BoundedHistory", Array, Array]:
        """With what there is to remember of a block of answers to noise ξ.

        Also the block's queries as coordinates (L, P, R) in the basis, and the relative norm (L, P) of what
        they have beyond it.
        """
        own, own_xi = (self.backward, self.backward_xi) if transpose else (self.forward, self.forward_xi)
        side, room = int(transpose), own.q.shape[1]
        parts = new.new**2  # (L, P, P): of each query along each new direction
        square = jnp.sum(new.known**2, -1) + jnp.sum(parts, -1)
        # What a query would keep beyond the basis without a direction and all that are less to it.
        less = jnp.where(parts[..., None, :] <= parts[..., :, None], parts[..., None, :], 0).sum(-1)
        needed = (less > (self.tolerance**2 * square)[..., None]) & (parts > 0)
        enters = needed.any(-2)
        slot = self.filled[:, side, None] + jnp.cumsum(enters, axis=-1) - 1
        enters &= slot < room
        slot = jnp.where(enters, slot, room)
        place = (slot[..., None] == jnp.arange(room)).astype(new.q.dtype)  # (L, P, R)
        enter = jax.vmap(lambda every, rows, where: every.at[where].set(rows, mode="drop"))
        basis = Basis(
            enter(own.q, new.q, slot),
            enter(own.correction, new.correction, slot),
            enter(own.response, new.response, slot),
            None,
        )
        coordinates = new.known + new.new @ place
        lost = jnp.sum(jnp.where(enters[:, None, :], 0, parts), -1)
        residual = jnp.sqrt(lost / jnp.where(square > 0, square, 1))
        filled = self.filled.at[:, side].add(jnp.sum(enters, -1))
        places = ("backward", "backward_xi") if transpose else ("forward", "forward_xi")
        where = lambda h: (getattr(h, places[0]), getattr(h, places[1]), h.filled)
        return eqx.tree_at(where, self, (basis, enter(own_xi, xi, slot), filled)), coordinates, residual

    def layer(self, i: Array, noise: AbstractNoise, learned: Learned, width: Array, reuse: Array) -> Layer:
        """As of `History`; the noise of what is remembered is kept here."""
        h = at(self, i)
        return Layer(h.forward, h.backward, h.forward_xi, h.backward_xi, learned, width, reuse, h.core)

    def forward_noise(self, noise: AbstractNoise, i: Array) -> Float[Array, "R n"]:
        """As of `History`."""
        return at(self.forward_xi, i)

    def backward_noise(self, noise: AbstractNoise, i: Array) -> Float[Array, "R n"]:
        """As of `History`."""
        return at(self.backward_xi, i)
