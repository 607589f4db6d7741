"""Dask workers as users start them, each with a package of its own, and what they do in place of a batch."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import nfd_jax
from nfd_jax.config import SweepConfig
from nfd_jax.measures import Named
from nfd_jax.store import Batch

ROOT, TESTS = Path(nfd_jax.__file__).parents[1], Path(__file__).parent
PROBLEM = {"dataset": "gaussian", "input_dim": 8, "steps": 2, "batch_size": 2}
CONFIG = SweepConfig.model_validate(
    {
        "name": "test",
        "seeds": 5,
        "precision": "float64",
        "problem": PROBLEM,
        "finite": {"simulator": "dense", "widths": [8], "depths": [2]},
        "measure": [],
    }
)
ABORTS, SHORT_OF_MEMORY = 101, 102  # widths of batches that end their worker
SILENT = "import time; time.sleep(600)"
NONE = "raise ModuleNotFoundError('No module named nfd_jax', name='nfd_jax')"
FRAMES = "".join(f"    @     0x7f0000{i:06x}  xla::Frame{i}()\n" for i in range(40))


def cells(*widths: int) -> list[Batch]:
    return [Batch("cells", width, (2,), (seed,)) for seed, width in enumerate(widths)]


def tell(text: str, batch: Batch) -> dict[str, Named]:
    """In place of a simulation, after `width` tenths of a second: the process that would do it."""
    if batch.width == ABORTS:
        os.write(2, f"LLVM ERROR: out of memory\n{FRAMES}".encode())
        os.abort()
    if batch.width == SHORT_OF_MEMORY:
        return squeezed(text)
    time.sleep(batch.width / 10)
    return {"finite/loss": Named(("seed",), np.array([os.getpid(), *batch.seeds]))}


def squeezed(text: str) -> dict:
    """A compilation that has next to no memory left: XLA ends the process."""
    import jax

    size = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)
    limit = 1024 * int(size.split()[1]) + 4 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    jax.jit(lambda x: x @ x)(np.ones((8, 8)))
    return {}


def process_of(result: dict[str, Named]) -> int:
    return int(result["finite/loss"].values[0])


def other_package(folder: Path) -> Path:
    """A folder with this package, of the same version, with a comment more in one file."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "nfd_jax", folder / "nfd_jax", ignore=ignore)
    with (folder / "nfd_jax" / "noise.py").open("a") as file:
        file.write("# changed\n")
    return folder


def broken_package(folder: Path, code: str) -> Path:
    """A folder with a package of the name that does `code` when it is imported."""
    (folder / "nfd_jax").mkdir(parents=True)
    (folder / "nfd_jax" / "__init__.py").write_text(code)
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def dask_process(kind: str, package: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A scheduler or worker of Dask's own that finds the package in a folder."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *arguments]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (package, TESTS)))}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=env, cwd=TESTS, **quiet)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def worker(scheduler: str, package: Path = ROOT, port: int = 0):
    """A worker process without a nanny."""
    place = ["--host", "127.0.0.1", "--worker-port", str(port)]
    return dask_process("worker", package, scheduler, "--no-nanny", "--nthreads", "1", *place)
