"""The limit system, solved step of SGD by step of SGD with diffrax's Euler scheme on the stored grid.

Euler with M = L steps and N = n particles on the same noise is the matrix-free network of `finite`, to rounding.
"""

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array

from nfd_jax._types import Rows, Scalar
from nfd_jax.gaussian import Answers
from nfd_jax.limit._terms import (
    BackwardDrift,
    BackwardNoise,
    DrivingPath,
    ForwardDrift,
    ForwardNoise,
    Pull,
)
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
    """diffrax's Euler step, keeping the answers the step drew from the weights."""

    coupling: bool = False
    interpolation_cls = StepRecord  # pyright: ignore[reportAssignmentType]

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        field = terms.vf(t0, y0, args)
        control = terms.contr(t0, t1)
        y1 = y0 + terms.prod(field, control)
        operator, increments = field[1], control[1]
        coupling = operator.coupling(increments) if self.coupling else None
        record = {"state": y1, "answers": operator.answers(increments), "coupling": coupling}
        return y1, None, record, None, diffrax.RESULTS.successful


class Limit(Interior):
    """The two passes of the limit in `depth` Euler steps, as many as the noise has increments.

    `reuse` 0 is the paper's NFD (independent backward weights); 1 keeps the response of reused weights.
    """

    problem: Problem
    reuse: Scalar
    depth: int

    def forward(self, h0, xi, pull, history, noise, *, coupling=False, discard=False) -> Pass:
        driving = DrivingPath(xi, noise, history.forward.correction, reverse=False)
        seen = Pull(self.problem, history, pull, None)
        path, record = _integrate(ForwardDrift(), ForwardNoise(self.reuse, discard), driving, h0, seen, coupling)
        return Pass(path, record["answers"], record["coupling"])

    def backward(self, b1, h, xi, pull, history, noise, *, coupling) -> Pass:
        driving = DrivingPath(xi, noise, history.backward.correction, reverse=True)
        seen = Pull(self.problem, history, pull, h[:-1])
        path, record = _integrate(BackwardDrift(), BackwardNoise(self.reuse), driving, b1, seen, coupling)
        path, record = jax.tree.map(lambda x: x[::-1], (path, record))
        return Pass(path, record["answers"], record["coupling"])


def _integrate(drift, noise, driving: DrivingPath, start: Rows, seen: Pull, coupling: bool):
    """States at the M + 1 grid points and the records of the M steps, in the order of integration."""
    steps = driving.xi.shape[0]
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(noise, driving))
    # Python floats would promote float32 states under x64; exactly M steps, or rows would be missing or filled with inf.
    t0, t1 = jnp.zeros((), start.dtype), jnp.ones((), start.dtype)
    solution = diffrax.diffeqsolve(
        terms,
        RecordingEuler(coupling=coupling),
        t0,
        t1,
        None,
        start,
        args=seen,
        saveat=diffrax.SaveAt(dense=True),
        stepsize_controller=diffrax.StepTo(ts=jnp.arange(steps + 1, dtype=start.dtype) / steps),
        adjoint=diffrax.ForwardMode(),
        max_steps=steps,
        throw=False,
    )
    record = dict(solution.interpolation.infos)
    return jnp.concatenate([start[None], record.pop("state")]), record
