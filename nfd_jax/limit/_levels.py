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

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax import training
from nfd_jax.finite import MatrixFree
from nfd_jax.noise import Noise
from nfd_jax.problem import Problem
from nfd_jax.runtime import CompiledOnce
from nfd_jax.training import Questions

KINDS = ("base", "particles", "steps", "mixed")

CHUNK = 4096
"""Particles that one call of a program holds, in systems side by side; one system where it has more."""

LAYERS = 8
"""Layers that a program has room for, times a power of 4: unused ones are never visited, but filled with
zeros."""

FEW = 32
"""Chunks of a base level that share the program of other levels; many more are worth one without unused
layers."""


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


class Sampler:
    """Samples of all levels for one problem. A sample is a vector: `output`, `loss`, `heldout` flattened, in
    the order of `shapes`."""

    def __init__(self, problem: Problem, key: jax.Array, reused: bool, heldout: np.ndarray | None):
        self.problem, self.reuse = problem, np.asarray(reused, problem.dtype)
        self.seed = [int(word) for word in np.asarray(jax.random.key_data(key)).reshape(-1)]
        self.heldout = None if heldout is None else jnp.asarray(heldout, problem.dtype)
        steps, outputs = problem.steps, problem.outputs
        self.shapes: dict[str, tuple[int, ...]] = {
            "output": (steps, problem.batch_size, outputs),
            "loss": (steps,),
        }
        if self.heldout is not None:
            self.shapes["heldout"] = (steps, self.heldout.shape[0], outputs)
        self.size = sum(int(np.prod(shape)) for shape in self.shapes.values())

    def __call__(self, level: Level, chunk: int) -> np.ndarray:
        """Samples (systems, size) of one chunk; (systems, 2 · size) for "mixed", with E's part of second
        order beside it."""
        fine = self._draw(level, chunk)
        if level.kind == "base":
            return self._mean(fine, level.steps, 1, tight=chunk >= FEW)
        if level.kind == "particles":
            return self._mean(fine, level.steps, 1) - self._mean(fine, level.steps, 2)
        coarse = fine.coarsen()
        change = lambda parts: (
            self._mean(fine, level.steps, parts) - self._mean(coarse, level.steps // 2, parts)
        )
        if level.kind == "steps":
            return change(1)
        one, two, four = change(1), change(2), change(4)
        return np.concatenate([(5 * one - 6 * two + four) / 3, (2 * one - 3 * two + four) / 3], axis=1)

    def _draw(self, level: Level, chunk: int) -> Draws:
        problem, systems, n, m = self.problem, level.systems, level.particles, level.steps
        place = [KINDS.index(level.kind), n, m, chunk]
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=place)))
        normal = lambda *shape: random.standard_normal((systems, *shape), np.dtype(problem.dtype))
        ends = normal(n, problem.input_dim), normal(n, problem.outputs)
        passes = [normal(problem.steps, m, problem.batch_size, n) for _ in range(2)]
        asked = [] if self.heldout is None else [normal(m, self.heldout.shape[0], n)]
        return Draws(ends, (*passes, *asked))

    def _mean(self, draws: Draws, steps: int, parts: int, tight: bool = False) -> np.ndarray:
        """F_parts: quantities of each system, averaged over its parts, in float64."""
        room = steps if tight else LAYERS
        while room < steps:
            room *= 4

        def padded(x):
            room_for = [(0, 0)] * x.ndim
            room_for[-3] = (0, room - steps)
            return np.pad(x, room_for)

        split = draws.parts(parts)
        motions = tuple(map(padded, split.motions))
        found = _solve(
            self.problem, split.ends, motions, self.heldout, self.reuse, np.asarray(steps, np.int32)
        )
        flat = [
            np.asarray(found[name], np.float64).reshape(split.ends[0].shape[0], -1) for name in self.shapes
        ]
        return np.concatenate(flat, axis=1).reshape(-1, parts, self.size).mean(1)


def _solve_every(problem, ends, motions, heldout, reuse, depth):
    def one(ends, motions):
        noise = Noise(*ends, *motions[:2])
        questions = None if heldout is None else Questions(heldout, motions[2])
        run = training.train(
            problem, noise, MatrixFree.of(problem, reuse, depth, noise.width), heldout=questions
        )
        return {"output": run.output, "loss": run.loss} | (
            {} if heldout is None else {"heldout": run.heldout}
        )

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(ends, motions)


_solve = CompiledOnce(_solve_every)
