"""The machine that programs run on: how XLA compiles for it, its cache of programs, work on several
threads, and the code that it runs."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jaxlib.version

from nfd_jax._version import __version__

COMPUTES_WITH = ("jax", "jaxlib", "numpy", "equinox", "diffrax", "lineax", "optax")
"""Packages that numbers depend on."""


@cache
def identity() -> dict[str, str]:
    """The code that this process's numbers come from: "source", the SHA-256 of the package's files with their
    names, and versions.

    Read once: a process goes on with the code it has loaded, whatever becomes of the files.
    """
    return {"source": _source(Path(__file__).parent), "nfd_jax": __version__} | {
        name: _version(name) for name in COMPUTES_WITH
    }


def _source(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root).as_posix()}\n{len(content)}\n".encode() + content)
    return found.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def on_cpu() -> bool:
    """Whether JAX computes on the CPU."""
    return jax.default_backend() == "cpu"


def in_precision(name: Any):
    """A context whose arrays are of a precision, a name or a dtype; threads have settings of their own."""
    return jax.enable_x64(name == "float64")


LEVEL, EMITTERS = "xla_backend_optimization_level", "xla_cpu_use_fusion_emitters"
CAN_CHOOSE_EMITTERS = jaxlib.version.__version_info__ < (0, 11)
"""Later releases refuse the option."""


def compiler_options(*, of_products: bool = False) -> dict[str, str | bool] | None:
    """On a CPU LLVM's level 1: above it programs take longer to compile and none is faster, as products are
    not compiled by LLVM. Programs of little but products (`of_products`) are built without XLA's fusion
    emitters besides, in half the time: they make elementwise loops faster, random numbers above all. Where
    XLA_FLAGS names an option, that one.
    """
    wanted = {LEVEL: "1"} | ({EMITTERS: False} if of_products and CAN_CHOOSE_EMITTERS else {})
    told = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in wanted.items() if name not in told} if on_cpu() else None


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX was told otherwise."""
    from platformdirs import user_cache_dir

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", user_cache_dir("nfd_jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def one_by_one() -> bool:
    """Whether runs are computed one by one, each on a core: on a CPU that is one device."""
    return on_cpu() and jax.local_device_count() == 1


def in_threads(tasks: Iterable[Callable[[], Any]], count: int) -> list:
    """The results of `tasks`, in order, `count` at a time; the first error, once the running ones are done.

    Threads have JAX settings of their own: the caller's precision is passed on.
    """
    doubles = jax.config.jax_enable_x64

    def run(task: Callable[[], Any]) -> Any:
        with jax.enable_x64(doubles):
            return task()

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run, task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Background:
    """`work(*arguments)` in a thread of its own, which no exit waits for; BEHIND names it."""

    BEHIND = "nfd_jax background"

    def __init__(self, work: Callable, *arguments: Any):
        self._outcome: dict[str, Any] = {}
        self._thread = threading.Thread(
            target=self._run, args=(work, arguments), daemon=True, name=self.BEHIND
        )
        self._thread.start()

    def _run(self, work: Callable, arguments: tuple) -> None:
        try:
            self._outcome["value"] = work(*arguments)
        except BaseException as error:
            self._outcome["error"] = error

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        """What it returned; raises what it raised. Ctrl-C is heard even while a compiled program runs."""
        while self._thread.is_alive():
            self._thread.join(0.2)
        if "error" in self._outcome:
            raise self._outcome["error"]
        return self._outcome["value"]
