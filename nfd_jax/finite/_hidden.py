"""Hidden weights of one network as matrices, in two forms that are equal to rounding.

    Explicit     the matrices themselves, rewritten layer by layer where they lie
    Factored     one W(0), and what training added as corrections of rank K·P:
                 W_ℓ φ = α W_ℓ(0) φ + a n^{1/2} Δ_ℓ,   Δ_ℓ = Σ_i c_i s_i ⟨φ_i φ⟩ b_i   (as in `history`)

Factored pays where K·P is small beside n, as W(0) is only read, and by all learning rates of a seed together;
it takes optimizers that are linear in the gradients. With independent backward weights the backward pass has
an initial draw W̃(0) of its own and receives the same updates, so that W̃ − W = α (W̃(0) − W(0)) at all
times.

Written for one network; `vmap` maps over seeds, rates, flags and sizes, and leaves what they share unbatched.
Coordinates from the network's width on are zero, layers from its depth on change nothing.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import optimizers
from nfd_jax._indexing import at
from nfd_jax._types import Index, Rows, Scalar
from nfd_jax.parametrization import normalized_rate
from nfd_jax.problem import Problem


def form(width: int, samples: int, *, linear: bool = True) -> str:
    """The form of networks of `width` whose training sees K·P = `samples`.

    "factored" where corrections, four thin products a layer with room for all steps, cost less than rewriting
    n × n matrices.
    """
    return "factored" if linear and 3 * samples <= width else "explicit"


def times_transpose(x: Rows, W: Float[Array, "m n"]) -> Float[Array, "Q m"]:
    """x Wᵀ as one product, which it remains where it is mapped over: XLA would write out the transposes of a
    stack of matrices."""
    return jnp.einsum("qn,mn->qm", x, W)


class Explicit(eqx.Module):
    """`W` (L, n, n); `gap` is W̃(0) − W(0) where backward weights may be independent, which they are where
    `reuse` is 0.

    `scale` is the optimizer's α, by which it has changed the gap.
    """

    W: Float[Array, "L n n"]
    gap: Float[Array, "L n n"] | None
    reuse: Scalar
    scale: Scalar
    size: Array

    @property
    def layers(self) -> int:
        """Layers that there is room for."""
        return self.W.shape[0]

    def forward(self, ell: Index, x: Rows) -> tuple[Rows, float]:
        """n^{-1/2} W_ℓ x, drift included."""
        return times_transpose(x, at(self.W, ell)) / jnp.sqrt(self.size), 0.0

    def backward(self, ell: Index, b: Rows) -> tuple[Rows, float]:
        """n^{-1/2} Wᵀ_ℓ b, or W̃ᵀ_ℓ b."""
        answer = b @ at(self.W, ell)
        if self.gap is not None:
            other = lambda b: self.scale * (b @ at(self.gap, ell))
            answer = answer + jax.lax.cond(self.reuse == 1, jnp.zeros_like, other, b)
        return answer / jnp.sqrt(self.size), 0.0


class Factored(eqx.Module):
    """`drawn` (1 or 2, L, n, n) holds W(0) and, where some network needs it, W̃(0); `back` (L, n, n) is
    whichever answers b.

    `features` φ_i and `signals` γ s_i b_i are (L, A, n), zero until their step; `weights` (A,) are the c_i,
    `scale` is α.
    """

    drawn: Float[Array, "_ L n n"]
    back: Float[Array, "L n n"]
    features: Float[Array, "L A n"]
    signals: Float[Array, "L A n"]
    scale: Scalar
    weights: Float[Array, " A"]
    size: Array

    @property
    def layers(self) -> int:
        """Layers that there is room for."""
        return self.features.shape[0]

    def forward(self, ell: Index, x: Rows) -> tuple[Rows, Rows]:
        """α n^{-1/2} W_ℓ(0) x and Δ_ℓ."""
        zero = jnp.zeros_like(ell)
        W = jax.lax.dynamic_slice(self.drawn, (zero, ell, zero, zero), (1, 1, *self.drawn.shape[2:]))[0, 0]
        drift = self._drift(x, at(self.features, ell), at(self.signals, ell))
        return self.scale * times_transpose(x, W) / jnp.sqrt(self.size), drift

    def backward(self, ell: Index, b: Rows) -> tuple[Rows, Rows]:
        """α n^{-1/2} W_ℓ(0)ᵀ b, or W̃_ℓ(0)ᵀ b, and Δ'_ℓ."""
        drift = self._drift(b, at(self.signals, ell), at(self.features, ell))
        return self.scale * (b @ at(self.back, ell)) / jnp.sqrt(self.size), drift

    def _drift(self, x: Rows, own: Float[Array, "A n"], other: Float[Array, "A n"]) -> Rows:
        return (self.weights * times_transpose(x, own) / self.size) @ other

    def remember(self, features: Callable, signals: Callable, row: Index, layers: int | Array) -> "Factored":
        """With a batch's φ_i and γ s_i b_i of every layer, `features(ℓ)` and `signals(ℓ)` (P, n), from row
        `row` on."""

        def layer(ell, stacks):
            place = ell, jnp.asarray(row, jnp.result_type(ell)), jnp.zeros_like(ell)
            write = lambda stack, new: jax.lax.dynamic_update_slice(stack, new[None], place)
            return write(stacks[0], features(ell)), write(stacks[1], signals(ell))

        stacks = jax.lax.fori_loop(0, layers, layer, (self.features, self.signals))
        return eqx.tree_at(lambda h: (h.features, h.signals), self, stacks)


def at_start(
    form: str, drawn: Array, back: Array | None, gap: Array | None, reuse: Array, samples: int, width: Array
) -> Explicit | Factored:
    """A network at its initial weights, in one of the two forms; `drawn` (kinds, L, n, n), `back` where it is
    factored and `gap` where it is explicit."""
    one, dtype = jnp.ones((), drawn.dtype), drawn.dtype
    if form == "explicit":
        return Explicit(drawn[0], gap, reuse, one, width.astype(dtype))
    empty = jnp.zeros((drawn.shape[1], samples, drawn.shape[-1]), dtype)
    return Factored(drawn, back, empty, empty, one, jnp.zeros(samples, dtype), width.astype(dtype))


class Units(eqx.Module):
    """What an optimizer's step is measured in: parameters and gradients are divided by it, and updates
    multiplied.

    One for rules that are linear in the gradients, to which units are nothing. Those that normalize them give
    all entries steps of the same size, and depth-μP asks for the units of `normalized_rate` in W; both times
    γ, in which features are to move.
    """

    ends: Array
    hidden: Array

    @classmethod
    def of(cls, problem: Problem, width: Array, depth: int | Array) -> "Units":
        if optimizers.is_linear(problem.optimizer):
            one = jnp.ones((), problem.dtype)
            return cls(one, one)
        gamma = problem.richness
        return cls(gamma, gamma * normalized_rate(problem.parametrization, problem.horizon, width, depth))
