"""Estimates of limits whose samples workers take, so that one estimate keeps a whole cluster busy.

The estimate itself goes on in the coordinator: it decides which samples to take next, and puts together what
comes back. Samples are the same whoever takes them, and are put together in one order: so are its numbers.
"""

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from queue import SimpleQueue
from threading import Lock

from nfd_jax.config import SweepConfig
from nfd_jax.limit import Chunk, Sampled, Sampler
from nfd_jax.measures import Named
from nfd_jax.runtime import Background, in_precision
from nfd_jax.store import Batch
from nfd_jax.sweep._compute import computed
from nfd_jax.sweep._estimates import Run, chunks_of
from nfd_jax.sweep._execute import run_batch
from nfd_jax.sweep._task import Task

LEAST = 2e5
"""Particles × Euler steps that are worth a message to a worker."""

A_WORKER = 3
"""Shares that each worker gets of the samples that are wanted at a time: the last ones end together."""


@dataclass(frozen=True)
class Share:
    """Samples of one estimate for a worker to take; `number` tells a batch's shares apart."""

    batch: Batch
    run: Run
    wanted: tuple[Chunk, ...]
    number: int

    @property
    def id(self) -> str:
        return f"{self.batch.id}-{self.number}"


def taken(config: SweepConfig, share: Share) -> list[Sampled] | str:
    """What a worker does; or one line saying why it could not."""

    def work(config: SweepConfig, batch: Batch) -> list[Sampled]:
        with in_precision(config.precision):
            return chunks_of(Task.of(config, batch), share.run, share.wanted)

    return computed(config, share.batch, work)


class _GivenUp(RuntimeError):
    """No samples will come."""


class Spread:
    """A batch of estimates under way; `workers` is how many there are to share its samples out among."""

    def __init__(self, config: SweepConfig, batch: Batch, workers: int):
        self.batch, self.workers = batch, workers
        self._waiting: deque[Share] = deque()
        self._answers: dict[Share, SimpleQueue[list[Sampled] | _GivenUp]] = {}
        self._numbers, self._over, self._lock = count(), "", Lock()
        self._work = Background(computed, config, batch, partial(run_batch, take=self._take))

    def next(self) -> Share | None:
        """Samples that nobody takes yet."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def give(self, share: Share, answer: list[Sampled] | str) -> None:
        """What a worker made of a share."""
        if isinstance(answer, str):
            self.give_up(answer)
        elif (place := self._answers.get(share)) is not None:
            place.put(answer)

    def give_up(self, line: str) -> None:
        """The batch will not be done, because of `line`."""
        self._over = self._over or line
        for place in list(self._answers.values()):
            place.put(_GivenUp(line))

    @property
    def ended(self) -> bool:
        return bool(self._over) or self._work.ended

    def outcome(self) -> dict[str, Named] | str:
        """Its arrays, or one line saying why there are none."""
        return self._over or self._work.result()

    def _take(
        self, run: Run, sampler: Sampler, wanted: Sequence[Chunk]
    ) -> Generator[list[Sampled], None, None]:
        shares = [Share(self.batch, run, part, next(self._numbers)) for part in _parts(wanted, self.workers)]
        self._answers |= {share: SimpleQueue() for share in shares}
        with self._lock:
            self._waiting.extend(shares)
        try:
            for share in shares:
                if self._over:
                    raise _GivenUp(self._over)
                answer = self._answers[share].get()
                if isinstance(answer, _GivenUp):
                    raise answer
                yield answer
        finally:  # what nobody has begun is not wanted any more
            for share in shares:
                del self._answers[share]
            with self._lock:
                self._waiting = deque(share for share in self._waiting if share in self._answers)


def _parts(wanted: Sequence[Chunk], workers: int) -> list[tuple[Chunk, ...]]:
    """In order, of about equal cost, so many that every worker gets A_WORKER unless they were too small."""
    costs = [level.cost * level.systems for level, _ in wanted]
    enough = max(LEAST, sum(costs) / (A_WORKER * workers))
    parts: list[list[Chunk]] = [[]]
    so_far = 0.0
    for chunk, cost in zip(wanted, costs, strict=True):
        if so_far >= enough:
            parts.append([])
            so_far = 0.0
        parts[-1].append(chunk)
        so_far += cost
    return [tuple(part) for part in parts if part]
