"""Verdicts on planted laws whose truth is known: the true one or undecided, never its opposite; and never an
exception.
"""

import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from _planted import FLAGS, keep, planted

import nfd_jax
from nfd_jax.verdicts import CLAIMS, READINGS, VERDICTS, rates


def verdict(tree: xr.DataTree, claim: str, reading: str = "ms") -> str:
    return nfd_jax.verdicts(tree).verdict.sel(claim=claim, reading=reading).item()


def reason(tree: xr.DataTree, claim: str, reading: str = "ms") -> str:
    return nfd_jax.verdicts(tree).reason.sel(claim=claim, reading=reading).item()


def everywhere(law):
    """The same distance for every pair of flags."""
    return lambda network, limit, n, L: law(n, L)


def crossed(law):
    """This distance between systems of different flags; controls converge."""
    return lambda network, limit, n, L: law(n, L) if network != limit else 0.5 / L + 0.3 / n


TINY = {
    "effect": lambda n, L: 1e-26 + 0 * n,
    "start": lambda n, L: 1e-26 + 0 * n,
    "layer": lambda n, L: 1e-26 + 0 * n,
    "error": everywhere(lambda n, L: 1e-26 + 0 * n),
    "signal": 1e-25,
}

# name: (laws, groups, {claim: verdict})
PLANTED = {
    "nothing remains of 3/n + 0.5/L": (
        {"effect": lambda n, L: 3 / n + 0.5 / L, "error": everywhere(lambda n, L: 3 / n + 0.5 / L)},
        ("compare", "coupling"),
        {"C3": "holds", "C4": "holds"},
    ),
    "a third of the deepest error remains": (
        {"error": crossed(lambda n, L: 0.5 / L + 0.0042 + 0.3 / n)},
        ("compare",),
        {"C4": "fails"},
    ),
    "45 % of the widest value survives": (
        {"effect": lambda n, L: 1 / n + 0.0016},
        ("coupling",),
        {"C2": ("holds", "not detectable", "undecided")},
    ),
    "half of the value survives": (
        {"effect": lambda n, L: 1 / n + 0.0128},
        ("coupling",),
        {"C2": "holds", "C3": "fails"},
    ),
    "nothing survives 1/n": (
        {"effect": lambda n, L: 1 / n},
        ("coupling",),
        {"C2": "not detectable", "C3": "holds"},
    ),
    "shifted depths": (
        {"error": everywhere(lambda n, L: 1 / (L + 8))},
        ("compare",),
        {"C4": ("holds", "undecided")},
    ),
    "a distance that is flat in depth": (
        {"error": crossed(lambda n, L: 0.1 + 0.3 / n)},
        ("compare",),
        {"C4": "fails"},
    ),
    "a slower rate": ({"error": crossed(lambda n, L: 0.1 / L**0.5 + 0.3 / n)}, ("compare",), {"C4": "fails"}),
    "a slower rate that the controls have too": (
        {"error": everywhere(lambda n, L: 0.1 / L**0.5 + 0.3 / n)},
        ("compare",),
        {"C4": "undecided"},
    ),
    "limits that do not commute": (
        {"reference": lambda n, L: 1 / n + 1 / L + 0.05 * L / n},
        ("compare",),
        {"C6": "fails"},
    ),
    "limits that do not commute the other way": (
        {"reference": lambda n, L: 1 / n + 1 / L + 0.05 * n / L},
        ("compare",),
        {"C6": "fails"},
    ),
    "limits that commute": ({"reference": lambda n, L: 1 / n + 1 / L}, ("compare",), {"C6": "holds"}),
    "all below rounding": (
        TINY,
        ("compare", "coupling"),
        dict.fromkeys(("C1", "C2", "C3", "C4"), "not detectable"),
    ),
    "duplicated samples": (
        {"eigenvalue": 1e-17, "error": crossed(lambda n, L: 0.1 + 0.3 / n)},
        ("compare", "coupling", "spectrum"),
        {"C3": "hypothesis not met", "C4": "hypothesis not met", "C5": "fails"},
    ),
    "samples that differ": ({}, ("spectrum",), {"C5": "holds"}),
    "initial coupling that grows with depth": (
        {"start": lambda n, L: 0.01 * L / n},
        ("coupling",),
        {"C1": "fails"},
    ),
    "initial coupling that survives": (
        {"start": lambda n, L: 0.3 / n + 0.02},
        ("coupling",),
        {"C1": "fails"},
    ),
    "initial coupling of a slower rate": (
        {"start": lambda n, L: 0.1 / n**0.5},
        ("coupling",),
        {"C1": ("fails", "undecided")},
    ),
    "initial coupling as claimed": ({"start": lambda n, L: 0.3 / n}, ("coupling",), {"C1": "holds"}),
    "one layer's coupling of a slower rate": (
        {"layer": lambda n, L: 0.4 / L},
        ("coupling", "compare"),
        {"C3": "fails"},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_laws_get_their_verdict(name):
    laws, groups, expected = PLANTED[name]
    found = nfd_jax.verdicts(keep(planted(**laws), *groups)).verdict.sel(reading="ms")
    for claim, wanted in expected.items():
        assert found.sel(claim=claim).item() in ((wanted,) if isinstance(wanted, str) else wanted), claim


FALSE = {"holds": ("fails",), "fails": ("holds",), "not detectable": ("holds", "fails")}
"""What a sample should not say of each truth."""
NOTHING = {"C2": {"not detectable": ("holds",)}}
"""Of C2, which says that something survives, nothing surviving is the truth and no failure."""


@pytest.mark.long
@pytest.mark.parametrize("noise", ["gaussian", "chi2"])
@pytest.mark.parametrize("seeds", [8, 30, 100])
def test_false_verdicts_over_planted_worlds(seeds, noise):
    """400 worlds, each law of the table 20 times: at most one verdict in twenty is the truth's opposite."""
    counts: dict[tuple[str, str], np.ndarray] = {}
    for laws, groups, expected in PLANTED.values():
        for seed in range(400 // len(PLANTED)):
            tree = keep(planted(**laws, seeds=seeds, noise=noise, seed=seed), *groups)
            found = nfd_jax.verdicts(tree).verdict.sel(reading="ms")
            for claim, wanted in expected.items():
                truth, seen = wanted if isinstance(wanted, str) else wanted[0], found.sel(claim=claim).item()
                false = {**FALSE, **NOTHING.get(claim, {})}.get(truth, ("holds", "fails"))
                counts.setdefault((claim, truth), np.zeros(3, int))[:] += 1, seen == truth, seen in false
    for (claim, truth), (worlds, right, false) in counts.items():
        print(
            f"{seeds} seeds, {noise}: {claim} {truth} found in {right}, denied in {false} of {worlds} worlds"
        )
    worlds, _, false = sum(counts.values())
    assert false <= 0.05 * worlds
    assert all(false <= 0.05 * n + 3 * np.sqrt(0.05 * 0.95 * n) for n, _, false in counts.values())


def test_root_mean_square_asks_for_twice_the_rate():
    tree = keep(planted(start=lambda n, L: 0.3 / n), "coupling")
    assert verdict(tree, "C1", "ms") == "holds" and verdict(tree, "C1", "rms") == "fails"
    tree = keep(planted(start=lambda n, L: 30 / n**2), "coupling")
    assert verdict(tree, "C1", "ms") == "holds" and verdict(tree, "C1", "rms") == "holds"


def persisting(**settings) -> xr.DataTree:
    """Reuse changes the law: kernels, outputs and marginals of systems with different flags differ by a
    constant.
    """
    differ = lambda size: lambda network, limit, n, L: (size if network != limit else 0.0) + 0.1 / L + 0.2 / n
    return planted(
        bias=differ(0.2),
        w2=differ(0.05),
        gain={"reused": 0.53, "independent": 0.43},
        predicted={"reused": 0.53, "independent": 0.43},
        **settings,
    )


def test_laws_that_differ_remain_and_controls_vanish():
    tree = keep(persisting(seeds=60, rates=(0.5,)), "law", "response")
    table = rates(tree)
    table = table.isel(row=((table.claim == "C4") & (table.reading == "law")).values)
    found = dict(zip(table.row.values.tolist(), table.verdict.values.tolist(), strict=True))
    for name in ("output bias", "feature kernel bias", "gradient kernel bias", "w2 h", "w2 b"):
        assert found[f"C4 law reused → independent {name}"] == "remains", name
        assert found[f"C4 law reused → reused {name}"] in ("vanishes", "undecided"), name
    assert found["C4 law reused → reused w2 h"] == "vanishes"
    assert found["C4 law first step reused → independent"] == "remains"
    assert found["C4 law first step reused → reused"] == "vanishes"
    assert verdict(tree, "C4", "law") == "fails" and verdict(tree, "C2", "law") == "holds"


@pytest.mark.parametrize("signal", [0.04, 9.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_biases_are_shares_of_what_learning_moves(signal, channels):
    """A bias of a tenth of √S counts as a hundredth of S, whatever S, its sign, and the number of outputs."""
    small = -0.1 * signal**0.5
    tree = keep(
        planted(bias=lambda network, limit, n, L: small + 0 * n, signal=signal, seeds=60, common=0.0), "law"
    )
    law = tree["law"].to_dataset()
    noise = 0.02 * (law.output_bias - small)
    law = law[["output_bias"]].assign(output_bias=small + noise).isel(sample=slice(0, channels))
    tree["law"] = xr.DataTree(law)
    row = rates(tree).sel(row="C4 law reused → independent output bias")
    assert row.effect_low <= 0.01 <= row.effect_high and row.effect_high - row.effect_low < 0.005
    assert row.verdict == "remains" and row.constant_low > 0


@pytest.mark.parametrize(
    ("initial", "expected"),
    [
        (lambda n, L: 0.2 / L + 0.3 / n, "holds"),
        (lambda n, L: 0.2 / L + 0.3 / n + L / n, "fails"),
        (lambda n, L: 0.2 / L + 0.3 / n + 0.02 * n / L, "fails"),
        (lambda n, L: 0.2 / L + 0.3 / n + 0.2, "fails"),
    ],
    ids=["commuting", "L/n", "n/L", "a constant"],
)
def test_initial_kernels_get_their_verdict_in_law(initial, expected):
    tree = keep(planted(initial=initial, seeds=60), "law")
    assert verdict(tree, "C6", "law") == expected and verdict(tree, "C6", "ms") == "not measured"


def test_limits_that_differ_in_noise_alone_are_equal_in_law():
    """Their marginals are as far apart as chance has it, and no mean differs."""
    nothing = lambda network, limit, n, L: 0 * n
    table = rates(keep(planted(bias=nothing, w2=nothing, seeds=60), "law"))
    decided = table.verdict.values[
        ((table.reading == "law") & (table.claim == "C4") & (table.quantity != "f")).values
    ]
    assert set(decided) <= {"vanishes", "not measured"} and (decided == "vanishes").sum() >= 16


def test_one_altered_kernel_remains():
    tree = keep(planted(bias=lambda network, limit, n, L: 0 * n, seeds=60), "law")
    law = tree["law"].to_dataset()
    law["gradient_kernel_bias"] = law["gradient_kernel_bias"] + 0.2
    tree["law"] = xr.DataTree(law)
    table = rates(tree)
    found = {
        row: v
        for row, v in zip(table.row.values, table.verdict.values, strict=True)
        if row.startswith("C4 law reused → independent")
    }
    assert found["C4 law reused → independent gradient kernel bias"] == "remains"
    assert found["C4 law reused → independent feature kernel bias"] == "vanishes"


def test_datasets_have_the_contracts_form():
    found, table = nfd_jax.verdicts(xr.DataTree()), rates(xr.DataTree())
    assert found.sizes == {"claim": 6, "reading": 3} and set(found) == {"verdict", "reason", "statement"}
    assert list(found.claim.values) == list(CLAIMS) and list(found.reading.values) == list(READINGS)
    numbers = {f"{name}{end}" for name in ("slope", "constant", "effect") for end in ("", "_low", "_high")}
    assert table.dims == ("row",) or set(table.sizes) == {"row"}
    assert numbers | {"smallest_effect_seen", "verdict", "text"} <= set(table)
    assert {"claim", "reading", "quantity", "axis", "width", "depth", "step"} <= set(table.coords)
    assert len(set(table.row.values)) == table.sizes["row"]
    assert all({"long_name", "units"} <= set(one[name].attrs) for one in (found, table) for name in one)
    assert set(table.claim.values) == set(CLAIMS) and set(table.reading.values) == set(READINGS)


def test_statements_say_where_they_come_from():
    found = nfd_jax.verdicts(xr.DataTree()).statement.sel(reading="ms")
    assert "abstract" in found.sel(claim="C4").item() and "assumption" in found.sel(claim="C5").item()
    assert "not in its abstract" in found.sel(claim="C6").item()


def bad_trees() -> dict[str, xr.DataTree]:
    whole = planted(seeds=8, rates=(0.1, 0.5), widths=(64, 128, 256), depths=(8, 16, 32))

    def changed(name: str, change) -> xr.DataTree:
        """The group changed, and what verdicts on it need."""
        groups = {path: node.to_dataset() for path, node in keep(whole, "compare", name).children.items()}
        groups[name] = change(groups[name])
        return xr.DataTree.from_dict(
            {"/": xr.Dataset(attrs=whole.attrs), **{f"/{k}": v for k, v in groups.items()}}
        )

    nan = lambda data: data.where(False)
    small = {"widths": (64, 128, 256), "depths": (8, 16, 32)}
    trees = {"empty": xr.DataTree(), "no attributes": planted(seeds=8, attrs={}, **small)}
    for name in whole.children:
        trees[f"without {name}"] = keep(whole, *({"compare", "coupling"} - {name}))
        if name in ("finite", "status"):
            kept = keep(whole, "compare").children.items()
            trees[f"without {name}"] = xr.DataTree.from_dict(
                {f"/{key}": node.to_dataset() for key, node in kept if key != name}
            )
    for name in ("compare", "coupling", "law", "finite"):
        for variable in whole[name].data_vars:
            trees[f"without {name}/{variable}"] = changed(
                name, lambda data, variable=variable: data.drop_vars(variable)
            )
        trees[f"{name} all NaN"] = changed(name, nan)
    trees["one width"] = planted(seeds=8, widths=(128,))
    trees["one depth"] = planted(seeds=8, depths=(16,))
    trees["two by two"] = planted(seeds=8, widths=(64, 128), depths=(8, 16))
    trees["one seed"] = planted(seeds=1, **small)
    trees["two seeds"] = planted(seeds=2, **small)
    trees["one step"] = planted(seeds=8, steps=1, **small)
    trees["no learning"] = planted(seeds=8, rates=(0.0,), **small)
    trees["config that is no YAML"] = planted(seeds=8, attrs={"config": "[: {"}, **small)
    trees["reused alone"] = changed("compare", lambda data: data.sel(backward_weights=["reused"]))
    trees["no independent limit"] = changed(
        "compare", lambda data: data.sel(limit_backward_weights=["reused"])
    )
    trees["no seed coordinate"] = changed("compare", lambda data: data.drop_vars("seed"))
    trees["no width coordinate"] = changed("compare", lambda data: data.drop_vars("width"))
    trees["text in place of numbers"] = changed("compare", lambda data: xr.full_like(data, "a", dtype=object))
    trees["holes"] = changed("compare", lambda data: data.where((data.width != 64) | (data.depth != 8)))
    trees["nothing done"] = changed("status", xr.zeros_like)
    trees["infinite"] = changed("compare", lambda data: data.where(data.seed != 0, np.inf))
    trees["no dimensions"] = changed("compare", lambda data: xr.Dataset({"limit_error_ms": 1.0}))
    light = ("no attributes", "two by two", "one seed", "one step", "no learning", "config that is no YAML")
    return {
        name: keep(tree, "compare", "coupling") if name in light else tree for name, tree in trees.items()
    }


BAD = bad_trees()


@pytest.mark.parametrize("name", BAD)
def test_bad_trees_get_verdicts_and_reasons(name):
    found = nfd_jax.verdicts(BAD[name])
    assert set(found.verdict.values.ravel()) <= set(VERDICTS)
    assert np.all(found.reason != "")
    lacking = found.reason.values[(found.verdict == "not measured").values]
    assert all("add" in text or "measured" in text for text in lacking)


@pytest.mark.parametrize(
    ("name", "claim", "words"),
    [
        ("without coupling", "C2", "coupling"),
        ("without compare", "C4", "limit_error"),
        ("without compare/reference_error_ms", "C6", "reference_particles"),
        ("without finite/gradient_shift_ms", "C4", "gradient_shift_ms"),
        ("without spectrum", "C5", "spectrum"),
        ("one width", "C4", "widths"),
        ("one depth", "C4", "depths"),
        ("one step", "C2", "second step"),
        ("no learning", "C4", "learning rate above 0"),
        ("nothing done", "C4", "finished cells"),
        ("no independent limit", "C4", "limit backward weights independent"),
    ],
)
def test_what_is_missing_is_named(name, claim, words):
    assert verdict(BAD[name], claim) == "not measured" and words in reason(BAD[name], claim)


def test_few_seeds_decide_nothing_about_outputs():
    table = rates(keep(planted(seeds=7, error=crossed(lambda n, L: 0.1 + 0.3 / n)), "compare"))
    outputs = ((table.quantity == "f") & (table.claim == "C4")).values
    assert set(table.verdict.values[outputs]) <= {"undecided", "not measured"}
    three = rates(keep(planted(seeds=3), "compare", "coupling", "response")).verdict.values
    assert set(three) <= {"undecided", "not measured", "not detectable"}


def test_diverged_cells_leave_it_undecided_and_finite_rates_are_chosen():
    tree = keep(planted(rates=(0.1, 0.5), error=crossed(lambda n, L: 0.1 + 0.3 / n)), "compare")
    cells = tree["status"].to_dataset()
    lost = (cells.seed < 6) & (cells.learning_rate == 0.5) & (cells.width == 512)
    tree["status"] = xr.DataTree(cells.where(~lost, 2))
    table = rates(tree).sel(row="C4 ms reused → independent h")
    assert table.learning_rate == 0.1 and table.verdict == "remains"
    both = (cells.seed < 6) & (cells.width == 512)
    tree["status"] = xr.DataTree(cells.where(~both, 2))
    table = rates(tree).sel(row="C4 ms reused → independent h")
    assert table.verdict == "undecided" and "diverged" in table.reason.item()


def test_a_dropped_coupling_gives_the_independent_networks_verdicts():
    """A network whose coupling is dropped is the independent one: same numbers, same rows."""
    tree = keep(persisting(error=crossed(lambda n, L: 0.1 + 0.3 / n), reference=None), "compare", "law")
    dropped = xr.DataTree.from_dict({"/": xr.Dataset(attrs=tree.attrs)})
    for name in ("finite", "compare", "law", "status"):
        data = tree[name].to_dataset()
        alone = data.sel(backward_weights=["independent", "independent"])
        dropped[name] = xr.DataTree(alone.assign_coords(backward_weights=list(FLAGS)))
    table, own = rates(dropped), rates(tree)
    for reading in ("ms", "law"):
        for limit in FLAGS:
            mine = table.row.str.startswith(f"C4 {reading} reused → {limit}").values
            names = [
                name.replace(f"reused → {limit}", f"independent → {limit}") for name in table.row.values[mine]
            ]
            for key in ("verdict", "constant", "effect_low", "slope"):
                there = [name in own.row.values for name in names]
                np.testing.assert_array_equal(
                    table[key].values[mine][there],
                    own[key].sel(row=[n for n in names if n in own.row.values]).values,
                )
    assert verdict(tree, "C4") == "fails" and verdict(dropped, "C4") != "fails"


def test_looks_widen_intervals_and_coverage_is_said():
    tree = keep(planted(reference=None), "compare")
    once = rates(tree).sel(row="C4 ms reused → independent h")
    tree.attrs["looks"] = 5
    again = rates(tree).sel(row="C4 ms reused → independent h")
    assert again.constant_high - again.constant_low > 1.1 * (once.constant_high - once.constant_low)
    assert "initialization only" in rates(tree).coverage
    tree.attrs["config"] = "problem: {data_seed: per_seed}\n"
    assert "initialization and data" in rates(tree).coverage


@pytest.mark.parametrize("margin", [0.0, -1.0, 1.0, float("nan")])
def test_margins_are_shares(margin):
    with pytest.raises(ValueError, match="margin"):
        nfd_jax.verdicts(xr.DataTree(), margin=margin)


@pytest.mark.parametrize(
    "lines",
    [
        "import nfd_jax; nfd_jax.verdicts(t); nfd_jax.verdicts.rates(t); nfd_jax.verdicts(t)",
        "from nfd_jax.verdicts import rates, verdicts; import nfd_jax as n; rates(t); n.verdicts(t); "
        "verdicts(t)",
        "from nfd_jax import verdicts; from nfd_jax.verdicts import rates; verdicts(t); rates(t); "
        "verdicts.rates(t)",
        "import nfd_jax.verdicts as v; v(t); v.rates(t); assert 'jax' not in sys.modules",
    ],
)
def test_the_package_is_the_function_whatever_is_imported_first(lines):
    code = f"import sys, xarray as xr; t = xr.DataTree(); {lines}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_large_grid_is_judged_fast():
    tree = planted(seeds=100, widths=(64, 128, 256, 512, 1024))
    nfd_jax.verdicts(keep(tree, "spectrum"))
    start = time.process_time()
    nfd_jax.verdicts(tree)
    assert time.process_time() - start < 6  # 2 s on an idle core
