"""The report of several trees: a config's variants, or runs compared on purpose; verdicts and figures side by
side."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import xarray as xr

from nfd_jax.report import _html as html
from nfd_jax.report._claims import Judged, cards, counted, judged
from nfd_jax.report._draw import draw_all
from nfd_jax.report._fig_variants import variant_drawings, varying
from nfd_jax.report._numbers import count, listed
from nfd_jax.report._page import lead, marked
from nfd_jax.report._run import reproduce, state
from nfd_jax.report._words import CLAIM_WORDS, METHOD, attribution
from nfd_jax.verdicts import CLAIMS, View

MOST_ACROSS = 4


def variants_page(
    folder: Path, trees: Mapping[str, xr.DataTree], links: Mapping[str, str], kind: str = "variant"
) -> str:
    """The page; `links` are the trees' own reports, seen from folder. Its figures go to folder/figures."""
    found = {name: judged(tree) for name, tree in trees.items()}
    views = {name: View.of(tree) for name, tree in trees.items()}
    differing = varying(trees)
    saved = draw_all(folder / "figures", variant_drawings(trees))
    title = next((name for view in views.values() if (name := view.config.get("name"))), folder.name)
    title = title if kind == "variant" else f"{count(len(trees), 'run')} compared"
    head = f"{title}: {count(len(trees), kind)}" if kind == "variant" else title
    leads = html.items(f"{name}: {lead(view, whole=True)}" for name, view in views.items())
    start = f"<h1>{html.escape(head)}</h1>\n{leads}{html.paragraph(attribution('in each report'), 'small')}"
    body = f"<header id=front>{start}</header>\n"
    figures = [html.figure(drawn) for drawn in saved.values()]
    body += html.section("figures", "Side by side", *figures) if figures else ""
    if not all(one.unmeasured for one in found.values()):
        body += html.section("verdicts", "Verdicts under mean square", _side_by_side(found, links))
    body += html.section("variants", "What differs", _overview(views, differing, links))
    for name, judgement in found.items():
        body += html.section(f"variant-{_anchor(name)}", name, _one(name, differing[name], judgement, links))
    body += html.section("method", "How verdicts come about", html.items(METHOD))
    first = next(iter(views))
    words = f"Config of {first}; the others differ as said above."
    body += html.section("reproduce", "To run it again", html.paragraph(words), reproduce(views[first], None))
    return html.page(f"{title}: {kind}s", body)


def in_words(value: object) -> str:
    """A value of a config."""
    if isinstance(value, list | tuple):
        return listed(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _anchor(name: str) -> str:
    """Letters an id may have, and the numbers of all others, so that no two names share one."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._") else f"-{ord(c):x}-" for c in name)


def _link(name: str, links: Mapping[str, str]) -> html.Raw:
    return html.Raw(f"<a href='{quote(os.fsencode(links[name]))}'>{html.escape(name)}</a>")


def _overview(views: Mapping[str, View], differing: Mapping[str, dict], links: Mapping[str, str]) -> str:
    keys = list(next(iter(differing.values())))
    lines = [
        [_link(name, links), *(in_words(differing[name][key]) for key in keys), state(view)]
        for name, view in views.items()
    ]
    return html.table(["", *(key.removeprefix("problem.") for key in keys), "cells"], lines)


def _side_by_side(found: Mapping[str, Judged], links: Mapping[str, str]) -> str:
    """Claims down and variants across; the other way round where there are many variants."""
    verdicts = {name: {claim: marked(one.verdict(claim)) for claim in CLAIMS} for name, one in found.items()}
    if len(found) <= MOST_ACROSS:
        lines = [[claim, CLAIM_WORDS[claim], *(one[claim] for one in verdicts.values())] for claim in CLAIMS]
        return html.table(["", "Claim", *found], lines)
    meanings = html.items(f"{claim}: {words}" for claim, words in CLAIM_WORDS.items())
    return meanings + html.table(
        ["", *CLAIMS], [[_link(name, links), *one.values()] for name, one in verdicts.items()]
    )


def _one(name: str, changes: Mapping[str, object], found: Judged, links: Mapping[str, str]) -> str:
    told = ", ".join(f"{key.removeprefix('problem.')} {in_words(value)}" for key, value in changes.items())
    head = f"<p>{html.escape(told)}{'. ' if told else ''}Full report: {_link(name, links).html}.</p>\n"
    if found.unmeasured:
        return head + html.paragraph(counted(found))
    lines = [[card.claim, marked(card.verdict), card.decides, card.next] for card in cards(found)]
    return head + html.table(["", "Verdict", "What decides it", "What would settle it"], lines)
