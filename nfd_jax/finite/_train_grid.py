"""A whole grid of networks in one compiled program, `vmap`ped over width, depth, key, learning rate and
backward weights.

Networks share arrays with room for the widest and the deepest: coordinates from a network's width on are
zero, layers from its depth on change nothing. Draws are prefix-stable, so each network is the one that
`train_finite` draws from the same key. W(0) and noise are drawn once a key and stay unbatched over everything
else.
"""

from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import optimizers, training
from nfd_jax._sizes import Sizes
from nfd_jax.checks import (
    as_array,
    as_size,
    check_choice,
    check_flag,
    check_key,
    check_record,
    concrete,
    kind_of,
)
from nfd_jax.finite._dense import hidden_weights, initial_weights, keeping
from nfd_jax.finite._hidden import form
from nfd_jax.finite._matrices import train
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.finite._updates import Ends
from nfd_jax.memory import check_memory
from nfd_jax.names import (
    MATMUL_PRECISIONS,
    SIMULATORS,
    BackwardWeights,
    MatmulPrecision,
    RecordName,
    Simulator,
)
from nfd_jax.noise import sample_noise
from nfd_jax.problem import Problem, check_problem
from nfd_jax.programs import Program
from nfd_jax.trajectory import Trajectory


def train_grid(
    problem: Problem,
    *,
    widths: Sequence[SupportsIndex] | Array,
    depths: Sequence[SupportsIndex] | Array,
    keys: Array,
    learning_rates: Any = None,
    backward_weights: Sequence[BackwardWeights] = ("reused", "independent"),
    simulator: Simulator = "dense",
    record: tuple[RecordName, ...] = (),
    matmul_precision: MatmulPrecision = "highest",
) -> Trajectory:
    """Networks of every width, depth, key, learning rate and kind of backward weights, by one compiled
    program.

    - `widths`, `depths`: lists of sizes; `keys`: an array of keys, as of jax.random.split; `learning_rates`:
      a list, by default the problem's.
    - `backward_weights`: a list of "reused", "independent".
    - `record`: "features", "gradients" and, for matrix-free networks, "coupling".

    Returns a `Trajectory` whose arrays have leading axes (width, depth, key, learning_rate,
    backward_weights); each network is that of `train_finite` to rounding. Recorded h and b have room for the
    largest sizes, (…, K, L_max + 1, P, n_max): zero in coordinates beyond a network's width, and in layers
    beyond its depth what its last layer holds. The program visits L_max layers for all networks. Raises
    ValueError on names or sizes that are not allowed.

    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> nfd.train_grid(problem, widths=(8, 16), depths=(2, 4), keys=keys, learning_rates=(0.1,)).loss.shape
    (2, 2, 3, 1, 2, 3)
    """
    check_problem(problem)
    check_choice("simulator", simulator, SIMULATORS)
    check_choice("matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    sizes = []
    for name, values in (("widths", widths), ("depths", depths)):
        if len(kind_of(values)[1]) != 1 or not len(values):
            raise ValueError(f"{name} must be a nonempty list of positive integers; received {values!r}")
        sizes.append(tuple(as_size(f"each of {name}", value) for value in values))
    listed = isinstance(backward_weights, Iterable) and not isinstance(backward_weights, str)
    flags = tuple(backward_weights) if listed else (backward_weights,)
    for flag in flags:
        check_flag(flag)
    if not flags or len(set(flags)) < len(flags):
        raise ValueError(
            "backward_weights must be a nonempty list of different ones of reused, independent; received "
            f"{flags}"
        )
    keys = check_key(keys, many=True)
    keys = keys[None] if keys.ndim == 0 else keys
    rates = _rates(problem, learning_rates)
    record = check_record(record)
    allowed = ("features", "gradients") if simulator == "dense" else ("features", "gradients", "coupling")
    for name in record:
        check_choice("record", name, allowed)
    if simulator == "matrix_free":
        check_memory(problem, min(sizes[0]))
        optimizers.check_linear(problem.optimizer)
    which = jnp.asarray(sizes[0]), jnp.asarray(sizes[1])
    with jax.default_matmul_precision(matmul_precision):
        return _train(problem, keys, rates, *which, max(sizes[0]), max(sizes[1]), flags, simulator, record)


def _rates(problem: Problem, received: Any) -> Float[Array, " R"]:
    """The learning rates of a grid: those given, or the problem's own."""
    if received is None:
        return problem.learning_rate.reshape(1)
    allowed = "a nonempty list of finite numbers, each 0 or above"
    found = as_array("learning_rates", received, problem.dtype, allowed)
    if found.ndim > 1 or not found.size:
        raise ValueError(f"learning_rates must be {allowed}; received an array of shape {found.shape}")
    if concrete(found) and float(found.min()) < 0:
        raise ValueError(f"learning_rates must be {allowed}; received {float(found.min()):g} among them")
    return found.reshape(-1)


@Program
def _train(problem, keys, rates, widths, depths, room, layers, flags, simulator, record):
    reuse = jnp.asarray([flag == "reused" for flag in flags], problem.dtype)
    network = _dense if simulator == "dense" else _matrix_free

    def of_key(key):
        one = network(problem, key, room, layers, flags, record)
        at = lambda width, depth, rate: one(
            problem.at_rate(rate), Sizes.of(width, depth, problem.dtype, room=room, bound=layers), reuse
        )
        over = jax.vmap(jax.vmap(jax.vmap(at, (None, None, 0)), (None, 0, None)), (0, None, None))
        return over(widths, depths, rates)

    return jax.vmap(of_key, out_axes=2)(keys)


def _dense(problem, key, room, layers, flags, record):
    """What trains dense networks drawn from `key`, of every flag, at a learning rate and at sizes."""
    kind = "independent" if "independent" in flags else "reused"
    weights = initial_weights(problem, width=room, depth=layers, key=key, backward_weights=kind)
    factored = form(room, problem.samples, linear=optimizers.is_linear(problem.optimizer)) == "factored"
    back = (
        jnp.stack([weights.W if flag == "reused" else weights.W_backward for flag in flags])
        if factored
        else weights.W_backward
    )

    def one(problem, sizes, back, reuse):
        arguments = weights.W, back, reuse, problem.samples, sizes.width
        hidden = hidden_weights(
            "factored" if factored else "explicit", *arguments, reused=flags == ("reused",)
        )

        ends = Ends(sizes.cut(weights.U.T).T, sizes.cut(weights.V.T).T)
        options = {"places": jnp.arange(layers + 1), "skip_last": True}
        return Trajectory(**train(problem, ends, hidden, sizes, keeping(record), None, **options)[0])

    return lambda problem, sizes, reuse: jax.vmap(one, (None, None, 0 if factored else None, 0))(
        problem, sizes, back, reuse
    )


def _matrix_free(problem, key, room, layers, flags, record):
    """The same for matrix-free networks, on the noise of the widest and deepest."""
    noise = sample_noise(problem, width=room, depth=layers, key=key)

    def one(problem, sizes, reuse):
        return training.train(problem, noise, MatrixFree(problem, reuse, sizes), record=record)

    return lambda problem, sizes, reuse: jax.vmap(one, (None, None, 0))(problem, sizes, reuse)
