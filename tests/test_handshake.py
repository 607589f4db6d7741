"""Workers that would compute other numbers, or none: they get no batch, and a line says why."""

import json
import subprocess
import sys
import time
from contextlib import closing

import pytest
from _workers import (
    CONFIG,
    NONE,
    SILENT,
    broken_package,
    cells,
    dask_process,
    free_port,
    other_package,
    process_of,
    tell,
    worker,
)
from distributed import Client

from nfd_jax import _version, data
from nfd_jax.config import SweepConfig
from nfd_jax.runtime import identity
from nfd_jax.sweep import _cluster, _handshake

OTHER_DATA = type("Data", (), {"source": "0123456789abcdef" * 4})


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The address of a scheduler on which the package is not installed."""
    none, address = broken_package(tmp_path_factory.mktemp("none"), NONE), f"tcp://127.0.0.1:{free_port()}"
    with dask_process("scheduler", none, "--host", address):
        with Client(address, set_as_default=False, timeout=60):
            pass
        yield address


@pytest.fixture
def scheduler(running, monkeypatch) -> str:
    """Its address; workers tell their processes in place of computing."""
    monkeypatch.setattr(_cluster, "compute", tell)
    return running


def wait_for_workers(scheduler: str, count: int) -> list[str]:
    """Their addresses, once there are just so many."""
    deadline = time.monotonic() + 100
    with Client(scheduler, set_as_default=False) as client:
        while len(found := list(client.nthreads())) != count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return found


def on(scheduler: str, batches: list, said: list[str]):
    return _cluster.on_cluster(CONFIG, batches, scheduler=scheduler, workers=None, warn=said.append)


def test_workers_with_other_code_get_no_batch_not_even_at_the_address_of_a_good_one(
    scheduler, tmp_path, monkeypatch
):
    monkeypatch.setattr(_cluster, "GIVE_UP_SECONDS", 2.0)
    other, none, port = (
        other_package(tmp_path / "other"),
        broken_package(tmp_path / "none", NONE),
        free_port(),
    )
    source, said = identity()["source"][:12], []
    with (
        worker(scheduler, none),
        worker(scheduler, other),
        closing(on(scheduler, cells(*[1] * 999), said)) as results,
    ):
        with worker(scheduler, port=port) as good:
            wait_for_workers(scheduler, 3)
            with monkeypatch.context() as here:  # the coordinator's data differ from all workers'
                here.setattr(SweepConfig, "load_data", lambda self: OTHER_DATA)
                with pytest.raises(_cluster.ClusterError) as caught:
                    next(on(scheduler, cells(1), []))
            lines = caught.value.problems
            assert len(lines) == 3, "a line for each reason"
            assert all(line.startswith(f"--scheduler {scheduler}: worker tcp://127.0.0.1:") for line in lines)
            assert any(f", expected {source}; install" in line for line in lines)
            assert any("nfd_jax: received none, expected " in line for line in lines)
            [line] = [line for line in lines if f"127.0.0.1:{port}: " in line]
            assert "samples of the data set: received " in line and ", expected 0123456789ab; " in line
            while len(said) < 2:
                assert process_of(next(results)[1]) == good.pid
            changed, missing = sorted(said, key=lambda line: "received none" in line)
            assert "source of nfd_jax: received " in changed and f", expected {source}; it gets" in changed
            assert f"nfd_jax: received none, expected {_version.__version__}; it gets no batch" in missing
        with worker(scheduler, other, port):
            with pytest.raises(_cluster.ClusterError, match="no worker may compute") as caught:
                next(results)
            assert len(caught.value.problems) == 1 and "finished cells are kept" in str(caught.value)
            assert f"127.0.0.1:{port}" in str(caught.value), "asked anew at the same address"
            assert len(said) == 2


def test_workers_that_never_answer_are_not_waited_for_in_silence(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(_cluster, "SAY_SECONDS", 0.5)
    monkeypatch.setattr(_cluster, "GIVE_UP_SECONDS", 2.0)
    silent, aborts = (
        broken_package(tmp_path / name, code)
        for name, code in (("silent", SILENT), ("aborts", "import os; os.abort()"))
    )

    def assert_given_up(reason: str) -> None:
        said: list[str] = []
        begin = time.monotonic()
        with pytest.raises(_cluster.ClusterError, match=reason) as caught:
            next(on(scheduler, cells(1), said))
        assert 2 < time.monotonic() - begin < 30
        assert len(caught.value.problems) == 1 and "nothing was computed" in str(caught.value)
        assert len(said) == 1 and "waiting at most 2 s" in said[0], said

    assert_given_up("no worker is connected to it, for ")
    with worker(scheduler, silent):
        [address] = wait_for_workers(scheduler, 1)
        assert_given_up(f"no answer from {address} on which code it has")
    with worker(scheduler, aborts) as process:
        wait_for_workers(scheduler, 1)
        assert_given_up("workers end as they are asked which code they have \\(1 so far\\)")
        assert process.wait(10) != 0


@pytest.mark.long
def test_a_worker_that_is_busy_with_others_work_is_waited_for(scheduler, monkeypatch):
    monkeypatch.setattr(_cluster, "SAY_SECONDS", 2.0)
    monkeypatch.setattr(_cluster, "GIVE_UP_SECONDS", 3.0)
    work = "[__import__('nfd_jax.sweep._cluster'), __import__('time').sleep(5)]"
    said: list[str] = []
    with worker(scheduler) as process, Client(scheduler, set_as_default=False) as others:
        wait_for_workers(scheduler, 1)
        theirs = others.submit(eval, work)
        [(_, result)] = list(on(scheduler, cells(1), said))
        assert process_of(result) == process.pid and theirs.done()
    assert any("is busy with other work; waiting until it is free" in line for line in said), said


def test_what_a_worker_says_of_its_data(monkeypatch):
    text, batch, here = CONFIG.to_yaml(), cells(1)[0], identity()
    own = type("Data", (), {"source": "fedcba9876543210" * 4})
    monkeypatch.setattr(SweepConfig, "load_data", lambda self: own)
    done = lambda *_: "done"
    assert _handshake.source_of(CONFIG) == own.source
    assert _handshake.checked(done, text, batch, here, own.source) == "done"
    assert _handshake.checked(done, text, batch, here, "") == "done", "no fingerprint, nothing to compare"
    said = _handshake.checked(done, text, batch, here, OTHER_DATA.source)
    assert isinstance(said, _handshake.Refusal)
    assert said == "samples of the data set: received fedcba987654, expected 0123456789ab"

    def missing(self):
        raise data.DataError("data/digits.npz: no such file\nand more")

    monkeypatch.setattr(SweepConfig, "load_data", missing)
    said = _handshake.checked(done, text, batch, here, own.source)
    assert isinstance(said, _handshake.Refusal) and said == "data: data/digits.npz: no such file"
    said = _handshake.checked(done, text, batch, here | {"jax": "0.0.1"}, "")
    assert isinstance(said, _handshake.Refusal) and said.endswith("expected 0.0.1")


def test_an_identity_names_every_file_and_version(tmp_path):
    code = "import json; from nfd_jax.runtime import identity; print(json.dumps(identity()))"
    env = {"PYTHONPATH": str(other_package(tmp_path / "other"))}
    run = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, check=True)
    told = [identity(), json.loads(run.stdout)]
    assert {name for name in told[0] if told[0][name] != told[1][name]} == {"source"}
    assert {"source", "nfd_jax", "jax", "jaxlib", "numpy", "equinox", "diffrax", "optax"} <= told[0].keys()
    assert "none" not in told[0].values()
    expected = told[0] | {"jax": "0.1", "source": "a" * 64}
    assert _handshake.differences(told[0], expected) == (
        f"source of nfd_jax: received {told[0]['source'][:12]}, expected aaaaaaaaaaaa,"
        f" jax: received {told[0]['jax']}, expected 0.1"
    )
    assert _handshake.differences(told[0], told[0]) == ""
