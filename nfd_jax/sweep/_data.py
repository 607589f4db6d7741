"""What a sweep's networks learn: data and problems, loaded once for a section of the config."""

from functools import lru_cache
from typing import TYPE_CHECKING

import jax
import numpy as np

from nfd_jax.data import Data, load_problem_data
from nfd_jax.finite import Heldout
from nfd_jax.noise import stream
from nfd_jax.problem import Problem

if TYPE_CHECKING:
    from nfd_jax.config import ProblemConfig, SweepConfig

HELDOUT = 16
"""Held-out samples used of those a dataset offers."""


def seed_key(seed: int, repetition: int) -> jax.Array:
    """The key of one repetition under a sweep's master seed."""
    return stream(jax.random.key(seed), repetition)


def data_of(section: "ProblemConfig", seed: int, repetition: int = 0) -> Data:
    """The samples of a repetition; all have the same where the section says so."""
    return _loaded(section, seed, repetition if section.data_seed == "per_seed" else None)


@lru_cache(maxsize=16)
def _loaded(section: "ProblemConfig", seed: int, repetition: int | None) -> Data:
    return (
        load_problem_data(section, seed)
        if repetition is None
        else load_problem_data(section, seed, repetition)
    )


def problem_of(config: "SweepConfig", repetition: int = 0) -> Problem:
    """What the cells of one repetition run on, in the config's precision; the first learning rate stands in
    for all."""
    return load_problem(config.problem, config.seed, config.precision, repetition)[0]


def load_problem(
    section: "ProblemConfig", seed: int, precision: str, repetition: int = 0
) -> tuple[Problem, Heldout]:
    """The problem of a repetition, with its held-out samples."""
    data = data_of(section, seed, repetition)
    here = lambda x: jax.device_put(np.asarray(x, precision))  # unlike jnp.asarray it compiles nothing
    problem = Problem(
        here(data.inputs),
        here(data.targets),
        here(section.learning_rates[0]),
        loss=section.loss,
        activation=section.activation,
        horizon=here(section.horizon),
        parametrization=section.parametrization,
        train=section.train,
        **_options(section),
    )
    return problem, Heldout(here(data.heldout_inputs[:HELDOUT]), here(data.heldout_targets[:HELDOUT]))


def _options(section: "ProblemConfig") -> dict:
    """What a problem is told only where it is not the usual."""
    options = {}
    if section.richness != 1.0:
        options["richness"] = section.richness
    if section.centered:
        options["centered"] = True
    if (section.optimizer, section.schedule) != (type(section.optimizer)(), type(section.schedule)()):
        from nfd_jax.optimizers import from_settings

        options["optimizer"] = from_settings(section.optimizer, section.schedule, section.steps)
    return options
