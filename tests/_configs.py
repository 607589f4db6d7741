"""Small configs with some of their keys changed."""

from nfd_jax.config import SweepConfig


def config_with(tree: dict, changes: dict) -> SweepConfig:
    """`tree` as a config, each section of `changes` merged into its own; a change to None takes the section
    away."""
    for key, value in changes.items():
        tree = tree | {key: {**tree.get(key, {}), **value} if isinstance(value, dict) else value}
    return SweepConfig.model_validate({key: value for key, value in tree.items() if value is not None})
