"""The report of one sweep: a page that needs nothing but itself. Its first screen holds the answer."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import xarray as xr

from nfd_jax.report import _html as html
from nfd_jax.report import _words as texts
from nfd_jax.report._budget import budget
from nfd_jax.report._claims import Card, Judged, cards, counted, decides, judged, mark, tidy
from nfd_jax.report._diagram import diagram
from nfd_jax.report._distances import Distance, distance, summary_of
from nfd_jax.report._draw import Drawn
from nfd_jax.report._numbers import count, number, percent
from nfd_jax.report._rates_table import by_learning_rate
from nfd_jax.report._run import facts, remarks, reproduce, what
from nfd_jax.verdicts import ARGUMENTS, CLAIMS, READINGS, STATEMENTS, View

Saved = Mapping[str, Drawn]
FRONT = ("front_loss", "front_error", "transfer", "gap")
"""Figures of the first screen: the first two that there are."""
SECTIONS = {
    "transfer": ("Transfer of learning rates", ("transfer",)),
    "gap": ("Do the losses become the same?", ("gap",)),
    "sizes": ("Do updates keep their size?", ("coordinate_check",)),
    "training": ("Along training", ()),
}
"""Title and figures of what follows the claims; whatever is left stands in the last."""


def sweep_page(
    tree: xr.DataTree,
    saved: Saved,
    failed: Sequence[str] = (),
    folder: Path | None = None,
    lost: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The page; `saved` are the figures as `draw_all` returns them, `failed` a line for each failed batch,
    `lost` why a figure could not be drawn."""
    view, found, shown = View.of(tree), judged(tree), set()
    rates = by_learning_rate(tree)
    terms = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{html.escape(words)}</dd>" for term, words in texts.GLOSSARY.items()
    )
    parts = [
        _first_screen(view, found, saved, remarks(view, failed, lost), shown),
        html.section("compared", "What is compared", diagram()),
    ]
    claims = [
        html.section("readings", "Verdicts under three readings", readings_table(found), _arguments()),
        *(_claim_section(found, claim, saved, shown) for claim in CLAIMS),
    ]
    if not found.unmeasured:
        parts += claims
    if rates:
        figures = _figures(saved, ("learning_rates",), shown)
        parts.append(html.section("rates", "Learning rates side by side", rates, *figures))
    for anchor, (title, names) in SECTIONS.items():
        if figures := _figures(saved, names or tuple(saved), shown):
            parts.append(html.section(anchor, title, *figures))
    if found.unmeasured:
        parts.append(html.section("claims", "The paper's claims", html.folded(counted(found), *claims)))
    budgeted = html.folded("How much each approximation still changes", *_budget_parts(view))
    parts += [
        html.section("run", "What was run", facts(view)),
        html.section("budget", "Error budget", budgeted),
        html.section("method", "How verdicts come about", html.folded("Rules", html.items(texts.METHOD))),
        html.section("glossary", "Glossary", f"<dl>{terms}</dl>\n"),
        html.section("reproduce", "To run it again", reproduce(view, folder)),
    ]
    return html.page(f"{view.config.get('name', 'results')}: report", "".join(parts))


def lead(view: View, *, whole: bool = False) -> str:
    """The one sentence; with `whole` what training curves say beside it, where no limit was compared with."""
    both = {
        limit: item for limit in texts.LIMIT_NAMES if (item := distance(view, "reused", limit)) is not None
    }
    if len(both) < 2:
        lines = summary_of(view)
        return " ".join(lines if whole or both else lines[:1])
    reused, independent = both["reused"], both["independent"]
    where = f"{reused.width} wide, {reused.depth} deep, {count(reused.step, 'update')}"
    text = (
        f"Features of {what(view)} ({where}) miss the reused limit by {_off(reused)}, and NFD, the limit "
        f"with independent backward weights, by {_off(independent)}."
    )
    words = [item.trend(slope=False).removesuffix(" with L") for item in (reused, independent)]
    return f"{text} With depth the first {words[0]}, the second {words[1]}." if all(words) else text


def _off(item: Distance) -> str:
    if math.isfinite(item.share):
        return f"{percent(item.share)} of what learning moves (rms)"
    return f"{number(item.size.value)} (mean square)"


def _first_screen(view: View, found: Judged, saved: Saved, remarked: str, shown: set[str]) -> str:
    title = html.escape(view.config.get("name", "results"))
    figures = _figures(saved, [name for name in FRONT if name in saved][:2], shown, columns=2)
    pair = f"<div class='pair front'>{''.join(figures)}</div>\n" if figures else ""
    end = html.paragraph(texts.attribution(), "small") + remarked
    claims = claim_cards(cards(found))
    if found.unmeasured:  # a run about something else
        claims = html.folded(counted(found), claims)
    body = f"{html.paragraph(lead(view), 'lead')}{pair}{claims}{end}"
    return f"<header id=front><h1>{title}</h1>\n{body}</header>\n"


