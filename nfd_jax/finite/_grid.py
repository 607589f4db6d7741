"""Networks with weight matrices, many at once: a width's depths, seeds, learning rates and backward-weight flags in one program.

Passes, losses and updates are those of `_dense`, written for a batch of networks. One program serves

    every depth         depth is a traced loop bound; layers have keys of their own, so all depths share the deepest one's draw
    narrower widths     arrays have `size` coordinates, those from `width` on (traced) zero: a draw is a prefix of a longer one
    every rate, flag    W(0) is drawn once a seed

Axes of a batch of networks: S seeds, F flags, R learning rates, then rows and coordinates.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax.activations import activation
from nfd_jax.finite._draws import Initial, draw
from nfd_jax.finite._explicit import Explicit, layer_of, with_layer
from nfd_jax.finite._factored import Factored
from nfd_jax.losses import accuracy, loss_function, split_signal
from nfd_jax.parametrization import block
from nfd_jax.problem import Problem

FORMS = {"explicit": Explicit, "factored": Factored}


class Heldout(eqx.Module):
    """Samples to follow besides those learned from: `inputs` (H, d), `targets` (H, C)."""

    inputs: Float[Array, "H d"]
    targets: Float[Array, "H C"]


@dataclass(frozen=True)
class Shape:
    """What a program is compiled for, besides the shapes of its arguments.

    It holds `size` coordinates and `layers` layers. `rates` learning rates run side by side, the others in turn. Features are
    looked at on `grid` intervals of t; `probe` follows the inputs of step 0 instead of the current ones. `record` names what to
    hand out of every step: "features", "gradients", "kernels". `precision` is that of matrix products.
    """

    form: str
    flags: tuple[str, ...]
    size: int
    layers: int
    rates: int
    grid: int
    probe: bool = False
    record: tuple[str, ...] = ()
    precision: str = "highest"

    @property
    def independent(self) -> int | None:
        """Which flag has backward weights of its own."""
        return self.flags.index("independent") if "independent" in self.flags else None


def train(
    problem: Problem,
    heldout: Heldout | None,
    initial: Initial,
    rates: Float[Array, " R"],
    width: Array,
    depth: Array,
    shape: Shape,
) -> dict[str, Array]:
    """Networks of `depth` trained at each of `rates`, for every seed of `initial` and every flag; leading axes (K, S, F, R).

    loss, accuracy (K, …), output (K, …, P, C), feature_shift_ms (K, …, G), with `heldout` its loss and accuracy, and what
    `shape.record` names: features and gradients (K, …, G, P, n), feature_kernel and gradient_kernel (K, …, G, P, P).
    """
    steps, rows, dtype = problem.steps, problem.batch_size, problem.dtype
    seeds, flags, count = initial.U.shape[0], len(shape.flags), rates.size
    phi, loss = activation(problem.activation), loss_function(problem.loss)
    a, skip = block(problem.parametrization, problem.horizon, depth)
    gain = a / jnp.sqrt(width.astype(dtype))
    eta = rates[:, None, None]
    inside = (jnp.arange(shape.size) < width).astype(dtype)
    places = jnp.arange(shape.grid + 1) * (depth // shape.grid)
    every = lambda f: jax.vmap(jax.vmap(jax.vmap(f)))
    root_dim = jnp.sqrt(jnp.asarray(problem.input_dim, dtype))
    follow = rows if shape.probe else 0
    more = [problem.inputs[0]] if shape.probe else []
    more += [] if heldout is None else [heldout.inputs]
    keep_last = any(name in shape.record for name in ("gradients", "kernels"))

    def forward(hidden, h0):
        """Last layer of all rows, and h (L+1, S, F, R, P, n) of those to be followed."""

        def layer(ell, carry):
            h, path = carry
            h = skip * h + gain * hidden.forward(ell, inside * phi.value(h))
            return h, with_layer(path, h[..., : rows + follow, :], ell + 1)

        path = jnp.zeros((shape.layers + 1, *h0.shape[:3], rows + follow, shape.size), dtype)
        return jax.lax.fori_loop(0, depth, layer, (h0, with_layer(path, h0[..., : rows + follow, :], 0)))

    def backward(hidden, b, path, layers):
        """b_0 and the path (L+1, S, F, R, P, n) of b, from the given b_L down through `layers`."""

        def layer(j, carry):
            b, bs = carry
            ell = depth - 1 - j
            slope = phi.derivative(layer_of(path, ell)[..., :rows, :])
            b = skip * b + slope * (gain * hidden.backward(ell, b))
            return b, with_layer(bs, b, ell)

        bs = jnp.zeros((shape.layers + 1, *b.shape), dtype)
        return jax.lax.fori_loop(0, layers, layer, (b, with_layer(bs, b, depth)))

    def step(carry, at):
        hidden, U, V, start = carry
        k, x, y = at
        h0 = jnp.einsum("qd,sfrnd->sfrqn", jnp.concatenate([x, *more]), U) / root_dim
        h, path = forward(hidden, h0)
        outputs = jnp.einsum("sfrqn,sfrnc->sfrqc", h, V) / width
        f = outputs[..., :rows, :]
        chi = every(lambda f: loss.signal(f, y))(f)
        s, direction = every(split_signal)(chi)
        signal = eta * s[..., None]

        # Nobody asks for what the last step's update would change.
        learning = jnp.where(k == steps - 1, 0, depth)
        b, bs = backward(hidden, jnp.einsum("sfrpc,sfrnc->sfrpn", direction, V), path, depth if keep_last else learning)
        features = lambda ell: inside * phi.value(layer_of(path, ell)[..., :rows, :])
        pulls = lambda ell: (-gain * signal) * layer_of(bs, ell + 1)
        hidden = hidden.learn(features, pulls, k, learning)
        if problem.train == "all":
            U = U - jnp.einsum("sfrpn,pd->sfrnd", signal * b, x) / root_dim
            V = V - jnp.einsum("sfrpn,sfrpc->sfrnc", h[..., :rows, :], eta * chi)

        seen = path[places]
        start = jnp.where(k == 0, seen[..., -rows:, :], start)
        out = {
            "loss": every(lambda f: loss.value(f, y))(f),
            "output": f,
            "accuracy": every(lambda f: accuracy(f, y))(f),
        }
        by_layer = {"feature_shift_ms": jnp.sum((seen[..., -rows:, :] - start) ** 2, axis=(-2, -1)) / (rows * width)}
        if heldout is not None:
            held, aim = outputs[..., rows + follow :, :], heldout.targets
            out["heldout_loss"] = every(lambda f: loss.value(f, aim))(held)
            out["heldout_accuracy"] = every(lambda f: accuracy(f, aim))(held)
        for name, x in (("feature", seen[..., :rows, :]), ("gradient", bs[places])):
            if f"{name}s" in shape.record:
                by_layer[f"{name}s"] = x
            if "kernels" in shape.record:
                x = inside * phi.value(x) if name == "feature" else x
                by_layer[f"{name}_kernel"] = x @ jnp.swapaxes(x, -1, -2) / width
        return (hidden, U, V, start), (out, by_layer)

    copies = lambda w: jnp.broadcast_to(w[:, None, None], (seeds, flags, count, *w.shape[1:]))
    hidden = FORMS[shape.form].start(initial.hidden, shape.layers, flags, count, problem.samples, shape.independent)
    start = jnp.zeros((shape.grid + 1, seeds, flags, count, rows, shape.size), dtype)
    carry = hidden, copies(initial.U), copies(initial.V), start
    _, (out, by_layer) = jax.lax.scan(step, carry, (jnp.arange(steps), problem.inputs, problem.targets))
    return out | {name: jnp.moveaxis(x, 1, 4) for name, x in by_layer.items()}


def program(
    problem: Problem,
    heldout: Heldout | None,
    key: Array,
    seeds: Array,
    rates: Float[Array, " R"],
    width: Array,
    depths: Array,
    shape: Shape,
) -> dict[str, Array]:
    """Everything of a width: `train` at every depth and rate; leading axes (D, S, R, F, K). `key` is the master key's data."""
    with jax.default_matmul_precision(shape.precision):
        sizes = {"size": shape.size, "layers": shape.layers, "independent": shape.independent is not None}
        initial = draw(problem, jax.random.wrap_key_data(key), seeds, width, **sizes)
        chunks = rates.reshape(-1, shape.rates)
        runs = jnp.repeat(depths, chunks.shape[0]), jnp.tile(chunks, (depths.size, 1))
        one = lambda run: train(problem, heldout, initial, run[1], width, run[0], shape)
        out = jax.lax.map(one, runs)

    def arranged(x: Array) -> Array:
        """(D × chunk, K, S, F, R in chunk, …) to (D, S, R, F, K, …)."""
        x = x.reshape(depths.size, chunks.shape[0], *x.shape[1:])
        x = jnp.moveaxis(x, (3, 1, 5, 4, 2), (1, 2, 3, 4, 5))
        return x.reshape(*x.shape[:2], rates.size, *x.shape[4:])

    return {name: arranged(x) for name, x in out.items()}
