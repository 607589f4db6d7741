"""What a sweep's results look like: the variables of its measures, and the coordinates along them, from the
config alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nfd_jax.names import CellStatus
from nfd_jax.store._batch import Batch
from nfd_jax.store._zarr import array_metadata, encode, file_bytes, group_metadata

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

CELL = "status/cell"

SPLIT = ("width", "particles", "depth", "seed")
"""Dimensions along which a chunk has length 1, so that no two batches share a file."""

_ALL = slice(None)

_COORDINATES = {
    "backward_weights": "backward weights of the network or limit",
    "limit_backward_weights": "backward weights of the limit compared with",
    "learning_rate": "learning rate before muP scaling by the width",
    "width": "width n",
    "particles": "particles N of the limit; 0 where it is estimated to a tolerance",
    "depth": "depth L",
    "seed": "independent repetition",
    "step": "SGD step; the state before its update",
    "t": "layer position l/L",
    "sample": "sample of the batch",
    "sample2": "sample of the batch",
    "component": "component of the output",
    "quantity": "h: forward features, b: backward features, f: outputs",
    "direction": "forward or backward pass",
    "kind": "Gram matrix of phi(h) (feature) or of b (gradient)",
    "scope": "one step's batch, or jointly all steps so far",
    "source": "finite network or limit",
}


class Chunk(NamedTuple):
    """One chunk file: which cell of which array it holds, and where."""

    array: str
    cell: str
    path: str
    within: tuple[slice, ...]
    """Position in the batch's own array."""
    place: tuple[slice, ...]
    """Position in the whole array."""


@dataclass(frozen=True)
class Grid:
    """Where a batch's cells lie: the axes a store may grow along and every array's dimensions."""

    axes: dict[str, tuple[int, ...]]
    dims: dict[str, tuple[str, ...]]
    matched: bool
    """Whether a batch of cells holds the limit with as many particles as its width."""
    chunk_bytes: dict[str, int]
    """Length of each array's chunk files."""

    def assign(self, plan: Iterable[Batch]) -> dict[str, list[Chunk]]:
        """The chunks each batch owns, by its id: what it computes less what an earlier one holds (a limit met
        twice)."""
        taken: set[str] = set()
        chunks: dict[str, list[Chunk]] = {}
        for batch in plan:
            chunks[batch.id] = [chunk for chunk in self._computed(batch) if chunk.path not in taken]
            taken.update(chunk.path for chunk in chunks[batch.id])
        return chunks

    def arrays(self, batch: Batch) -> list[str]:
        """Names of the arrays a batch computes."""
        networks = batch.kind == "cells"
        return [
            name
            for name, dims in self.dims.items()
            if ("width" in dims and networks) or ("particles" in dims and (self.matched or not networks))
        ]

    def _computed(self, batch: Batch) -> Iterator[Chunk]:
        for name in self.arrays(batch):
            dims = self.dims[name]
            for (i, depth), (j, seed) in product(
                enumerate(batch.depths) if "depth" in dims else [(0, 0)], enumerate(batch.seeds)
            ):
                value = {"width": batch.width, "particles": batch.width, "depth": depth, "seed": seed}
                whole = {dim: self.axes[dim].index(value[dim]) for dim in dims if dim in SPLIT}
                local = dict.fromkeys(whole, 0) | {"depth": i, "seed": j}
                yield Chunk(
                    name,
                    ", ".join(f"{dim} {value[dim]}" for dim in whole),
                    f"{name}/c.{'.'.join(str(whole.get(dim, 0)) for dim in dims)}",
                    tuple(_only(local[dim]) if dim in whole else _ALL for dim in dims),
                    tuple(_only(whole[dim]) if dim in whole else _ALL for dim in dims),
                )


@dataclass(frozen=True)
class Layout:
    """A grid with what describes it: metadata by path in the store, and the coordinates' chunk files."""

    grid: Grid
    nodes: dict[str, dict]
    files: dict[str, bytes]


def cells(batch: Batch) -> set[tuple[int, int, int]]:
    """(width, depth, seed) of a batch's cells; depth is 0 for a limit on its own."""
    return set(product([batch.width], batch.depths or [0], batch.seeds))


def asked(config: "SweepConfig") -> set[tuple[int, int, int]]:
    """(width, depth, seed) of all cells a config asks for, in the notation of `cells`."""
    found: set[tuple[int, int, int]] = set()
    if config.finite:
        found |= set(product(config.finite.widths, config.finite.depths, range(config.seeds)))
    if config.limit and config.limit.alone is not None:
        found |= set(product([config.limit.alone], [0], range(config.seeds)))
    return found


