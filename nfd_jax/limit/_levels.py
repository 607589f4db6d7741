"""Samples of the levels that `estimate_limit` is made of: small systems, and differences between systems on
the same noise.

A system of N particles and M Euler steps gives f_{N,M}; F_p is the mean of p systems of N/p particles, on p
parts of the same noise.

    base        F_1                  at few particles and few steps: nearly all of the variance
    particles   F_1 − F_2            what twice the particles change
    steps       F_1(M) − F_1(M/2)    what twice the steps change, on one Brownian motion
    mixed       E(M) − E(M/2)        E = (5F_1 − 6F_2 + F_4)/3: what `steps` lacks of N = ∞, to order 1/N²

Euler with M steps is the matrix-free network of M layers, to rounding; the network's program is used here. It
maps over many small systems, which fit in a core's cache, and its number of layers is an argument: one
program serves every M. Noise is drawn by NumPy, which needs no program, from (key, level, chunk): every chunk
can be had again alone, and the order of evaluation changes nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax._host import cores
from nfd_jax.activations import resolve
from nfd_jax.finite import MatrixFree
from nfd_jax.names import KERNEL_NAMES
from nfd_jax.noise import Noise
from nfd_jax.observables import kernel
from nfd_jax.problem import Problem
from nfd_jax.programs import Program
from nfd_jax.runtime import in_threads
from nfd_jax.training import Questions, train
from nfd_jax.trajectory import Trajectory

KINDS = ("base", "particles", "steps", "mixed")

CHUNK = 4096
"""Particles that one call of a program holds, in systems side by side; one system where it has more."""

LAYERS = 8
"""Layers that a program has room for, times a power of 4: unused ones are never visited, but filled with
zeros."""

FEW = 512
"""Chunks of a level that share the programs of other levels; many more are worth one of their own, without
unused layers."""

CONTROLS = 64
"""Controls beyond f_0 are left out where there would be more."""


@dataclass(frozen=True, order=True)
class Level:
    """One kind of sample, at N = `particles` and (the finer) M = `steps`."""

    kind: str
    particles: int
    steps: int

    @property
    def cost(self) -> float:
        """Particles × Euler steps of one sample. A model, not a measurement: plans must not depend on the
        machine."""
        systems = {"base": 1, "particles": 2, "steps": 1.5, "mixed": 4.5}[self.kind]
        return systems * self.particles * self.steps

    @property
    def systems(self) -> int:
        """Samples of one chunk."""
        return max(1, CHUNK // self.particles)


@dataclass(frozen=True)
class Draws:
    """Noise of B systems: `ends` (U (B, N, d), V (B, N, C)) and `motions` (…, M, P, N), by name."""

    ends: tuple[np.ndarray, np.ndarray]
    motions: tuple[np.ndarray, ...]

    def parts(self, count: int) -> "Draws":
        """The same noise as that of `count` times as many systems with an equal part of the particles
        each."""

        def ends(x):
            systems, particles, columns = x.shape
            return x.reshape(systems * count, particles // count, columns)

        def motion(x):
            systems, *rest, particles = x.shape
            split = np.moveaxis(x.reshape(systems, *rest, count, particles // count), -2, 1)
            return split.reshape(systems * count, *rest, particles // count)

        return Draws(tuple(map(ends, self.ends)), tuple(map(motion, self.motions)))

    def coarsen(self) -> "Draws":
        """The same Brownian motions with half as many increments."""
        half = lambda x: (x[..., 0::2, :, :] + x[..., 1::2, :, :]) * x.dtype.type(np.sqrt(0.5))
        return Draws(self.ends, tuple(map(half, self.motions)))


class Sampled(NamedTuple):
    """One chunk: its samples (systems, size), their controls (systems, p), and the seconds they took."""

    samples: np.ndarray
    controls: np.ndarray
    seconds: float


Chunk = tuple[Level, int]
"""Which of a level's chunks."""


