"""A finite network without its weight matrices: exact in law, O(n) a layer and sample.

    forward    h_ℓ     = h_{ℓ-1} + a n^{-1/2} W_ℓ φ(h_{ℓ-1}) − η a² Σ_i s_i ⟨φ_{ℓ-1,i} φ_{ℓ-1}⟩ b_{ℓ,i}
    backward   b_{ℓ-1} = b_ℓ + φ'(h_{ℓ-1}) ⊙ { a n^{-1/2} W_ℓᵀ b_ℓ − η a² Σ_i s_i ⟨b_{ℓ,i} b_ℓ⟩ φ_{ℓ-1,i} }

with a = √(T/L), W_ℓ the initial weights, answered by `gaussian`, ⟨·⟩ averages over coordinates and i the samples of earlier
steps. A forward pass knows earlier backward queries; a backward pass knows its own step's forward queries too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax._types import Rows, Scalar
from nfd_jax.activations import activation
from nfd_jax.gaussian import Answers, Basis, coupled_part, draw, images, split, split_discarded
from nfd_jax.noise import BACKWARD, FORWARD
from nfd_jax.parametrization import block
from nfd_jax.problem import Problem
from nfd_jax.training import Interior, Pass, at_layer


class MatrixFree(Interior):
    """The passes of one network; `reuse` is 1 where the backward pass uses the forward weights' transpose, else 0.

    `depth` L may be traced and smaller than the noise has layers: one compiled program serves many depths, whose unused layers
    stay zero and are never visited.
    """

    problem: Problem
    reuse: Scalar
    depth: int | Array

    def _query(self, own: Basis, own_xi: Array, other: Basis, other_xi: Array, x: Rows, xi: Rows, discard: bool = False):
        """Image of x under W(0), what to remember of the new directions, and how to get the coupling inside the image."""
        parts = split_discarded(own.q, x) if discard else split(own.q, x)
        fresh = parts.noise(xi)
        correction, response = draw(parts.q, fresh, other.q, other_xi, self.reuse)
        answer = images(parts, fresh, correction, own_xi, own.correction, other.q)
        new = Answers(parts.q, correction, response, parts.known, parts.new)
        return answer, new, lambda: coupled_part(parts, response, own.response, other.q)

    def _block(self, width: int):
        a, skip = block(self.problem.parametrization, self.problem.horizon, self.depth)
        return activation(self.problem.activation), a, skip, a / jnp.sqrt(jnp.asarray(width, a.dtype))

    def forward(self, h0, xi, pull, history, noise, *, coupling=False, discard=False) -> Pass:
        layers, rows, width = xi.shape
        phi, a, skip, gain = self._block(width)

        def layer(i, done: Pass) -> Pass:
            h, past = done.path[i], at_layer(history, i)
            x = phi.value(h)
            families = past.forward, noise.layer(FORWARD, i), past.backward, noise.layer(BACKWARD, i)
            answer, new, coupled = self._query(*families, x, xi[i], discard)
            drift = past.backward.combine(pull * past.forward.overlaps(x) / width)
            h = skip * h + gain * answer - a**2 * drift
            return done.put(i, i + 1, h, new, gain * coupled() if coupling else None)

        start = Pass.empty(layers, rows, history, coupling).begin(0, h0)
        return jax.lax.fori_loop(0, self.depth, layer, start)

    def backward(self, b1, h, xi, pull, history, noise, *, coupling) -> Pass:
        layers, rows, width = xi.shape
        phi, a, skip, gain = self._block(width)

        def layer(j, done: Pass) -> Pass:
            i = self.depth - 1 - j
            b, past = done.path[i + 1], at_layer(history, i)
            families = past.backward, noise.layer(BACKWARD, i), past.forward, noise.layer(FORWARD, i)
            answer, new, coupled = self._query(*families, b, xi[i])
            drift = past.forward.combine(pull * past.backward.overlaps(b) / width)
            slope = phi.derivative(h[i])
            b = skip * b + slope * (gain * answer - a**2 * drift)
            return done.put(i, i, b, new, slope * gain * coupled() if coupling else None)

        start = Pass.empty(layers, rows, history, coupling).begin(self.depth, b1)
        return jax.lax.fori_loop(0, self.depth, layer, start)
