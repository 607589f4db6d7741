"""After the last cell: verdicts, figures and verification may fail, and lose nothing of a finished sweep."""

import json
import shutil

import numpy as np
import pytest
import yaml
from test_cli import nfd

from nfd_jax import launch, report, verdicts
from nfd_jax.config import load_config
from nfd_jax.measures import Named
from nfd_jax.names import DIVERGED, DONE
from nfd_jax.report import _figures, _helper
from nfd_jax.report._progress import members
from nfd_jax.store import open_results
from nfd_jax.sweep import _execute, _verify

TREE = {
    "name": "coprime",
    "seeds": 2,
    "precision": "float64",
    "problem": {"dataset": "gaussian", "input_dim": 8, "steps": 2, "batch_size": 2},
    "finite": {"simulator": "dense", "widths": [8], "depths": [3, 4]},
    "measure": ["spectrum"],
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "coprime.yaml"
    file.write_text(yaml.safe_dump(TREE))
    return file


@pytest.fixture(scope="module")
def computed(config, tmp_path_factory):
    """All arrays of a sweep whose depths have no common divisor, and nothing concluded from them."""
    folder = tmp_path_factory.mktemp("computed") / "store"
    assert launch.run_sweep(load_config(config), folder, report=False, quiet=True).failed == []
    return folder


@pytest.fixture
def folder(computed, tmp_path, monkeypatch):
    """A copy of it; all figures are drawn by this process."""
    monkeypatch.setattr(_helper, "cores", lambda: 1)
    return shutil.copytree(computed, tmp_path / "store")


def concluded(config, folder, **options) -> list[str]:
    return launch.run_sweep(load_config(config), folder, **options).failed


def test_depths_without_a_common_divisor_have_a_report(config, folder):
    assert open_results(folder)["spectrum"].sizes["t"] == 2, "the ends alone"
    assert concluded(config, folder) == []
    assert (folder / "report.html").stat().st_size > 10_000 and any((folder / "figures").iterdir())


def test_a_figure_that_fails_is_named_and_the_others_are_drawn(config, folder, monkeypatch):
    monkeypatch.setitem(_figures.FIGURES, "loss", lambda view: 1 // 0)
    with pytest.warns(UserWarning, match="could not be drawn: loss: ZeroDivisionError"):
        assert concluded(config, folder) == []
    page = (folder / "report.html").read_text()
    assert "Not drawn" in page and "loss: ZeroDivisionError" in page
    assert (folder / "figures" / "front_loss.png").exists()


@pytest.mark.parametrize("broken", [(report, "write_report"), (verdicts, "conclusions")])
def test_a_report_that_fails_is_written_another_time(config, folder, monkeypatch, capfd, broken):
    before = open_results(folder)
    with monkeypatch.context() as patch:
        patch.setattr(*broken, lambda *_, **__: 1 // 0)
        assert concluded(config, folder) == []
    assert "no report: ZeroDivisionError" in capfd.readouterr().err
    assert open_results(folder)["finite"].identical(before["finite"])
    assert concluded(config, folder, quiet=True) == [] and (folder / "report.html").is_file()


def test_a_verification_that_fails_is_said_logged_reported_and_an_exit_status(config, folder, monkeypatch):
    honest = _verify.computed

    def altered(*arguments):
        found = honest(*arguments)
        output = found["finite/output"]
        return found | {"finite/output": Named(output.dims, output.values * (1 + 1e-5))}

    command = ["run", str(config), "--out", str(folder), "--verify", "--quiet"]
    monkeypatch.setattr(_verify, "computed", altered)
    result = nfd(*command)
    assert result.exit_code == 3
    assert "failed: verification: " in result.stderr and "allowed: at most 1e-07" in result.stderr
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    (verified,) = [event for event in events if event["event"] == "verified"]
    assert verified["same"] is False and "finite/output" in verified["text"]
    assert "Verification failed" in (folder / "report.html").read_text()
    monkeypatch.setattr(_verify, "computed", honest)
    result = nfd(*command)
    assert result.exit_code == 0 and result.stderr == ""
    page = (folder / "report.html").read_text()
    assert "Verification failed" not in page and "largest relative difference 0 " in page


def test_a_run_has_diverged_where_anything_stored_of_it_has():
    dims = ("backward_weights", "depth", "step")
    loss, shift = np.ones((2, 3, 4)), np.ones((2, 3, 4, 5))
    never = np.full((2, 3, 4), np.nan)  # what is not measured of any run
    shift[0, 1, 2, 3] = np.inf
    shift[1, 2, 3, :] = np.nan
    loss[1, 0, 0] = np.inf
    found = {
        "finite/loss": Named(dims, loss),
        "finite/feature_shift_ms": Named((*dims, "t"), shift),
        "finite/heldout_accuracy": Named(dims, never),
        "compare/limit_error_ms": Named(dims, never),
    }
    status = _execute._status(found, "finite")["status/cell"]
    assert status.dims == dims[:-1]
    expected = np.full((2, 3), int(DONE))
    expected[0, 1] = expected[1, 2] = expected[1, 0] = int(DIVERGED)
    np.testing.assert_array_equal(status.values, expected)


def test_a_data_file_that_changed_is_refused_and_put_back_goes_on(tmp_path):
    """Other numbers, or one more class: never mixed with what is stored, which stays usable."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, inputs=rng.standard_normal((40, 5)), targets=np.arange(40) % 2)
    kept = data.read_bytes()
    tree = TREE | {"problem": TREE["problem"] | {"dataset": str(data)}, "seeds": 1, "measure": []}
    del tree["problem"]["input_dim"]
    file, out = tmp_path / "config.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(tree))
    command = ["run", str(file), "--out", str(out), "--no-report", "--quiet"]
    assert nfd(*command).exit_code == 0
    before = open_results(out)
    for inputs, targets in (
        (rng.standard_normal((40, 5)), np.arange(40) % 2),
        (rng.standard_normal((40, 5)), np.arange(40) % 3),
    ):
        np.savez(data, inputs=inputs, targets=targets)
        for more in ([], ["--set", "seeds=2"]):
            result = nfd(*command, *more)
            assert result.exit_code == 2 and "other samples than those of the stored cells" in result.stderr
        assert open_results(out).identical(before)
    data.write_bytes(kept)
    assert nfd(*command, "--set", "seeds=2").exit_code == 0
    after = open_results(out)
    assert bool((after["status/cell"] == DONE).all()) and after["finite/loss"].sizes["seed"] == 2
    np.testing.assert_array_equal(after["finite/loss"].sel(seed=[0]), before["finite/loss"])


def test_variants_and_plain_sweeps_do_not_share_a_folder(config, folder, tmp_path):
    varied = tmp_path / "varied.yaml"
    tree = TREE | {"variants": {"tanh": {}, "relu": {"problem.activation": "relu"}}}
    varied.write_text(yaml.safe_dump(tree))
    result = nfd("run", str(varied), "--out", str(folder), "--no-report")
    assert result.exit_code == 4 and "holds a sweep without variants" in result.stderr
    parent = tmp_path / "parent"
    command = ["run", str(varied), "--out", str(parent), "--no-report", "--set", "seeds=1"]
    assert nfd(*command).exit_code == 0
    result = nfd("run", str(config), "--out", str(parent), "--no-report")
    assert result.exit_code == 4 and "holds variants (relu, tanh)" in result.stderr
    varied.write_text(yaml.safe_dump(TREE | {"variants": {"tanh": {}}}))
    result = nfd(*command)
    assert result.exit_code == 0 and "left as they are: relu" in result.stderr
    assert (parent / "relu" / "results.zarr").exists() and list(members(parent)) == ["tanh"]


def test_results_removed_while_they_are_computed_end_in_one_line(config, tmp_path, monkeypatch):
    out = tmp_path / "out"
    honest = launch.sweep.results

    def removed(*arguments):
        for found in honest(*arguments):
            shutil.rmtree(out, ignore_errors=True)
            yield found

    monkeypatch.setattr(launch.sweep, "results", removed)
    result = nfd("run", str(config), "--out", str(out), "--quiet")
    assert result.exit_code == 4
    lines = [line for line in result.stderr.splitlines() if "the log ends here" not in line]
    assert len(lines) == 1 and "moved or removed while it was in use" in lines[0]
