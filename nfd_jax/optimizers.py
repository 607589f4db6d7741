"""Optimizers, as functions learning_rate → `optax.GradientTransformation`; which of them are linear, and
their coefficients.

A rule that is linear in the gradients G_j (SGD with momentum, Nesterov, weight decay, any schedule, chains of
such) keeps every matrix at

    W(k) = α_k W(0) + Σ_{j<k} c_{k,j} G_j

with numbers α and c that know nothing of the data. So the transformation is run on coordinates: parameters
(α, c), gradient of step j the unit vector e_j. Networks without matrices, and limits, then need α_k and c_k
alone; plain SGD has α = 1, c = −η.

Adam, clipping by a global norm and the like are not linear: their update is a nonlinear function of a matrix
of rank P, which has no closed form in the answers of a Gaussian matrix. Networks that hold their matrices
take any transformation.

G_j is n ∂loss/∂Θ, the scaling that μP asks of one learning rate for all matrices.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    import optax

Optimizer = Callable[[Array], "optax.GradientTransformation"]

TRIED = 4
"""Steps on which a transformation is tried for linearity."""


class Transformation(NamedTuple):
    """What `optax.GradientTransformation` is to its users, without loading optax."""

    init: Callable
    update: Callable


def sgd(learning_rate: Array) -> Transformation:
    """Plain SGD, ΔΘ = −η G."""
    return Transformation(
        lambda p: (), lambda g, state, p=None: (jax.tree.map(lambda x: -learning_rate * x, g), state)
    )


class Coefficients(NamedTuple):
    """`alpha` (K,) and `steps` (K, K): W(k) = alpha_k W(0) + Σ_j steps_{k,j} G_j, zero for j ≥ k."""

    alpha: Float[Array, " K"]
    steps: Float[Array, "K K"]


def coefficients(
    optimizer: Optimizer | None, learning_rate: Array, count: int, *, learns: bool = True
) -> Coefficients:
    """The coefficients of an optimizer over `count` = K steps; a matrix that does not learn stays W(0).

    Raises ValueError where the optimizer is not linear.
    """
    dtype = learning_rate.dtype
    if not learns:
        return Coefficients(jnp.ones(count, dtype), jnp.zeros((count, count), dtype))
    if optimizer is None:
        return Coefficients(
            jnp.ones(count, dtype), -learning_rate * jnp.tril(jnp.ones((count, count), dtype), -1)
        )
    check_linear(optimizer)
    rule = transformation(optimizer, learning_rate)

    def step(carry, gradient):
        parameters, state = carry
        return apply(rule, (jnp.zeros((), dtype), gradient), state, parameters), parameters

    start = jnp.ones((), dtype), jnp.zeros(count, dtype)
    return Coefficients(*jax.lax.scan(step, (start, rule.init(start)), jnp.eye(count, dtype=dtype))[1])


def apply(rule: Any, gradient: Any, state: Any, parameters: Any) -> tuple[Any, Any]:
    """Parameters after one update, in their own dtypes, with the rule's new state."""
    updates, state = rule.update(gradient, state, parameters)
    return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), parameters, updates), state


def is_linear(optimizer: Optimizer | None) -> bool:
    """Whether W(k) is α_k W(0) + Σ c_{k,j} G_j, tried on random matrices of three sizes, four steps each."""
    return optimizer is None or _tried_linear(optimizer)


def transformation(optimizer: Optimizer | None, learning_rate: Array) -> Any:
    """The transformation at a learning rate, plain SGD by default; ValueError where it is none."""
    if optimizer is None:
        return sgd(learning_rate)
    asked = "optimizer must be a function learning_rate -> optax.GradientTransformation"
    try:
        found = optimizer(learning_rate)
    except Exception as error:
        raise ValueError(f"{asked}; received {optimizer!r}, which raised {error!r}") from error
    if not (callable(getattr(found, "init", None)) and callable(getattr(found, "update", None))):
        raise ValueError(f"{asked}; received {optimizer!r}, which gave {found!r}")
    return found


