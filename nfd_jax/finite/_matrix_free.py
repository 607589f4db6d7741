"""A finite network without its weight matrices: exact in law, O(n) a layer.

The step of `parametrization`, with W_ℓ(0) answered by `gaussian` and Δ_ℓ, what training added, by `history`.
A forward pass knows earlier backward queries; a backward pass knows its own step's forward queries too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax._indexing import at, put
from nfd_jax._sizes import Sizes
from nfd_jax._types import Rows, Scalar
from nfd_jax.activations import Activation, resolve
from nfd_jax.gaussian import Answers
from nfd_jax.parametrization import Block, block
from nfd_jax.problem import Problem
from nfd_jax.training import Interior, Pass


class MatrixFree(Interior):
    """The passes of one network; `reuse` is 1 where the backward pass uses the forward weights' transpose,
    else 0.

    `sizes` may be smaller than the noise has layers and coordinates, and traced: one compiled program serves
    networks of many sizes.
    """

    problem: Problem
    reuse: Scalar
    sizes: Sizes

    @classmethod
    def of(
        cls,
        problem: Problem,
        reuse: Array,
        depth: int | Array,
        width: int | Array,
        *,
        room: int | None = None,
        bound: int | Array | None = None,
    ) -> "MatrixFree":
        """A network as wide as its noise, or narrower where that has `room` for more; `depth` may be smaller
        than the noise has layers, and both traced. Loops visit `bound` layers, by default its own."""
        return cls(problem, reuse, Sizes.of(width, depth, problem.dtype, room=room, bound=bound))

    def _parts(self) -> tuple[Activation, Block]:
        """φ and the block's scales."""
        scales = block(self.problem.parametrization, self.problem.horizon, self.sizes.depth)
        return resolve(self.problem.activation), scales

    def forward(self, h0, xi, learned, history, noise, *, coupling=False, discard=False) -> Pass:
        (phi, scales), sizes = self._parts(), self.sizes
        start = _begin(sizes.cut(h0), xi, history.forward, history.backward, coupling, first=0)

        def layer(i, done: Pass) -> Pass:
            h, here = at(done.path, i), history.layer(i, noise, learned, sizes.width, self.reuse)
            x = sizes.cut(phi.value(h))
            found = here.answer(here.resolve(x, transpose=False, discard=discard), at(xi, i), transpose=False)
            up = sizes.cut(scales.up(h, found.image, here.drift(x, transpose=False)))
            return _put(
                done, i, i + 1, sizes.keep(i, up, h), found.new, sizes.keep(i, scales.scale * found.coupled)
            )

        return jax.lax.fori_loop(0, sizes.bound, layer, start)

    def backward(self, b1, h, xi, learned, history, noise, *, coupling=False, discard=False) -> Pass:
        (phi, scales), sizes = self._parts(), self.sizes
        start = _begin(sizes.cut(b1), xi, history.backward, history.forward, coupling, first=sizes.bound)

        def layer(j, done: Pass) -> Pass:
            i = sizes.bound - 1 - j
            b, here = at(done.path, i + 1), history.layer(i, noise, learned, sizes.width, self.reuse)
            slope = phi.derivative(at(h, i))
            found = here.answer(here.resolve(b, transpose=True, discard=discard), at(xi, i), transpose=True)
            down = sizes.cut(scales.down(b, slope, found.image, here.drift(b, transpose=True)))
            coupled = sizes.keep(i, slope * scales.scale * found.coupled)
            return _put(done, i, i, sizes.keep(i, down, b), found.new, coupled)

        return jax.lax.fori_loop(0, sizes.bound, layer, start)


def _begin(start: Rows, xi: Array, own, other, coupling: bool, *, first: int | Array) -> Pass:
    """A pass to be filled, with the state to start from at layer `first`."""
    layers, rows, width = xi.shape
    path = put(jnp.zeros((layers + 1, rows, width), start.dtype), start, first)
    answers = Answers.empty(layers, rows, own, other)
    return Pass(path, answers, jnp.zeros((layers, rows, width), start.dtype) if coupling else None)


def _put(done: Pass, i: Array, ell: Array, state: Rows, new: Answers, coupled: Rows) -> Pass:
    """The pass with the answers of block `i` and the state at layer `ell` filled in."""
    coupling = None if done.coupling is None else put(done.coupling, coupled, i)
    return Pass(put(done.path, state, ell), done.answers.put(i, new), coupling)
