"""The machine that programs run on: its cores, how XLA compiles for it, its cache of programs, work on
several threads."""

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import equinox as eqx
import jax


def cores() -> int:
    """Cores that this process may use: what NPROC says, which sets the size of XLA's thread pool too, or all
    there are."""
    asked = os.environ.get("NPROC", "")
    return max(1, int(asked)) if asked.isdecimal() else os.cpu_count() or 1


def on_cpu() -> bool:
    """Whether JAX computes on the CPU."""
    return jax.default_backend() == "cpu"


def in_precision(name: Any):
    """A context whose arrays are of a precision, a name or a dtype; threads have settings of their own."""
    return jax.enable_x64(name == "float64")


LEVEL, EMITTERS = "xla_backend_optimization_level", "xla_cpu_use_fusion_emitters"


def compiler_options(*, of_products: bool = False) -> dict[str, str | bool] | None:
    """On a CPU LLVM's level 1: above it programs take longer to compile and none is faster, as products are
    not compiled by LLVM. Programs of little but products (`of_products`) are built without XLA's fusion
    emitters besides, in half the time: they make elementwise loops faster, random numbers above all. Where
    XLA_FLAGS names an option, that one.
    """
    wanted = {LEVEL: "1"} | ({EMITTERS: False} if of_products else {})
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
    """`work(*arguments)` in a thread of its own, which no exit waits for."""

    def __init__(self, work: Callable, *arguments: Any):
        self._outcome: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, args=(work, arguments), daemon=True)
        self._thread.start()

    def _run(self, work: Callable, arguments: tuple) -> None:
        try:
            self._outcome["value"] = work(*arguments)
        except BaseException as error:
            self._outcome["error"] = error

    def result(self) -> Any:
        """What it returned; raises what it raised. Ctrl-C is heard even while a compiled program runs."""
        while self._thread.is_alive():
            self._thread.join(0.2)
        if "error" in self._outcome:
            raise self._outcome["error"]
        return self._outcome["value"]


class Turns:
    """Threads that need the same program: one compiles it, and the others wait until it has."""

    def __init__(self) -> None:
        self._begun: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    @contextmanager
    def first(self, key: Hashable) -> Iterator[None]:
        """Around what must not be begun twice at the same time."""
        with self._lock:
            mine = key not in self._begun
            done = self._begun.setdefault(key, threading.Event())
        if not mine:
            done.wait()
        try:
            yield
        finally:
            done.set()


class CompiledOnce:
    """`equinox.filter_jit(function)`, whose first call for each set of shapes others of that set wait for.

    `of_products(arguments)`: whether products take all its time, so that it is compiled with less effort.
    Inside another program it is a part of that.
    """

    def __init__(self, function: Callable, of_products: Callable[[tuple], bool] = lambda arguments: False):
        self.function, self.of_products = function, of_products
        self.__doc__ = function.__doc__
        self._turns = Turns()

    @cached_property
    def jitted(self) -> Any:
        return self._with(compiler_options())

    @cached_property
    def _light(self) -> Any:
        return self._with(compiler_options(of_products=True))

    @cached_property
    def _inside(self) -> Any:
        return eqx.filter_jit(self.function)

    def _with(self, options: dict | None) -> Any:
        return eqx.filter_jit(self.function, compiler_options=options)  # pyright: ignore[reportCallIssue]

    def __call__(self, *arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._inside(*arguments)
        shape = lambda x: (x.shape, str(x.dtype)) if eqx.is_array(x) else x
        key = structure, tuple(map(shape, leaves)), jax.config.jax_enable_x64
        with self._turns.first(key):
            return self._chosen(arguments)(*arguments)

    def _chosen(self, arguments: tuple) -> Any:
        return self._light if self.of_products(arguments) else self.jitted

    def lower(self, *arguments: Any) -> Any:
        """As of `equinox.filter_jit`."""
        return self._chosen(arguments).lower(*arguments)
