"""How fast this machine is, measured in about a second and kept in the user's cache folder; and how fast
one of its kind is, as plans have it."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import jax
import jax.numpy as jnp
from platformdirs import user_cache_dir

from nfd_jax.runtime import in_precision, on_cpu

MEASURES = 3
"""To be raised when a speed's meaning changes: stored ones are then measured anew."""

FRESH = 3600.0
"""Seconds for which stored speeds are taken as they are."""

LEAST, MOST = 1e-12, 1e18
"""Between these lie all speeds and times of any machine, in units of one a second and in seconds."""

MOST_BYTES = 10_000
"""Of a file of speeds that is read."""


@dataclass(frozen=True)
class Machine:
    """Speeds of one device in one precision. `compile_seconds`: tracing and compiling one small program of
    nested loops."""

    device: str
    compile_seconds: float
    flops: float
    normals: float
    bytes: float
    operation_seconds: float


TYPICAL = {
    True: Machine("a CPU", 0.13, 1e11, 4e7, 9e9, 1e-6),
    False: Machine("an accelerator", 0.3, 3e13, 1e10, 2e12, 5e-6),
}
"""By whether the device is a CPU: what choices of a plan are weighed at. Rounding hangs on them, and numbers
must not hang on how fast a machine is."""


def typical() -> Machine:
    """Speeds of a machine of this kind."""
    return TYPICAL[on_cpu()]


def machine(precision: str) -> Machine:
    """This machine's speeds: the stored ones, or measured now and stored. A folder that can't be written
    costs only time.

    Stored ones are measured again after an hour, and the best of each is kept: what else a machine does only
    ever makes it slower.
    """
    file = stored_at(precision)
    stored = _read(file)
    if stored is not None and _age(file) < FRESH:
        return stored
    measured = measure(precision)
    if stored is not None:
        measured = _best_of(stored, measured)
    with suppress(OSError):
        _write(file, json.dumps(asdict(measured), indent=1))
    return measured


def _age(file: Path) -> float:
    """Seconds since a file was written; one from the future counts as old."""
    with suppress(OSError):
        age = time.time() - file.stat().st_mtime
        return age if age >= 0 else float("inf")
    return float("inf")


def _best_of(one: Machine, other: Machine) -> Machine:
    """The greater of each speed, the less of each time."""
    best = {
        field.name: (min if field.name.endswith("_seconds") else max)(
            getattr(one, field.name), getattr(other, field.name)
        )
        for field in fields(Machine)
        if field.name != "device"
    }
    return Machine(device=other.device, **best)


def _read(file: Path) -> Machine | None:
    """Stored speeds, if they can be speeds: what lies in a cache folder is not to be trusted."""
    try:
        found = Machine(**json.loads(file.read_bytes()[:MOST_BYTES]))
        speeds = [getattr(found, field.name) for field in fields(Machine) if field.name != "device"]
        sound = all(type(x) is float and LEAST <= x <= MOST for x in speeds)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return found if sound and isinstance(found.device, str) else None


def measure(precision: str) -> Machine:
    """Time one example of each cost: a compilation, a matrix product, normals, a copy, a chain of small
    operations."""
    device = jax.local_devices()[0]
    with in_precision(precision), jax.default_matmul_precision("highest"):
        small = device.platform == "cpu"
        n, many, links = (1024, 2**22, 1000) if small else (8192, 2**27, 1000)
        square, long = jnp.ones((n, n), precision), jnp.zeros(2 * many, precision)
        row, tall = jnp.ones((4, 128), precision), jnp.ones((16, 128), precision)
        # Within one program, as in training: memory that was just asked for is several times slower.
        sweep = lambda x: jax.lax.fori_loop(0, 4, lambda i, x: x + i, x)
        chain = lambda x: jax.lax.fori_loop(0, links, lambda _, x: jnp.tanh(x @ tall.T @ tall), x)
        draw = lambda key: jax.random.normal(key, (many,), precision)
        return Machine(
            device=device.device_kind,
            compile_seconds=min(_compile_seconds(precision) for _ in range(3)),
            flops=2 * n**3 / _best(lambda x: x @ x, square),
            normals=many / _best(draw, jax.random.key(0)),
            bytes=4 * 2 * long.nbytes / _best(sweep, long),
            operation_seconds=_best(chain, row) / (2 * links),
        )


def _best(function: Callable, argument, repeats: int = 3) -> float:
    """Shortest of a few runs, in seconds: what else the machine does only ever adds."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(argument))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(argument))
        times.append(time.perf_counter() - start)
    return min(times)


def _compile_seconds(precision: str) -> float:
    """Of a loop over layers in a loop over steps, as training is; it is not run."""
    unique = time.time() % 1  # compiled into the program, or the compilation cache would have it

    def layer(i, carry):
        h, stack = carry
        h = h + unique * jnp.tanh(h @ stack[i])
        return h, stack.at[i].add(h.T @ h)

    def step(stack, x):
        h, stack = jax.lax.fori_loop(0, 4, layer, (x, stack))
        return stack, jnp.sum(h**2)

    square = jnp.ones((8, 8), precision)
    start = time.perf_counter()
    jax.jit(lambda stack, xs: jax.lax.scan(step, stack, xs)).lower(
        jnp.stack([square] * 4), jnp.stack([square] * 3)
    ).compile()
    return time.perf_counter() - start


def stored_at(precision: str) -> Path:
    """The file of this machine's speeds; without it they are measured anew."""
    device = jax.local_devices()[0]
    identity = [MEASURES, device.platform, device.device_kind, os.cpu_count(), jax.__version__, precision]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return Path(user_cache_dir("nfd_jax")) / f"machine-{digest}.json"


def _write(file: Path, text: str) -> None:
    """Whole or not at all: another process may be reading, or writing the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
