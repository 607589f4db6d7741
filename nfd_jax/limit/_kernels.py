"""Deterministic kernels of the limit at initialization, and what they predict of the first step.

    dK/dt = T E[φ(z) φ(z')],  (z, z') ~ N(0, K_t),  K_0 = x·x'/d      −dG/dt = T G E[φ'(z) φ'(z')],  G_1 = 1

K is the kernel of the features h, G that of the backward features of one output (with several outputs ⟨b_p
b_q⟩ is G times the cosine of χ_p and χ_q). With Φ = E[φφ'] they make the kernel that the first update of
every weight acts through,

    reused        Θ = T ∫ Φ G dt + K(1) + (x·x'/d) G(0)
    independent   Θ = T ∫ Φ dt + K(1) + x·x'/d

where the first term is that of the hidden weights, K(1) = ⟨h h'⟩ at t = 1 that of V, and the last that of U.
Independent backward weights have 1 in place of G: true and propagated gradients share nothing but V.
"""

from typing import SupportsIndex

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax.checks import as_array, as_size, concrete
from nfd_jax.limit._expectations import expectations
from nfd_jax.losses import loss_function
from nfd_jax.problem import Problem, check_problem
from nfd_jax.programs import Program


class InitKernels(eqx.Module):
    """`preactivation` K, `gradient` G and `feature` E[φφ'] of the samples of step 0, each (len(ts), P, P)."""

    preactivation: Float[Array, "G P P"]
    gradient: Float[Array, "G P P"]
    feature: Float[Array, "G P P"]


def check_limit(problem: Problem) -> None:
    """Raise ValueError for parametrizations that have no infinite-depth limit, and as `check_problem`."""
    check_problem(problem)
    if problem.parametrization != "depth_mup":
        raise ValueError(f"only depth_mup has an infinite-depth limit; received {problem.parametrization!r}")


def init_kernels(problem: Problem, *, ts: Float[Array, " G"]) -> InitKernels:
    """K and G of `problem.inputs[0]` at the times `ts` in [0, 1], by an adaptive Runge–Kutta solve in
    diffrax.

    Derivatives in both modes are right; where two samples are parallel, along what keeps them so. NaN where
    the solve takes more than 4096 steps, as it does for horizons of some hundreds. Raises ValueError for
    parametrizations without a limit and for `ts` outside [0, 1] or not a list.

    >>> nfd.init_kernels(problem, ts=(0, 0.5, 1)).gradient.shape
    (3, 2, 2)
    """
    check_limit(problem)
    allowed = "a list of times in [0, 1]"
    times = as_array("ts", ts, problem.dtype, allowed)
    if times.ndim != 1:
        raise ValueError(f"ts must be {allowed}; received an array of shape {times.shape}")
    if concrete(times) and ((outside := np.asarray(times))[(outside < 0) | (outside > 1)]).size:
        raise ValueError(f"ts must be {allowed}; received {outside.tolist()}")
    return kernels_of(problem, problem.inputs[0], times)


@Program
def kernels_of(problem: Problem, x: Float[Array, "R d"], ts: Float[Array, " G"]) -> InitKernels:
    """K, G and E[φφ'] of any inputs `x`, each (G, R, R)."""
    K0 = x @ x.T / problem.input_dim

    def field(t, state, pace):
        feature, slope = expectations(problem.activation, state[0])
        return pace * feature, pace * slope

    eps = float(jnp.finfo(problem.dtype).eps)
    control = diffrax.PIDController(rtol=max(1e-9, 30 * eps), atol=max(1e-10, 30 * eps))

    def stretch(state, length):
        """From one time to the next, in a time of its own from 0 to 1: as Python floats diffrax checks both
        while tracing, where arrays would put a call to the host into the program."""
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            0.0,
            1.0,
            None,
            state,
            args=problem.horizon * length,
            stepsize_controller=control,
            adjoint=diffrax.DirectAdjoint(),  # derivatives in both modes
            throw=False,
        )
        solved = solution.result == diffrax.RESULTS.successful
        end = lambda y, x: jnp.where(solved, y[-1].astype(x.dtype), jnp.nan)
        after = jax.tree.map(end, solution.ys, state)
        return after, after

    grid = jnp.concatenate([jnp.zeros_like(ts[:1]), jnp.sort(ts), jnp.ones_like(ts[:1])])
    start = K0, jnp.zeros_like(K0)
    _, later = jax.lax.scan(stretch, start, jnp.diff(grid))
    K, log_growth = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), start, later)
    place = 1 + jnp.argsort(jnp.argsort(ts))
    K, G = K[place], jnp.exp(log_growth[-1] - log_growth[place])
    return InitKernels(K, G, jax.vmap(lambda k: expectations(problem.activation, k)[0])(K))


