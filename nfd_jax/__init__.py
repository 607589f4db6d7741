"""Finite ResNets of growing depth and Neural Feature Dynamics, their infinite-depth limit, side by side.

`train_finite` trains a network, `solve_limit` the limit, both on the same `sample_noise` where they are to be
compared path by path; `train_grid` trains networks of many sizes in one program; `run` sweeps over widths,
depths, seeds and learning rates from a YAML file, and `verdicts` judges its results. The mathematics stands
in the module docstrings: `parametrization` (the step), `gaussian` and `history` (matrices known through what
they were asked), `training`, `limit` and `observables`.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from nfd_jax._version import __version__

if TYPE_CHECKING:
    from nfd_jax.activations import Activation
    from nfd_jax.config import ConfigError, SweepConfig, load_config
    from nfd_jax.finite import train_finite, train_grid, train_with_innovations
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
    from nfd_jax.losses import Loss
    from nfd_jax.noise import Noise, keyed_noise, sample_noise, seed_key
    from nfd_jax.problem import Problem
    from nfd_jax.store import open_results
    from nfd_jax.trajectory import Coupling, Trajectory, Weights
    from nfd_jax.verdicts import verdicts

# Loaded when first used: checking a config must not wait for JAX.
_HOUSES = {
    "activations": "Activation",
    "config": "ConfigError SweepConfig load_config",
    "finite": "train_finite train_grid train_with_innovations",
    "launch": "run",
    "limit": "InitKernels LimitEstimate estimate_limit first_order_change first_step_gain init_kernels "
    "lazy_limit solve_limit",
    "losses": "Loss",
    "noise": "Noise keyed_noise sample_noise seed_key",
    "problem": "Problem",
    "store": "open_results",
    "trajectory": "Coupling Trajectory Weights",
    "verdicts": "verdicts",
}
_HOME = {name: house for house, names in _HOUSES.items() for name in names.split()}

__all__ = [
    "__version__",
    "Activation",
    "ConfigError",
    "Coupling",
    "InitKernels",
    "LimitEstimate",
    "Loss",
    "Noise",
    "Problem",
    "SweepConfig",
    "Trajectory",
    "Weights",
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
    "seed_key",
    "solve_limit",
    "train_finite",
    "train_grid",
    "train_with_innovations",
    "verdicts",
]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__


if "pdoc" in sys.modules:  # it documents what a module holds, not what it would load
    globals().update({name: __getattr__(name) for name in _HOME})
