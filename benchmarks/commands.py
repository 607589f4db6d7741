"""(h): what a user waits for. Whole commands in fresh processes: interpreter, imports, compiling, verdicts,
figures and page included.

An empty cache is as after installing; a second process finds what the first compiled; a finished store has
nothing left to do.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._tools import HERE, REFERENCE, TINY, Figure, cache_folder, child, median, reference_config

CONFIGS = HERE.parent / "configs"
SMALL = (
    "seeds=2", "finite.widths=[16,32]", "finite.depths=[1,2,4]", "limit.depth_steps=8", "problem.steps=2",
)  # fmt: skip
"""What `quick` runs of a config, to see that everything works."""

UNITS = {"s": 1, "min": 60, "h": 3600}


def measure(quick: bool) -> list[Figure]:
    changes = [f"--set={change}" for change in SMALL] if quick else []
    repeats = 1 if quick else 3
    with cache_folder() as cache, folder() as out:
        plan = _plan("quickstart", changes, cache)
        cold = [_run("quickstart", changes, cache, out / "cold")]
        again = [_run("quickstart", changes, cache, out / f"again{i}") for i in range(repeats)]
        finished = [_run("quickstart", changes, cache, out / "cold") for _ in range(repeats)]
    at = {"empty cache": (cold, 22.0), "second process": (again, 12.0), "finished store": (finished, 3.0)}
    figures = [
        Figure(
            f"h {name}",
            f"nfd run quickstart.yaml, {name}",
            median(seconds),
            "s",
            at_most=most,
            samples={"seconds": seconds},
        )
        for name, (seconds, most) in at.items()
    ]
    note = f"{plan:.0f} s said, {cold[0]:.0f} s taken"
    figures.append(Figure("h plan", "what nfd plan said of it, over what it took", plan / cold[0], note=note))
    with cache_folder() as cache, folder() as out:
        seconds = _run("verdicts_quick", changes, cache, out / "verdicts")
    what = "nfd run verdicts_quick.yaml, empty cache"
    figures.append(Figure("h verdicts", what, seconds, "s", at_most=60.0, samples={"seconds": [seconds]}))
    return [*figures, _reference(quick), _first_call(quick)]


def _reference(quick: bool) -> Figure:
    """The dense reference sweep of (a) by the whole command, in turn with the loop."""
    shapes = TINY if quick else REFERENCE
    ours, peer = [], []
    for _ in range(1 if quick else 2):
        with cache_folder() as cache, folder() as out:
            config = out / "reference.yaml"
            config.write_text(reference_config(shapes, 1, ["reused"]).to_yaml(), encoding="utf-8")
            ours.append(_run(config, [], cache, out / "run"))
        with cache_folder() as cache:
            peer.append(child("peer_equinox.py", json.dumps(shapes), "1", cache)["seconds"])
    value, what = median(ours) / median(peer), "nfd run of the sweep of (a) / Equinox loop, empty cache"
    note = f"{median(ours):.1f} s / {median(peer):.1f} s, store, verdicts and report included"
    return Figure("h dense", what, value, at_most=0.5, samples={"ours": ours, "peer": peer}, note=note)


def _first_call(quick: bool) -> Figure:
    """The first call of `solve_limit` in a process that finds it compiled."""
    sizes = ("32", "8") if quick else ("128", "256")
    with cache_folder() as cache:
        first, *later = (child("first_call.py", *sizes, cache) for _ in range(2 if quick else 4))
    what = f"first call of solve_limit in a second process, N = {sizes[0]}, M = {sizes[1]}"
    call, imports = (median([sample[name] for sample in later]) for name in ("call", "import"))
    note = f"{first['call']:.2f} s with an empty cache; importing it before, {imports:.2f} s"
    samples = {"seconds": later, "empty cache": [first]}
    return Figure("h first call", what, call, "s", at_most=1.2, samples=samples, note=note)


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for results."""
    with tempfile.TemporaryDirectory(prefix="nfd-bench-") as made:
        yield Path(made)


def _command(words: list[str], cache: str) -> tuple[str, float]:
    """What a command prints, and its wall-clock seconds."""
    env = os.environ | {"XDG_CACHE_HOME": cache}
    env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    start, command = time.perf_counter(), [sys.executable, "-m", "nfd_jax", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"nfd {' '.join(words)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout, seconds


def _run(config: str | Path, changes: list[str], cache: str, out: Path) -> float:
    path = CONFIGS / f"{config}.yaml" if isinstance(config, str) else config
    return _command(["run", str(path), "--out", str(out), "--quiet", *changes], cache)[1]


def _plan(config: str, changes: list[str], cache: str) -> float:
    """Seconds that `nfd plan` says the command takes."""
    said, _ = _command(["plan", str(CONFIGS / f"{config}.yaml"), *changes], cache)
    number, unit = re.search(r"^ *time +about ([\d.]+) (s|min|h):", said, re.MULTILINE).groups()
    return float(number) * UNITS[unit]