def initial_averages(problem: Problem, *, ts: Float[Array, " G"]) -> tuple[Array, Array]:
    """What ⟨φφ'⟩ and ⟨bb'⟩ of step 0 tend to as n, L → ∞, each (G, P, P): E[φφ'], and G times the cosine of
    χ_p and χ_q at f = 0, 1 for one output.
    """
    kernels = init_kernels(problem, ts=ts)
    if problem.outputs == 1:
        return kernels.feature, kernels.gradient
    start = jnp.zeros((problem.batch_size, problem.outputs), problem.dtype)
    chi = loss_function(problem.loss).signal(start, problem.targets[0])
    size = jnp.linalg.norm(chi, axis=1, keepdims=True)
    direction = jnp.where(size > 0, chi / jnp.where(size > 0, size, 1), 0)
    return kernels.feature, kernels.gradient * (direction @ direction.T)


def first_order_change(
    problem: Problem, *, points: SupportsIndex = 129
) -> tuple[Float[Array, "P P"], Float[Array, "P P"]]:
    """First-order change of f_p at step 1 per (−η χ_q) when hidden weights learn: reused T∫E[φφ']G dt,
    independent T∫E[φφ'] dt.

    Each (P, P), for L, n → ∞ and one output, by Simpson's rule on `points` times.
    Raises ValueError unless `points` is odd and at least 3, and for parametrizations without a limit.

    >>> reused, independent = nfd.first_order_change(problem)
    >>> reused.shape, bool(reused[0, 0] > independent[0, 0])
    ((2, 2), True)
    """
    check_limit(problem)
    return _hidden_part(problem, problem.inputs[0], points)[1]


def first_step_gain(
    problem: Problem, *, points: SupportsIndex = 129
) -> tuple[Float[Array, "P P"], Float[Array, "P P"]]:
    """What the first update changes in f as η → 0 at L, n = ∞: (reused, independent), each (P, P), all that
    `train` names.

    f_1(x_p) − f_0(x_p) = −η Σ_q gain[p, q] χ_q for the inputs of step 0; with one sample (f_1 − f_0)/(−η χ_0)
    = gain[0, 0]. It is `first_order_change` for train="hidden"; train="all" adds what U and V learn: K(1) +
    (x·x'/d) G(0) and K(1) + x·x'/d. Raises ValueError unless `points` is odd and at least 3, and for
    parametrizations without a limit.

    >>> reused, independent = nfd.first_step_gain(problem)
    >>> reused.shape
    (2, 2)
    """
    check_limit(problem)
    return tangent_kernels(problem, problem.inputs[0], points=points)


def tangent_kernels(
    problem: Problem, x: Float[Array, "R d"], *, points: SupportsIndex = 129
) -> tuple[Array, Array]:
    """Θ of any inputs `x` for both systems, (reused, independent), each (R, R)."""
    check_limit(problem)
    kernels, (reused, independent) = _hidden_part(problem, x, points)
    if problem.train == "hidden":
        return reused, independent
    gram, readout = x @ x.T / problem.input_dim, kernels.preactivation[-1]
    return reused + readout + gram * kernels.gradient[0], independent + readout + gram


def _hidden_part(
    problem: Problem, x: Float[Array, "R d"], points: SupportsIndex
) -> tuple[InitKernels, tuple[Array, Array]]:
    allowed = "an odd number of at least 3 (Simpson's rule)"
    count = as_size("points", points, allowed, least=3)
    if count % 2 == 0:
        raise ValueError(f"points must be {allowed}; received {count}")
    kernels = kernels_of(problem, x, jnp.linspace(0, 1, count, dtype=problem.dtype))
    simpson = np.ones(count)
    simpson[1:-1:2], simpson[2:-1:2] = 4, 2
    weights = jnp.asarray(simpson / (3 * (count - 1)), problem.dtype)
    integrate = lambda kernel: problem.horizon * jnp.einsum("t,tpq->pq", weights, kernel)
    return kernels, (integrate(kernels.feature * kernels.gradient), integrate(kernels.feature))
