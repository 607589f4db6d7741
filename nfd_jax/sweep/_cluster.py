"""Batches spread over processes: workers on this machine, or those of a Dask cluster that runs already.

A worker is sent a config and a batch, never arrays, and compiles for itself; arrays come back to the
coordinator, which alone writes. Of a batch that estimates limits to a tolerance it is sent a share, the
samples to take next (`_spread`). It shakes hands before: one with other code or other data gets no batch. A
worker that dies, hangs or cannot be reached costs its batch a retry; a batch that takes `DEATHS` workers with
it is given up. The coordinator itself gives each worker one batch at a time: a Dask scheduler would blame a
death on all the batches that wait for the worker too.
"""

import logging
import os
import pickle
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import jax
from dask.system import CPU_COUNT
from distributed import CancelledError, Client, Future, KilledWorker, Security, wait
from distributed.utils import silence_logging_cmgr

from nfd_jax.config import ConfigError, SweepConfig
from nfd_jax.limit import Sampled
from nfd_jax.measures import Named
from nfd_jax.runtime import use_compilation_cache
from nfd_jax.store import Batch
from nfd_jax.sweep import _memory
from nfd_jax.sweep._address import ALLOWED, problem_with
from nfd_jax.sweep._compute import computed
from nfd_jax.sweep._handshake import Handshakes, Refusal, Worker, checked, source_of
from nfd_jax.sweep._last_words import MEMORY, kills_for_memory
from nfd_jax.sweep._local import LocalCluster
from nfd_jax.sweep._spread import Share, Spread, taken
from nfd_jax.sweep._task import Task

DEATHS = 3
"""Workers a batch may take with it before it is given up."""

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer."""

GATHER_SECONDS = 60.0
"""How long a finished batch's arrays may take to come here before they count as lost."""

SILENT_SECONDS = 60.0
"""How long a local worker may be silent before another one is started in its place; one that computes is
never silent."""

SAY_SECONDS = 10.0
"""How long there may be no worker to give a batch to before a line says what is waited for."""

GIVE_UP_SECONDS = 120.0
"""How long there may be none before the sweep ends; for local workers that share cores, as many times that as
share one."""

UNPACK = "__import__('pickle').loads(packed)()"
"""What a worker evaluates: a scheduler opens what it passes on, and may lack the package."""

Outcome = dict[str, Named] | str
"""A batch's arrays, or one line saying why there are none."""

Work = Batch | Share
"""What a worker is given at a time."""


class ClusterError(ConfigError):
    """A Dask cluster that cannot be reached, or no longer, or has no worker that may compute."""


def on_cluster(
    config: SweepConfig,
    pending: list[Batch],
    *,
    scheduler: str | None,
    workers: int | None,
    warn: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Batch, Outcome]]:
    """Each batch, as it is done, with its arrays, or with one line saying why there are none.

    `scheduler` is the address of a running Dask cluster, `workers` a number of processes to start here
    instead. `warn` is told in a line of workers that may not compute and of what is waited for. Raises
    ClusterError where the scheduler cannot be reached, at first or for long, and where no worker may compute:
    at once where all there are have other code or other data, after GIVE_UP_SECONDS where none answers.
    """
    if not pending:
        return
    origin = f"--workers {workers or 1}" if scheduler is None else f"--scheduler {scheduler}"
    with _connected(scheduler, workers) as (client, local):
        yield from _Coordinator(config, pending, client, local, origin, warn).outcomes()


def compute(text: str, work: Work) -> Outcome | list[Sampled]:
    """What a worker does: a batch of the config in a YAML text, just as it is done without workers, or a
    share of one."""
    use_compilation_cache()
    config = SweepConfig.from_yaml(text)
    return taken(config, work) if isinstance(work, Share) else computed(config, work)


