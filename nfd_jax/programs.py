"""Compiled programs, each built once: kept in the process, and on disk for the next process.

A program goes through three stages: JAX traces the function, lowers what it found, and XLA compiles that.
JAX's own cache on disk spares the last alone. Here the finished executable is kept, under all that it depends
on: the package's sources, the versions of what it is built with, the processor, the shapes of the arguments
and the values of all others. A process that finds it does none of the three.

Kept beside JAX's own cache, where that is on, in at most KEPT_BYTES: what was not used for longest goes
first.
"""

import contextlib
import hashlib
import os
import pickle
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from time import perf_counter
from types import MethodType
from typing import Any
from weakref import WeakSet

import equinox as eqx
import jax
import numpy as np

from nfd_jax._host import cores
from nfd_jax.runtime import COMPUTES_WITH, compiler_options, identity

KEPT_BYTES = 2**30
"""Size of the folder of executables beyond which the oldest are removed; 0 keeps none."""


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


@dataclass(frozen=True)
class Executable:
    """A compiled program, the structure of its results, and the seconds that building (tracing and lowering)
    and compiling it took; zero and the time to load where it was found on disk."""

    run: jax.stages.Compiled
    results: Any
    build: float
    compile: float

    def __call__(self, arrays: list) -> Any:
        return jax.tree.unflatten(self.results, self.run(*arrays))


_EVERY: "WeakSet[Program]" = WeakSet()


def forget() -> None:
    """Drop this process's programs: a process can hold so many and no more."""
    for program in _EVERY:
        program._executables.clear()
        program._turns = Turns()


