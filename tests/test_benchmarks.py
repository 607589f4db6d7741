"""Every benchmark runs to its end, at tiny sizes."""

import json
import os
import subprocess
import sys

import pytest

from nfd_jax import bench


@pytest.mark.long
@pytest.mark.parametrize("name", bench.SCRIPTS)
def test_it_runs_and_measures(name, tmp_path):
    environment = os.environ | {"NFD_BENCH_QUICK": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "nfd_jax", "bench", "--only", name, "--json", str(tmp_path / "found")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "found").read_text())["figures"]
    assert all(figure["value"] is not None or "not measured" in figure["note"] for figure in figures)
