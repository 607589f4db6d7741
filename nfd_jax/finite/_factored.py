"""Hidden weights of many networks in factored form: one W(0) for all, and what SGD added as low-rank corrections.

    W_ℓ φ = W_ℓ(0) φ + Σ_i g_i (φ_i·φ)        Wᵀ_ℓ b = W_ℓ(0)ᵀ b + Σ_i φ_i (g_i·b)        g_i = −η a n^{-1/2} s_i b_{ℓ,i}

over the samples i of all earlier steps (theory), which is ΔW_ℓ = Σ_i g_i φ_iᵀ multiplied out: equal to the explicit form to
rounding, in any dtype. W(0) is drawn and held once a seed; the learning rates and samples of all its networks are rows of one
product. It pays where the K·P corrections are thin beside n.

Axes: as in `_explicit`, and A = K·P samples.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax.finite._explicit import Queries, layer_of


class Factored(eqx.Module):
    """`drawn` holds W(0) in its first `layers` entries, W̃(0) in the next where flag `independent` needs it, shared by F and R.

    `features` φ_i and `pulls` g_i are (L, S, F, R, A, n), zero until their step.
    """

    drawn: Float[Array, "_ S n n"]
    features: Float[Array, "L S F R A n"]
    pulls: Float[Array, "L S F R A n"]
    independent: int | None = eqx.field(static=True)

    @classmethod
    def start(cls, drawn: Array, layers: int, flags: int, rates: int, samples: int, independent: int | None) -> "Factored":
        """Networks at W(0), with room for the corrections of `samples`."""
        empty = jnp.zeros((layers, drawn.shape[1], flags, rates, samples, drawn.shape[-1]), drawn.dtype)
        return cls(drawn, empty, empty, independent)

    def forward(self, ell: Array, x: Queries) -> Queries:
        """W_ℓ x."""
        initial = _initial("sqn,smn->sqm", x, layer_of(self.drawn, ell))
        return initial + _correction(x, layer_of(self.features, ell), layer_of(self.pulls, ell))

    def backward(self, ell: Array, b: Queries) -> Queries:
        """Wᵀ_ℓ b, or W̃ᵀ_ℓ b."""
        apply = lambda b, i: _initial("sqm,smn->sqn", b, layer_of(self.drawn, i))
        if self.independent is None:
            initial = apply(b, ell)
        else:
            place = [ell + self.features.shape[0] * (flag == self.independent) for flag in range(b.shape[1])]
            initial = jnp.concatenate([apply(b[:, flag : flag + 1], i) for flag, i in enumerate(place)], axis=1)
        return initial + _correction(b, layer_of(self.pulls, ell), layer_of(self.features, ell))

    def learn(self, features: Callable, pulls: Callable, step: Array, depth: Array) -> "Factored":
        """With the samples of `step` remembered in the first `depth` layers."""

        def remember(ell, stacks):
            zero = jnp.zeros_like(ell)

            def put(stack, new):
                row = (step * new.shape[-2]).astype(ell.dtype)
                return jax.lax.dynamic_update_slice(stack, new[None], (ell, zero, zero, zero, row, zero))

            return put(stacks[0], features(ell)), put(stacks[1], pulls(ell))

        stacks = jax.lax.fori_loop(0, depth, remember, (self.features, self.pulls))
        return eqx.tree_at(lambda self: (self.features, self.pulls), self, stacks)


def _initial(product: str, x: Queries, W: Float[Array, "S n n"]) -> Queries:
    """Rows of all networks of a seed in one product; left as separate axes, XLA would transpose W in memory for them."""
    return jnp.einsum(product, x.reshape(x.shape[0], -1, x.shape[-1]), W).reshape(x.shape)


def _correction(x: Queries, asked: Float[Array, "S F R A n"], answers: Float[Array, "S F R A n"]) -> Queries:
    """Σ_i answers_i (asked_i·x)."""
    overlaps = jnp.einsum("sfrqn,sfran->sfrqa", x, asked)
    return jnp.einsum("sfrqa,sfran->sfrqn", overlaps, answers)
