"""The config of a sweep: what a YAML file may say, its defaults, and every reason to refuse it.

The only reader of YAML. `load_config` takes a file, `SweepConfig.model_validate` a tree; both check the same.
"""

from nfd_jax.config._advice import advice
from nfd_jax.config._errors import ConfigError
from nfd_jax.config._load import load_config
from nfd_jax.config._measures import applicable, lacking, measures, obstacle, register_measure
from nfd_jax.config._sections import (
    FiniteConfig,
    HistoryConfig,
    LimitConfig,
    OptimizerConfig,
    ProblemConfig,
    ScheduleConfig,
    VerdictsConfig,
)
from nfd_jax.config._shipped import find_config, shipped_configs, summary
from nfd_jax.config._sweep import SweepConfig
from nfd_jax.config._tree import dotted, flat

__all__ = [
    "ConfigError",
    "FiniteConfig",
    "HistoryConfig",
    "LimitConfig",
    "OptimizerConfig",
    "ProblemConfig",
    "ScheduleConfig",
    "SweepConfig",
    "VerdictsConfig",
    "advice",
    "applicable",
    "dotted",
    "find_config",
    "flat",
    "load_config",
    "measures",
    "lacking",
    "obstacle",
    "register_measure",
    "shipped_configs",
    "summary",
]
