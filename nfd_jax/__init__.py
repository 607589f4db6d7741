"""Finite ResNets of growing depth and Neural Feature Dynamics, their infinite-depth limit, side by side.

`train_finite` trains a network, `solve_limit` the limit, both on the same `sample_noise` where they are to be compared path by
path; `run` sweeps over widths, depths, seeds and learning rates from a YAML file. The mathematics stands in the module docstrings:
`finite`, `gaussian`, `limit`, `training` (what they share) and `observables`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfd_jax.config import ConfigError, SweepConfig, load_config
    from nfd_jax.finite import train_finite
    from nfd_jax.launch import run
    from nfd_jax.limit import (
        InitKernels,
        LimitEstimate,
        estimate_limit,
        first_order_change,
        first_step_gain,
        init_kernels,
        lazy_limit,
        solve_limit,
    )
    from nfd_jax.noise import Noise, keyed_noise, sample_noise
    from nfd_jax.problem import Problem, Trajectory
    from nfd_jax.store import open_results

# Loaded when first used: checking a config must not wait for JAX.
_HOME = {
    "ConfigError": "config",
    "SweepConfig": "config",
    "load_config": "config",
    "train_finite": "finite",
    "InitKernels": "limit",
    "LimitEstimate": "limit",
    "estimate_limit": "limit",
    "first_order_change": "limit",
    "first_step_gain": "limit",
    "init_kernels": "limit",
    "lazy_limit": "limit",
    "solve_limit": "limit",
    "Noise": "noise",
    "keyed_noise": "noise",
    "sample_noise": "noise",
    "Problem": "problem",
    "Trajectory": "problem",
    "open_results": "store",
    "run": "launch",
}

__all__ = [
    "ConfigError",
    "InitKernels",
    "LimitEstimate",
    "Noise",
    "Problem",
    "SweepConfig",
    "Trajectory",
    "estimate_limit",
    "first_order_change",
    "first_step_gain",
    "init_kernels",
    "keyed_noise",
    "lazy_limit",
    "load_config",
    "open_results",
    "run",
    "sample_noise",
    "solve_limit",
    "train_finite",
]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
