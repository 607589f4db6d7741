"""Small pieces of HTML: everything escaped, nothing fetched from anywhere, readable on screen and on paper."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


class Raw(NamedTuple):
    """HTML that is already escaped."""

    html: str


Cell = str | Raw

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #f3f4f6; --line: #c9ccd1; --dim: #555;
  --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181c; --soft: #23262c; --line: #4a4e57; --dim: #aaa; --link: #8cc2ff; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem;
  margin: 0 auto; padding: 1rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; margin: .6rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { max-width: 52rem; margin: .5rem 0; } a { color: var(--link); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .87rem; }
th, td { text-align: left; vertical-align: top; padding: .28rem .6rem; border-bottom: 1px solid var(--line); }
th { background: var(--soft); } td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
figure { margin: 1rem 0; break-inside: avoid; }
figure img { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
figcaption { font-size: .87rem; color: var(--dim); max-width: 60rem; }
td ul { margin: 0; padding-left: 1.1rem; }
.verdict { font-weight: 700; display: block; min-width: 9rem; }
.holds { border-left: 5px solid #0072B2; padding-left: .5rem; }
.fails { border-left: 5px double #D55E00; padding-left: .5rem; }
.open, .missing { border-left: 5px dotted var(--dim); padding-left: .5rem; }
.note { border: 1px solid var(--line); border-left-width: 6px; background: var(--soft); padding: .5rem .8rem;
  max-width: 52rem; margin: .6rem 0; }
.dim { color: var(--dim); } pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .8rem; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 1.2rem; max-width: 52rem; }
@media print {
  :root { --ink: #000; --paper: #fff; --soft: #f3f3f3; --line: #999; --dim: #333; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  table { font-size: 7.5pt; } h2 { break-after: avoid; } tr { break-inside: avoid; }
  .wide { overflow: visible; } pre { white-space: pre-wrap; }
}
"""


def render(cell: Cell) -> str:
    """HTML of a cell."""
    return cell.html if isinstance(cell, Raw) else escape(cell)


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, caption: str = "", numeric: Iterable[int] = ()) -> str:
    """A table; columns in `numeric` do not break lines."""
    numbers = set(numeric)
    heading = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if i in numbers else ''}>{render(cell)}</td>" for i, cell in enumerate(row)) + "</tr>\n"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<div class=wide><table>{title}<thead><tr>{heading}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"


def facts(rows: Iterable[tuple[str, Cell]]) -> str:
    """A table of names and what they are."""
    body = "".join(f"<tr><th scope='row'>{escape(name)}</th><td>{render(cell)}</td></tr>\n" for name, cell in rows)
    return f"<div class=wide><table><tbody>{body}</tbody></table></div>\n"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph."""
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>\n"


def note(lead: str, text: str) -> str:
    """A boxed remark."""
    return f"<div class=note role=note><strong>{escape(lead)}</strong> {escape(text)}</div>\n"


def items(texts: Iterable[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>\n"


def figure(uri: str, title: str, caption: str) -> str:
    """An embedded figure with its caption."""
    return (
        f'<figure><img alt="{escape(title)}. {escape(caption)}" src="{uri}">'
        f"<figcaption><strong>{escape(title)}.</strong> {escape(caption)}</figcaption></figure>\n"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """A section with a heading."""
    return f"<section id={anchor}>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def page(title: str, body: str) -> str:
    """A whole page."""
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
