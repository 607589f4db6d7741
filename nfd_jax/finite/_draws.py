"""Initial weights of many seeds in one program that compiles fast, with zeros up to the program's size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax.noise import INDEPENDENT_WEIGHTS, INPUT, READOUT, WEIGHTS
from nfd_jax.problem import Problem

CACHED = 2**18
"""Numbers drawn at once, so that a core's cache holds them through the passes that making normals takes."""


def divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is at most `most`, at least 1."""
    return max(k for k in range(1, max(1, min(count, most)) + 1) if count % k == 0)


class Initial(NamedTuple):
    """Weights before training; `hidden` has W(0) in its first L entries and W̃(0), where there is one, in the
    next."""

    U: Float[Array, "S n d"]
    V: Float[Array, "S n C"]
    hidden: Float[Array, "_ S n n"]


def draw(
    problem: Problem, master: Array, seeds: Array, width: Array, *, size: int, layers: int, independent: bool
) -> Initial:
    """The weights of `_dense.initial_weights` from `stream(master, seed)` of every seed, with zeros from
    coordinate `width` on.

    Keys of all rows are folded level by level in one loop, and all rows are drawn in another: each further
    use of the generator in a program would cost a good part of the compile time of training.
    """
    dims, outputs = problem.input_dim, problem.outputs
    kinds = (WEIGHTS, INDEPENDENT_WEIGHTS) if independent else (WEIGHTS,)
    ends = [
        (what, first) for what, rows in ((INPUT, dims), (READOUT, outputs)) for first in range(0, rows, size)
    ]
    hidden = len(kinds) * layers

    # Block of rows, row: the path seed, kind, layer, row below the master key; rows of U and V have no layer.
    blocks = [(kind, ell, 0) for kind in kinds for ell in range(layers)] + [
        (kind, 0, first) for kind, first in ends
    ]
    kind, layer, first = (np.asarray(column)[:, None, None] for column in zip(*blocks, strict=True))
    has_layer = np.arange(len(blocks))[:, None, None] < hidden
    row, all_rows = first + np.arange(size), (len(blocks), seeds.size, size)
    path = jnp.stack([jnp.broadcast_to(x, all_rows) for x in (seeds[:, None], kind, layer, row)]).astype(
        np.uint32
    )
    folds = jnp.stack([jnp.broadcast_to(x, all_rows) for x in (True, True, has_layer, True)])
    every = lambda f: jax.vmap(jax.vmap(jax.vmap(f)))
    deeper = lambda keys, at: (jnp.where(at[1], every(jax.random.fold_in)(keys, at[0]), keys), None)
    keys, _ = jax.lax.scan(deeper, jnp.broadcast_to(master, all_rows), (path, folds))

    # Rows beyond the width are drawn and dropped; one seed's matrices are drawn in parts that stay in the
    # cache.
    column = jnp.arange(size) < width
    kept = jnp.broadcast_to(column | ~has_layer, all_rows)
    parts = size // divisor(size, CACHED // size) if seeds.size == 1 else 1
    normals = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (size,), problem.dtype)))
    by_part = lambda x: x.reshape(len(blocks) * parts, seeds.size, size // parts)
    drawn = jax.lax.map(
        lambda at: jnp.where(column & at[1][..., None], normals(at[0]), 0), (by_part(keys), by_part(kept))
    )
    drawn = drawn.reshape(*all_rows, size)

    def end(what: int, count: int) -> Array:
        own = [drawn[hidden + i] for i, (kind, _) in enumerate(ends) if kind == what]
        return jnp.concatenate(own, axis=1)[:, :count].swapaxes(1, 2)

    return Initial(end(INPUT, dims), end(READOUT, outputs), drawn)
