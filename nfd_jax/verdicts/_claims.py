"""Verdicts on the claims C1 to C6 of arXiv 2512.21075, from data alone.

A claim fails where one row that bears on it fails at its level by Holm's rule over those rows, and holds
where all of them hold. C2 says that something survives, so one row above 0, by Holm's rule, is enough. C5 is
an assumption: where it is violated, C3 and C4 are *hypothesis not met*.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfd_jax.verdicts._assumptions import spectrum_rows
from nfd_jax.verdicts._context import Context
from nfd_jax.verdicts._coupling import coupling_rows
from nfd_jax.verdicts._errors import error_rows
from nfd_jax.verdicts._law_rows import law_rows
from nfd_jax.verdicts._reference import initial_rows, reference_rows
from nfd_jax.verdicts._response import response_rows
from nfd_jax.verdicts._row import to_dataset
from nfd_jax.verdicts._rows import Found
from nfd_jax.verdicts._words import ARGUMENTS, CLAIMS, LOOKS, NOT_KNOWN, READINGS, STATEMENTS

MARGIN = 0.0025


@dataclass(frozen=True)
class Judged:
    """A claim's verdict under one reading, and why."""

    verdict: str
    reason: str


def _found(context: Context, claim: str, reading: str) -> list[Found]:
    """The rows of one claim under one reading."""
    if claim == "C5":
        return list(spectrum_rows(context, reading))
    if reading == "law":
        if claim == "C6":
            return list(initial_rows(context))
        return list(law_rows(context, claim)) + (list(response_rows(context)) if claim == "C4" else [])
    if claim == "C4":
        return list(error_rows(context, reading))
    return list(reference_rows(context, reading) if claim == "C6" else coupling_rows(context, claim, reading))


def _names(found: Sequence[Found]) -> str:
    """The rows that decide, without their claim; the first with its reason."""
    first = found[0].row
    name = first.name.removeprefix(f"{first.claim} {first.reading} ")
    more = f", and {len(found) - 1} more row{'s' * (len(found) > 2)}" if len(found) > 1 else ""
    return f"{name}: {first.reason}{more}"


def _combine(context: Context, claim: str, reading: str, found: Sequence[Found]) -> Judged:
    deciding = [one for one in found if one.row.decides]
    groups = {
        state: [one for one in deciding if one.state == state]
        for state in ("holds", "fails", "undecided", "not detectable", "not measured")
    }
    absent, open_, small = groups["not measured"], groups["undecided"], groups["not detectable"]
    if claim == "C5":
        return _assumption(groups)
    level = context.level / max(len(deciding) - len(absent), 1)
    if len(absent) == len(deciding):
        hints = dict.fromkeys(one.row.reason for one in absent)
        return Judged("not measured", "; ".join(hints) or "add data")
    if claim == "C2":
        sure = [one for one in groups["holds"] if one.holds_at(level)]
        if sure:  # the clearest first, as one is enough
            clear = lambda one: -np.nan_to_num(one.row.effect.low, nan=-np.inf)
            return Judged("holds", _names(sorted(sure, key=clear)))
        if open_ or groups["holds"]:
            return Judged("undecided", _names(open_ or groups["holds"]))
        if absent:
            return Judged("not measured", _names(absent))
        return Judged("not detectable", _names(small))
    failed = [one for one in groups["fails"] if one.fails_at(level)]
    if failed:
        return Judged("fails", _names(failed))
    if absent:
        return Judged("not measured", _names(absent))
    if open_ or groups["fails"]:
        return Judged("undecided", _names(open_ or groups["fails"]))
    if small:
        return Judged("not detectable", _names(small))
    return Judged("holds", f"all {len(deciding)} rows; {_names(groups['holds'])}")


def _assumption(groups: dict[str, list[Found]]) -> Judged:
    """C5: violated where one kind of matrix is singular; what was measured of it decides."""
    note = "an assumption of the paper, not a claim of it; "
    for state in ("fails", "undecided", "holds"):
        if groups[state]:
            return Judged(state, note + _names(groups[state]))
    return Judged("not measured", note + _names(groups["not measured"]))


