"""`nfd run` as it is run: killed, interrupted, started twice, given other configs; nothing that was finished
is lost."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from nfd_jax import open_results

NFD = [sys.executable, "-c", "from nfd_jax.cli import main; main()"]
CONFIG = """
name: robust
seeds: {seeds}
precision: float64
problem: {{dataset: gaussian, input_dim: 8, steps: 400, batch_size: 2}}
finite: {{simulator: dense, widths: {widths}, depths: {depths}}}
measure: []
"""
# Seeds are of a prime number, so that each has a batch of its own.
SHORT = {"seeds": 5, "widths": [48, 64], "depths": [2, 4]}
ENDLESS = SHORT | {"seeds": 499}
LONG = {"seeds": 5, "widths": [32, 48, 64], "depths": [2, 4, 6, 8]}  # 60 cells
SECONDS = 120  # for what takes a few on a machine that has nothing else to do


class Sweep:
    """A config file and a results folder."""

    def __init__(self, folder: Path, size: dict):
        self.config, self.out = folder / "robust.yaml", folder / "out"
        self.resize(size)

    def resize(self, size: dict) -> None:
        self.config.write_text(CONFIG.format(**size))

    def start(self, *options: str, **popen) -> subprocess.Popen:
        command = [*NFD, "run", str(self.config), "--out", str(self.out), "--quiet", "--no-report", *options]
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a background job
            popen["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **popen)

    def run(self, *options: str) -> tuple[int, list[str]]:
        """Exit status and the lines on stderr."""
        process = self.start(*options)
        _, said = process.communicate(timeout=SECONDS)
        return process.returncode, said.splitlines()

    def results(self) -> dict[str, np.ndarray]:
        """All that was computed."""
        groups = {
            path: group
            for path, group in open_results(self.out).children.items()
            if path not in ("rates", "verdicts")
        }
        return {
            f"{path}/{name}": group[name].values for path, group in groups.items() for name in group.data_vars
        }

    def stored(self) -> dict[str, int]:
        """The batches that are stored, and when."""
        return {path.name: path.stat().st_mtime_ns for path in self.out.glob("batches/*-s*.json")}

    def cells(self) -> int:
        """How many cells the stored batches hold."""
        batches = [
            json.loads(path.read_bytes())["content"]["batch"] for path in self.out.glob("batches/*-s*.json")
        ]
        return sum(len(batch["depths"]) * len(batch["seeds"]) for batch in batches)

    def wait(self, process: subprocess.Popen, batches: int) -> None:
        """Until so many batches are stored."""
        deadline = time.monotonic() + SECONDS
        while len(self.stored()) < batches:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def ended(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def assert_same(arrays: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    assert arrays.keys() == expected.keys() and "finite/loss" in arrays
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Those that nobody waits for stay behind as zombies."""
    deadline = time.monotonic() + SECONDS
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Sweep:
    """A sweep that nothing disturbed."""
    sweep = Sweep(tmp_path_factory.mktemp("finished"), SHORT)
    status, said = sweep.run()
    assert status == 0, said
    return sweep


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    return Sweep(tmp_path, SHORT)


@pytest.fixture
def copy(finished, tmp_path) -> Sweep:
    """The finished sweep, to be tried something on."""
    shutil.copytree(finished.out, tmp_path / "out")
    return Sweep(tmp_path, SHORT)


def test_killed_and_resumed_it_is_as_if_nothing_had_happened(sweep, finished):
    with ended(sweep.start()) as process:
        sweep.wait(process, 1)
        process.kill()
        process.wait(SECONDS)
    kept = sweep.stored()
    assert 1 <= len(kept) < len(finished.stored())
    status, said = sweep.run()
    assert status == 0, said
    assert kept.items() <= sweep.stored().items(), "something stored was computed again"
    assert_same(sweep.results(), finished.results())


