"""The report, its figures and `nfd show`, on stores filled by law: nothing is simulated here."""

import io
import re
import struct
import time
import zlib
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from nfd_jax import report
from nfd_jax.config import SweepConfig
from nfd_jax.report import _report, _report_variants, _show
from nfd_jax.report._budget import budget
from nfd_jax.report._figures import draw_all, drawings, rendered
from nfd_jax.report._figures_training import losses
from nfd_jax.report._figures_variants import variant_drawings, varying
from nfd_jax.report._plot import styled
from nfd_jax.report._progress import progress
from nfd_jax.store import _layout
from nfd_jax.store._store import Store, StoreError, open_results
from nfd_jax.sweep._plan import make_plan
from nfd_jax.verdicts._verdicts import STATEMENTS
from nfd_jax.verdicts._view import View

ATTRIBUTES = {"device": "a <device>", "versions": {"jax": "0"}, "config_sha256": "c0ffee", "git": "unknown"}
FIGURES = {
    "limit_error_depth", "limit_error_width", "coupling", "eigenvalues", "joint_limits", "kernels", "loss",
    "heldout_loss",
}  # fmt: skip


def sweep(widths=(32, 128), depths=(4, 8, 16), seeds=4, finite=True, limit=True, name="lawful", measure=None, **problem):
    defaults = {"dataset": "gaussian", "steps": 3, "batch_size": 2, "learning_rate": 0.5}
    tree = {"name": name, "seeds": seeds, "precision": "float64", "problem": defaults | problem}
    tree |= {"finite": {"widths": list(widths), "depths": list(depths)}} if finite else {}
    tree |= {"limit": {"depth_steps": 256}} if limit else {}
    tree |= {"measure": measure} if measure is not None else {}
    return SweepConfig.model_validate(tree)


def lawful(name: str, shape: tuple[int, ...], dims: tuple[str, ...], width: int, depth: int, seed: int) -> np.ndarray:
    """Positive numbers that fall with width and depth, of each seed its own size."""
    if name == "status/cell":
        return np.ones(shape, "int8")
    rng = np.random.default_rng([zlib.crc32(name.encode()), width, depth, seed])
    own = np.exp(0.2 * np.random.default_rng(seed).normal())
    values = own * np.exp(0.05 * rng.normal(size=shape)) * (0.01 + 1 / width + 0.1 / max(depth, 1))
    if name == "spectrum/max_eigenvalue":
        return np.ones(shape)
    if name.endswith("kernel"):  # symmetric in the two samples
        return values + np.moveaxis(values, -1, -2)
    return values


def compute(config, batch, spoil=None) -> dict[str, np.ndarray]:
    layout = _layout.layout(config, _layout.axes(config, {}), outputs=1, attributes={})
    arrays = {}
    for name in layout.grid.arrays(batch):
        dims = layout.grid.dims[name]
        sizes = dict(zip(dims, layout.nodes[name]["shape"], strict=True))
        sizes |= {"width": 1, "particles": 1, "depth": len(batch.depths), "seed": len(batch.seeds)}
        out = np.empty([sizes[dim] for dim in dims])
        for (i, depth), (j, seed) in product(enumerate(batch.depths or (0,)), enumerate(batch.seeds)):
            index = tuple({"depth": slice(i, i + 1), "seed": slice(j, j + 1)}.get(dim, slice(None)) for dim in dims)
            out[index] = lawful(name, out[index].shape, dims, batch.width, depth, seed)
        arrays[name] = spoil(name, dims, out) if spoil else out
    return arrays


def fill(folder: Path, config: SweepConfig, *, most=None, fail=False, spoil=None) -> Path:
    """A store with at most `most` batches; the last of those pending failed if `fail`."""
    attributes = ATTRIBUTES | {"config": config.to_yaml()}
    with Store.open(folder, config, outputs=1, make_plan=make_plan, attributes=attributes) as store:
        batches = store.pending()
        for batch in batches[:most]:
            store.commit(batch, compute(config, batch, spoil))
        if fail:
            store.fail(batches[-1], "RESOURCE_EXHAUSTED: <out of memory>")
    return folder


