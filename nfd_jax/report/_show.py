"""`nfd show`: progress and verdicts of a sweep in the terminal, once or until it is finished."""

import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nfd_jax.pace import Pace
from nfd_jax.report._claims import Card, cards, counted, judged
from nfd_jax.report._distances import summary_of
from nfd_jax.report._progress import failures, members, progress
from nfd_jax.report._words import CLAIM_WORDS
from nfd_jax.text import printable
from nfd_jax.verdicts import View

EVERY = 1.5  # seconds between two looks at a running sweep
SHARE = 0.05  # of the time spent watching that verdicts may cost
STYLES = {"holds": "bold", "fails": "bold reverse", "open": "italic"}

Counts = dict[str, int]


class _Watcher:
    """What is known of a folder; verdicts are computed anew when cells were added, and not too often."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.verdicts: dict[str, list[Card]] = {}
        self.found: dict[str, list[str]] = {}
        self.remarks: list[str] = []
        self._seen: dict[str, Counts | None] = {}
        self._next = 0.0
        self._pace: Pace | None = None
        self._done = 0

    def look(self, *, last: bool = False) -> tuple[RenderableType, bool]:
        """(what to show, whether the sweep is finished); verdicts are up to date if it is the last look."""
        found = members(self.folder)
        state = {name: progress(path) for name, path in found.items()}
        finished = _finished(self.folder, found, state)
        if state != self._seen and (last or finished or time.monotonic() >= self._next):
            self._judge(found)
            self._seen = state
        return Group(*self._lines(found, state)), finished

    def _judge(self, found: Mapping[str, Path]) -> None:
        from nfd_jax.store import StoreError, open_results

        began = time.monotonic()
        self.remarks = []
        for name, path in found.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                try:
                    tree = open_results(path)
                except (StoreError, OSError) as error:
                    self.remarks.append(str(error))
                    continue
            self.remarks += [
                str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)
            ]
            self.remarks += failures(path)
            claims = judged(tree)
            self.verdicts[name] = cards(claims)
            self.found[name] = [*summary_of(View.of(tree)), counted(claims)]
        spent = time.monotonic() - began
        self._next = time.monotonic() + spent / SHARE

    def _lines(self, found: Mapping[str, Path], state: Mapping[str, Counts | None]) -> list[RenderableType]:
        if not found:
            return [Text(printable(f"{self.folder}: no results yet"))]
        lines: list[RenderableType] = [_progress_table(self.folder, state)]
        left = self._time_left(state)
        lines += [Text(left, style="dim")] if left else []
        if any(card.verdict != "not measured" for own in self.verdicts.values() for card in own):
            lines.append(_verdict_table(self.verdicts))
        for name, said in self.found.items():
            lines += [Text(printable(f"{name}: {line}" if name else line)) for line in said]
        return lines + [Text(printable(remark), style="yellow") for remark in self.remarks]

    def _time_left(self, state: Mapping[str, Counts | None]) -> str:
        """Nothing to say before a cell was added."""
        known = [number for number in state.values() if number]
        total = sum(sum(number.values()) for number in known)
        done = total - sum(number["pending"] for number in known)
        if self._pace is None or done < self._done:
            self._pace = Pace(done)
        self._pace.update(done)
        self._done = done
        return self._pace.left(total)


def show(folder: Path, console: Console, watch: bool = False) -> None:
    """`report.show`."""
    watcher = _Watcher(folder)
    if not watch:
        if not members(folder):
            from nfd_jax.store import StoreError

            raise StoreError(f"{folder}: no results; allowed: a folder that nfd run has written")
        console.print(watcher.look(last=True)[0])
        return
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            while True:
                shown, finished = watcher.look()
                live.update(shown, refresh=True)
                if finished:
                    return
                time.sleep(EVERY)
    except KeyboardInterrupt:
        return


def _finished(folder: Path, found: Mapping[str, Path], state: Mapping[str, Counts | None]) -> bool:
    """No cell pending; variants come one by one, and their common report is written after the last."""
    if not found or any(number is None or number["pending"] for number in state.values()):
        return False
    if "" in found:
        return True
    report = folder / "report.html"
    batches = [path / "batches" for path in found.values() if (path / "batches").exists()]
    return report.exists() and all(report.stat().st_mtime >= path.stat().st_mtime for path in batches)


def _progress_table(folder: Path, state: Mapping[str, Counts | None]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, number in state.items():
        if number is None:
            table.add_row(printable(name or folder.name), Text("cannot be read at the moment", style="dim"))
            continue
        total, over = sum(number.values()), sum(number.values()) - number["pending"]
        rest = "".join(f", {count} {word}" for word, count in number.items() if word != "done" and count)
        bar = ProgressBar(total=max(total, 1), completed=over, width=24)
        table.add_row(printable(name or folder.name), bar, f"{number['done']} of {total} cells done{rest}")
    return table


def _verdict_table(verdicts: Mapping[str, list[Card]]) -> Table:
    """Claims with what decides them and what would settle them; of several variants, the verdicts side by
    side."""
    table = Table(show_lines=True, expand=True)
    alone = verdicts.get("") if list(verdicts) == [""] else None
    columns = {"": None, "claim": 3} | (
        dict.fromkeys(verdicts, 2)
        if alone is None
        else {"verdict": 1, "what decides it": 4, "what would settle it": 3}
    )
    for name, ratio in columns.items():
        table.add_column(printable(name), ratio=ratio)
    for card in alone or ():
        table.add_row(card.claim, card.words, _styled(card), card.decides, Text(card.next, style="dim"))
    for claim, words in CLAIM_WORDS.items() if alone is None else ():
        own = [next((card for card in found if card.claim == claim), None) for found in verdicts.values()]
        table.add_row(claim, words, *(_styled(card) if card else Text("") for card in own))
    return table


def _styled(card: Card) -> Text:
    return Text(f"{card.symbol} {card.verdict}", style=STYLES[card.kind])
