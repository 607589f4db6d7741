"""The store of a sweep: labelled arrays in zarr, one transaction a batch, safe against kills, full disks and damage."""

from nfd_jax.store._errors import ConfigChanged, StoreError, StoreLocked, StoreUnwritable
from nfd_jax.store._results import open_results
from nfd_jax.store._store import Store

__all__ = ["ConfigChanged", "Store", "StoreError", "StoreLocked", "StoreUnwritable", "open_results"]
