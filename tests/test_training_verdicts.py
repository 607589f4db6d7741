"""Gaps, transfer and coordinate checks on trees whose truth is planted."""

import numpy as np
import pytest
import xarray as xr

from nfd_jax import verdicts

FLAGS = ["reused", "independent"]
DIMS = ("backward_weights", "learning_rate", "width", "depth", "seed")


def tree_of(rates, widths, depths, seeds, *, limit=None, batches="fixed", **variables):
    """A results tree of finite variables, (DIMS, and more) each; all cells are done."""
    labels = {
        "backward_weights": FLAGS,
        "learning_rate": rates,
        "width": widths,
        "depth": depths,
        "seed": range(seeds),
    }
    coords = {name: list(values) for name, values in labels.items()}
    finite = {name: (dims, values) for name, (dims, values) in variables.items()}
    groups = {
        "/": xr.Dataset(attrs={"config": f"problem: {{batches: {batches}}}"}),
        "/finite": xr.Dataset(finite, coords),
    }
    shape = [len(coords[dim]) for dim in DIMS]
    groups["/status"] = xr.Dataset({"cell": (DIMS, np.ones(shape, np.int8))}, coords)
    if limit is not None:
        dims = ("backward_weights", "learning_rate", "particles", "seed", "step")
        own = {name: coords[name] for name in ("backward_weights", "learning_rate", "seed")} | {
            "particles": [max(widths)]
        }
        groups["/limit"] = xr.Dataset({"loss": (dims, limit)}, own)
    return xr.DataTree.from_dict(groups)


def learning(rng, gap, *, places, seeds, left=0.4, own=0.03, common=0.2, paired=True):
    """Losses (flag, *places, seed, step = 3) of curves that have dropped to `left`, independent ones `gap` of
    the drop behind.

    Seeds have a first loss of their own, which both kinds share where they are paired.
    """
    first = np.exp(common * rng.standard_normal((2, *places, seeds)))
    if paired:
        first[1] = first[0]
    reach = np.stack([np.full(places, left), left + np.asarray(gap) * (1 - left)])[..., None]
    end = first * reach * (1 + own * rng.standard_normal(first.shape))
    return np.stack([first, (first + end) / 2, end], -1)


@pytest.mark.parametrize("seeds", [8, 30])
def test_intervals_of_gaps_cover_and_see_two_percent(seeds):
    """Two independent networks on different noise have no gap; one of 2 % on paired seeds is seen."""
    rates = np.arange(1.0, 301.0)
    places = (len(rates), 1, 1)
    for gap, paired in ((0.0, False), (0.02, True)):
        own = 0.03 if not paired else 0.01
        losses = learning(
            np.random.default_rng(1), np.full(places, gap), places=places, seeds=seeds, paired=paired, own=own
        )
        found = verdicts.relative_gap(tree_of(rates, [64], [4], seeds, loss=((*DIMS, "step"), losses)))
        assert np.isnan(found.gap.isel(step=0)).all()
        found = found.isel(step=-1)
        low, high = found.gap_low.values, found.gap_high.values
        missed = 1 - np.mean((low < gap) & (gap < high))
        assert (
            missed < 0.05 + 3 * np.sqrt(0.05 * 0.95 / rates.size) + 0.02
        )  # the bootstrap's own error at 8 seeds
        if paired:
            assert np.mean(low > 0) > 0.9
        else:
            assert np.mean(found.reason == "they differ") < 0.05


def test_the_two_reasons_for_curves_to_look_alike_are_told_apart():
    rng, seeds = np.random.default_rng(2), 12
    cases = {0.1: (0.3, 0.4), 0.2: (0.0, 0.4), 0.5: (0.1, 0.005)}
    parts = [
        learning(rng, np.full((1, 1), gap), places=(1, 1), seeds=seeds, left=left, own=2e-3)
        for gap, left in cases.values()
    ]
    parts[2][1, ..., -1] = parts[2][0, ..., -1] * 2  # twice the other's loss, of nothing
    tree = tree_of(list(cases), [64], [4], seeds, loss=((*DIMS, "step"), np.stack(parts, 1)))
    reasons = verdicts.relative_gap(tree).reason.isel(step=-1).values.ravel().tolist()
    assert reasons == ["they differ", "the gap vanished", "both learned everything"]


