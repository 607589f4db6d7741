"""How figures look: panels of one size that a page can stack, one legend, colours that the colour-blind can
tell apart.

Every colour of a line or marker has a contrast of at least 3 to white; markers and dashes differ too.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from nfd_jax.report._numbers import number
from nfd_jax.verdicts import spread

BLACK, GREEN, BLUE, VERMILION, PURPLE, BROWN, SLATE = (
    "#000000", "#00805C", "#0069A8", "#C44E00", "#A13D7C", "#7A5C00", "#4B5A6B",
)  # fmt: skip
SERIES = (VERMILION, BLUE, GREEN, PURPLE, BROWN, SLATE, BLACK)
GUIDE = "#6b6b6b"
MARKERS = "os^DvPX"
SUBDIVISIONS = ([1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7])
"""Of a decade, from few to many ticks."""

PANEL = (3.75, 2.95)
"""Width and height of a panel in inches."""
DPI = 150
_LEFT, _RIGHT, _BOTTOM, _TOP, _BARE = 0.72, 0.12, 0.5, 0.34, 0.12  # margins of a panel in inches

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titley": 1.02,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
}


@dataclass(frozen=True)
class Line:
    """Colour, marker and dashes of one kind of curve."""

    color: Any
    marker: str = ""
    dashes: Any = "-"
    hollow: bool = False

    def keywords(self) -> dict:
        face = {"markerfacecolor": "white"} if self.hollow else {}
        return {"color": self.color, "marker": self.marker, "linestyle": self.dashes} | face


NETWORK = {"reused": Line(VERMILION, "o"), "independent": Line(BLUE, "s", "--")}
"""Finite networks by their backward weights."""
LIMIT = {"reused": Line(BLACK, "", (0, (5, 1.5))), "independent": Line(BLACK, "", (0, (1.5, 1.2)))}
"""Limits by their backward weights: black, beside networks in colour."""
PAIRS = {
    ("reused", "reused"): Line(GREEN, "^", "-"),
    ("reused", "independent"): Line(VERMILION, "o", "-"),
    ("independent", "independent"): Line(BLUE, "s", "--"),
    ("independent", "reused"): Line(PURPLE, "D", ":"),
}
"""(network's, limit's) backward weights."""
QUANTITY = {"h": Line(BLUE, "o"), "b": Line(VERMILION, "s"), "f": Line(GREEN, "^")}
QUANTITIES = {"h": "features h", "b": "gradients b", "f": "outputs f"}
SYMBOL = {"width": "n", "depth": "L", "particles": "N", "learning_rate": "η"}
OTHER = {"width": "depth", "depth": "width"}
THIN = {"markersize": 4.5, "linewidth": 1.2}
THICK = {"linewidth": 2.2}
GUIDES = Line(GUIDE, "", (0, (1, 1)))


def pair_name(network: str, limit: str) -> str:
    """A network against a limit."""
    return f"{network} network → {limit} limit"


@dataclass(frozen=True)
class Drawing:
    """A figure: the name of its file, its message, what a reader is told beside it, and its one legend."""

    name: str
    title: str
    caption: str
    figure: Figure
    boxes: tuple[tuple[float, float, float, float], ...]
    """Panels as (left, bottom, width, height), fractions of the figure."""
    panels: tuple[str, ...]
    legend: Mapping[str, Line] = field(default_factory=dict)


@contextmanager
def styled() -> Iterator[None]:
    """The style, for as long as the block lasts: nobody else's figures change."""
    with matplotlib.rc_context(STYLE):
        yield


