"""Batches spread over processes: workers on this machine, or those of a Dask cluster that runs already.

A worker is sent a config and a batch, never arrays, and compiles for itself; arrays come back to the coordinator, which alone
writes. A worker that dies, hangs or cannot be reached costs its batch a retry; a batch that takes `DEATHS` workers with it
is given up. At most one batch waits for each worker, so that a death is blamed on nothing but the batch that was running.
"""

import logging
import os
import uuid
from asyncio import CancelledError, gather
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

import jax
import numpy as np
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, Nanny, Scheduler, SpecCluster, wait

from nfd_jax.config import ConfigError, SweepConfig
from nfd_jax.sweep import _driver
from nfd_jax.sweep._plan import Batch

DEATHS = 3
"""Workers a batch may take with it before it is given up."""

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer."""

SILENT_SECONDS = 60.0
"""How long a local worker may be silent before another one is started in its place; one that computes is never silent."""


class ClusterError(ConfigError):
    """A Dask cluster that cannot be reached, or no longer."""


def on_cluster(
    config: SweepConfig, pending: list[Batch], *, scheduler: str | None, workers: int | None
) -> Iterator[tuple[Batch, dict[str, np.ndarray] | str]]:
    """Each batch, as it is done, with its arrays, or with one line saying why there are none.

    `scheduler` is the address of a running Dask cluster, `workers` a number of processes to start here instead. Raises
    ClusterError where the scheduler cannot be reached, at first or for long.
    """
    if not pending:
        return
    text, run, queue = config.to_yaml(), uuid.uuid4().hex, deque(pending)
    with _connected(scheduler, workers) as client:
        held: dict[Future, Batch] = {}
        results: list[tuple[Batch, dict[str, np.ndarray] | str]] = []
        while queue or held or results:
            while queue and len(held) < _places(client):
                batch = queue.popleft()
                held[client.submit(compute, text, batch, key=f"{batch.id}-{run}")] = batch
            yield from results  # the workers are busy again while the coordinator writes
            results = []
            for future in _ended(held):
                batch = held.pop(future)
                try:
                    results.append((batch, future.result()))
                except KilledWorker as error:
                    results.append((batch, f"killed {error.allowed_failures + 1} workers"))
                except CancelledError:  # the connection was lost
                    queue.appendleft(batch)


def compute(text: str, batch: Batch) -> dict[str, np.ndarray] | str:
    """What a worker does: a batch of the config in a YAML text, just as it is done without workers."""
    _driver.use_compilation_cache()
    [(_, result)] = _driver._results(SweepConfig.from_yaml(text), [batch], None, None)
    return result


def _ended(held: dict[Future, Batch]) -> list[Future]:
    """Those that came to an end, waiting for one no longer than a second, as workers may have joined meanwhile."""
    with suppress(TimeoutError, CancelledError):
        wait(list(held), timeout=1, return_when="FIRST_COMPLETED")
    return [future for future in held if future.done()]


def _places(client: Client) -> int:
    """How many batches the workers there are can take; one waits for the first worker to come."""
    if client.status not in ("running", "connecting"):
        raise ClusterError([f"{client.scheduler.address}: the Dask scheduler is gone; the same command resumes on another"])
    try:
        return max(1, len(client.nthreads()))
    except OSError:  # being reconnected
        return 0


@contextmanager
def _connected(scheduler: str | None, workers: int | None) -> Iterator[Client]:
    if scheduler is None:
        with _local_cluster(workers or 1) as cluster, Client(cluster) as client:
            try:
                yield client
            finally:
                cluster.sync(_stop, cluster)
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        allowed = "allowed: the address of a running Dask scheduler, such as tcp://host:8786"
        raise ClusterError([f"--scheduler {scheduler}: {reason}; {allowed}"]) from None
    with client:
        yield client


def _local_cluster(workers: int) -> SpecCluster:
    """Worker processes, each with a nanny that replaces it when it dies, reachable from this machine alone."""
    here = {"host": "127.0.0.1", "dashboard": False}
    each = here | {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    return SpecCluster(
        workers={i: {"cls": Nanny, "options": each | {"env": env}} for i, env in enumerate(shares(workers))},
        scheduler={"cls": Scheduler, "options": here | {"allowed_failures": DEATHS - 1, "worker_ttl": SILENT_SECONDS}},
        silence_logs=logging.CRITICAL,
    )


async def _stop(cluster: SpecCluster) -> None:
    """Ends the workers at once: all they did is here, and what they do nobody waits for."""
    await gather(*(nanny.close(timeout=0.2) for nanny in cluster.workers.values()))


def shares(workers: int) -> list[dict[str, str]]:
    """What each of so many workers may use of this machine, as environment variables: a part of the cores, and one GPU.

    Where workers outnumber the GPUs they share them, so none takes a GPU's whole memory beforehand.
    """
    cores = {"NPROC": str(max(1, CPU_COUNT // workers))}  # the size of XLA's thread pool
    if jax.default_backend() != "gpu":
        return [cores] * workers
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(str(device.id) for device in jax.local_devices())
    devices = visible.split(",")
    own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return [cores | own | {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} for i in range(workers)]
