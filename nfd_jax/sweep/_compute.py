"""The batches of a sweep computed, here or spread over workers; what goes wrong with one leaves the others standing."""

from collections.abc import Iterator

import jax
import numpy as np

from nfd_jax.config import SweepConfig
from nfd_jax.runtime import in_background
from nfd_jax.store import Batch
from nfd_jax.sweep._execute import run_batch

CELL_ERRORS = (jax.errors.JaxRuntimeError, MemoryError, FloatingPointError, np.linalg.LinAlgError)
"""What may go wrong with one batch and leave the others standing: the device gave up or ran out of memory."""


def results(config: SweepConfig, pending: list[Batch], scheduler, workers) -> Iterator[tuple[Batch, dict | str]]:
    """Each batch with its arrays, or with one line saying why there are none."""
    if scheduler is not None or workers is not None:
        from nfd_jax.sweep._cluster import on_cluster

        yield from on_cluster(config, pending, scheduler=scheduler, workers=workers)
        return
    for batch in pending:
        try:
            yield batch, in_background(run_batch, config, batch)
        except CELL_ERRORS as error:
            yield batch, first_line(error)


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
