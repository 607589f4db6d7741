"""Hidden weights of many networks as stacks of matrices, rewritten layer by layer where they lie.

A gradient step is ΔW_ℓ = Σ_p g_p φ_pᵀ with g_p = −η a n^{-1/2} s_p b_{ℓ,p} (theory). Networks of one seed begin from one draw
W(0); those with independent backward weights answer W̃ᵀ b = Wᵀ b + (W̃(0) − W(0))ᵀ b, since both copies get the same updates: the
difference never changes, and one copy a seed serves all learning rates.

Axes: L layers, S seeds, F backward-weight flags, R learning rates, Q rows of a batch, n coordinates.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Queries = Float[Array, "S F R Q n"]


def layer_of(stack: Array, i: int | Array) -> Array:
    """Entry `i` of the first axis."""
    return jax.lax.dynamic_index_in_dim(stack, i, keepdims=False)


def with_layer(stack: Array, value: Array, i: int | Array) -> Array:
    """`stack` with entry `i` replaced. Unlike `.at[i].set` it has no bounds to check, so XLA can write where the stack lies."""
    return jax.lax.dynamic_update_index_in_dim(stack, value, i, 0)


class Explicit(eqx.Module):
    """W (L, S, F, R, n, n) of every network; `gap` is W̃(0) − W(0), (L, S, n, n), where flag `independent` needs it."""

    W: Float[Array, "L S F R n n"]
    gap: Float[Array, "L S n n"] | None
    independent: int | None = eqx.field(static=True)

    @classmethod
    def start(cls, drawn: Array, layers: int, flags: int, rates: int, samples: int, independent: int | None) -> "Explicit":
        """Networks at W(0), the first `layers` of `drawn` (…, S, n, n); W̃(0), where there is one, is the next."""
        W = drawn[:layers]
        copies = jnp.broadcast_to(W[:, :, None, None], (*W.shape[:2], flags, rates, *W.shape[2:]))
        return cls(copies, None if independent is None else drawn[layers : 2 * layers] - W, independent)

    def forward(self, ell: Array, x: Queries) -> Queries:
        """W_ℓ x."""
        return jnp.einsum("sfrqn,sfrmn->sfrqm", x, layer_of(self.W, ell))

    def backward(self, ell: Array, b: Queries) -> Queries:
        """Wᵀ_ℓ b, or W̃ᵀ_ℓ b."""
        answer = jnp.einsum("sfrqm,sfrmn->sfrqn", b, layer_of(self.W, ell))
        if self.gap is None or self.independent is None:
            return answer
        more = jnp.einsum("srqm,smn->srqn", b[:, self.independent], layer_of(self.gap, ell))
        before, after = self.independent, b.shape[1] - 1 - self.independent
        return answer + jnp.pad(more[:, None], [(0, 0), (before, after), (0, 0), (0, 0), (0, 0)])

    def learn(self, features: Callable, pulls: Callable, step: Array, depth: Array) -> "Explicit":
        """After ΔW_ℓ = Σ_p g_p φ_pᵀ in the first `depth` layers; `features(ℓ)` and `pulls(ℓ)` give φ_p and g_p."""

        def update(ell, W):
            return with_layer(W, layer_of(W, ell) + jnp.einsum("sfrpm,sfrpn->sfrmn", pulls(ell), features(ell)), ell)

        # A loop of its own: inside the backward pass, reading and writing one layer makes XLA copy the whole stack.
        return eqx.tree_at(lambda self: self.W, self, jax.lax.fori_loop(0, depth, update, self.W))
