"""/finite and /limit: losses, outputs, accuracies, held-out samples, and how far h and b have moved."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax import observables
from nfd_jax.losses import accuracy, loss_function
from nfd_jax.measures._measure import LIMIT, NETWORK, RUN, Cells, Measure, Named, Paths, Runs, Variable
from nfd_jax.programs import Program
from nfd_jax.sharding import map_seeds
from nfd_jax.trajectory import Trajectory

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

VARIABLES = {
    "loss": ((), "training loss before the update"),
    "output": (("sample", "component"), "outputs f before the update"),
    "accuracy": ((), "training accuracy before the update"),
    "heldout_loss": ((), "held-out loss"),
    "heldout_accuracy": ((), "held-out accuracy"),
    "feature_shift_ms": (("t",), "mean square of h minus h at step 0"),
    "gradient_shift_ms": (("t",), "mean square of b minus b at step 0"),
    "history_residual": ((), "largest part of a query that is not remembered"),
}


ESTIMATED = {
    name: VARIABLES[name] for name in ("loss", "output", "accuracy", "heldout_loss", "heldout_accuracy")
} | {
    "output_standard_error": (("sample", "component"), "standard error of the outputs f"),
    "output_bias": (("sample", "component"), "bound on the bias of the outputs f"),
    "loss_standard_error": ((), "standard error of the training loss"),
    "loss_bias": ((), "bound on the bias of the training loss"),
    "heldout_loss_standard_error": ((), "standard error of the held-out loss, at most"),
    "heldout_loss_bias": ((), "bound on the bias of the held-out loss"),
}
"""Of a limit that is estimated to a tolerance."""

_SAMPLES = ("t", "sample", "sample2")
ESTIMATED_KERNELS = {
    f"{name}{part}": (_SAMPLES, f"{of}average over particles of {what}")
    for name, what in {"feature_kernel": "phi(h) phi(h')", "gradient_kernel": "b b'"}.items()
    for part, of in {
        "": "",
        "_standard_error": "standard error of the ",
        "_bias": "bound on the bias of the ",
    }.items()
}
"""Of one whose kernels are estimated besides."""


def summarize(
    run: Trajectory, targets: Array, heldout_targets: Array, *, loss: str, activation: str, fixed: bool
) -> Runs:
    """`Runs` of a trajectory with leading axes RUN; `targets` (S, K, P, C) and `heldout_targets` (S, H, C) of
    each seed."""
    # Without what limits don't have, so that they and networks are served by one program.
    alike = eqx.tree_at(lambda run: run.coupling, run, None, is_leaf=lambda x: x is None)
    found = _summarize(alike, targets, heldout_targets, loss, fixed)
    return Runs(run, {name: np.asarray(x, float) for name, x in found.items()}, activation)


@Program
def _summarize(
    run: Trajectory, targets: Array, heldout_targets: Array, loss: str, fixed: bool
) -> dict[str, Array]:
    def of_seed(at):
        run, y, heldout = at
        return jax.vmap(jax.vmap(lambda one: summary(one, y, heldout, loss, fixed)))(run)

    return map_seeds(of_seed, (run, targets, heldout_targets))


def summary(
    run: Trajectory,
    targets: Float[Array, "K P C"],
    heldout_targets: Float[Array, "H C"],
    loss: str,
    fixed: bool,
) -> dict[str, Array]:
    """The variables of one run. `fixed` says that all steps see one batch: without a probe b can then be
    compared between steps."""
    value = loss_function(loss).value
    probe, residual = run.probe_gradients, run.history_residual
    probe = run.gradients if probe is None and fixed else probe
    shift = observables.feature_shift(run.features if run.probe is None else run.probe)
    return {
        "loss": run.loss,
        "output": run.output,
        "accuracy": jax.vmap(accuracy)(run.output, targets),
        "heldout_loss": jax.vmap(lambda f: value(f, heldout_targets))(run.heldout),
        "heldout_accuracy": jax.vmap(lambda f: accuracy(f, heldout_targets))(run.heldout),
        "feature_shift_ms": shift,
        "gradient_shift_ms": jnp.full_like(shift, jnp.nan)
        if probe is None
        else observables.feature_shift(probe),
        "history_residual": jnp.zeros_like(run.loss) if residual is None else residual,
    }


def dense_runs(found: Mapping[str, np.ndarray], activation: str) -> Runs:
    """`Runs` of networks with weight matrices, whose variables were found while they trained; leading axes
    RUN."""
    features, gradients = found.get("features"), found.get("gradients")
    own = {name: np.asarray(x, float) for name, x in found.items() if name not in ("features", "gradients")}
    own.setdefault("history_residual", np.zeros_like(own["loss"]))
    return Runs(Paths(found["output"], found["loss"], features, gradients), own, activation)


def _of(group: str, variables: Mapping = VARIABLES) -> Callable[[Cells], dict[str, Named]]:
    """Computes the variables of a group from its runs."""
    runs = lambda cells: cells.networks if group == "finite" else cells.limits
    return lambda cells: {
        f"{group}/{name}": Named((*RUN, "step", *more), runs(cells).found[name])
        for name, (more, _) in variables.items()
    }


def _variables(group: str, dims: tuple[str, ...], own: Mapping = VARIABLES) -> dict[str, Variable]:
    return {f"{group}/{name}": Variable((*dims, *more), text) for name, (more, text) in own.items()}


def _limit_obstacle(config: "SweepConfig", estimated: bool) -> str | None:
    if config.limit is None:
        return "describes the limit, allowed: with a limit section"
    if (config.limit.tolerance is not None) != estimated:
        return f"describes another limit, allowed: with{'' if estimated else 'out'} limit.tolerance"
    return None


def _limit_flags(config: "SweepConfig") -> dict[str, tuple]:
    return {"backward_weights": config.limit.backward_weights} if config.limit else {}


NETWORKS = Measure(
    "finite",
    _variables("finite", NETWORK),
    lambda config: None if config.finite else "describes finite networks, allowed: with a finite section",
    _of("finite"),
)
LIMITS = Measure(
    "limit",
    _variables("limit", LIMIT),
    lambda config: _limit_obstacle(config, estimated=False),
    _of("limit"),
    coordinates=_limit_flags,
)
ESTIMATES = Measure(
    "limit_estimate",
    _variables("limit", LIMIT, ESTIMATED),
    lambda config: _limit_obstacle(config, estimated=True),
    _of("limit", ESTIMATED),
    coordinates=_limit_flags,
)
KERNEL_ESTIMATES = Measure(
    "limit_estimate_kernels",
    _variables("limit", LIMIT, ESTIMATED_KERNELS),
    lambda config: (
        _limit_obstacle(config, estimated=True)
        or (None if config.limit.kernels else "is estimated besides, allowed: with limit.kernels")
    ),
    _of("limit", ESTIMATED_KERNELS),
    coordinates=_limit_flags,
)
