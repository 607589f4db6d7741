"""Networks with weight matrices: the grid that a batch is, for the engine of `finite`."""

from nfd_jax.finite import Grid
from nfd_jax.sweep._task import Task


def grid_of(task: Task) -> Grid:
    """The networks of a batch, with what the sweep's measures need of them."""
    record = (
        *(("features", "gradients") if "paths" in task.needs else ()),
        *(("kernels",) if "kernels" in task.needs else ()),
    )
    cells = task.width, task.depths, task.seeds, task.rates, task.flags
    return Grid(*cells, task.intervals, task.probe, record, size=task.batch.size)
