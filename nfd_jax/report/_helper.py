"""A second process that draws figures beside this one: drawing is work for one core, and most machines have
two.

Started early, it imports while this process does. From then on it draws what it is asked for, one figure at a
time, so that neither waits for the other: some of them already while verdicts are worked out, as figures show
measured arrays alone. A figure is the same whoever draws it; what the second process fails to draw, the first
draws itself.

    to it      a folder and the name of a figure, a line each as JSON
    from it    once it has imported what it needs "ready"; then a pickled `Drawn` or None for each line
"""

import contextlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from nfd_jax._host import cores, settle


class Helper:
    """The second process; on a machine of one core there is none. A context: it ends with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ready, self._work, self._turn = False, None, Lock()

    def start(self) -> "Helper":
        """The process begins, unless it has."""
        if self._process is None and cores() > 1:
            command = [sys.executable, "-m", __name__]
            pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet)
        return self

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.kill()
            with self._process:
                pass

    def begin(self, folder: Path, names: list[str]) -> None:
        """Have it draw these figures of a folder until `draw` asks for them; the measured arrays must be
        stored."""
        self.start()
        if self._work is not None:  # nobody asked for it
            for _ in _taken(self._work.waiting):
                pass
        self._work = _Work(folder, names)
        self._work.there = Thread(target=self._in_turn, args=(self._work,), daemon=True)
        self._work.there.start()

    def draw(self, folder: Path, names: list[str], here: Callable[[str], Any]) -> dict[str, Any]:
        """What `here` gives for each name, in their order; about half of it, and all that was begun, from the
        second process."""
        if self._work is None or self._work.folder != folder:
            self.begin(folder, names)
        work, self._work = self._work, None
        assert work is not None and work.there is not None
        while True:
            for name in _taken(work.waiting):
                work.found[name] = here(name)
            if all(name in work.found for name in names):  # one that still imports is not waited for
                return {name: work.found[name] for name in names}
            work.there.join()

    def _in_turn(self, work: "_Work") -> None:
        """One thread at a time talks to the process: an earlier one may still wait for it to be ready."""
        with self._turn:
            self._ask(work)

    def _ask(self, work: "_Work") -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        try:
            if not self._ready:
                self._ready = pickle.load(process.stdout) == "ready"
        except Exception:
            return
        for name in _taken(work.waiting):
            try:
                process.stdin.write(f"{json.dumps([str(work.folder.resolve()), name])}\n".encode())
                process.stdin.flush()
                work.found[name] = pickle.load(process.stdout)
            except Exception:
                work.waiting.put(name)
                return


class _Work:
    """Figures of one folder: those that nobody has taken yet, and those that are done."""

    def __init__(self, folder: Path, names: list[str]):
        self.folder = folder
        self.there: Thread | None = None
        self.found: dict[str, object] = {}
        self.waiting: SimpleQueue[str] = SimpleQueue()
        for name in names:
            self.waiting.put(name)


def _taken(waiting: "SimpleQueue[str]") -> Iterator[str]:
    with contextlib.suppress(Empty):
        while True:
            yield waiting.get_nowait()


def main() -> None:
    """The second process."""
    settle()
    from nfd_jax.report._draw import drawn
    from nfd_jax.report._figures import Figures
    from nfd_jax.report._plot import styled
    from nfd_jax.store import open_results

    answer = sys.stdout.buffer
    sys.stdout = sys.stderr
    pickle.dump("ready", answer)
    answer.flush()
    known: dict[str, Figures] = {}
    with styled():
        for line in sys.stdin:
            folder, name = json.loads(line)
            if folder not in known:
                known = {folder: Figures(open_results(folder, derived=False))}
            made = known[folder].make(name)
            found = made and drawn(Path(folder) / "figures", made)
            pickle.dump(found and found._replace(drawing=replace(found.drawing, figure=None)), answer)
            answer.flush()


if __name__ == "__main__":
    main()
