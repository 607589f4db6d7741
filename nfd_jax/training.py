"""SGD on a network, or a limit, that is known only through its queries.

The network of finite depth and its limit share everything except how one pass runs from t = 0 to t = 1 and
back: those two passes are the argument `interior`. This module is what stands around them: the ends (U, V),
the loss, the loop over steps, and what is recorded.

    h_0 = U x/√d        f = Vᵀ h_L / (γ n)        b_L = V χ/s        s_p, χ_p: see `losses`

SGD never forms a hidden matrix: what its steps leave behind is the business of `memory`, of which there are
two kinds.

Held-out inputs are asked after training, jointly at each step and conditionally on everything training asked;
their answers are discarded, so they change nothing. Where the history is bounded they are asked in each step.
"""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import observables
from nfd_jax._sizes import Sizes
from nfd_jax._types import LayerRows, Rows
from nfd_jax.gaussian import Answers
from nfd_jax.history import BoundedHistory, History, Learned
from nfd_jax.losses import loss_function, split_signal
from nfd_jax.memory import Bounded, Exact, Step, check_memory
from nfd_jax.noise import BACKWARD, FORWARD, HELDOUT, PROBE, PROBE_BACK, AbstractNoise, normal_rows, stream
from nfd_jax.problem import Problem
from nfd_jax.trajectory import Coupling, Trajectory


class Pass(eqx.Module):
    """One pass: `path` (L+1, P, n) by layer 0 … L, what to remember of its queries, `answers` (L, P, …), and
    each layer's coupling as it enters the path, `coupling` (L, P, n), where it was asked for."""

    path: Float[Array, "G P n"]
    answers: Answers
    coupling: LayerRows | None = None


class Questions(eqx.Module):
    """Inputs asked after training: `inputs` (R, d) with `xi` (L, R, n), standard normals of a stream of their
    own, and `xi_back` for their backward pass where there is one."""

    inputs: Float[Array, "R d"]
    xi: LayerRows
    xi_back: LayerRows | None = None

    @classmethod
    def draw(cls, inputs: Float[Array, "R d"], layers: int, width: int, key: Array) -> "Questions":
        """Questions about `inputs`, prefix-stable in the width."""
        rows = lambda layer: normal_rows(stream(key, layer), inputs.shape[0], width, inputs.dtype)
        return cls(inputs, jax.vmap(rows)(jnp.arange(layers)))

    def first(self, layers: int) -> "Questions":
        """The same of the first `layers` alone."""
        back = self.xi_back
        return Questions(self.inputs, self.xi[:layers], back if back is None else back[:layers])


def heldout_questions(
    problem: Problem, inputs: Float[Array, "H d"], layers: int, width: int, key: Array
) -> Questions:
    """Held-out inputs, for `train`; where outputs are centered, a second time under the initial weights."""
    asked = jnp.concatenate([inputs, inputs]) if problem.centered else inputs
    return Questions.draw(asked, layers, width, stream(key, HELDOUT))


def probe_questions(problem: Problem, layers: int, width: int, key: Array) -> Questions:
    """The first batch once for each step, for `train`: how its h and b move as training goes on."""
    inputs = jnp.tile(problem.inputs[0], (problem.steps, 1))
    forward, backward = (
        Questions.draw(inputs, layers, width, stream(key, what)) for what in (PROBE, PROBE_BACK)
    )
    return Questions(inputs, forward.xi, backward.xi)


class Interior(eqx.Module):
    """How a pass runs between the ends, on the history and under the weights that `learned` describes.

    `noise` holds what earlier answers were drawn from, `xi` (L, P, n) what these will be. `coupling` asks for
    the coupling's decomposition; `discard` says that these queries will not be remembered. `sizes` has the
    last layer's index, `depth`: arrays may be longer, and what they hold beyond it means nothing; and the
    number of coordinates that averages run over, `width`: arrays may be wider, zero from there on.
    """

    sizes: eqx.AbstractVar[Sizes]

    @abstractmethod
    def forward(
        self,
        h0: Rows,
        xi: LayerRows,
        learned: Learned,
        history: History | BoundedHistory,
        noise: AbstractNoise,
        *,
        coupling: bool = False,
        discard: bool = False,
    ) -> Pass:
        """From h at t = 0 to t = 1."""

    @abstractmethod
    def backward(
        self,
        b1: Rows,
        h: Array,
        xi: LayerRows,
        learned: Learned,
        history: History | BoundedHistory,
        noise: AbstractNoise,
        *,
        coupling: bool = False,
        discard: bool = False,
    ) -> Pass:
        """From b at t = 1 to t = 0, along the features h (L+1, P, n) of the forward pass."""


