"""SGD on a network, or a limit, that is known only through its queries.

The network of finite depth and its limit share everything except how one pass runs from t = 0 to t = 1 and back: those two
passes are the argument `interior`. This module is what stands around them: the ends (U, V), the loss, the history that
SGD leaves behind, and what is recorded.

    h_0 = U x/√d        f = Vᵀ h_L / n        b_L = V χ/s        s_p, χ_p: see `losses`

SGD never forms a matrix. After the updates of all earlier samples i a query meets, besides the initial weights,

    ΔU x/√d = −η Σ_i s_i b_{0,i} (x_i·x)/d          ΔV = −η Σ_i h_{L,i} χ_iᵀ
    a n^{-1/2} ΔW_ℓ φ = −η a² Σ_i s_i b_{ℓ,i} (φ_{ℓ-1,i}·φ)/n

Held-out inputs are asked after training, jointly at each step and conditionally on everything training asked; their answers
are discarded, so they change nothing.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax import observables
from nfd_jax._types import LayerRows, Rows
from nfd_jax.gaussian import Answers, Basis
from nfd_jax.losses import loss_function, split_signal
from nfd_jax.noise import BACKWARD, FORWARD, HELDOUT, PROBE, AbstractNoise, normal_rows, stream
from nfd_jax.problem import Coupling, Problem, Trajectory


class History(eqx.Module):
    """What SGD has left in the hidden layers: A = K·P rows of samples, zero until their step comes; layer ℓ at index ℓ − 1.

    `forward` holds the queries φ(h_{ℓ-1}) of W_ℓ(0), `backward` the queries b_ℓ of W_ℓ(0)ᵀ. Both make up ΔW_ℓ too, and are kept
    as coordinates in their bases alone; their answers are made anew from the noise.
    """

    forward: Basis
    backward: Basis

    @classmethod
    def empty(cls, layers: int, directions: int, width: int, dtype) -> "History":
        basis = Basis.empty(layers, directions, width, dtype)
        return cls(basis, basis)


class Pass(eqx.Module):
    """One pass: `path` (L+1, P, n) by layer 0 … L, what to remember of its queries, `answers` (L, P, …), and each layer's
    coupling as it enters the path, `coupling` (L, P, n), where it was asked for."""

    path: Float[Array, "G P n"]
    answers: Answers
    coupling: LayerRows | None = None

    @classmethod
    def empty(cls, layers: int, rows: int, history: History, coupling: bool) -> "Pass":
        """Zeros, to be filled layer by layer."""
        directions, width = history.forward.q.shape[1:]
        dtype = history.forward.q.dtype
        zeros = lambda length: jnp.zeros((length, rows, width), dtype)
        answers = Answers.empty(layers, rows, directions, width, dtype)
        return cls(zeros(layers + 1), answers, zeros(layers) if coupling else None)

    def begin(self, ell: int | Array, start: Rows) -> "Pass":
        """The pass with the state at layer `ell` to start from."""
        return eqx.tree_at(lambda p: p.path, self, self.path.at[ell].set(start))

    def put(self, i: Array, ell: Array, state: Rows, new: Answers, coupling: Rows | None) -> "Pass":
        """The pass with the answers of block `i` and the state at layer `ell` filled in."""
        coupled = None if self.coupling is None else self.coupling.at[i].set(coupling)
        return Pass(self.path.at[ell].set(state), self.answers.put(i, new), coupled)


class Questions(eqx.Module):
    """Inputs asked after training: `inputs` (R, d) with `xi` (L, R, n), standard normals of a stream of their own."""

    inputs: Float[Array, "R d"]
    xi: LayerRows

    @classmethod
    def draw(cls, inputs: Float[Array, "R d"], layers: int, width: int, key: Array) -> "Questions":
        """Questions about `inputs`, prefix-stable in the width."""
        rows = lambda layer: normal_rows(stream(key, layer), inputs.shape[0], width, inputs.dtype)
        return cls(inputs, jax.vmap(rows)(jnp.arange(layers)))


def heldout_questions(inputs: Float[Array, "H d"], layers: int, width: int, key: Array) -> Questions:
    """Held-out inputs, for `train`."""
    return Questions.draw(inputs, layers, width, stream(key, HELDOUT))


def probe_questions(problem: Problem, layers: int, width: int, key: Array) -> Questions:
    """The first batch once for each step, for `train`: how its features move as training goes on."""
    return Questions.draw(jnp.tile(problem.inputs[0], (problem.steps, 1)), layers, width, stream(key, PROBE))


class Interior(eqx.Module):
    """How a pass runs between the ends. `pull` (P, A) is η s_i, zero for samples a row must not see.

    `noise` holds what earlier answers were drawn from, `xi` (L, P, n) what these will be. `coupling` asks for the coupling's
    decomposition; `discard` says that these queries will not be remembered.
    `depth` is the last layer's index: arrays may be longer, zero from there on.
    """

    depth: eqx.AbstractVar[int | Array]

    @abstractmethod
    def forward(
        self,
        h0: Rows,
        xi: LayerRows,
        pull: Array,
        history: History,
        noise: AbstractNoise,
        *,
        coupling: bool = False,
        discard: bool = False,
    ) -> Pass:
        """From h at t = 0 to t = 1."""

    @abstractmethod
    def backward(self, b1: Rows, h: Array, xi: LayerRows, pull: Array, history: History, noise: AbstractNoise, *, coupling: bool) -> Pass:
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
    probe: Questions | None = None,
) -> Trajectory:
    """Run the K steps of `problem`; one program, K a loop.

    `record` says whether h and b are kept, at the multiples of 1/`grid` in t (default every layer of the noise); `coupling`,
    `heldout` and `probe` fill those fields. Raises ValueError where K·P exceeds the width: a basis holds at most as many
    directions as there are coordinates.
    """
    steps, rows, width, layers, dtype = problem.steps, problem.batch_size, noise.width, noise.depth, problem.dtype
    samples = problem.samples
    if samples > width:
        raise ValueError(
            f"width {width} is too small for steps × batch size = {samples} queries: the matrix-free form and the limit need "
            "as many coordinates as queries; raise the width or take the dense simulator"
        )
    grid = noise.depth if grid is None else grid
    places = jnp.arange(grid + 1) * (interior.depth // grid)
    loss, eta = loss_function(problem.loss), problem.learning_rate
    outer = eta if problem.train == "all" else jnp.zeros_like(eta)
    inputs = problem.inputs.reshape(samples, -1)
    embedded = inputs @ noise.U.T / jnp.sqrt(jnp.asarray(problem.input_dim, dtype))
    gram = inputs @ inputs.T / problem.input_dim

    def step(carry, k):
        history, s, b0, V = carry
        now = k * rows
        here = lambda array: jax.lax.dynamic_slice_in_dim(array, now, rows)
        put = lambda array, block: jax.lax.dynamic_update_slice_in_dim(array, block, now, axis=array.ndim - 2)

        pull = jnp.broadcast_to(eta * s, (rows, samples))
        h0 = here(embedded) - (outer * s * here(gram)) @ b0
        forward = interior.forward(h0, noise.increments(FORWARD, k), pull, history, noise, coupling=coupling)
        h = forward.path
        last = h[interior.depth]
        f = last @ V.T / width
        chi = loss.signal(f, problem.targets[k])
        s_new, direction = split_signal(chi)

        history = History(history.forward.append(forward.answers, now, now), history.backward)
        backward = interior.backward(direction @ V, h, noise.increments(BACKWARD, k), pull, history, noise, coupling=coupling)
        b = backward.path
        history = History(history.forward, history.backward.append(backward.answers, now, now + rows))
        out = {"output": f, "loss": loss.value(f, problem.targets[k]), "V": V}
        if "features" in record:
            out["features"] = h[places]
        if "gradients" in record:
            out["gradients"] = b[places]
        if coupling:
            out["coupling"] = Coupling(*observables.coupling(forward.coupling, backward.coupling, interior.depth, places))
        s = jax.lax.dynamic_update_slice(s, s_new, (now,))
        return (history, s, put(b0, b[0]), V - outer * chi.T @ last), out

    history = History.empty(layers, samples, width, dtype)
    start = history, jnp.zeros(samples, dtype), jnp.zeros((samples, width), dtype), noise.V.T
    (history, s, b0, _), out = jax.lax.scan(step, start, jnp.arange(steps))
    V = out.pop("V")

    def ask(question: Questions, step_of: Array) -> Array:
        """Features (L+1, R, n), row r under the weights before update step_of[r], on W(0) given all of training."""
        x = question.inputs
        seen = jnp.arange(samples)[None, :] < rows * step_of[:, None]
        inner = x @ inputs.T / problem.input_dim
        h0 = x @ noise.U.T / jnp.sqrt(jnp.asarray(problem.input_dim, dtype)) - jnp.where(seen, outer * s * inner, 0) @ b0
        return interior.forward(h0, question.xi, jnp.where(seen, eta * s, 0), history, noise, discard=True).path

    if heldout is not None:
        # One ξ for all steps: each step's law is exact, and answers of different steps are never compared.
        at = lambda k: ask(heldout, jnp.full(heldout.inputs.shape[0], k))[interior.depth] @ V[k].T / width
        out["heldout"] = jax.lax.map(at, jnp.arange(steps))
    if probe is not None:
        # All steps in one block, jointly: features of one input are compared between steps.
        path = ask(probe, jnp.repeat(jnp.arange(steps), rows))[places]
        out["probe"] = jnp.moveaxis(path.reshape(path.shape[0], steps, rows, width), 1, 0)
    return Trajectory(**out)


def at_layer(tree, i: Array):
    """One layer of a tree of arrays (L, …)."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), tree)
