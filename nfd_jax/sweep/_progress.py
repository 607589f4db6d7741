"""What a running sweep tells: a bar on a terminal, plain lines elsewhere, and a log of JSON lines beside the
results."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from nfd_jax.pace import Pace
from nfd_jax.text import printable


class Progress:
    """Progress of one sweep, as a share of its places (width, depth, seed) and of its limits'."""

    def __init__(self, name: str, quiet: bool):
        self.name, self.quiet = name, quiet
        self.console = Console(stderr=True, highlight=False)
        self._bar: Bar | None = None
        self._log: Path | None = None

    @contextmanager
    def logging_to(self, path: Path) -> Iterator[None]:
        """Append events to `path`, one JSON object a line, until the block ends."""
        self._log = path
        try:
            yield
        except BaseException as error:
            self.log("stopped", reason=type(error).__name__)
            raise
        finally:
            self.end()

    def log(self, event: str, **facts) -> None:
        """Write one event to the log. One that cannot be written, and each after it, is lost: no number hangs
        on it."""
        if self._log is None:
            return
        line = json.dumps({"time": time.time(), "event": event, **facts}) + "\n"
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            with open(os.open(self._log, flags, 0o666), "a") as stream:
                stream.write(line)
        except OSError as error:
            path, self._log = self._log, None
            self.warn(f"{path}: {error.strerror}; the log ends here")

    def begin(self, done: int, total: int, batches: int) -> None:
        """Start counting at `done` of `total` cells."""
        self._start, self._total, self._pace = time.monotonic(), total, Pace(done)
        self.log("started", done=done, total=total, batches=batches)
        if self.quiet:
            return
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[left]}"),
                TimeElapsedColumn(),
            )
            self._bar = Bar(*columns, console=self.console)
            self._task = self._bar.add_task(self.name, total=total, completed=done, left="")
            self._bar.start()
        else:
            batch = "batch" if batches == 1 else "batches"
            self.say(f"{self.name}: {self._share(done)} stored, {batches} {batch} to go")

    def advance(self, done: int, batch: str, diverged: int) -> None:
        """One batch is stored: `done` cells in all, `diverged` of its runs diverged."""
        elapsed = time.monotonic() - self._start
        self._pace.update(done)
        self.log(
            "batch", id=batch, done=done, total=self._total, diverged=diverged, seconds=round(elapsed, 3)
        )
        if diverged:
            runs = f"{diverged} run{'s' * (diverged > 1)} diverged (a number is not finite)"
            self.warn(f"{batch}: {runs}; stored as such")
        if self.quiet:
            return
        left = self._pace.left(self._total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, left=left)
        else:
            self.say(f"{self.name}: {self._share(done)}{left and ', '}{left}")

    def _share(self, done: int) -> str:
        """Rounded down: all of it is all of it."""
        return f"{100 * done // max(self._total, 1)} %"

    def stage(self, text: str) -> None:
        """What is being done now that the cells are done."""
        self.log("stage", text=text)
        self.say(f"{self.name}: {text}")

    def end(self) -> None:
        """Stop counting."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """A plain line, unless quiet."""
        if not self.quiet:
            self.console.print(printable(text), soft_wrap=True, markup=False)

    def warn(self, text: str) -> None:
        """A line that is said even when quiet, and logged."""
        self.log("warning", text=text)
        self.console.print(printable(text), soft_wrap=True, markup=False)
