"""The store of a sweep: labelled arrays in zarr, one transaction a batch, safe against kills, full disks and
damage."""

from nfd_jax.store._batch import Batch, describe
from nfd_jax.store._claim import claim_variants, variant_names
from nfd_jax.store._errors import ConfigChanged, StoreError, StoreLocked, StoreUnwritable
from nfd_jax.store._layout import intervals
from nfd_jax.store._results import (
    Stored,
    cell_states,
    failed_batches,
    open_results,
    read_batches,
    stored_batches,
)
from nfd_jax.store._store import Store

__all__ = [
    "Batch",
    "ConfigChanged",
    "Store",
    "StoreError",
    "StoreLocked",
    "StoreUnwritable",
    "Stored",
    "cell_states",
    "claim_variants",
    "describe",
    "failed_batches",
    "intervals",
    "open_results",
    "read_batches",
    "stored_batches",
    "variant_names",
]