def claim_cards(found: Sequence[Card]) -> str:
    """A line for each claim."""
    shorter = {"not detectable": "not seen", "hypothesis not met": "no hypothesis"}
    lines = "".join(
        f"<li class=card><span class='mark {card.kind}'><b>{card.symbol}</b> "
        f"<a href='#{card.claim}'>{card.claim}</a> {html.escape(shorter.get(card.verdict, card.verdict))}"
        f"</span><span>{html.escape(card.words)}</span><span>{html.escape(card.decides)}</span>"
        f"<span class=then>{html.escape(card.next)}</span></li>\n"
        for card in found
    )
    return f"<ol class=cards>{lines}</ol>\n"


def marked(verdict: str) -> html.Raw:
    """A verdict with its symbol."""
    symbol, kind = mark(verdict)
    return html.Raw(f"<span class='mark {kind}'><b>{symbol}</b> {html.escape(verdict)}</span>")


def readings_table(found: Judged) -> str:
    """Claims down, readings across."""
    lines = [
        [
            html.Raw(f"<a href='#{claim}'>{claim}</a>"),
            texts.CLAIM_WORDS[claim],
            texts.SOURCE_WORDS[STATEMENTS[claim].source],
            *(marked(found.verdict(claim, reading)) for reading in READINGS),
        ]
        for claim in CLAIMS
    ]
    return html.table(["", "Claim", "stands in", *(ARGUMENTS[reading][0] for reading in READINGS)], lines)


def _arguments() -> str:
    columns = "".join(
        f"<div><h3>{html.escape(name.capitalize())}</h3>"
        f"{html.paragraph(pro, 'small')}{html.paragraph(con, 'small')}</div>"
        for name, pro, con in (
            [text.replace("n^{-1/2}", "1/√n") for text in ARGUMENTS[reading]] for reading in READINGS
        )
    )
    return f"<div class=columns>{columns}</div>\n{html.paragraph(texts.ATTRIBUTION_MORE, 'small')}"


def _claim_section(found: Judged, claim: str, saved: Saved, shown: set[str]) -> str:
    statement, rows, reason = STATEMENTS[claim], found.rows(claim), tidy(found.reason(claim))
    verdicts = [f"{ARGUMENTS[name][0]}: {marked(found.verdict(claim, name)).html}" for name in READINGS]
    source = f"Source: {texts.SOURCE_WORDS[statement.source]}. Our definition: {statement.ours}. "
    source += texts.MEASURED[claim]
    parts = [html.paragraph(statement.text), f"<p>{' &nbsp; '.join(verdicts)}</p>\n"]
    parts += [html.paragraph(source, "small")]
    parts += [html.paragraph(f"Under mean square: {reason}")] if reason else []
    parts += _figures(saved, texts.FIGURES_OF[claim], shown)
    if rows:
        parts.append(html.folded(f"{count(len(rows), 'row')} behind these verdicts", rows_table(rows)))
    return html.section(claim, f"{claim}: {texts.CLAIM_WORDS[claim]}", *parts)


ROWS = {
    "reading": lambda row: ARGUMENTS[row["reading"]][0],
    "quantity": lambda row: texts.plain(row["quantity"]),
    "number [95 %]": decides,
    "says": lambda row: tidy(row["verdict"]),
    "where": lambda row: _where(row),
    "seeds": lambda row: f"{row['seeds']:.0f}",
    "smallest effect this run sees": lambda row: percent(row["smallest_effect_seen"]),
    "decides": lambda row: "yes" if row["decides"] else "for comparison",
    "why": lambda row: tidy(row["reason"]),
}
"""Columns of the table of rows."""


def rows_table(rows: Sequence[dict]) -> str:
    """A line for each row of /rates."""
    return html.table(list(ROWS), [[say(row) for say in ROWS.values()] for row in rows], numeric=(5, 6))


def _where(row: dict) -> str:
    parts = [f"n = {row['width']}"] if row["width"] > 0 else []
    parts += [f"L = {row['depth']}"] if row["depth"] > 0 else []
    parts += [f"step {row['step']}"] if row["step"] >= 0 else []
    parts += [f"η = {row['learning_rate']:g}"] if math.isfinite(row["learning_rate"]) else []
    return ", ".join(parts)


def _figures(saved: Saved, names: Sequence[str], shown: set[str], columns: int = 3) -> list[str]:
    """The figures of these names that there are, each once."""
    made = []
    for name in names:
        if name in saved and name not in shown:
            made.append(html.figure(saved[name], columns))
            shown.add(name)
    return made


def _budget_parts(view: View) -> list[str]:
    words = (
        "Mean squares per coordinate after the last update: what is still left of each approximation, "
        "found by refining it. A part whose refinement is not in the sweep is not measured."
    )
    lines = [[part.name, part.system, *part.sizes.values(), part.how] for part in budget(view)]
    return [html.paragraph(words), html.table(["Part", "of", "h", "b", "f", "how"], lines)]
