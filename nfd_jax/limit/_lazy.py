"""The lazy end of training in closed form: kernel regression along the whole trajectory, for both systems.

With outputs f = Vᵀ h_L/(γ n) and updates ΔΘ = −η γ² n ∂loss/∂Θ features move in proportion to the richness γ
and outputs by O(1). As γ → 0, after n, L → ∞, features stay where they began and

    f_0 = 0        f_k(x) = −η Σ_{j<k} Σ_p Θ(x, x_{j,p}) χ_{j,p}        χ_j = ∂loss/∂f at f_j

for any sequence of batches, with the kernel Θ that belongs to the backward weights (`_kernels`). With other
linear optimizers −η becomes their coefficients c_{k,j}. f_0 vanishes with n → ∞, centred or not, as V is
independent of h.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax import optimizers
from nfd_jax.checks import check_flag
from nfd_jax.limit._kernels import check_limit, tangent_kernels
from nfd_jax.losses import loss_function
from nfd_jax.names import BACKWARD_WEIGHTS
from nfd_jax.problem import Problem
from nfd_jax.programs import Program


def lazy_limit(problem: Problem, *, backward_weights: str) -> Float[Array, "K P C"]:
    """Outputs (K, P, C) of the lazy limit γ → 0, n, L → ∞ of the K steps of `problem`, at the inputs of each
    step.

    `backward_weights` is "reused" or "independent"; the problem's own richness is not used. Raises ValueError
    on other names, for optimizers that are not linear or decay W(0), and for parametrizations without a
    limit.

    >>> nfd.lazy_limit(problem, backward_weights="reused").shape
    (3, 2, 1)
    """
    check_limit(problem)
    check_flag(backward_weights)
    rule = optimizers.coefficients(problem.optimizer, problem.learning_rate, problem.steps)
    if not isinstance(rule.alpha, jax.core.Tracer) and np.any(np.asarray(rule.alpha) != 1):
        raise ValueError(
            "weight decay moves features however small γ is: lazy_limit needs an optimizer that leaves the "
            f"initial weights in place; received one that scales them by {np.asarray(rule.alpha)}"
        )
    samples = problem.inputs.reshape(problem.samples, problem.input_dim)
    if isinstance(samples, jax.core.Tracer):
        distinct, place = samples, jnp.arange(problem.samples)
    else:  # A batch that comes again needs its kernel once.
        distinct, place = np.unique(np.asarray(samples), axis=0, return_inverse=True)
    theta = tangent_kernels(problem, jnp.asarray(distinct))[BACKWARD_WEIGHTS.index(backward_weights)]
    place = jnp.asarray(place).reshape(-1)
    return _regression(problem, rule.steps, theta[place[:, None], place[None, :]])


@Program
def _regression(
    problem: Problem, c: Float[Array, "K K"], theta: Float[Array, "KP KP"]
) -> Float[Array, "K P C"]:
    """W(k) = W(0) + Σ_j c[k, j] G_j, G_j the gradient of step j."""
    loss = loss_function(problem.loss)
    answers = theta.reshape(problem.steps, problem.batch_size, problem.steps, problem.batch_size)

    def step(chi, k):
        f = jnp.einsum("j,pjq,jqc->pc", c[k], answers[k], chi)
        return chi.at[k].set(loss.signal(f, problem.targets[k])), f

    return jax.lax.scan(step, jnp.zeros_like(problem.targets), jnp.arange(problem.steps))[1]
