"""The report of a config with variants: their verdicts side by side, and what only they show together."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import xarray as xr

from nfd_jax.report import _html as html
from nfd_jax.report._figures import draw_all
from nfd_jax.report._figures_variants import variant_drawings, varying
from nfd_jax.report._text import INTRODUCTION, METHOD
from nfd_jax.verdicts._slices import array
from nfd_jax.verdicts._verdict_words import brief, marked
from nfd_jax.verdicts._verdicts import STATEMENTS, Claim, claims, rows
from nfd_jax.verdicts._view import View, counts


def variants_page(folder: Path, trees: Mapping[str, xr.DataTree]) -> str:
    """The page; its figures go to folder/figures."""
    verdicts = {name: claims(rows(tree), tree) for name, tree in trees.items()}
    differing = varying(trees)
    saved = draw_all(folder / "figures", variant_drawings(trees))
    title = next((name for tree in trees.values() if (name := View.of(tree).config.get("name"))), folder.name)
    body = f"<h1>{html.escape(title)}: {len(trees)} variants</h1>\n" + f"<p>{INTRODUCTION}</p>\n"
    body += html.section("variants", "What was run", _overview(trees, differing))
    body += html.section("verdicts", "Verdicts side by side", _side_by_side(verdicts))
    figures = [html.figure(uri, drawing.title, drawing.caption) for drawing, uri in saved.values()]
    if figures:
        body += html.section("figures", "Across variants", *figures)
    for name, found in verdicts.items():
        body += html.section(f"variant-{name}", name, _variant(name, differing[name], found))
    body += html.section("method", "How verdicts come about", html.items(METHOD))
    first, tree = next(iter(trees.items()))
    config = f"<pre>{html.escape(tree.attrs.get('config', 'not stored'))}</pre>\n"
    words = f"Of {first}; the other variants differ as said above."
    body += html.section("config", "Resolved config", html.paragraph(words), config)
    return html.page(f"{title}: variants", body)


def _link(name: str) -> html.Raw:
    return html.Raw(f"<a href='{quote(name)}/report.html'>{html.escape(name)}</a>")


def _overview(trees: Mapping[str, xr.DataTree], differing: Mapping[str, dict]) -> str:
    keys = list(next(iter(differing.values())))
    lines = []
    for name, tree in trees.items():
        cells = array(tree, "status/cell")
        number = counts(cells) if cells is not None else {}
        state = ", ".join(f"{count} {word}" for word, count in number.items() if count)
        lines.append([_link(name), *(str(differing[name][key]) for key in keys), state])
    return html.table(["Variant", *(key.removeprefix("problem.") for key in keys), "cells"], lines)


def _side_by_side(verdicts: Mapping[str, list[Claim]]) -> str:
    """Claims down and variants across; the other way round where there are many variants."""
    by_key = {name: {claim.key: marked(claim.verdict) for claim in found} for name, found in verdicts.items()}
    if len(verdicts) <= 4:
        lines = [[key, words, *(found[key] for found in by_key.values())] for key, words in STATEMENTS.items()]
        return html.table(["", "Claim", *verdicts], lines)
    meanings = html.items(f"{key}: {words}" for key, words in STATEMENTS.items())
    return meanings + html.table(
        ["Variant", *STATEMENTS], [[_link(name), *(found[key] for key in STATEMENTS)] for name, found in by_key.items()]
    )


def _variant(name: str, changes: Mapping[str, object], found: list[Claim]) -> str:
    told = ", ".join(f"{key} = {value}" for key, value in changes.items())
    head = f"<p>{html.escape(told)}{'. ' if told else ''}Full report: {_link(name).html}.</p>\n"
    lines = [[claim.key, marked(claim.verdict), brief(claim)] for claim in found]
    return head + html.table(["", "Verdict", "What decides it"], lines)
