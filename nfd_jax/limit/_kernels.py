"""Deterministic kernels of the limit at initialization, and what they predict of the first step.

    dK/dt = T E[φ(z) φ(z')],  (z, z') ~ N(0, K_t),  K_0 = x·x'/d            −dG/dt = T G E[φ'(z) φ'(z')],  G_1 = 1

K is the kernel of the features h, G that of the backward features of one output (with several outputs ⟨b_p b_q⟩ is G times the
cosine of χ_p and χ_q). Gaussian expectations in closed form for relu, erf, linear and abs (arc-cosine and arc-sine kernels), by
Gauss–Hermite quadrature otherwise.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax.activations import activation
from nfd_jax.problem import Problem

QUADRATURE_NODES = 48


class InitKernels(eqx.Module):
    """`preactivation` K, `gradient` G and `feature` E[φφ'] of the samples of step 0, each (len(ts), P, P)."""

    preactivation: Float[Array, "G P P"]
    gradient: Float[Array, "G P P"]
    feature: Float[Array, "G P P"]


def expectations(name: str, K: Float[Array, "P P"]) -> tuple[Array, Array]:
    """E[φ(z)φ(z')] and E[φ'(z)φ'(z')] for every pair of a centred Gaussian vector with covariance K."""
    variance = jnp.maximum(jnp.diagonal(K), jnp.finfo(K.dtype).tiny)
    scale = jnp.sqrt(variance[:, None] * variance[None, :])
    rho = jnp.clip(K / scale, -1, 1)
    if name == "linear":
        return K, jnp.ones_like(K)
    if name == "relu":
        theta = jnp.arccos(rho)
        return scale / (2 * jnp.pi) * (jnp.sin(theta) + (jnp.pi - theta) * rho), (jnp.pi - theta) / (2 * jnp.pi)
    if name == "abs":
        return 2 / jnp.pi * scale * (jnp.sqrt(1 - rho**2) + rho * jnp.arcsin(rho)), 2 / jnp.pi * jnp.arcsin(rho)
    if name == "erf":
        spread = (1 + 2 * variance)[:, None] * (1 + 2 * variance)[None, :]
        return 2 / jnp.pi * jnp.arcsin(2 * K / jnp.sqrt(spread)), 4 / jnp.pi / jnp.sqrt(spread - 4 * K**2)
    return _quadrature(name, jnp.sqrt(variance), rho)


def _quadrature(name: str, sd: Float[Array, " P"], rho: Float[Array, "P P"]) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE_NODES)
    u, w = jnp.asarray(nodes, sd.dtype), jnp.asarray(weights / weights.sum(), sd.dtype)
    phi = activation(name)
    shape = (*rho.shape, u.size, u.size)
    first = jnp.broadcast_to(sd[:, None, None, None] * u[:, None], shape)
    mixed = rho[..., None, None] * u[:, None] + jnp.sqrt(1 - rho**2)[..., None, None] * u[None, :]
    second = sd[None, :, None, None] * mixed
    mean = lambda g: jnp.einsum("pqij,i,j->pq", g(first) * g(second), w, w)
    return mean(phi.value), mean(phi.derivative)


@eqx.filter_jit
def init_kernels(problem: Problem, *, ts: Float[Array, " G"]) -> InitKernels:
    """K and G of `problem.inputs[0]` at the times `ts` in [0, 1], by an adaptive Runge–Kutta solve in diffrax."""
    ts = jnp.asarray(ts, problem.dtype)
    x = problem.inputs[0]
    K0 = x @ x.T / problem.input_dim

    def field(t, state, T):
        feature, slope = expectations(problem.activation, state[0])
        return T * feature, T * slope

    eps = float(jnp.finfo(problem.dtype).eps)
    grid = jnp.concatenate([jnp.zeros_like(ts[:1]), jnp.sort(ts), jnp.ones_like(ts[:1])])
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri5(),
        grid[0],
        grid[-1],
        None,
        (K0, jnp.zeros_like(K0)),
        args=problem.horizon,
        saveat=diffrax.SaveAt(ts=grid),
        stepsize_controller=diffrax.PIDController(rtol=max(1e-9, 30 * eps), atol=max(1e-10, 30 * eps)),
        adjoint=diffrax.ForwardMode(),
    )
    assert solution.ys is not None  # they were asked for
    K, log_growth = solution.ys
    place = 1 + jnp.argsort(jnp.argsort(ts))
    K, G = K[place], jnp.exp(log_growth[-1] - log_growth[place])
    return InitKernels(K, G, jax.vmap(lambda k: expectations(problem.activation, k)[0])(K))


def first_order_change(problem: Problem, *, points: int = 129) -> tuple[Float[Array, "P P"], Float[Array, "P P"]]:
    """First-order change of f_p at step 1 per (−η χ_q) when hidden weights learn: reused T∫E[φφ']G dt, independent T∫E[φφ'] dt.

    Each (P, P), for L, n → ∞ and one output, by Simpson's rule on `points` (odd) times.
    """
    ts = jnp.linspace(0, 1, points, dtype=problem.dtype)
    kernels = init_kernels(problem, ts=ts)
    simpson = np.ones(points)
    simpson[1:-1:2], simpson[2:-1:2] = 4, 2
    weights = jnp.asarray(simpson / (3 * (points - 1)), problem.dtype)
    integrate = lambda kernel: problem.horizon * jnp.einsum("t,tpq->pq", weights, kernel)
    return integrate(kernels.feature * kernels.gradient), integrate(kernels.feature)