def test_killed_it_takes_its_workers_along(sweep):
    sweep.resize(ENDLESS)
    with ended(sweep.start("--workers", "2")) as process:
        sweep.wait(process, 1)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.kill()
        process.wait(SECONDS)
    wait_until_gone(workers)
    assert len(sweep.stored()) >= 1


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["alone", "with workers"])
def test_interrupted_it_stops_within_seconds(options, sweep, finished):
    with ended(sweep.start(*options, start_new_session=True)) as process:
        sweep.wait(process, 1)
        workers = psutil.Process(process.pid).children(recursive=True)
        begin = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
        _, said = process.communicate(timeout=SECONDS)
        wait_until_gone(workers)
        assert time.monotonic() - begin < 10
    assert process.returncode == 130, said
    assert "the same command resumes" in said and "Traceback" not in said
    kept = sweep.stored()
    assert 1 <= len(kept) < len(finished.stored())
    if not options:
        status, said = sweep.run()
        assert status == 0, said
        assert kept.items() <= sweep.stored().items()
        assert_same(sweep.results(), finished.results())


def test_a_folder_in_use_is_refused(sweep):
    sweep.resize(ENDLESS)
    with ended(sweep.start()) as process:
        sweep.wait(process, 1)
        status, said = sweep.run()
        assert status == 4 and process.poll() is None
        assert len(said) == 1 and "in use by another nfd run" in said[0] and str(process.pid) in said[0]


def test_a_folder_that_cannot_be_written_is_refused(sweep):
    sweep.out = sweep.config / "out"
    status, said = sweep.run()
    assert status == 4 and len(said) == 1 and str(sweep.config) in said[0]


def test_a_config_with_other_results_is_refused_and_harms_nothing(copy, finished):
    before = copy.stored()
    status, said = copy.run("--set", "problem.learning_rate=0.25", "--set", "problem.steps=3")
    assert status == 2
    assert said[:2] == ["problem.steps: stored 400, now 3", "problem.learning_rate: stored 0.5, now 0.25"]
    assert len(said) == 3 and "Traceback" not in said[2]
    assert copy.stored() == before
    assert_same(copy.results(), finished.results())


def test_more_seeds_extend_what_is_stored(copy, finished):
    before = copy.stored()
    status, said = copy.run("--set", "seeds=10")
    assert status == 0, said
    assert len(copy.stored()) == 2 * len(before) and before.items() <= copy.stored().items()
    grown = copy.results()
    assert (grown["status/cell"] == 1).all()
    assert_same({name: array[:, :, :, :, :5] for name, array in grown.items()}, finished.results())


@pytest.mark.long
@pytest.mark.parametrize("kills", [200])
def test_killed_at_random_moments(kills, tmp_path):
    """No cell lost, no store that does not open, and in the end the arrays of a sweep that nothing
    disturbed."""
    folders = (tmp_path / str(number) for number in itertools.count())
    new = lambda: (folder := next(folders)).mkdir() or Sweep(folder, LONG)
    undisturbed, sweep, chance = new(), new(), random.Random(0)
    assert undisturbed.run()[0] == 0
    begin = time.monotonic()
    assert undisturbed.run("--fresh")[0] == 0  # now with everything compiled
    longest = time.monotonic() - begin
    expected = undisturbed.results()
    killed = completed = 0
    while killed < kills:
        before = sweep.stored()
        with ended(sweep.start()) as process:
            if chance.random() < 0.5:  # most of the time passes before a batch is computed
                while process.poll() is None and len(sweep.stored()) == len(before):
                    time.sleep(0.01)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, longest))
            killed += process.poll() is None
        assert before.items() <= sweep.stored().items(), "a stored cell was lost"
        if (sweep.out / "store.json").exists():
            with warnings.catch_warnings(action="error"):
                found = sweep.results()
            done = found["status/cell"] == 1
            assert done.sum() == 2 * sweep.cells()  # both flags
            assert_same(
                {name: array[done] for name, array in found.items()},
                {name: expected[name][done] for name in found},
            )
        if process.returncode == 0:
            completed += 1
            sweep = new()
    assert sweep.run()[0] == 0
    assert_same(sweep.results(), expected)
    assert completed > 0
