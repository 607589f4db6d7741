"""One batch of a sweep computed in this process; what goes wrong with it leaves the others standing."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nfd_jax.config import SweepConfig
from nfd_jax.limit import TimeTooShort
from nfd_jax.runtime import Background
from nfd_jax.store import Batch
from nfd_jax.sweep import _memory
from nfd_jax.sweep._execute import run_batch
from nfd_jax.sweep._last_words import MEMORY
from nfd_jax.sweep._task import Task

CELL_ERRORS = (
    jax.errors.JaxRuntimeError,
    MemoryError,
    FloatingPointError,
    np.linalg.LinAlgError,
    TimeTooShort,
)
"""What may go wrong with one batch and leave the others standing: the device gave up or ran out of memory."""


def computed(
    config: SweepConfig, batch: Batch, work: Callable[[SweepConfig, Batch], Any] | None = None
) -> Any:
    """A batch's arrays, or what else `work` makes of it; or one line saying why there are none."""
    try:
        return Background(work or run_batch, config, batch).result()
    except CELL_ERRORS as error:
        line, said = first_line(error), str(error) or type(error).__name__
        return f"{line}; {_memory.needs(Task.of(config, batch))}" if MEMORY.search(said) else line


def first_line(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
