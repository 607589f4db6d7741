"""Verdicts on the claims from synthetic trees whose laws are known: opposite worlds get opposite verdicts."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from nfd_jax.verdicts._rates import Fit, JointFit, classify
from nfd_jax.verdicts._verdicts import FAILS, HOLDS, Row, _judge_joint, claims, to_dataset
from nfd_jax.verdicts._verdicts import rows as all_rows

WIDTHS, DEPTHS, SEEDS, STEPS, RATES, M = (128, 256, 512), (8, 16, 32, 64), 8, 3, (0.5,), 256
FLAGS = ["reused", "independent"]
Law = Callable[[xr.DataArray, xr.DataArray], xr.DataArray]


class World:
    """A results tree by law: functions of (n, L) in training, theory's closed forms at initialization.

    Every seed has a lognormal factor of its own, shared by all cells of a quantity, and every value a small one.
    """

    def __init__(self, *, seeds: int = SEEDS, widths=WIDTHS, depths=DEPTHS, rates=RATES, steps=STEPS, own=0.01) -> None:
        self.rng, self.own = np.random.default_rng(0), own
        self.coords = {"learning_rate": list(rates), "width": list(widths), "depth": list(depths)}
        self.coords |= {"seed": list(range(seeds)), "step": list(range(steps))}
        self.n = xr.DataArray(np.array(widths, float), {"width": list(widths)})
        self.L = xr.DataArray(np.array(depths, float), {"depth": list(depths)})

    def draw(self, start: xr.DataArray | float, later: xr.DataArray | float) -> xr.DataArray:
        """Values over the coordinates: the law `start` at step 0, `later` afterwards."""
        sizes = [len(values) for values in self.coords.values()]
        shared = self.rng.normal(0, 0.3, size=(sizes[3], 1))
        noise = xr.DataArray(np.exp(shared + self.own * self.rng.normal(size=sizes)), self.coords, list(self.coords))
        return noise * xr.where(noise["step"] == 0, start, later)

    def tree(self, *, effect: Law, layer: Law, error: Law, eigenvalue: float = 1e-2, start: Law | None = None) -> xr.DataTree:
        n, L = self.n, self.L
        fine = 1 / L - 1 / M
        quantity, direction = ["h", "b", "f"], ["forward", "backward"]
        first = start(n, L) if start else 0.3 / n + 0.2 * fine

        def stack(starts: list, later: xr.DataArray, dim: str, labels: list[str]) -> xr.DataArray:
            return xr.concat([self.draw(start, later) for start in starts], xr.Variable(dim, labels))

        def errors(network: str, limit: str) -> xr.DataArray:
            later = error(n, L) if network != limit else 0.5 * fine
            return stack([0.2 * fine**2, first, first], later, "quantity", quantity)

        limits = xr.Variable("limit_backward_weights", FLAGS)
        compared = [xr.concat([errors(network, limit) for limit in FLAGS], limits) for network in FLAGS]
        t = xr.DataArray(np.arange(9) / 8, {"t": np.arange(9) / 8})
        smallest = self.draw(eigenvalue, eigenvalue) * xr.where((t == 0) | (t == 1), 0.0, 1 + t)
        kinds = {"kind": ["feature", "gradient"], "scope": ["step", "joint"], "backward_weights": FLAGS}
        smallest = smallest.expand_dims(kinds)
        cells = {"backward_weights": FLAGS, **{dim: values for dim, values in self.coords.items() if dim != "step"}}
        shape = [len(values) for values in cells.values()]
        return xr.DataTree.from_dict(
            {
                "/": xr.Dataset(attrs={"config": f"precision: float64\nlimit: {{depth_steps: {M}}}\n"}),
                "/compare": xr.Dataset({"limit_error_ms": xr.concat(compared, xr.Variable("backward_weights", FLAGS))}),
                "/coupling": xr.Dataset(
                    {
                        "coupling_effect_ms": stack([0.0, 0.3 / n, 0.0], effect(n, L), "quantity", quantity),
                        "coupling_displacement_ms": stack([0.0, 0.3 / n], effect(n, L), "direction", direction),
                        "coupling_layer_ms": stack([0.0, 0.3 / n / L], layer(n, L), "direction", direction),
                    }
                ),
                "/spectrum": xr.Dataset({"min_eigenvalue": smallest, "max_eigenvalue": xr.ones_like(smallest)}),
                "/status": xr.Dataset({"cell": (list(cells), np.ones(shape, np.int8))}, cells),
            }
        )


def vanishing(**settings) -> xr.DataTree:
    """The coupling's effect falls as 1/L and standard networks reach the decoupled limit."""
    return World(**settings).tree(
        effect=lambda n, L: 0.4 / L + 0 * n,
        layer=lambda n, L: 0.4 / L**2 + 0.02 / n / L,
        error=lambda n, L: 0.5 * (1 / L - 1 / M) + 0 * n,
    )