def _judged(context: Context) -> tuple[list[Found], dict[tuple[str, str], Judged]]:
    """All rows, and the verdict on every claim under every reading."""
    rows = {(claim, reading): _found(context, claim, reading) for claim in CLAIMS for reading in READINGS}
    verdicts = {key: _combine(context, *key, found) for key, found in rows.items()}
    for claim in ("C3", "C4"):
        for reading in READINGS:
            assumed, mine = verdicts["C5", reading], verdicts[claim, reading]
            if assumed.verdict == "fails" and mine.verdict != "not measured":
                reason = (
                    f"C5 is violated ({assumed.reason}); without it the claim says nothing. Otherwise "
                    f"{mine.verdict}: {mine.reason}"
                )
                verdicts[claim, reading] = Judged("hypothesis not met", reason)
            elif assumed.verdict != "holds" and mine.verdict in ("holds", "fails"):
                verdicts[claim, reading] = Judged(
                    mine.verdict, f"{mine.reason}; C5, which it assumes, is {assumed.verdict}"
                )
    return [one for found in rows.values() for one in found], verdicts


def _coverage(context: Context) -> str:
    """What the intervals are about."""
    if not context.config:
        return (
            "Intervals cover initialization; whether they cover the data too is not known: the tree holds "
            "no config."
        )
    if context.per_seed:
        return (
            "Intervals cover initialization and data: each seed draws its own samples (data_seed: per_seed)."
        )
    return "Intervals cover initialization only: all seeds see the same samples (data_seed: fixed)."


def _attributes(context: Context) -> dict:
    texts = {f"reading_{key}": f"{name}. {pro} {con}" for key, (name, pro, con) in ARGUMENTS.items()}
    return {
        "margin": context.margin,
        "coverage": _coverage(context),
        "looks": LOOKS,
        "paper": NOT_KNOWN,
        **texts,
    }


def rates(tree: xr.DataTree, *, margin: float = MARGIN) -> xr.Dataset:
    """The `/rates` group of a results tree: every row that bears on a claim, under every reading.

    Args:
        tree: results in the form that `open_results` gives; groups and variables may be missing.
        margin: effects below this share of what learning moves, in mean square, count as nothing.

    Returns:
        Over `row`, with coordinates claim, reading, quantity, axis, test, width, depth, step, learning_rate
        and decides: slope, constant (mean square) and effect (constant over signal), each with its 95 %
        interval, smallest_effect_seen, seeds_needed, verdict, reason and text.

    Raises:
        ValueError: for a margin outside (0, 1).
    """
    return conclusions(tree, margin=margin)[0]


def conclusions(tree: xr.DataTree, *, margin: float = MARGIN) -> tuple[xr.Dataset, xr.Dataset]:
    """`rates` and `judge` of a tree, from one set of fits. Raises as they do."""
    context = Context.of(tree, margin)
    rows, verdicts = _judged(context)
    found = to_dataset([one.row for one in rows])
    return found.assign_attrs(_attributes(context)), _verdicts(context, verdicts)


def judge(tree: xr.DataTree, *, margin: float = MARGIN) -> xr.Dataset:
    """The `/verdicts` group of a results tree: a pure function of its arrays and of the config in its
    attributes.

    Args:
        tree: results in the form that `open_results` gives; groups and variables may be missing.
        margin: effects below this share of what learning moves, in mean square, count as nothing.

    Returns:
        Over claim (C1 to C6) and reading (ms, rms, law): verdict (holds, fails, undecided, not detectable,
        not measured or hypothesis not met), reason and statement.

    Raises:
        ValueError: for a margin outside (0, 1).

    >>> nfd.verdicts(xarray.DataTree()).verdict.sel(claim="C4", reading="ms").item()
    'not measured'
    """
    return conclusions(tree, margin=margin)[1]


def _verdicts(context: Context, verdicts: dict[tuple[str, str], Judged]) -> xr.Dataset:
    texts = {
        "verdict": ("verdict on the claim", lambda claim, reading: verdicts[claim, reading].verdict),
        "reason": ("what decides it, or what would", lambda claim, reading: verdicts[claim, reading].reason),
        "statement": (
            "the claim in words, and where it comes from",
            lambda claim, _: STATEMENTS[claim].sentence(),
        ),
    }
    data = {
        name: (
            ("claim", "reading"),
            np.array([[of(claim, reading) for reading in READINGS] for claim in CLAIMS], dtype=str),
            {"long_name": meaning, "units": "1"},
        )
        for name, (meaning, of) in texts.items()
    }
    return xr.Dataset(data, {"claim": list(CLAIMS), "reading": list(READINGS)}, _attributes(context))
