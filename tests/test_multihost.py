"""One cell on two processes, half of the coordinates each: the numbers of one process to rounding."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "multihost.py"
CONFIG = """
name: huge
precision: float64
problem: {dataset: gaussian, input_dim: 8, steps: 2, batch_size: 2}
finite: {simulator: matrix_free, widths: [64], depths: [4], backward_weights: [reused]}
measure: []
"""
LIMIT = "limit: {depth_steps: 8, backward_weights: [independent]}\n"


def start(config: Path, out: Path, *options: str) -> subprocess.Popen:
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}  # one device a process
    return subprocess.Popen([sys.executable, str(SCRIPT), str(config), "--out", str(out), *options], env=env)


@pytest.mark.parametrize(
    "limit", ["", pytest.param(LIMIT, marks=pytest.mark.long)], ids=["network", "network and limit"]
)
def test_two_processes_give_the_numbers_of_one(limit, tmp_path):
    config = tmp_path / "huge.yaml"
    config.write_text(CONFIG + limit)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    outs = [tmp_path / name for name in ("one.json", "two.json", "none.json")]
    together = ["--coordinator", address, "--processes", "2", "--process"]
    running = [
        start(config, outs[0], "--processes", "1"),
        *(start(config, outs[1 + i], *together, str(i)) for i in range(2)),
    ]
    assert [process.wait(300) for process in running] == [0, 0, 0]
    one, two = (json.loads(out.read_text()) for out in outs[:2])
    assert not outs[2].exists(), "the first process alone writes"
    assert one.keys() == two.keys() == {"loss", "output", *(["limit_error_ms"] if limit else [])}
    assert one != two, "sums in another order round differently: did one process do it all?"
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