@pytest.mark.parametrize(
    "law, verdict", [(lambda n, L: 0.3 + 0 * L, "remains"), (lambda n, L: 0.6 / L + 1 / n, "vanishes")]
)
def test_constants_of_gaps(law, verdict):
    """What is left at infinite depth, for gaps that stay and gaps that fall as 1/L and 1/n."""
    widths, depths, seeds = [128, 256, 512, 1024], [2, 4, 8, 16, 32, 64], 24
    n, L = np.meshgrid(np.array(widths, float), np.array(depths, float), indexing="ij")
    rng = np.random.default_rng(3)
    losses = learning(rng, law(n, L), places=n.shape, seeds=seeds, own=2e-3)[:, None]
    tree = tree_of([0.1], widths, depths, seeds, loss=((*DIMS, "step"), losses))
    found = verdicts.gap_constants(tree).isel(step=-1, learning_rate=0)
    assert found.verdict.item() == verdict
    truth = 0.3 if verdict == "remains" else 0.0
    assert found.constant_low < truth < found.constant_high
    scatter = 0.2 * 0.4 / 0.6  # of the reused losses, over the drop
    if verdict == "remains":
        assert found.drop_depth == np.inf
    else:
        assert 0.5 < found.drop_depth / (0.6 / scatter) < 2


def gaps_by_depth(rng, gaps, own, seeds=12):
    """Losses (flag, rate, width, depth, seed, step) whose gap at each depth has noise `own` of its own."""
    parts = [
        learning(rng, np.full((1, 1), gap), places=(1, 1), seeds=seeds, own=noise)
        for gap, noise in zip(gaps, own, strict=True)
    ]
    return np.concatenate(parts, 2)[:, None]


def test_a_gap_remains_only_where_the_deepest_networks_show_it():
    """Shallow networks that say 30 % on end, and a deepest one whose gap nobody knows."""
    depths, gaps = [2, 4, 8, 16], [0.3] * 4
    for noise, verdict in ((0.01, "remains"), (3.0, "undecided")):
        losses = gaps_by_depth(np.random.default_rng(7), gaps, [0.01] * 3 + [noise])
        tree = tree_of([0.1], [64], depths, 12, loss=((*DIMS, "step"), np.abs(losses)))
        found = verdicts.gap_constants(tree).isel(step=-1, learning_rate=0)
        assert found.constant_low > 0.1 and found.verdict.item() == verdict


def test_no_limit_is_asked_of_what_has_none_and_diverged_seeds_are_counted():
    rng, seeds = np.random.default_rng(8), 12
    losses = gaps_by_depth(rng, [0.3, 0.3], [0.01, 0.01])
    tree = tree_of([0.1], [64], [2, 4], seeds, loss=((*DIMS, "step"), losses))
    tree.attrs["config"] = "problem: {parametrization: mup}"
    assert verdicts.gap_constants(tree) is None and verdicts.relative_gap(tree) is not None
    for lost, reason in ((1, "they differ"), (2, "too many diverged")):
        some = losses.copy()
        some[1, :, :, 1, :lost, -1] = np.nan
        found = verdicts.relative_gap(tree_of([0.1], [64], [2, 4], seeds, loss=((*DIMS, "step"), some)))
        assert found.reason.isel(step=-1, depth=1).item() == reason
        assert np.isnan(found.gap.isel(step=-1, depth=1).item()) == (lost == 2)
    few = tree_of([0.1], [64], [2, 4], 3, loss=((*DIMS, "step"), losses[..., :3, :]))
    assert verdicts.relative_gap(few).reason.isel(step=-1).values.ravel().tolist() == ["undecided"] * 2


def test_an_infinite_drop_depth_where_the_gap_exceeds_the_scatter():
    rng, depths = np.random.default_rng(4), [2, 4, 8, 16]
    losses = learning(rng, np.full((1, 4), 0.2), places=(1, 4), seeds=12, own=1e-3, common=0.02)[:, None]
    found = verdicts.gap_constants(tree_of([0.1], [128], depths, 12, loss=((*DIMS, "step"), losses)))
    assert found.drop_depth.isel(step=-1).item() == np.inf
    assert found.verdict.isel(step=-1).item() == "remains"


