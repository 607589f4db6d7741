"""When a measure can be taken, and why not. `nfd_jax.measures` adds measures of others with
`register_measure`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from nfd_jax import names

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

Obstacle = Callable[["SweepConfig"], str | None]

_OBSTACLES: dict[str, Obstacle] = {}


def register_measure(name: str, obstacle: Obstacle) -> None:
    """Make `name` a word that `measure` may hold.

    `obstacle(config)` says why it cannot be taken, as "needs this, allowed: with that", or None where it can.
    """
    _OBSTACLES[name] = obstacle


def measures() -> tuple[str, ...]:
    """The measures there are, in the order in which defaults name them."""
    return tuple(_OBSTACLES)


def obstacle(config: "SweepConfig", measure: str) -> str | None:
    """Why a measure cannot be taken, or None; `reference_error` is asked for by
    `limit.reference_particles`.
    """
    return (_OBSTACLES | _BY_OTHER_KEYS)[measure](config)


def lacking(config: "SweepConfig", measure: str) -> str | None:
    """Why a measure is refused to those who ask for it by name: it cannot be taken, or not enough is run for
    it; None where it is not."""
    return obstacle(config, measure) or _too_few_for_a_slope(config, measure)


def applicable(config: "SweepConfig") -> tuple[str, ...]:
    """The measures that can be taken."""
    return tuple(measure for measure in measures() if obstacle(config, measure) is None)


def _too_few_for_a_slope(config: "SweepConfig", measure: str) -> str | None:
    """Why no rate could be fitted to a measure that is asked for by name, or None."""
    if config.finite is None or measure not in ("limit_error", "coupling"):
        return None
    depths, widths = config.finite.depths, config.finite.widths
    listed = lambda sizes: ", ".join(map(str, sizes))
    if len(depths) < 3 or max(depths) < 4 * min(depths):
        got = f"has depths {listed(depths)} to fit a slope to"
        return f"{got}, allowed: 3 or more finite.depths over a factor of 4"
    if measure == "coupling" and len(widths) < 2:
        return f"has width {listed(widths)} to fit a slope to, allowed: at least 2 finite.widths"
    return None


def _nothing(config: "SweepConfig") -> str | None:
    return None


def _networks(config: "SweepConfig") -> str | None:
    return None if config.finite else "measures finite networks, allowed: with a finite section"


def _no_limit(config: "SweepConfig") -> str | None:
    own = config.problem.parametrization
    return (
        None
        if own == "depth_mup"
        else f"compares with the limit, and {own} has none, allowed: with depth_mup"
    )


def _common_noise(config: "SweepConfig") -> str | None:
    if config.finite is None:
        return _networks(config)
    if config.limit is None:
        return _no_limit(config) or "compares with the limit, allowed: with a limit section"
    if config.limit.particles != "matched":
        how = f"particles is {config.limit.particles}" if config.limit.alone else "the limit has a tolerance"
        got = f"has no common noise when {how}"
        return f"{got}, allowed: with limit.particles matched"
    if config.finite.simulator == "dense" and config.problem.asks_first:
        got = "needs innovations, which dense networks of centered outputs on batches that differ do not have"
        return f"{got}, allowed: with matrix_free, with batches fixed, or with centered false"
    return None


def _too_narrow(config: "SweepConfig") -> str | None:
    least, needed = min(config.finite.widths), config.directions
    if least >= needed:
        return None
    wider = f"widths of at least {config.directions_rule} = {needed}"
    return f"needs the matrix-free network, impossible at width {least}, allowed: with {wider}"


def _coupling(config: "SweepConfig") -> str | None:
    finite = config.finite
    if finite is None:
        return _networks(config)
    if set(finite.backward_weights) != set(names.BACKWARD_WEIGHTS):
        return "compares both flags, allowed: with finite.backward_weights [reused, independent]"
    if config.problem.parametrization != "depth_mup":
        return f"is not defined for parametrization {config.problem.parametrization}, allowed: with depth_mup"
    if finite.simulator == "dense":
        return "needs the matrix-free network, allowed: with finite.simulator auto or matrix_free"
    if config.needs_matrices:
        linear = ", ".join(names.LINEAR_OPTIMIZERS)
        return (
            f"needs the matrix-free network, not with {config.problem.optimizer.name}, allowed: with {linear}"
        )
    return _too_narrow(config)


def _reference(config: "SweepConfig") -> str | None:
    finite, limit = config.finite, config.limit
    if finite is None:
        return _networks(config)
    if limit is None or limit.reference_particles is None:
        return _no_limit(config) or "compares with a larger limit, allowed: with limit.reference_particles"
    if finite.simulator == "dense":
        return "needs the matrix-free network, allowed: with finite.simulator auto or matrix_free"
    return _too_narrow(config)


def _response(config: "SweepConfig") -> str | None:
    if config.finite is None:
        return _networks(config)
    if config.problem.parametrization != "depth_mup":
        return f"is not defined for parametrization {config.problem.parametrization}, allowed: with depth_mup"
    return None


_BUILT_IN: dict[names.MeasureName, Obstacle] = {
    "limit_error": _common_noise,
    "coupling": _coupling,
    "spectrum": _networks,
    "kernels": _nothing,
    "law": _common_noise,
    "response": _response,
}
_BY_OTHER_KEYS: dict[str, Obstacle] = {"reference_error": _reference}

for _name in names.MEASURES:
    register_measure(_name, _BUILT_IN[_name])
