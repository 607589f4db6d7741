"""What SGD leaves behind of its steps, so that the next can be taken: the two memories of `training.train`.

`Exact` keeps every sample. After the updates of all earlier samples i a query meets, besides α_k times the
initial weights,

    ΔU x/√d = γ Σ_i c_i s_i b_{0,i} (x_i·x)/d          ΔV = γ Σ_i c_i h_{L,i} χ_iᵀ
    a n^{-1/2} ΔW_ℓ φ = γ a² Σ_i c_i s_i b_{ℓ,i} (φ_{ℓ-1,i}·φ)/n

with α_k and c_i = c_{k,i} the optimizer's coefficients (`optimizers`; plain SGD: 1 and −η) and γ the
richness.

`Bounded` takes runs of any length. What training adds to a hidden matrix is Q'ᵀ D Q, with a core D (R', R) in
the bases of its two families of queries: no sample's own coordinates are needed, so that memory and the cost
of a step depend on the number R of directions alone. The optimizer acts on D, on α, and on U and V, which are
held. What is not remembered is measured: `history_residual` is the largest part of a query, relative to its
norm, that was left out. On a fixed pool of samples queries come to lie in a space of few directions.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from nfd_jax import optimizers
from nfd_jax._types import Index, LayerRows, Rows, Scalar
from nfd_jax.checks import as_number, as_size
from nfd_jax.gaussian import Answers
from nfd_jax.history import BoundedHistory, History, Learned
from nfd_jax.noise import AbstractNoise
from nfd_jax.problem import Problem


class Step(NamedTuple):
    """A step as it is learned from: inputs `x` (Q, d), signals `s` (Q,), 0 for rows that are not learned
    from, χ (P, C) of those that are, `first` b_0 and `last` h_L (Q, n), and what `hear` made of each pass."""

    x: Float[Array, "Q d"]
    s: Float[Array, " Q"]
    chi: Float[Array, "P C"]
    first: Float[Array, "Q n"]
    last: Float[Array, "Q n"]
    heard: tuple[Any, Any]


class Samples(NamedTuple):
    """State of `Exact`: by sample, zero until its step comes, s, b_0, h_L and χ; A = K·P."""

    history: History
    s: Float[Array, " A"]
    first: Float[Array, "A n"]
    last: Float[Array, "A n"]
    chi: Float[Array, "A C"]


class Exact:
    """Every sample is remembered, and weighed by the optimizer's coefficients. Questions are asked after
    training, given all of it."""

    asks_along = False

    def __init__(self, problem: Problem, noise: AbstractNoise):
        self.problem, self.noise = problem, noise
        self.inputs = problem.inputs.reshape(problem.samples, -1)
        self.embedded = embed(self.inputs, noise.U)
        self.gram = self.inputs @ self.inputs.T / problem.input_dim
        self.hidden = self._coefficients(True)
        self.ends = self.hidden if problem.train == "all" else self._coefficients(False)

    def _coefficients(self, learns: bool) -> tuple[Float[Array, " K"], Float[Array, "K A"]]:
        """By step, a matrix's scale α_k and γ c_{k,i} of every sample."""
        problem = self.problem
        settings = problem.optimizer, problem.learning_rate, problem.steps
        alpha, steps = optimizers.coefficients(*settings, learns=learns)
        return alpha, problem.richness * jnp.repeat(steps, problem.batch_size, axis=1)

    def begin(self) -> Samples:
        """Nothing learned yet; with room for what is asked under the initial weights first."""
        samples, width, dtype = self.problem.samples, self.noise.width, self.problem.dtype
        zeros = lambda *shape: jnp.zeros(shape, dtype)
        offset = samples if self.problem.asks_first else 0
        history = History.empty(self.noise.depth, samples, width, dtype, offset=offset)
        ends = zeros(samples, width), zeros(samples, width)
        return Samples(history, zeros(samples), *ends, zeros(samples, self.problem.outputs))

    def meets(
        self, state: Samples, x: Float[Array, "Q d"], k: Index, initial: Bool[Array, " Q"] | None = None
    ) -> tuple[Rows, Learned]:
        """h_0 of inputs `x`, and what training has made of the hidden matrices, before update `k` (a number,
        or one for each row); the initial weights for rows that `initial` names."""
        k = k if initial is None else jnp.where(initial, 0, k)
        of_row = lambda scale: scale[:, None] if scale.ndim else scale
        (scale, c), (hidden_scale, hidden_c) = self.ends, self.hidden
        if initial is None and jnp.ndim(k) == 0:  # the step's own samples, whose products are known
            here = lambda every: jax.lax.dynamic_slice_in_dim(every, k * x.shape[0], x.shape[0])
            embedded, inner = here(self.embedded), here(self.gram)
        else:
            embedded, inner = embed(x, self.noise.U), x @ self.inputs.T / self.problem.input_dim
        h0 = of_row(scale[k]) * embedded + (c[k] * state.s * inner) @ state.first
        return h0, Learned(of_row(hidden_scale[k]), jnp.atleast_2d(hidden_c[k] * state.s))

    def readout(self, state: Samples, k: Index) -> Float[Array, "C n"]:
        """Vᵀ before update `k`."""
        scale, c = self.ends
        return scale[k] * self.noise.V.T + (c[k] * state.chi.T) @ state.last

    def hear(
        self, state: Samples, answers: Answers, xi: LayerRows, k: Index, *, transpose: bool
    ) -> tuple[Samples, None]:
        row = k * self.problem.batch_size
        return state._replace(history=state.history.remember(answers, row, transpose=transpose)), None

    def learn(self, state: Samples, step: Step, k: Index) -> tuple[Samples, dict[str, Array]]:
        """With the step's own rows filled in."""
        now = k * self.problem.batch_size
        put = lambda every, block: jax.lax.dynamic_update_slice_in_dim(every, block, now, axis=0)
        blocks = step.s, step.first, step.last, step.chi
        return Samples(state.history, *map(put, state[1:], blocks)), {}


