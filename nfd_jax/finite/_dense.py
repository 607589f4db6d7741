"""One network with weight matrices, from a key: what `train_finite` and innovations run on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import optimizers
from nfd_jax.finite._hidden import Explicit, Factored, form
from nfd_jax.finite._matrices import Seen, train
from nfd_jax.finite._sizes import Sizes
from nfd_jax.finite._updates import Ends
from nfd_jax.noise import INDEPENDENT_WEIGHTS, WEIGHTS, ends, normal_rows, stream
from nfd_jax.problem import Problem
from nfd_jax.trajectory import Trajectory, Weights


def initial_weights(
    problem: Problem, *, width: int, depth: int, key: Array, backward_weights: str
) -> Weights:
    """Draw all weights, entries N(0, 1); the U and V of `sample_noise` with the same key."""

    def stack(what: int) -> Array:
        layer = lambda ell: normal_rows(stream(key, what, ell), width, width, problem.dtype)
        return jax.lax.map(layer, jnp.arange(depth))

    W = stack(WEIGHTS)
    return Weights(
        *ends(key, problem, width), W, stack(INDEPENDENT_WEIGHTS) if backward_weights == "independent" else W
    )


def hidden_weights(
    kind: str, W: Array, back: Array, reuse: Array, samples: int, width: Array, *, reused: bool
) -> Explicit | Factored:
    """The hidden weights of a network at W(0), whose backward pass uses `back`, in one of the two forms."""
    one = jnp.ones((), W.dtype)
    if kind == "explicit":
        return Explicit(W, None if reused else back - W, reuse, one, width)
    empty = jnp.zeros((W.shape[0], samples, W.shape[-1]), W.dtype)
    return Factored(W[None], back, empty, empty, one, jnp.zeros(samples, W.dtype), width)


def train_weights(
    problem: Problem,
    weights: Weights,
    backward_weights: str,
    *,
    record: tuple[str, ...] = (),
    grid: int | None = None,
    heldout: Float[Array, "H d"] | None = None,
) -> Trajectory:
    """Train from given weights; `record` as of `train_finite`, "coupling" aside. One program, K a loop."""
    depth, width = weights.W.shape[:2]
    sizes = Sizes.full(width, depth, problem.dtype)
    linear = optimizers.is_linear(problem.optimizer)
    kind = "explicit" if "weights" in record else form(width, problem.samples, linear=linear)
    reused = backward_weights == "reused"
    reuse = jnp.asarray(reused, problem.dtype)
    hidden = hidden_weights(
        kind, weights.W, weights.W_backward, reuse, problem.samples, sizes.width, reused=reused
    )

    def observe(memory, seen: Seen):
        out = {"output": seen.output, "loss": seen.loss}
        out |= {name: getattr(seen, name) for name in ("features", "gradients") if name in record}
        return memory, out | ({} if heldout is None else {"heldout": seen.heldout})

    places = jnp.arange((grid or depth) + 1) * (depth // (grid or depth))
    options = {"places": places, "heldout": heldout, "skip_last": False}
    out, ends, hidden = train(problem, Ends(weights.U, weights.V), hidden, sizes, observe, None, **options)
    if "weights" in record:
        out["weights"] = Weights(
            ends.U, ends.V, hidden.W, hidden.W if reused else hidden.W + hidden.scale * hidden.gap
        )
    return Trajectory(**out)
