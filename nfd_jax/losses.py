"""Losses of the outputs of one batch, and what the backward pass starts from.

    squared        (1/P) Σ_p ½ ‖f_p − y_p‖²
    cross_entropy  softmax cross-entropy, mean over the batch, C ≥ 2

χ_p = ∂loss/∂f_p carries the 1/P. The backward features at the last layer are normalized to O(1) per coordinate,
b_{L,p} = V χ_p / s_p, so that the loss signal s_p stays apart from the direction of the gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Loss(NamedTuple):
    """`value`: (P, C), (P, C) → scalar; `signal`: its gradient χ in the outputs, (P, C)."""

    value: Callable[[Array, Array], Array]
    signal: Callable[[Array, Array], Array]


LOSSES: dict[str, Loss] = {
    "squared": Loss(
        lambda f, y: 0.5 * jnp.sum((f - y) ** 2) / f.shape[0],
        lambda f, y: (f - y) / f.shape[0],
    ),
    "cross_entropy": Loss(
        lambda f, y: -jnp.sum(y * jax.nn.log_softmax(f)) / f.shape[0],
        lambda f, y: (jax.nn.softmax(f) * jnp.sum(y, -1, keepdims=True) - y) / f.shape[0],
    ),
}


def loss_function(name: str) -> Loss:
    """The loss called `name`; ValueError naming the known ones otherwise."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is not known; choose one of {', '.join(LOSSES)}")
    return LOSSES[name]


def split_signal(chi: Float[Array, "P C"]) -> tuple[Float[Array, " P"], Float[Array, "P C"]]:
    """χ_p = s_p u_p: one output keeps the sign in s_p (u = 1), several take s_p = ‖χ_p‖, and χ_p = 0 gives s_p = 0, u_p = 0."""
    if chi.shape[1] == 1:
        return chi[:, 0], jnp.ones_like(chi)
    s = jnp.linalg.norm(chi, axis=1)
    return s, chi / jnp.where(s > 0, s, 1)[:, None]


def accuracy(f: Float[Array, "P C"], y: Float[Array, "P C"]) -> Float[Array, ""]:
    """Share of samples on the right side: the sign for one output, the largest output for several."""
    right = jnp.sign(f[:, 0]) == jnp.sign(y[:, 0]) if f.shape[1] == 1 else f.argmax(1) == y.argmax(1)
    return jnp.mean(right, dtype=f.dtype)
