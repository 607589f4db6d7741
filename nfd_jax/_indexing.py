"""One row or layer of arrays, at an index that must be there.

NumPy's own indexing checks that it is, in operations as many as those of a small loop around it.
"""

from typing import TypeVar

import jax
from jaxtyping import Array

Tree = TypeVar("Tree")


def at(every: Tree, i: int | Array) -> Tree:
    """Entry i along the first axis of every array of a tree."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), every)


def put(every: Tree, one: Tree, i: int | Array) -> Tree:
    """The tree with entry i along the first axis of every array replaced by that of `one`."""
    return jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, i, 0), every, one)
