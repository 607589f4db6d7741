"""What reusing the weights does: one layer's coupling, its sum over layers, and its effect, against depth and width."""

import numpy as np
import xarray as xr

from nfd_jax.report._fig_error import OTHER, ends, when
from nfd_jax.report._plot import (
    GUIDE,
    GUIDES,
    QUANTITY,
    SYMBOL,
    Drawing,
    Line,
    Sheet,
    curve,
    empty,
    guide,
    log_y,
    size_axis,
)
from nfd_jax.report._trends import moves, trend
from nfd_jax.verdicts import View, by_seed, covered

PANELS = {
    "coupling_layer_ms": "one layer's coupling",
    "coupling_displacement_ms": "summed over layers",
    "coupling_effect_ms": "what reuse changes",
}
DIRECTIONS = {"forward": QUANTITY["h"], "backward": QUANTITY["b"]}
POWERS = {"depth": {"coupling_layer_ms": 2}, "width": dict.fromkeys(PANELS, 1)}
"""Power of the grey line: what C3 claims of a layer against L, C1 before training against n."""


def coupling(view: View, axis: str) -> Drawing | None:
    """Against depth after the last update, or against width before the first and after the last."""
    found = {name: values for name in PANELS if (values := view.get(f"coupling/{name}")) is not None}
    any_of = next(iter(found.values()), None)
    if any_of is None or len(covered(any_of, axis)) < 2:
        return None
    other, symbol = OTHER[axis], SYMBOL[axis]
    size, sizes = int(covered(any_of, other)[-1]), covered(any_of, axis)
    steps = ends(any_of)[-1:] if axis == "depth" else ends(any_of)
    sheet, legend, messages = Sheet(1, len(found)), {}, {}
    for ax, (name, values) in zip(sheet.axes[0], found.items(), strict=True):
        for label, line in _lines(values).items():
            for step in steps[::-1]:
                part = values.sel({other: size, "step": step} | label_of(values, label))
                samples = by_seed(part.sel({axis: sizes}), axis)
                drawn = Line(
                    line.color, line.marker, "--" if step == 0 else "-", hollow=step == 0 and len(steps) > 1
                )
                if curve(ax, sizes, samples, drawn, floor=view.floor):
                    legend[_label(label, step, steps)] = drawn
                    messages.setdefault((name, step, label), moves(trend(sizes, samples, view.floor), symbol))
        ax.set_title(PANELS[name])
        _finish(ax, sizes, axis, POWERS[axis].get(name))
    sheet.axes[0, 0].set_ylabel("mean square per coordinate")
    powers = (
        "the decay that C3 claims, 1/L²"
        if axis == "depth"
        else "the decay that C1 claims before training, 1/n"
    )
    legend[powers] = Line(GUIDE, "", GUIDES)
    caption = (
        "Left to right: the coupling term of one layer, mean over layers; these terms added up along the depth, largest over t; "
        "reused minus independent network on the same noise. "
        f"{other.capitalize()} {SYMBOL[other]} = {size}. Bars: one standard error over seeds. What is zero to rounding is left out."
    )
    return sheet.finish(f"coupling_{axis}", _title(messages, axis, steps), caption, legend)


def _lines(values: xr.DataArray) -> dict[str, Line]:
    return DIRECTIONS if "direction" in values.dims else QUANTITY


def label_of(values: xr.DataArray, label: str) -> dict[str, str]:
    """The selector of a curve."""
    return {"direction" if "direction" in values.dims else "quantity": label}


def _label(label: str, step: int, steps: list[int]) -> str:
    names = {"forward": "h", "backward": "b"}
    text = {"h": "features h (forward)", "b": "gradients b (backward)", "f": "outputs f"}[
        names.get(label, label)
    ]
    return text if len(steps) < 2 else f"{text}, {when(step)}"


def _finish(ax, sizes: np.ndarray, axis: str, power: int | None) -> None:
    if not ax.lines:
        empty(ax, "zero to rounding")
        return
    if power:
        guide(ax, sizes, power, 1.3 * max(float(np.nanmax(line.get_ydata())) for line in ax.lines))
    log_y(ax)
    size_axis(ax, sizes, f"{axis} {SYMBOL[axis]}")


def _title(messages: dict, axis: str, steps: list[int]) -> str:
    last = steps[-1]
    if axis == "depth":
        title = "Coupling against depth"
        wanted = [
            ("one layer, forward,", ("coupling_layer_ms", last, "forward")),
            ("its sum", ("coupling_displacement_ms", last, "forward")),
        ]
    else:
        title = "What reuse changes in b, against width"
        wanted = [(when(step), ("coupling_effect_ms", step, "b")) for step in steps]
    said = [f"{words} {text}" for words, key in wanted if (text := messages.get(key))]
    return (
        f"{title}: {'; '.join(said)}" if said else f"{title}: two points give no slope" if messages else title
    )
