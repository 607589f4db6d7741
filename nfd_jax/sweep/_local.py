"""Worker processes on this machine, with a Dask scheduler between them and the coordinator.

All of them listen on the loopback address alone and talk to those who hold the credentials, made for this
cluster and kept in memory: other users of the machine can neither send work nor read along. What workers
write goes into a log each. None outlives the cluster, whenever that ends.
"""

import asyncio
import logging
import os
import signal
import tempfile
import threading
import time
from contextlib import suppress
from copy import deepcopy
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
from distributed import Nanny, Scheduler, Security, Status

from nfd_jax.sweep._last_words import last_words

HERE = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}

SETTINGS = {
    # Pages for browsers would answer whoever asks.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # Dask's eager return of freed memory to the system would have XLA's buffers paged in anew at each use.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}

AT_START = """import faulthandler, os
log = os.open(os.path.join({folder!r}, f"{{os.getpid()}}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.dup2(log, 1)
os.dup2(log, 2)
faulthandler.enable(log)
"""
"""What a worker does first: a library that gives up writes a stack of native frames."""

END_SECONDS = 10.0
"""How long ended processes may take to be gone."""


class LocalCluster:
    """A scheduler, and a worker process for each of `environments`, with a nanny that replaces it when it
    dies, or is silent for `silent` seconds. Without `security` it is open to all users of this machine."""

    def __init__(self, environments: list[dict[str, str]], security: Security | None, silent: float):
        self.security, self.environments, self._silent = security or Security(), environments, silent
        self._protocol = "tls" if self.security.require_encryption else "tcp"
        self._nannies: list[Nanny] = []
        self._starts: list[asyncio.Future] = []
        self._up, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="local cluster", daemon=True)
        self._error: BaseException | None = None
        self.scheduler_address = ""

    def start(self) -> None:
        """Return once the scheduler listens; workers come as they are ready."""
        self._folder = tempfile.TemporaryDirectory(prefix="nfd_jax-", ignore_cleanup_errors=True)
        resource_tracker.ensure_running()  # now, as it unblocks signals in the thread that starts it
        self._thread.start()
        self._up.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End all processes at once: what they did is here, and for what they do nobody waits."""
        if self._thread.is_alive():
            self._up.wait()
            with suppress(RuntimeError):  # closed meanwhile
                self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(2 * END_SECONDS)
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    def hopeless(self) -> bool:
        """Whether no worker is left, nor will be."""
        over = (Status.closing, Status.closed, Status.failed)
        return bool(self._starts) and all(nanny.status in over for nanny in self._nannies)

    def last_words(self, process: int | None = None) -> str:
        """Why a worker ended, as its log says; by default the one that wrote last."""
        logs = Path(self._folder.name).glob("*.log" if process is None else f"{process}.log")
        return last_words(max(logs, key=lambda log: log.stat().st_mtime_ns, default=Path("none")))

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        # Inherited by all processes: Ctrl-C in a terminal reaches them too, whom the coordinator ends.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._loop = asyncio.get_running_loop()
        at_start = Path(self._folder.name) / "at_start.py"
        at_start.write_text(AT_START.format(folder=self._folder.name), encoding="utf-8")
        common = HERE | {"security": self.security, "protocol": self._protocol}
        with dask.config.set(SETTINGS):
            settings = deepcopy(dask.config.config)
            scheduler = Scheduler(**common, worker_ttl=self._silent)
        each: dict[str, Any] = common | {
            "nthreads": 1,
            "memory_limit": 0,
            "silence_logs": logging.CRITICAL,
            "local_directory": self._folder.name,
            "preload": [str(at_start)],
            "config": settings,
        }
        async with scheduler:
            self.scheduler_address = scheduler.address
            with dask.config.set(SETTINGS):
                self._nannies = [
                    Nanny(scheduler.address, **each, name=i, env=environment)
                    for i, environment in enumerate(self.environments)
                ]
            self._starts = [asyncio.ensure_future(nanny.start()) for nanny in self._nannies]
            self._up.set()
            await self._end.wait()
            await self._end_workers()

    async def _end_workers(self) -> None:
        """Closing a worker that starts would wait until it has: its process is ended, and its start fails."""
        running = [nanny for nanny in self._nannies if nanny.status == Status.running]
        steps = self._starts + [asyncio.ensure_future(nanny.close(timeout=0.2)) for nanny in running]
        await asyncio.sleep(0)  # from here on no nanny of those replaces its worker
        seen, deadline = set(), time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            seen |= {nanny.process.process for nanny in self._nannies if nanny.process} - {None}
            alive = [process for process in seen if process.is_alive()]
            if not alive and all(step.done() for step in steps):
                break
            for process in alive:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            await asyncio.sleep(0.02)
        # Killed already, a busy machine may take longer to notice.
        await asyncio.wait_for(asyncio.gather(*steps, return_exceptions=True), END_SECONDS)
