"""The picture of what is compared: forward and backward pass through one layer, with reused and with
independent weights."""

from html import escape

_ARROW = (
    "<defs><marker id=tip{key} viewBox='0 0 8 8' refX=7 refY=4 markerWidth=7 markerHeight=7 "
    "orient=auto-start-reverse>"
    "<path d='M0 0 8 4 0 8z' fill='{color}'/></marker></defs>"
)
_UP, _DOWN = "var(--link)", "var(--no)"


def _box(x: float, y: float, width: float, height: float, text: str, *, color: str = "currentColor") -> str:
    return (
        f"<rect x={x} y={y} width={width} height={height} rx=6 fill=none stroke='{color}' stroke-width=1.6 />"
        f"<text x={x + width / 2} y={y + height / 2 + 5} text-anchor=middle font-size=15 "
        f"fill=currentColor>{text}</text>"
    )


def _arrow(x0: float, y0: float, x1: float, y1: float, key: str, color: str) -> str:
    return (
        f"<path d='M{x0} {y0}L{x1} {y1}' stroke='{color}' stroke-width=1.8 fill=none "
        f"marker-end='url(#tip{key})'/>"
    )


def _label(x: float, y: float, text: str, anchor: str = "middle", color: str = "currentColor") -> str:
    return f"<text x={x} y={y} text-anchor={anchor} font-size=12.5 fill='{color}'>{escape(text)}</text>"


def _sub(name: str, index: str) -> str:
    return f"{name}<tspan dy=4 font-size=11>{index}</tspan><tspan dy=-4>&#8203;</tspan>"


def layer(kind: str) -> str:
    """SVG of one layer; kind is reused or independent."""
    up, down = f"u{kind[0]}", f"d{kind[0]}"
    parts = [_ARROW.format(key=up, color=_UP), _ARROW.format(key=down, color=_DOWN)]
    parts += [_label(10, 17, "forward", "start", _UP), _label(10, 205, "backward", "start", _DOWN)]
    for name, y in (("h", 28), ("b", 150)):
        parts += [_box(10, y, 70, 36, _sub(name, "ℓ−1")), _box(330, y, 60, 36, _sub(name, "ℓ"))]
    parts += [_arrow(82, 46, 158, 46, up, _UP), _arrow(252, 46, 328, 46, up, _UP)]
    parts += [_arrow(328, 168, 252, 168, down, _DOWN), _arrow(158, 168, 82, 168, down, _DOWN)]
    parts += [_label(120, 40, "φ"), _label(430, 51, "→ f"), _label(434, 173, "← loss")]
    if kind == "reused":
        text = "<text x=205 y={} text-anchor=middle font-size=15 fill=currentColor>{}</text>"
        parts += [_box(160, 28, 90, 158, ""), text.format(52, _sub("W", "ℓ"))]
        parts += [text.format(173, f"{_sub('W', 'ℓ')} ᵀ"), _arrow(174, 150, 174, 68, down, _DOWN)]
        parts += [_arrow(236, 68, 236, 150, up, _UP), _label(205, 106, "one"), _label(205, 121, "matrix")]
    else:
        parts += [_box(160, 28, 90, 36, _sub("W", "ℓ")), _box(160, 150, 90, 36, _sub("W̃", "ℓ") + " ᵀ")]
        parts += [_label(205, 104, "two matrices,"), _label(205, 120, "independent")]
    words = {
        "reused": (
            "Forward and backward pass through one layer share the matrix W; each pass leaves a trace in "
            "the other's answers."
        ),
        "independent": "The backward pass runs on an independent copy of W; no trace passes between them.",
    }[kind]
    return f"<svg viewBox='0 0 470 214' role=img aria-label=\"{escape(words)}\">{''.join(parts)}</svg>"


TEXT = {
    "reused": (
        "Reused backward weights: a real network",
        "What the backward pass asked of W shapes what W answers on the next forward pass, and the other "
        "way round: the coupling. As "
        "n, L → ∞ layers become increments of Brownian motions w, w̃ that know of each other: the reused "
        "limit.",
    ),
    "independent": (
        "Independent backward weights: NFD",
        "The backward pass runs on a copy drawn on its own; both get the same updates. As n, L → ∞, w and "
        "w̃ are independent: Neural "
        "Feature Dynamics, dh = drift dt + √T dw, db = φ′(h)(drift dτ + √T dw̃).",
    ),
}


def diagram() -> str:
    """Both, side by side where there is room."""
    halves = [
        f"<div class=drawing><h3>{escape(title)}</h3>{layer(kind)}<p class=small>{escape(words)}</p></div>"
        for kind, (title, words) in TEXT.items()
    ]
    return f"<div class=pair>{''.join(halves)}</div>\n"
