"""What is set before JAX and NumPy are imported: they read their settings once, at import; and JAX takes a
second to import, which commands that need none of it do without."""

import gc
import os

SMALL_LOOPS = 2**18
"""Bytes that a loop may touch for a CPU to run it as one compiled function, where XLA can; by default
1024."""


def cores() -> int:
    """Cores that this process may use: what NPROC says, which sets the size of XLA's thread pool too, or all
    there are."""
    asked = os.environ.get("NPROC", "")
    return max(1, int(asked)) if asked.isdecimal() else os.cpu_count() or 1


def settle() -> None:
    """What a process of this package's own settles before it imports anything: see below."""
    collect_seldom()
    compile_small_loops()
    # Matrices that NumPy and LAPACK see are small: other threads would only wait for them, spinning.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def collect_seldom() -> None:
    """Have Python look for cycles of dead objects a hundredth as often: imports and tracing make millions of
    objects that live, and arrays are in no cycles."""
    gc.set_threshold(100_000, 20, 50)


def compile_small_loops() -> None:
    """Have XLA compile small loops whole, which spares starting each of their operations: layers of up to 256
    coordinates take two thirds of the time, to the same bits.

    For a process of this package's own, before it computes. Extra options that XLA_FLAGS names already stay.
    """
    told = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_extra_options" not in told:
        wanted = f"--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold={SMALL_LOOPS}"
        os.environ["XLA_FLAGS"] = f"{told} {wanted}".strip()
