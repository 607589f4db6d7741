"""The randomness of networks and limits: one Brownian motion per direction, step, batch slot and coordinate.

Every number is keyed by what it stands for, `normal(fold_in(… fold_in(key, direction), step), slot), layer),
(n,))`. Draws of one key are prefix-stable: width n is the first n entries of any larger width, so widths
nest. A network of depth L sees the increments ξ_ℓ = √L (B_{t_ℓ} − B_{t_{ℓ-1}}); a coarser network on the same
motion sums finer increments, ξ_coarse = Σ ξ_fine/√m.
"""

import math
from abc import abstractmethod
from dataclasses import replace
from typing import SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax._indexing import at
from nfd_jax._types import Index, Key, LayerRows
from nfd_jax.checks import as_size, as_sizes, check_key
from nfd_jax.problem import Problem, check_problem
from nfd_jax.programs import Program

(
    FORWARD,
    BACKWARD,
    INPUT,
    READOUT,
    HELDOUT,
    PROBE,
    WEIGHTS,
    INDEPENDENT_WEIGHTS,
    BRIDGE,
    INITIAL,
    PROBE_BACK,
) = range(11)

AT_ONCE = 2**24
"""Increments up to which those of both directions are drawn together, and copied apart afterwards."""


def stream(key: Key, *path: int | Array) -> Key:
    """The key at `path` (direction, step, slot, layer, …) below `key`."""
    for part in path:
        key = jax.random.fold_in(key, part)
    return key


def seed_key(config, seed: int) -> Key:
    """The key of one repetition of a sweep: what its networks and limits of seed number `seed` are drawn
    from.

    >>> config = nfd.load_config("configs/quickstart.yaml")
    >>> problem = nfd.Problem.from_config(config)
    >>> nfd.train_finite(problem, width=32, depth=4, key=nfd.seed_key(config, 0)).loss.shape
    (5,)

    Raises TypeError on anything but a config, ValueError for a `seed` that is no integer of 0 or above.
    """
    if not hasattr(config, "seed"):
        raise TypeError(
            f"give the config itself, as load_config(path) returns it; received {type(config).__name__}"
        )
    return stream(jax.random.key(config.seed), as_size("seed", seed, "an integer, 0 or above", least=0))


def normal_rows(key: Key, rows: int, width: int, dtype) -> Float[Array, "rows n"]:
    """Independent standard normals, row r from its own key, so that neither more rows nor more columns change
    an entry."""
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(rows))
    return jax.vmap(lambda k: jax.random.normal(k, (width,), dtype))(keys)


def neighbours(fine: int, depth: SupportsIndex) -> int:
    """How many of `fine` layers make one of `depth`; ValueError unless `depth` divides `fine`."""
    depth = as_size("depth", depth)
    if fine % depth:
        raise ValueError(f"depth {depth} must divide the noise's depth {fine}")
    return fine // depth


def coarsened(xi: Float[Array, "... M P n"], depth: SupportsIndex) -> Float[Array, "... L P n"]:
    """The same Brownian motions seen by `depth` layers: sums of m = M/depth neighbours, over √m."""
    m = neighbours(xi.shape[-3], depth)
    return xi.reshape(*xi.shape[:-3], -1, m, *xi.shape[-2:]).sum(-3) / math.sqrt(m)


