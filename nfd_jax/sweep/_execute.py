"""A batch of cells computed: from the config and nothing else, so that any process on any device can do it."""

from functools import cached_property, lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax import observables
from nfd_jax.activations import activation
from nfd_jax.config import SweepConfig
from nfd_jax.data import load_problem_data
from nfd_jax.noise import Noise
from nfd_jax.problem import Problem, Trajectory
from nfd_jax.sharding import shard_noise
from nfd_jax.sweep import _cells, _memory
from nfd_jax.sweep._grids import grid_of
from nfd_jax.sweep._layout import DIVERGED, DONE, intervals
from nfd_jax.sweep._plan import HELDOUT, Batch, noise_depth, simulator


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
        self.rates = jax.device_put(np.asarray(config.problem.learning_rates, config.precision))
        self.probe = config.problem.batches == "stream"
        # Side by side on an accelerator, in turn on a CPU, where batched products of small blocks are slower than single ones.
        many = len(config.problem.learning_rates) * 2
        self._drawn: dict[int, Noise] = {}
        self.at_once = 1 if jax.default_backend() == "cpu" else _memory.runs_at_once(config, batch, most=many)

    def arrays(self) -> dict[str, np.ndarray]:
        config, batch = self.config, self.batch
        limits = self._limits() if config.limit and (batch.kind == "limit" or config.limit.particles == "matched") else None
        out = {}
        if limits is not None:
            summary = self._summary(limits)
            out |= {f"limit/{name}": _to_cells(value) for name, value in summary.items() if not name.endswith("kernel")}
        if batch.kind == "limit":
            if config.finite is None:
                out["status/cell"] = _status(out["limit/loss"])
            return out
        by_depth = [self._networks(depth, limits) for depth in batch.depths]
        return out | {name: _join_depths(name, [cell[name] for cell in by_depth]) for name in by_depth[0]}

    def _limits(self) -> Trajectory:
        limit = self.config.limit
        noise = self._noise(limit.depth_steps)
        return _cells.solve_limits(
            self.problem,
            self.heldout,
            noise,
            self.keys,
            self.rates,
            self._reuse(limit.backward_weights),
            intervals(self.config),
            self.probe,
            self.at_once,
        )

    def _noise(self, depth: int) -> Noise:
        """The batch's noise of this many layers; drawn once, as all its depths coarsen the same."""
        if depth not in self._drawn:
            noise = _cells.draw_noise(self.problem, self.keys, self.batch.width, depth)
            self._drawn = {depth: shard_noise(noise) if _memory.spread(self.config, self.batch) > 1 else noise}
        return self._drawn[depth]

    def _reuse(self, flags: tuple[str, ...]):
        return jnp.asarray([flag == "reused" for flag in flags], self.problem.dtype)

    def _summary(self, run: Trajectory) -> dict[str, np.ndarray]:
        return {name: np.asarray(x, float) for name, x in _cells.summarize(self.problem, self.heldout, run).items()}

    def _train(self, depth: int) -> tuple[Trajectory | _cells.Paths, dict[str, np.ndarray]]:
        """The networks of a depth, and what is stored of them."""
        config, width, flags = self.config, self.batch.width, self.config.finite.backward_weights
        grid = intervals(config)
        if simulator(config, width) == "dense":
            found, summary = self._dense[self.batch.depths.index(depth)]
            return found, {name: np.asarray(x, float) for name, x in summary.items()}
        noise = _cells.coarsened_seeds(self._noise(noise_depth(config, depth)), depth, max(self.batch.depths))
        coupling = "coupling" in config.measure
        runs = _cells.train_networks(
            self.problem,
            self.heldout,
            noise,
            self.keys,
            self.rates,
            self._reuse(flags),
            jnp.asarray(depth),
            grid,
            self.probe,
            coupling,
            self.at_once,
        )
        return runs, self._summary(runs)

    @cached_property
    def keys(self) -> jax.Array:
        """The key of each seed."""
        return jnp.stack([_cells.seed_key(self.config.seed, seed) for seed in self.batch.seeds])

    @cached_property
    def _dense(self) -> list[tuple[_cells.Paths, dict[str, np.ndarray]]]:
        """Networks with weight matrices at all depths of the batch, computed at once."""
        return _cells.train_dense(self.problem, self.heldout, self.config.seed, grid_of(self.config, self.batch))

    def _networks(self, depth: int, limits: Trajectory | None) -> dict[str, np.ndarray]:
        """One depth's arrays, with the depth axis of length 1."""
        config, flags = self.config, self.config.finite.backward_weights
        runs, summary = self._train(depth)
        out = {f"finite/{name}": _to_cells(x, depth=True) for name, x in summary.items() if not name.endswith("kernel")}
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
            out |= self._kernels(summary, None if limits is None else self._summary(limits))
        return out

    def _limit_error(self, depth: int, runs: Trajectory, limits: Trajectory) -> np.ndarray:
        """Networks on the limit's noise; networks with matrices have noise of their own, and the limit is solved on that."""
        config, width = self.config, self.batch.width
        if simulator(config, width) == "matrix_free":
            return np.asarray(_cells.compare_limits(runs, limits), float)
        limit, flags = config.limit, config.finite.backward_weights
        sizes = (width, depth, limit.depth_steps, intervals(config))
        reuse = self._reuse(limit.backward_weights)
        return np.asarray(_cells.compare_dense(self.problem, self.keys, self.rates, flags, reuse, *sizes), float)

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
