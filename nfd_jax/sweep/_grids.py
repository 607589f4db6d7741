"""Networks with weight matrices: the grid that a batch is, for the engine of `finite`, and the program that serves it."""

from typing import TYPE_CHECKING

from nfd_jax.finite._engine import Grid, program_sizes
from nfd_jax.sweep._layout import intervals
from nfd_jax.sweep._plan import Batch, simulator

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig


def grid_of(config: "SweepConfig", batch: Batch) -> Grid:
    """The networks of a batch, with what the sweep's measures need of them."""
    p, measured = config.problem, config.measure
    record = (*(("features", "gradients") if "spectrum" in measured else ()), *(("kernels",) if "kernels" in measured else ()))
    cells = batch.width, batch.depths, batch.seeds, p.learning_rates, config.finite.backward_weights
    return Grid(*cells, intervals(config), p.batches == "stream", record, size=program_size(config, batch.width))


def program_size(config: "SweepConfig", width: int) -> int:
    """Coordinates of the program that trains the networks of `width`: a wider one may serve it."""
    p, finite = config.problem, config.finite
    dense = [width for width in finite.widths if simulator(config, width) == "dense"]
    runs = config.seeds * len(p.learning_rates) * len(finite.backward_weights)
    flops = 6.0 * p.steps * p.batch_size * runs * sum(finite.depths)
    normals = float(config.seeds * len(finite.backward_weights) * max(finite.depths))
    return program_sizes(dense, p.steps * p.batch_size, flops, normals)[width]
