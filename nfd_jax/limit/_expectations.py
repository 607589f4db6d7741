"""Expectations of φ and φ' over pairs of jointly Gaussian numbers, as the kernels of the limit need them.

With (z, z') ~ N(0, K) and Gaussian smoothings of the ramp, step_s its derivative and bump_s that of step_s,

    relu_s(z) = E relu(z + s g),  g ~ N(0, 1)          A = K_pp + s²,  B = K_qq + s'²,  D² = A B − K_pq²

    E[relu_s relu_s'] = (D + K_pq α)/2π      E[step_s step_s'] = α/2π      E[bump_s bump_s'] = 1/(2π D)

where α = π/2 + arcsin(K_pq/√(AB)): each is the derivative of the one before in K_pq (Price). The named
activations are made of these, with s = 0 the arc-cosine kernels:

    relu  s = 0       abs = 2 relu − z      erf = 2 step_s − 1, s² = 1/2      gelu = z step_s, s = 1
    sigmoid = E step_s,  softplus = E relu_s,  tanh = 2 E step_{s/2} − 1,  s/2 of Kolmogorov's distribution

the last line because logistic noise is Gaussian noise of a random scale. Its mean over SCALES is the only
quadrature that a name needs, smooth for every K: relative errors of tanh, sigmoid and softplus are below
1e-11 (float64), for variances from 0 to beyond 1e4, unequal ones and ρ = ±1 among them. All else is exact to
rounding, which counts against E_pp and E_qq where E_pq is what cancels (gelu and sin at ρ < 0).

A φ that is given as a function is summed over nodes that resolve distances of 1 around 0, and in proportion
to |z| further out, in z and in z' given z, however wide either is (`_by_nodes`). Errors as parts of
√(E_pp E_qq): for φ as smooth as tanh, silu and gelu below 5e-6, and mostly below 1e-7, for variances up to
1e4; for φ with a kink at 0 below 5e-3 in E[φφ'] and 4e-2 in E[φ'φ'], and with kinks elsewhere, at unit
variance, below 1e-2 and 0.1. Give such φ by name if it has one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from nfd_jax.activations import Activation, resolve

NODES = 64
"""Nodes of each of the two variables where φ is a function."""

REACH = 8.5
"""Standard deviations beyond which a normal variable counts for nothing, in float64."""

AWAY = 12.0
"""Widths from 0 beyond which a normal variable does not see what is there."""


def _kolmogorov(nodes: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Nodes λ and weights of Kolmogorov's distribution: the trapezoidal rule in log λ. Logistic noise is
    2λ g."""
    log = np.linspace(-1.8, 1.4, nodes)
    k, x = np.arange(1, 40)[:, None], np.exp(log)
    large = 8 * ((-1.0) ** (k + 1) * k**2 * x * np.exp(-2 * (k * x) ** 2)).sum(0)
    m = ((2 * k - 1) * np.pi) ** 2 / 8
    small = math.sqrt(2 * np.pi) * ((2 * m / x**2 - 1) / x**2 * np.exp(-m / x**2)).sum(0)
    weights = np.where(x < 0.8, small, large) * x
    return x, weights / weights.sum()


SCALES = _kolmogorov()


def expectations(phi: str | Activation, K: Float[Array, "P P"]) -> tuple[Array, Array]:
    """E[φ(z)φ(z')] and E[φ'(z)φ'(z')], each (P, P), for every pair of a centred Gaussian vector with
    covariance K.

    Derivatives in K are finite everywhere; where ρ = ±1 they are those along which it stays so. A variance of
    0 is a z that is 0: φ' is then φ'(0), with relu'(0) = abs'(0) = 0 as in networks.
    """
    if phi == "linear":
        return K, jnp.ones_like(K)
    pairs = _Pairs.of(K)
    if phi in _MIXED:
        return _over_rows(lambda row: _mixed(phi, row), pairs)
    if phi in _CLOSED:
        return _CLOSED[phi](pairs)
    found = resolve(phi)
    return _over_rows(lambda row: _by_nodes(found, row), pairs)


class _Pairs(NamedTuple):
    """Pairs of Gaussians by their variances v and w, covariance c and correlation ρ, in shapes that
    broadcast."""

    v: Array
    w: Array
    c: Array
    rho: Array

    @classmethod
    def of(cls, K: Float[Array, "P P"]) -> "_Pairs":
        """All pairs (P, P). What rounding cannot tell from ρ = ±1 is that: the diagonal is."""
        v = jnp.maximum(jnp.diagonal(K), 0)
        scale = _root(v)[:, None] * _root(v)
        rho = jnp.where(scale > 0, K / jnp.where(scale > 0, scale, 1), 0)
        near = jnp.abs(rho) > 1 - 4 * jnp.finfo(K.dtype).eps
        return cls(v[:, None], v[None], K, jnp.where(near, jnp.sign(rho), rho))

    @property
    def rest(self) -> Array:
        """1 − ρ²."""
        return (1 - self.rho) * (1 + self.rho)

    def root(self, s2: ArrayLike, t2: ArrayLike) -> Array:
        """D where variances s2 and t2 > 0 are added to v and w."""
        return jnp.sqrt(s2 * t2 + s2 * self.w + t2 * self.v + self.v * self.w * self.rest)


