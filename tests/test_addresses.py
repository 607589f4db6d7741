"""Addresses at which no Dask scheduler answers: one line within seconds, whatever listens there."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_server, socket
from threading import Thread

import pytest
from distributed import LocalCluster, Security

from nfd_jax.sweep._address import problem_with

SECONDS = 0.4
CONFIG = """
name: address
seeds: 1
problem: {dataset: gaussian, input_dim: 8, steps: 2, batch_size: 2}
finite: {simulator: dense, widths: [4], depths: [2]}
measure: []
"""


@contextmanager
def listening(answer) -> Iterator[str]:
    """The place of a server that does `answer` with every connection; connections stay open."""
    kept: list[socket] = []

    def serve():
        while True:
            try:
                kept.append(server.accept()[0])
                answer(kept[-1])
            except OSError:
                return

    with create_server(("127.0.0.1", 0)) as server:
        Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
    for connection in kept:
        connection.close()


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


@contextmanager
def http() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def assert_line(address: str, part: str) -> None:
    begin = time.monotonic()
    said = problem_with(address, SECONDS)
    assert said and part in said and len(said.splitlines()) == 1 and said.isprintable(), said
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("tcp://", "is empty"),
        ("tcp://127.0.0.1", "has no host and port"),
        ("127.0.0.1", "has no host and port"),
        ("tcp://:8786", "has no host and port"),
        ("tcp://127.0.0.1:0", "has no host and port"),
        ("tcp://127.0.0.1:65536", "has no host and port"),
        ("tcp://127.0.0.1:8786/there", "has no host and port"),
        ("http://127.0.0.1:8786", "starts with http://, which Dask does not know"),
        ("inproc://127.0.0.1:8786", "starts with inproc://"),
        ("tls://127.0.0.1:8786", "needs certificates: give them to Dask as distributed.comm.tls.ca-file"),
        ("wss://127.0.0.1:8786", "needs certificates"),
        ("tcp://no-such-host.invalid:8786", "the host no-such-host.invalid is not known"),
        ("tcp://a..b:8786", "the host a..b is not known"),
        ("tcp://127.0.0.1:9", "Timed out trying to connect"),
        ("tcp://[::1]:9", "Timed out trying to connect"),
    ],
)
def test_an_address_that_cannot_be_right_is_said_to_be(address, part):
    assert_line(address, part)


def test_what_is_no_scheduler_is_told_from_one():
    with listening(lambda connection: None) as silent:
        assert_line(silent, "no Dask scheduler answers there within 0.4 s")
    with listening(lambda connection: connection.close()) as closing:
        assert_line(closing, "onnection")
    with listening(lambda connection: connection.sendall(b"SSH-2.0-server\r\n" * 99)) as other:
        assert_line(other, "no Dask scheduler listens there")
    with http() as page:
        assert_line(page, "no Dask scheduler answers there within 0.4 s")
        assert_line(f"ws://{page}", "")
    here = {
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "processes": False,
        "threads_per_worker": 1,
    }
    with LocalCluster(n_workers=1, protocol="tcp://", **here) as cluster:
        said = problem_with(cluster.workers[0].address, 10)
        assert said == "a Dask Worker listens there, not a scheduler"
        assert problem_with(cluster.scheduler_address, 10) is None
        assert problem_with(cluster.scheduler_address.removeprefix("tcp://"), 10) is None
    with LocalCluster(n_workers=0, protocol="tls://", security=Security.temporary(), **here) as cluster:
        assert_line(cluster.scheduler_address.replace("tls", "tcp"), "onnection")


def test_a_name_server_that_is_silent_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: time.sleep(30))
    assert_line("tcp://host:8786", "no name server answers within 0.4 s")


def test_the_command_line_says_it_in_one_line(tmp_path):
    config = tmp_path / "address.yaml"
    config.write_text(CONFIG)
    command = [sys.executable, "-c", "from nfd_jax.cli import main; main()", "run", str(config)]
    for address in ("tls://127.0.0.1:8786",):
        run = subprocess.run(
            [*command, "--out", str(tmp_path / "out"), "--quiet", "--scheduler", address],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 2
        assert run.stderr.startswith(f"--scheduler {address}: ") and len(run.stderr.splitlines()) == 1
        assert run.stderr.endswith(
            "allowed: the address of a running Dask scheduler, such as tcp://host:8786\n"
        )
