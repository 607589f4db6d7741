"""Training of one network that holds its weight matrices: the same step as everywhere, gradients written out.

    ΔW_ℓ = c γ a n^{-1/2} Σ_p s_p b_{ℓ,p} φ(h_{ℓ-1,p})ᵀ
    ΔV   = c γ Σ_p h_{L,p} χ_pᵀ
    ΔU   = c γ Σ_p s_p b_{0,p} x_pᵀ/√d

with c = −η for plain SGD; any other optimizer takes the same without c as its gradient. With independent
backward weights these are no gradients, but what the network applies in their place.

One network of some width and depth in arrays that may have room for more: `vmap` maps over everything.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax._indexing import at, put
from nfd_jax._sizes import Sizes
from nfd_jax._types import Index, Rows
from nfd_jax.activations import resolve
from nfd_jax.finite._hidden import Explicit, Factored
from nfd_jax.finite._updates import Batch, Ends, updates
from nfd_jax.losses import loss_function, split_signal
from nfd_jax.parametrization import block
from nfd_jax.problem import Problem


class Seen(NamedTuple):
    """One step as it is looked at, before its update.

    `features` and `gradients` (G, Q, n) are h and b of the batch and, where one is followed, of the probe
    behind it; `heldout` (H, C) are outputs on held-out samples.
    """

    step: Index
    output: Float[Array, "P C"]
    loss: Array
    features: Float[Array, "G Q n"]
    gradients: Float[Array, "G Q n"]
    heldout: Float[Array, "H C"] | None


def train(
    problem: Problem,
    ends: Ends,
    hidden: Explicit | Factored,
    sizes: Sizes,
    observe: Callable[[Any, Seen], tuple[Any, dict[str, Array]]],
    memory: Any,
    *,
    places: Array,
    heldout: Float[Array, "H d"] | None = None,
    probe: bool = False,
    skip_last: bool = False,
) -> tuple[dict[str, Array], Ends, Explicit | Factored]:
    """Run the K steps of `problem`: what `observe(memory, seen)` makes of each, by name, leading axis K, and
    the weights left.

    `memory` is what `observe` begins with; `places` are the layers it sees. With `probe` the first batch is
    followed along all steps. `skip_last`: the last update affects no output, and is left out.
    """
    steps, rows, dtype = problem.steps, problem.batch_size, problem.dtype
    phi, loss, gamma = resolve(problem.activation), loss_function(problem.loss), problem.richness
    scales = block(problem.parametrization, problem.horizon, sizes.depth)
    active = lambda h: sizes.cut(phi.value(h))
    root_dim = jnp.sqrt(jnp.asarray(problem.input_dim, dtype))
    follow = 2 * rows if probe else rows
    more = ([problem.inputs[0]] if probe else []) + ([] if heldout is None else [heldout])
    room = hidden.layers + 1
    update = updates(problem, hidden, sizes.width, sizes.depth)

    def forward(ends, hidden, x) -> tuple[Array, Rows, Array]:
        """Outputs and the last layer of all rows, and h (L+1, Q, n) of those that are followed."""

        def layer(ell, carry):
            h, path = carry
            h = sizes.keep(ell, sizes.cut(scales.up(h, *hidden.forward(ell, active(h)))), h)
            return h, put(path, h[:follow], ell + 1)

        h0 = sizes.cut(x @ ends.U.T / root_dim)
        path = put(jnp.zeros((room, min(follow, h0.shape[0]), h0.shape[1]), dtype), h0[:follow], 0)
        h, path = jax.lax.fori_loop(0, sizes.bound, layer, (h0, path))
        return h @ ends.V / (gamma * sizes.width), h, path

    def backward(hidden, b, path) -> tuple[Rows, Array]:
        """b_0 and b (L+1, Q, n), from b_L down."""

        def layer(j, carry):
            b, bs = carry
            ell = sizes.bound - 1 - j
            slope = phi.derivative(at(path, ell))
            b = sizes.keep(ell, sizes.cut(scales.down(b, slope, *hidden.backward(ell, b))), b)
            return b, put(bs, b, ell)

        bs = put(jnp.zeros((room, *b.shape), dtype), b, sizes.bound)
        return jax.lax.fori_loop(0, sizes.bound, layer, (b, bs))

    initial = None
    if problem.centered:
        first = problem.inputs[0] if problem.repeated else problem.inputs.reshape(-1, problem.input_dim)
        initial = forward(ends, update.at(hidden, 0), jnp.concatenate([first, *more]))[0]

    def centre(f: Array, k: Index) -> Array:
        if initial is None:
            return f
        own = initial[:rows] if problem.repeated else jax.lax.dynamic_slice_in_dim(initial, k * rows, rows)
        return f - jnp.concatenate([own, initial[initial.shape[0] - (f.shape[0] - rows) :]])

    def step(carry, k):
        ends, hidden, state, memory = carry
        x, y = problem.inputs[k], problem.targets[k]
        hidden = update.at(hidden, k)
        f, h, path = forward(ends, hidden, jnp.concatenate([x, *more]))
        f = centre(f, k)
        chi = loss.signal(f[:rows], y)
        followed = jnp.concatenate([chi, loss.signal(f[rows:follow], problem.targets[0])]) if probe else chi
        s, direction = split_signal(followed)

        learning = jnp.where(k == steps - 1, 0, sizes.bound) if skip_last else sizes.bound
        b, bs = backward(hidden, sizes.cut(direction @ ends.V.T), path)
        held = None if heldout is None else f[follow:]
        seen = Seen(k, f[:rows], loss.value(f[:rows], y), path[places], bs[places], held)
        memory, out = observe(memory, seen)

        signal = gamma * s[:rows, None]
        batch = Batch(
            Ends(U=(signal * b[:rows]).T @ x / root_dim, V=gamma * h[:rows].T @ chi),
            lambda ell: active(at(path, ell)[:rows]),
            lambda ell: signal * at(bs, ell + 1)[:rows],
            scales.scale / jnp.sqrt(sizes.width),
            learning,
        )
        ends, hidden, state = update.learn(ends, hidden, state, batch, k)
        return (ends, hidden, state, memory), out

    carry = ends, hidden, update.begin(ends, hidden), memory
    (ends, hidden, *_), out = jax.lax.scan(step, carry, jnp.arange(steps))
    return out, ends, hidden
