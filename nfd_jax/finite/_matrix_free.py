"""A finite network without its weight matrices: exact in law, O(n) a layer and sample.

    forward    h_ℓ     = h_{ℓ-1} + a n^{-1/2} W_ℓ φ(h_{ℓ-1}) − η a² Σ_i s_i ⟨φ_{ℓ-1,i} φ_{ℓ-1}⟩ b_{ℓ,i}
    backward   b_{ℓ-1} = b_ℓ + φ'(h_{ℓ-1}) ⊙ { a n^{-1/2} W_ℓᵀ b_ℓ − η a² Σ_i s_i ⟨b_{ℓ,i} b_ℓ⟩ φ_{ℓ-1,i} }

with a = √(T/L), W_ℓ the initial weights, answered by `gaussian`, ⟨·⟩ averages over coordinates and i the samples of earlier
steps. A forward pass knows earlier backward queries; a backward pass knows its own step's forward queries too.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax._sgd import History, Pass
from nfd_jax._types import LayerRows, Rows, Scalar
from nfd_jax.activations import activation
from nfd_jax.gaussian import Basis, coupled_part, draw, split
from nfd_jax.parametrization import block
from nfd_jax.problem import Problem


class MatrixFree(eqx.Module):
    """The passes of one network; `reuse` is 1 where the backward pass uses the forward weights' transpose, else 0."""

    problem: Problem
    reuse: Scalar

    def _query(self, own: Basis, other: Basis, x: Rows, xi: Rows, coupling: bool):
        """Image of x under W(0), the new directions to remember, and the part of the image that is coupling."""
        parts = split(own.q, x)
        image, response = draw(parts.q, xi, other.q, other.image, self.reuse)
        answer = parts.known @ own.image + parts.new @ image
        coupled = coupled_part(parts, response, own.response, other.q) if coupling else None
        return answer, (parts.q, image, response), coupled

    def forward(self, h0: Rows, xi: LayerRows, pull: Array, history: History, *, coupling: bool) -> Pass:
        layers, _, width = xi.shape
        phi = activation(self.problem.activation)
        a, skip = block(self.problem.parametrization, self.problem.horizon, layers)
        gain = a / jnp.sqrt(jnp.asarray(width, h0.dtype))

        def layer(h, at):
            past, xi = at
            x = phi.value(h)
            answer, new, coupled = self._query(past.forward, past.backward, x, xi, coupling)
            drift = (pull * (x @ past.features.T) / width) @ past.gradients
            h = skip * h + gain * answer - a**2 * drift
            return h, (h, new, None if coupled is None else gain * coupled)

        _, (path, new, coupled) = jax.lax.scan(layer, h0, (history, xi))
        return Pass(jnp.concatenate([h0[None], path]), *new, coupled)

    def backward(self, b1: Rows, h: Array, xi: LayerRows, pull: Array, history: History, *, coupling: bool) -> Pass:
        layers, _, width = xi.shape
        phi = activation(self.problem.activation)
        a, skip = block(self.problem.parametrization, self.problem.horizon, layers)
        gain = a / jnp.sqrt(jnp.asarray(width, b1.dtype))

        def layer(b, at):
            past, xi, h = at
            answer, new, coupled = self._query(past.backward, past.forward, b, xi, coupling)
            drift = (pull * (b @ past.gradients.T) / width) @ past.features
            slope = phi.derivative(h)
            b = skip * b + slope * (gain * answer - a**2 * drift)
            return b, (b, new, None if coupled is None else slope * gain * coupled)

        _, (path, new, coupled) = jax.lax.scan(layer, b1, (history, xi, h[:-1]), reverse=True)
        return Pass(jnp.concatenate([path, b1[None]]), *new, coupled)
