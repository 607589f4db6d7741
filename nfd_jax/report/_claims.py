"""The claims as a reader meets them: in plain words, with a mark, the number that decides and what would
settle it.

Verdicts are those that the run stored; of a store that has none yet they are worked out from its arrays.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from nfd_jax.report._numbers import Estimate, number
from nfd_jax.report._words import CLAIM_WORDS, plain
from nfd_jax.verdicts import ARGUMENTS, CLAIMS, MARGIN, READINGS, conclusions, section, settings

MARKS = {
    "holds": ("✓", "holds"),
    "fails": ("✗", "fails"),
    "undecided": ("?", "open"),
    "not detectable": ("?", "open"),
    "hypothesis not met": ("?", "open"),
    "not measured": ("–", "open"),
}
"""Verdict → (symbol, kind). The words say it all, the symbol helps the eye."""
FORMS = {"holds": ("holds", "hold"), "fails": ("fails", "fail"), "open": ("is open", "are open")}
SETTLED = "settled on this grid"


def mark(verdict: str) -> tuple[str, str]:
    """(symbol, kind) of a verdict."""
    return MARKS.get(verdict, ("?", "open"))


@dataclass(frozen=True)
class Judged:
    """/rates and /verdicts."""

    rates: xr.Dataset
    verdicts: xr.Dataset

    def verdict(self, claim: str, reading: str = "ms") -> str:
        return self._at("verdict", claim, reading)

    def reason(self, claim: str, reading: str = "ms") -> str:
        return self._at("reason", claim, reading)

    @property
    def unmeasured(self) -> bool:
        """Whether the run has nothing to say about any claim."""
        return bool((self.verdicts["verdict"] == "not measured").all())

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
    if {"rates", "verdicts"} <= set(tree.children):
        stored = [tree.children[name].to_dataset(inherit=False) for name in ("rates", "verdicts")]
        if {"claim", "reading", "effect", "decides"} <= set(stored[0].variables):
            return Judged(*stored)
    margin = section(settings(tree), "verdicts").get("margin", MARGIN)
    return Judged(*conclusions(tree, margin=margin))


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
    verdict: str
    symbol: str
    kind: str
    decides: str
    next: str


def cards(found: Judged, reading: str = "ms") -> list[Card]:
    """The six, under one reading."""
    return [_card(found, claim, reading) for claim in CLAIMS]


def _card(found: Judged, claim: str, reading: str) -> Card:
    verdict, row = found.verdict(claim, reading), deciding(found, claim, reading)
    symbol, kind = mark(verdict)
    said = decides(row) if row is not None and verdict != "not measured" else ""
    reason = row["reason"] if row is not None else found.reason(claim, reading)
    then = SETTLED if kind != "open" else step(str(reason))
    if verdict == "hypothesis not met":
        then = "C5 is violated: the claim assumes it"
    return Card(claim, CLAIM_WORDS[claim], verdict, symbol, kind, said, then)


def deciding(found: Judged, claim: str, reading: str) -> dict[str, Any] | None:
    """The row that carries the verdict or blocks it: the one that the verdict's reason names first."""
    reason = found.reason(claim, reading)
    places = []
    for row in found.rows(claim, reading):
        name = str(row["row"]).removeprefix(f"{claim} {reading} ")
        where = f" {reason}".find(f" {name}:")
        if where >= 0:
            places.append((where, -len(name), row))
    return min(places, key=lambda place: place[:2])[2] if places else None


def decides(row: dict[str, Any]) -> str:
    """A row in words, with its number and interval and without its verdict."""
    text = str(row["text"]).removesuffix(f": {row['verdict']}")
    if any(letter.isdigit() for letter in text):
        return tidy(text)
    reason = f": {row['reason']}" if row["reason"] else ""
    return tidy(f"{text.rstrip(',') or plain(row['quantity'])}{reason}")


def step(reason: str) -> str:
    """What would settle a row: the end of its reason, which begins with the numbers that do not."""
    text = reason.rpartition("; ")[2]
    advice = re.search(r": (add .*)$", text)
    return tidy(advice[1] if advice else text)


def tidy(text: str) -> str:
    """Numbers as the rest of the report has them: − for minus, a space before %, short powers of ten."""
    text = re.sub(r"\b\d(?:\.\d+)?e[+-]\d+\b", lambda found: number(float(found[0])), str(text))
    text = re.sub(r"(?<!\w)-(?=\.?\d|inf\b)", "−", text)
    text = re.sub(r"\binf\b", "∞", text).replace("[−∞, ∞]", "[unbounded]")
    return re.sub(r"(?<=\d)%", " %", text)


def counted(found: Judged, reading: str = "ms") -> str:
    """How many claims hold, fail and are open, by name under one reading; that none was measured, where the
    run was about something else."""
    if found.unmeasured:
        return "Claims C1–C6: not measured in this run."
    others = "; ".join(
        f"{ARGUMENTS[name][0]}: {_tally(found, name, False)}" for name in READINGS if name != reading
    )
    return f"Claims C1–C6 in {ARGUMENTS[reading][0]}: {_tally(found, reading, True)}. In {others}."


def _tally(found: Judged, reading: str, named: bool) -> str:
    kinds = {claim: mark(found.verdict(claim, reading))[1] for claim in CLAIMS}
    said = []
    for kind, (one, many) in FORMS.items():
        claims = [claim for claim, its in kinds.items() if its == kind]
        word = one if len(claims) == 1 else many
        text = f"{len(claims)} {word if named else word.split()[-1]}"
        said.append(f"{text} ({', '.join(claims)})" if named and claims else text)
    return ", ".join(said)
