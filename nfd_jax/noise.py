"""The randomness of networks and limits: one Brownian motion per direction, step, batch slot and coordinate.

Every number is keyed by what it stands for, `normal(fold_in(… fold_in(key, direction), step), slot), layer), (n,))`. Draws of one
key are prefix-stable: width n is the first n entries of any larger width, so widths nest. A network of depth L sees the
increments ξ_ℓ = √L (B_{t_ℓ} − B_{t_{ℓ-1}}); a coarser network on the same motion sums finer increments, ξ_coarse = Σ ξ_fine/√m.
"""

import math
from abc import abstractmethod
from dataclasses import replace

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


def normal_rows(key: Key, rows: int, width: int, dtype) -> Float[Array, "rows n"]:
    """Independent standard normals, row r from its own key, so that neither more rows nor more columns change an entry."""
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(rows))
    return jax.vmap(lambda k: jax.random.normal(k, (width,), dtype))(keys)


def neighbours(fine: int, depth: int) -> int:
    """How many of `fine` layers make one of `depth`; ValueError unless `depth` divides `fine`."""
    check_size("depth", depth)
    if fine % depth:
        raise ValueError(f"depth {depth} must divide the noise's depth {fine}")
    return fine // depth


def coarsened(xi: Float[Array, "... M P n"], depth: int) -> Float[Array, "... L P n"]:
    """The same Brownian motions seen by `depth` layers: sums of m = M/depth neighbours, over √m."""
    m = neighbours(xi.shape[-3], depth)
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

    @property
    @abstractmethod
    def depth(self) -> int:
        """L, the number of layers."""

    @abstractmethod
    def coarsen(self, depth: int) -> "AbstractNoise":
        """The same noise for a network of `depth` layers; ValueError unless `depth` divides this one's."""

    @abstractmethod
    def increments(self, direction: int, step: Array) -> LayerRows:
        """ξ of `direction` (FORWARD or BACKWARD) at `step`, (L, P, n)."""

    @abstractmethod
    def layer(self, direction: int, index: Array) -> Float[Array, "KP n"]:
        """ξ of one layer (from 0) for the samples of all steps."""


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
        return Noise(self.U, self.V, coarsened(self.forward, depth), coarsened(self.backward, depth))

    def narrow(self, width: int) -> "Noise":
        """The same noise for the first `width` coordinates; ValueError where it has fewer."""
        if not 1 <= width <= self.width:
            raise ValueError(f"width {width} must lie in 1 … {self.width}, the noise's own width")
        cut = lambda a: a[..., :width]
        return Noise(self.U[:width], self.V[:width], cut(self.forward), cut(self.backward))

    def increments(self, direction: int, step: Array) -> LayerRows:
        return jax.lax.dynamic_index_in_dim(self._all(direction), step, 0, keepdims=False)

    def layer(self, direction: int, index: Array) -> Float[Array, "KP n"]:
        every = jax.lax.dynamic_index_in_dim(self._all(direction), index, 1, keepdims=False)
        return every.reshape(-1, self.width)

    def _all(self, direction: int) -> Float[Array, "K L P n"]:
        return self.forward if direction == FORWARD else self.backward


class KeyedNoise(AbstractNoise):
    """The same numbers drawn anew from their key at each use, for sizes whose increments would not fit in memory.

    Each of the `layers` sums `fine` increments of the motion that the key stands for.
    """

    U: Float[Array, "n d"]
    V: Float[Array, "n C"]
    key: Key
    steps: int = eqx.field(static=True)
    rows: int = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    fine: int = eqx.field(static=True, default=1)

    @property
    def depth(self) -> int:
        return self.layers

    def coarsen(self, depth: int) -> "KeyedNoise":
        return replace(self, layers=depth, fine=self.fine * neighbours(self.depth, depth))

    def increments(self, direction: int, step: Array) -> LayerRows:
        at = lambda layer: jax.vmap(lambda p: self._row(direction, step, p, layer))(jnp.arange(self.rows))
        return jax.vmap(at)(jnp.arange(self.depth))

    def layer(self, direction: int, index: Array) -> Float[Array, "KP n"]:
        at = lambda i: self._row(direction, i // self.rows, i % self.rows, index)
        return jax.vmap(at)(jnp.arange(self.steps * self.rows))

    def _row(self, direction: int, step: Array, slot: Array, layer: Array) -> Float[Array, " n"]:
        at = stream(self.key, direction, step, slot)
        one = lambda i: jax.random.normal(stream(at, self.fine * layer + i), (self.width,), self.U.dtype)
        if self.fine == 1:
            return one(0)
        total = jax.lax.fori_loop(0, self.fine, lambda i, sum: sum + one(i), jnp.zeros(self.width, self.U.dtype))
        return total / math.sqrt(self.fine)


@eqx.filter_jit
def keyed_noise(problem: Problem, *, width: int, depth: int, key: Key) -> KeyedNoise:
    """`sample_noise` without its arrays: every increment is drawn again each time it is needed.

    Of the four largest parts of a system's memory two are saved; 2 (K·P)·L·width normals are drawn in each of the 2 K passes instead
    of once.
    """
    return KeyedNoise(*ends(key, problem, width), key, problem.steps, problem.batch_size, depth)


@eqx.filter_jit
def sample_noise(problem: Problem, *, width: int, depth: int, key: Key) -> Noise:
    """Draw the noise of a network of `width` and `depth`, or of a limit with as many particles and Euler steps.

    Two calls with one key agree on what they share: the first n coordinates of U, V and, at equal depth, of the increments.
    """
    keyed = keyed_noise(problem, width=width, depth=depth, key=key)
    every = lambda direction: jax.lax.map(lambda k: keyed.increments(direction, k), jnp.arange(problem.steps))
    return Noise(keyed.U, keyed.V, every(FORWARD), every(BACKWARD))
