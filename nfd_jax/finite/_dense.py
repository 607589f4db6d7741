"""One network with weight matrices, from a key: what `train_finite` and innovations run on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import optimizers
from nfd_jax._sizes import Sizes
from nfd_jax.finite._hidden import Explicit, Factored, at_start, form
from nfd_jax.finite._matrices import train
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
    gap = back - W if kind == "explicit" and not reused else None
    return at_start(kind, W[None], back, gap, reuse, samples, width)


def keeping(record: tuple[str, ...], heldout: bool = False) -> Callable:
    """What a trajectory keeps of each step, as `_matrices.train` asks for it."""
    paths = [name for name in record if name in ("features", "gradients")]
    names = ["output", "loss", *paths, *(("heldout",) if heldout else ())]
    return lambda memory, seen: (memory, {name: getattr(seen, name) for name in names})


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
    sizes = Sizes.of(width, depth, problem.dtype)
    linear = optimizers.is_linear(problem.optimizer)
    kind = "explicit" if "weights" in record else form(width, problem.samples, linear=linear)
    reused = backward_weights == "reused"
    reuse = jnp.asarray(reused, problem.dtype)
    hidden = hidden_weights(
        kind, weights.W, weights.W_backward, reuse, problem.samples, sizes.width, reused=reused
    )

    places = jnp.arange((grid or depth) + 1) * (depth // (grid or depth))
    options = {"places": places, "heldout": heldout, "skip_last": False}
    observe = keeping(record, heldout is not None)
    out, ends, hidden = train(problem, Ends(weights.U, weights.V), hidden, sizes, observe, None, **options)
    if "weights" in record:
        other = hidden.W if reused or hidden.gap is None else hidden.W + hidden.scale * hidden.gap
        out["weights"] = Weights(ends.U, ends.V, hidden.W, other)
    return Trajectory(**out)
