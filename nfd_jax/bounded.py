"""SGD of any length on a network or limit that is known through its queries: as `training`, with a bounded
history.

What training adds to a hidden matrix is Q'ᵀ D Q, with a core D (R', R) in the bases of its two families of
queries: no sample's own coordinates are needed, so that memory and the cost of a step depend on the number R
of directions alone. The optimizer acts on D, on α, and on U and V, which are held. On a fixed pool of samples
queries come to lie in a space of few directions.

What is not remembered is measured: `history_residual` is the largest part of a query, relative to its norm,
that was left out.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import observables, optimizers
from nfd_jax.history import BoundedHistory, Learned, Remembered
from nfd_jax.losses import loss_function, split_signal
from nfd_jax.noise import BACKWARD, FORWARD, AbstractNoise
from nfd_jax.problem import Problem, check_size
from nfd_jax.training import Interior, Questions
from nfd_jax.trajectory import Coupling, Trajectory


def check_bounds(problem: Problem, width: int, directions: Any, tolerance: Any) -> None:
    """Raise ValueError unless a history of so many directions fits the problem."""
    check_size("directions", directions)
    if not problem.batch_size <= directions <= width:
        allowed = f"from the batch size, {problem.batch_size}, to the width, {width}"
        raise ValueError(f"directions must be an integer {allowed}; received {directions}")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be a number from 0 to below 1; received {tolerance}")
    if problem.centered and not problem.repeated:
        raise ValueError(
            "centered outputs with a bounded history need the same batch at every step; leave directions or "
            "centered out"
        )
    optimizers.check_linear(problem.optimizer)


def train_bounded(
    problem: Problem,
    noise: AbstractNoise,
    interior: Interior,
    *,
    directions: int,
    tolerance: float,
    record: tuple[str, ...] = (),
    grid: int | None = None,
    coupling: bool = False,
    heldout: Questions | None = None,
    probe: bool = False,
) -> Trajectory:
    """Run the K steps of `problem`; one program, K a loop. Options as of `training.train`.

    With `probe` the first batch runs along in every step, without being learned from: `noise` must have 2 P
    rows then.
    """
    check_bounds(problem, noise.width, directions, tolerance)
    steps, rows, layers, dtype = problem.steps, problem.batch_size, noise.depth, problem.dtype
    width, gamma, loss = interior.width, problem.richness, loss_function(problem.loss)
    rule = (problem.optimizer or optimizers.sgd)(problem.learning_rate)
    coupling = coupling or "coupling" in record
    places = jnp.arange((grid or layers) + 1) * (interior.depth // (grid or layers) if grid else 1)
    root_dim = jnp.sqrt(jnp.asarray(problem.input_dim, dtype))
    embed = lambda x, U: x @ U.T / root_dim
    read = lambda h, V: h @ V / (gamma * width)
    learn_ends = problem.train == "all"
    learner = lambda scale: Learned(scale, jnp.ones((1, 1), dtype))
    learns = jnp.arange(2 * rows if probe else rows) < rows

    def step(carry, k):
        memory, held, state, start = carry
        scale, core, U, V = (
            held["scale"],
            held["core"],
            *((held["U"], held["V"]) if learn_ends else (noise.U, noise.V)),
        )
        x = jnp.concatenate([problem.inputs[k], problem.inputs[0]]) if probe else problem.inputs[k]
        xi, xi_back = noise.increments(FORWARD, k), noise.increments(BACKWARD, k)
        asked = learner(scale), Remembered(memory, core), noise
        forward = interior.forward(embed(x, U), xi, *asked, coupling=coupling)
        h = forward.path
        end = h[interior.depth]
        raw = read(end, V)
        start = jnp.where(k == 0, raw, start)
        f = raw - start if problem.centered else raw
        y = problem.targets[k]
        chi = loss.signal(f[:rows], y)
        followed = jnp.concatenate([chi, loss.signal(f[rows:], problem.targets[0])]) if probe else chi
        s, direction = split_signal(followed)
        s = jnp.where(learns, s, 0)

        memory, x_coordinates, lost = memory.remember(forward.answers, xi, transpose=False)
        asked = learner(scale), Remembered(memory, core), noise
        backward = interior.backward(direction @ V.T, h, xi_back, *asked, coupling=coupling)
        b = backward.path
        memory, u_coordinates, lost_back = memory.remember(backward.answers, xi_back, transpose=True)

        gradient = {
            "scale": jnp.zeros((), dtype),
            "core": gamma * jnp.einsum("lpb,p,lpa->lba", u_coordinates, s, x_coordinates),
        }
        if learn_ends:
            gradient["U"] = gamma * (s[:, None] * b[0]).T @ x / root_dim
            gradient["V"] = gamma * end[:rows].T @ chi
        out = {"output": f[:rows], "loss": loss.value(f[:rows], y)}
        out["history_residual"] = jnp.maximum(lost[:, :rows].max(), lost_back[:, :rows].max())
        if "features" in record:
            out["features"] = h[places][:, :rows]
        if "gradients" in record:
            out["gradients"] = b[places][:, :rows]
        if probe:
            out["probe"], out["probe_gradients"] = h[places][:, rows:], b[places][:, rows:]
        if coupling:
            parts = forward.coupling[:, :rows], backward.coupling[:, :rows]
            out["coupling"] = Coupling(*observables.coupling(*parts, interior.depth, places))
        if heldout is not None:
            out["heldout"] = ask(memory, scale, core, U, V)
        held, state = optimizers.apply(rule, gradient, state, held)
        return (memory, held, state, start), out

    def ask(memory: BoundedHistory, scale: Array, core: Array, U: Array, V: Array) -> Float[Array, "H C"]:
        """Held-out outputs, given what is remembered so far; centered ones are asked for a second time under
        the initial weights."""
        count = heldout.inputs.shape[0] // (2 if problem.centered else 1)
        now = jnp.arange(heldout.inputs.shape[0])[:, None] < count
        h0 = jnp.where(now, embed(heldout.inputs, U), embed(heldout.inputs, noise.U))
        learned = Learned(jnp.where(now, scale, 1), now.astype(dtype))
        path = interior.forward(h0, heldout.xi, learned, Remembered(memory, core), noise, discard=True).path
        end = path[interior.depth]
        return read(end[:count], V) - (read(end[count:], noise.V) if problem.centered else 0)

    memory = BoundedHistory.empty(layers, directions, noise.width, dtype, tolerance)
    held = {"scale": jnp.ones((), dtype), "core": jnp.zeros((layers, directions, directions), dtype)}
    if learn_ends:
        held |= {"U": noise.U, "V": noise.V}
    zeros = jnp.zeros((2 * rows if probe else rows, problem.outputs), dtype)
    _, out = jax.lax.scan(step, (memory, held, rule.init(held), zeros), jnp.arange(steps))
    return Trajectory(**out)
