"""A batch of cells computed: from the config and nothing else, so that any process on any device can do it."""

from functools import cached_property, lru_cache

import jax
import numpy as np

from nfd_jax import observables
from nfd_jax.activations import activation
from nfd_jax.config import SweepConfig
from nfd_jax.data import load_problem_data
from nfd_jax.problem import Problem, Trajectory
from nfd_jax.store._batch import HELDOUT, Batch, simulator
from nfd_jax.store._layout import DIVERGED, DONE
from nfd_jax.sweep import _cells
from nfd_jax.sweep._grids import grid_of
from nfd_jax.sweep._systems import dense_errors, solve


@lru_cache(maxsize=4)
def _data(text: str):
    config = SweepConfig.from_yaml(text)
    return load_problem_data(config.problem, config.seed)


def outputs(config: SweepConfig) -> int:
    """C, the number of outputs."""
    return _data(config.to_yaml()).targets.shape[2]


def load_problem(config: SweepConfig) -> tuple[Problem, _cells.Heldout]:
    """The problem of a config, with its held-out samples, in its precision; the first learning rate stands in for all."""
    data, p = _data(config.to_yaml()), config.problem
    here = lambda x: jax.device_put(np.asarray(x, config.precision))  # unlike jnp.asarray it compiles nothing
    problem = Problem(
        here(data.inputs),
        here(data.targets),
        here(p.learning_rates[0]),
        loss=p.loss,
        activation=p.activation,
        horizon=here(p.horizon),
        parametrization=p.parametrization,
        train=p.train,
    )
    return problem, _cells.Heldout(here(data.heldout_inputs[:HELDOUT]), here(data.heldout_targets[:HELDOUT]))


def run_batch(config: SweepConfig, batch: Batch) -> dict[str, np.ndarray]:
    """Everything `batch` computes, by the contract's names ("finite/loss"), width axis of length 1, depths and seeds as given."""
    with jax.enable_x64(config.precision == "float64"):
        return _Run(config, batch).arrays()


class _Run:
    """The sizes and inputs that a batch's programs share."""

    def __init__(self, config: SweepConfig, batch: Batch):
        self.config, self.batch = config, batch
        self.problem, self.heldout = load_problem(config)

    def arrays(self) -> dict[str, np.ndarray]:
        config, batch = self.config, self.batch
        limits, networks = solve(config, batch, self.problem, self.heldout)
        out, limit_summary = {}, None
        if limits is not None:
            limit_summary = self._summary(limits)
            out |= {f"limit/{name}": _to_cells(value) for name, value in limit_summary.items() if not name.endswith("kernel")}
        if batch.kind == "limit":
            if config.finite is None:
                out["status/cell"] = _status(out["limit/loss"])
            return out
        by_depth = []
        for i, depth in enumerate(batch.depths):
            if networks:
                runs = networks.pop(depth)
                summary = self._summary(runs)
            else:
                runs, found = self._dense[i]
                summary = {name: np.asarray(x, float) for name, x in found.items()}
            by_depth.append(self._networks(depth, runs, summary, limits, limit_summary))
        return out | {name: _join_depths(name, [cell[name] for cell in by_depth]) for name in by_depth[0]}

    def _summary(self, run: Trajectory) -> dict[str, np.ndarray]:
        return {name: np.asarray(x, float) for name, x in _cells.summarize(self.problem, self.heldout, run).items()}

    @cached_property
    def _dense(self) -> list[tuple[_cells.Paths, dict[str, np.ndarray]]]:
        """Networks with weight matrices at all depths of the batch, computed at once."""
        return _cells.train_dense(self.problem, self.heldout, self.config.seed, grid_of(self.config, self.batch))

    def _networks(self, depth: int, runs, summary: dict, limits: Trajectory | None, limit_summary: dict | None) -> dict[str, np.ndarray]:
        """What is stored of one depth's networks, with the depth axis of length 1."""
        config, flags = self.config, self.config.finite.backward_weights
        out = {
            f"finite/{name}": _to_cells(x, depth=True)
            for name, x in summary.items()
            if not name.endswith("kernel") and name != "gradient_shift_ms"
        }
        out["status/cell"] = _status(out["finite/loss"])
        if "limit_error" in config.measure:
            out["compare/limit_error_ms"] = _to_cells(self._limit_error(depth, runs, limits), flags=2, depth=True)
        if "coupling" in config.measure:
            effect = _cells.compare_flags(runs, flags.index("reused"), flags.index("independent"))
            out["coupling/coupling_effect_ms"] = _to_cells(np.asarray(effect, float), flags=0, depth=True)
            for name, value in (("layer", runs.coupling.layer_ms), ("displacement", runs.coupling.displacement_ms)):
                reused = np.asarray(value, float)[:, :, flags.index("reused")]
                out[f"coupling/coupling_{name}_ms"] = _to_cells(reused, flags=0, depth=True)
        if "spectrum" in config.measure:
            phi = activation(self.problem.activation).value
            kinds = [observables.extreme_eigenvalues(np.asarray(x, float)) for x in (phi(runs.features), runs.gradients)]
            for name, found in zip(("min", "max"), zip(*kinds, strict=True), strict=True):
                both = np.stack(found)  # (kind, scope, seed, rate, flag, step, t)
                out[f"spectrum/{name}_eigenvalue"] = np.expand_dims(both.transpose(0, 1, 4, 3, 2, 5, 6), (4, 5))
        if "kernels" in config.measure:
            out |= self._kernels(summary, limit_summary)
        return out

    def _limit_error(self, depth: int, runs: Trajectory, limits: Trajectory) -> np.ndarray:
        """Networks on the limit's noise; networks with matrices have noise of their own, and the limit is solved on that."""
        if simulator(self.config, self.batch.width) == "matrix_free":
            return np.asarray(_cells.compare_limits(runs, limits), float)
        return dense_errors(self.config, self.batch, depth, self.problem, self.heldout)

    def _kernels(self, finite: dict, limit: dict | None) -> dict[str, np.ndarray]:
        flags = self.config.finite.backward_weights
        sources = [(finite, flags)]
        if limit is not None:
            sources.append((limit, self.config.limit.backward_weights))
        every = [*flags, *(flag for _, own in sources[1:] for flag in own if flag not in flags)]
        out = {}
        for name in ("feature_kernel", "gradient_kernel"):
            cells = [_to_cells(source[name], depth=True) for source, _ in sources]
            both = np.full((len(sources), len(every), *cells[0].shape[1:]), np.nan)
            for place, cell, (_, own) in zip(both, cells, sources, strict=True):
                place[[every.index(flag) for flag in own]] = cell
            out[f"kernels/{name}"] = both
        return out


def _to_cells(x: np.ndarray, *, flags: int = 1, depth: bool = False) -> np.ndarray:
    """(seed, rate, *flags, …) as the contract has it: (*flags, rate, width = 1[, depth = 1], seed, …)."""
    x = np.moveaxis(x, (0, 1), (flags + 1, flags))
    return np.expand_dims(x, (flags + 1, flags + 2) if depth else flags + 1)


def _join_depths(name: str, parts: list[np.ndarray]) -> np.ndarray:
    axis = {"compare": 4, "coupling": 2, "spectrum": 5, "kernels": 4}.get(name.split("/")[0], 3)
    return np.concatenate(parts, axis)


def _status(loss: np.ndarray) -> np.ndarray:
    """Done or diverged, from the losses of all steps (last axis)."""
    return np.where(np.isfinite(loss).all(-1), DONE, DIVERGED).astype("int8")
