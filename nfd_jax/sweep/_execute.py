"""A batch of cells computed: from its task and nothing else, so that any process on any device can do it."""

from functools import cached_property, partial

import jax
import numpy as np

from nfd_jax import measures
from nfd_jax.config import SweepConfig
from nfd_jax.finite import train_grids
from nfd_jax.measures import Cells, Named, Runs
from nfd_jax.names import DIVERGED, DONE
from nfd_jax.runtime import in_precision
from nfd_jax.store import Batch
from nfd_jax.sweep import _systems
from nfd_jax.sweep._estimates import Take, estimates
from nfd_jax.sweep._task import Task
from nfd_jax.trajectory import Trajectory


def run_batch(config: SweepConfig, batch: Batch, take: Take | None = None) -> dict[str, Named]:
    """Everything `batch` computes, by the contract's names ("finite/loss"), with named dims, depths and seeds
    as in the batch. `take` takes the samples of estimates, where others do."""
    with in_precision(config.precision):
        return _Run(Task.of(config, batch), take).arrays()


class _Run:
    """What the measures of a batch share."""

    def __init__(self, task: Task, take: Take | None):
        self.task, self.take = task, take
        self._innovations: dict[int, tuple[Runs, Runs]] = {}
        self.measures = [measure for measure in measures.MEASURES if measure.name in task.measures]
        solves = task.tolerance is None and (task.solves_limit or task.matrix_free)
        self.limits, self.networks = _systems.solve(task) if solves else (None, {})

    def arrays(self) -> dict[str, Named]:
        """Measures of the limits once, those of networks at each depth, and the cells' status."""
        found: dict[str, Named] = {}
        if self.limits is not None or self.task.tolerance is not None:
            of_limits = Cells(self.task, None, self.limit_runs)
            for measure in self.measures:
                found |= measure.compute(of_limits) if measure.of_limits else {}
        if self.task.batch.kind == "limit":
            return found if self.task.widths else found | _status(found, "limit")
        return found | _join_depths([self._at_depth(i, depth) for i, depth in enumerate(self.task.depths)])

    def _at_depth(self, place: int, depth: int) -> dict[str, Named]:
        task = self.task
        networks = self._dense[place] if task.dense else self._runs(self.networks.pop(depth))
        limits = self.limit_runs if self.limits is not None else None
        cells = Cells(
            task,
            networks,
            limits,
            first_steps=partial(_systems.first_steps, task, depth),
            initial_averages=partial(_systems.initial_averages, task),
        )
        if task.solves_limit:
            cells.pairs = partial(self._pairs, depth, networks)
        if "reference" in task.needs:
            cells.reference = self._reference
        found: dict[str, Named] = {}
        for measure in self.measures:
            found |= measure.compute(cells) if not measure.of_limits else {}
        return found | _status(found, "finite")

    @cached_property
    def limit_runs(self) -> Runs:
        if self.task.tolerance is not None:
            return estimates(self.task, self.take)
        assert self.limits is not None
        return self._runs(self.limits)

    def _runs(self, trajectory: Trajectory) -> Runs:
        section = self.task.problem
        names = {"loss": section.loss, "activation": section.activation}
        return measures.summarize(trajectory, *self.targets, **names, fixed=self.task.fixed_batch)

    @cached_property
    def targets(self) -> tuple[jax.Array, jax.Array]:
        """Targets (S, K, P, C) of training and (S, H, C) of the held-out samples."""
        each = [_systems.problem_of_seed(self.task, seed) for seed in self.task.seeds]
        stack = lambda arrays: jax.device_put(np.stack([np.asarray(x) for x in arrays]))
        return tuple(stack([part.targets for part in parts]) for parts in zip(*each, strict=True))

    @cached_property
    def _dense(self) -> list[Runs]:
        """Networks with weight matrices at all depths of the batch, computed at once."""
        task = self.task
        groups = [(seed,) for seed in task.seeds] if task.data_by_seed else [task.seeds]
        found = []
        for seeds in groups:
            problem, heldout = _systems.problem_of_seed(task, seeds[0])
            found += train_grids(problem, heldout, task.seed, [task.at(seeds=seeds).grid])
        whole = {name: np.concatenate([part[name] for part in found], 1) for name in found[0]}
        at = lambda i: {name: x[i] for name, x in whole.items()}
        return [measures.dense_runs(at(i), task.problem.activation) for i in range(len(task.depths))]

    def _pairs(self, depth: int, networks: Runs) -> tuple[Runs, Runs]:
        """Networks and limits on the same noise; those with matrices have noise of their own, and limits are
        solved on that."""
        if not self.task.dense:
            return networks, self.limit_runs
        if depth not in self._innovations:
            pair = _systems.innovation_pairs(self.task, depth)
            one, other = (Runs(run, {}, self.task.problem.activation) for run in pair)
            self._innovations = {depth: (one, other)}
        return self._innovations[depth]

    def _reference(self) -> Runs:
        return Runs(_systems.references(self.task), {}, self.task.problem.activation)


def _join_depths(parts: list[dict[str, Named]]) -> dict[str, Named]:
    """The depths of a batch along one axis, the first."""
    return {
        name: Named(("depth", *first.dims), np.stack([part[name].values for part in parts]))
        for name, first in parts[0].items()
    }


def _status(found: dict[str, Named], group: str) -> dict[str, Named]:
    """Done, or diverged: where a loss is not finite, or where anything else that is stored of the run was
    finite at first and is so no longer."""
    loss = found[f"{group}/loss"]
    dims = tuple(dim for dim in loss.dims if dim != "step")
    whole = np.isfinite(loss.values).all(loss.dims.index("step"))
    for name, array in found.items():
        if name.startswith(f"{group}/") and "step" in array.dims:
            rest = tuple(dim for dim in array.dims if dim not in (*dims, "step"))
            finite = np.isfinite(array.over((*dims, "step", *rest)))
            finite = finite.reshape(*finite.shape[: len(dims) + 1], -1)
            whole = whole & (finite | ~finite[..., :1, :]).all((-2, -1))
    return {"status/cell": Named(dims, np.where(whole, int(DONE), int(DIVERGED)).astype("int8"))}
