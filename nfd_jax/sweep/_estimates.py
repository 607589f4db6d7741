"""Limits estimated to a tolerance, as the variables of /limit.

Such a limit is a number with error bars, not a system on the noise of a repetition. Repetitions that learn
from the same samples share it, drawn from the key of the first; where each has samples of its own, each has
its own. It stands at particles = 0.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax.limit import Quantity, estimate_limit
from nfd_jax.losses import accuracy, loss_function
from nfd_jax.measures import Paths, Runs
from nfd_jax.names import KERNEL_NAMES
from nfd_jax.noise import seed_key
from nfd_jax.sweep._systems import problem_of_seed
from nfd_jax.sweep._task import Task


def estimates(task: Task) -> Runs:
    """The limit at every learning rate and flag, leading axes (seed, rate, flag). Where systems diverge all
    is NaN."""
    own = {seed: seed if task.data_by_seed else 0 for seed in task.seeds}
    known = {seed: _of_seed(task, seed) for seed in sorted(set(own.values()))}
    each = [known[own[seed]] for seed in task.seeds]
    found = {name: np.stack([one[name] for one in each]) for name in each[0]}
    return Runs(Paths(found["output"], found["loss"], None, None), found, task.problem.activation)


def _of_seed(task: Task, seed: int) -> dict[str, np.ndarray]:
    """The variables by name, leading axes (rate, flag)."""
    runs = [[_one(task, seed, rate, flag) for flag in task.limit_flags] for rate in task.rates]
    return {name: np.stack([[one[name] for one in row] for row in runs]) for name in runs[0][0]}


def _one(task: Task, seed: int, rate: float, flag: str) -> dict[str, np.ndarray]:
    problem, heldout = problem_of_seed(task, seed)
    learning = problem.at_rate(jnp.asarray(rate, problem.dtype))
    kernels = task.intervals if task.estimated_kernels else None
    options = {"tolerance": task.tolerance, "max_seconds": task.max_seconds, "backward_weights": flag}
    try:
        bars = estimate_limit(
            learning, key=seed_key(task, seed), heldout=heldout.inputs, kernels=kernels, **options
        ).quantities
    except FloatingPointError:  # a diverged limit is a result, as a diverged network is
        nothing = lambda *shape: Quantity(*(np.full((problem.steps, *shape), np.nan) for _ in range(3)))
        rows, outputs = problem.batch_size, problem.outputs
        bars = {
            "output": nothing(rows, outputs),
            "loss": nothing(),
            "heldout": nothing(len(heldout.targets), outputs),
        }
        if kernels is not None:
            bars |= {name: nothing(kernels + 1, rows, rows) for name in KERNEL_NAMES}
    value, targets = loss_function(task.problem.loss).value, heldout.targets
    output, shared = (jnp.asarray(bars[name].value, problem.dtype) for name in ("output", "heldout"))
    variables: dict[str, Any] = {
        "accuracy": jax.vmap(accuracy)(output, problem.targets),
        "heldout_loss": jax.vmap(lambda f: value(f, targets))(shared),
        "heldout_accuracy": jax.vmap(lambda f: accuracy(f, targets))(shared),
    }
    for name in ("output", "loss", *(KERNEL_NAMES if kernels is not None else ())):
        variables[name], *error = bars[name]
        variables |= zip((f"{name}_standard_error", f"{name}_bias"), error, strict=True)
    return {name: np.asarray(x, float) for name, x in variables.items()}