def train(
    problem: Problem,
    noise: AbstractNoise,
    interior: Interior,
    *,
    record: tuple[str, ...] = (),
    grid: int | None = None,
    coupling: bool = False,
    heldout: Questions | None = None,
    probe: Questions | bool | None = None,
    directions: int | None = None,
    tolerance: float = 0.05,
) -> Trajectory:
    """Run the K steps of `problem`; one program, K a loop.

    `record` says whether h and b are kept, at the multiples of 1/`grid` in t (default every layer of the
    noise); `coupling`, `heldout` and `probe` fill those fields. With `directions` the history is bounded
    (`memory.Bounded`): `probe` is then True, the first batch runs along in every step without being learned
    from, and `noise` must have 2 P rows. Raises ValueError as `memory.check_memory` does.
    """
    check_memory(problem, noise.width, directions, tolerance)
    bounds = () if directions is None else (directions, tolerance)
    memory = (Bounded if bounds else Exact)(problem, noise, *bounds)
    steps, rows, layers, dtype = problem.steps, problem.batch_size, noise.depth, problem.dtype
    width, depth = interior.sizes.width, interior.sizes.depth
    gamma, loss = problem.richness, loss_function(problem.loss)
    coupling = coupling or "coupling" in record
    along, first = bool(probe) and memory.asks_along, problem.asks_first
    places = jnp.arange((grid or layers) + 1) * (depth // (grid or layers) if grid else 1)
    followed = 2 * rows if along else rows
    learns = jnp.arange(followed) < rows
    read = lambda h, V: h @ V.T / (gamma * width)

    def step(carry, k):
        state, start = carry
        x = jnp.concatenate([problem.inputs[k], problem.inputs[0]]) if along else problem.inputs[k]
        xi, xi_back = noise.increments(FORWARD, k), noise.increments(BACKWARD, k)
        (h0, learned), V = memory.meets(state, x, k), memory.readout(state, k)
        forward = interior.forward(h0, xi, learned, state.history, noise, coupling=coupling)
        h = forward.path
        end = h[depth]
        f = read(end, V)
        if problem.centered:
            start = start if first else jnp.where(k == 0, f, start)
            f = f - (jax.lax.dynamic_slice_in_dim(start, k * rows, rows) if first else start)
        chi = loss.signal(f[:rows], problem.targets[k])
        every = jnp.concatenate([chi, loss.signal(f[rows:], problem.targets[0])]) if along else chi
        s, direction = split_signal(every)

        state, heard = memory.hear(state, forward.answers, xi, k, transpose=False)
        backward = interior.backward(
            direction @ V, h, xi_back, learned, state.history, noise, coupling=coupling
        )
        b = backward.path
        state, heard_back = memory.hear(state, backward.answers, xi_back, k, transpose=True)

        out = {"output": f[:rows], "loss": loss.value(f[:rows], problem.targets[k])}
        for name, path, followed_as in (("features", h, "probe"), ("gradients", b, "probe_gradients")):
            if name in record:
                out[name] = path[places][:, :rows]
            if along:
                out[followed_as] = path[places][:, rows:]
        if coupling:
            parts = forward.coupling[:, :rows], backward.coupling[:, :rows]
            out["coupling"] = Coupling(*observables.coupling(*parts, width, depth, places))
        if heldout is not None and memory.asks_along:
            out["heldout"] = heldout_outputs(state, k)
        taken = Step(x, jnp.where(learns, s, 0), chi, b[0], end, (heard, heard_back))
        state, found = memory.learn(state, taken, k)
        return (state, start), out | found

    def heldout_outputs(state, k) -> Float[Array, "H C"]:
        """Centered ones are asked for a second time under the initial weights. One ξ serves all steps: each
        step's law is exact, and answers of different steps are never compared."""
        asked = heldout.inputs.shape[0]
        count = asked // (2 if problem.centered else 1)
        h0, learned = memory.meets(state, heldout.inputs, k, jnp.arange(asked) >= count)
        done = interior.forward(h0, heldout.xi, learned, state.history, noise, discard=True)
        end = done.path[depth]
        f = read(end[:count], memory.readout(state, k))
        return f - read(end[count:], noise.V.T) if problem.centered else f

    def probed(state) -> tuple[Array, Array]:
        """h and b (K, G, P, n) of the first batch before each step: all in one block, jointly, as they are
        compared between steps."""
        by_step = lambda path: jnp.moveaxis(path[places].reshape(places.size, steps, rows, -1), 1, 0)
        when = jnp.repeat(jnp.arange(steps), rows)
        h0, learned = memory.meets(state, probe.inputs, when)
        forward = interior.forward(h0, probe.xi, learned, state.history, noise)
        V = jax.vmap(partial(memory.readout, state))(jnp.arange(steps))
        f = jax.vmap(read)(forward.path[depth].reshape(steps, rows, -1), V)
        f = f - f[0] if problem.centered else f
        direction = jax.vmap(lambda f: split_signal(loss.signal(f, problem.targets[0]))[1])(f)
        b1 = jnp.einsum("kpc,kcn->kpn", direction, V).reshape(steps * rows, -1)
        known = state.history.with_questions(forward.answers, probe.xi)
        backward = interior.backward(b1, forward.path, probe.xi_back, learned, known, noise, discard=True)
        return by_step(forward.path), by_step(backward.path)

    state, start = memory.begin(), jnp.zeros((followed, problem.outputs), dtype)
    if first:
        samples = problem.samples
        h0, learned = memory.meets(state, problem.inputs.reshape(samples, -1), jnp.zeros(samples, int))
        xi = noise.initial_increments()
        asked = interior.forward(h0, xi, learned, state.history, noise)
        state = state._replace(history=state.history.remember(asked.answers, -samples, transpose=False))
        start = read(asked.path[depth], noise.V.T)
    (state, _), out = jax.lax.scan(step, (state, start), jnp.arange(steps))
    if heldout is not None and not memory.asks_along:
        out["heldout"] = jax.lax.map(partial(heldout_outputs, state), jnp.arange(steps))
    if probe and not along:
        out["probe"], out["probe_gradients"] = probed(state)
    return Trajectory(**out)