class Held(NamedTuple):
    """State of `Bounded`: the history, with the core D in it, α, U and V, and the optimizer's own state."""

    history: BoundedHistory
    scale: Scalar
    U: Float[Array, "n d"]
    V: Float[Array, "n C"]
    optimizer: Any


class Bounded:
    """At most `directions` queries a family and layer are remembered, and the optimizer acts on what is held.
    Questions are asked in each step, given what is remembered by then."""

    asks_along = True

    def __init__(self, problem: Problem, noise: AbstractNoise, directions: int, tolerance: float):
        self.problem, self.noise = problem, noise
        self.directions, self.tolerance = directions, tolerance
        self.rule = optimizers.transformation(problem.optimizer, problem.learning_rate)

    def begin(self) -> Held:
        noise, dtype = self.noise, self.problem.dtype
        sizes = noise.depth, self.directions, noise.width
        history = BoundedHistory.empty(*sizes, dtype, self.tolerance)
        start = Held(history, jnp.ones((), dtype), noise.U, noise.V, None)
        return start._replace(optimizer=self.rule.init(self._parameters(start)))

    def _parameters(self, state: Held) -> dict[str, Array]:
        """What the optimizer changes."""
        ends = {"U": state.U, "V": state.V} if self.problem.train == "all" else {}
        return {"scale": state.scale, "core": state.history.core} | ends

    def meets(
        self, state: Held, x: Float[Array, "Q d"], k: Index, initial: Bool[Array, " Q"] | None = None
    ) -> tuple[Rows, Learned]:
        """As of `Exact`, in the current step alone."""
        h0 = embed(x, state.U)
        if initial is None:
            return h0, Learned(state.scale, jnp.ones((1, 1), x.dtype))
        first = initial[:, None]
        h0 = jnp.where(first, embed(x, self.noise.U), h0)
        return h0, Learned(jnp.where(first, 1, state.scale), (~first).astype(x.dtype))

    def readout(self, state: Held, k: Index) -> Float[Array, "C n"]:
        """Vᵀ in the current step."""
        return state.V.T

    def hear(
        self, state: Held, answers: Answers, xi: LayerRows, k: Index, *, transpose: bool
    ) -> tuple[Held, tuple[Array, Array]]:
        """Also the queries' coordinates (L, Q, R), and the relative norm (L, Q) of what was left out."""
        history, coordinates, left_out = state.history.remember(answers, xi, transpose=transpose)
        return state._replace(history=history), (coordinates, left_out)

    def learn(self, state: Held, step: Step, k: Index) -> tuple[Held, dict[str, Array]]:
        """After the optimizer's update."""
        gamma, rows = self.problem.richness, self.problem.batch_size
        (x_coordinates, lost), (u_coordinates, lost_back) = step.heard
        gradient = {
            "scale": jnp.zeros_like(state.scale),
            "core": gamma * jnp.einsum("lpb,p,lpa->lba", u_coordinates, step.s, x_coordinates),
        }
        if self.problem.train == "all":
            gradient["U"] = gamma * (step.s[:, None] * step.first).T @ step.x / root_dim(step.x)
            gradient["V"] = gamma * step.last[:rows].T @ step.chi
        after, optimizer = optimizers.apply(self.rule, gradient, state.optimizer, self._parameters(state))
        history = eqx.tree_at(lambda h: h.core, state.history, after["core"])
        ends = after.get("U", state.U), after.get("V", state.V)
        left_out = jnp.maximum(lost[:, :rows].max(), lost_back[:, :rows].max())
        return Held(history, after["scale"], *ends, optimizer), {"history_residual": left_out}


def root_dim(x: Float[Array, "Q d"]) -> Scalar:
    """√d of inputs."""
    return jnp.sqrt(jnp.asarray(x.shape[1], x.dtype))


def embed(x: Float[Array, "Q d"], U: Float[Array, "n d"]) -> Rows:
    """U x/√d of every row x."""
    return x @ U.T / root_dim(x)


def bounded_tolerance(received: Any) -> float:
    """The `tolerance` of a bounded history; ValueError on what it cannot be."""
    return float(as_number("tolerance", received, "a number from 0 to below 1", least=0, below=1))


def check_memory(problem: Problem, width: int, directions: Any = None, tolerance: Any = 0.0) -> None:
    """Raise ValueError where there are fewer coordinates than directions, and on `directions` and `tolerance`
    that a bounded history cannot have."""
    if directions is None:
        again = problem.asks_first
        needed = problem.samples * (2 if again else 1)
        if needed > width:
            why = "2 × steps × batch size (centered outputs)" if again else "steps × batch size"
            raise ValueError(
                f"width or particles {width} is too small for {why} = {needed} queries: the matrix-free form "
                "and the limit need as many coordinates as queries; raise it, bound the history "
                "(directions=), or take the dense simulator"
            )
        return
    directions = as_size("directions", directions)
    if not problem.batch_size <= directions <= width:
        allowed = f"from the batch size, {problem.batch_size}, to the width, {width}"
        raise ValueError(f"directions must be an integer {allowed}; received {directions}")
    bounded_tolerance(tolerance)
    if problem.asks_first:
        raise ValueError(
            "centered outputs with a bounded history need the same batch at every step; leave directions or "
            "centered out"
        )
