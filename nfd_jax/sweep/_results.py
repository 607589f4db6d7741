"""The batches of a sweep computed, here or spread over workers."""

from collections.abc import Iterator

from nfd_jax.config import SweepConfig
from nfd_jax.measures import Named
from nfd_jax.store import Batch
from nfd_jax.sweep._compute import computed


def results(
    config: SweepConfig, pending: list[Batch], scheduler: str | None, workers: int | None
) -> Iterator[tuple[Batch, dict[str, Named] | str]]:
    """Each batch with its arrays, or with one line saying why there are none.

    `scheduler` is the address of a running Dask cluster, `workers` a number of processes to start here;
    without either this process computes all batches one by one.
    """
    if scheduler is not None or workers is not None:
        from nfd_jax.sweep._cluster import on_cluster  # Dask takes a second to import

        yield from on_cluster(config, pending, scheduler=scheduler, workers=workers)
        return
    for batch in pending:
        yield batch, computed(config, batch)