class Sheet:
    """Panels of one size in rows and columns.

    Lines are drawn through it, so that each kind of line stands in the one legend once; `finish` puts the
    title above the panels and the legend below.
    """

    def __init__(self, rows: int, columns: int, *, panel: tuple[float, float] = PANEL):
        self.rows, self.columns, self.panel = rows, columns, panel
        self.legend: dict[str, Line] = {}
        self.figure = Figure(dpi=DPI, facecolor="white")
        box = (0.1, 0.1, 0.8, 0.8)
        made = [self.figure.add_axes(box, label=f"panel {i}") for i in range(rows * columns)]
        self.axes = np.array(made).reshape(rows, columns)

    def line(self, ax: Axes, x: ArrayLike, y: ArrayLike, line: Line, label: str = "", **style) -> bool:
        """A curve, with a legend entry of this label; False, and nothing drawn, where no point is finite."""
        y = np.asarray(y, float)
        if not np.isfinite(y).any():
            return False
        if y.size > 12:  # Of many points few carry a marker.
            style = {"markevery": max(1, y.size // 12)} | style
        ax.plot(np.asarray(x), y, **line.keywords() | style)
        if label:
            self.legend[label] = line
        return True

    def bars(
        self, ax: Axes, x: ArrayLike, y: ArrayLike, error: ArrayLike, line: Line, label: str = "", **style
    ) -> None:
        """Points with bars, `error` long; bars that have no end are left out. Of many points some are marked,
        and a line goes through all."""
        keywords = {"capsize": 2, "elinewidth": 0.8} | line.keywords() | style
        if len(y) > 20:
            if not line.dashes:
                ax.plot(np.asarray(x), y, color=line.color, linewidth=0.8, zorder=style.get("zorder", 2))
            keywords |= {"errorevery": len(y) // 12, "markevery": len(y) // 12}
        ax.errorbar(np.asarray(x), y, np.where(np.isfinite(error), error, 0), **keywords)
        if label:
            self.legend[label] = line

    def intervals(
        self,
        ax: Axes,
        x: np.ndarray,
        ends: np.ndarray,
        line: Line,
        label: str = "",
        hollow: ArrayLike = False,
    ) -> bool:
        """Points with intervals, ends = (estimate, low, high), joined by a line; hollow ones stand apart.
        False where there is none."""
        middle, low, high = ends
        good, hollow = np.isfinite(middle), np.broadcast_to(hollow, middle.shape)
        if good.any():
            ax.plot(x[good], middle[good], color=line.color, linestyle=line.dashes, linewidth=1.2)
            self.legend[label] = line
        for kind in (good & hollow, good & ~hollow):
            if kind.any():
                drawn = Line(line.color, line.marker, "", hollow=bool(hollow[kind][0]))
                self.bars(ax, x[kind], middle[kind], np.stack([middle - low, high - middle])[:, kind], drawn)
        return bool(good.any())

    def band(self, ax: Axes, x: ArrayLike, middle: ArrayLike, half: ArrayLike | None, line: Line) -> None:
        """Shading within `half` of a line, where that is known point by point."""
        middle, half = np.asarray(middle), None if half is None else np.asarray(half)
        if half is not None and len(half) == len(middle):
            ax.fill_between(x, middle - half, middle + half, color=line.color, alpha=0.2, linewidth=0)

    def curve(
        self, ax: Axes, x: ArrayLike, samples: np.ndarray, line: Line, label: str = "", *, floor=0.0, **style
    ) -> bool:
        """Mean over seeds of samples (seeds, points) with bars of one standard error; False where nothing is
        above floor."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = samples.mean(0)
            error = samples.std(0, ddof=1) / np.sqrt(len(samples)) if len(samples) > 1 else 0 * mean
            good = np.isfinite(mean) & (mean > floor)
        if not good.any():
            return False
        below = np.minimum(error, 0.9 * np.abs(mean)) if floor >= 0 else error  # a log axis has no zero
        ends = np.stack([below, error])[:, good]
        self.bars(ax, np.asarray(x)[good], mean[good], ends, line, label, **style)
        return True

    def guide(self, ax: Axes, x: ArrayLike, power: float, start: float, label: str) -> None:
        """A grey line of slope −power that begins at height `start`."""
        x = np.asarray(x, float)
        self.line(ax, x, start * (x / x[0]) ** -power, GUIDES, label, linewidth=1.3, zorder=1)

    def finish(self, name: str, title: str, caption: str) -> Drawing:
        """The drawing, laid out: margins are inches, whatever the number of panels."""
        legend = dict(sorted(self.legend.items(), key=lambda entry: entry[1] == GUIDES))  # guides come last
        panel_width, panel_height = self.panel
        width, height = panel_width * self.columns, panel_height * self.rows
        lines = wrap(title, int(width * 11)) or [""]
        above = 0.1 + 0.2 * len(lines)
        # Entries are about 0.075 inches a letter and 0.55 for the line.
        longest = max(map(len, legend), default=1)
        columns = max(1, min(len(legend), int(width / (0.55 + 0.075 * longest))))
        below = 0.1 + 0.19 * -(-len(legend) // columns) if legend else 0.0
        total = height + above + below
        self.figure.set_size_inches(width, total)
        scale = np.array([width, total, width, total])
        boxes, titles = [], []
        for (i, j), ax in np.ndenumerate(self.axes):
            left, bottom = j * panel_width, below + (self.rows - 1 - i) * panel_height
            top = _TOP if ax.get_title(loc="left") else _BARE
            inner = panel_width - _LEFT - _RIGHT, panel_height - _BOTTOM - top
            ax.set_position(np.array([left + _LEFT, bottom + _BOTTOM, *inner]) / scale)
            boxes.append(tuple(np.array([left, bottom, panel_width, panel_height]) / scale))
            titles.append(ax.get_title(loc="left"))
        words = {"va": "top", "ha": "left", "fontsize": 10.5, "weight": "bold"}
        self.figure.text(0.12 / width, 1 - 0.08 / total, "\n".join(lines), **words)
        if legend:
            handles = [Line2D([], [], **line.keywords()) for line in legend.values()]
            place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": 0.2}
            self.figure.legend(handles, list(legend), ncols=columns, **place)
        return Drawing(name, title, caption, self.figure, tuple(boxes), tuple(titles), legend)


def levels(count: int) -> list[tuple]:
    """Colours from dark to light for ordered values such as depths; the lightest still shows on white."""
    return [matplotlib.colormaps["viridis"](0.58 * i / max(1, count - 1)) for i in range(count)]


def shades(sizes: Iterable, most: int = 5, dashes: str = "-") -> Iterator[tuple[Any, Line]]:
    """At most so many of the sizes, evenly spread, each with its line from dark to light."""
    shown = spread(list(sizes), most)
    for color, marker, size in zip(levels(len(shown)), MARKERS, shown, strict=False):
        yield size, Line(color, marker, dashes, hollow=dashes == "--")


def log_y(ax: Axes) -> None:
    """A log axis with few ticks, all labelled in plain numbers: as many a decade as make three of them, or
    round numbers where a decade has too few."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    for subs in SUBDIVISIONS:
        locator = LogLocator(10, subs=subs, numticks=8)
        if sum(low <= tick <= high for tick in locator.tick_values(low, high)) > 2:
            break
    else:
        locator = MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3)
    ax.yaxis.set_major_locator(locator)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def same_range(axes: ArrayLike, *, log: bool = True) -> None:
    """One y range for panels that compare; empty ones are left as they are. On a log axis what is not
    positive is left out."""
    drawn = [ax for ax in np.asarray(axes).flat if ax.lines]
    values = _heights(drawn)
    values = values[(values > 0) | (not log)]
    if not values.size:
        return
    low, high = values.min(), values.max()
    room = max((high / low) ** 0.06, 1.1) if log else 0.06 * (high - low) or 1.0
    for ax in drawn:
        if log:
            ax.set_yscale("log")
        ax.set_ylim(*((low / room, high * room) if log else (low - room, high + room)))
        if log:
            log_y(ax)


def spans_decade(axes: ArrayLike) -> bool:
    """Whether what is drawn is positive and spans more than a decade."""
    values = _heights(np.asarray(axes).flat)
    return bool(values.size and values.min() > 0 and values.max() > 10 * values.min())


def _heights(axes: Iterable[Axes]) -> np.ndarray:
    """The finite y values of every line."""
    found = [np.asarray(line.get_ydata(), float).ravel() for ax in axes for line in ax.lines]
    values = np.concatenate([*found, np.zeros(0)])
    return values[np.isfinite(values)]


def size_axis(ax: Axes, values: ArrayLike, name: str, otherwise: str = "zero to rounding") -> None:
    """A log axis with its ticks at the sizes themselves; of many, those far enough apart to be read.

    name: what SYMBOL has, or the whole label. A panel without a line says `otherwise`.
    """
    if not ax.lines:
        empty(ax, otherwise)
        return
    ax.set_xscale("log", base=2)
    shown = np.asarray(values).tolist()
    while len(shown) > 7:
        shown = shown[::-1][::2][::-1]
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"{name.replace('_', ' ')} {SYMBOL[name]}" if name in SYMBOL else name)


def step_axis(ax: Axes, steps: ArrayLike) -> None:
    """Steps of SGD, at most eight of them labelled: each, or round numbers."""
    shown = np.asarray(steps)
    round_ones = (k * 10**power for power in range(9) for k in (1, 2, 5))
    every = next(size for size in round_ones if len(shown) <= 8 * size)
    ax.set_xticks(shown[shown % every == 0].tolist())
    ax.set_xlabel("updates made (SGD step)")


def depth_axis(ax: Axes) -> None:
    """Layers as fractions of the depth."""
    ax.set_xlim(-0.04, 1.04)
    ax.set_xlabel("t = ℓ/L")


def zero_line(ax: Axes) -> None:
    """A thin line at 0 where something is drawn."""
    if ax.lines:
        ax.axhline(0, color="black", linewidth=0.8)


def empty(ax: Axes, text: str) -> None:
    """A panel that has nothing to show, and says so."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#555555", wrap=True)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
