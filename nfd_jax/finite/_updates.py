"""How a network with matrices learns from one step: three ways to the same numbers.

    Coordinates    factored weights: the batch is remembered, and the optimizer's coefficients weigh it
    InPlace        explicit weights under plain SGD: each layer rewritten where it lies
    General        explicit weights under any optax transformation, which sees U, V and all W at once

Each has `begin`, the optimizer's first state; `at`, the weights as step k meets them; `learn`, one update.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import optimizers
from nfd_jax._indexing import at, put
from nfd_jax._types import Index
from nfd_jax.finite._hidden import Explicit, Factored, Units
from nfd_jax.problem import Problem


class Ends(NamedTuple):
    """Input weights `U` (n, d) and readout weights `V` (n, C), or gradients in them."""

    U: Float[Array, "n d"]
    V: Float[Array, "n C"]


class Batch(NamedTuple):
    """What a step's gradients are made of: by layer, `features(ℓ)` φ_p and `signals(ℓ)` γ s_p b_p (P, n),
    with `gain` = a n^{-1/2}.

    `layers` is how many layers there are to update: 0 after the last step, whose update affects no output.
    """

    ends: Ends
    features: Callable
    signals: Callable
    gain: Array
    layers: int | Array


class Update:
    """What the three have in common: the optimizer, which acts on U and V itself."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.rule = optimizers.transformation(problem.optimizer, problem.learning_rate)

    def begin(self, ends: Ends, hidden: Any) -> Any:
        return self.rule.init(ends)

    def at(self, hidden: Any, k: Index) -> Any:
        return hidden

    def ends(self, ends: Ends, gradient: Ends, state: Any) -> tuple[Ends, Any]:
        """U and V after the update, where they learn, and the optimizer's state."""
        if self.problem.train == "hidden":
            return ends, state
        return optimizers.apply(self.rule, gradient, state, ends)


class Coordinates(Update):
    """For `Factored`."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        settings = problem.optimizer, problem.learning_rate, problem.steps
        self.coefficients = optimizers.coefficients(*settings)

    def at(self, hidden: Factored, k: Index) -> Factored:
        weights = jnp.repeat(
            self.coefficients.steps[k], self.problem.batch_size, total_repeat_length=self.problem.samples
        )
        return eqx.tree_at(lambda h: (h.scale, h.weights), hidden, (self.coefficients.alpha[k], weights))

    def learn(
        self, ends: Ends, hidden: Factored, state: Any, batch: Batch, k: Index
    ) -> tuple[Ends, Factored, Any]:
        hidden = hidden.remember(batch.features, batch.signals, k * self.problem.batch_size, batch.layers)
        ends, state = self.ends(ends, batch.ends, state)
        return ends, hidden, state


class InPlace(Update):
    """For `Explicit` under plain SGD."""

    def learn(
        self, ends: Ends, hidden: Explicit, state: Any, batch: Batch, k: Index
    ) -> tuple[Ends, Explicit, Any]:
        rate = self.problem.learning_rate * batch.gain

        def update(ell, W):
            change = (rate * batch.signals(ell)).T @ batch.features(ell)
            return put(W, at(W, ell) - change, ell)

        # A loop of its own: inside the backward pass, reading and writing one layer makes XLA copy the whole
        # stack.
        W = jax.lax.fori_loop(0, batch.layers, update, hidden.W)
        hidden = eqx.tree_at(lambda h: h.W, hidden, W)
        ends, state = self.ends(ends, batch.ends, state)
        return ends, hidden, state


class General(Update):
    """For `Explicit` under any transformation: of U, V and W in the units of `Units`, and of their gradients,
    so that a rule which happens to be linear moves them as it would in any.

    Backward weights of their own get W's gradients, and whatever else the rule does to a matrix. A linear one
    scales what they differ by, as its coefficient α tells; under others they are a parameter, `W_backward`.
    """

    def __init__(self, problem: Problem, units: Units):
        super().__init__(problem)
        self.units = units
        self.linear = optimizers.is_linear(problem.optimizer)

    def _parameters(self, ends: Ends, hidden: Explicit) -> dict:
        found = {"W": hidden.W / self.units.hidden}
        if self.linear:
            found["scale"] = hidden.scale
        elif hidden.gap is not None:
            found["W_backward"] = (hidden.W + hidden.gap) / self.units.hidden
        if self.problem.train == "all":
            found |= {"U": ends.U / self.units.ends, "V": ends.V / self.units.ends}
        return found

    def begin(self, ends: Ends, hidden: Explicit) -> Any:
        return self.rule.init(self._parameters(ends, hidden))

    def learn(
        self, ends: Ends, hidden: Explicit, state: Any, batch: Batch, k: Index
    ) -> tuple[Ends, Explicit, Any]:
        gain = batch.gain / self.units.hidden
        gradient_of = lambda ell: (gain * batch.signals(ell)).T @ batch.features(ell)
        visited = jnp.arange(hidden.W.shape[0]) < batch.layers
        one = lambda ell: jnp.where(visited[ell], gradient_of(ell), 0)
        parameters, by_W = self._parameters(ends, hidden), jax.lax.map(one, jnp.arange(hidden.W.shape[0]))
        every = {"W": by_W, "W_backward": by_W, "scale": jnp.zeros_like(hidden.scale)}
        every |= {"U": batch.ends.U / self.units.ends, "V": batch.ends.V / self.units.ends}
        gradient = {name: every[name] for name in parameters}
        after, state = optimizers.apply(self.rule, gradient, state, parameters)
        W = after["W"] * self.units.hidden
        hidden = eqx.tree_at(lambda h: h.W, hidden, W)
        if "scale" in after:
            hidden = eqx.tree_at(lambda h: h.scale, hidden, after["scale"])
        if "W_backward" in after:
            hidden = eqx.tree_at(lambda h: h.gap, hidden, after["W_backward"] * self.units.hidden - W)
        if "U" in after:
            ends = Ends(after["U"] * self.units.ends, after["V"] * self.units.ends)
        return ends, hidden, state


def updates(problem: Problem, hidden: Explicit | Factored, width: Array, depth: int | Array) -> Update:
    """How this network learns."""
    if isinstance(hidden, Factored):
        return Coordinates(problem)
    if problem.optimizer is None:
        return InPlace(problem)
    return General(problem, Units.of(problem, width, depth))
