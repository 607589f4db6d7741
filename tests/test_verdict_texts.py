"""What rows of /rates say: sentences with their number, shares in rms, no infinite ends."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from _planted import planted

from nfd_jax.config import find_config, lacking, load_config
from nfd_jax.verdicts import rates
from nfd_jax.verdicts._family import Fits
from nfd_jax.verdicts._fit import fit_grid
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._seeds import UNKNOWN, Interval

TREES = {
    "as theory has it": {},
    "few seeds": {"seeds": 3},
    "one seed": {"seeds": 1},
    "zero": {"effect": lambda n, L: 0 * n, "start": lambda n, L: 0 * n, "layer": lambda n, L: 0 * n},
    "steep": {"error": lambda network, limit, n, L: 40 / L**4.0 + 0 * n},
}


@pytest.fixture(scope="module", params=TREES)
def rows(request):
    table = rates(planted(**TREES[request.param]))
    names = "row", "test", "verdict", "text", "reason"
    columns = (table[name].values.tolist() for name in names)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def test_every_text_is_a_sentence_with_its_number_and_its_verdict(rows):
    assert rows
    for row in rows:
        said = f"{row['row']}: {row['text']} | {row['reason']}"
        assert row["verdict"] in row["text"] or row["test"] == "value", said
        if row["verdict"] not in ("not measured", "not detectable"):
            assert re.search(r"\d", row["text"]), said
        for word in (r"\binf\b", r"\bnan\b", r"is (grows|falls|goes|is)", r",[:.]", r"tends to:", r"  "):
            assert not re.search(word, said), said


def test_sizes_are_shares_in_rms_with_the_mean_square_once(rows):
    for row in rows:
        if row["test"] == "constant" and re.search(r"\d", row["text"]) and "learning moves" in row["text"]:
            assert row["text"].count("mean square") == 1 and "in rms" in row["text"], row["text"]
            assert "effect" not in row["reason"], row["reason"]


@pytest.mark.parametrize("variant", ["depth_mup", "mup"])
def test_what_would_settle_it_is_something_that_the_config_allows(variant):
    """Of a sweep without measures: what to add, and what else that takes."""
    config = load_config(find_config(Path("figure2"))).expand()[variant]
    table = rates(xr.DataTree(xr.Dataset(attrs={"config": config.to_yaml()})))
    found = zip(*(table[name].values for name in ("claim", "reading", "reason")), strict=True)
    told = {claim: reason for claim, reading, reason in found if reading == "ms"}
    for claim, measure in (("C1", "coupling"), ("C4", "limit_error"), ("C5", "spectrum")):
        needs = lacking(config, measure)
        assert told[claim] == f"add {measure} to measure" + (f", which {needs}" if needs else "")
    assert "matrix-free network" in told["C1"] if variant == "depth_mup" else "depth_mup" in told["C4"]


def test_intervals_name_the_ends_they_have():
    assert Interval(-1.5, -2.0, -1.0).text(".2f") == "-1.50 [-2.00, -1.00]"
    assert Interval(-2.5, -np.inf, -1.3).text(".2f") == "-2.50 [at most -1.30]"
    assert Interval(0.1, 0.05, np.inf).text(".2f") == "0.10 [at least 0.05]"
    assert Interval(-0.001, -np.inf, np.inf).text(".1f") == "0.0 [no bounds]"
    assert UNKNOWN.text() == "unknown [no bounds]"
    assert Interval(0.04, -0.01, 0.09).share() == "20 % [0 %, 30 %]"


def test_an_exponent_at_the_edge_of_those_tried_reaches_nothing():
    """1/L⁶ beside a constant looks like a step: any steep exponent describes it, and none is found."""
    widths, depths = (grid.ravel() for grid in np.meshgrid([64.0, 128, 256], [4.0, 8, 16, 32, 64]))
    noise = np.random.default_rng(0).normal(size=(16, len(widths), 1))

    def fits(power: float) -> Fits:
        means = (depths / 4) ** -power + 0.1 + 1 / widths
        return Fits([fit_grid(means[:, None] * (1 + 0.02 * noise), widths, depths, Law())], True)

    steep, plain = fits(6.0), fits(1.0)
    assert steep.exponent().high == np.inf and steep.at_the_edge() and not steep.reaches(0.8)
    assert not plain.at_the_edge() and plain.reaches(0.8) and not plain.reaches(1.5)
