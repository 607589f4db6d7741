"""Activations φ with the derivatives φ' that the hand-written backward pass needs.

A name, or any elementwise function of JAX arrays: its derivative is taken by JAX. At a kink the derivative
follows JAX's own convention for the named ones: relu'(0) = 0 and abs'(0) = 0.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


def resolve(activation: "str | Activation | Callable[[Array], Array]") -> Activation:
    """φ and φ' from a name, an `Activation` of both, or a function φ of arrays, differentiated by JAX.

    Raises ValueError on a name that is not known, and on a function that is not elementwise, changes shape or
    dtype, or cannot be differentiated.
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation {activation!r} is not known; choose one of {', '.join(ACTIVATIONS)}, or give a "
                "function"
            )
        return ACTIVATIONS[activation]
    if not isinstance(activation, Activation) and not callable(activation):
        raise ValueError(
            f"activation must be a name or an elementwise function of arrays; received {activation!r}"
        )
    return _checked(activation)


@lru_cache(maxsize=256)
def _checked(activation: "Activation | Callable[[Array], Array]") -> Activation:
    if isinstance(activation, Activation):
        found = activation
    else:
        found = Activation(activation, lambda z: jax.jvp(activation, (z,), (jnp.ones_like(z),))[1])
    name = getattr(found.value, "__name__", repr(found.value))
    with jax.ensure_compile_time_eval():  # a first call from inside a program sees numbers too
        z = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.result_type(float))

    def tried(part: Callable, what: str) -> Array:
        try:
            with jax.ensure_compile_time_eval():
                value = part(z)
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"activation {name}: {what} fails on an array of shape (3, 4): {first}"
            ) from error
        if jnp.shape(value) != z.shape or jnp.result_type(value) != z.dtype:
            got = f"shape {jnp.shape(value)} and dtype {jnp.result_type(value)}"
            raise ValueError(
                f"activation {name}: {what} gives {got} for shape {z.shape} and dtype {z.dtype}; it must "
                "keep both"
            )
        return value

    value = tried(found.value, "the function")
    tried(found.derivative, "its derivative (it must be differentiable by JAX)")
    with jax.ensure_compile_time_eval():
        alone = jnp.stack([jnp.stack([found.value(x[None])[0] for x in row]) for row in z])
        elementwise = bool(jnp.allclose(alone, value, rtol=1e-4, atol=1e-5))
    if not elementwise:
        raise ValueError(
            f"activation {name} is not elementwise: an entry of its value depends on other entries; give φ "
            "of one number"
        )
    return found
