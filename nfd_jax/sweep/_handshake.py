"""Whether a worker computes what the coordinator would: the same code on the same data.

Every worker is asked before its first batch, and anew when another process takes its place, be it at the same
address. The question is a text that Python itself evaluates, so that a worker without the package can answer
too. Answers are as old as the worker's code: what was loaded before the files changed says so.
"""

import os
from collections.abc import Callable
from typing import NamedTuple
from uuid import uuid4

from distributed import CancelledError, Client, Future, KilledWorker

from nfd_jax.config import SweepConfig
from nfd_jax.data import DataError
from nfd_jax.runtime import identity

QUESTION = (
    "[__import__('importlib').import_module(f'nfd_jax.sweep.{name}')"
    " for name in ('_cluster', '_handshake')][1].answer()"
)
"""All that a batch needs is loaded to answer it: what is missing, or ends the process, shows before a batch
is lost."""

DIGITS = 12
"""Of a hash in a sentence."""


class Worker(NamedTuple):
    """A worker process: its address, and its folder, which no two have had."""

    address: str
    folder: str


class Refusal(str):
    """Why a worker gets no batch, in a line; from a worker, in place of a batch's arrays."""

    __slots__ = ()


def answer() -> tuple[int, dict[str, str]]:
    """A worker's process, and the code it computes with."""
    return os.getpid(), identity()


def differences(received: dict[str, str], expected: dict[str, str]) -> str:
    """What differs in two identities, in words; "" where nothing does."""
    return ", ".join(
        f"{'source of nfd_jax' if name == 'source' else name}: received"
        f" {_short(name, received.get(name, 'none'))}, expected {_short(name, value)}"
        for name, value in expected.items()
        if received.get(name) != value
    )


def _short(name: str, value: str) -> str:
    return value[:DIGITS] if name == "source" else value


def source_of(config: SweepConfig) -> str:
    """The fingerprint of the samples that a config learns from, "" where data have none."""
    return config.load_data().source


def checked(
    work: Callable, text: str, what: object, expected: dict[str, str], source: str
) -> dict | list | str | Refusal:
    """What `work` makes of a batch on a worker, or of a share of one; or why it must not be done there: other
    code than `expected`, or other data than those of the fingerprint `source`."""
    if differs := differences(identity(), expected):
        return Refusal(differs)
    if source:
        try:
            own = source_of(SweepConfig.from_yaml(text))
        except DataError as error:
            return Refusal(f"data: {str(error).splitlines()[0]}")
        if own != source:
            received, wanted = own[:DIGITS] or "none", source[:DIGITS]
            return Refusal(f"samples of the data set: received {received}, expected {wanted}")
    return work(text, what)


class Handshakes:
    """The workers that were asked: those that may compute, `usable`, with their processes; `refused`, with
    the reasons; and those that have not answered, `asked`. `lost` ended before they answered."""

    def __init__(self, client: Client):
        self.client, self.expected = client, identity()
        self.usable: dict[Worker, int] = {}
        self.refused: dict[Worker, Refusal] = {}
        self.asked: dict[Worker, Future] = {}
        self.lost: list[Worker] = []

    def meet(self, present: set[Worker]) -> None:
        """Ask those who are new, take the answers that are there, forget those who are gone."""
        self.lost += [worker for worker in self.asked if worker not in present]
        for known in (self.usable, self.refused, self.asked):
            for worker in known.keys() - present:
                del known[worker]
        for worker, future in list(self.asked.items()):
            if future.done():
                del self.asked[worker]
                self._take(worker, future)
        for worker in present - self.usable.keys() - self.refused.keys() - self.asked.keys():
            key = f"handshake-{uuid4().hex}"
            self.asked[worker] = self.client.submit(eval, QUESTION, workers=[worker.address], key=key)

    def refuse(self, worker: Worker, reason: Refusal) -> None:
        """A worker that gets no more batches."""
        self.usable.pop(worker, None)
        self.refused[worker] = reason

    def _take(self, worker: Worker, future: Future) -> None:
        try:
            process, received = future.result(timeout=10)
        except (CancelledError, KilledWorker, TimeoutError):  # asked again, where it is still there
            return
        except Exception as error:
            self.refuse(worker, self._cannot(error))
            return
        differs = differences(received, self.expected)
        if differs:
            self.refuse(worker, Refusal(differs))
        else:
            self.usable[worker] = process

    def _cannot(self, error: Exception) -> Refusal:
        """Why a worker could not answer."""
        expected = f"expected {self.expected['nfd_jax']}"
        if isinstance(error, ModuleNotFoundError) and error.name == "nfd_jax":
            return Refusal(f"nfd_jax: received none, {expected}")
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("nfd_jax."):
            return Refusal(f"nfd_jax: received an older one that tells nothing of its source, {expected}")
        said = str(error).splitlines()[0] if str(error) else "no message"
        return Refusal(f"nfd_jax: cannot be loaded ({type(error).__name__}: {said}), {expected}")
