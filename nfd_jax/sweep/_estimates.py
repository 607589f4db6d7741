"""Limits estimated to a tolerance, as the variables of /limit.

Such a limit is a number with error bars, not a system on the noise of a repetition. Repetitions that learn
from the same samples share it, drawn from the key of the first; where each has samples of its own, each has
its own. It stands at particles = 0.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax.limit import Chunk, Quantity, Sampled, Sampler, estimate_limit
from nfd_jax.losses import accuracy, loss_function
from nfd_jax.measures import Paths, Runs
from nfd_jax.names import KERNEL_NAMES
from nfd_jax.noise import seed_key
from nfd_jax.problem import Heldout, Problem
from nfd_jax.runtime import in_threads
from nfd_jax.sweep._systems import problem_of_seed
from nfd_jax.sweep._task import Task
from nfd_jax.sweep._unfinished import Unfinished


class Run(NamedTuple):
    """One estimate of a task."""

    seed: int
    rate: float
    flag: str


Take = Callable[[Run, Sampler, Sequence[Chunk]], Generator[list[Sampled], None, None]]
"""Who takes the samples of an estimate, as `estimate_limit` has it."""


def estimates(task: Task, take: Take | None = None) -> Runs:
    """The limit at every learning rate and flag, leading axes (seed, rate, flag), from samples that this
    process takes, or `take`, for all estimates at the same time. Where systems diverge all is NaN."""
    own = {seed: seed if task.data_by_seed else 0 for seed in task.seeds}
    runs = [
        Run(seed, rate, flag)
        for seed in sorted(set(own.values()))
        for rate in task.rates
        for flag in task.limit_flags
    ]
    each = [partial(_one, task, run, take) for run in runs]
    known = dict(zip(runs, in_threads(each, len(each)) if take else [one() for one in each], strict=True))

    def found(name: str) -> np.ndarray:
        of_seed = lambda seed: [
            [known[Run(seed, rate, flag)][name] for flag in task.limit_flags] for rate in task.rates
        ]
        return np.stack([of_seed(own[seed]) for seed in task.seeds])

    variables = {name: found(name) for name in known[runs[0]]}
    return Runs(Paths(variables["output"], variables["loss"], None, None), variables, task.problem.activation)


def chunks_of(task: Task, run: Run, wanted: Sequence[Chunk]) -> list[Sampled]:
    """Samples of one of the task's estimates, taken here."""
    return _sampler(task, run).chunks(wanted)


def _sampler(task: Task, run: Run) -> Sampler:
    problem, heldout, kernels = _learned(task, run)
    return Sampler(problem, seed_key(task, run.seed), run.flag == "reused", heldout.inputs, kernels)


def _learned(task: Task, run: Run) -> tuple[Problem, Heldout, int | None]:
    """What is learned, the held-out samples, and the intervals of t at whose ends kernels are wanted."""
    problem, heldout = problem_of_seed(task, run.seed)
    kernels = task.intervals if task.estimated_kernels else None
    return problem.at_rate(jnp.asarray(run.rate, problem.dtype)), heldout, kernels


def _one(task: Task, run: Run, take: Take | None) -> dict[str, np.ndarray]:
    """The variables of an estimate by name."""
    problem, heldout, kernels = _learned(task, run)
    unfinished = Unfinished(_sampler(task, run), task.tolerance)
    options = {
        "tolerance": task.tolerance,
        "max_seconds": task.max_seconds,
        "backward_weights": run.flag,
        "resume": unfinished.load(),
        "progress": unfinished.keep,
        "take": take and partial(take, run),
    }
    try:
        bars = estimate_limit(
            problem, key=seed_key(task, run.seed), heldout=heldout.inputs, kernels=kernels, **options
        ).quantities
        unfinished.forget()
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
    # To first order, as if errors of all held-out outputs were one and the same.
    slope = np.abs(jax.vmap(jax.grad(lambda f: value(f, targets)))(shared))
    for part in ("standard_error", "bias"):
        error = np.abs(getattr(bars["heldout"], part))
        variables[f"heldout_loss_{part}"] = (slope * error).sum((1, 2))
    for name in ("output", "loss", *(KERNEL_NAMES if kernels is not None else ())):
        variables[name], *error = bars[name]
        variables |= zip((f"{name}_standard_error", f"{name}_bias"), error, strict=True)
    return {name: np.asarray(x, float) for name, x in variables.items()}
