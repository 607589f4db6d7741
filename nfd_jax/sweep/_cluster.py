"""Batches spread over processes: workers on this machine, or those of a Dask cluster that runs already.

A worker is sent a config and a batch, never arrays, and compiles for itself; arrays come back to the
coordinator, which alone writes. A worker that dies, hangs or cannot be reached costs its batch a retry; a
batch that takes `DEATHS` workers with it is given up. The coordinator itself gives each worker one batch at a
time: a Dask scheduler would blame a death on all the batches that wait for the worker too.
"""

import asyncio
import logging
import os
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dask
import jax
from dask.system import CPU_COUNT
from distributed import (
    CancelledError,
    Client,
    Future,
    KilledWorker,
    Nanny,
    Scheduler,
    Security,
    SpecCluster,
    wait,
)
from distributed.comm import connect

from nfd_jax.config import ConfigError, SweepConfig
from nfd_jax.measures import Named
from nfd_jax.runtime import use_compilation_cache
from nfd_jax.store import Batch
from nfd_jax.sweep._compute import computed

DEATHS = 3
"""Workers a batch may take with it before it is given up."""

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer."""

GATHER_SECONDS = 60.0
"""How long a finished batch's arrays may take to come here before they count as lost."""

SILENT_SECONDS = 60.0
"""How long a local worker may be silent before another one is started in its place; one that computes is
never silent."""

IGNORE_INTERRUPTS = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""Ctrl-C in a terminal reaches local workers too, whom the coordinator is about to end."""


class ClusterError(ConfigError):
    """A Dask cluster that cannot be reached, or no longer."""


def on_cluster(
    config: SweepConfig, pending: list[Batch], *, scheduler: str | None, workers: int | None
) -> Iterator[tuple[Batch, dict[str, Named] | str]]:
    """Each batch, as it is done, with its arrays, or with one line saying why there are none.

    `scheduler` is the address of a running Dask cluster, `workers` a number of processes to start here
    instead. Raises ClusterError where the scheduler cannot be reached, at first or for long.
    """
    if not pending:
        return
    text, queue, deaths = config.to_yaml(), deque(pending), Counter[Batch]()
    with _connected(scheduler, workers) as client:
        held: dict[Future, tuple[Batch, str]] = {}  # with the worker's address
        while True:
            present = _workers(client, scheduler)
            done: list[tuple[Batch, dict[str, Named] | str]] = []
            for future, (batch, worker) in list(held.items()):
                outcome = _outcome(future, worker in present)
                if outcome is None:
                    continue
                del held[future]
                if not isinstance(outcome, int):
                    done.append((batch, outcome))
                    continue
                deaths[batch] += outcome
                if deaths[batch] < DEATHS:
                    queue.appendleft(batch)
                else:
                    done.append((batch, f"killed {deaths[batch]} workers"))
            for worker in present.difference(worker for _, worker in held.values()):
                if queue:
                    batch = queue.popleft()
                    future = client.submit(
                        compute, text, batch, workers=[worker], key=f"{batch.id}-{uuid.uuid4().hex}"
                    )
                    held[future] = batch, worker
            yield from done  # the workers are busy again while the coordinator writes
            if not queue and not held:
                return
            _wait_for_one(held)


def compute(text: str, batch: Batch) -> dict[str, Named] | str:
    """What a worker does: a batch of the config in a YAML text, just as it is done without workers."""
    use_compilation_cache()
    return computed(SweepConfig.from_yaml(text), batch)


def _outcome(future: Future, present: bool) -> dict[str, Named] | str | int | None:
    """What a batch came to: its result, or the number of workers that died of it, or None while its worker is
    at it."""
    try:
        if future.done():
            return future.result(timeout=GATHER_SECONDS)
        return None if present else 1
    except TimeoutError:  # lost with its worker on the way here
        return None
    except (
        CancelledError
    ):  # the connection to the scheduler was lost, and with it what it knew of this client
        return 0
    except KilledWorker as error:
        return error.allowed_failures + 1


def _workers(client: Client, scheduler: str | None) -> set[str]:
    """Addresses of the workers there are."""
    while client.status in ("running", "connecting"):
        with suppress(OSError):  # being connected again
            return set(client.nthreads())
        time.sleep(0.1)
    raise ClusterError(
        [f"--scheduler {scheduler}: is gone; finished cells are kept, and another address resumes the rest"]
    )


def _wait_for_one(held: dict[Future, tuple[Batch, str]]) -> None:
    """Until a batch is done, or for a second: workers may come and go meanwhile."""
    if not held:
        time.sleep(1)
    with suppress(TimeoutError, CancelledError):
        wait(list(held), timeout=1, return_when="FIRST_COMPLETED")


@contextmanager
def _connected(scheduler: str | None, workers: int | None) -> Iterator[Client]:
    if scheduler is None:
        with _local_cluster(workers or 1) as cluster, Client(cluster) as client:
            try:
                yield client
            finally:
                cluster.sync(_stop, cluster)
        return
    try:  # a Client that fails to connect may hang when it is thrown away
        asyncio.run(_reach(scheduler))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        allowed = "allowed: the address of a running Dask scheduler, such as tcp://host:8786"
        raise ClusterError([f"--scheduler {scheduler}: {reason}; {allowed}"]) from None
    with Client(scheduler, timeout=CONNECT_SECONDS) as client:
        yield client


async def _reach(address: str) -> None:
    credentials = Security().get_connection_args("client")
    comm = await connect(address, timeout=CONNECT_SECONDS, **credentials)
    await comm.close()


def _local_cluster(workers: int) -> SpecCluster:
    """Worker processes, each with a nanny that replaces it when it dies, reachable from this machine
    alone."""
    here = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    each = here | {
        "nthreads": 1,
        "memory_limit": 0,
        "silence_logs": logging.CRITICAL,
        "preload": [IGNORE_INTERRUPTS],
    }
    # Dask's eager return of freed memory to the system would have XLA's buffers paged in anew at each use.
    with dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}):
        return SpecCluster(
            workers={
                i: {"cls": Nanny, "options": each | {"env": env}} for i, env in enumerate(shares(workers))
            },
            scheduler={"cls": Scheduler, "options": here | {"worker_ttl": SILENT_SECONDS}},
            silence_logs=logging.CRITICAL,
        )


async def _stop(cluster: SpecCluster) -> None:
    """Ends the workers at once: all they did is here, and what they do nobody waits for."""
    closing = (nanny.close(timeout=0.2) for nanny in cluster.workers.values())
    for error in await asyncio.gather(*closing, return_exceptions=True):
        # Killed already, a busy machine may take longer to notice.
        if isinstance(error, BaseException) and not isinstance(error, TimeoutError):
            raise error


def shares(workers: int) -> list[dict[str, str]]:
    """What each of so many workers may use of this machine, as environment variables: a part of the cores,
    and one GPU.

    Where workers outnumber the GPUs they share them, so none takes a GPU's whole memory beforehand.
    """
    cores = {"NPROC": str(max(1, CPU_COUNT // workers))}  # the size of XLA's thread pool
    if jax.default_backend() != "gpu":
        return [cores] * workers
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(
        str(device.id) for device in jax.local_devices()
    )
    devices = visible.split(",")
    own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return [cores | own | {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} for i in range(workers)]