@lru_cache(maxsize=256)
def _tried_linear(optimizer: Optimizer) -> bool:
    rng, rate = np.random.default_rng(0), 0.1
    with jax.ensure_compile_time_eval():
        like = jnp.zeros(()).dtype
        tried = transformation(optimizer, jnp.asarray(rate, like))

        def run(start, gradients):
            state, found = tried.init(start), [start]
            for gradient in gradients:
                start, state = apply(tried, gradient, state, start)
                found.append(start)
            return found

        unit = [(jnp.zeros((), like), row) for row in jnp.eye(TRIED, dtype=like)]
        rows = run((jnp.ones((), like), jnp.zeros(TRIED, like)), unit)
        for scale in (1e-2, 1.0, 1e3):  # a threshold shows on one side of it alone
            W = jnp.asarray(scale * rng.standard_normal((3, 2)), like)
            G = jnp.asarray(scale * rng.standard_normal((TRIED, 3, 2)), like)
            for (alpha, c), got in zip(rows, run(W, list(G)), strict=True):
                expected = alpha * W + jnp.tensordot(c, G, 1)
                if not np.allclose(got, expected, rtol=1e-4, atol=1e-4 * scale):
                    return False
    return True


def check_linear(optimizer: Optimizer | None) -> None:
    """Raise ValueError unless an optimizer is linear."""
    if not is_linear(optimizer):
        name = getattr(optimizer, "__name__", repr(optimizer))
        raise ValueError(
            f"optimizer {name} is not linear in the gradients: its update has no closed form where matrices "
            "are not held (matrix-free "
            "networks, limits); allowed there: SGD, momentum, Nesterov, weight decay, schedules. "
            'simulator="dense" takes any'
        )


class Settings(NamedTuple):
    """An optimizer and schedule by name, as a config has them; hashable, so that equal settings share
    compiled programs."""

    name: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    schedule: str = "constant"
    warmup_steps: int = 0
    end_factor: float = 0.0
    steps: int = 1

    def __call__(self, learning_rate: Array) -> "optax.GradientTransformation":
        """The transformation; weight decay is decoupled, W ← (1 − η λ) W, so that adam with it is adamw."""
        import optax

        rate = _schedule(self, learning_rate)
        if self.name == "sgd":
            momentum = [optax.trace(decay=self.momentum, nesterov=self.nesterov)] if self.momentum else []
            decay = [optax.add_decayed_weights(self.weight_decay)] if self.weight_decay else []
            return optax.chain(*momentum, *decay, optax.scale_by_learning_rate(rate))
        return optax.adamw(rate, b1=self.b1, b2=self.b2, eps=self.eps, weight_decay=self.weight_decay)


def _schedule(s: Settings, peak: Array) -> Any:
    """Learning rate of each step: linear warm-up from peak/(warmup+1), then constant, or down to end_factor ×
    peak at the last step."""
    if s.schedule == "constant" and not s.warmup_steps:
        return peak

    def at(count: Array) -> Array:
        k = jnp.asarray(count, jnp.result_type(peak))
        up = (k + 1) / (s.warmup_steps + 1)
        share = jnp.clip((k - s.warmup_steps) / max(1, s.steps - 1 - s.warmup_steps), 0, 1)
        if s.schedule == "cosine":
            down = s.end_factor + (1 - s.end_factor) * 0.5 * (1 + jnp.cos(jnp.pi * share))
        else:
            down = 1 - (1 - s.end_factor) * share if s.schedule == "linear" else jnp.ones_like(share)
        return peak * jnp.where(k < s.warmup_steps, up, down)

    return at


def from_settings(optimizer: Any, schedule: Any, steps: int) -> Optimizer | None:
    """The optimizer that sections of a config name (attributes as in `Settings`); None for plain SGD at a
    constant rate."""
    plain = optimizer.name == "sgd" and not optimizer.momentum and not optimizer.weight_decay
    if plain and schedule.name == "constant" and not schedule.warmup_steps:
        return None
    moments = optimizer.b1, optimizer.b2, optimizer.eps
    chosen = optimizer.name, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay, *moments
    return Settings(*chosen, schedule.name, schedule.warmup_steps, schedule.end_factor, steps)