def persisting(**settings) -> xr.DataTree:
    """The coupling's effect levels off, and so does the distance to the decoupled limit; single layers fall as 1/L²."""
    return World(**settings).tree(
        effect=lambda n, L: 0.1 + 0.1 / L + 0 * n,
        layer=lambda n, L: 0.4 / L**2 + 0.02 / n / L,
        error=lambda n, L: 0.1 + 0.5 * (1 / L - 1 / M) + 0 * n,
    )


def keep(tree: xr.DataTree, *groups: str) -> xr.DataTree:
    """Only these groups, to fit nothing in vain."""
    return tree.filter(lambda node: node.name is None or node.name in (*groups, "status"))


def rows(tree: xr.DataTree) -> list[Row]:
    return all_rows(tree, n_boot=300)


def verdicts(tree: xr.DataTree, table: list[Row] | None = None) -> dict[str, str]:
    return {claim.key: claim.verdict for claim in claims(rows(tree) if table is None else table, tree)}


@pytest.fixture(scope="module")
def worlds() -> dict[str, tuple[xr.DataTree, list[Row]]]:
    trees = {"vanishing": vanishing(), "persisting": persisting()}
    return {name: (tree, rows(tree)) for name, tree in trees.items()}


def test_opposite_worlds_get_opposite_verdicts(worlds):
    assert verdicts(*worlds["vanishing"]) == dict.fromkeys(("C1", "C2", "C3", "C4", "C5", "C6"), HOLDS)
    expected = {"C1": HOLDS, "C2": HOLDS, "C3": FAILS, "C4": FAILS, "C5": HOLDS, "C6": HOLDS}
    assert verdicts(*worlds["persisting"]) == expected


def test_reasons_name_the_rows_that_decide(worlds):
    tree, table = worlds["persisting"]
    found = {claim.key: claim for claim in claims(table, tree)}
    deciding = [reason for reason in found["C3"].reasons if not reason.startswith("for comparison")]
    assert len(deciding) == 5 and not any("coupling_layer_ms" in reason for reason in deciding)
    assert all("plateaus at" in reason for reason in deciding)
    controls = [reason for reason in found["C4"].reasons if reason.startswith("for comparison")]
    assert len(controls) == 9
    assert all("decays at rate" in reason for reason in controls if "independent to independent" in reason)


def test_every_claim_can_fail():
    tree = World().tree(
        effect=lambda n, L: 30 / n + 0 * L,  # no coupling survives n → ∞
        layer=lambda n, L: 0.4 / L + 0 * n,  # layers fall too slowly
        error=lambda n, L: 0.5 * (1 / L - 1 / M) ** 0.5 + 0 * n,  # and so does the error
        eigenvalue=1e-8,
        start=lambda n, L: 0.2 + 0.3 / n + 0.2 * (1 / L - 1 / M),  # the error at initialization does not vanish
    )
    effect, first = tree["coupling/coupling_effect_ms"], {"step": 0, "quantity": "b"}
    effect.loc[first] = effect.sel(first) * effect["depth"]  # the coupling at initialization is not uniform in depth
    table = rows(tree)
    assert verdicts(tree, table) == dict.fromkeys(("C1", "C2", "C3", "C4", "C5", "C6"), FAILS)
    text = next(claim for claim in claims(table, tree) if claim.key == "C5").reasons[0]
    assert "ALARM" in text and "24 of 24 networks" in text


