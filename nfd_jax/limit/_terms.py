"""Neural Feature Dynamics as a controlled differential equation, in diffrax's terms.

For one SGD step, with ⟨·⟩ averages over particles and i the samples of earlier steps,

    dh       = γ T Σ_i c_i s_i ⟨φ(h^i) φ(h)⟩ b^i dt + α √T dw              forward in t, from h(0) = U x/√d
    db/dτ    = φ'(h) ⊙ { γ T Σ_i c_i s_i ⟨b^i b⟩ φ(h^i) + α √T dw̃/dτ }    in τ = 1 − t, from b(τ=0) = V χ/s

(plain SGD: c = −η, α = 1). w has covariation ⟨φφ⟩ dt with all earlier w^i (w̃: ⟨bb⟩ dτ). It is a linear image
of increments: of the Brownian motions dB of this step's queries and dB^i of earlier ones; with reused weights
also of dB', those of the other family's queries:

    √n dw = C (dB^i + dM Q') + R (dB + dm Q')      dm = ρ (q dB'ᵀ − dB Q'ᵀ)
    reused weights: ρ = 1        independent ones: ρ = 0

where C, R and q resolve the queries against earlier ones and dM holds the dm of their time (`gaussian`). h
depends on the backward noise of earlier steps from all of [0, 1], so this is no Itô equation in one
filtration: the Euler scheme on the stored grid defines it, and only that is used. Its step is
`parametrization`'s with a² = T dt. Time is counted in steps of that grid, u = t M, where the last step's end
is exact in every precision: T dt is then (T/M) du.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from nfd_jax._indexing import at
from nfd_jax._sizes import Sizes
from nfd_jax._types import LayerRows, Rows, Scalar
from nfd_jax.activations import resolve
from nfd_jax.gaussian import Answer, Split
from nfd_jax.history import BoundedHistory, History, Layer, Learned
from nfd_jax.noise import AbstractNoise
from nfd_jax.problem import Problem


class Increments(eqx.Module):
    """What drives one Euler step, in units of √dt: dB (P, n), and the dB^i and dB' (A, n) of all queries of
    the two families."""

    unit: Scalar
    fresh: Rows
    forward: Float[Array, "A n"]
    backward: Float[Array, "B n"]


class DrivingPath(diffrax.AbstractPath):
    """The Brownian motions behind a pass on its grid of M equal steps: `xi` (M, P, n) of its own queries, all
    others in `noise`."""

    xi: LayerRows
    noise: AbstractNoise
    history: History | BoundedHistory
    reverse: bool = eqx.field(static=True)

    @property
    def t0(self):
        return 0.0

    @property
    def t1(self):
        return 1.0

    def evaluate(self, t0, t1=None, left=True) -> Increments:
        """The increment over the grid step that starts at t0."""
        steps, dtype = self.xi.shape[0], self.xi.dtype
        i = grid_index(t0, steps, self.reverse)
        unit = 1 / jnp.sqrt(jnp.asarray(steps, dtype))
        forward = self.history.forward_noise(self.noise, i)
        return Increments(unit, at(self.xi, i), forward, self.history.backward_noise(self.noise, i))


class Seen(eqx.Module):
    """What a vector field sees besides the state: the history by layer and the weights it has come to, h for
    the backward pass."""

    problem: Problem
    sizes: Sizes
    history: History | BoundedHistory
    noise: AbstractNoise
    learned: Learned
    reuse: Scalar
    features: LayerRows | None

    @property
    def rate(self) -> Array:
        """T/M."""
        return self.problem.horizon / self.history.forward.q.shape[0]

    def layer(self, t: Array, reverse: bool) -> Layer:
        """The layer that begins at time t."""
        i = grid_index(t, self.history.forward.q.shape[0], reverse)
        return self.history.layer(i, self.noise, self.learned, self.sizes.width, self.reuse)

    def query(self, h: Rows) -> Rows:
        """φ(h)."""
        return self.sizes.cut(resolve(self.problem.activation).value(h))

    def slope(self, tau: Array) -> Rows:
        """φ' at the left end of the step in t."""
        h = at(self.features, grid_index(tau, self.features.shape[0], reverse=True))
        return self.sizes.cut(resolve(self.problem.activation).derivative(h))