def bridged(xi: Float[Array, "... L P n"], depth: int, g: Float[Array, "R n"]) -> Float[Array, "... M P n"]:
    """The same Brownian motions seen by `depth` layers: ξ_fine = ξ/√m + g − mean g over the m fine increments
    of each, g fresh standard normals, a row for every row of the outcome."""
    *lead, layers, rows, width = xi.shape
    m = depth // layers
    g = g.reshape(*lead, layers, m, rows, width)
    fine = xi[..., None, :, :] / m**0.5 + g - g.mean(-3, keepdims=True)
    return fine.reshape(*lead, depth, rows, width)


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
        return self.U.shape[-2]

    @property
    @abstractmethod
    def depth(self) -> int:
        """L, the number of layers."""

    @abstractmethod
    def coarsen(self, depth: SupportsIndex) -> "AbstractNoise":
        """The same noise for a network of `depth` layers; ValueError unless `depth` divides this one's."""

    @abstractmethod
    def increments(self, direction: Index, step: Index) -> LayerRows:
        """ξ of `direction` (FORWARD or BACKWARD) at `step`, (L, P, n)."""

    @abstractmethod
    def layer(self, direction: int, index: Index) -> Float[Array, "KP n"]:
        """ξ of one layer (from 0) for the samples of all steps."""

    @abstractmethod
    def initial_increments(self) -> Float[Array, "L KP n"]:
        """ξ of all samples under the initial weights: for `centered` outputs on batches that differ."""

    @abstractmethod
    def initial_layer(self, index: Index) -> Float[Array, "KP n"]:
        """One layer of `initial_increments`."""

    def __repr__(self) -> str:
        rows = self.forward.shape[-2] if isinstance(self, Noise) else self.rows
        steps = self.forward.shape[-4] if isinstance(self, Noise) else self.steps
        sizes = f"width={self.width}, depth={self.depth}, K={steps}, P={rows}"
        return f"{type(self).__name__}({sizes}, {self.U.dtype})"