def parabolas(rng, rates, optima, *, seeds, curvature=0.3, own=0.05, common=0.3):
    """Losses (rates, *places, seed, step = 2) whose logarithm is a parabola about log optima (*places,), all
    below the first one."""
    y = curvature * (np.log(rates).reshape(-1, *[1] * np.ndim(optima)) - np.log(optima)) ** 2
    noise = common * rng.standard_normal(seeds) + own * rng.standard_normal((*y.shape, seeds))
    return np.stack([np.full((*y.shape, seeds), 1e9), 0.2 * np.exp(y[..., None] + noise)], -1)


@pytest.mark.parametrize("seeds", [8, 30])
def test_best_rates_shifts_and_costs_of_planted_parabolas(seeds):
    """η*(L) = 0.3 L^-1/2, flat in n: intervals cover the optima, the powers, and the cost of the limit's
    rate."""
    rates, widths, depths = 0.01 * 2.0 ** np.arange(8), np.arange(1, 41) * 32, np.array([2, 4, 8, 16])
    rng = np.random.default_rng(5)
    truth = np.broadcast_to(0.3 * depths**-0.5, (len(widths), len(depths)))
    losses = np.broadcast_to(
        parabolas(rng, rates, truth, seeds=seeds), (2, len(rates), *truth.shape, seeds, 2)
    )
    limit = np.broadcast_to(
        parabolas(rng, rates, np.array([0.05]), seeds=seeds, own=1e-6), (2, len(rates), 1, seeds, 2)
    )
    tree = tree_of(rates, widths, depths, seeds, loss=((*DIMS, "step"), losses), limit=limit)
    found = verdicts.transfer(tree)
    assert found.inner.all() and found.limit_inner.all()
    covered = (found.optimum_low < truth) & (truth < found.optimum_high)
    assert covered.mean() > 0.95 - 3 * np.sqrt(0.05 * 0.95 / covered.size) - 0.02
    slopes = (found.depth_shift_low < -0.5) & (found.depth_shift_high > -0.5)
    assert slopes.mean() > 0.95 - 3 * np.sqrt(0.05 * 0.95 / slopes.size) - 0.02
    flat = (found.width_shift_low < 0) & (found.width_shift_high > 0)
    assert flat.all()
    np.testing.assert_allclose(found.limit_optimum, 0.05, rtol=0.02)
    cost = np.exp(0.3 * np.log(truth / 0.05) ** 2)
    known = (found.cost_low < cost) & (cost < found.cost_high)
    # Percentiles of a ratio that is never below 1 are short at few seeds, and far rates are read off between
    # two measured ones.
    assert known.isel(depth=slice(1, 4)).mean() > 0.8
    np.testing.assert_allclose(found.cost.mean("width"), cost[0], rtol=0.1)


@pytest.mark.parametrize("grown", [np.inf, 1e14, 2e9])
def test_a_best_rate_at_an_end_or_beside_divergence_is_said_to_be_one(grown):
    """Also where a mean over seeds is still a number: a parabola through it would find a vertex."""
    rng, rates, seeds = np.random.default_rng(6), 0.1 * 2.0 ** np.arange(5), 10
    optima = np.array([[0.01, 0.4, 40.0, 0.4]])
    losses = parabolas(rng, rates, optima, seeds=seeds)
    losses[3:, 0, 3, 0, -1] = grown  # one seed diverges from 0.8 on
    losses = np.broadcast_to(losses, (2, *losses.shape))
    found = verdicts.transfer(
        tree_of(rates, [64], [2, 4, 8, 16], seeds, loss=((*DIMS, "step"), losses))
    ).isel(width=0)
    assert found.inner.values.tolist() == [False, True, False, False]
    assert found.optimum_low.values[0] == 0 and found.optimum_high.values[2] == np.inf
    assert found.optimum_high.values[0] == rates[1] and found.optimum_low.values[2] == rates[-2]
    assert found.optimum_low.values[3] == 0.2 and found.optimum_high.values[3] == 0.8
    assert np.isnan(found.loss.isel(depth=3).values[-2:]).all()
    assert found.untrained.isel(depth=3).values.tolist() == [0, 0, 0, 1 / seeds, 1 / seeds]
    assert (
        verdicts.transfer(
            tree_of(rates[:2], [64], [2, 4, 8, 16], seeds, loss=((*DIMS, "step"), losses[:, :2]))
        )
        is None
    )


