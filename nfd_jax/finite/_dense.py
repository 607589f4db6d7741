"""A finite network with its weight matrices: passes written out, gradients by hand, updates through optax.

    forward    h_0 = U x/√d       h_ℓ = skip · h_{ℓ-1} + a n^{-1/2} W_ℓ φ(h_{ℓ-1})       f = Vᵀ h_L / n
    backward   b_L = V χ/s        b_{ℓ-1} = skip · b_ℓ + a φ'(h_{ℓ-1}) ⊙ n^{-1/2} W_ℓᵀ b_ℓ

    ∂loss/∂W_ℓ = a n^{-3/2} Σ_p s_p b_{ℓ,p} φ(h_{ℓ-1,p})ᵀ     ∂loss/∂V = Σ_p h_{L,p} χ_pᵀ / n     ∂loss/∂U = Σ_p s_p b_{0,p} x_pᵀ / (n√d)

With independent backward weights the backward pass holds its own initial draw W̃_ℓ(0) and receives the same updates.
"""

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax.activations import activation
from nfd_jax.losses import loss_function, split_signal
from nfd_jax.noise import INDEPENDENT_WEIGHTS, WEIGHTS, ends, normal_rows, stream
from nfd_jax.parametrization import block
from nfd_jax.problem import Problem, Trajectory

if TYPE_CHECKING:
    import optax


class Weights(eqx.Module):
    """`W` (L, n, n) hidden, `U` (n, d) input and `V` (n, C) readout weights; `W_backward` (L, n, n) where it is not W."""

    U: Float[Array, "n d"]
    V: Float[Array, "n C"]
    W: Float[Array, "L n n"]
    W_backward: Float[Array, "L n n"] | None


def initial_weights(problem: Problem, *, width: int, depth: int, key: Array, backward_weights: str) -> Weights:
    """Draw all weights, entries N(0, 1); the U and V of `sample_noise` with the same key."""

    def stack(what: int) -> Array:
        layer = lambda ell: normal_rows(stream(key, what, ell), width, width, problem.dtype)
        return jax.lax.map(layer, jnp.arange(depth))

    independent = stack(INDEPENDENT_WEIGHTS) if backward_weights == "independent" else None
    return Weights(*ends(key, problem, width), stack(WEIGHTS), independent)


def forward(problem: Problem, weights: Weights, x: Float[Array, "P d"]) -> tuple[Float[Array, "G P n"], Array]:
    """Features h (L+1, P, n) and outputs f (P, C) of a batch."""
    depth, width = weights.W.shape[:2]
    phi = activation(problem.activation)
    a, skip = block(problem.parametrization, problem.horizon, depth)
    gain = a / jnp.sqrt(jnp.asarray(width, x.dtype))

    def layer(h, W):
        h = skip * h + gain * phi.value(h) @ W.T
        return h, h

    h0 = x @ weights.U.T / jnp.sqrt(jnp.asarray(x.shape[1], x.dtype))
    last, path = jax.lax.scan(layer, h0, weights.W)
    return jnp.concatenate([h0[None], path]), last @ weights.V / width


def backward(problem: Problem, weights: Weights, h: Float[Array, "G P n"], direction: Float[Array, "P C"]) -> Float[Array, "G P n"]:
    """Backward features b (L+1, P, n) from b_L = V u, u the direction of χ."""
    depth, width = weights.W.shape[:2]
    phi = activation(problem.activation)
    a, skip = block(problem.parametrization, problem.horizon, depth)
    gain = a / jnp.sqrt(jnp.asarray(width, h.dtype))

    def layer(b, at):
        W, h = at
        b = skip * b + phi.derivative(h) * (gain * b @ W)
        return b, b

    W = weights.W if weights.W_backward is None else weights.W_backward
    last = direction @ weights.V.T
    _, path = jax.lax.scan(layer, last, (W, h[:-1]), reverse=True)
    return jnp.concatenate([path, last[None]])


def gradients(problem: Problem, weights: Weights, x: Float[Array, "P d"], y: Float[Array, "P C"]):
    """∂loss/∂Θ as the backward pass has it, with the pass itself: (gradient, loss, f, h, b).

    For reused weights this is the gradient; for independent ones it is what the network applies in its place.
    """
    depth, width = weights.W.shape[:2]
    loss = loss_function(problem.loss)
    a, _ = block(problem.parametrization, problem.horizon, depth)
    h, f = forward(problem, weights, x)
    chi = loss.signal(f, y)
    s, direction = split_signal(chi)
    b = backward(problem, weights, h, direction)
    signal = s[:, None] * b
    hidden = jnp.einsum("lpm,lpn->lmn", signal[1:] * (a * width**-1.5), activation(problem.activation).value(h[:-1]))
    gradient = Weights(
        U=signal[0].T @ x / (width * x.shape[1] ** 0.5),
        V=h[-1].T @ chi / width,
        W=hidden,
        W_backward=None if weights.W_backward is None else hidden,
    )
    return gradient, loss.value(f, y), f, h, b


def mup_sgd(problem: Problem, width: int) -> "optax.GradientTransformation":
    """SGD with one learning rate for all matrices, times the width as μP asks; U and V stay where only hidden weights learn."""
    import optax  # which grids of networks have no use for and need not wait for

    hidden = Weights(U=False, V=False, W=True, W_backward=True)
    frozen = optax.masked(optax.set_to_zero(), jax.tree.map(lambda learns: not learns, hidden))
    ends_too = optax.identity() if problem.train == "all" else frozen
    return optax.chain(ends_too, optax.scale(float(width)), optax.sgd(problem.learning_rate))


def train(
    problem: Problem,
    weights: Weights,
    *,
    record: tuple[str, ...] = (),
    grid: int | None = None,
    heldout: Float[Array, "H d"] | None = None,
    probe: bool = False,
) -> Trajectory:
    """Run the K steps of `problem` from `weights`; one program, K a loop. Options as in the matrix-free `train`."""
    depth = weights.W.shape[0]
    places = jnp.arange((grid or depth) + 1) * (depth // (grid or depth))
    import optax

    optimizer = mup_sgd(problem, weights.W.shape[1])

    def step(carry, batch):
        weights, state = carry
        gradient, loss, f, h, b = gradients(problem, weights, *batch)
        out = {"output": f, "loss": loss}
        if "features" in record:
            out["features"] = h[places]
        if "gradients" in record:
            out["gradients"] = b[places]
        if heldout is not None:
            out["heldout"] = forward(problem, weights, heldout)[1]
        if probe:
            out["probe"] = forward(problem, weights, problem.inputs[0])[0][places]
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(weights, updates), state), out

    _, out = jax.lax.scan(step, (weights, optimizer.init(weights)), (problem.inputs, problem.targets))
    return Trajectory(**out)
