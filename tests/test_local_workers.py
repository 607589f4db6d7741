"""`--workers`: processes that nobody else can use, that say why they end, and end with the coordinator."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from unittest.mock import Mock

import jax
import psutil
import pytest
from _workers import ABORTS, CONFIG, SHORT_OF_MEMORY, cells, process_of, tell
from distributed import Security, default_client

from nfd_jax.sweep import _address, _cluster, _compute, _last_words, _local

NOBODY = 65534
SWEEP = """
name: interrupted
seeds: 499
precision: float64
problem: {dataset: gaussian, input_dim: 8, steps: 400, batch_size: 2}
finite: {simulator: dense, widths: [48, 64], depths: [2, 4]}
measure: []
"""
INTRUDER = """
import asyncio, os, sys
from distributed import Security
from distributed.comm import connect
address, user, folder, key, *processes = sys.argv[1:]
temporary = Security.temporary()

async def load():
    await connect("tcp://127.0.0.1:9", timeout=1)

try:
    asyncio.run(load())  # all modules while they can be read: a virtual environment may be its owner's alone
except OSError:
    pass
if int(user):
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))

async def enter(address, security):
    comm = await connect(address, timeout=2, **security.get_connection_args("client"))
    await comm.write({"op": "identity", "reply": True})
    print("let in:", (await comm.read())["type"])

for where, security in ((address, temporary), (address.replace("tls", "tcp"), Security())):
    try:
        asyncio.run(enter(where, security))
    except OSError as error:
        print("kept out")

def files():
    for process in processes:
        yield from (f"/proc/{process}/{name}" for name in ("environ", "cmdline", "maps"))
    for place, folders, names in os.walk(folder):
        yield from (os.path.join(place, name) for name in names)

for path in files():
    try:
        with open(path, "rb") as file:
            found = key.encode() in file.read()
    except OSError:
        continue
    print("read", path)
    if found:
        print("key in", path)
"""


def local(batches: list, **options):
    return _cluster.on_cluster(CONFIG, batches, scheduler=None, workers=1, **options)


@pytest.fixture
def temporary(monkeypatch) -> Iterator[Path]:
    """A folder for temporary files that every user can write to."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_nobody_without_the_credentials_can_use_the_workers(monkeypatch, temporary):
    monkeypatch.setattr(_cluster, "compute", tell)
    user = os.getuid() or NOBODY
    with closing(local(cells(1, 600))) as results:
        worker = process_of(next(results)[1])
        client = default_client()
        address, key = client.scheduler.address, client.security.tls_client_key
        assert address.startswith("tls://127.0.0.1:") and "PRIVATE KEY" in key
        here = psutil.Process()
        processes = [here, *here.children(recursive=True)]
        assert worker in [process.pid for process in processes]
        open_here = [one for process in processes for one in process.net_connections("inet")]
        listening = [one.laddr for one in open_here if one.status == psutil.CONN_LISTEN]
        assert int(address.rpartition(":")[2]) in [place.port for place in listening]
        assert {place.ip for place in listening} <= {"127.0.0.1", "::1"}, listening
        assert len(listening) >= 3, "scheduler, nanny and worker"
        assert _address.problem_with(address, 1), "Dask's settings hold no credentials"
        assert list(temporary.iterdir()), "the workers' folder"
        (temporary / "planted").write_text(key)  # is found
        told = [address, str(user), str(temporary), key.splitlines()[5], *(str(p.pid) for p in processes)]
        run = subprocess.run(
            [sys.executable, "-c", INTRUDER, *told], capture_output=True, text=True, timeout=99
        )
        assert run.returncode == 0, run.stderr
        said = run.stdout.splitlines()
        assert said[:2] == ["kept out"] * 2, said
        found = [line.removeprefix("key in ") for line in said if line.startswith("key in ")]
        assert found == [str(temporary / "planted")]
        if user == NOBODY:
            assert f"read /proc/{worker}/cmdline" in said and f"read /proc/{worker}/environ" not in said
    assert not list(temporary.glob("nfd_jax*"))


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (ABORTS, "LLVM ERROR: out of memory"),
        pytest.param(SHORT_OF_MEMORY, "", marks=pytest.mark.long),  # by a limit on its memory
    ],
    ids=["planted", "limited"],
)
def test_a_worker_that_runs_out_of_memory_is_told_of_in_one_line(width, words, monkeypatch, capfd):
    monkeypatch.setattr(_cluster, "compute", tell)
    monkeypatch.setattr(_cluster, "DEATHS", 1)
    ends, fine = batches = cells(width, 1)
    results = dict(local(batches, warn=pytest.fail))
    assert process_of(results[fine])
    line = results[ends]
    assert line.startswith(f"killed 1 workers; the last one: {words}")
    assert f"; finite.widths: width {width} at depth 2 needs at least " in line and "iB by the plan; " in line
    assert line.endswith("lower finite.widths or finite.depths, or --workers")
    assert len(line.splitlines()) == 1
    out, err = capfd.readouterr()
    assert not [word for word in ("xla::", "Traceback", "Check failed", "Fatal") if word in out + err], err


def test_a_batch_that_memory_runs_out_for_says_what_it_needs_without_workers_too(monkeypatch):
    [batch] = cells(8)
    needs = "; finite.widths: width 8 at depth 2 needs at least "
    errors = (
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
    )
    for error in errors:
        monkeypatch.setattr(_compute, "run_batch", Mock(side_effect=error))
        line = _compute.computed(CONFIG, batch)
        assert line.startswith(_compute.first_line(error) + needs) and line.endswith("finite.depths")
    monkeypatch.setattr(_compute, "run_batch", Mock(side_effect=FloatingPointError("a number")))
    assert _compute.computed(CONFIG, batch) == "FloatingPointError: a number"