def test_limits_that_do_not_commute_fail_although_each_in_turn_gives_zero():
    tree = World(depths=(8, 16, 32)).tree(
        effect=lambda n, L: 0.1 + 0 * n * L,
        layer=lambda n, L: 0.4 / L**2 + 0 * n,
        error=lambda n, L: 0.1 + 0 * n * L,
        start=lambda n, L: 4 * L / n,
    )
    row = next(row for row in rows(keep(tree, "compare")) if row.claim == "C6" and " b " in row.name)
    assert row.state == "fails" and row.joint is not None
    assert row.joint.width_first.estimate < 0.05 * row.joint.corner < 0.9 * row.joint.together.estimate


@pytest.mark.parametrize(
    ("together", "gap", "state"),
    [(0.1, 0.1, "holds"), (0.45, 0.1, "open"), (0.9, 0.1, "fails"), (0.1, -0.45, "open"), (0.1, -0.9, "fails")],
)
def test_the_limit_and_its_order_are_judged_beside_the_rate(together, gap, state):
    x, zero = np.array([8, 16, 32]), Fit(0.0, 0.0, 0.0)
    rate = classify(x, np.linspace(1, 2, 8)[:, None] / x)
    ends = {"together": Fit(together, together - 0.2, together + 0.2), "gap": Fit(gap, gap - 0.2, gap + 0.2)}
    fit = JointFit(zero, zero, zero, zero, zero, zero, **ends, corner=1.0, misfit=0.0)
    found, more = _judge_joint(fit, rate)
    assert found == state and (more > 0) == (state == "open")


def test_per_layer_rate_is_read_at_infinite_width():
    """d/(nL) hides c/L² at any one width; its extrapolation does not, and what is really 1/L stays 1/L."""
    for power, verdict in ((2, HOLDS), (1, FAILS)):
        tree = World(own=0.001).tree(
            effect=lambda n, L: 0.4 / L + 0 * n,
            layer=lambda n, L, power=power: L ** -float(power) + 10 / n / L,
            error=lambda n, L: 0.5 / L + 0 * n,
        )
        table = rows(keep(tree, "coupling"))
        raw, surviving = [row for row in table if row.claim == "C3" and "layer_ms forward" in row.name]
        assert raw.state == "fails" and "width → ∞" in surviving.name
        assert surviving.slope.estimate == pytest.approx(-power, abs=0.1)
        assert verdicts(tree, table)["C3"] == verdict


def test_exact_zeros_at_initialization_are_dropped_and_said(worlds):
    row = next(row for row in worlds["vanishing"][1] if row.claim == "C1" and " h " in row.name)
    assert row.state == "reported" and row.rate.dropped == 3 and "zero to rounding" in row.verdict


def test_a_coupling_of_zero_does_not_survive_and_vanishes():
    tree = keep(vanishing(), "coupling")
    for name in ("coupling_effect_ms", "coupling_displacement_ms", "coupling_layer_ms"):
        tree["coupling"][name] = tree["coupling"][name] * 0
    found = verdicts(tree)
    assert (found["C1"], found["C2"], found["C3"]) == (HOLDS, FAILS, HOLDS)


@pytest.mark.parametrize("world", [vanishing, persisting])
def test_few_noisy_seeds_are_inconclusive_and_say_how_many_would_do(world):
    few = verdicts(world(seeds=3, own=0.5))
    for key in ("C3", "C4"):
        assert few[key].startswith("inconclusive: ") and few[key].endswith("seeds")
    one = world(seeds=1)
    table = rows(one)
    assert set(verdicts(one, table).values()) == {"inconclusive: about 3 more seeds"}
    assert all(np.isinf(row.slope.high) for row in table if row.claim == "C2")


def test_more_seeds_decide():
    few, many = (verdicts(keep(vanishing(seeds=seeds, own=0.5), "compare"))["C4"] for seeds in (4, 48))
    assert few.startswith("inconclusive: about ") and many == HOLDS