def diverging(name: str, dims: tuple[str, ...], values: np.ndarray) -> np.ndarray:
    """The larger learning rate diverges in the deepest networks with reused weights, after step 0."""
    if "depth" not in dims or "learning_rate" not in dims:
        return values
    pick = {"learning_rate": -1, "depth": -1} | ({"backward_weights": 0} if "backward_weights" in dims else {})
    index = tuple(pick.get(dim, slice(None)) for dim in dims)
    values[index] = 2 if name == "status/cell" else np.nan
    return values


class Page(HTMLParser):
    """A page's sections, images and whatever it would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.images, self.fetched, self.links, self.open = set(), [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "img":
            self.images.append(found)
        if tag in ("script", "link", "iframe", "object", "video"):
            self.fetched.append(tag)
        if tag == "a":
            self.links.append(found["href"])
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass


def written(folder: Path) -> tuple[str, Page]:
    path = report.write_report(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert not page.fetched
    assert not re.search(r"https?:|url\((?!%23)|@import", text)
    assert all(image["src"].startswith("data:image/") for image in page.images)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert len(text) < 2e6
    return text, page


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str, Page]:
    """A folder with everything in it, its report written where older figures lay."""
    folder = fill(tmp_path_factory.mktemp("whole"), sweep())
    (folder / "figures").mkdir()
    for name in ("phase_map-old.png", "mine.png"):
        (folder / "figures" / name).touch()
    return folder, *written(folder)


@pytest.fixture
def no_rates(monkeypatch):
    """Rates are slow to fit, and of no interest where it is the rest of a page that is looked at."""
    for module in (_report, _report_variants):
        monkeypatch.setattr(module, "rows", lambda tree: [])


def pixels(png: Path) -> tuple[int, int]:
    raw = png.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", raw[16:24])


def test_report_is_self_contained_and_walks_every_claim(whole):
    _, text, page = whole
    assert page.ids >= {*STATEMENTS, "verdicts", "budget", "training", "method", "config", "glossary"}
    for statement in STATEMENTS.values():
        assert statement in text
    assert "a &lt;device&gt;" in text and "<device>" not in text
    assert "c0ffee" in text and "48 of 48 done" in text and "depth_steps: 256" in text
    assert len(page.images) == len(FIGURES)
    assert all(len(image["alt"]) > 40 for image in page.images)


def test_verdicts_are_words_beside_their_symbols(whole):
    _, text, _ = whole
    table = text[text.index("id=verdicts") : text.index("id=C1")]
    verdicts = re.findall(r"<span class='verdict (\w+)'>(.) ([^<]+)</span>", table)
    assert len(verdicts) == len(STATEMENTS)
    words = {"holds": "holds", "fails": "does not hold", "open": "inconclusive", "missing": "not measured"}
    assert all(verdict.startswith(words[kind]) for kind, _, verdict in verdicts)


def test_figures_are_files_with_ink_and_no_older_ones_stay(whole):
    folder = whole[0] / "figures"
    ours = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == {*ours, "mine.png"}
    for name in FIGURES:
        width, height = pixels(folder / f"{name}.png")
        assert width > 700 and height > 300
        svg = (folder / f"{name}.svg").read_text()
        assert svg.count("<path") > 30 and "<dc:date>" not in svg


def test_the_same_results_give_the_same_bytes(whole):
    view = View.of(open_results(whole[0]))
    with styled():
        png, svg = rendered(losses(view, held_out=False).figure)
    assert png == (whole[0] / "figures" / "loss.png").read_bytes()
    assert svg == (whole[0] / "figures" / "loss.svg").read_bytes()


def test_what_is_missing_is_counted_and_what_diverged_left_out(tmp_path, no_rates):
    config = sweep(widths=(32, 64), measure=["limit_error"], learning_rate=[0.1, 0.5])
    text, _ = written(fill(tmp_path, config, most=1, fail=True, spoil=diverging))
    # 2 flags × 2 rates × 3 depths × 4 seeds at each width; of the first, 1 rate and depth diverged in 1 flag
    assert "44 of 96 done, 4 diverged, 48 failed, 0 pending" in text
    assert "RESOURCE_EXHAUSTED: &lt;out of memory&gt;" in text
    table = text[text.index("Diverged cells") :]
    assert re.search(r"0\.5</td><td>4 of 24</td><td>0 of 24", table)
    assert "learning rate 0.1" in text  # figures show the largest rate that did not diverge
    assert (tmp_path / "figures" / "limit_error_depth.svg").exists()
    assert not (tmp_path / "figures" / "limit_error_width.svg").exists()


@pytest.mark.parametrize(
    ("changes", "figures"),
    [
        ({"widths": (64,), "seeds": 1, "measure": ["kernels"]}, {"loss", "heldout_loss", "kernels"}),
        (
            {"widths": (64, 128), "depths": (8,), "measure": ["spectrum"]},
            {"eigenvalues", "loss", "heldout_loss", "kernels"},
        ),
        ({"finite": False}, {"loss", "heldout_loss"}),
        ({"limit": False, "measure": [], "parametrization": "mup", "steps": 1}, {"loss", "heldout_loss", "kernels"}),
    ],
)
def test_any_groups_may_be_missing(tmp_path, changes, figures):
    tree = open_results(fill(tmp_path, sweep(**changes)))
    assert set(draw_all(tmp_path / "figures", drawings(tree))) == figures


def test_the_error_budget_is_that_of_the_law():
    """Errors of order 1 against M steps on the same noise: C/(2L) − C/(2M), so the limit itself is off by C/(2M)."""
    flags, C, M = ["reused", "independent"], 0.8, 256
    coords = {"backward_weights": flags, "limit_backward_weights": flags, "learning_rate": [0.5], "width": [32]}
    coords |= {"depth": [8, 16, 32], "seed": [0, 1], "step": [0, 1], "quantity": ["h", "b", "f"]}
    own = xr.DataArray(np.ones([len(values) for values in coords.values()]), coords, list(coords))
    error = own * (C / (2 * own["depth"]) - C / (2 * M)) * (1 + 0.1 * own["seed"])
    config = f"finite: {{backward_weights: [reused]}}\nlimit: {{depth_steps: {M}, backward_weights: [reused]}}\n"
    groups = {"/": xr.Dataset(attrs={"config": config}), "/compare": xr.Dataset({"limit_error_ms": error})}
    parts = {part.name: part.sizes for part in budget(View.of(xr.DataTree.from_dict(groups)))}
    assert parts["depth steps M"]["h"] == "about 0.00164 (order 1)"  # 1.05 C/(2M), 1.05 the mean over seeds
    assert parts["depth L"]["b"] == "0.0115 (2.1 × less than at 16)"
    assert set(parts["width n"].values()) == set(parts["particles N"].values()) == {"not measured"}


def test_a_sweep_without_a_finished_cell_has_a_report(tmp_path):
    text, page = written(fill(tmp_path, sweep(), most=0))
    assert "48 pending" in text and not page.images
    assert text.count("not measured") >= len(STATEMENTS)


def variants(folder: Path, changes: dict[str, dict], **common) -> Path:
    for name, own in changes.items():
        fill(folder / name, sweep(**common, **own))
    return folder


def test_variants_over_the_horizon_have_a_phase_map(tmp_path, no_rates):
    changes = {f"T{T:g}": {"horizon": T} for T in (0.5, 2.0)}
    common = {"widths": (16, 32), "depths": (4, 8, 16), "seeds": 2, "measure": ["coupling"]}
    variants(tmp_path, changes, **common)
    text, page = written(tmp_path)
    assert set(page.links) >= {f"{name}/report.html" for name in changes}
    assert [path.stem for path in (tmp_path / "figures").glob("*.png")] == ["phase_map-tanh-all"]
    assert "relative gap" in page.images[0]["alt"]
    for name in changes:
        assert f"problem.horizon = {changes[name]['horizon']}" in text and f"variant-{name}" in page.ids
    table = text[text.index("id=verdicts") : text.index("id=figures")]
    assert len(re.findall("class='verdict", table)) == len(changes) * len(STATEMENTS)


def test_the_first_order_gap_is_that_of_the_closed_form(tmp_path):
    from nfd_jax.report._phase_map import first_order_gaps

    changes = {f"T{T:g}": {"horizon": T} for T in (0.5, 1.0, 2.0)}
    variants(tmp_path, changes, widths=(16,), depths=(4,), activation="linear", measure=[], batch_size=1)
    gaps = first_order_gaps([open_results(tmp_path / name) for name in changes])
    T = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(gaps, T * np.exp(T) / np.expm1(T) - 1, rtol=1e-6)


def test_parametrizations_and_activations_side_by_side(tmp_path):
    common = {"widths": (16, 32), "depths": (4, 8, 16), "seeds": 2, "limit": False}
    changes = {"mup": {"parametrization": "mup", "measure": []}, "tanh": {}, "relu": {"activation": "relu"}}
    variants(tmp_path, changes, **common)
    trees = {name: open_results(tmp_path / name) for name in changes}
    assert set(varying(trees)["mup"]) == {"problem.parametrization", "problem.activation"}
    assert set(draw_all(tmp_path / "figures", variant_drawings(trees))) == {"parametrizations", "variants"}


def printed(folder: Path, **options) -> str:
    stream = io.StringIO()
    report.show(folder, Console(file=stream, width=150), **options)
    return stream.getvalue()


def test_show_prints_progress_and_verdicts(tmp_path):
    config = sweep(widths=(32, 64), measure=["limit_error"])
    text = printed(fill(tmp_path, config, most=1, fail=True, spoil=diverging))
    assert all(key in text for key in STATEMENTS) and "not measured" in text
    assert "20 of 48 cells done, 4 diverged, 24 failed" in " ".join(text.split())
    assert "RESOURCE_EXHAUSTED: <out of memory>" in text
    with pytest.raises(StoreError, match="no results"):
        report.show(tmp_path / "batches", Console(file=io.StringIO()))


def test_show_watches_variants_until_all_are_done(tmp_path, monkeypatch):
    config = {"widths": (16, 32), "depths": (4,), "seeds": 2, "measure": [], "limit": False}
    ahead = iter(
        [
            lambda: fill(tmp_path / "first", sweep(**config), most=1),
            lambda: fill(tmp_path / "first", sweep(**config)),
            lambda: fill(tmp_path / "second", sweep(**config, activation="relu")),
            lambda: (tmp_path / "report.html").touch(),
        ]
    )
    looks = []
    monkeypatch.setattr(time, "sleep", lambda seconds: (looks.append(members_of(tmp_path)), next(ahead)())[0])
    text = printed(tmp_path, watch=True)
    assert looks == [{}, {"first": 4}, {"first": 8}, {"first": 8, "second": 8}]
    assert "first" in text and "second" in text and next(ahead, None) is None


def members_of(folder: Path) -> dict[str, int]:
    return {name: progress(path)["done"] for name, path in _show.members(folder).items()}


def test_show_stops_at_an_interrupt_and_stands_a_store_that_cannot_be_read(tmp_path, monkeypatch):
    fill(tmp_path, sweep(widths=(16,), measure=[], limit=False), most=0)
    (tmp_path / "results.zarr" / "zarr.json").write_text("{")

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert "cannot be read at the moment" in printed(tmp_path, watch=True)
