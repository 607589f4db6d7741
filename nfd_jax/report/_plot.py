"""How figures look: colours that the colour-blind can tell apart, markers and dashes that differ too, plain ticks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GUIDE = "#777777"
SUBDIVISIONS = ([1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7], *([1 + i / n for i in range(9 * n)] for n in (1, 2, 10)))
"""Of a decade, from few to many ticks."""
MARKERS = "osD^vPX*"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.titlesize": 11,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "svg.hashsalt": "nfd_jax",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Drawing:
    """A figure, the file name it goes by and what a reader is told beside it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Line:
    """Colour, marker and dashes of one kind of curve."""

    color: str
    marker: str
    dashes: str

    def keywords(self) -> dict:
        return {"color": self.color, "marker": self.marker, "linestyle": self.dashes}


PAIRS = {
    ("reused", "independent"): Line(VERMILION, "o", "-"),
    ("independent", "independent"): Line(BLUE, "s", "--"),
    ("reused", "reused"): Line(GREEN, "^", "-."),
    ("independent", "reused"): Line(PURPLE, "D", ":"),
}
"""(network's, limit's) backward weights."""

FLAGS = {"reused": Line(VERMILION, "o", "-"), "independent": Line(BLUE, "s", "--")}


@contextmanager
def styled() -> Iterator[None]:
    """The style, for as long as the block lasts: nobody else's figures change."""
    with matplotlib.rc_context(STYLE):
        yield


def panels(rows: int, columns: int, *, height: float = 3.0, width: float = 11.0) -> tuple[Figure, np.ndarray]:
    """A figure of `width` inches with rows × columns axes, each row `height` inches high."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=(width, rows * height), dpi=130, layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False)


def levels(count: int) -> list[tuple]:
    """Colours from dark to light for ordered values such as depths; the lightest still shows on white."""
    cividis: Colormap = matplotlib.colormaps["cividis"]
    return [cividis(0.78 * i / max(1, count - 1)) for i in range(count)]


def number(value: float) -> str:
    """Short text of a value on a log axis."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def signed(value: float) -> str:
    """A slope with its sign."""
    return f"{value:+.2f}".replace("-", "−")


def log_y(ax: Axes) -> None:
    """A log axis with few ticks, all labelled in plain numbers: as many a decade as make three of them."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    locator = LogLocator(10, numticks=8)
    for subs in SUBDIVISIONS:
        locator.set_params(subs=subs)
        if sum(low <= tick <= high for tick in locator.tick_values(low, high)) > 2:
            break
    ax.yaxis.set_major_locator(locator)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def size_axis(ax: Axes, values: ArrayLike, name: str) -> None:
    """A log axis with its ticks at the sizes themselves; of many, those far enough apart to be read."""
    ax.set_xscale("log", base=2)
    shown = np.asarray(values).tolist()
    while len(shown) > 7:
        shown = shown[::-1][::2][::-1]
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(name)


def step_axis(ax: Axes, steps: ArrayLike) -> None:
    """Steps of SGD, at most eight of them labelled."""
    shown = np.asarray(steps).tolist()
    ax.set_xticks(shown[:: max(1, -(-len(shown) // 8))])
    ax.set_xlabel("SGD step (state before its update)")


def curve(ax: Axes, x: np.ndarray, samples: np.ndarray, *, label: str = "", floor: float = 0.0, **style) -> bool:
    """Mean over seeds, samples (seeds, points), with bars of one standard error; False where nothing is above floor."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = samples.mean(0)
        error = samples.std(0, ddof=1) / np.sqrt(len(samples)) if len(samples) > 1 else np.zeros(len(mean))
        good = np.isfinite(mean) & (mean > floor)
    if not good.any():
        return False
    bars = np.stack([np.minimum(error, 0.9 * mean), error])[:, good]
    ax.errorbar(np.asarray(x)[good], mean[good], bars, label=label, capsize=2, elinewidth=0.8, **style)
    return True


def band(ax: Axes, x: np.ndarray, samples: np.ndarray, color: object) -> None:
    """From the smallest to the largest seed."""
    if len(samples) > 1:
        with np.errstate(invalid="ignore"):
            ax.fill_between(x, samples.min(0), samples.max(0), color=color, alpha=0.15, linewidth=0)


def guide(ax: Axes, x: np.ndarray, power: float, label: str) -> None:
    """A grey line of slope -power from the top of what is drawn."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    top = drawn.max()
    x = np.asarray(x, float)
    ax.plot(x, 1.6 * top * (x / x[0]) ** -power, color=GUIDE, linestyle=(0, (1, 1)), linewidth=1.2, label=label)


def below(ax: Axes, **keywords) -> None:
    """The legend under the panel, where it cannot hide a curve."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), borderaxespad=0, **keywords)


def empty(ax: Axes, text: str) -> None:
    """A panel that has nothing to show, and says so."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#555555", wrap=True)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
