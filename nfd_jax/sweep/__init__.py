"""Sweeps: a grid of networks and limits from a config, into a store that survives."""

from nfd_jax.sweep._driver import Outcome, describe_plan, run, run_sweep
from nfd_jax.sweep._store import ConfigChanged, Store, StoreError, open_results

__all__ = ["ConfigChanged", "Outcome", "Store", "StoreError", "describe_plan", "open_results", "run", "run_sweep"]
