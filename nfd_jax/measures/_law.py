"""/law: what networks and limits share in law, whether or not their paths stay together.

Biases are differences of what the limit makes deterministic (outputs and kernels), network minus limit of one
seed, to be averaged over seeds. Marginals: the squared 2-Wasserstein distance between the coordinates of
h(1), and of b(0), of network and limit, sample by sample, in one dimension the mean squared difference of
sorted coordinates. Its null is the same between the limits of two seeds.

Initial biases: kernels of step 0 minus their closed forms at n = L = ∞, to which no limit is solved.
"""

from typing import TYPE_CHECKING

import numpy as np

from nfd_jax.config import obstacle
from nfd_jax.measures._measure import COMPARED, NETWORK, PAIR, RUN, Cells, Measure, Named, Runs, Variable
from nfd_jax.names import KERNEL_NAMES

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

ENDS = ("h", "b")

INITIAL = (*NETWORK[:-1], "t", "sample", "sample2")


def squared_wasserstein(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """W₂² of two samples of equal size along the last axis, both sorted."""
    return np.mean((one - other) ** 2, axis=-1)


def _compute(cells: Cells) -> dict[str, Named]:
    networks, limits = cells.pairs()
    own = limits.trajectory.loss.ndim == networks.trajectory.loss.ndim + 1
    ours = lambda x: x[:, :, :, None]
    theirs = lambda x: x if own else x[:, :, None]
    f = ours(np.asarray(networks.trajectory.output, float)) - theirs(
        np.asarray(limits.trajectory.output, float)
    )
    found = {"law/output_bias": Named((*PAIR, "step", "sample", "component"), f)}
    for name in KERNEL_NAMES:
        bias = ours(networks.kernels[name]) - theirs(limits.kernels[name])
        found[f"law/{name}_bias"] = Named((*PAIR, "step", "t", "sample", "sample2"), bias)
    at = lambda runs, end: np.sort(runs.end(end), axis=-1)
    w2 = [squared_wasserstein(ours(at(networks, end)), theirs(at(limits, end))).mean(-1) for end in ENDS]
    found["law/marginal_w2"] = Named((*PAIR, "step", "quantity"), np.stack(w2, -1))
    found["law/marginal_w2_null"] = Named(
        (*PAIR, "step", "quantity"), _null(cells, found["law/marginal_w2"].values)
    )
    return found | _initial(cells, networks)


def _initial(cells: Cells, networks: Runs) -> dict[str, Named]:
    """Kernels of step 0, which no learning rate has changed, minus E[φφ'] and G."""
    found = {}
    for name, closed in zip(KERNEL_NAMES, cells.initial_averages(), strict=True):
        bias = networks.kernels[name][:, :, :, 0] - closed[:, None, None]
        found[f"law/initial_{name}_bias"] = Named((*RUN, "t", "sample", "sample2"), bias)
    return found


def _null(cells: Cells, like: np.ndarray) -> np.ndarray:
    """Between the limits of each seed and the next one of its batch; NaN for a seed alone."""
    if cells.limits is None or like.shape[0] < 2:
        return np.full_like(like, np.nan)
    each = [np.sort(cells.limits.end(end), axis=-1) for end in ENDS]  # (S, R, G, K, P, n)
    null = np.stack([squared_wasserstein(x, np.roll(x, 1, axis=0)).mean(-1) for x in each], -1)
    return np.broadcast_to(null[:, :, None], like.shape)


def _coordinates(config: "SweepConfig") -> dict[str, tuple]:
    return {"quantity": ENDS}


LAW = Measure(
    "law",
    {
        "law/output_bias": Variable(
            (*COMPARED, "sample", "component"), "f of the network minus f of the limit"
        ),
        "law/feature_kernel_bias": Variable(
            (*COMPARED, "t", "sample", "sample2"), "feature kernel, network minus limit"
        ),
        "law/gradient_kernel_bias": Variable(
            (*COMPARED, "t", "sample", "sample2"), "gradient kernel, network minus limit"
        ),
        "law/initial_feature_kernel_bias": Variable(
            INITIAL, "feature kernel of step 0, network minus its closed form at n = L = ∞"
        ),
        "law/initial_gradient_kernel_bias": Variable(
            INITIAL, "gradient kernel of step 0, network minus its closed form at n = L = ∞"
        ),
        "law/marginal_w2": Variable(
            (*COMPARED, "quantity"), "squared Wasserstein distance of marginals, network to limit"
        ),
        "law/marginal_w2_null": Variable(
            (*COMPARED, "quantity"), "squared Wasserstein distance of marginals, limit to limit"
        ),
    },
    lambda config: obstacle(config, "law"),
    _compute,
    frozenset({"pairs"}),
    _coordinates,
)
