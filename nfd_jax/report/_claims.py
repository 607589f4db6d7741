"""The claims as a reader meets them: in plain words, with a mark, the number that decides and what would settle it.

Verdicts are those that the run stored; of a store that has none yet they are worked out from its arrays.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from nfd_jax import verdicts as _verdicts
from nfd_jax.report._numbers import Estimate, joined, percents, slope
from nfd_jax.report._words import CLAIM_WORDS, plain
from nfd_jax.verdicts import ARGUMENTS, CLAIMS, READINGS, STATEMENTS

MARKS = {
    "holds": ("✓", "holds"),
    "fails": ("✗", "fails"),
    "undecided": ("?", "open"),
    "not detectable": ("?", "open"),
    "hypothesis not met": ("?", "open"),
    "not measured": ("–", "open"),
}
"""Verdict → (symbol, kind). The words say it all, the symbol helps the eye."""
SUPPORTS = {"holds": ("vanishes", "attained", "above"), "fails": ("remains", "not attained", "below")}
"""Which rows can carry a verdict; the other way round for C2, which says that something survives."""
OPEN = ("undecided", "not detectable", "not measured")


@dataclass(frozen=True)
class Judged:
    """/rates and /verdicts."""

    rates: xr.Dataset
    verdicts: xr.Dataset

    def verdict(self, claim: str, reading: str = "ms") -> str:
        return self._at("verdict", claim, reading)

    def reason(self, claim: str, reading: str = "ms") -> str:
        return self._at("reason", claim, reading)

    def _at(self, name: str, claim: str, reading: str) -> str:
        return str(self.verdicts[name].sel(claim=claim, reading=reading).values)

    def rows(self, claim: str, reading: str | None = None) -> list[dict[str, Any]]:
        """Rows of /rates as plain values, those that decide first."""
        keep = self.rates["claim"].values == claim
        if reading is not None:
            keep &= self.rates["reading"].values == reading
        found = [_row(self.rates, i) for i in np.flatnonzero(keep)]
        return sorted(found, key=lambda row: not row["decides"])


def judged(tree: xr.DataTree) -> Judged:
    """The stored groups; worked out where they are missing or some cells are still to come."""
    stored = [
        tree.children[name].to_dataset(inherit=False)
        for name in ("rates", "verdicts")
        if name in tree.children
    ]
    if len(stored) == 2 and {"claim", "reading", "effect", "decides"} <= set(stored[0].variables):
        return Judged(*stored)
    return Judged(_verdicts.rates(tree), _verdicts.verdicts(tree))


def _row(rates: xr.Dataset, i: int) -> dict[str, Any]:
    row = {str(name): value.values[i] for name, value in rates.variables.items() if value.dims == ("row",)}
    for name in ("slope", "constant", "effect"):
        row[name] = Estimate(*(float(row.pop(name + end)) for end in ("", "_low", "_high")))
    return row


@dataclass(frozen=True)
class Card:
    """One claim on one line; `decides` is the deciding number, `next` what would settle it."""

    claim: str
    words: str
    source: str
    verdict: str
    symbol: str
    kind: str
    readings: dict[str, str]
    decides: str
    next: str


def cards(found: Judged, reading: str = "ms") -> list[Card]:
    """The six, under one reading, with the others beside it."""
    return [_card(found, claim, reading) for claim in CLAIMS]


def _card(found: Judged, claim: str, reading: str) -> Card:
    verdict = found.verdict(claim, reading)
    symbol, kind = MARKS.get(verdict, ("?", "open"))
    row = deciding(found, claim, reading)
    said = decides(row) if row is not None else ""
    reason = tidy(found.reason(claim, reading))
    then = reason if kind == "open" else "Settled for this grid; other data, φ or η may differ"
    readings = {name: found.verdict(claim, name) for name in READINGS}
    return Card(
        claim, CLAIM_WORDS[claim], STATEMENTS[claim].source, verdict, symbol, kind, readings, said, then
    )


def deciding(found: Judged, claim: str, reading: str) -> dict[str, Any] | None:
    """The row that carries the verdict: of those that support it the one with the largest effect, else what blocks it."""
    rows = [row for row in found.rows(claim, reading) if row["decides"]]
    verdict = found.verdict(claim, reading)
    wanted: tuple[str, ...] = OPEN
    if verdict in SUPPORTS:
        other = {"holds": "fails", "fails": "holds"}[verdict]
        wanted = SUPPORTS[other if claim == "C2" else verdict]
        wanted = wanted if claim != "C2" or verdict == "fails" else ("remains",)
    named = [row for row in rows if row["row"] in found.reason(claim, reading)]
    chosen = [row for row in named or rows if row["verdict"] in wanted] or named
    return max(chosen, key=lambda row: np.nan_to_num(row["effect"].value), default=None)


def decides(row: dict[str, Any]) -> str:
    """The number a row rests on, with its interval."""
    what = plain(row["quantity"])
    if row["test"] == "constant" and np.isfinite(row["effect"].value):
        return f"{what}: {percents(row['effect'])} of what learning moves is left"
    if row["test"] == "slope" and np.isfinite(row["slope"].value):
        along = {"depth": " in L", "width": " in n"}.get(row["axis"], "")
        return f"{what}: slope {slope(row['slope'])}{along}"
    return tidy(row["text"] or row["verdict"])


def tidy(text: str) -> str:
    """Minus signs for hyphens before digits."""
    return re.sub(r"(?<![\w\d])-(?=\d|\.\d)", "−", str(text))


def counted(found: Judged, reading: str = "ms") -> str:
    """How many claims hold, fail and are open."""
    verdicts = [found.verdict(claim, reading) for claim in CLAIMS]
    held = [claim for claim, verdict in zip(CLAIMS, verdicts, strict=True) if verdict == "holds"]
    failed = [claim for claim, verdict in zip(CLAIMS, verdicts, strict=True) if verdict == "fails"]
    rest = [claim for claim in CLAIMS if claim not in held and claim not in failed]

    def part(claims: list[str], one: str, many: str) -> str:
        return f"{len(claims)} {one if len(claims) == 1 else many}" + (
            f" ({', '.join(claims)})" if claims else ""
        )

    parts = [part(held, "holds", "hold"), part(failed, "fails", "fail"), part(rest, "is open", "are open")]
    others = [f"{ARGUMENTS[name][0]}: {_tally(found, name)}" for name in READINGS if name != reading]
    return f"Claims C1–C6 under {ARGUMENTS[reading][0]}: {joined(parts)}. Under {'; '.join(others)}."


def _tally(found: Judged, reading: str) -> str:
    verdicts = [found.verdict(claim, reading) for claim in CLAIMS]
    hold, fail = verdicts.count("holds"), verdicts.count("fails")
    return f"{hold} {'holds' if hold == 1 else 'hold'}, {fail} {'fails' if fail == 1 else 'fail'}, {len(CLAIMS) - hold - fail} open"
