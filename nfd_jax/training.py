"""SGD on a network, or a limit, that is known only through its queries.

The network of finite depth and its limit share everything except how one pass runs from t = 0 to t = 1 and
back: those two passes are the argument `interior`. This module is what stands around them: the ends (U, V),
the loss, the history that SGD leaves behind, and what is recorded.

    h_0 = U x/√d        f = Vᵀ h_L / (γ n)        b_L = V χ/s        s_p, χ_p: see `losses`

SGD never forms a hidden matrix. After the updates of all earlier samples i a query meets, besides α_k times
the initial weights,

    ΔU x/√d = γ Σ_i c_i s_i b_{0,i} (x_i·x)/d          ΔV = γ Σ_i c_i h_{L,i} χ_iᵀ
    a n^{-1/2} ΔW_ℓ φ = γ a² Σ_i c_i s_i b_{ℓ,i} (φ_{ℓ-1,i}·φ)/n

with α_k and c_i = c_{k,i} the optimizer's coefficients (`optimizers`; plain SGD: 1 and −η) and γ the
richness.

Held-out inputs are asked after training, jointly at each step and conditionally on everything training asked;
their answers are discarded, so they change nothing.
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import observables, optimizers
from nfd_jax._types import LayerRows, Rows
from nfd_jax.gaussian import Answers
from nfd_jax.history import History, Learned, Remembered
from nfd_jax.losses import loss_function, split_signal
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
    the coupling's decomposition; `discard` says that these queries will not be remembered. `depth` is the
    last layer's index: arrays may be longer, and what they hold beyond it means nothing. `width` is the
    number of coordinates that averages run over: arrays may be wider, zero from there on.
    """

    depth: eqx.AbstractVar[int | Array]
    width: eqx.AbstractVar[Array]

    @abstractmethod
    def forward(
        self,
        h0: Rows,
        xi: LayerRows,
        learned: Learned,
        history: History | Remembered,
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
        history: History | Remembered,
        noise: AbstractNoise,
        *,
        coupling: bool = False,
        discard: bool = False,
    ) -> Pass:
        """From b at t = 1 to t = 0, along the features h (L+1, P, n) of the forward pass."""


class Rule(NamedTuple):
    """An optimizer's coefficients by sample: row k of `hidden` and `ends` (K, K·P) are γ c_{k,i}; the
    matrices' own scales α_k."""

    hidden_scale: Float[Array, " K"]
    hidden: Float[Array, "K A"]
    ends_scale: Float[Array, " K"]
    ends: Float[Array, "K A"]

    @classmethod
    def of(cls, problem: Problem) -> "Rule":
        settings = problem.optimizer, problem.learning_rate, problem.steps
        hidden = optimizers.coefficients(*settings)
        ends = hidden if problem.train == "all" else optimizers.coefficients(*settings, learns=False)
        by_sample = lambda c: problem.richness * jnp.repeat(c, problem.batch_size, axis=1)
        return cls(hidden.alpha, by_sample(hidden.steps), ends.alpha, by_sample(ends.steps))


def check_room(problem: Problem, width: int) -> None:
    """Raise ValueError where a basis would need more directions than there are coordinates."""
    needed = problem.samples * (2 if problem.centered and not problem.repeated else 1)
    if needed > width:
        why = (
            "steps × batch size" if needed == problem.samples else "2 × steps × batch size (centered outputs)"
        )
        raise ValueError(
            f"width {width} is too small for {why} = {needed} queries: the matrix-free form and the limit "
            "need "
            "as many coordinates as queries; raise the width, bound the history (directions=), or take the "
            "dense simulator"
        )