class Program:
    """`function`, compiled for each set of shapes of the arrays among its arguments and values of the others.

    The first call compiles, others of the set wait for it. `of_products(arguments)`: whether products take
    all its time, so that it is compiled with less effort. Called inside another program it is a part of that.
    """

    def __init__(self, function: Callable, of_products: Callable[[tuple], bool] = lambda arguments: False):
        self.function, self.of_products = function, of_products
        self.__doc__ = function.__doc__
        self._executables: dict[Hashable, Executable] = {}
        self._turns = Turns()
        _EVERY.add(self)

    @cached_property
    def _inside(self) -> Any:
        return eqx.filter_jit(self.function)

    def __call__(self, *arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        if traced or jax.config.jax_disable_jit or jax.config.jax_debug_nans:
            return self._inside(*arguments)
        return self.executable(*arguments)([leaf for leaf in leaves if _is_array(leaf)])

    def executable(self, *arguments: Any) -> Executable:
        """The program for these arguments; shapes (`jax.ShapeDtypeStruct`) may stand for arrays."""
        leaves, structure = jax.tree.flatten(arguments)
        key = structure, tuple(map(_facts, leaves)), _settings()
        found = self._executables.get(key)
        if found is None:
            with self._turns.first(key):
                found = self._executables.get(key)
                if found is None:
                    found = self._executables[key] = self._made(arguments, leaves, structure)
        return found

    def _made(self, arguments: tuple, leaves: list, structure: Any) -> Executable:
        options = compiler_options(of_products=self.of_products(arguments))
        kept = _Kept.of(self.function, arguments, options)
        count = sum(map(_is_array, leaves))
        if kept is not None and (found := kept.load(count)) is not None:
            return found
        started = perf_counter()
        results = []

        def flat(*arrays: Any) -> list:
            given = iter(arrays)
            whole = [next(given) if _is_array(leaf) else leaf for leaf in leaves]
            values, found = jax.tree.flatten(self.function(*structure.unflatten(whole)))
            results.append(found)
            return values

        # JAX's cache finds a program by its name too. An executable that it loads cannot be kept again, so
        # the name holds the address: where it is not kept here, it is not there either.
        flat.__name__ = flat.__qualname__ = kept.name if kept else _name(self.function)
        lowered = jax.jit(flat).lower(*filter(_is_array, leaves))
        built = perf_counter()
        with _loaded_by_jax() as loaded:
            compiled = lowered.compile(options)
        found = Executable(compiled, results[-1], built - started, perf_counter() - built)
        if kept is not None and not loaded:
            kept.save(found)
        return found


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _facts(leaf: Any) -> Hashable:
    """What of a leaf of the arguments a program depends on."""
    if not _is_array(leaf):
        return type(leaf), leaf
    weak = getattr(getattr(leaf, "aval", None), "weak_type", False)
    placed = getattr(leaf, "sharding", None) if jax.local_device_count() > 1 else None
    return leaf.shape, leaf.dtype, weak, placed


def _settings() -> tuple:
    """What of JAX's settings a program depends on."""
    of = jax.config
    names = "jax_enable_x64", "jax_default_matmul_precision", "jax_default_device", "jax_default_prng_impl"
    more = "jax_threefry_partitionable", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion"
    return tuple(getattr(of, name) for name in (*names, *more))


def _name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


_THIS_THREAD = threading.local()


def _heard(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits" and hasattr(_THIS_THREAD, "loaded"):
        _THIS_THREAD.loaded.append(event)


@cache
def _listening() -> None:
    jax.monitoring.register_event_listener(_heard)


@contextmanager
def _loaded_by_jax() -> Iterator[list]:
    """A list that is empty unless JAX loads a program from its own cache meanwhile."""
    _listening()
    _THIS_THREAD.loaded = []
    try:
        yield _THIS_THREAD.loaded
    finally:
        del _THIS_THREAD.loaded


class Unkept(Exception):
    """An argument that no other process would know again, such as a user's function."""


@dataclass(frozen=True)
class _Kept:
    """Where an executable is kept on disk."""

    path: Path
    name: str

    @classmethod
    def of(cls, function: Callable, arguments: tuple, options: dict | None) -> "_Kept | None":
        """None where JAX keeps no programs either, with several devices, and for what is not known again."""
        folder = jax.config.jax_compilation_cache_dir
        wanted = folder and KEPT_BYTES and jax.config.jax_enable_compilation_cache
        if not wanted or jax.device_count() > 1:
            return None
        try:
            parts = _named(function), _described(arguments), repr(options), repr(_settings()), _built_with()
        except Unkept:
            return None
        address = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        return cls(Path(folder) / "nfd_jax" / address, f"{_name(function)}_{address}")

    def load(self, arrays: int) -> Executable | None:
        """None where there is none, or one that cannot be read, or that others may have written."""
        from jax.experimental.serialize_executable import deserialize_and_load

        started = perf_counter()
        try:
            _with_lapack()
            with open(self.path, "rb") as file:
                _check_own(file.fileno())
                program, results, count = pickle.load(file)
            given = jax.tree.structure(((0,) * arrays, {}))
            run = deserialize_and_load(program, given, jax.tree.structure([0] * count))
            os.utime(self.path)  # the folder forgets what was not used for longest
        except Exception:
            return None
        return Executable(run, jax.tree.structure(results), 0.0, perf_counter() - started)

    def save(self, found: Executable) -> None:
        """As one file, or not at all: a full disk or an unwritable folder costs the next process time."""
        from jax.experimental.serialize_executable import serialize

        with contextlib.suppress(Exception):
            count = found.results.num_leaves
            example = jax.tree.unflatten(found.results, range(count))
            content = pickle.dumps((serialize(found.run)[0], example, count))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, delete=False) as file:
                file.write(content)
            os.replace(file.name, self.path)
            _make_room(self.path.parent)


def _check_own(descriptor: int) -> None:
    """PermissionError for a file of another user, or that others may write: what it holds is executed."""
    found = os.fstat(descriptor)
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError("not a file of this user alone")


@cache
def _with_lapack() -> None:
    """Have JAX find LAPACK's routines, which it does when it first lowers one of them: programs from disk
    skip that, and would call what is not there."""
    jax.jit(jax.numpy.linalg.eigvalsh).lower(jax.ShapeDtypeStruct((1, 1), np.float32))


def _make_room(folder: Path) -> None:
    kept = sorted(((entry.stat(), entry) for entry in folder.iterdir()), key=lambda one: -one[0].st_mtime)
    total = 0
    for facts, entry in kept:
        total += facts.st_size
        if total > KEPT_BYTES:
            entry.unlink(missing_ok=True)


def _described(value: Any) -> str:
    """A text that tells arguments apart by shape, where they are arrays, and else by value."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if _is_array(value):
        return f"{value.dtype}{value.shape}{getattr(getattr(value, 'aval', None), 'weak_type', False)}"
    if isinstance(value, dict):
        return _listed("dict", (f"{_described(k)}: {_described(v)}" for k, v in value.items()))
    if isinstance(value, tuple | list):
        return _listed(_named(type(value)), map(_described, value))
    if is_dataclass(value) and not isinstance(value, type):
        own = (f"{f.name}={_described(getattr(value, f.name, None))}" for f in fields(value))
        return _listed(_named(type(value)), own)
    return _named(value)


def _listed(kind: str, parts: Any) -> str:
    return f"{kind}({', '.join(parts)})"


def _named(value: Any) -> str:
    """The place of a function or class of this package, or of what it is built with."""
    if isinstance(value, partial):
        return _listed("partial", (_named(value.func), _described(value.args), _described(value.keywords)))
    if isinstance(value, MethodType):
        return f"{_described(value.__self__)}.{value.__func__.__name__}"
    module, name = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
    known = module.split(".")[0] in ("nfd_jax", "builtins", *COMPUTES_WITH)
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not known or (found is not value and getattr(found, "function", None) is not value):
        raise Unkept(value)
    return f"{module}:{name}"


@cache
def _built_with() -> str:
    """The package's sources, the versions of what it is built with, the machine and how XLA is told to
    compile."""
    code, device = identity(), jax.devices()[0]
    told = os.environ.get("XLA_FLAGS", ""), os.environ.get("LIBTPU_INIT_ARGS", ""), str(cores())
    machine = device.platform, device.device_kind, platform.machine(), _processor()
    return "\n".join((*code.values(), sys.version, *machine, *told))


def _processor() -> str:
    """What the processor can do, which XLA compiles for."""
    with contextlib.suppress(OSError):
        lines = set(Path("/proc/cpuinfo").read_text().splitlines())
        return "".join(sorted(x for x in lines if x.startswith(("flags", "Features", "model name"))))
    return platform.processor()
