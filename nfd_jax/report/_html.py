"""Small pieces of HTML: everything escaped, nothing fetched from anywhere, readable on a phone, a screen and
paper."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from matplotlib.colors import to_hex

from nfd_jax.report._draw import Drawn
from nfd_jax.report._plot import Line
from nfd_jax.report._style import STYLE


class Raw(NamedTuple):
    """HTML that is already escaped."""

    html: str


Cell = str | Raw


def render(cell: Cell) -> str:
    """HTML of a cell."""
    return cell.html if isinstance(cell, Raw) else escape(cell)


def table(
    head: Sequence[str], rows: Iterable[Sequence[Cell]], *, caption: str = "", numeric: Iterable[int] = ()
) -> str:
    """A table; columns in `numeric` do not break lines."""
    numbers = set(numeric)
    heading = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    kinds = [" class=n" if i in numbers else "" for i in range(len(head))]
    lines = (
        "".join(f"<td{kind}>{render(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        "<div class=wide "
        f"tabindex=0><table>{title}<thead><tr>{heading}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def facts(rows: Mapping[str, Cell]) -> str:
    """A table of names and what they are."""
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{render(cell)}</td></tr>\n"
        for name, cell in rows.items()
    )
    return f"<div class=wide tabindex=0><table><tbody>{body}</tbody></table></div>\n"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph."""
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>\n"


def note(lead: str, text: str) -> str:
    """A boxed remark."""
    return f"<div class=note role=note><strong>{escape(lead)}</strong> {escape(text)}</div>\n"


def items(texts: Iterable[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>\n"


def folded(summary: str, *parts: str) -> str:
    """What opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>\n{''.join(parts)}</details>\n"


def code(text: str) -> str:
    """Lines to copy."""
    return f"<pre tabindex=0>{escape(text)}</pre>\n"


def figure(drawn: Drawn, columns: int = 3, level: int = 3) -> str:
    """A figure: its message, its panels, one legend, its caption."""
    drawing = drawn.drawing
    images = "".join(
        f'<img alt="{escape(_alternative(drawn, i))}" src="{uri}" width={width} height={height}>'
        for i, (uri, width, height) in enumerate(drawn.panels)
    )
    legend = "".join(f"<li>{swatch(line)}{escape(label)}</li>" for label, line in drawing.legend.items())
    legend = f"<ul class=legend>{legend}</ul>" if legend else ""
    columns = 2 if len(drawn.panels) == 4 else min(columns, len(drawn.panels))
    shape = f"style='--columns:{columns}'"
    return (
        f"<figure id=figure-{drawing.name}><h{level} class=message>{escape(drawing.title)}</h{level}>"
        f"<div class=sheet><div class=panels {shape}>{images}</div>{legend}</div>"
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>\n"
    )


def _alternative(drawn: Drawn, i: int) -> str:
    drawing = drawn.drawing
    words = drawing.panels[i] or "figure"
    return f"{drawing.title}. {drawing.caption}" if i == 0 else f"{drawing.title}: {words}"


_SHAPES = {
    "o": "<circle cx=17 cy=6 r=3.6 {}/>",
    "s": "<rect x=13.6 y=2.6 width=6.8 height=6.8 {}/>",
    "^": "<path d='M17 1.8 21 9.4H13z' {}/>",
    "v": "<path d='M17 10.2 13 2.6H21z' {}/>",
    "D": "<path d='M17 1.6 21.4 6 17 10.4 12.6 6z' {}/>",
    "P": "<path d='M15.6 2h2.8v2.6H21v2.8h-2.6V10h-2.8V7.4H13V4.6h2.6z' {}/>",
    "X": (
        "<path d='M14 2.2 17 4.6 20 2.2 21 3.4 18.6 6 21 8.6 20 9.8 17 7.4 14 9.8 13 8.6 15.4 6 13 3.4z' {}/>"
    ),
}
_DASHES = {"-": "", "--": "6 3", ":": "2 2.5", "-.": "6 2 2 2"}


def swatch(line: Line) -> str:
    """A line and its marker as a legend shows them."""
    color = to_hex(line.color)
    dashes = line.dashes
    stroke = (
        _DASHES.get(dashes, "")
        if isinstance(dashes, str)
        else " ".join(f"{1.8 * part:g}" for part in dashes[1])
    )
    drawn = ""
    if dashes != "":
        pattern = f" stroke-dasharray='{stroke}'" if stroke else ""
        drawn = f"<path d='M1 6H33' stroke='{color}' stroke-width=2{pattern} fill=none />"
    face = f"fill='{'#fff' if line.hollow else color}' stroke='{color}' stroke-width=1.4"
    marker = _SHAPES.get(line.marker, "").format(face)
    return f"<svg class=swatch width=34 height=12 viewBox='0 0 34 12' aria-hidden=true>{drawn}{marker}</svg>"


def section(anchor: str, title: str, *parts: str) -> str:
    """A section with a heading."""
    return f"<section id={anchor}>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def page(title: str, body: str) -> str:
    """A whole page; numbers keep their % signs beside them."""
    body = re.sub(r"(?<=\d) %", "&nbsp;%", body)
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