def train(
    problem: Problem,
    noise: AbstractNoise,
    interior: Interior,
    *,
    record: tuple[str, ...] = (),
    grid: int | None = None,
    coupling: bool = False,
    heldout: Questions | None = None,
    probe: Questions | None = None,
) -> Trajectory:
    """Run the K steps of `problem`; one program, K a loop.

    `record` says whether h and b are kept, at the multiples of 1/`grid` in t (default every layer of the
    noise); `coupling`, `heldout` and `probe` fill those fields. Raises ValueError where K·P exceeds the
    width: a basis holds at most as many directions as there are coordinates.
    """
    steps, rows, layers, dtype = problem.steps, problem.batch_size, noise.depth, problem.dtype
    samples, size, width = problem.samples, noise.width, interior.width
    check_room(problem, size)
    loss, rule, gamma = loss_function(problem.loss), Rule.of(problem), problem.richness
    coupling = coupling or "coupling" in record
    places = jnp.arange((grid or layers) + 1) * (interior.depth // (grid or layers) if grid else 1)
    inputs = problem.inputs.reshape(samples, -1)
    embed = lambda x: x @ noise.U.T / jnp.sqrt(jnp.asarray(problem.input_dim, dtype))
    embedded = embed(inputs)
    gram = inputs @ inputs.T / problem.input_dim
    read = lambda h, V: h @ V.T / (gamma * width)
    everywhere = lambda k, s: Learned(
        rule.hidden_scale[k], jnp.broadcast_to(rule.hidden[k] * s, (rows, samples))
    )
    apart = problem.centered and not problem.repeated

    def step(carry, k):
        history, s, b0, last, chi, start = carry
        now = k * rows
        here = lambda array: jax.lax.dynamic_slice_in_dim(array, now, rows)
        put = lambda array, block: jax.lax.dynamic_update_slice_in_dim(array, block, now, axis=0)

        learned, V = everywhere(k, s), rule.ends_scale[k] * noise.V.T + (rule.ends[k] * chi.T) @ last
        h0 = rule.ends_scale[k] * here(embedded) + (rule.ends[k] * s * here(gram)) @ b0
        forward = interior.forward(
            h0, noise.increments(FORWARD, k), learned, history, noise, coupling=coupling
        )
        h = forward.path
        end = h[interior.depth]
        f = read(end, V)
        if problem.centered:
            start = here(start) if apart else jnp.where(k == 0, f, start)
            f = f - start
        chi_new = loss.signal(f, problem.targets[k])
        s_new, direction = split_signal(chi_new)

        history = history.remember(forward.answers, now, transpose=False)
        backward = interior.backward(
            direction @ V, h, noise.increments(BACKWARD, k), learned, history, noise, coupling=coupling
        )
        b = backward.path
        history = history.remember(backward.answers, now, transpose=True)
        out = {"output": f, "loss": loss.value(f, problem.targets[k]), "V": V}
        if "features" in record:
            out["features"] = h[places]
        if "gradients" in record:
            out["gradients"] = b[places]
        if coupling:
            out["coupling"] = Coupling(
                *observables.coupling(forward.coupling, backward.coupling, interior.depth, places)
            )
        start = carry[-1] if apart else start
        return (history, put(s, s_new), put(b0, b[0]), put(last, end), put(chi, chi_new), start), out

    history = History.empty(layers, samples, size, dtype, offset=samples if apart else 0)
    start = jnp.zeros((rows, problem.outputs), dtype)
    if apart:  # all samples under the initial weights, before anything is learned
        unseen = Learned(jnp.ones((), dtype), jnp.zeros((samples, samples), dtype))
        first = interior.forward(embedded, noise.initial_increments(), unseen, history, noise)
        history = history.remember(first.answers, -samples, transpose=False)
        start = read(first.path[interior.depth], noise.V.T)
    zeros = lambda *shape: jnp.zeros(shape, dtype)
    begin = (
        history,
        zeros(samples),
        zeros(samples, size),
        zeros(samples, size),
        zeros(samples, problem.outputs),
        start,
    )
    (history, s, b0, *_), out = jax.lax.scan(step, begin, jnp.arange(steps))
    V = out.pop("V")

    def under(step_of: Array) -> Learned:
        """What row r of a pass meets: the weights before update step_of[r]."""
        return Learned(rule.hidden_scale[step_of][:, None], rule.hidden[step_of] * s)

    def ask(x: Array, xi: LayerRows, step_of: Array, *, discard: bool) -> Pass:
        """Features (L+1, R, n) of inputs x, on W(0) given all of training."""
        inner = x @ inputs.T / problem.input_dim
        h0 = rule.ends_scale[step_of][:, None] * embed(x) + (rule.ends[step_of] * s * inner) @ b0
        return interior.forward(h0, xi, under(step_of), history, noise, discard=discard)

    if heldout is not None:
        count = heldout.inputs.shape[0] // (2 if problem.centered else 1)

        def at(k):
            # One ξ for all steps: each step's law is exact, and answers of different steps are never
            # compared.
            when = jnp.where(jnp.arange(heldout.inputs.shape[0]) < count, k, 0)
            end = ask(heldout.inputs, heldout.xi, when, discard=True).path[interior.depth]
            return read(end[:count], V[k]) - (read(end[count:], V[0]) if problem.centered else 0)

        out["heldout"] = jax.lax.map(at, jnp.arange(steps))
    if probe is not None:
        # All steps in one block, jointly: h and b of one input are compared between steps.
        by_step = lambda path: jnp.moveaxis(path[places].reshape(places.size, steps, rows, size), 1, 0)
        when = jnp.repeat(jnp.arange(steps), rows)
        forward = ask(probe.inputs, probe.xi, when, discard=False)
        out["probe"] = by_step(forward.path)
        f = jax.vmap(read)(forward.path[interior.depth].reshape(steps, rows, size), V)
        f = f - f[0] if problem.centered else f
        direction = jax.vmap(lambda f: split_signal(loss.signal(f, problem.targets[0]))[1])(f)
        b1 = jnp.einsum("kpc,kcn->kpn", direction, V).reshape(steps * rows, size)
        known = history.with_questions(forward.answers, probe.xi)
        backward = interior.backward(b1, forward.path, probe.xi_back, under(when), known, noise, discard=True)
        out["probe_gradients"] = by_step(backward.path)
    return Trajectory(**out)
