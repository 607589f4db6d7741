"""Losses of the outputs of one batch, and what the backward pass starts from.

    squared        (1/P) Σ_p ½ ‖f_p − y_p‖²
    cross_entropy  softmax cross-entropy, mean over the batch, C ≥ 2

or any function loss(f (P, C), y (P, C)) → scalar, differentiated by JAX. χ_p = ∂loss/∂f_p carries the 1/P.
The backward features at the last layer are normalized to O(1) per coordinate, b_{L,p} = V χ_p / s_p, so that
the loss signal s_p stays apart from the direction of the gradient.
"""

from collections.abc import Callable
from functools import lru_cache
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


def loss_function(
    loss: "str | Loss | Callable[[Array, Array], Array]", shape: tuple[int, int] | None = None
) -> Loss:
    """Value and signal from a name, a `Loss` of both, or a function, differentiated by JAX.

    A function is tried on f and y of `shape` (P, C) where that is given. Raises ValueError on a name that is
    not known and on a function whose value is no scalar or that cannot be differentiated.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(
                f"loss {loss!r} is not known; choose one of {', '.join(LOSSES)}, or give a function"
            )
        return LOSSES[loss]
    if not isinstance(loss, Loss) and not callable(loss):
        raise ValueError(f"loss must be a name or a function loss(f, y) of (P, C) arrays; received {loss!r}")
    found = loss if isinstance(loss, Loss) else _differentiated(loss)
    if shape is not None:
        _check(found, shape)
    return found


@lru_cache(maxsize=256)
def _differentiated(loss: Callable[[Array, Array], Array]) -> Loss:
    return Loss(loss, jax.grad(loss))


def _check(loss: Loss, shape: tuple[int, int]) -> None:
    name = getattr(loss.value, "__name__", repr(loss.value))
    like = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    for part, what, wanted in ((loss.value, "its value", ()), (loss.signal, "its gradient in f", shape)):
        try:
            got = jax.eval_shape(part, like, like)
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"loss {name}: {what} fails on f and y of shape {shape}: {first}") from error
        if getattr(got, "shape", None) != wanted or got.dtype != like.dtype:
            found = (
                f"shape {getattr(got, 'shape', None)} and dtype {getattr(got, 'dtype', type(got).__name__)}"
            )
            raise ValueError(
                f"loss {name}: {what} has {found} for f and y of shape {shape}; allowed: {wanted}, "
                f"{like.dtype}"
            )


def split_signal(chi: Float[Array, "P C"]) -> tuple[Float[Array, " P"], Float[Array, "P C"]]:
    """χ_p = s_p u_p: one output keeps the sign in s_p (u = 1), several take s_p = ‖χ_p‖, and χ_p = 0 gives
    s_p = 0, u_p = 0."""
    if chi.shape[1] == 1:
        return chi[:, 0], jnp.ones_like(chi)
    square = jnp.sum(chi * chi, axis=1)
    s = jnp.where(
        square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0
    )  # a derivative of 0 where χ = 0, not NaN
    return s, chi / jnp.where(s > 0, s, 1)[:, None]


def accuracy(f: Float[Array, "P C"], y: Float[Array, "P C"]) -> Float[Array, ""]:
    """Share of samples on the right side: the sign for one output, where 0 counts half, the largest output
    for several."""
    side = lambda f: jnp.sign(f[:, 0])
    right = (1 + side(f) * side(y)) / 2 if f.shape[1] == 1 else f.argmax(1) == y.argmax(1)
    return jnp.mean(right, dtype=f.dtype)