def _root(x: Array) -> Array:
    """√x, with a derivative of 0 at 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def _over_rows(of_row: Callable[[_Pairs], tuple[Array, Array]], pairs: _Pairs) -> tuple[Array, Array]:
    """Sample by sample: the nodes of all pairs at once would not fit in memory."""
    one = lambda row: of_row(_Pairs(row[0], pairs.w[0], *row[1:]))
    return jax.lax.map(one, (pairs.v[:, 0], pairs.c, pairs.rho))


def _sin(pairs: _Pairs) -> tuple[Array, Array]:
    size, sign = jnp.where(pairs.c < 0, -pairs.c, pairs.c), jnp.where(pairs.c < 0, -1, 1)
    same, rest = jnp.exp(size - (pairs.v + pairs.w) / 2), jnp.expm1(-2 * size)
    return sign * same * -rest / 2, same * (2 + rest) / 2


def _relu(pairs: _Pairs) -> tuple[Array, Array]:
    scale, D = _root(pairs.v) * _root(pairs.w), _root(pairs.rest)
    angle = jnp.arctan2(D, -pairs.rho) / (2 * math.pi)
    return scale * (D / (2 * math.pi) + pairs.rho * angle), jnp.where(scale > 0, angle, 0)


def _abs(pairs: _Pairs) -> tuple[Array, Array]:
    scale, D = _root(pairs.v) * _root(pairs.w), _root(pairs.rest)
    turn = 2 / math.pi * jnp.arctan2(pairs.rho, D)
    return scale * (2 / math.pi * D + pairs.rho * turn), turn


def _erf(pairs: _Pairs) -> tuple[Array, Array]:
    D = pairs.root(0.5, 0.5)
    return 2 / math.pi * jnp.arctan2(pairs.c, D), 2 / math.pi / D


def _gelu(pairs: _Pairs) -> tuple[Array, Array]:
    """By parts, with E[bump bump'] = 1/(2π D)."""
    v, w, c, _ = pairs
    D, each = pairs.root(1, 1), 1 / (1 + v) + 1 / (1 + w)
    step, bump = jnp.arctan2(D, -c) / (2 * math.pi), 1 / (2 * math.pi * D)
    return c * step + bump * (v * w * pairs.rest + c * c * each), step + c * bump * (each + 1 / D**2)


_CLOSED = {"relu": _relu, "abs": _abs, "erf": _erf, "gelu": _gelu, "sin": _sin}
_MIXED = {"tanh": 1, "sigmoid": 2, "softplus": 2}
"""The s of each, over Kolmogorov's λ."""


def _mixed(phi: str, row: _Pairs) -> tuple[Array, Array]:
    """E over two independent scales s, s' of one sample with all."""
    dtype = row.c.dtype
    square, weight = jnp.asarray((_MIXED[phi] * SCALES[0]) ** 2, dtype), jnp.asarray(SCALES[1], dtype)
    v, w, c, rho = row
    row = _Pairs(v, w[:, None, None], c[:, None, None], rho[:, None, None])
    D = row.root(square[:, None], square)
    mean = lambda values: jnp.einsum("qij,i,j->q", values, weight, weight)
    if phi == "tanh":
        return 2 / math.pi * mean(jnp.arctan2(row.c, D)), 2 / math.pi * mean(1 / D)
    angle = jnp.arctan2(D, -row.c)
    ramp, step, bump = (lambda: D + row.c * angle), (lambda: angle), (lambda: 1 / D)
    first, second = (step, bump) if phi == "sigmoid" else (ramp, step)
    return mean(first()) / (2 * math.pi), mean(second()) / (2 * math.pi)


def _by_nodes(phi: Activation, row: _Pairs) -> tuple[Array, Array]:
    """z is the wider of the two, and z' = (ρ b/a) z + τ g given z, with standard deviations a ≥ b and
    τ = b √(1 − ρ²)."""
    one, other = _root(row.v), _root(row.w)
    a, b = jnp.maximum(one, other), jnp.minimum(one, other)
    tau = b * _root(row.rest)
    y, outer = _normal_nodes(a, jnp.zeros_like(a))
    mean = (row.rho * b)[:, None] * y
    g, inner = _normal_nodes(tau[:, None], mean)
    z, z2 = a[:, None] * y, mean[:, :, None] + tau[:, None, None] * g
    expected = lambda f: jnp.einsum("qi,qi,qij,qij->q", f(z), outer, f(z2), inner)
    return expected(phi.value), expected(phi.derivative)


def _normal_nodes(sd: Array, mean: Array) -> tuple[Array, Array]:
    """Nodes g (…, NODES) and weights of a standard normal that resolve functions of mean + sd·g.

    The trapezoidal rule in s where mean/sd + g = asinh(sinh(s)/sd): distances of 1 around the function's
    centre 0, in proportion to |z| further out, and of the normal's own width where that is less. 0 lies
    midway between two nodes, where a kink costs least. Nodes beyond a mean of AWAY widths from 0 are those of
    AWAY: nothing is close.
    """
    wide = jax.lax.stop_gradient(jnp.maximum(sd, 1))
    at = jnp.clip(jax.lax.stop_gradient(mean) / wide, -AWAY, AWAY)[..., None]
    wide = wide[..., None]
    h = 2 * (REACH + jnp.log(wide)) / (NODES - 2)
    first = h * (jnp.floor(jnp.arcsinh(jnp.sinh(at - REACH) * wide) / h - 0.5) + 0.5)
    grid = h * jnp.arange(NODES, dtype=sd.dtype)
    up, down = jnp.exp(first) * jnp.exp(grid), jnp.exp(-first) * jnp.exp(-grid)  # e^s and e^-s of each node
    y = (up - down) / (2 * wide)
    root = jnp.sqrt(1 + y * y)
    g = jnp.where(y < 0, -1, 1) * jnp.log(jnp.abs(y) + root) - at
    return g, h * jnp.exp(-0.5 * g * g) * (up + down) / (2 * math.sqrt(2 * math.pi) * wide * root)
