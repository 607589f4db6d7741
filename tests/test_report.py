"""Summary, page, figures and `nfd show` on trees planted by law: what they say is true of the numbers."""

import io
import re
import struct
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from _report_trees import config, judged_tree, stored, whole, with_rates, without
from rich.console import Console

from nfd_jax import report, verdicts
from nfd_jax.report import _plot, _show
from nfd_jax.report._claims import cards, decides, deciding, judged, step, tidy
from nfd_jax.report._distances import distance
from nfd_jax.report._draw import rendered
from nfd_jax.report._fig_error import learning_rates
from nfd_jax.report._fig_law import bias_squared
from nfd_jax.report._fig_training import losses
from nfd_jax.report._fig_transfer import transfer
from nfd_jax.report._fig_variants import variant_drawings, varying
from nfd_jax.report._figures import FIGURES, drawings
from nfd_jax.report._numbers import Estimate, count, number, percent, percents, signed, slope
from nfd_jax.report._page import sweep_page
from nfd_jax.report._pick import in_blocks
from nfd_jax.report._plot import styled
from nfd_jax.report._rates_table import by_learning_rate
from nfd_jax.report._run import remarks
from nfd_jax.report._trends import mean, moves, trend
from nfd_jax.store import StoreError
from nfd_jax.verdicts import CLAIMS, View

NOT_HERE = {"learning_rates", "transfer", "residual"}  # need several rates, or bounded histories


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    """With its verdicts, as a run stores them at its end."""
    return judged_tree(whole())


@pytest.fixture(scope="module")
def stand_in():
    """Plain zarr in place of a store, whose own tests are elsewhere."""
    import nfd_jax.store as store

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            store,
            "open_results",
            lambda path: xr.open_datatree(Path(path) / "results.zarr", engine="zarr").load(),
        )
        patch.setattr(store, "cell_states", lambda path: store.open_results(path)["status/cell"].values)
        yield


