"""Verdicts in a table: always words, with a symbol to help the eye and never a colour alone."""

import re
from html import escape

from nfd_jax.report._html import Raw
from nfd_jax.verdicts._verdicts import FAILS, HOLDS, Claim

MOST_REASONS = 3


def kind_of(verdict: str) -> tuple[str, str]:
    """(kind, symbol) of a claim's verdict."""
    if verdict == HOLDS:
        return "holds", "✓"
    if verdict == FAILS:
        return "fails", "✗"
    return ("missing", "–") if verdict.startswith("not measured") else ("open", "?")


def marked(verdict: str) -> Raw:
    """The verdict in bold with its symbol."""
    kind, symbol = kind_of(verdict)
    return Raw(f"<span class='verdict {kind}'>{symbol} {escape(verdict)}</span>")


def reasons(claim: Claim) -> list[str]:
    """What decides a claim, short: the first part of each reason, without the claim's name."""
    deciding = [reason for reason in claim.reasons if reason.startswith(f"{claim.key} ")]
    short = [_shortened(reason.removeprefix(f"{claim.key} ")) for reason in deciding[:MOST_REASONS]]
    more = len(deciding) - len(short)
    return short + ([f"and {more} more"] if more > 0 else [])


def _shortened(reason: str) -> str:
    """Without what the claim asked for, what follows a semicolon, and what the step says already."""
    text = reason.partition(" (claimed:")[0].partition(";")[0]
    return arrow(text.replace(" in training", "").replace(" at initialization", ""))


def arrow(text: str) -> str:
    """ "reused to independent limit" as figures have it, with an arrow from network to limit."""
    return re.sub(r"(reused|independent) to (reused|independent) limit", r"\1 → \2 limit", text)


def brief(claim: Claim) -> Raw:
    """`reasons` as a list in a cell."""
    lines = "".join(f"<li>{escape(reason)}</li>" for reason in reasons(claim))
    return Raw(f"<ul>{lines}</ul>" if lines else "–")
