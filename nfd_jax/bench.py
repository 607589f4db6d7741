"""`nfd bench`: the scripts of the source tree's benchmarks/ folder, run on whatever device JAX sees.

Every figure is a ratio to a peer or a limit measured in the same run; building, compiling and running are
timed apart. A table goes to the terminal, every sample with device and versions into a JSON file where one is
asked for.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from time import perf_counter

from nfd_jax.config import ConfigError

PACKAGE = "nfd_benchmarks"
FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"

SCRIPTS = (
    "sweep", "grid", "dense_step", "matrix_free", "limit", "limit_tolerance", "precision", "robustness",
    "commands",
)  # fmt: skip
"""In the order of the table; each has `measure(quick)`, which returns its figures."""

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "diffrax", "numpy", "torch", "nfd_jax")


def main(json_path: Path | None = None, only: Sequence[str] = (), *, quick: bool | None = None) -> list:
    """Measure everything, or the scripts named in `only`; print the table, write `json_path`; returns the
    figures.

    `quick` (default: whether NFD_BENCH_QUICK is set) takes tiny sizes and one sample, to see that the
    benchmarks work. Raises ConfigError on names that are none, and where the package was installed without
    its source tree.
    """
    if unknown := [name for name in only if name not in SCRIPTS]:
        raise ConfigError(
            [f"--only {name}: no such benchmark, allowed: {', '.join(SCRIPTS)}" for name in unknown]
        )
    if not (FOLDER / f"{SCRIPTS[0]}.py").is_file():
        raise ConfigError(
            [
                f"{FOLDER}: no benchmarks in it, "
                "allowed: a source tree of nfd_jax, installed with pip install -e"
            ]
        )
    quick = bool(os.environ.get("NFD_BENCH_QUICK")) if quick is None else quick
    figures, started, loads = [], perf_counter(), [_load()]
    _make_importable(FOLDER)
    for name in only or SCRIPTS:
        _say(f"{name} …")
        figures += import_module(f"{PACKAGE}.{name}").measure(quick)
        loads.append(_load())
    about = describe() | {"quick": quick, "seconds": perf_counter() - started, "load": loads}
    if json_path is not None:
        rows = [asdict(figure) | {"goal": figure.goal, "met": figure.met} for figure in figures]
        json_path.write_text(json.dumps(about | {"figures": rows}, indent=1), encoding="utf-8")
    show(about, figures)
    return figures


def describe() -> dict:
    """Device, versions, cores: what the figures depend on besides the code."""
    import jax

    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def show(about: dict, figures: list) -> None:
    """The table, to the terminal."""
    from rich.console import Console
    from rich.table import Table

    versions = ", ".join(f"{name} {found}" for name, found in about["versions"].items())
    machine = f"{about['device']} × {about['devices']}, {about['cores']} cores"
    title = f"{machine}, Python {about['python']}, {versions}"
    table = Table(
        title=title,
        caption=f"{about['seconds']:.0f} s" + (", quick: tiny sizes, one sample" if about["quick"] else ""),
    )
    for heading in ("", "figure", "measured", "goal", "", "behind it"):
        table.add_column(heading)
    for figure in figures:
        value = "not measured" if figure.value is None else f"{figure.value:.3g} {figure.unit}".strip()
        met = "" if about["quick"] else {True: "met", False: "missed", None: ""}[figure.met]
        table.add_row(figure.id, figure.what, value, figure.goal, met, figure.note)
    Console().print(table)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _load() -> float | None:
    """What else runs: the mean number of runnable processes over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _make_importable(folder: Path) -> None:
    """The folder as the package PACKAGE: a benchmark is PACKAGE.sweep, and no module is called sweep for
    it.
    """
    spec = spec_from_file_location(PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)])
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]  # of another folder
    package = module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
