"""Rules of verdicts where a law of known truth would be judged wrongly without them."""

import numpy as np
import pytest
import xarray as xr
from _planted import keep, planted

import nfd_jax
from nfd_jax.report._claims import judged
from nfd_jax.verdicts import rates


def verdict(tree: xr.DataTree, claim: str, reading: str = "ms") -> str:
    return nfd_jax.verdicts(tree).verdict.sel(claim=claim, reading=reading).item()


def row(tree: xr.DataTree, name: str) -> xr.Dataset:
    return rates(tree).sel(row=name)


def crossed(law, control=lambda n, L: 0.5 / L + 0.3 / n):
    return lambda network, limit, n, L: (law if network != limit else control)(n, L)


@pytest.mark.parametrize(
    "gains,expected",
    [
        ({"reused": 0.54, "independent": 0.54}, "undecided"),  # what small networks miss, both miss
        ({"reused": 0.49, "independent": 0.54}, "undecided"),  # within the margin by chance alone
        ({"reused": 0.64, "independent": 0.54}, "remains"),
        ({"reused": 0.505, "independent": 0.5}, "vanishes"),
    ],
)
def test_a_first_step_decides_by_what_its_control_does_not_share(gains, expected):
    """The closed form is 0.5, the margin 5 % of the gain."""
    tree = keep(planted(gain=gains), "law", "response")
    found = row(tree, "C4 law first step reused → independent")
    assert found.verdict == expected
    assert (verdict(tree, "C4", "law") == "fails") == (expected == "remains")


def test_a_first_step_without_control_decides_nothing():
    tree = planted(gain={"reused": 0.64, "independent": 0.5})
    tree["response"] = xr.DataTree(tree["response"].to_dataset().isel(backward_weights=[0]))
    found = row(tree, "C4 law first step reused → independent")
    assert found.verdict == "not measured" or "no control" in found.reason.item()


def test_laws_are_told_from_seeds_with_the_same_samples_alone():
    config = "precision: float64\nproblem: {{batches: stream, data_seed: {}}}\n"
    for kind in ("per_seed", "fixed"):
        tree = planted(attrs={"config": config.format(kind)})
        found = [verdict(tree, claim, "law") for claim in ("C1", "C2", "C6")]
        assert all(one == "not measured" for one in found) == (kind == "per_seed"), found
        assert verdict(tree, "C4") == "holds"  # path by path, seeds are pairs


@pytest.mark.parametrize("left", [0.0, 0.008, 0.012])
def test_a_limit_of_as_many_steps_as_the_deepest_network_has_layers(left):
    """There the network is the limit: what is left at it is not taken for the end of a power law."""
    error = crossed(lambda n, L: left + 0.5 * (1 / L - 1 / 64) + 0.3 / n, lambda n, L: 0.5 * (1 / L - 1 / 64))
    tree = keep(planted(error=error, M=64), "compare")
    found = row(tree, "C4 ms reused → independent h")
    assert found.verdict == ("remains" if left else "vanishes")
    assert found.effect_low <= left <= found.effect_high
    assert verdict(tree, "C4") in (("fails",) if left else ("holds", "undecided"))


@pytest.mark.parametrize("floor", [0.0, 0.3, 3.0, 10.0])
def test_what_does_not_fall_with_depth_hides_no_steepening(floor):
    """1/(L + 100) is O(1/L), though no slope shows it at depths of 8 to 64."""
    error = crossed(lambda n, L: 2 / (L + 100) + floor / n, lambda n, L: 0.5 / L + floor / n)
    for seed in range(3):
        tree = keep(planted(error=error, own=0.005, seeds=16, seed=seed), "compare")
        assert verdict(tree, "C4") != "fails"


@pytest.mark.parametrize("shift", [16, 64])
def test_two_widths_do_not_tell_one_over_n_from_its_like(shift):
    """3/(n + shift) vanishes."""
    law = lambda n, L: 3 / (n + shift)
    tree = keep(planted(effect=law, widths=(64, 128)), "coupling")
    assert verdict(tree, "C2") in ("undecided", "not detectable")
    error = crossed(lambda n, L: 0.5 / L + law(n, L))
    assert verdict(keep(planted(error=error, widths=(64, 128)), "compare"), "C4") != "fails"


def test_two_widths_tell_what_is_much_larger_than_what_falls():
    tree = keep(planted(effect=lambda n, L: 0.3 / n + 0.1, widths=(64, 256)), "coupling")
    assert verdict(tree, "C2") == "holds"


