"""The limit system, solved step of SGD by step of SGD with diffrax's Euler scheme on the stored grid.

Euler with M = L steps and N = n particles on the same noise is the matrix-free network of `finite`, to
rounding.
"""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax._sizes import Sizes
from nfd_jax._types import Rows, Scalar
from nfd_jax.gaussian import Answers
from nfd_jax.limit._terms import BackwardDrift, BackwardNoise, DrivingPath, ForwardDrift, ForwardNoise, Seen
from nfd_jax.problem import Problem
from nfd_jax.training import Interior, Pass


class StepRecord(diffrax.AbstractLocalInterpolation):
    """What one Euler step hands out besides its state: what to remember of its queries, and the coupling."""

    t0: Array
    t1: Array
    state: Array
    answers: Answers
    coupling: Array | None

    def evaluate(self, t0, t1=None, left=True):
        """The state at the right end; nothing is interpolated."""
        return self.state


class RecordingEuler(diffrax.Euler):
    """diffrax's Euler step, keeping the answers the step drew from the weights.

    Times are Python floats, so that diffrax checks them while tracing; under x64 they promote a float32
    state. The step is taken in `dtype`.
    """

    dtype: Any = jnp.float32
    coupling: bool = False
    interpolation_cls = StepRecord  # pyright: ignore[reportAssignmentType]

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        state = y0.astype(self.dtype)
        field = terms.vf(t0, state, args)
        control = jax.tree.map(lambda x: x.astype(self.dtype), terms.contr(t0, t1))
        y1, increments = state + terms.prod(field, control), control[1]
        operator = field[1]
        found = operator.answer(increments)
        coupling = operator.enter(found.coupled, increments.unit) if self.coupling else None
        record = {"state": y1, "answers": found.new, "coupling": coupling}
        return y1.astype(y0.dtype), None, record, None, diffrax.RESULTS.successful


class Limit(Interior):
    """The two passes of the limit in `depth` Euler steps, as many as the noise has increments.

    `reuse` 0 is the paper's NFD (independent backward weights); 1 keeps the response of reused weights.
    """

    problem: Problem
    reuse: Scalar
    sizes: Sizes

    def __init__(
        self, problem: Problem, reuse: Array, depth: int, width: int | Array, *, room: int | None = None
    ):
        """`width` particles, as many as the noise has, or fewer where that has `room` for more."""
        self.problem, self.reuse = problem, reuse
        self.sizes = Sizes.of(width, depth, problem.dtype, room=room)

    def forward(self, h0, xi, learned, history, noise, *, coupling=False, discard=False) -> Pass:
        driving = DrivingPath(xi, noise, history, reverse=False)
        seen = Seen(self.problem, self.sizes, history, noise, learned, self.reuse, None)
        start = self.sizes.cut(h0)
        path, record = _integrate(ForwardDrift(), ForwardNoise(discard), driving, start, seen, coupling)
        return Pass(path, record["answers"], record["coupling"])

    def backward(self, b1, h, xi, learned, history, noise, *, coupling=False, discard=False) -> Pass:
        driving = DrivingPath(xi, noise, history, reverse=True)
        seen = Seen(self.problem, self.sizes, history, noise, learned, self.reuse, h[:-1])
        start = self.sizes.cut(b1)
        path, record = _integrate(BackwardDrift(), BackwardNoise(discard), driving, start, seen, coupling)
        path, record = jax.tree.map(lambda x: x[::-1], (path, record))
        return Pass(path, record["answers"], record["coupling"])


def _integrate(drift, noise, driving: DrivingPath, start: Rows, seen: Seen, coupling: bool):
    """States at the M + 1 grid points and the records of the M steps, in the order of integration."""
    steps = driving.xi.shape[0]
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(noise, driving))
    # Exactly M steps, or rows would be missing or filled with inf. Times as Python floats and constant steps
    # put no check of diffrax's into the program: each would be a callback to the host, with which JAX never
    # keeps a program in its cache.
    solution = diffrax.diffeqsolve(
        terms,
        RecordingEuler(dtype=start.dtype, coupling=coupling),
        0.0,
        float(steps),
        1.0,
        start,
        args=seen,
        saveat=diffrax.SaveAt(dense=True),
        stepsize_controller=diffrax.ConstantStepSize(),
        adjoint=diffrax.ForwardMode(),
        max_steps=steps,
        throw=False,
    )
    record = dict(solution.interpolation.infos)
    return jnp.concatenate([start[None], record.pop("state")]), record