class Sampler:
    """Samples of all levels for one problem. A sample is a vector: `output`, `loss`, `heldout`, and kernels
    at the multiples of 1/`kernels` in t, flattened, in the order of `shapes`."""

    def __init__(
        self,
        problem: Problem,
        key: jax.Array,
        reused: bool,
        heldout: np.ndarray | None,
        kernels: int | None = None,
    ):
        self.problem, self.reused, self.kernels = problem, reused, kernels
        self.seed = [int(word) for word in np.asarray(jax.random.key_data(key)).reshape(-1)]
        self.heldout = None if heldout is None else jnp.asarray(heldout, problem.dtype)
        steps, rows, outputs = problem.steps, problem.batch_size, problem.outputs
        self.shapes: dict[str, tuple[int, ...]] = {"output": (steps, rows, outputs), "loss": (steps,)}
        if self.heldout is not None:
            self.shapes["heldout"] = (steps, self.heldout.shape[0], outputs)
        if kernels is not None:
            self.shapes |= {name: (steps, kernels + 1, rows, rows) for name in KERNEL_NAMES}
        self.size = sum(int(np.prod(shape)) for shape in self.shapes.values())

    def places(self, *names: str) -> np.ndarray:
        """Where in a sample the quantities of these names stand, those that there are."""
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        each = np.split(np.arange(self.size), np.cumsum(sizes)[:-1])
        return np.concatenate([at for name, at in zip(self.shapes, each, strict=True) if name in names])

    def chunks(self, wanted: Sequence[Chunk]) -> list[Sampled]:
        """Each of the chunks, on all cores."""

        def timed(level: Level, chunk: int) -> Sampled:
            begun = time.perf_counter()
            return Sampled(*self.sample(level, chunk), time.perf_counter() - begun)

        return in_threads([partial(timed, *one) for one in wanted], cores())

    def __call__(self, level: Level, chunk: int) -> np.ndarray:
        """Samples (systems, size) of one chunk; (systems, 2 · size) for "mixed", with E's part of second
        order beside it."""
        return self.sample(level, chunk)[0]

    def sample(self, level: Level, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples of one chunk, with their controls (systems, p): none but for "base"."""
        fine, tight = self._draw(level, chunk), chunk >= FEW
        if level.kind == "base":
            found = self._mean(fine, level.steps, 1, tight)
            return found, self._controls(fine.ends, found)
        return self._difference(level, fine, tight), np.zeros((level.systems, 0))

    def _difference(self, level: Level, fine: Draws, tight: bool) -> np.ndarray:
        if level.kind == "particles":  # of few steps, so that unused layers are most
            return self._mean(fine, level.steps, 1, tight) - self._mean(fine, level.steps, 2, tight)
        coarse = fine.coarsen()
        change = lambda parts: (
            self._mean(fine, level.steps, parts) - self._mean(coarse, level.steps // 2, parts)
        )
        if level.kind == "steps":
            return change(1)
        one, two, four = change(1), change(2), change(4)
        return np.concatenate([(5 * one - 6 * two + four) / 3, (2 * one - 3 * two + four) / 3], axis=1)

    def _controls(self, ends: tuple[np.ndarray, np.ndarray], found: np.ndarray) -> np.ndarray:
        """Numbers (systems, p) of mean zero: f_0, as V knows nothing of h; ⟨V V⟩ − 1; ⟨h_0 h_0⟩ − x·x'/d."""
        U, V = (np.asarray(x, np.float64) for x in ends)
        x = np.asarray(self.problem.inputs[0], np.float64) / np.sqrt(self.problem.input_dim)

        def beyond(w: np.ndarray) -> np.ndarray:
            """⟨w wᵀ⟩ over the particles, less its mean."""
            return np.swapaxes(w, 1, 2) @ w / w.shape[1] - np.eye(w.shape[2])

        def upper(matrix: np.ndarray) -> np.ndarray:
            rows, columns = np.triu_indices(matrix.shape[1])
            return matrix[:, rows, columns]

        groups = [found[:, self.places("output")][:, : self.problem.targets[0].size]]
        groups += [upper(beyond(V)), upper(x @ beyond(U) @ x.T)]
        while len(groups) > 1 and sum(group.shape[1] for group in groups) > CONTROLS:
            groups.pop()
        return np.concatenate(groups, axis=1)

    def _normal(self, level: Level, chunk: int):
        """Draws standard normals, an array (systems, …) at a call, of one chunk's own stream."""
        place = [KINDS.index(level.kind), level.particles, level.steps, chunk]
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=place)))
        dtype = np.dtype(self.problem.dtype)
        return lambda *shape: random.standard_normal((level.systems, *shape), dtype)

    def _ends(self, normal, particles: int) -> tuple[np.ndarray, np.ndarray]:
        return normal(particles, self.problem.input_dim), normal(particles, self.problem.outputs)

    def _draw(self, level: Level, chunk: int) -> Draws:
        normal, n, m = self._normal(level, chunk), level.particles, level.steps
        ends = self._ends(normal, n)
        passes = [normal(self.problem.steps, m, self.problem.batch_size, n) for _ in range(2)]
        problem, more = self.problem, []
        if self.heldout is not None:  # where outputs are centered, under the initial weights once more
            more.append(normal(m, self.heldout.shape[0] * (2 if problem.centered else 1), n))
        if problem.asks_first:
            more.append(normal(m, problem.samples, n))
        return Draws(ends, (*passes, *more))

    def _mean(self, draws: Draws, steps: int, parts: int, tight: bool = False) -> np.ndarray:
        """F_parts: quantities of each system, averaged over its parts, in float64."""
        room = steps if tight else LAYERS
        while room < steps:
            room *= 4

        def padded(x):
            room_for = [(0, 0)] * x.ndim
            room_for[-3] = (0, room - steps)
            return np.pad(x, room_for)

        split, reuse = draws.parts(parts), np.asarray(self.reused, self.problem.dtype)
        motions, depth = tuple(map(padded, split.motions)), np.asarray(steps, np.int32)
        found = _solve_every(self.problem, split.ends, motions, self.heldout, reuse, depth, self.kernels)
        return self._flat(found).reshape(-1, parts, self.size).mean(1)

    def _flat(self, found: dict[str, jax.Array]) -> np.ndarray:
        """A vector for each system, in float64."""
        every = [np.asarray(found[name], np.float64) for name in self.shapes]
        return np.concatenate([x.reshape(len(x), -1) for x in every], axis=1)


def _options(kernels: int | None) -> dict:
    return {} if kernels is None else {"record": ("features", "gradients"), "grid": kernels}


def _quantities(problem: Problem, run: Trajectory) -> dict[str, jax.Array]:
    found = {"output": run.output, "loss": run.loss}
    if run.heldout is not None:
        found["heldout"] = run.heldout
    if run.features is not None:
        phi = resolve(problem.activation).value
        found |= zip(KERNEL_NAMES, map(kernel, (phi(run.features), run.gradients)), strict=True)
    return found


@Program
def _solve_every(problem, ends, motions, heldout, reuse, depth, kernels):
    """Quantities of every system on its own noise."""

    def one(ends, motions):
        *passes, more = *motions[:2], list(motions[2:])
        questions = None
        if heldout is not None:
            asked = jnp.concatenate([heldout, heldout]) if problem.centered else heldout
            questions = Questions(asked, more.pop(0))
        noise = Noise(*ends, *passes, *more)
        network = MatrixFree.of(problem, reuse, depth, noise.width)
        return _quantities(problem, train(problem, noise, network, heldout=questions, **_options(kernels)))

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(ends, motions)