class Noise(AbstractNoise):
    """Noise held as arrays: `U` (n, d), `V` (n, C), `forward` and `backward` increments (K, L, P, n).

    `initial` (L, K·P, n), for `centered` outputs on batches that differ, is None elsewhere.
    """

    U: Float[Array, "n d"]
    V: Float[Array, "n C"]
    forward: Float[Array, "K L P n"]
    backward: Float[Array, "K L P n"]
    initial: Float[Array, "L KP n"] | None = None

    @property
    def depth(self) -> int:
        return self.forward.shape[-3]

    def coarsen(self, depth: SupportsIndex) -> "Noise":
        """The same motions seen by `depth` layers; ValueError unless `depth` divides this noise's."""
        return self._with(lambda xi: coarsened(xi, depth))

    def refine(self, depth: SupportsIndex, key: Key) -> "Noise":
        """Noise of `depth` layers whose coarsening is this one: Brownian bridges between its increments,
        drawn from `key`.

        Raises ValueError unless this noise's depth divides `depth`.
        """
        depth = as_size("depth", depth)
        if depth % self.depth:
            raise ValueError(f"depth {depth} must be a multiple of the noise's depth {self.depth}")
        key, kinds = check_key(key), iter((FORWARD, BACKWARD, INITIAL))
        fresh = lambda rows: normal_rows(stream(key, BRIDGE, next(kinds)), rows, self.width, self.U.dtype)
        return self._with(lambda xi: bridged(xi, depth, fresh(xi.size // xi.shape[-3] * depth // self.width)))

    def _with(self, change) -> "Noise":
        forward, backward = change(self.forward), change(self.backward)
        return Noise(
            self.U, self.V, forward, backward, None if self.initial is None else change(self.initial)
        )

    def padded(self, depth: SupportsIndex) -> "Noise":
        """With layers of zeros behind, so that networks of several depths have arrays of one shape;
        ValueError where it has more than `depth`."""
        if (depth := as_size("depth", depth)) < self.depth:
            raise ValueError(f"depth {depth} must be at least {self.depth}, the noise's own depth")
        behind = (0, depth - self.depth)
        return self._with(lambda xi: jnp.pad(xi, [(0, 0)] * (xi.ndim - 3) + [behind, (0, 0), (0, 0)]))

    def narrow(self, width: SupportsIndex) -> "Noise":
        """The same noise for the first `width` coordinates; ValueError where it has fewer."""
        if (width := as_size("width", width)) > self.width:
            raise ValueError(f"width {width} must lie in 1 … {self.width}, the noise's own width")
        ends, motions = (self.U, self.V), (self.forward, self.backward, self.initial)
        cut = [x[..., :width, :] for x in ends], [x if x is None else x[..., :width] for x in motions]
        every = lambda noise: [noise.U, noise.V, noise.forward, noise.backward, noise.initial]
        return eqx.tree_at(every, self, [*cut[0], *cut[1]], is_leaf=lambda x: x is None)

    def increments(self, direction: Index, step: Index) -> LayerRows:
        return at(self._all(direction), step)

    def layer(self, direction: int, index: Index) -> Float[Array, "KP n"]:
        every = jax.lax.dynamic_index_in_dim(self._all(direction), index, 1, keepdims=False)
        return every.reshape(-1, self.width)

    def initial_increments(self) -> Float[Array, "L KP n"]:
        if self.initial is None:
            raise ValueError(
                "this noise was sampled for a problem that is not centered, or whose batches are all the "
                "same: sample it anew"
            )
        return self.initial

    def initial_layer(self, index: Index) -> Float[Array, "KP n"]:
        return at(self.initial_increments(), index)

    def _all(self, direction: int) -> Float[Array, "K L P n"]:
        return self.forward if direction == FORWARD else self.backward


class KeyedNoise(AbstractNoise):
    """The same numbers drawn anew from their key at each use, for sizes whose increments would not fit in
    memory.

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

    def coarsen(self, depth: SupportsIndex) -> "KeyedNoise":
        fine = neighbours(self.depth, depth)
        return replace(self, layers=self.depth // fine, fine=self.fine * fine)

    def increments(self, direction: Index, step: Index) -> LayerRows:
        at = lambda layer: jax.vmap(lambda p: self._row(direction, step, p, layer))(jnp.arange(self.rows))
        return jax.vmap(at)(jnp.arange(self.depth))

    def layer(self, direction: int, index: Index) -> Float[Array, "KP n"]:
        at = lambda i: self._row(direction, i // self.rows, i % self.rows, index)
        return jax.vmap(at)(jnp.arange(self.steps * self.rows))

    def _row(self, direction: Index, step: Index, slot: Index, layer: Index) -> Float[Array, " n"]:
        return self._summed(stream(self.key, direction, step, slot), layer)

    def initial_increments(self) -> Float[Array, "L KP n"]:
        return jax.lax.map(self.initial_layer, jnp.arange(self.depth))

    def initial_layer(self, index: Index) -> Float[Array, "KP n"]:
        one = lambda sample: self._summed(stream(self.key, INITIAL, sample), index)
        return jax.vmap(one)(jnp.arange(self.steps * self.rows))

    def _summed(self, at: Key, layer: Index) -> Float[Array, " n"]:
        """One layer's increment of the motion at key `at`."""
        one = lambda i: jax.random.normal(stream(at, self.fine * layer + i), (self.width,), self.U.dtype)
        if self.fine == 1:
            return one(0)
        total = jax.lax.fori_loop(
            0, self.fine, lambda i, sum: sum + one(i), jnp.zeros(self.width, self.U.dtype)
        )
        return total / math.sqrt(self.fine)


class BridgedNoise(KeyedNoise):
    """`KeyedNoise` whose motions are the same for `layers`, twice, four times, … as many: increments are
    drawn for the layers' odd part and halved `halvings` times by Brownian bridges."""

    halvings: int = eqx.field(static=True, default=0)

    def increments(self, direction: Index, step: Index) -> LayerRows:
        return self._halved(direction, self._odd.increments(direction, step), step)

    def layer(self, direction: int, index: Index) -> Float[Array, "KP n"]:
        one = lambda step: self.increments(direction, step)[index]
        return jax.lax.map(one, jnp.arange(self.steps)).reshape(-1, self.width)

    def initial_increments(self) -> Float[Array, "L KP n"]:
        return self._halved(INITIAL, self._odd.initial_increments(), 0)

    def initial_layer(self, index: Index) -> Float[Array, "KP n"]:
        return self.initial_increments()[index]

    @property
    def _odd(self) -> KeyedNoise:
        layers = self.layers * self.fine >> self.halvings
        return KeyedNoise(self.U, self.V, self.key, self.steps, self.rows, layers)

    def _halved(self, kind: Index, xi: Float[Array, "M R n"], block: Index) -> Float[Array, "L R n"]:
        """The numbers of all halvings from one use of the generator: each use is built anew in every process,
        and takes longer than anything else in such a program."""
        if not self.halvings:
            return coarsened(xi, self.layers)
        counts = [xi.shape[0] * xi.shape[1] << level for level in range(1, self.halvings + 1)]
        level = np.repeat(np.arange(self.halvings), counts)
        row = np.concatenate([np.arange(count) for count in counts]) + np.repeat(counts, counts) * block
        key = lambda level, row: stream(self.key, BRIDGE, level, BRIDGE, kind, row)
        one = lambda level, row: jax.random.normal(key(level, row), (self.width,), xi.dtype)
        for g in jnp.split(jax.vmap(one)(level, row), np.cumsum(counts)[:-1]):
            xi = bridged(xi, 2 * xi.shape[0], g)
        return coarsened(xi, self.layers)


def keyed_noise(problem: Problem, *, width: SupportsIndex, depth: SupportsIndex, key: Key) -> KeyedNoise:
    """`sample_noise` without its arrays: every increment is drawn again each time it is needed.

    Of the four largest parts of a system's memory two are saved; 2 (K·P)·L·width normals are drawn in each of
    the 2 K passes instead of once. Raises as `sample_noise` does.

    >>> noise = nfd.keyed_noise(problem, width=16, depth=8, key=jax.random.key(0))
    >>> nfd.train_finite(problem, noise=noise, simulator="matrix_free").loss.shape
    (3,)
    """
    check_problem(problem)
    return _keyed(problem, *as_sizes(width=width, depth=depth), check_key(key))


def sample_noise(problem: Problem, *, width: SupportsIndex, depth: SupportsIndex, key: Key) -> Noise:
    """Draw the noise of a network of `width` and `depth`, or of a limit with as many particles and Euler
    steps.

    Two calls with one key agree on what they share: the first n coordinates of U, V and, at equal depth, of
    the increments. Raises ValueError on sizes that are no positive integers, TypeError on anything but a key.

    >>> noise = nfd.sample_noise(problem, width=16, depth=8, key=jax.random.key(0))
    >>> noise.coarsen(4).depth, noise.refine(16, jax.random.key(1)).depth
    (4, 16)
    """
    check_problem(problem)
    return _sampled(problem, *as_sizes(width=width, depth=depth), check_key(key))


def shared_noise(problem: Problem, *, width: int, depth: int, key: Key) -> Noise:
    """Noise whose Brownian motions are the same at `depth` and at twice, four times, … `depth`, for one key:
    a limit solved with more Euler steps sees more of the same motions."""
    return _shared(problem, width, depth, key)


def shared_keyed_noise(problem: Problem, *, width: int, depth: int, key: Key) -> BridgedNoise:
    """`shared_noise` without its arrays, as `keyed_noise` is `sample_noise` without them."""
    width, depth = as_sizes(width=width, depth=depth)
    halvings = (depth & -depth).bit_length() - 1
    sizes = problem.steps, problem.batch_size, depth
    return BridgedNoise(*ends(key, problem, width), key, *sizes, halvings=halvings)


@Program
def _keyed(problem: Problem, width: int, depth: int, key: Key) -> KeyedNoise:
    return KeyedNoise(*ends(key, problem, width), key, problem.steps, problem.batch_size, depth)


@Program
def _shared(problem: Problem, width: int, depth: int, key: Key) -> Noise:
    return _held(problem, shared_keyed_noise(problem, width=width, depth=depth, key=key))


@Program
def _sampled(problem: Problem, width: int, depth: int, key: Key) -> Noise:
    return _held(problem, _keyed(problem, width, depth, key))


def _held(problem: Problem, keyed: KeyedNoise) -> Noise:
    """The numbers of noise that is drawn at each use, as arrays."""
    directions, steps = jnp.asarray((FORWARD, BACKWARD)), jnp.arange(keyed.steps)
    if 2 * problem.samples * keyed.depth * keyed.width <= AT_ONCE:  # one use of the generator for both
        one = lambda step: jax.vmap(lambda direction: keyed.increments(direction, step))(directions)
        both = jax.lax.map(one, steps)
        forward, backward = both[:, 0], both[:, 1]
    else:
        every = lambda direction: jax.lax.map(lambda step: keyed.increments(direction, step), steps)
        forward, backward = every(FORWARD), every(BACKWARD)
    initial = keyed.initial_increments() if problem.asks_first else None
    return Noise(keyed.U, keyed.V, forward, backward, initial)
