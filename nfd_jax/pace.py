"""How fast cells are being finished, from the latest of them: a sweep that stood still goes on at its own
pace."""

from collections import deque
from time import monotonic

LATEST = 12
"""Steps that are looked back on."""


class Pace:
    """Cells a second over the latest steps, the longest of them left out: it may have been a stop."""

    def __init__(self, done: int):
        self._seen = deque([(monotonic(), done)], maxlen=LATEST + 1)

    def update(self, done: int) -> None:
        """So many cells are done now; nothing is learned where none was added."""
        if done > self._seen[-1][1]:
            self._seen.append((monotonic(), done))

    @property
    def rate(self) -> float | None:
        """Cells a second; None before a cell is done."""
        seen = list(self._seen)
        steps = [(t1 - t0, n1 - n0) for (t0, n0), (t1, n1) in zip(seen, seen[1:], strict=False)]
        if len(steps) > 3:
            steps.remove(max(steps, key=lambda step: step[0] / step[1]))
        seconds, cells = (sum(column) for column in zip(*steps, strict=True)) if steps else (0.0, 0)
        return cells / max(seconds, 1e-9) if cells else None

    def left(self, total: int) -> str:
        """ "about 30 s left" where there is something to say, or nothing."""
        rate, missing = self.rate, total - self._seen[-1][1]
        return f"about {missing / rate:.0f} s left" if rate and missing > 0 else ""
