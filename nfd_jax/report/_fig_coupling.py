"""What reusing the weights does: one layer's coupling, its sum over layers, and its effect, against depth and
width."""

from nfd_jax.report import _plot as plot
from nfd_jax.report._fig_error import SIZE, ends, when
from nfd_jax.report._pick import largest
from nfd_jax.report._trends import moves, trend
from nfd_jax.verdicts import View, by_seed, covered

PANELS = {
    "coupling_layer_ms": "one layer's coupling",
    "coupling_displacement_ms": "summed over layers",
    "coupling_effect_ms": "what reuse changes",
}
DIRECTIONS = {"forward": "h", "backward": "b"}
LABELS = {"h": "features h (forward)", "b": "gradients b (backward)", "f": "outputs f"}
POWERS = {"depth": {"coupling_layer_ms": 2}, "width": dict.fromkeys(PANELS, 1)}
"""Power of the grey line: what C3 claims of a layer against L, C1 before training against n."""
GUIDED = {"depth": "the decay that C3 claims, 1/L²", "width": "the decay that C1 claims before training, 1/n"}


def coupling(view: View, axis: str) -> plot.Drawing | None:
    """Against depth after the last update, or against width before the first and after the last."""
    found = {name: values for name in PANELS if (values := view.get(f"coupling/{name}")) is not None}
    any_of = next(iter(found.values()), None)
    if any_of is None or len(covered(any_of, axis)) < 2:
        return None
    other, sizes = plot.OTHER[axis], covered(any_of, axis)
    size = int(largest(any_of, other)[other])
    steps = ends(any_of)[-1:] if axis == "depth" else ends(any_of)
    sheet, messages = plot.Sheet(1, len(found)), {}
    for ax, (name, values) in zip(sheet.axes[0], found.items(), strict=True):
        over = "direction" if "direction" in values.dims else "quantity"
        for label in DIRECTIONS if over == "direction" else plot.QUANTITY:
            quantity = DIRECTIONS.get(label, label)
            for step in steps[::-1]:
                samples = by_seed(values.sel({other: size, "step": step, over: label, axis: sizes}), axis)
                first = step == 0 and len(steps) > 1
                line = plot.Line(
                    plot.QUANTITY[quantity].color,
                    plot.QUANTITY[quantity].marker,
                    "--" if first else "-",
                    hollow=first,
                )
                words = LABELS[quantity] if len(steps) < 2 else f"{LABELS[quantity]}, {when(step)}"
                if sheet.curve(ax, sizes, samples, line, words, floor=view.floor):
                    said = moves(trend(sizes, samples, view.floor), plot.SYMBOL[axis])
                    messages.setdefault((name, step, label), said)
        ax.set_title(PANELS[name])
        if ax.lines:
            if power := POWERS[axis].get(name):
                top = max(float(max(line.get_ydata())) for line in ax.lines)
                sheet.guide(ax, sizes, power, 1.3 * top, GUIDED[axis])
            plot.log_y(ax)
        plot.size_axis(ax, sizes, axis)
    sheet.axes[0, 0].set_ylabel(SIZE)
    caption = (
        "Left to right: the coupling term of one layer, mean over layers; these terms added up along the "
        f"depth, largest over t; reused minus independent network on the same noise. {other.capitalize()} "
        f"{plot.SYMBOL[other]} = {size}. Bars: one standard error over seeds. What is zero to rounding is "
        "left out."
    )
    return sheet.finish(f"coupling_{axis}", _title(messages, axis, steps), caption)


def _title(messages: dict, axis: str, steps: list[int]) -> str:
    if axis == "depth":
        title = "Coupling against depth"
        wanted = {
            "one layer, forward,": ("coupling_layer_ms", steps[-1], "forward"),
            "its sum": ("coupling_displacement_ms", steps[-1], "forward"),
        }
    else:
        title = "What reuse changes in b, against width"
        wanted = {when(step): ("coupling_effect_ms", step, "b") for step in steps}
    said = [f"{words} {text}" for words, key in wanted.items() if (text := messages.get(key))]
    if said:
        return f"{title}: {'; '.join(said)}"
    return f"{title}: two points give no slope" if messages else title
