"""The batches of a sweep computed, here or spread over workers."""

from collections import deque
from collections.abc import Callable, Iterator

from nfd_jax.config import SweepConfig
from nfd_jax.measures import Named
from nfd_jax.runtime import Background, one_by_one
from nfd_jax.store import Batch
from nfd_jax.sweep import _memory
from nfd_jax.sweep._compute import computed
from nfd_jax.sweep._task import Task

BESIDE = 2
"""Batches that a CPU computes at the same time: one compiles or measures, on one core, while the other
trains."""


def results(
    config: SweepConfig,
    pending: list[Batch],
    scheduler: str | None,
    workers: int | None,
    warn: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Batch, dict[str, Named] | str]]:
    """Each batch with its arrays, or with one line saying why there are none.

    `scheduler` is the address of a running Dask cluster, `workers` a number of processes to start here;
    without either this process computes all batches, on a CPU two beside one another where both fit in
    memory. `warn` is told in a line which workers get no batch, and what is waited for.
    """
    if scheduler is not None or workers is not None:
        from nfd_jax.sweep._cluster import on_cluster  # Dask takes a second to import

        yield from on_cluster(config, pending, scheduler=scheduler, workers=workers, warn=warn)
        return
    most = beside(config, pending)
    queue, running = deque(in_order(pending) if most > 1 else pending), deque()
    while queue or running:
        while queue and len(running) < most:
            batch = queue.popleft()
            running.append((batch, Background(computed, config, batch)))
        batch, work = running.popleft()
        yield batch, work.result()


def in_order(pending: list[Batch]) -> list[Batch]:
    """The first batch of every width first, so that programs of different ones are compiled beside one
    another; then as planned."""
    first = list({(batch.kind, batch.width): batch for batch in reversed(pending)}.values())[::-1]
    return first + [batch for batch in pending if batch not in first]


def beside(config: SweepConfig, pending: list[Batch]) -> int:
    """How many batches go on at the same time: one on accelerators, which a batch fills, or where the largest
    would not fit so often."""
    if not one_by_one():
        return 1
    tasks = {(batch.kind, batch.width, batch.depths): Task.of(config, batch) for batch in pending}
    each = max((_memory.batch_bytes(task, at_once=1) for task in tasks.values()), default=0)
    return BESIDE if BESIDE * each <= _memory.USABLE * _memory.device_memory() else 1
