"""What was run, when and on what: from the store's attributes, its config and the log beside it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import xarray as xr

from nfd_jax.names import DIVERGED
from nfd_jax.report import _html as html
from nfd_jax.report._numbers import count, listed
from nfd_jax.report._words import PAPER_CITATION
from nfd_jax.verdicts import View, array, counts, section


def as_list(values: object) -> list:
    """A list of what may be one value."""
    return list(values) if isinstance(values, list | tuple) else [values]


def what(view: View) -> str:
    """The sweep in a few words."""
    problem = section(view.config, "problem")
    words = f"{problem.get('activation', '')} networks on {problem.get('dataset', 'data')}".strip()
    own = problem.get("parametrization", "depth_mup")
    return words if own == "depth_mup" else f"{words}, {own}"


def facts(view: View) -> str:
    """What was run, on what, and how far it got."""
    problem, finite, limit = (section(view.config, name) for name in ("problem", "finite", "limit"))
    data = f"{problem.get('dataset')}, batches of {problem.get('batch_size')} ({problem.get('batches')})"
    classes = problem.get("classes")
    if problem.get("dataset") != "gaussian":
        data += ", all classes" if classes is None else f", classes {listed(as_list(classes))}"
    anew = problem.get("data_seed") == "per_seed"
    data += (
        ", drawn anew for each seed"
        if anew
        else ", the same for all seeds: intervals cover initialization only"
    )
    training = (
        f"{count(problem.get('steps', 0), 'step')}, {problem.get('loss')} loss, "
        f"η = {listed(as_list(problem.get('learning_rate', '')))}, trained: {problem.get('train')}"
        f"{_optimizer(problem)}"
    )
    network = f"{problem.get('activation')}, {problem.get('parametrization')}, T = {problem.get('horizon')}"
    gamma = problem.get("richness", 1.0)
    grid = f"widths {listed(finite.get('widths', ()))}; depths {listed(finite.get('depths', ()))}"
    solved = f"{limit.get('particles')} particles, {count(limit.get('depth_steps') or 0, 'depth step')}"
    if limit.get("tolerance") is not None:
        solved = f"outputs estimated to a tolerance of {limit['tolerance']:g}"
    return html.facts({
        "Cells": state(view),
        "Data": data,
        "Network": network if gamma == 1.0 else f"{network}, richness γ = {gamma:g}",
        "Training": training,
        "Finite networks": grid if finite else "none",
        "Limit": solved if limit else "none",
        "Seeds, precision": f"{view.config.get('seeds')}, {view.config.get('precision')}",
        "Rounding": rounding(view),
        "Verified": str(verified(view).get("text", "not asked for")).splitlines()[0],
    })  # fmt: skip


def _optimizer(problem: dict) -> str:
    found = problem.get("optimizer") or {}
    name, schedule = found.get("name", "sgd"), section(problem, "schedule").get("name", "constant")
    rest = ", ".join(
        f"{key} {value:g}" for key, value in found.items() if isinstance(value, int | float) and value
    )
    text = "" if name == "sgd" and not rest else f", {name}{f' ({rest})' if rest else ''}"
    return text if schedule == "constant" else f"{text}, {schedule} schedule"


def state(view: View) -> str:
    """How many cells are done."""
    cells = array(view.tree, "status/cell")
    if cells is None:
        return "not stored"
    number = counts(cells)
    others = [f"{number[word]} {word}" for word in ("diverged", "failed", "pending") if number[word]]
    return ", ".join([f"{number['done']} of {cells.size} done", *others])


def rounding(view: View) -> str:
    """The spot check of float32 against float64 that a run in float32 ends with."""
    if view.config.get("precision") == "float64":
        return "float64 throughout"
    rates = view.tree.children.get("rates")
    check = dict((rates.attrs.get("float32_check") if rates is not None else None) or {})
    if "cell" not in check:
        return f"not checked{': ' + check['error'] if 'error' in check else ''}"
    where = check.pop("cell")
    off = ", ".join(
        f"{name} {'not finite' if value is None else f'{value:.1g}'}" for name, value in check.items()
    )
    return f"float32 against float64 on one draw ({where}), relative root mean square: {off}".replace(
        "e-", "e−"
    )


def verified(view: View) -> dict:
    """What computing stored cells again showed, with keys text and same; empty where it was not done."""
    rates = view.tree.children.get("rates")
    return dict((rates.attrs.get("verified") if rates is not None else None) or {})


def remarks(view: View, failed: Sequence[str], lost: Mapping[str, str]) -> str:
    """What is not there or cannot be believed, said once."""
    cells = array(view.tree, "status/cell")
    parts = []
    if (again := verified(view)) and not again.get("same"):
        words = "stored cells were computed again, and came out otherwise; nothing here should be believed."
        parts.append(html.note("Verification failed:", words))
        parts.append(html.folded("What differs", html.code(str(again.get("text")))))
    if lost:
        parts.append(html.note("Not drawn:", f"{count(len(lost), 'figure')}."))
        parts.append(html.folded("Why", html.items(f"{name}: {why}" for name, why in lost.items())))
    if cells is None:
        return "".join(parts)
    depths = section(view.config, "finite").get("depths", ())
    if depths and view.reference and view.reference <= max(depths) and "tolerance" not in _given(view):
        words = (
            f"the limit's M = {view.reference} Euler steps are no more than the deepest network's L = "
            f"{max(depths)} layers. Euler with M steps is a network of M layers: what separates it from the "
            "limit at L = ∞ is not seen here. Set limit.depth_steps to several times the largest depth."
        )
        parts.append(html.note("A coarse limit:", words))
    number = counts(cells)
    said = {name: count(many, "cell") for name, many in number.items()}
    if number["pending"]:
        rest = f"{said['pending']} of {cells.size} pending; everything here rests on those that are done."
        parts.append(html.note("Unfinished:", rest))
    if number["failed"]:
        parts.append(html.note("Failed:", f"{said['failed']}, left out; nfd run tries again."))
        parts.append(html.folded("What failed", html.items(failed)))
    if number["diverged"]:
        words = f"{said['diverged']} with numbers that are not finite, left out of every number here."
        parts.append(html.note("Diverged:", words) + html.folded("Where", _diverged(cells)))
    return "".join(parts)


def _given(view: View) -> dict:
    """The keys of the limit's section that have a value."""
    return {key: value for key, value in section(view.config, "limit").items() if value is not None}