def intervals(config: "SweepConfig") -> int:
    """Number of intervals of the t grid: gcd of all depths; of depth_steps and 16 where there are no
    networks."""
    if config.finite:
        return gcd(*config.finite.depths)
    return gcd(config.limit.depth_steps, 16) if config.limit else 1


def axes(config: "SweepConfig", stored: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The axes of a store that holds what it held and what the config asks for, in the config's order."""
    wanted: dict[str, tuple[int, ...]] = {"seed": tuple(range(config.seeds))}
    if config.finite:
        wanted |= {"width": tuple(config.finite.widths), "depth": tuple(config.finite.depths)}
    merged = {name: _merge(stored.get(name, ()), values) for name, values in wanted.items()}
    if config.limit:
        alone = config.limit.alone
        merged["particles"] = merged["width"] if alone is None else (alone,)
    return merged


def layout(
    config: "SweepConfig", axes: dict[str, tuple[int, ...]], *, outputs: int, attributes: dict
) -> Layout:
    """The arrays of a config's store, with C = `outputs`; `attributes` are the root's."""
    from nfd_jax.measures import Variable, taken  # JAX takes seconds to import, and readers need none

    common: dict[str, tuple] = {
        **axes,
        "learning_rate": tuple(float(rate) for rate in config.problem.learning_rates),
        "step": tuple(range(config.problem.steps)),
        "t": tuple(i / intervals(config) for i in range(intervals(config) + 1)),
        "sample": tuple(range(config.problem.batch_size)),
        "sample2": tuple(range(config.problem.batch_size)),
        "component": tuple(range(outputs)),
        "quantity": ("h", "b", "f"),
        "direction": ("forward", "backward"),
        "kind": ("feature", "gradient"),
        "scope": ("step", "joint"),
        "backward_weights": (config.finite or config.limit).backward_weights,
        "limit_backward_weights": config.limit.backward_weights if config.limit else (),
    }
    groups: dict[str, dict[str, Variable]] = {}
    coordinates: dict[str, dict[str, tuple]] = {}
    for measure in taken(config):
        own = measure.coordinates(config)
        for path, variable in measure.variables.items():
            group, name = path.split("/")
            groups.setdefault(group, {})[name] = variable
            coordinates.setdefault(group, {}).update(own)
    place = ("width", "depth", "seed") if config.finite else ("particles", "seed")
    groups["status"] = {"cell": Variable(("backward_weights", "learning_rate", *place), "state of the cell")}

    nodes: dict[str, dict] = {"": group_metadata(attributes)}
    files: dict[str, bytes] = {}
    dims_of: dict[str, tuple[str, ...]] = {}
    chunk_bytes: dict[str, int] = {}
    for group, variables in groups.items():
        nodes[group] = group_metadata({})
        along = common | coordinates.get(group, {})
        for dim in dict.fromkeys(dim for variable in variables.values() for dim in variable.dims):
            values = np.asarray(along[dim])
            described = {"long_name": _COORDINATES.get(dim, dim)}
            nodes[f"{group}/{dim}"] = array_metadata(
                (dim,), values.shape, values.shape, values.dtype, described
            )
            files[f"{group}/{dim}/c.0"] = encode(values)
        for name, variable in variables.items():
            described = {"long_name": variable.long_name, "units": variable.units}
            status = f"{group}/{name}" == CELL
            if status:
                described |= {
                    "flag_values": [int(code) for code in CellStatus],
                    "flag_meanings": " ".join(c.name.lower() for c in CellStatus),
                }
            shape = tuple(len(along[dim]) for dim in variable.dims)
            chunks = tuple(
                1 if dim in SPLIT else length for dim, length in zip(variable.dims, shape, strict=True)
            )
            dtype = np.dtype("int8" if status else "float64")
            nodes[f"{group}/{name}"] = array_metadata(variable.dims, shape, chunks, dtype, described)
            dims_of[f"{group}/{name}"] = variable.dims
            chunk_bytes[f"{group}/{name}"] = file_bytes(chunks, dtype)
    matched = config.limit is not None and config.limit.particles == "matched"
    return Layout(Grid(axes, dims_of, matched, chunk_bytes), nodes, files)


@cache
def _only(index: int) -> slice:
    """One slice object an index: a large plan holds millions of them."""
    return slice(index, index + 1)


def _merge(stored: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Stored values stay; the order is the config's wherever it brings something new."""
    if set(wanted) <= set(stored):
        return stored
    return (*wanted, *(value for value in stored if value not in wanted))