class _Coordinator:
    """The batches of a sweep on their way to workers and back."""

    def __init__(
        self,
        config: SweepConfig,
        pending: list[Batch],
        client: Client,
        local: LocalCluster | None,
        origin: str,
        warn: Callable[[str], None],
    ):
        self.config, self.client, self.local, self.origin, self.warn = config, client, local, origin, warn
        self.text, self.source = config.to_yaml(), source_of(config)
        self.queue, self.deaths = deque[Work](pending), Counter[Work]()
        self.held: dict[Future, tuple[Work, Worker, int]] = {}  # with the worker's process
        self.spread: list[Spread] = []
        self.crew, self.served = Handshakes(client), False
        self.unsaid: list[Worker] = []
        self.killed_before = kills_for_memory()
        self.patience = GIVE_UP_SECONDS * (max(1, len(local.environments) // CPU_COUNT) if local else 1)
        self.idle_since, self.said = time.monotonic(), False

    def outcomes(self) -> Iterator[tuple[Batch, Outcome]]:
        try:
            yield from self._until_done()
        finally:
            for spread in self.spread:
                spread.give_up("the sweep was stopped")

    def _until_done(self) -> Iterator[tuple[Batch, Outcome]]:
        while True:
            there = self._workers()
            done: list[tuple[Batch, Outcome]] = []
            if there is not None:
                present = set(there)
                done = self._collect(present)
                known = set(self.crew.refused)
                self.crew.meet(present)
                self.unsaid += self.crew.refused.keys() - known
                self._hand_out()
            done += self._estimated()
            self.served |= bool(done)
            yield from done  # the workers are busy again while the coordinator writes
            if not self.queue and not self.held and not self.spread:
                return
            self._be_patient(there)
            self._wait_for_one()

    def _workers(self) -> dict[Worker, dict] | None:
        """The workers there are, with what the scheduler knows of each; None while it does not answer."""
        if self.client.status not in ("running", "connecting"):
            kept = "finished cells are kept, and another address resumes the rest"
            raise ClusterError([f"{self.origin}: is gone; {kept}"])
        with suppress(OSError):  # being connected again
            found: Any = self.client.sync(self.client.scheduler.identity, callback_timeout=CONNECT_SECONDS)
            return {
                Worker(address, facts.get("local_directory", "")): facts
                for address, facts in found["workers"].items()
            }
        return None

    def _collect(self, present: set[Worker]) -> list[tuple[Batch, Outcome]]:
        """What batches came to that are done or given up; what else ended goes back to the queue, or to the
        estimate that it is a share of."""
        done: list[tuple[Batch, Outcome]] = []
        for future, (work, worker, process) in list(self.held.items()):
            outcome = _outcome(future, worker in present)
            if outcome is None:
                continue
            del self.held[future]
            if isinstance(outcome, Refusal):
                self.crew.refuse(worker, outcome)
                self.unsaid.append(worker)
                self.queue.appendleft(work)
                continue
            if isinstance(outcome, int):
                self.deaths[work] += outcome
                if self.deaths[work] < DEATHS:
                    self.queue.appendleft(work)
                    continue
                outcome = self._given_up(work, process)
            if isinstance(work, Batch):
                done.append((work, outcome))
            for spread in self.spread:
                if isinstance(work, Share) and spread.batch == work.batch:
                    spread.give(work, outcome)
        return done

    def _estimated(self) -> list[tuple[Batch, Outcome]]:
        """The batches of estimates that are done or given up."""
        ended = [spread for spread in self.spread if spread.ended]
        self.spread = [spread for spread in self.spread if spread not in ended]
        return [(spread.batch, spread.outcome()) for spread in ended]

    def _hand_out(self) -> None:
        """Work to each worker that may compute and has none."""
        busy = {worker for _, worker, _ in self.held.values()}
        for worker, process in self.crew.usable.items():
            if worker in busy:
                continue
            if (work := self._next()) is None:
                return
            call = partial(checked, compute, self.text, work, self.crew.expected, self.source)
            packed = {"packed": pickle.dumps(call)}
            key = f"{work.id}-{uuid.uuid4().hex}"
            future = self.client.submit(eval, UNPACK, packed, workers=[worker.address], key=key)
            self.held[future] = work, worker, process

    def _next(self) -> Work | None:
        """What to do next. Estimates begin here, as many as there are workers; nothing comes before their
        shares."""
        for spread in self.spread:
            if (share := spread.next()) is not None:
                return share
        while self.queue:
            work = self.queue.popleft()
            if isinstance(work, Share) or Task.of(self.config, work).tolerance is None:
                return work
            if len(self.spread) >= len(self.crew.usable):
                self.queue.appendleft(work)
                break
            self.spread.append(Spread(self.config, work, len(self.crew.usable)))
        return None

    def _given_up(self, work: Work, process: int) -> str:
        """Why a batch is not done, as far as its last worker has told, and what it needs where memory may be
        the reason."""
        line, batch = f"killed {self.deaths[work]} workers", work if isinstance(work, Batch) else work.batch
        if self.local is None:
            logs = "whose own logs say why; where they ran out of memory"
            return f"{line}, {logs}: {_memory.needs(Task.of(self.config, batch))}"
        words = self.local.last_words(process)
        if kills_for_memory() > self.killed_before and not MEMORY.search(words):
            words = "the system ended processes, out of memory"
        if not words:
            return line
        return f"{line}; the last one: {words}; {_memory.needs(Task.of(self.config, batch))}, or --workers"

    def _be_patient(self, there: dict[Worker, dict] | None) -> None:
        """Say what is waited for, once it takes long; raise ClusterError where it takes too long or is in
        vain."""
        crew = self.crew
        if there is not None and (crew.usable or self.held):
            for line in self._refusals(self.unsaid):
                self.warn(f"{self.origin}: {line}; it gets no batch")
            self.unsaid.clear()
            self.idle_since, self.said = time.monotonic(), False
            return
        kept = "finished cells are kept" if self.served else "nothing was computed"
        if crew.refused and not crew.asked and not self.served:
            remedy = "install the same on all and start the workers anew"
            raise ClusterError([f"{self.origin}: {line}; {remedy}" for line in self._refusals(crew.refused)])
        waited = time.monotonic() - self.idle_since
        hopeless = self.local is not None and self.local.hopeless()
        if waited < SAY_SECONDS and not hopeless:
            return
        reason, busy = self._reason(there)
        if busy:  # its answer has the whole time once it is free
            self.idle_since = time.monotonic()
        elif hopeless or waited > self.patience:
            raise ClusterError([f"{self.origin}: {reason}, for {waited:.0f} s; {kept}"])
        if not self.said:
            limit = "until it is free" if busy else f"at most {self.patience:.0f} s"
            self.warn(f"{self.origin}: {reason}; waiting {limit}")
            self.said = True

    def _refusals(self, workers: Any) -> list[str]:
        """A line for each reason, with the workers that it is the reason for."""
        reasons: dict[str, list[str]] = {}
        for worker in workers:
            if worker in self.crew.refused:
                reasons.setdefault(self.crew.refused[worker], []).append(worker.address)
        return [
            f"worker{'s' if len(found) > 1 else ''} {', '.join(sorted(found))}: {reason}"
            for reason, found in reasons.items()
        ]

    def _reason(self, there: dict[Worker, dict] | None) -> tuple[str, bool]:
        """Why no worker can be given a batch, and whether it is that they are busy with others' work."""
        if there is None:
            return "the scheduler does not answer", False
        for worker in self.crew.asked:
            counts = there.get(worker, {}).get("metrics", {}).get("task_counts", {})
            if counts.get("ready"):  # the question waits for a thread
                return f"worker {worker.address} is busy with other work", True
        if self.crew.asked:
            silent = ", ".join(sorted(worker.address for worker in self.crew.asked))
            return f"no answer from {silent} on which code it has", False
        if self.crew.refused:
            return f"no worker may compute ({'; '.join(self._refusals(self.crew.refused))})", False
        if self.local is not None and (words := self.local.last_words()):
            return f"workers end as they start ({words})", False
        if self.crew.lost:
            return f"workers end as they are asked which code they have ({len(self.crew.lost)} so far)", False
        return "no worker has started" if self.local else "no worker is connected to it", False

    def _wait_for_one(self) -> None:
        """Until something is done, or for a second: workers may come and go meanwhile."""
        futures = [*self.held, *self.crew.asked.values()]
        if not futures:
            time.sleep(0.1)
            return
        idle = self.spread and len(self.held) < len(self.crew.usable)  # may have shares for them any time
        with suppress(TimeoutError, CancelledError):
            wait(futures, timeout=0.1 if idle else 1, return_when="FIRST_COMPLETED")


def _outcome(future: Future, present: bool) -> Any:
    """What work came to: its result, or the number of workers that died of it, or None while its worker is
    at it."""
    try:
        if future.done():
            return future.result(timeout=GATHER_SECONDS)
        return None if present else 1
    except TimeoutError:  # lost with its worker on the way here
        return None
    except CancelledError:  # the connection to the scheduler was lost, and what it knew of this client
        return 0
    except KilledWorker as error:
        return error.allowed_failures + 1


@contextmanager
def _connected(scheduler: str | None, workers: int | None) -> Iterator[tuple[Client, LocalCluster | None]]:
    with silence_logging_cmgr(logging.CRITICAL):
        if scheduler is None:
            with (
                _local_cluster(workers or 1, _credentials()) as cluster,
                Client(cluster.scheduler_address, security=cluster.security) as client,
            ):
                yield client, cluster
            return
        if problem := problem_with(scheduler, CONNECT_SECONDS):
            raise ClusterError([f"--scheduler {scheduler}: {problem}; {ALLOWED}"])
        with Client(scheduler, timeout=CONNECT_SECONDS) as client:
            yield client, None


def _credentials() -> Security:
    """Credentials that this process alone has, and hands to the workers that it starts."""
    try:
        return Security.temporary()
    except ImportError:
        missing = "the package cryptography is missing; install it: pip install cryptography"
        raise ClusterError([f"--workers: {missing}"]) from None


@contextmanager
def _local_cluster(workers: int, security: Security | None = None) -> Iterator[LocalCluster]:
    """Worker processes of this machine, which share its cores and GPUs."""
    cluster = LocalCluster(shares(workers), security, SILENT_SECONDS)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


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