def test_nondegeneracy_is_judged_from_enough_networks_that_did_not_diverge():
    assert verdict(keep(planted(), "spectrum"), "C5") == "holds"
    for seeds in (1, 2, 3):
        for eigenvalue in (1e-2, 1e-9):
            told = nfd_jax.verdicts(planted(seeds=seeds, eigenvalue=eigenvalue)).verdict.sel(reading="ms")
            assert told.sel(claim="C5") == "undecided" and told.sel(claim="C4") != "hypothesis not met"
    tree = keep(planted(), "spectrum")
    tree["status"]["cell"][:, :, 0, 0, :15] = 2
    assert verdict(tree, "C5") == "undecided"
    assert "50 % of a cell's" in row(tree, "C5 ms feature step reused").reason.item().replace("50%", "50 %")


def test_learning_rates_at_which_networks_diverge_leave_the_others_to_judge_by():
    tree = planted(rates=(0.5, 8.0))
    tree["status"]["cell"][:, 1] = 2
    assert verdict(tree, "C5") == "holds"


@pytest.mark.parametrize("rates_of", [(0.0, 0.5), (0.5, 0.0), (0.005, 0.5), (0.5, 0.005)])
def test_before_training_the_order_of_learning_rates_changes_nothing(rates_of):
    tree = planted(rates=rates_of, seeds=12)
    moved = xr.DataArray([(rate / 0.5) ** 2 for rate in rates_of], dims="learning_rate")
    finite = tree["finite"].to_dataset()
    for name in ("feature_shift_ms", "gradient_shift_ms"):
        finite[name] = (finite[name] * moved).transpose(*finite[name].dims)
    tree["finite"] = xr.DataTree(finite)
    assert verdict(tree, "C1") == "holds" and verdict(tree, "C6") == "holds"


def test_limits_that_diverge_count_as_diverged():
    tree = keep(planted(), "compare")
    assert verdict(tree, "C4") == "holds"
    tree["compare"]["limit_error_ms"][..., 3, 3, :12, -1, :] = np.nan
    found = row(tree, "C4 ms reused → independent h")
    assert found.verdict == "undecided" and "diverged" in found.reason.item()
    assert verdict(tree, "C4") == "undecided"


def test_a_seed_without_a_null_of_its_own_did_not_diverge():
    """Seeds that were computed alone have no other limit beside them."""
    tree = keep(planted(), "law", "response")
    before = verdict(tree, "C4", "law")
    tree["law"]["marginal_w2_null"][..., 25:, :, :] = np.nan
    assert verdict(tree, "C4", "law") == before == "holds"
    assert "diverged" not in row(tree, "C4 law reused → independent w2 h").reason.item()


def test_the_backward_layers_control_is_that_of_b():
    """Layers fall too slowly; the control attains its rate in h and not in b."""

    def world(slow):
        tree = planted(layer=lambda n, L: 0.4 / L**1.2 + 0.02 / (n * L))
        values = tree["compare"]["limit_error_ms"]
        depth = np.sqrt(values["depth"] / 64)
        tree["compare"]["limit_error_ms"] = xr.where(
            values["quantity"] == slow, values * depth, values
        ).transpose(*values.dims)
        return {way: row(tree, f"C3 ms layer {way}").verdict.item() for way in ("forward", "backward")}

    assert world("none") == {"forward": "not attained", "backward": "not attained"}
    assert world("b") == {"forward": "not attained", "backward": "undecided"}
    assert world("h") == {"forward": "undecided", "backward": "not attained"}


def test_a_rate_without_control_does_not_fail_and_says_why():
    tree = keep(planted(layer=lambda n, L: 0.4 / L**1.2 + 0.02 / (n * L)), "coupling")
    found = row(tree, "C3 ms layer forward")
    assert found.verdict == "undecided" and "no control in this run" in found.reason.item()


def test_a_report_judges_by_the_margin_of_the_config():
    error = crossed(lambda n, L: 0.5 / L + 0.01 + 0.3 / n)
    text = "precision: float64\nproblem: {batches: stream}\n"
    for extra, expected in (("", "fails"), ("verdicts: {margin: 0.05}\n", "holds")):
        tree = keep(planted(error=error, attrs={"config": text + extra}), "compare")
        assert judged(tree).verdicts.verdict.sel(claim="C4", reading="ms") == expected


def test_only_trees_are_judged():
    with pytest.raises(TypeError, match="give an xarray.DataTree, .* received NoneType"):
        nfd_jax.verdicts(None)
