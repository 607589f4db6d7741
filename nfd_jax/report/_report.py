"""The report of one sweep: a page that needs nothing but itself, and its figures."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from nfd_jax.report import _html as html
from nfd_jax.report._budget import budget
from nfd_jax.report._figures import draw_all, drawings
from nfd_jax.report._plot import Drawing, signed
from nfd_jax.report._progress import failures, members
from nfd_jax.report._report_variants import variants_page
from nfd_jax.report._text import CLAIMS, GLOSSARY, INTRODUCTION, METHOD, STATES
from nfd_jax.verdicts._fits import Fit
from nfd_jax.verdicts._slices import array
from nfd_jax.verdicts._verdict_words import arrow, brief, marked
from nfd_jax.verdicts._verdicts import Claim, Row, claims, rows
from nfd_jax.verdicts._view import View, counts

Saved = Mapping[str, tuple[Drawing, str]]


def write(folder: Path) -> Path:
    """`report.write_report`."""
    from nfd_jax.store._store import open_results

    found = members(folder)
    if found and "" not in found:
        return write_page(folder, variants_page(folder, {name: open_results(path) for name, path in found.items()}))
    tree = open_results(folder)
    return write_page(folder, sweep_page(tree, draw_all(folder / "figures", drawings(tree)), failures(folder)))


def write_page(folder: Path, text: str) -> Path:
    """folder/report.html, replaced in one go."""
    path, temporary = folder / "report.html", folder / ".report.html.tmp"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path


def sweep_page(tree: xr.DataTree, saved: Saved, failed: Sequence[str]) -> str:
    """The page; `saved` are the figures as `draw_all` returns them, `failed` a line for each failed batch."""
    view, found = View.of(tree), rows(tree)
    verdicts = claims(found, tree)
    name = view.config.get("name", "results")
    body = f"<h1>{html.escape(name)}</h1>\n" + f"<p>{INTRODUCTION}</p>\n"
    body += html.section("sweep", "What was run", _facts(view), *_remarks(view, found, failed))
    body += html.section("verdicts", "Verdicts", _verdict_table(verdicts), _contents())
    shown: set[str] = set()
    for claim in verdicts:
        body += _claim_section(claim, [row for row in found if row.claim == claim.key], saved, shown)
    body += html.section("budget", "Error budget", *_budget_parts(view))
    body += _training_section(saved)
    body += html.section("method", "How verdicts come about", html.items(METHOD))
    body += html.section("config", "Resolved config", f"<pre>{html.escape(tree.attrs.get('config', 'not stored'))}</pre>\n")
    terms = "".join(f"<dt>{html.escape(term)}</dt><dd>{html.escape(words)}</dd>" for term, words in GLOSSARY.items())
    body += html.section("glossary", "Names", f"<dl>{terms}</dl>\n")
    return html.page(f"{name}: report", body)


def _listed(values: Sequence) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, int | float) else str(value) for value in values)


def _facts(view: View) -> str:
    """What was run, on what, and how far it got."""
    tree, problem = view.tree, view.config.get("problem", {})
    finite, limit = view.config.get("finite") or {}, view.config.get("limit") or {}
    rates = problem.get("learning_rate", "")
    versions = tree.attrs.get("versions", {})
    cells = array(tree, "status/cell")
    state = "not stored"
    if cells is not None:
        number = counts(cells)
        state = f"{number['done']} of {cells.size} done"
        state += "".join(f", {number[word]} {word}" for word in ("diverged", "failed", "pending"))
    data = f"{problem.get('dataset')}, batches of {problem.get('batch_size')} ({problem.get('batches')})"
    if problem.get("dataset") != "gaussian":
        classes = problem.get("classes")
        data += ", all classes" if classes is None else f", classes {_listed(classes)}"
    training = f"{problem.get('steps')} SGD steps, {problem.get('loss')} loss, learning rate "
    training += f"{_listed(rates if isinstance(rates, list) else [rates])}, trained: {problem.get('train')}"
    network = f"{problem.get('activation')}, {problem.get('parametrization')}, T = {problem.get('horizon')}"
    grid = f"widths {_listed(finite.get('widths', ()))}; depths {_listed(finite.get('depths', ()))}"
    solved = f"particles {limit.get('particles')}, {limit.get('depth_steps')} depth steps"
    pairs: list[tuple[str, html.Cell]] = [
        ("Cells", state),
        ("Data", data),
        ("Network", network),
        ("Training", training),
        ("Finite networks", grid if finite else "none"),
        ("Limit", solved if limit else "none"),
        ("Seeds, precision", f"{view.config.get('seeds')}, {view.config.get('precision')}"),
        ("Rounding", _rounding(view)),
        ("Config digest", str(tree.attrs.get("config_sha256", "not stored"))),
        ("Device", str(tree.attrs.get("device", "not stored"))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "not stored"),
        ("Source", str(tree.attrs.get("git", "not stored"))),
    ]
    return html.facts(pairs)


def _rounding(view: View) -> str:
    """The spot check of float32 against float64 that a run in float32 ends with."""
    check = dict(view.tree["rates"].attrs.get("float32_check") or {}) if "rates" in view.tree.children else {}
    if "cell" not in check:
        why = f": {check['error']}" if "error" in check else ""
        return "float64 throughout" if view.config.get("precision") == "float64" else f"not checked{why}"
    where = check.pop("cell")
    off = ", ".join(f"{name} {'not finite' if value is None else f'{value:.1g}'}" for name, value in check.items())
    return f"float32 against float64 on one draw ({where}), relative root mean square: {off}"


def _remarks(view: View, found: Sequence[Row], failed: Sequence[str]) -> list[str]:
    """What a reader must know before the verdicts: alarms, and cells that are not there."""
    parts, cells = [], array(view.tree, "status/cell")
    alarms = [row for row in found if row.verdict.startswith("ALARM")]
    if alarms:
        asked = sum(row.claim == alarms[0].claim for row in found)
        text = f"Gram matrices come close to singular: {len(alarms)} of the {asked} rows of C5 fall below its threshold."
        if all(row.state == "reported" for row in alarms):
            text += " They are of all steps jointly, on a batch that repeats, so that samples are not distinct; the others decide."
        parts.append(html.note("Alarm:", text))
    if cells is None:
        return parts
    number = counts(cells)
    if number["pending"]:
        parts.append(html.note("Unfinished:", f"{number['pending']} cells are pending; verdicts rest on those that are done."))
    if number["failed"]:
        parts.append(html.note("Failed:", f"{number['failed']} cells failed and are left out; nfd run tries them again."))
        parts.append(html.items(failed))
    if number["diverged"]:
        parts.append(html.note("Diverged:", f"{number['diverged']} cells had a loss that is not finite; they are left out."))
        parts.append(_diverged(cells))
    return parts


def _diverged(cells: xr.DataArray) -> str:
    """Diverged cells by learning rate and backward weights."""
    over = [dim for dim in cells.dims if dim not in ("learning_rate", "backward_weights")]
    bad, every = (cells == 2).sum(over), int(cells.isel(learning_rate=0, backward_weights=0).size)
    flags = [str(flag) for flag in cells["backward_weights"].values]
    lines = [
        [f"{rate:g}", *(f"{int(bad.sel(learning_rate=rate, backward_weights=flag))} of {every}" for flag in flags)]
        for rate in cells["learning_rate"].values
        if bad.sel(learning_rate=rate).any()
    ]
    return html.table(["learning rate", *flags], lines, caption="Diverged cells")


def _verdict_table(verdicts: Sequence[Claim]) -> str:
    lines = [
        [html.Raw(f"<a href='#{claim.key}'>{claim.key}</a>"), claim.statement, marked(claim.verdict), brief(claim)] for claim in verdicts
    ]
    return html.table(["", "Claim", "Verdict", "What decides it"], lines)


def _contents() -> str:
    places = {
        "budget": "error budget",
        "training": "losses and kernels",
        "method": "how verdicts come about",
        "config": "config",
    }
    links = ", ".join(f"<a href='#{anchor}'>{words}</a>" for anchor, words in (places | {"glossary": "names"}).items())
    return f"<p class=dim>Below: each claim in turn, then {links}.</p>\n"


def _claim_section(claim: Claim, mine: Sequence[Row], saved: Saved, shown: set[str]) -> str:
    text = CLAIMS[claim.key]
    parts = [
        html.paragraph(text.statement),
        f"<h3>Verdict</h3><p>{marked(claim.verdict).html}</p>\n",
        "<h3>What was measured</h3>",
        html.paragraph(text.measured),
    ]
    for name in text.figures:
        if name in saved and name not in shown:
            parts.append(f"<div id=figure-{name}>{_figure(saved, name)}</div>")
            shown.add(name)
        elif name in saved:
            parts.append(f"<p>Figure: <a href='#figure-{name}'>{html.escape(saved[name][0].title)}</a>, above.</p>\n")
    if mine:
        parts += ["<h3>Rates</h3>", rate_table(mine)]
    else:
        parts.append(html.paragraph("Nothing in this sweep bears on it.", "dim"))
    left_out = [reason for reason in claim.reasons if reason.startswith("diverged")]
    parts += [html.paragraph(f"{reason[:1].upper()}{reason[1:]}.") for reason in left_out]
    return html.section(claim.key, f"{claim.key}: {text.title}", *parts)


def rate_table(found: Sequence[Row]) -> str:
    """A line for each row: what, where, the fit with its interval, what the claim asks and whether it is met."""
    lines = [
        [
            arrow(row.quantity),
            "both" if row.axis == "joint" else row.axis,
            row.name[row.name.rindex("(") + 1 : -1],
            _interval(row.slope),
            row.verdict,
            f"{row.rate.used} of {row.rate.used + row.rate.dropped}",
            row.demand,
            _state(row),
        ]
        for row in sorted(found, key=lambda row: row.state == "reported")
    ]
    head = ["Quantity", "against", "where", "slope [95 %]", "what it does", "points", "claim asks", "outcome"]
    return html.table(head, lines, numeric=(3, 5, 7))


def _interval(fit: Fit) -> str:
    if fit.estimate != fit.estimate:
        return "–"
    return f"{signed(fit.estimate)} [{signed(fit.low)}, {signed(fit.high)}]"


def _state(row: Row) -> html.Raw:
    symbol, words = STATES[row.state]
    return html.Raw(f"<span class={row.state}>{symbol} {html.escape(words)}</span>")


def _figure(saved: Saved, name: str) -> str:
    drawing, uri = saved[name]
    return html.figure(uri, drawing.title, drawing.caption)


def _budget_parts(view: View) -> list[str]:
    words = (
        "Mean squares per coordinate at the last step: what is still left of each approximation, found by refining "
        "it. A part whose refinement is not in the sweep is not measured."
    )
    lines = [[part.name, part.system, *part.sizes.values(), part.how] for part in budget(view)]
    return [html.paragraph(words), html.table(["Part", "of", "h", "b", "f", "how"], lines)]


def _training_section(saved: Saved) -> str:
    names = [name for name in ("loss", "heldout_loss", "kernels") if name in saved]
    parts = [_figure(saved, name) for name in names] or [html.paragraph("Not measured in this sweep.", "dim")]
    return html.section("training", "Losses and kernels: finite networks against limits", *parts)
