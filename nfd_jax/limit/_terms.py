"""Neural Feature Dynamics as a controlled differential equation, in diffrax's terms.

For one SGD step, with ⟨·⟩ averages over particles and i the samples of earlier steps,

    dh       = −η T Σ_i s_i ⟨φ(h^i) φ(h)⟩ b^i dt + √T dw                      forward in t, from h(0) = U x/√d
    db/dτ    = φ'(h) ⊙ { −η T Σ_i s_i ⟨b^i b⟩ φ(h^i) + √T dw̃/dτ }            in τ = 1 − t, from b(τ=0) = V χ/s

w has covariation ⟨φφ⟩ dt with all earlier w^i (w̃: ⟨bb⟩ dτ). It is a linear image of increments: of the Brownian motions dB of
this step's queries and dB^i of earlier ones; with reused weights also of dB', those of the other family's queries:

    √n dw = C (dB^i + dM Q') + R (dB + dm Q')      dm = ρ (q dB'ᵀ − dB Q'ᵀ)
    reused weights: ρ = 1        independent ones: ρ = 0

where C, R and q resolve the queries against earlier ones and dM holds the dm of their time (`gaussian`). h depends on the backward
noise of earlier steps from all of [0, 1], so this is no Itô equation in one filtration: the Euler scheme on the stored grid defines
it, and only that is used.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from nfd_jax._types import LayerRows, Rows, Scalar
from nfd_jax.activations import activation
from nfd_jax.gaussian import Answers, Basis, Split, coupled_part, draw, images, split, split_discarded
from nfd_jax.noise import BACKWARD, FORWARD, AbstractNoise
from nfd_jax.problem import Problem
from nfd_jax.training import History, at_layer


class Increments(eqx.Module):
    """What drives one Euler step, in units of √Δt: dB (P, n), the dB^i and dB' (A, n) of all queries, and dM (A, A)."""

    unit: Scalar
    fresh: Rows
    own: Float[Array, "A n"]
    other: Float[Array, "A n"]
    correction: Float[Array, "A A"]


class DrivingPath(diffrax.AbstractPath):
    """The Brownian motions behind a pass on its grid of M equal steps: of its own queries, and of all others through `noise`.

    `xi` (M, P, n) are standard normals; `correction` (M, A, A) is what earlier queries of this family left.
    """

    xi: LayerRows
    noise: AbstractNoise
    correction: Float[Array, "M A A"]
    reverse: bool = eqx.field(static=True)

    @property
    def t0(self):
        return 0.0

    @property
    def t1(self):
        return 1.0

    def evaluate(self, t0, t1=None, left=True) -> Increments:
        """The increment over the grid step that starts at t0."""
        steps, own, other = self.xi.shape[0], *((BACKWARD, FORWARD) if self.reverse else (FORWARD, BACKWARD))
        i, unit = grid_index(t0, steps, self.reverse), 1 / jnp.sqrt(jnp.asarray(steps, self.xi.dtype))
        fresh, correction = at_layer((self.xi, self.correction), i)
        return Increments(unit, fresh, self.noise.layer(own, i), self.noise.layer(other, i), correction)


class Pull(eqx.Module):
    """What a vector field sees besides the state: the history by layer, η s_i by row and sample, h for the backward pass."""

    problem: Problem
    history: History
    weights: Float[Array, "P A"]
    features: LayerRows | None


