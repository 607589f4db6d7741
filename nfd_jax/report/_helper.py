"""A second process that draws figures beside this one: drawing is work for one core, and most machines have
two.

It imports while verdicts are worked out, is told the folder once, and then draws what it is asked for, one
figure at a time, so that neither waits for the other. A figure is the same whoever draws it; what the second
process fails to draw, the first draws itself.

    to it      the folder, then names of figures, a line each
    from it    a pickled `Drawn` or None for each name
"""

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from nfd_jax.runtime import cores


class Helper:
    """The second process, started; None is drawn by it on a machine of one core. A context: it ends with
    it."""

    def __init__(self) -> None:
        self._process = None
        if cores() > 1:
            command = [sys.executable, "-m", __name__]
            quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(command, **quiet)

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.kill()
            with self._process:
                pass

    def draw(self, folder: Path, names: list[str], here: Callable[[str], object]) -> dict[str, object]:
        """What `here` gives for each name, in their order; about half of it from the second process."""
        waiting: SimpleQueue[str] = SimpleQueue()
        for name in names:
            waiting.put(name)
        found: dict[str, object] = {}
        there = Thread(target=self._ask, args=(folder, waiting, found), daemon=True)
        there.start()
        while True:
            for name in _taken(waiting):
                found[name] = here(name)
            there.join()
            if waiting.empty():
                return {name: found[name] for name in names}

    def _ask(self, folder: Path, waiting: "SimpleQueue[str]", found: dict[str, object]) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        try:
            self._tell(str(folder.resolve()))
            pickle.load(process.stdout)  # it has imported all it needs
        except Exception:
            return
        for name in _taken(waiting):
            try:
                self._tell(name)
                found[name] = pickle.load(process.stdout)
            except Exception:
                waiting.put(name)
                return

    def _tell(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()


def _taken(waiting: "SimpleQueue[str]") -> Iterator[str]:
    with contextlib.suppress(Empty):
        while True:
            yield waiting.get_nowait()


def main() -> None:
    """The second process."""
    from nfd_jax.report._draw import drawn
    from nfd_jax.report._figures import Figures
    from nfd_jax.report._plot import styled
    from nfd_jax.store import open_results

    answer = sys.stdout.buffer
    sys.stdout = sys.stderr
    folder = Path(sys.stdin.readline().rstrip("\n"))
    figures = Figures(open_results(folder))
    pickle.dump("ready", answer)
    answer.flush()
    with styled():
        for line in sys.stdin:
            made = figures.make(line.rstrip("\n"))
            found = made and drawn(folder / "figures", made)
            pickle.dump(found and found._replace(drawing=replace(found.drawing, figure=None)), answer)
            answer.flush()


if __name__ == "__main__":
    main()