def test_the_line_that_says_most_is_found(tmp_path):
    log = tmp_path / "log"
    frames = "*** Check failure stack trace: ***\n    @ 0x7f xla::PjRtCpuClient()\n"
    failed = (
        "F1127 07:53:27.208227   15741 env.cc:93] Check failed: ret == 0 (11 vs. 0) Thread creation failed."
    )
    for text, line in (
        (f"2026 - starts\n{failed}\n{frames}Fatal Python error: Aborted\n\n", " ".join(failed.split())),
        (f"RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes\n{failed}\n", None),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'\nFatal Python error: Aborted\n",
            None,
        ),
        ("cannot allocate memory for thread-local data: ABORT\n", None),
        ("Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n", None),
        ("2026 - starts\n", ""),
        ("x" * 2**21 + "\nE: out of memory " + "y" * 999, f"{'E: out of memory ' + 'y' * 999:.200}…"),
    ):
        log.write_text(text)
        assert _last_words.last_words(log) == (text.splitlines()[0] if line is None else line)
    assert _last_words.last_words(tmp_path / "none") == ""


def ends_with_a_line(monkeypatch, code: str, reason: str) -> list[str]:
    """Workers that do `code` when they start: an error, and no process that is left."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    monkeypatch.setattr(_local, "AT_START", _local.AT_START + code.replace("{", "{{").replace("}", "}}"))
    said: list[str] = []
    with pytest.raises(_cluster.ClusterError, match=reason) as caught:
        list(local(cells(1), warn=said.append))
    assert len(caught.value.problems) == 1 and caught.value.problems[0].startswith("--workers 1: ")
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert not [process for process in left if "spawn_main" in " ".join(process.cmdline())]
    return said


def test_workers_that_die_as_they_start_are_not_waited_for(monkeypatch):
    begin = time.monotonic()
    code = "os.write(2, b'LLVM ERROR: out of memory\\n')\nos.abort()\n"
    ends_with_a_line(monkeypatch, code, "workers end as they start .LLVM ERROR: out of memory., for ")
    assert time.monotonic() - begin < 60


def test_workers_that_never_start_are_waited_for_with_a_line(monkeypatch):
    monkeypatch.setattr(_cluster, "SAY_SECONDS", 0.5)
    monkeypatch.setattr(_cluster, "GIVE_UP_SECONDS", 3.0)
    said = ends_with_a_line(monkeypatch, "import time\ntime.sleep(600)\n", "no worker has started, for ")
    assert said == ["--workers 1: no worker has started; waiting at most 3 s"]


def test_without_its_package_it_says_what_to_install(monkeypatch):
    def missing():
        raise ImportError("Using `Security.temporary` requires `cryptography`")

    monkeypatch.setattr(Security, "temporary", missing)
    with pytest.raises(_cluster.ClusterError, match="pip install cryptography"):
        next(local(cells(1)))


def interrupted(folder: Path, moment: str, seconds: float) -> tuple[set[psutil.Process], int, str]:
    """Ctrl-C so many seconds after the program or its first worker starts: all processes it ever had, its
    status, and what it said."""
    (folder / "sweep.yaml").write_text(SWEEP)
    command = [
        sys.executable,
        "-c",
        "from nfd_jax.cli import main; main()",
        "run",
        str(folder / "sweep.yaml"),
    ]
    options = ["--out", str(folder / "out"), "--quiet", "--no-report", "--workers", "2"]
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in a background job
    process = subprocess.Popen(
        [*command, *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) if ignored else None,
    )
    seen: set[psutil.Process] = set()
    started = time.monotonic() if moment == "program" else None
    deadline = time.monotonic() + 120
    try:
        while started is None or time.monotonic() - started < seconds:
            with_children(process.pid, seen)
            if started is None and any("spawn_main" in command_of(child) for child in seen):
                started = time.monotonic()
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
        while process.poll() is None:
            with_children(process.pid, seen)
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return seen, process.returncode, process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def with_children(pid: int, seen: set[psutil.Process]) -> None:
    with suppress(psutil.Error):
        seen |= set(psutil.Process(pid).children(recursive=True))


def alive(processes: set[psutil.Process]) -> list[str]:
    return [command_of(p) for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


MOMENTS = [("program", 0.4), ("worker", 0.0)]
MORE = [("program", s) for s in (0.1, 0.2, 0.7, 1.0, 2.0)] + [
    ("worker", s) for s in (0.1, 0.3, 0.7, 1.5, 3.0, 8.0)
]


@pytest.mark.parametrize(
    ("moment", "seconds"), [*MOMENTS, *(pytest.param(*each, marks=pytest.mark.long) for each in MORE)]
)
def test_an_interrupt_leaves_no_process_and_no_file(moment, seconds, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    seen, status, said = interrupted(tmp_path, moment, seconds)
    deadline = time.monotonic() + 2  # Python's own helper, which ends when it hears nothing more
    while alive(seen) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(seen)
    assert status == 130 or (seconds < 1 and status == -signal.SIGINT), "or while Python loads the program"
    if moment == "worker":
        assert status == 130 and len(seen) >= 2
    if status == 130:
        assert len(said.splitlines()) == 1 and "the same command resumes" in said, said
    assert not list((tmp_path / "temporary").glob("nfd_jax*"))
