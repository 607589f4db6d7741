"""What the benchmarks share: figures and their goals, timing, fresh processes, and the speed of the machine
in the same run."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent

REFERENCE = {
    "widths": [32, 64, 128, 256],
    "depths": [4, 8, 16, 32],
    "seeds": 4,
    "steps": 10,
    "batch_size": 16,
    "input_dim": 32,
}
"""The reference sweep: tanh, squared loss, all layers trained."""

TINY = REFERENCE | {
    "widths": [8, 16],
    "depths": [2, 4],
    "seeds": 2,
    "steps": 3,
    "batch_size": 2,
    "input_dim": 4,
}
"""What `quick` runs in its place, to see that everything works."""


@dataclass
class Figure:
    """One line of the table: a number, the goal it is held against, and every sample behind it.

    `value` is None where it was not measured, and `note` says why. `at_most` and `at_least` are goals;
    without either, the number is for information.
    """

    id: str
    what: str
    value: float | None
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    samples: dict = field(default_factory=dict)
    note: str = ""

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:.3g}"
        return "" if self.at_least is None else f"≥ {self.at_least:.3g}"

    @property
    def met(self) -> bool | None:
        """None where there is no goal or no number."""
        if self.value is None or not self.goal:
            return None
        return self.value <= self.at_most if self.at_most is not None else self.value >= self.at_least


def reference_data(sweep: dict):
    """One fixed batch for all steps, inputs (K, P, d) and targets (K, P, 1) in float32."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((sweep["batch_size"], sweep["input_dim"]))
    y = np.sign(x @ rng.standard_normal(sweep["input_dim"]))[:, None]
    every = lambda a: np.repeat(a[None].astype("float32"), sweep["steps"], axis=0)
    return every(x), every(y)


def learning_rates(count: int) -> list[float]:
    """0.5 alone, or `count` rates around it."""
    return [0.5] if count == 1 else [0.1 * (i + 1) for i in range(count)]


def reference_config(sweep: dict, rates: int, flags: list[str]):
    """The same sweep as a config of `nfd run`."""
    from nfd_jax.config import SweepConfig

    problem = {"dataset": "gaussian", "learning_rate": learning_rates(rates)}
    problem |= {key: sweep[key] for key in ("input_dim", "steps", "batch_size")}
    finite = {"simulator": "dense", "backward_weights": flags} | {
        key: sweep[key] for key in ("widths", "depths")
    }
    return SweepConfig(name="reference", seeds=sweep["seeds"], problem=problem, finite=finite, measure=())


def child(script: str, *arguments: str, timeout: float = 600) -> dict:
    """What a fresh Python process that runs `script` prints (JSON), with its wall-clock and processor
    `seconds`.

    Interpreter start and imports are included in both.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", f"{HERE.name}.{script.removesuffix('.py')}", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": seconds, "processor_seconds": used}


@contextmanager
def cache_folder() -> Iterator[str]:
    """An empty folder for a persistent compilation cache."""
    with tempfile.TemporaryDirectory(prefix="nfd-bench-") as folder:
        yield folder


def use_cache(folder: str) -> None:
    """Keep every compiled program in `folder`, whatever its size and compile time."""
    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def count_compilations() -> list[str]:
    """A list that grows by the name of each program that XLA compiles; transfers of arrays, which JAX
    compiles too, left out."""
    import jax

    found: list[str] = []

    def listen(event: str, _: float, **about) -> None:
        name = about.get("fun_name", "")
        if event == "/jax/core/compile/backend_compile_duration" and name != "jit(stage)":
            found.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return found


def once(function: Callable, *arguments) -> float:
    """Seconds of one call, waited for."""
    import jax

    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def alternate(functions: dict[str, Callable], repeats: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of calls in turn, so that what else the machine does falls on all alike."""
    for function in functions.values():
        for _ in range(warm):
            once(function)
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            samples[name].append(once(function))
    return samples


def compiled(function: Callable, *arguments):
    """An ahead-of-time compiled call, with the seconds that building and compiling it took."""
    import jax

    start = time.perf_counter()
    lowered = jax.jit(function).lower(*arguments)
    built = time.perf_counter()
    executable = lowered.compile()
    return executable, {"build": built - start, "compile": time.perf_counter() - built}


def peak_bytes(executable) -> int:
    """Memory of a compiled program: arguments, results and temporaries."""
    found = executable.memory_analysis()
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )


def matmul(rows: int, n: int):
    """A compiled product (rows, n) @ (n, n) in float32 with its arguments bound; a call multiplies once."""
    import jax
    import jax.numpy as jnp

    x, w = jnp.ones((rows, n), "float32"), jnp.ones((n, n), "float32")
    with jax.default_matmul_precision("highest"):
        product, _ = compiled(jnp.matmul, x, w)
    return lambda: product(x, w)


def bandwidth(count: int) -> tuple[Callable, int]:
    """A compiled loop that reads and writes `count` numbers many times over, and the bytes that a call of it
    moves."""
    import jax
    import jax.numpy as jnp

    times = 8
    x = jnp.zeros(count, "float32")
    sweep, _ = compiled(lambda x: jax.lax.fori_loop(0, times, lambda i, x: x + i, x), x)
    return lambda: sweep(x), 2 * times * x.nbytes


def median(samples: list[float]) -> float:
    return statistics.median(samples)


def slope(x: list[float], y: list[float]) -> float:
    """The least-squares exponent of y ∝ x^slope."""
    import numpy as np

    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