def test_coordinate_check_of_planted_sizes():
    """h grows as n^{1/2} in rms and is flat in L, f falls as 1/L and is flat in n."""
    rng, widths, depths, seeds = (
        np.random.default_rng(7),
        np.array([64, 128, 256, 512]),
        np.array([2, 4, 8, 16]),
        12,
    )
    factor = np.exp(0.1 * rng.standard_normal((2, 1, 4, 4, seeds)))
    h = 1e-3 * widths[:, None, None] * factor
    f = 0.5 / depths[None, :, None] * np.sqrt(factor)
    shift = np.stack([0 * h, h], -1)[..., None] * np.array([0.5, 1.0])
    output = np.stack([0 * f, f], -1)[..., None, None] * np.ones((3, 1))
    found = {"feature_shift_ms": ((*DIMS, "step", "t"), shift)}
    found["output"] = ((*DIMS, "step", "sample", "component"), output)
    tree = tree_of([0.1], widths, depths, seeds, **found)
    found = verdicts.coordinate_check(tree).isel(learning_rate=0)
    assert found.width_verdict.values.tolist() == ["grows", "flat"]
    assert found.depth_verdict.values.tolist() == ["flat", "falls"]
    for axis, powers in (("width", (0.5, 0.0)), ("depth", (0.0, -1.0))):
        assert np.all((found[f"{axis}_slope_low"] < powers) & (powers < found[f"{axis}_slope_high"]))
    np.testing.assert_allclose(found["size"].sel(quantity="h", depth=2), np.sqrt(1e-3 * widths), rtol=0.1)
    other = verdicts.coordinate_check(_streamed(tree)).isel(learning_rate=0)
    assert np.isnan(other["size"].sel(quantity="f")).all() and other.width_verdict.values.tolist() == [
        "grows",
        "",
    ]


def test_one_seed_that_explodes_does_not_decide_a_coordinate_check():
    """Movements that keep their size, one seed of the narrowest and shallowest a thousandfold."""
    rng, sizes, seeds = np.random.default_rng(9), [64, 128], 8
    h = np.exp(0.2 * rng.standard_normal((2, 1, 2, 2, seeds)))
    h[:, :, 0, 0, 3] *= 1e6
    shift = np.stack([0 * h, h], -1)[..., None] * np.ones(2)
    tree = tree_of([0.1], sizes, [4, 16], seeds, feature_shift_ms=((*DIMS, "step", "t"), shift))
    found = verdicts.coordinate_check(tree).isel(learning_rate=0).sel(quantity="h")
    for axis in ("width", "depth"):
        assert found[f"{axis}_verdict"].item() == "undecided"
        assert found[f"{axis}_slope_low"] < 0 < found[f"{axis}_slope_high"]


def _streamed(tree):
    groups = {name: node.to_dataset() for name, node in tree.children.items()}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"config": "problem: {batches: stream}"}), **groups})


def test_nothing_to_say_without_both_kinds_or_without_data():
    losses = learning(np.random.default_rng(8), np.full((1, 1), 0.1), places=(1, 1), seeds=4)[:, None]
    tree = tree_of([0.1], [64], [4], 4, loss=((*DIMS, "step"), losses))
    one = xr.DataTree.from_dict({"/finite": tree["finite"].to_dataset().isel(backward_weights=[0])})
    assert verdicts.relative_gap(one) is None and verdicts.gap_constants(one) is None
    assert verdicts.gap_constants(tree) is None  # a single depth
    assert verdicts.coordinate_check(tree) is None and verdicts.transfer(tree) is None