class NoiseOperator(lx.AbstractLinearOperator):
    """α √T dw as a linear map of the increments, times φ' in the backward pass."""

    parts: Split
    layer: Layer
    sizes: Sizes
    scale: Array
    slope: Rows | None
    transpose_: bool = eqx.field(static=True)

    def answer(self, increments: Increments) -> Answer:
        """The answer of the layer's matrix on these increments."""
        layer = eqx.tree_at(
            lambda x: (x.forward_xi, x.backward_xi), self.layer, (increments.forward, increments.backward)
        )
        return layer.answer(self.parts, increments.fresh, transpose=self.transpose_)

    def mv(self, vector: Increments) -> Rows:
        return self.enter(self.answer(vector).image, vector.unit)

    def enter(self, image: Rows, unit: Scalar) -> Rows:
        """An image as it enters the path."""
        return self.sizes.cut(unit * self.scale * (image if self.slope is None else self.slope * image))

    def as_matrix(self):
        raise ValueError("the noise operator acts on increments and is never formed as a matrix")

    def transpose(self):
        raise ValueError("the noise operator has no transpose: the backward pass has an operator of its own")

    def in_structure(self):
        shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        return Increments(
            *map(shape, (self.scale, self.parts.q, self.layer.forward_xi, self.layer.backward_xi))
        )

    def out_structure(self):
        return jax.ShapeDtypeStruct(self.parts.q.shape, self.parts.q.dtype)


for _property in (lx.is_symmetric, lx.is_positive_semidefinite, lx.is_negative_semidefinite):
    _property.register(NoiseOperator)(lambda operator: False)


def grid_index(t: Array, steps: int, reverse: bool) -> Array:
    """The layer (from 0) that begins at time t, counted in steps; in reversed time the layers come last to
    first."""
    index = jnp.round(t).astype(int)
    return steps - 1 - index if reverse else index


class ForwardDrift(eqx.Module):
    """T Σ_i c_i s_i ⟨φ(h^i) φ(h)⟩ b^i: what training has done to the weights, as h meets it."""

    def __call__(self, t, h, seen: Seen) -> Rows:
        return seen.rate * seen.layer(t, reverse=False).drift(seen.query(h), transpose=False)


class ForwardNoise(eqx.Module):
    """α √T dw of the forward equation as an operator on increments."""

    discard: bool = eqx.field(static=True)

    def __call__(self, t, h, seen: Seen) -> NoiseOperator:
        layer = seen.layer(t, reverse=False)
        parts = layer.resolve(seen.query(h), transpose=False, discard=self.discard)
        return NoiseOperator(parts, layer, seen.sizes, jnp.sqrt(seen.problem.horizon), None, False)


class BackwardDrift(eqx.Module):
    """T φ'(h) ⊙ Σ_i c_i s_i ⟨b^i b⟩ φ(h^i), with h and φ' at the left end of the step in t."""

    def __call__(self, tau, b, seen: Seen) -> Rows:
        return seen.rate * seen.slope(tau) * seen.layer(tau, reverse=True).drift(b, transpose=True)


class BackwardNoise(eqx.Module):
    """α √T φ'(h) ⊙ dw̃ of the backward equation as an operator on increments."""

    discard: bool = eqx.field(static=True)

    def __call__(self, tau, b, seen: Seen) -> NoiseOperator:
        layer = seen.layer(tau, reverse=True)
        parts = layer.resolve(b, transpose=True, discard=self.discard)
        scale, slope = jnp.sqrt(seen.problem.horizon), seen.slope(tau)
        return NoiseOperator(parts, layer, seen.sizes, scale, slope, True)
