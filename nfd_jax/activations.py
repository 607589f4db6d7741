"""Activations φ with the derivatives φ' that the hand-written backward pass needs.

At a kink the derivative follows JAX's own convention: relu'(0) = 0 and abs'(0) = 0.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class Activation(NamedTuple):
    """φ and φ', both elementwise and of the dtype of their argument."""

    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array]


def _normal_density(z: Array) -> Array:
    return jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _normal_cdf(z: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(z / math.sqrt(2)))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(jnp.tanh, lambda z: 1 - jnp.tanh(z) ** 2),
    "relu": Activation(lambda z: jnp.maximum(z, 0), lambda z: (z > 0).astype(z.dtype)),
    "erf": Activation(jax.lax.erf, lambda z: 2 / math.sqrt(math.pi) * jnp.exp(-z * z)),
    "gelu": Activation(lambda z: z * _normal_cdf(z), lambda z: _normal_cdf(z) + z * _normal_density(z)),
    "linear": Activation(lambda z: z, jnp.ones_like),
    "abs": Activation(jnp.abs, jnp.sign),
    "sin": Activation(jnp.sin, jnp.cos),
    "softplus": Activation(jax.nn.softplus, jax.nn.sigmoid),
    "sigmoid": Activation(jax.nn.sigmoid, lambda z: jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)),
}


def activation(name: str) -> Activation:
    """The activation called `name`; ValueError naming the known ones otherwise."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not known; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
