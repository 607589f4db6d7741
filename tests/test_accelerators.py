"""What accelerators run, run on CPU devices that are taken for accelerators: seeds shared out, depths, rates
and flags side by side. It gives the numbers of one CPU, in fewer loops, and nothing is sent between devices.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _configs import config_with

import nfd_jax as nfd
from nfd_jax.config import SweepConfig
from nfd_jax.sweep import _cells, _memory
from nfd_jax.sweep._plan import make_plan
from nfd_jax.sweep._task import Task

DEVICES = 2
TREE = {
    "name": "accelerated",
    "seeds": 2,
    "precision": "float64",
    "problem": {
        "dataset": "digits",
        "steps": 2,
        "batch_size": 2,
        "batches": "stream",
        "centered": True,
        "learning_rate": 0.3,
    },
    "finite": {"widths": [16], "depths": [1, 2, 6]},
    "limit": {"depth_steps": 6},
    "measure": ["limit_error"],
}
KINDS = {
    "matrix_free": {"finite": {"simulator": "matrix_free"}},
    "dense": {"finite": {"simulator": "dense"}, "limit": None, "measure": ["kernels"]},
}


def config_of(kind: str) -> SweepConfig:
    return config_with(TREE, KINDS[kind])


@pytest.fixture(scope="module")
def accelerated(tmp_path_factory) -> tuple[dict, Path]:
    """What a process whose CPU devices are taken for accelerators found: this file, run as a program."""
    folder = tmp_path_factory.mktemp("accelerated")
    env = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_gives_the_numbers_of_one_cpu(accelerated, tmp_path, kind):
    _, folder = accelerated
    found = nfd.open_results(folder / kind)
    expected = nfd.run(config_of(kind), tmp_path / "out", progress=False)
    for group in ("finite", "limit", "compare", "kernels"):
        assert (group in found.children) == (group in expected.children)
        for name, values in expected[group].data_vars.items() if group in expected.children else ():
            if "accuracy" in name:  # of centered outputs at the start, which are zero to rounding
                continue
            one, other = values.values, found[f"{group}/{name}"].values
            np.testing.assert_allclose(other, one, rtol=1e-8, atol=1e-10, err_msg=f"{group}/{name}")


@pytest.mark.long
def test_depths_side_by_side_are_one_program_of_which_nothing_is_sent(accelerated):
    together, alone = accelerated[0]["train_networks"]
    assert (together["depths"], alone["depths"]) == ([6, 2], 1)
    assert together["sent"] == alone["sent"] == 0
    # Depths are no loop of their own; but a CPU takes the two eigenvalue problems of each in turn.
    assert together["loops"] == alone["loops"] + 2


def test_networks_side_by_side_are_those_that_run_alone(make_problem):
    """Depths of one program: every layer beyond a network's own changes nothing."""
    problem = make_problem(steps=2, rows=2, stream=True, centered=True)
    keys, numbers = jax.random.key(3)[None], jnp.asarray([1.0])
    noise = _cells.draw_noise(problem, keys, 12, 4, False)
    each = [_cells.coarsened_seeds(noise, depth, 4) for depth in (4, 2)]
    run = lambda noise, depth: _cells.train_networks(
        problem, noise, _cells.Asked(), 0.3 * numbers, numbers, jnp.asarray(depth), 2, False, True, 1
    )
    together = run(_cells.side_by_side(tuple(each)), (4, 2))
    for place, depth in enumerate((4, 2)):
        alone = run(each[place], depth)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(b[:, :, :, place], a, rtol=1e-9, atol=1e-11)


def task_of() -> Task:
    config = config_of("matrix_free")
    [batch] = make_plan(config)
    return Task.of(config, batch)


def test_depths_run_side_by_side_where_they_fit(monkeypatch):
    monkeypatch.setattr(_memory, "on_cpu", lambda: False)
    task = task_of()
    assert _memory.depth_groups(task, at_once=1) == [(6, 2), (1,)]
    monkeypatch.setattr(_memory, "one_by_one", lambda: False)
    two = int(_memory.batch_bytes(task, depths=2) / _memory.USABLE) + 1
    assert _memory.batch_bytes(task, depths=2) > _memory.batch_bytes(task)
    assert _memory.depth_groups(task, at_once=1, memory=two) == [(6, 2), (1,)]
    assert _memory.depth_groups(task, at_once=1, memory=two - 2) == [(1,), (2,), (6,)]


@pytest.mark.parametrize("changes", [{"redrawn": True}, {}])
def test_depths_run_one_by_one_on_a_cpu_and_where_noise_is_drawn_anew(monkeypatch, changes):
    monkeypatch.setattr(_memory, "on_cpu", lambda: not changes)
    task = task_of().at(**changes)
    assert _memory.depth_groups(task, at_once=1) == [(1,), (2,), (6,)]


def _measure(folder: Path) -> dict:
    from nfd_jax import gaussian

    # A CPU's LAPACK takes matrices in turn all the same, lest two devices wait for each other.
    gaussian.on_cpu = lambda: True
    platform, jax.default_backend = jax.default_backend, lambda: "gpu"
    assert platform() == "cpu" and jax.local_device_count() == DEVICES
    found: list[dict] = []
    train = _cells.train_networks

    def watched(*arguments):
        text = train.executable(*arguments).run.as_text()
        kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
        found.append(
            {
                "depths": np.asarray(arguments[5]).tolist(),
                "loops": len(re.findall(r" while\(", text)),
                "sent": len(re.findall(rf" ({kinds})(-start)?\(", text)),
            }
        )
        return train(*arguments)

    _cells.train_networks = watched
    for kind in KINDS:
        nfd.run(config_of(kind), folder / kind, progress=False)
    return {"train_networks": found}


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]))))