def _diverged(cells: xr.DataArray) -> str:
    """Diverged cells by learning rate and backward weights."""
    over = [dim for dim in cells.dims if dim not in ("learning_rate", "backward_weights")]
    bad, every = (cells == DIVERGED).sum(over), int(cells.isel(learning_rate=0, backward_weights=0).size)
    bad = bad.transpose("learning_rate", "backward_weights")
    lines = [
        [f"{rate:g}", *(f"{number} of {every}" for number in row)]
        for rate, row in zip(bad["learning_rate"].values, bad.values, strict=True)
        if row.any()
    ]
    flags = map(str, bad["backward_weights"].values)
    return html.table(["learning rate", *flags], lines, caption="Diverged cells")


def when(folder: Path | None) -> tuple[str, str]:
    """(date of the start, time spent running) from log.jsonl; "not logged" where there is none."""
    spans: list[list[float]] = []
    try:
        log = folder / "log.jsonl" if folder else None
        lines = log.read_text(errors="replace").splitlines() if log and log.is_file() else []
    except OSError:
        lines = []
    for line in lines:
        try:
            event = json.loads(line)
            moment, name = float(event["time"]), event["event"]
        except (ValueError, KeyError, TypeError):
            continue
        if name == "started" or not spans:
            spans.append([moment, moment])
        spans[-1][1] = moment
    if not spans:
        return "not logged", "not logged"
    spent = sum(last - first for first, last in spans)
    date = datetime.fromtimestamp(spans[0][0], UTC).strftime("%Y-%m-%d %H:%M UTC")
    return date, duration(spent) + (f" in {len(spans)} runs" if len(spans) > 1 else "")


def duration(seconds: float) -> str:
    """A time span in words."""
    if seconds < 120:
        return count(round(seconds), "second")
    if seconds < 7200:
        return count(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"


def reproduce(view: View, folder: Path | None) -> str:
    """Command, date, duration, device, versions, config, citation."""
    attrs = view.tree.attrs
    versions = attrs.get("versions") or {}
    date, spent = when(folder)
    own = versions.get("nfd_jax", "")
    pairs = {
        "Date": date,
        "Time spent": spent,
        "Device": str(attrs.get("device", "not stored")),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or "not stored",
        "Source": str(attrs.get("git", "not stored")),
        "Config digest": str(attrs.get("config_sha256", "not stored")),
    }
    command = (
        "nfd run config.yaml    # the file below; the same file gives the same numbers, on another machine "
        "to rounding"
    )
    cite = html.items(line.format(version=own).replace("nfd_jax :", "nfd_jax:") for line in PAPER_CITATION)
    config = html.folded("config.yaml", html.code(str(attrs.get("config", "not stored"))))
    return html.code(command) + html.facts(pairs) + config + "<h3>To cite</h3>" + cite
