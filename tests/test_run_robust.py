"""`nfd run` as it is run: killed, interrupted, started twice, given other configs; nothing that was finished is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import xarray as xr

from nfd_jax import open_results

NFD = [sys.executable, "-c", "from nfd_jax.cli import main; main()"]
CONFIG = """
name: robust
seeds: {seeds}
precision: float64
problem: {{dataset: gaussian, input_dim: 8, steps: 2, batch_size: 2}}
finite: {{simulator: dense, widths: {widths}, depths: {depths}}}
measure: []
"""
SHORT = {"seeds": 2, "widths": [8, 16], "depths": [2, 4]}  # 4 batches
LONG = {"seeds": 5, "widths": [8, 12, 16], "depths": [2, 4, 6, 8]}  # 60 batches of one cell
SECONDS = 120  # for what takes a few on a machine that has nothing else to do


class Sweep:
    """A config file and a results folder."""

    def __init__(self, folder: Path, size: dict):
        self.config, self.out = folder / "robust.yaml", folder / "out"
        self.config.write_text(CONFIG.format(**size))

    def start(self, *options: str, **popen) -> subprocess.Popen:
        command = [*NFD, "run", str(self.config), "--out", str(self.out), "--quiet", *options]
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **popen)

    def run(self, *options: str) -> tuple[int, list[str]]:
        """Exit status and the lines on stderr."""
        process = self.start(*options)
        _, said = process.communicate(timeout=SECONDS)
        return process.returncode, said.splitlines()

    def results(self) -> xr.DataTree:
        tree = open_results(self.out)
        return xr.DataTree.from_dict({node.path: node.to_dataset().drop_attrs() for node in tree.subtree if node.path != "/rates"})

    def stored(self) -> dict[str, int]:
        """The batches that are stored, and when."""
        return {path.name: path.stat().st_mtime_ns for path in self.out.glob("batches/*-s*.json")}

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


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Sweep:
    """A sweep that nothing disturbed."""
    sweep = Sweep(tmp_path_factory.mktemp("finished"), SHORT)
    assert sweep.run() == (0, [])
    return sweep


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    return Sweep(tmp_path, SHORT)


def test_killed_and_resumed_it_is_as_if_nothing_happened(sweep, finished):
    with ended(sweep.start()) as process:
        sweep.wait(process, 1)
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
    kept = sweep.stored()
    assert 1 <= len(kept) < 4
    assert sweep.run() == (0, [])
    assert len(sweep.stored()) == 4 and kept.items() <= sweep.stored().items(), "what was stored was computed again"
    xr.testing.assert_identical(sweep.results(), finished.results())


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_interrupted_it_stops_within_seconds_and_resumes(options, sweep, finished):
    sweep.config.write_text(CONFIG.format(**SHORT | {"seeds": 40}))
    with ended(sweep.start(*options, start_new_session=True)) as process:
        sweep.wait(process, 1)
        workers = psutil.Process(process.pid).children(recursive=True)
        begin = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=SECONDS)
        assert time.monotonic() - begin < 20
    assert process.returncode == 130
    assert len(said.splitlines()) == 1 and "the same command resumes" in said
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    kept = sweep.stored()
    sweep.config.write_text(CONFIG.format(**SHORT))
"""
to be continued
"""
