"""(g): what safety costs a sweep of one-second cells, and Dask one of five-second cells against two processes
without it."""

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np

from nfd_jax import launch
from nfd_jax.config import SweepConfig
from nfd_jax.measures import Named
from nfd_jax.store import Batch
from nfd_jax.sweep import _cluster, _compute, _results, run_batch

from ._tools import HERE, Figure

SWEEP = {
    "name": "cells",
    "seeds": 1,
    "problem": {"dataset": "gaussian", "steps": 10, "batch_size": 16},
    "finite": {
        "simulator": "dense",
        "widths": [64],
        "depths": [32],
        "backward_weights": ["reused", "independent"],
    },
    "measure": ["spectrum", "kernels"],
}


def measure(quick: bool) -> list[Figure]:
    cells, workers = (2, 2) if quick else (20, 20)
    return [_safety(cells, 0.1 if quick else 1.0), _dask(workers, 0.2 if quick else 5.0)]


def _sweep(count: int) -> tuple[SweepConfig, list[Batch]]:
    """A sweep of so many cells, each a batch of its own."""
    return SweepConfig.model_validate(SWEEP | {"seeds": count}), [
        Batch("cells", 64, (32,), (seed,)) for seed in range(count)
    ]


def _safety(count: int, seconds: float) -> Figure:
    """A whole sweep whose every batch is one cell that takes `seconds`, with the arrays of a real one;
    opening and report left out."""
    config, batches = _sweep(count)
    arrays, moments = run_batch(config, batches[0]), []

    def stand_in(config: SweepConfig, batch: Batch) -> dict[str, Named]:
        moments.append(time.perf_counter())
        time.sleep(seconds)
        return arrays

    plan = lambda config, covered=frozenset(): batches if not covered else []
    patches = (
        mock.patch.object(_compute, "run_batch", stand_in),
        mock.patch.object(launch.sweep, "make_plan", plan),
        mock.patch.object(_results, "BESIDE", 1),  # each begins once the one before is stored
    )
    with tempfile.TemporaryDirectory(prefix="nfd-bench-") as folder, ExitStack() as patched:
        for patch in patches:
            patched.enter_context(patch)
        launch.run_sweep(config, Path(folder) / "out", quiet=True, report=False)
    between = np.diff(moments) / seconds - 1
    size = sum(x.values.nbytes for x in arrays.values()) / 2**20
    note = f"{np.median(between) * seconds * 1e3:.0f} ms a cell, {size:.1f} MiB each"
    what = f"store, log and progress over computing, cells of {seconds:g} s"
    return Figure(
        "g safety",
        what,
        float(np.mean(between)),
        at_most=0.03,
        samples={"overhead": between.tolist()},
        note=note,
    )


def busy(seconds: float) -> None:
    """Takes `seconds` of a core's time, whoever else runs."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def busy_cell(seconds: float, text: str, batch: Batch) -> dict[str, np.ndarray]:
    """What a worker computes in the place of a batch."""
    busy(seconds)
    return {"loss": np.zeros(10**5)}


def _dask(count: int, seconds: float) -> Figure:
    """Start to end of both: processes, imports, cells, and their end."""
    config, batches = _sweep(count)
    sys.path.insert(0, str(HERE.parent))  # which workers have from this process: they import this module
    cell = import_module(f"{HERE.name}.robustness").busy_cell
    with mock.patch.object(_cluster, "compute", partial(cell, seconds)):
        start = time.perf_counter()
        done = list(_cluster.on_cluster(config, batches, scheduler=None, workers=2))
        dask = time.perf_counter() - start
    assert len(done) == count and not any(isinstance(result, str) for _, result in done)
    code = f"import nfd_jax.sweep\nfrom {HERE.name}.robustness import busy\n"
    code += f"for _ in range({count // 2}): busy({seconds})"
    start = time.perf_counter()
    ideal = [subprocess.Popen([sys.executable, "-c", code], cwd=HERE.parent) for _ in range(2)]
    assert [process.wait() for process in ideal] == [0, 0]
    alone = time.perf_counter() - start
    note = f"{dask:.1f} s / {alone:.1f} s, {count} cells"
    samples = {"dask": dask, "processes": alone}
    return Figure(
        "g dask",
        f"two Dask workers over two plain processes, cells of {seconds:g} s",
        dask / alone - 1,
        at_most=0.10,
        samples=samples,
        note=note,
    )
