"""What a batch is: every fact that its cost, its memory, its plan and its computation rest on, worked out
once from the config."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from nfd_jax.data import Data, data_of, input_dim
from nfd_jax.finite import Grid
from nfd_jax.measures import simulator_of, taken
from nfd_jax.problem import HELDOUT_SAMPLES
from nfd_jax.store import Batch, intervals

if TYPE_CHECKING:
    from nfd_jax.config import HistoryConfig, ProblemConfig, SweepConfig

COMMON_LAYERS = 256
"""Layers of noise that depths share where no limit sets them."""


@dataclass(frozen=True)
class Task:
    """A batch with all there is to know about it. Hashable, as the sections of a config are: results may be
    cached by it.

    `simulator` is that of its networks, "" where it has none. `flags` are the networks' backward weights,
    `limit_flags` those of limits on the batch's noise, () where none is solved. `intervals`: of the t grid.
    `measures`: names of what is measured, and `needs` what that wants recorded or run besides.
    `shared_noise`: whether limits are solved on the networks' noise, so that all depths coarsen theirs.
    `reference`: particles of the limit on nested noise that networks are set against besides, 0 for none,
    with `reference_flags` its backward weights and `widths` all those that share it. `tolerance`: to which
    limits are estimated in place of being solved, None where they are not, for at most `max_seconds` each;
    `estimated_kernels`: whether their kernels are, too.
    `asks_more`: whether held-out samples, and the first batch at later steps, are asked besides.
    """

    batch: Batch
    problem: "ProblemConfig"
    history: "HistoryConfig"
    seed: int
    precision: str
    simulator: str
    flags: tuple[str, ...]
    limit_flags: tuple[str, ...]
    depth_steps: int
    intervals: int
    measures: tuple[str, ...]
    needs: frozenset[str]
    shared_noise: bool
    reference: int
    reference_flags: tuple[str, ...]
    widths: tuple[int, ...]
    tolerance: float | None = None
    max_seconds: float | None = None
    estimated_kernels: bool = False
    asks_more: bool = True

    @classmethod
    def of(cls, config: "SweepConfig", batch: Batch) -> "Task":
        """The task that a batch of `config` is."""
        finite, limit, problem = config.finite, config.limit, config.problem
        networks = batch.kind == "cells"
        measures = taken(config)
        needs = frozenset().union(*(measure.needs for measure in measures)) if networks else frozenset()
        simulator = simulator_of(config, batch.width) if networks else ""
        matched = limit is not None and limit.particles == "matched"
        nested = limit and networks and simulator == "matrix_free"
        return cls(
            batch,
            problem,
            config.history,
            config.seed,
            config.precision,
            simulator,
            finite.backward_weights if networks and finite else (),
            limit.backward_weights if limit and (matched or not networks) else (),
            limit.depth_steps if limit else 0,
            intervals(config),
            tuple(measure.name for measure in measures),
            needs,
            limit is not None and (matched or bool(limit.reference_particles)),
            (limit.reference_particles or 0) if nested and "reference" in needs else 0,
            limit.backward_weights if limit else (),
            finite.widths if finite else (),
            limit.tolerance if limit and not networks else None,
            limit.max_seconds if limit and not networks else None,
            limit.kernels if limit and not networks else False,
        )

    def at(self, **changes) -> "Task":
        """The task with other seeds, depths, … of its batch."""
        return replace(self, batch=replace(self.batch, **changes))

    def load_data(self, repetition: int = 0) -> Data:
        """As of `SweepConfig`: a task stands for its config wherever problems and keys are made from one."""
        return data_of(self.problem, self.seed, repetition)

    @property
    def width(self) -> int:
        return self.batch.width

    @property
    def room(self) -> int:
        """Coordinates of the arrays of its conditional-Gaussian systems: the width, or more where wider ones
        share their programs."""
        return self.width if self.dense else self.batch.size or self.width

    @property
    def depths(self) -> tuple[int, ...]:
        return self.batch.depths

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.batch.seeds

    @property
    def dense(self) -> bool:
        """Whether its networks have weight matrices."""
        return self.simulator == "dense"

    @property
    def matrix_free(self) -> bool:
        """Whether its networks are conditional-Gaussian systems."""
        return self.simulator == "matrix_free"

    @property
    def solves_limit(self) -> bool:
        """Whether it solves limits on its own noise."""
        return bool(self.limit_flags)

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates."""
        return tuple(float(rate) for rate in self.problem.learning_rates)

    @property
    def rows(self) -> int:
        """Samples P of a batch of SGD."""
        return self.problem.batch_size

    @property
    def steps(self) -> int:
        """SGD steps K."""
        return self.problem.steps

    @property
    def samples(self) -> int:
        """K·P."""
        return self.steps * self.rows

    @property
    def questions_first(self) -> int:
        """Samples asked under the initial weights before training (`ProblemConfig.asks_first`)."""
        return self.samples if self.problem.asks_first else 0

    @property
    def directions(self) -> int:
        """Directions that a history holds: all K·P of them, or as many as the config says."""
        return min(self.samples, self.history.directions or self.samples)

    @property
    def remember(self) -> dict[str, int | float | None]:
        """Directions that histories are cut to, None for all, and the relative residual from which a query is
        a new one."""
        return {"directions": self.history.directions, "tolerance": self.history.tolerance}

    @property
    def bounded(self) -> bool:
        """Whether histories are bounded."""
        return self.history.directions is not None

    @property
    def followed(self) -> int:
        """Rows of a pass in training: the batch's, and with a bounded history the probe's."""
        return self.rows * (2 if self.bounded and self.probe else 1)

    @property
    def redraws(self) -> bool:
        """Whether noise is drawn anew at each use: it would not fit, or runs are long (bounded histories)."""
        return self.batch.redrawn or self.bounded

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return 8 if self.precision == "float64" else 4

    @property
    def fixed_batch(self) -> bool:
        """Whether every step sees the same samples."""
        return self.problem.batches == "fixed"

    @property
    def probe(self) -> bool:
        """Whether the first batch is followed by itself, as later steps see others; with a bounded history it
        runs along in every step."""
        return not self.fixed_batch and (self.asks_more or self.bounded)

    @property
    def heldout(self) -> int:
        """Held-out samples asked."""
        return HELDOUT_SAMPLES if self.asks_more else 0

    @property
    def questions(self) -> int:
        """Rows of a layer's noise for held-out samples and the probe; with a bounded history that runs along,
        on noise of the training's own."""
        return self.heldout + (2 * self.samples if self.probe and not self.bounded else 0)

    @property
    def asked_layers(self) -> int:
        """Layers of that noise: of the deepest run."""
        return self.depth_steps if self.solves_limit else max(self.depths)

    @property
    def data_by_seed(self) -> bool:
        """Whether every repetition has samples of its own."""
        return self.problem.data_seed == "per_seed"

    @cached_property
    def noise_depths(self) -> dict[int, int]:
        """For each depth, the layers of the noise that its networks coarsen, so that depths of a width share
        it.

        The Euler steps of a limit that is solved on it; else, for the coupling, the largest doubling of the
        depth up to COMMON_LAYERS. Never a matter of the other depths of the grid: a sweep extended by a depth
        keeps the noise of those it has.
        """
        return {depth: self._noise_depth(depth) for depth in self.depths}

    def _noise_depth(self, depth: int) -> int:
        if self.shared_noise:
            return self.depth_steps
        return doubled(depth, COMMON_LAYERS) if self.coupled else depth

    @property
    def coupled(self) -> bool:
        """Whether networks record what reuse adds to them."""
        return "coupling" in self.needs

    @property
    def inputs(self) -> int:
        """Input dimension d."""
        return input_dim(self.problem)

    @property
    def grid(self) -> Grid:
        """Its networks with weight matrices, and what measures need of them."""
        paths = ("features", "gradients") if "paths" in self.needs else ()
        record = (*paths, "kernels") if "kernels" in self.needs else paths
        cells = self.width, self.depths, self.seeds, self.rates, self.flags
        sizes = {"size": self.batch.size, "linear": self.problem.optimizer.linear}
        return Grid(*cells, self.intervals, self.probe, record, **sizes)

    @property
    def largest_systems(self) -> "Task":
        """The task itself; of one that estimates limits, about the largest systems that this takes: what
        bounds it is a bias of about 1/N and 1/(40 M), and differences in steps have N of at least 512 and
        8 K·P."""
        if self.tolerance is None:
            return self
        particles = max(512, 8 * self.samples, round(2 / self.tolerance))
        steps = max(4, round(4 * self.problem.horizon), round(0.1 / self.tolerance))
        batch = replace(self.batch, width=min(particles, 10**6))
        return replace(self, batch=batch, depth_steps=min(steps, 10**4), tolerance=None)

    @property
    def reference_task(self) -> "Task":
        """The limits of `reference` particles, on noise of which this task's is the first rows; only their
        training is compared."""
        batch = Batch("limit", self.reference, (), self.seeds)
        apart = replace(
            self, batch=batch, simulator="", flags=(), limit_flags=self.reference_flags, reference=0
        )
        return replace(apart, measures=(), needs=frozenset(), widths=(), asks_more=False)


def doubled(depth: int, most: int) -> int:
    """The largest doubling of `depth` up to `most`: depths that are doublings of one another share it."""
    while 2 * depth <= most:
        depth *= 2
    return depth