def test_unfinished_and_diverged_cells_are_left_out_and_counted():
    tree = persisting()
    cell = tree["status/cell"]
    cell.loc[{"seed": 0, "depth": 64}] = 2
    cell.loc[{"seed": 1, "width": 512}] = 0
    broken = tree["compare/limit_error_ms"]
    broken.loc[{"seed": 0, "depth": 64}] = 1e30
    broken.loc[{"seed": 1, "width": 512}] = np.nan
    tree["coupling/coupling_effect_ms"].loc[{"seed": 0, "depth": 64}] = 1e30
    table = rows(tree)
    row = next(row for row in table if row.claim == "C4")
    assert (row.diverged, row.pending, row.rate.seeds) == (1, 4, 6)
    found = claims(table, tree)
    assert (found[0].verdict, found[3].verdict) == (HOLDS, FAILS)
    assert any("diverged cells left out" in reason for reason in found[3].reasons)
    cell[:] = 0
    assert rows(tree) == []
    assert all(v == "not measured: add finished cells: resume the run" for v in verdicts(tree).values())


def test_learning_rates_have_rows_of_their_own_or_share_the_worst():
    two = rows(keep(vanishing(rates=(0.0, 0.5, 1.0)), "compare", "coupling"))
    assert not any("learning rate 0)" in row.name for row in two)
    assert {row.name.split("learning rate ")[1].split(",")[0] for row in two if row.claim == "C4"} == {"0.5", "1"}
    assert len([row for row in two if row.claim == "C1"]) == 6
    many = [row for row in rows(keep(vanishing(rates=(0.1, 0.2, 0.4, 0.8)), "compare")) if row.claim == "C4"]
    assert len(many) == 12 and all("worst learning rate" in row.name for row in many)
    still = vanishing(rates=(0.0,))
    found = verdicts(still)
    assert found["C1"] == HOLDS and "learning rate above 0" in found["C2"] and "learning rate above 0" in found["C4"]


def test_what_is_missing_is_named():
    found = verdicts(keep(vanishing(), "coupling"))
    assert found["C3"] == HOLDS
    assert found["C4"] == found["C6"] == "not measured: add limit_error to measure"
    assert found["C5"] == "not measured: add spectrum to measure"
    assert verdicts(keep(vanishing(widths=(256,)), "coupling"))["C1"] == "not measured: add a second width"
    single = verdicts(vanishing(widths=(256,), depths=(8,)))
    assert single["C6"] == "not measured: add a second width and a second depth"
    assert single["C5"] == HOLDS
    assert verdicts(vanishing(steps=1))["C2"] == "not measured: add a second step, and a learning rate above 0"
    reused = keep(vanishing(), "compare").isel(limit_backward_weights=[0])
    assert verdicts(reused)["C4"] == "not measured: add reused networks and an independent limit"
    assert rows(xr.DataTree()) == [] and set(to_dataset([]).sizes.values()) == {0}


def test_a_coarse_reference_does_not_bias_the_rate(worlds):
    row = next(row for row in worlds["vanishing"][1] if row.claim == "C4")
    assert row.rate.slope.estimate == pytest.approx(-1, abs=0.05)  # a naive slope of 1/L - 1/M is -1.1


def test_dataset_has_the_contract_names(worlds):
    table = worlds["persisting"][1]
    dataset = to_dataset(table)
    names = {"slope", "slope_low", "slope_high", "plateau", "plateau_low", "plateau_high", "verdict"}
    assert set(dataset.data_vars) == names and dataset["claim"].dims == ("row",)
    assert len(set(dataset["row"].values)) == len(table) == dataset.sizes["row"]
    assert all(dataset[name].dtype == float for name in names - {"verdict"}) and dataset["verdict"].dtype.kind == "U"
    fitted = dataset.isel(row=dataset["slope"].notnull().values)
    assert np.all(fitted["slope_low"] <= fitted["slope"]) and np.all(fitted["slope"] <= fitted["slope_high"])