class Page(HTMLParser):
    """A page's sections, images and whatever it would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.images, self.fetched, self.links, self.open = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        if tag == "img":
            self.images.append(found)
        if tag in ("script", "link", "iframe", "object", "video"):
            self.fetched.append(tag)
        if tag == "a":
            self.links.append(found["href"])
        if tag not in ("img", "meta", "br", "path", "circle", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass


def written(folder: Path) -> tuple[str, Page]:
    path = report.write_report(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and not page.fetched
    assert not re.search(r"https?:|url\((?!#)|@import", text)
    assert all(image["src"].startswith("data:image/png") for image in page.images)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert len(text) < 1.5e6
    return text, page


@pytest.fixture(scope="module")
def front(tree, stand_in, tmp_path_factory) -> tuple[Path, str, Page]:
    """A folder with everything in it, its report written where older figures lay."""
    folder = stored(tree, tmp_path_factory.mktemp("whole"))
    (folder / "figures").mkdir()
    for name in ("phase_map-old.png", "loss.svg", "mine.png"):
        (folder / "figures" / name).touch()
    (folder / "log.jsonl").write_text(
        '{"time": 1.0e9, "event": "started"}\n{"time": 1.0000e9, "event": "finished"}\n'
    )
    return folder, *written(folder)


def test_the_summary_says_what_is_stored(tree):
    first, second, third = report.summary_lines(tree)
    view = View.of(tree)
    for line, limit in ((first, "reused"), (second, "independent")):
        found = distance(view, "reused", limit)
        error = tree["compare/limit_error_ms"].sel(
            backward_weights="reused", limit_backward_weights=limit, quantity="h"
        )
        error = error.isel(learning_rate=0, step=-1).sel(width=512)
        assert f"mean square {number(float(error.sel(depth=32).mean('seed')))}," in line and limit in line
        slope = np.polyfit(np.log(error["depth"]), np.log(error.mean("seed")), 1)[0]
        assert abs(found.slope.value - slope) < 1e-9 and signed(slope) in line
        moved = float(
            tree["finite/feature_shift_ms"]
            .sel(backward_weights="reused", width=512, depth=32)
            .isel(step=-1)
            .mean("seed")
            .max()
        )
        assert percent(np.sqrt(float(error.sel(depth=32).mean("seed")) / moved)) in line
    verdicts = judged(tree).verdicts["verdict"].sel(reading="ms").values.tolist()
    held, failed = verdicts.count("holds"), verdicts.count("fails")
    assert (
        f"{held} hold" in third and f"{failed} fail" in third and f"{len(CLAIMS) - held - failed} " in third
    )


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (("compare",), "No limit was compared with"),
        (("finite", "limit", "compare", "coupling"), "No cell is finished yet"),
    ],
)
def test_the_summary_of_less(tree, drop, words):
    lines = report.summary_lines(without(tree, *drop))
    assert words in " ".join(lines) and lines[-1].startswith("Claims C1–C6")


def test_two_depths_give_no_slope(tree):
    two = tree.map_over_datasets(lambda data: data.sel(depth=[8, 32]) if "depth" in data.dims else data)
    text = " ".join(report.summary_lines(two))
    assert "slope −" not in text and text.count("two depths, no slope") == 2


@pytest.mark.parametrize(
    ("slope", "word"),
    [
        (Estimate(-1.0, -1.1, -0.9), "falls with L"),
        (Estimate(0.0, -0.1, 0.1), "stays level"),
        (Estimate(0.5, 0.4, 0.6), "grows"),
        (Estimate(-0.2, -0.25, -0.1), "falls slowly"),
        (Estimate(-0.2, -0.9, 0.5), "no clear trend"),
    ],
)
def test_words_for_slopes(slope, word):
    assert word in moves(slope) and "−" in moves(slope) + "−"


def test_slopes_cover_the_truth():
    """95 % intervals of the slope of 1/L at 8 seeds, whose noise is shared by all depths in part."""
    rng, L, hits = np.random.default_rng(0), np.array([4, 8, 16, 32]), 0
    for _ in range(200):
        noise = np.exp(0.3 * rng.normal(size=(8, 1)) + 0.2 * rng.normal(size=(8, 4)))
        found = trend(L, noise / L)
        hits += found.low < -1 < found.high
    assert abs(hits / 200 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 200)


def test_numbers_are_written_one_way():
    assert (
        number(-0.0123) == "−0.0123"
        and number(3.2e-5) == "3.2e−5"
        and number(0) == "0"
        and signed(-1) == "−1.00"
    )
    assert (
        percents(Estimate(0.123, 0.1, 0.15)) == "12 % [10, 15]"
        and percent(0) == "0 %"
        and percent(0.0042) == "0.42 %"
    )
    assert slope(Estimate(-1.02, -1.1, -0.9)) == "−1.02 [−1.10, −0.90]"
    assert slope(Estimate(0.0021, 0.0012, 0.0038)) == "0.002 [0.001, 0.004]"
    assert slope(Estimate(0.0, 0.0, 0.0)) == "0.0000 [0.0000, 0.0000]" and slope(Estimate(0.5)) == "0.50"
    assert count(1, "seed") == "1 seed" and count(2, "seed") == "2 seeds"
    assert tidy("slope -1.06 [-1.1, inf], 4.3e-02, 20%, n-1") == "slope −1.06 [−1.1, ∞], 0.043, 20 %, n-1"
    assert mean(np.array([1.0])).low != mean(np.array([1.0])).low  # one seed has no interval


def test_cards_carry_the_verdict_and_the_row_it_names(tree):
    found = judged(tree)
    for card in cards(found):
        assert card.verdict == found.verdict(card.claim)
        row = deciding(found, card.claim, "ms")
        assert row is not None and row["claim"] == card.claim and row["reading"] == "ms"
        name = row["row"].removeprefix(f"{card.claim} ms ")
        assert f"{name}:" in found.reason(card.claim)
        if card.kind != "open":
            assert re.search(r"\d", card.decides)
        else:
            assert card.next


def test_the_next_step_is_the_end_of_a_reason():
    assert (
        step("effect 4 % reaches both sides; seeds alone will not settle it: add widths and depths")
        == "add widths and depths"
    )
    assert step("slope -1 [-2, 0] reaches both sides of -0.8: add depths or seeds") == "add depths or seeds"
    assert step("effect 5%; about 61 seeds would settle it") == "about 61 seeds would settle it"


def test_stored_verdicts_are_shown_as_they_are(tree):
    found = judged(tree)
    changed = found.verdicts.copy(deep=True)
    changed["verdict"] = changed["verdict"].astype(object)
    changed["verdict"][...] = "undecided"
    again = judged(xr.DataTree.from_dict({"/rates": found.rates, "/verdicts": changed}))
    assert {card.symbol for card in cards(again)} == {"?"}


def test_the_first_screen_comes_first(front):
    _, text, page = front
    start = text[text.index("<header") : text.index("</header>")]
    assert start.count("<img") == 2 and start.count("class=card>") == len(CLAIMS)
    assert re.search(r"<p class=lead>[^<]*miss the reused limit by \d", start)
    assert "abstract" in start and "assumption" in start and "summaries" in start and "not read" in start
    assert text.index("<header") < text.index("c0ffee")
    assert page.ids[0] == "front"


def test_the_page_holds_what_it_must(front):
    _, text, page = front
    assert set(page.ids) >= {
        *CLAIMS,
        "compared",
        "readings",
        "training",
        "run",
        "budget",
        "method",
        "glossary",
        "reproduce",
    }
    assert "a &lt;device&gt;" in text and "<device>" not in text
    assert "nfd run config.yaml" in text and "2001-09-09" in text and "To cite" in text
    assert text.count("<details>") >= len(CLAIMS) + 3
    assert all(len(image["alt"]) > 20 for image in page.images)
    assert len({image["src"] for image in page.images}) == len(page.images)


def test_symbols_stand_beside_words(front):
    _, text, _ = front
    marks = re.findall(r"<span class='mark (\w+)'><b>(.)</b> (?:<a[^>]*>C\d</a> )?([^<]+)</span>", text)
    assert len(marks) > 4 * len(CLAIMS)
    for kind, symbol, word in marks:
        assert {"holds": "✓", "fails": "✗"}.get(kind, symbol) == symbol and (kind == "open") == (
            symbol in "?–"
        )
        assert word.strip()


def pixels(png: Path) -> tuple[int, int]:
    raw = png.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", raw[16:24])


def test_figures_are_files_and_no_older_ones_stay(front):
    folder = front[0] / "figures"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.png" for name in FIGURES.keys() - NOT_HERE
    } | {"mine.png"}
    for path in folder.glob("[!m]*.png"):
        width, height = pixels(path)
        assert width > 500 and height > 300


def test_the_same_results_give_the_same_bytes(front, tree):
    with styled():
        whole_png, _ = rendered(losses(View.of(tree), held_out=False))
    assert whole_png == (front[0] / "figures" / "loss.png").read_bytes()


@pytest.mark.parametrize(
    ("drop", "lost"),
    [
        (("limit", "compare", "law"), {
            "front_error", "limit_error_depth", "limit_error_width", "joint_limits", "law",
        }),
        (("coupling", "spectrum", "kernels", "response"), {
            "coupling_depth", "coupling_width", "eigenvalues", "nondegeneracy", "kernels", "response",
        }),
    ],
)  # fmt: skip
def test_any_groups_may_be_missing(tree, drop, lost):
    less = without(tree, *drop)
    if "kernels" in drop:
        less["finite"].dataset = less["finite"].to_dataset().drop_vars("feature_shift_ms")
        lost = lost | {"coordinate_check"}
    with styled():
        assert {drawing.name for drawing in drawings(less)} == FIGURES.keys() - NOT_HERE - lost


def cells(tree: xr.DataTree, **values) -> xr.DataTree:
    """The tree with some cells in another state, and NaN there as a store has it."""
    groups = {name: node.to_dataset(inherit=False) for name, node in tree.children.items()}
    state = groups["status"]["cell"].copy(deep=True)
    for name, where in values.items():
        state.loc[where] = {"pending": 0, "diverged": 2, "failed": 3}[name]
    groups["status"] = xr.Dataset({"cell": state})
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=tree.attrs), **groups})


def test_what_is_missing_is_counted_and_said_once(tree, stand_in, tmp_path):
    total = int(tree["status/cell"].size)
    spoiled = cells(
        tree, diverged={"width": 64, "depth": 4, "backward_weights": "reused"}, pending={"width": 512}
    )
    text, _ = written(stored(spoiled, tmp_path))
    pending, diverged = 2 * 4 * 8, 8
    assert f"{pending} cells of {total} pending" in text and text.count("Unfinished:") == 1
    assert f"{diverged} cells with numbers that are not finite" in text
    assert f"{total - pending - diverged} of {total} done, {diverged} diverged, {pending} pending" in text
    assert distance(View.of(spoiled), "reused", "reused").width == 256


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    "groups, steps",
    [
        (("limit", "compare", "law"), slice(None)),
        (("limit",), slice(1, None)),
        pytest.param(("spectrum", "kernels", "response"), slice(1, None), marks=pytest.mark.long),
        pytest.param(("finite",), slice(1, None), marks=pytest.mark.long),
        pytest.param(("limit",), slice(None), marks=pytest.mark.long),
    ],
)
def test_what_has_no_finite_value_is_left_out(tree, groups, steps):
    spoiled = without(tree, "rates", "verdicts")
    for group in groups:
        data = spoiled[group].to_dataset().copy(deep=True)
        for values in data.data_vars.values():
            if "step" in values.dims:
                values[{"step": steps}] = np.nan
        spoiled[group].dataset = data
    rates, judged = verdicts.conclusions(spoiled, margin=0.0025)
    whole = xr.DataTree.from_dict({"rates": rates, "verdicts": judged})
    spoiled["rates"], spoiled["verdicts"] = whole["rates"], whole["verdicts"]
    assert report.summary_lines(spoiled) and "<h1>" in sweep_page(spoiled, {})
    with styled():
        assert all(drawing.title for drawing in drawings(spoiled))


def test_a_sweep_without_a_finished_cell_has_a_report(tree, stand_in, tmp_path):
    none = without(tree, "rates", "verdicts").map_over_datasets(
        lambda data: data * (0 if "cell" in data else np.nan)
    )
    none.attrs = tree.attrs
    text, page = written(stored(none, tmp_path))
    assert "No cell is finished yet" in text and not page.images
    assert text.count("not measured") >= len(CLAIMS)


def test_learning_rates_stand_side_by_side(tree):
    several = with_rates(tree)
    table = by_learning_rate(several)
    for rate in (0.125, 0.25, 0.5, 1.0, 2.0):
        assert f"<td>{rate:g}</td>" in table
    with styled():
        assert NOT_HERE - {"residual"} < {drawing.name for drawing in drawings(several)}


def test_learning_rates_of_independent_networks_alone(tree):
    independent = with_rates(tree).map_over_datasets(
        lambda data: data.sel(backward_weights=["independent"]) if "backward_weights" in data.dims else data
    )
    with styled():
        drawn = learning_rates(View.of(independent))
    assert "Network with independent backward weights" in drawn.caption


def networks(losses: np.ndarray, flags: list[str], rates=(1.0,)) -> xr.DataTree:
    """Losses (flags, rates, seeds, steps) of one width and depth as results."""
    dims = ("backward_weights", "learning_rate", "width", "depth", "seed", "step")
    coords = {"backward_weights": flags, "learning_rate": list(rates), "width": [64], "depth": [4]}
    finite = xr.Dataset({"loss": (dims, losses[:, :, None, None])}, coords)
    return xr.DataTree.from_dict({"/finite": finite})


def best(rates: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    """The best rate of losses (seeds, rates)."""
    found = verdicts.transfer(networks(losses.T[None, ..., None], ["reused"], rates))
    return {name: found[name].item() for name in ("optimum_low", "optimum_high", "inner")}


def gaps(*both: np.ndarray) -> tuple[np.ndarray, ...]:
    """The gap of losses (seeds, steps) of reused and independent networks, with its ends, each (steps,)."""
    found = verdicts.relative_gap(networks(np.stack(both)[:, None], ["reused", "independent"])).squeeze()
    return tuple(found[name].values for name in ("gap", "gap_low", "gap_high"))


def test_optima_cover_the_truth():
    rng, rates, hits = np.random.default_rng(1), 2.0 ** np.arange(-4, 3), 0
    for _ in range(60):
        curve = np.log(rates / 0.6) ** 2
        losses = (
            1
            + curve
            + 0.2 * rng.normal(size=(16, 1)) * (np.log(rates) + 1)
            + 0.05 * rng.normal(size=(16, len(rates)))
        )
        found = best(rates, losses)
        hits += found["optimum_low"] <= 0.6 <= found["optimum_high"]
    assert hits >= 60 * 0.95 - 3 * np.sqrt(60 * 0.95 * 0.05)
    assert not best(rates, 1 + np.log(rates / 100) ** 2 + np.zeros((4, 1)))["inner"]


def test_transfer_says_where_the_optimum_lies(tree):
    best = {4.0: 1.0, 8.0: 0.7, 16.0: 0.5, 32.0: 0.5, np.inf: 0.5}
    with styled():
        title = transfer(View.of(with_rates(tree, best))).title
    found = re.search(r"best η ([\d.]+) at L = 4, ([\d.]+) at L = 32, ([\d.]+) in the limit", title)
    assert found is not None, title
    np.testing.assert_allclose([float(word) for word in found.groups()], [1.0, 0.5, 0.5], rtol=0.05)
    assert "is 0 % above its best" in title


def test_gaps_are_seen_where_they_are_and_only_there():
    """2 % planted is seen; of networks that differ by noise alone 0 is in the interval."""
    rng, steps = np.random.default_rng(2), np.arange(6)
    noise = lambda: 1 + 0.01 * rng.normal(size=(16, 1)) * steps
    curve = 0.8**steps
    reused = curve * noise()
    _, low, high = gaps(reused, reused + 0.02 * (1 - curve))
    assert np.all((low[2:] < 0.02 + 1e-9) & (high[2:] > 0.02 - 1e-9)) and np.all(low[2:] > 0)
    inside = 0
    for _ in range(100):
        _, low, high = gaps(curve * noise(), curve * noise())
        inside += low[-1] < 0 < high[-1]
    assert inside > 95 - 3 * np.sqrt(0.95 * 0.05 * 100)
    assert np.isnan(gaps(reused, reused)[0][0])


def test_biases_are_squared_without_their_noise():
    rng = np.random.default_rng(3)
    values = xr.DataArray(0.3 + rng.normal(size=(400, 2, 5)), dims=("seed", "width", "sample"))
    found, error = bias_squared(values, "width")
    np.testing.assert_array_less(np.abs(found - 0.09), 3 * error)
    none, error = bias_squared(values - 0.3, "width")
    np.testing.assert_array_less(np.abs(none), 3 * error)


def variants(folder: Path, tree: xr.DataTree, changes: dict[str, dict]) -> Path:
    for name, own in changes.items():
        variant = xr.DataTree.from_dict({"/": xr.Dataset(attrs=tree.attrs | {"config": config(**own)}), **{
            key: node.to_dataset(inherit=False) for key, node in tree.children.items()
        }})  # fmt: skip
        stored(variant, folder / name)
    return folder


def test_variants_over_the_horizon_have_a_phase_map(tree, stand_in, tmp_path):
    changes = {f"T{T:g}": {"horizon": T} for T in (0.5, 2.0)}
    text, page = written(variants(tmp_path, with_rates(tree), changes))
    assert set(page.links) >= {f"{name}/report.html" for name in changes}
    assert [path.stem for path in (tmp_path / "figures").glob("*.png")] == ["phase_map-tanh-all"]
    for name in changes:
        assert f"horizon {changes[name]['horizon']}" in text and f"variant-{name}" in page.ids


def test_parametrizations_richness_and_activations_side_by_side(tree, tmp_path):
    changes = {
        "mup": {"parametrization": "mup"},
        "depth": {},
        "relu": {"activation": "relu", "richness": 0.3},
    }
    variants(tmp_path, with_rates(tree), changes)
    trees = {
        name: xr.open_datatree(tmp_path / name / "results.zarr", engine="zarr").load() for name in changes
    }
    assert set(varying(trees)["mup"]) == {"problem.parametrization", "problem.activation", "problem.richness"}
    with styled():
        drawn = {drawing.name for drawing in variant_drawings(trees)}
    assert drawn == {
        "parametrizations",
        "optima",
        "variants",
    }  # two variants share γ = 1: nothing is a function of γ
    richer = {name: trees[name] for name in ("depth", "relu")}
    with styled():
        assert "richness" in {drawing.name for drawing in variant_drawings(richer)}


def test_runs_are_compared_on_purpose(tree, stand_in, tmp_path):
    variants(tmp_path, tree, {"one": {}, "two": {"activation": "relu"}})
    path = report.write_comparison([tmp_path / "one", tmp_path / "two"])
    text = path.read_text(encoding="utf-8")
    assert "2 runs compared" in text and "../../two/report.html" in text and "relu" in text
    assert (path.parent / "figures" / "variants.png").exists()
    with pytest.raises(ValueError, match="1 folders to compare, allowed: two or more"):
        report.write_comparison([tmp_path / "one"])
    with pytest.raises(StoreError, match="no results"):
        report.write_comparison([tmp_path / "one", tmp_path / "nothing"])


def printed(folder: Path, **options) -> str:
    stream = io.StringIO()
    report.show(folder, Console(file=stream, width=150), **options)
    return stream.getvalue()


def test_show_prints_progress_and_verdicts(tree, stand_in, tmp_path):
    spoiled = cells(tree, failed={"width": 64})
    text = " ".join(printed(stored(spoiled, tmp_path / "run")).split())
    assert all(claim in text for claim in CLAIMS) and "192 of 256 cells done, 64 failed" in text
    found = judged(spoiled)
    assert all(found.verdict(claim) in text for claim in CLAIMS)
    assert decides(deciding(found, "C4", "ms"))[:12] in text
    with pytest.raises(StoreError, match="no results"):
        report.show(tmp_path / "nothing", Console(file=io.StringIO()))


def test_show_watches_variants_until_all_are_done(tree, stand_in, tmp_path, monkeypatch):
    small = tree.map_over_datasets(lambda data: data.sel(depth=[8, 32]) if "depth" in data.dims else data)
    begun = cells(small, pending={"width": 512})
    ahead = iter(
        [
            lambda: stored(begun, tmp_path / "first"),
            lambda: stored(small, tmp_path / "first"),
            lambda: stored(small, tmp_path / "second"),
            lambda: (tmp_path / "report.html").touch(),
        ]
    )
    looks = []
    state = lambda: {name: _show.progress(path)["pending"] for name, path in _show.members(tmp_path).items()}
    monkeypatch.setattr(time, "sleep", lambda seconds: (looks.append(state()), next(ahead)())[0])
    monkeypatch.setattr(_show, "cards", lambda found: [])
    monkeypatch.setattr(_show, "judged", lambda tree: None)
    monkeypatch.setattr(_show, "counted", lambda found: "")
    text = printed(tmp_path, watch=True)
    assert looks == [{}, {"first": 32}, {"first": 0}, {"first": 0, "second": 0}]
    assert "first" in text and "second" in text and next(ahead, None) is None


def test_show_stops_at_an_interrupt_and_stands_a_store_that_cannot_be_read(
    tree, stand_in, tmp_path, monkeypatch
):
    stored(cells(tree, pending={"width": 512}), tmp_path)
    (tmp_path / "results.zarr" / "zarr.json").write_text("{")

    def refuse(path):
        raise StoreError(f"{path}: cannot be read")

    monkeypatch.setattr("nfd_jax.store.open_results", refuse)

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert "cannot be read at the moment" in printed(tmp_path, watch=True)


def test_long_curves_are_means_over_blocks_and_short_ones_are_as_they_are():
    steps, values = np.arange(300), np.random.default_rng(0).standard_normal((4, 300))
    x, y, words = in_blocks(steps, values)
    assert x.shape == (37,) and y.shape == (4, 37) and "mean over 8 updates" in words
    np.testing.assert_allclose(y[:, 1], values[:, 8:16].mean(1))
    assert x[1] == 11.5
    x, y, words = in_blocks(steps[:60], values[:, :60])
    np.testing.assert_array_equal(y, values[:, :60])
    assert words == "" and len(x) == 60


@pytest.mark.parametrize(
    ("count", "labelled"), [(1, [0]), (5, [0, 1, 2, 3, 4]), (300, list(range(0, 300, 50)))]
)
def test_steps_are_labelled_by_round_numbers(count, labelled):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    _plot.step_axis(ax, np.arange(count))
    assert ax.get_xticks().tolist() == labelled


def test_a_phase_map_of_a_single_learning_rate_has_cells_to_see():
    from matplotlib.figure import Figure

    from nfd_jax.report import _fig_phase

    ax, grid = Figure().add_subplot(), np.array([[0.1, 0.2, 0.4]])
    _fig_phase._heat(ax, grid, [0.5, 1.0, 2.0], [0.5], grid.ravel())
    [mesh] = ax.collections
    corners = mesh.get_coordinates().reshape(-1, 2)
    assert np.ptp(corners, axis=0).tolist() == [3.0, 1.0]


@pytest.mark.parametrize(
    "low,high", [(0.95, 1.35), (0.98, 1.03), (9.6, 10.9), (0.18, 0.9), (3.0, 40.0), (1e-9, 0.2)]
)
def test_labels_of_log_axes_do_not_overlap(low, high):
    sheet = _plot.Sheet(1, 1)
    ax = sheet.axes[0, 0]
    ax.set_ylim(low, high)
    _plot.log_y(ax)
    ticks = np.array([tick for tick in ax.get_yticks() if low <= tick <= high])
    gaps = np.diff(np.log(ticks)) / np.log(high / low)
    assert len(ticks) > 2 and gaps.min() > 0.04, ticks


@pytest.mark.parametrize("steps, coarse", [(32, True), (128, False)])
def test_a_limit_no_finer_than_the_deepest_network_is_remarked(tree, steps, coarse):
    """The sweep's deepest networks have 32 layers."""
    config = View.of(tree).config
    changed = View(tree, config | {"limit": {**config["limit"], "depth_steps": steps}}, None)
    assert max(config["finite"]["depths"]) == 32
    assert ("A coarse limit" in remarks(changed, [], {})) == coarse
