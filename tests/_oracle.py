"""The network as its definition says, differentiated by JAX and updated by optax on plain matrices: slow, and
what others must equal."""

import jax
import jax.numpy as jnp
import optax

from nfd_jax.activations import resolve
from nfd_jax.losses import loss_function, split_signal
from nfd_jax.parametrization import block
from nfd_jax.trajectory import Trajectory


@jax.custom_vjp
def product(W, W_backward, x):
    """x Wᵀ, whose derivative in x is taken through W_backward: for independent backward weights."""
    return x @ W.T


product.defvjp(
    lambda W, W_backward, x: (x @ W.T, (W, W_backward, x)),
    lambda kept, ct: (ct.T @ kept[2], jnp.zeros_like(kept[1]), ct @ kept[1]),
)


def forward(problem, weights, x, shifts=None):
    """Features (L+1, P, n) and outputs (P, C), not centred; `shifts` (L+1, P, n) are added to the features of
    each layer."""
    depth, width = weights.W.shape[:2]
    a, skip = block(problem.parametrization, problem.horizon, depth)
    phi = resolve(problem.activation).value
    at = lambda ell: 0.0 if shifts is None else shifts[ell]
    path = [x @ weights.U.T / x.shape[1] ** 0.5 + at(0)]
    for ell in range(depth):
        image = product(weights.W[ell], weights.W_backward[ell], phi(path[-1])) / width**0.5
        path.append(skip * path[-1] + a * image + at(ell + 1))
    return jnp.stack(path), path[-1] @ weights.V / (problem.richness * width)


def value_and_gradients(problem, weights, x, y, start=0.0):
    """loss, f, h, b, and n γ² ∂loss/∂Θ in U, V and W; b are n γ ∂loss/∂h_p over s_p."""
    loss, width = loss_function(problem.loss), weights.W.shape[1]
    depth, gamma = weights.W.shape[0], problem.richness

    def value(weights, shifts):
        h, f = forward(problem, weights, x, shifts)
        return loss.value(f - start, y), (f - start, h)

    shifts = jnp.zeros((depth + 1, x.shape[0], width), x.dtype)
    (found, (f, h)), (grad, by_h) = jax.value_and_grad(value, (0, 1), has_aux=True)(weights, shifts)
    s, _ = split_signal(loss.signal(f, y))
    b = width * gamma * by_h / jnp.where(s == 0, 1, s)[:, None]
    return found, f, h, b, jax.tree.map(lambda g: width * gamma**2 * g, grad)


def train(problem, weights, *, optimizer=None, heldout=None, probe=False):
    """All K steps from `weights`; W_backward, where it is not W, gets W's updates. Everything recorded, and
    the last weights."""
    reused = weights.W_backward is weights.W
    rule = (optimizer or problem.optimizer or optax.sgd)(problem.learning_rate)
    initial, out = weights, []
    held = {"U": weights.U, "V": weights.V, "W": weights.W, "W_backward": weights.W_backward}
    if problem.train == "hidden":
        held = {name: held[name] for name in ("W", "W_backward")}
    state = rule.init(held)
    centre = lambda x: forward(problem, initial, x)[1] if problem.centered else 0.0
    for x, y in zip(problem.inputs, problem.targets, strict=True):
        found, f, h, b, grad = value_and_gradients(problem, weights, x, y, centre(x))
        seen = {"output": f, "loss": found, "features": h, "gradients": b}
        if heldout is not None:
            seen["heldout"] = forward(problem, weights, heldout)[1] - centre(heldout)
        if probe:
            first = problem.inputs[0], problem.targets[0]
            _, _, seen["probe"], seen["probe_gradients"], _ = value_and_gradients(
                problem, weights, *first, centre(first[0])
            )
        out.append(seen)
        gradient = {"U": grad.U, "V": grad.V, "W": grad.W, "W_backward": grad.W}
        updates, state = rule.update({name: gradient[name] for name in held}, state, held)
        held = optax.apply_updates(held, updates)
        weights = type(weights)(**({"U": weights.U, "V": weights.V} | held))
        if reused:
            weights = type(weights)(weights.U, weights.V, weights.W, weights.W)
    return Trajectory(**jax.tree.map(lambda *x: jnp.stack(x), *out)), weights