class NoiseOperator(lx.AbstractLinearOperator):
    """√T dw as a linear map of the increments, times φ' in the backward pass."""

    parts: Split
    own: Basis
    other: Basis
    scale: Array
    slope: Rows | None
    reuse: Scalar

    def draw(self, increments: Increments) -> tuple[Array, Array]:
        """dm of the new directions and, in it, their responses to the other family."""
        return draw(self.parts.q, self.parts.noise(increments.fresh), self.other.q, increments.other, self.reuse)

    def answers(self, increments: Increments) -> Answers:
        """What to remember of the queries."""
        return Answers(self.parts.q, *self.draw(increments), self.parts.known, self.parts.new)

    def mv(self, vector: Increments) -> Rows:
        correction, _ = self.draw(vector)
        fresh = self.parts.noise(vector.fresh)
        return self._enter(images(self.parts, fresh, correction, vector.own, vector.correction, self.other.q), vector.unit)

    def coupling(self, increments: Increments) -> Rows:
        """The coupling inside `mv`."""
        _, response = self.draw(increments)
        return self._enter(coupled_part(self.parts, response, self.own.response, self.other.q), increments.unit)

    def _enter(self, answer: Rows, unit: Scalar) -> Rows:
        return unit * self.scale * (answer if self.slope is None else self.slope * answer)

    def as_matrix(self):
        raise ValueError("the noise operator acts on increments and is never formed as a matrix")

    def transpose(self):
        raise ValueError("the noise operator has no transpose: the backward pass has an operator of its own")

    def in_structure(self):
        shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        every = self.scale, self.parts.q, self.own.q, self.other.q, self.own.correction
        return Increments(*map(shape, every))

    def out_structure(self):
        return jax.ShapeDtypeStruct(self.parts.q.shape, self.parts.q.dtype)


for _property in (lx.is_symmetric, lx.is_positive_semidefinite, lx.is_negative_semidefinite):
    _property.register(NoiseOperator)(lambda operator: False)


def grid_index(t: Array, steps: int, reverse: bool) -> Array:
    """The layer (from 0) between t and t + Δt; in reversed time τ = 1 − t the layers come last to first."""
    index = jnp.round(t * steps).astype(int)
    return steps - 1 - index if reverse else index


def _layer(t: Array, pull: Pull, reverse: bool) -> History:
    return at_layer(pull.history, grid_index(t, pull.history.forward.q.shape[0], reverse))


def _noise(problem: Problem, own: Basis, other: Basis, x: Rows, slope: Rows | None, reuse: Scalar, discard: bool = False) -> NoiseOperator:
    scale = jnp.sqrt(problem.horizon / x.shape[1])
    return NoiseOperator((split_discarded if discard else split)(own.q, x), own, other, scale, slope, reuse)


class ForwardDrift(eqx.Module):
    """−η T Σ_i s_i ⟨φ(h^i) φ(h)⟩ b^i: what training has done to the weights, as h meets it."""

    def __call__(self, t, h, pull: Pull) -> Rows:
        past = _layer(t, pull, reverse=False)
        x = activation(pull.problem.activation).value(h)
        return -pull.problem.horizon * past.backward.combine(pull.weights * past.forward.overlaps(x) / h.shape[1])


class ForwardNoise(eqx.Module):
    """√T dw of the forward equation as an operator on increments."""

    reuse: Scalar
    discard: bool = eqx.field(static=True)

    def __call__(self, t, h, pull: Pull) -> NoiseOperator:
        past = _layer(t, pull, reverse=False)
        x = activation(pull.problem.activation).value(h)
        return _noise(pull.problem, past.forward, past.backward, x, None, self.reuse, self.discard)


class BackwardDrift(eqx.Module):
    """−η T φ'(h) ⊙ Σ_i s_i ⟨b^i b⟩ φ(h^i), with h and φ' at the left end of the step in t."""

    def __call__(self, tau, b, pull: Pull) -> Rows:
        past = _layer(tau, pull, reverse=True)
        drift = past.forward.combine(pull.weights * past.backward.overlaps(b) / b.shape[1])
        return -pull.problem.horizon * _slope(tau, pull) * drift


class BackwardNoise(eqx.Module):
    """√T φ'(h) ⊙ dw̃ of the backward equation as an operator on increments."""

    reuse: Scalar

    def __call__(self, tau, b, pull: Pull) -> NoiseOperator:
        past = _layer(tau, pull, reverse=True)
        return _noise(pull.problem, past.backward, past.forward, b, _slope(tau, pull), self.reuse)


def _slope(tau, pull: Pull) -> Rows:
    h = at_layer(pull.features, grid_index(tau, pull.features.shape[0], reverse=True))
    return activation(pull.problem.activation).derivative(h)
