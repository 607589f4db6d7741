"""Batches on real worker processes: the same numbers, and deaths, silence and lost connections that cost a
retry."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import jax
import numpy as np
import pytest
from distributed import default_client

from nfd_jax.config import SweepConfig
from nfd_jax.measures import Named
from nfd_jax.store import Batch
from nfd_jax.sweep import _cluster
from nfd_jax.sweep._plan import make_plan

PROBLEM = {"dataset": "gaussian", "input_dim": 8, "steps": 2, "batch_size": 2}
FINITE = {"simulator": "dense", "widths": [8], "depths": [2, 4]}
CONFIG = SweepConfig.model_validate(
    {"name": "test", "seeds": 5, "precision": "float64", "problem": PROBLEM, "finite": FINITE, "measure": []}
)
ATTEMPTS = "NFD_TEST_ATTEMPTS"
DEADLY = 13


def stand_in(text: str, batch: Batch) -> dict[str, Named]:
    """In place of a simulation: takes `width` tenths of a second; DEADLY kills its worker. Every attempt
    leaves a file."""
    (Path(os.environ[ATTEMPTS]) / f"{batch.id}.{os.getpid()}").touch()
    if batch.width == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(batch.width / 10)
    return {"finite/loss": Named(("seed",), np.array([batch.width, *batch.seeds]))}


def cells(*widths: int) -> list[Batch]:
    return [Batch("cells", width, (2,), (seed,)) for seed, width in enumerate(widths)]


@pytest.fixture
def attempts(tmp_path, monkeypatch):
    """Puts the stand-in in place; how often each batch was begun."""
    monkeypatch.setenv(ATTEMPTS, str(tmp_path))
    monkeypatch.setattr(_cluster, "compute", stand_in)
    return lambda: Counter(path.name.rpartition(".")[0] for path in tmp_path.iterdir())


def holder(batch: Batch) -> int:
    """The process that computes a batch, as soon as one does."""
    client = default_client()
    while True:
        begun = {path.name.rpartition(".")[2] for path in Path(os.environ[ATTEMPTS]).glob(f"{batch.id}.*")}
        for address, keys in client.processing().items():
            if any(key.startswith(batch.id) for key in keys):
                pid = client.run(os.getpid, workers=[address])[address]
                if str(pid) in begun:
                    return pid
        time.sleep(0.05)


def behind(batch: Batch, act) -> threading.Thread:
    """Calls `act` with the process that computes `batch` while the cluster works."""

    def wait_and_act():
        while True:
            try:
                default_client()
            except ValueError:
                time.sleep(0.05)
            else:
                return act(holder(batch))

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    return thread


def test_workers_compute_what_one_process_computes():
    batches = make_plan(CONFIG)
    alone = {batch.id: _cluster.compute(CONFIG.to_yaml(), batch) for batch in batches}
    spread = {
        batch.id: arrays for batch, arrays in _cluster.on_cluster(CONFIG, batches, scheduler=None, workers=2)
    }
    assert spread.keys() == alone.keys() and len(alone) == len(batches) > 2
    for name, arrays in alone.items():
        assert spread[name].keys() == arrays.keys()
        for variable, array in arrays.items():
            np.testing.assert_allclose(
                spread[name][variable].values,
                array.values,
                rtol=1e-12,
                atol=1e-12,
                err_msg=f"{name} {variable}",
            )


def test_a_killed_worker_costs_a_retry_and_a_deadly_batch_is_given_up(attempts):
    batches = cells(DEADLY, 20, 1, 1, 2, 1, 3, 1)
    killer = behind(batches[1], lambda pid: os.kill(pid, signal.SIGKILL))
    results = dict(_cluster.on_cluster(CONFIG, batches, scheduler=None, workers=2))
    killer.join(1)
    assert not killer.is_alive()
    assert results.pop(batches[0]) == "killed 3 workers"
    assert {batch: result["finite/loss"].values.tolist() for batch, result in results.items()} == {
        batch: [batch.width, *batch.seeds] for batch in batches[1:]
    }
    begun = attempts()
    assert begun[batches[0].id] == 3 and begun[batches[1].id] == 2


@pytest.mark.long
def test_a_silent_worker_costs_a_retry(attempts, monkeypatch):
    monkeypatch.setattr(_cluster, "SILENT_SECONDS", 10)
    batches = cells(10, 1)
    behind(batches[0], lambda pid: os.kill(pid, signal.SIGSTOP))
    results = dict(_cluster.on_cluster(CONFIG, batches, scheduler=None, workers=2))
    assert [results[batch]["finite/loss"].values[0] for batch in batches] == [10, 1]
    assert attempts()[batches[0].id] > 1


def test_leaving_early_ends_the_workers_at_once(attempts):
    results = _cluster.on_cluster(CONFIG, cells(1, 600, 600), scheduler=None, workers=2)
    next(results)
    pids = default_client().run(os.getpid).values()
    assert len(pids) == 2
    begin = time.monotonic()
    results.close()
    assert time.monotonic() - begin < 5
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_running_cluster_that_loses_its_connection_and_then_goes_away(attempts, monkeypatch):
    monkeypatch.setattr(_cluster, "CONNECT_SECONDS", 5.0)
    batches = cells(1, 5, 1, 600)
    with ExitStack() as stack:
        cluster = stack.enter_context(_cluster._local_cluster(1))
        results = _cluster.on_cluster(CONFIG, batches, scheduler=cluster.scheduler_address, workers=None)
        stack.enter_context(closing(results))
        assert next(results)[0] == batches[0]
        default_client().scheduler_comm.comm.abort()
        after = dict([next(results), next(results)])
        assert {batch: result["finite/loss"].values[0] for batch, result in after.items()} == {
            batches[1]: 5,
            batches[2]: 1,
        }
        cluster.close()
        with pytest.raises(_cluster.ClusterError, match="is gone") as caught:
            next(results)
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "nonsense", "nonsense://here:1", "tcp://127.0.0.1:x"]
)
def test_an_address_without_a_scheduler_is_bad_input_in_one_line(address, monkeypatch):
    monkeypatch.setattr(_cluster, "CONNECT_SECONDS", 0.3)
    with pytest.raises(
        _cluster.ClusterError, match=f"--scheduler {address}: .*, such as tcp://host:8786"
    ) as caught:
        next(_cluster.on_cluster(CONFIG, cells(1), scheduler=address, workers=None))
    assert len(caught.value.problems) == 1 and isinstance(caught.value, ValueError)


def test_nothing_to_do_starts_nothing(monkeypatch):
    monkeypatch.setattr(_cluster, "_connected", lambda *arguments: pytest.fail("connected"))
    assert list(_cluster.on_cluster(CONFIG, [], scheduler="nonsense", workers=None)) == []


def test_workers_share_cores_and_have_a_gpu_each(monkeypatch):
    monkeypatch.setattr(_cluster, "CPU_COUNT", 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _cluster.shares(3) == [{"NPROC": "2"}] * 3
    assert _cluster.shares(16) == [{"NPROC": "1"}] * 16
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [type("Device", (), {"id": i}) for i in range(2)])
    assert [share["CUDA_VISIBLE_DEVICES"] for share in _cluster.shares(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [share["CUDA_VISIBLE_DEVICES"] for share in _cluster.shares(3)] == ["4", "7", "4"]
    assert all(share["NPROC"] == "2" for share in _cluster.shares(3))
