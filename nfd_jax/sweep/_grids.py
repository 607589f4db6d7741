"""Networks with weight matrices: the grid that a batch is, for the engine of `finite`, and the program that serves it."""

from typing import TYPE_CHECKING

from nfd_jax.finite._engine import Grid
from nfd_jax.store._batch import Batch
from nfd_jax.store._layout import intervals

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig


def grid_of(config: "SweepConfig", batch: Batch) -> Grid:
    """The networks of a batch, with what the sweep's measures need of them."""
    p, measured = config.problem, config.measure
    record = (*(("features", "gradients") if "spectrum" in measured else ()), *(("kernels",) if "kernels" in measured else ()))
    cells = batch.width, batch.depths, batch.seeds, p.learning_rates, config.finite.backward_weights
    return Grid(*cells, intervals(config), p.batches == "stream", record, size=batch.size)
