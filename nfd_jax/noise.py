"""The randomness of networks and limits: one Brownian motion per direction, step, batch slot and coordinate.

Every number is keyed by what it stands for, `normal(fold_in(… fold_in(key, direction), step), slot), layer), (n,))`. Draws of one
key are prefix-stable: width n is the first n entries of any larger width, so widths nest. A network of depth L sees the
increments ξ_ℓ = √L (B_{t_ℓ} − B_{t_{ℓ-1}}); a coarser network on the same motion sums finer increments, ξ_coarse = Σ ξ_fine/√m.
"""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax._types import Key, LayerRows
from nfd_jax.problem import Problem, check_size

FORWARD, BACKWARD, INPUT, READOUT, HELDOUT, PROBE, WEIGHTS, INDEPENDENT_WEIGHTS, BRIDGE = range(9)


def stream(key: Key, *path: int | Array) -> Key:
    """The key at `path` (direction, step, slot, layer, …) below `key`."""
    for part in path:
        key = jax.random.fold_in(key, part)
    return key


def normal_rows(key: Key, rows: int, width: int, dtype, first: int | Array = 0) -> Float[Array, "rows n"]:
    """Independent standard normals, row r from its own key, so that neither more rows nor more columns change an entry."""
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(first + jnp.arange(rows))
    return jax.vmap(lambda k: jax.random.normal(k, (width,), dtype))(keys)


def increments(key: Key, depth: int, rows: int, width: int, dtype) -> LayerRows:
    """ξ of one direction and step, (depth, rows, width); row p is a batch slot."""
    slots = jax.vmap(lambda p: normal_rows(jax.random.fold_in(key, p), depth, width, dtype))(jnp.arange(rows))
    return jnp.swapaxes(slots, 0, 1)


def coarsened(xi: Float[Array, "... M P n"], depth: int) -> Float[Array, "... L P n"]:
    """The same Brownian motions seen by `depth` layers: sums of m = M/depth neighbours, over √m."""
    fine = xi.shape[-3]
    check_size("depth", depth)
    if fine % depth:
        raise ValueError(f"depth {depth} must divide the noise's depth {fine}")
    m = fine // depth
    return xi.reshape(*xi.shape[:-3], depth, m, *xi.shape[-2:]).sum(-3) / math.sqrt(m)


def ends(key: Key, problem: Problem, width: int) -> tuple[Float[Array, "n d"], Float[Array, "n C"]]:
    """The input and readout weights U (n, d) and V (n, C), entries N(0, 1)."""
    columns = lambda what, count: normal_rows(stream(key, what), count, width, problem.dtype).T
    return columns(INPUT, problem.input_dim), columns(READOUT, problem.outputs)


class AbstractNoise(eqx.Module):
    """Weights at the two ends and increments in between."""

    U: eqx.AbstractVar[Float[Array, "n d"]]
    V: eqx.AbstractVar[Float[Array, "n C"]]

    @property
    def width(self) -> int:
        return self.U.shape[0]

    @abstractmethod
    def increments(self, direction: int, step: Array) -> LayerRows:
        """ξ of `direction` (FORWARD or BACKWARD) at `step`, (L, P, n)."""


class Noise(AbstractNoise):
    """Noise held as arrays: `U` (n, d), `V` (n, C), `forward` and `backward` increments (K, L, P, n)."""

    U: Float[Array, "n d"]
    V: Float[Array, "n C"]
    forward: Float[Array, "K L P n"]
    backward: Float[Array, "K L P n"]

    @property
    def depth(self) -> int:
        return self.forward.shape[-3]

    def coarsen(self, depth: int) -> "Noise":
        """The same noise for a network of `depth` layers; ValueError unless `depth` divides this one's."""
        return Noise(self.U, self.V, coarsened(self.forward, depth), coarsened(self.backward, depth))

    def narrow(self, width: int) -> "Noise":
        """The same noise for the first `width` coordinates; ValueError where it has fewer."""
        if not 1 <= width <= self.width:
            raise ValueError(f"width {width} must lie in 1 … {self.width}, the noise's own width")
        cut = lambda a: a[..., :width]
        return Noise(self.U[:width], self.V[:width], cut(self.forward), cut(self.backward))

    def increments(self, direction: int, step: Array) -> LayerRows:
        return jnp.take(self.forward if direction == FORWARD else self.backward, step, axis=0)


class KeyedNoise(AbstractNoise):
    """The same numbers drawn anew from their key at each use, for sizes whose increments would not fit in memory."""

    U: Float[Array, "n d"]
    V: Float[Array, "n C"]
    key: Key
    depth: int = eqx.field(static=True)
    rows: int = eqx.field(static=True)

    def increments(self, direction: int, step: Array) -> LayerRows:
        return increments(stream(self.key, direction, step), self.depth, self.rows, self.width, self.U.dtype)


def keyed_noise(problem: Problem, *, width: int, depth: int, key: Key) -> KeyedNoise:
    """`sample_noise` without its arrays: increments are drawn one step at a time."""
    return KeyedNoise(*ends(key, problem, width), key, depth, problem.batch_size)


@eqx.filter_jit
def sample_noise(problem: Problem, *, width: int, depth: int, key: Key) -> Noise:
    """Draw the noise of a network of `width` and `depth`, or of a limit with as many particles and Euler steps.

    Two calls with one key agree on what they share: the first n coordinates of U, V and, at equal depth, of the increments.
    """
    keyed = keyed_noise(problem, width=width, depth=depth, key=key)
    every = lambda direction: jax.lax.map(lambda k: keyed.increments(direction, k), jnp.arange(problem.steps))
    return Noise(keyed.U, keyed.V, every(FORWARD), every(BACKWARD))
