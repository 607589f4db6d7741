"""The config of a sweep: what a YAML file may say, its defaults, and every reason to refuse it, found at once."""

from nfd_jax.config._errors import ConfigError
from nfd_jax.config._schema import ACTIVATIONS, FiniteConfig, LimitConfig, ProblemConfig, SweepConfig, load_config

__all__ = ["ACTIVATIONS", "ConfigError", "FiniteConfig", "LimitConfig", "ProblemConfig", "SweepConfig", "load_config"]
