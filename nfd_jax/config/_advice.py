"""What a valid config leaves out, and what that costs: `nfd validate` says it, nothing is refused for it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig


def advice(config: "SweepConfig") -> list[str]:
    """One line, "key.path: what is left out, what that costs", for each thing a config could have and has
    not.
    """
    lines = []
    for variant, single in config.expand().items():
        if (
            single.limit is None
            and single.problem.parametrization == "depth_mup"
            and not single.needs_matrices
        ):
            place = f"variants.{variant}.limit" if variant else "limit"
            lines.append(
                f"{place}: left out, so nothing is compared with the infinite-depth limit: "
                "no limit_error, no law, no limit's curves in figures, and claims C4 and C6 stay unmeasured; "
                "add limit: {} to have them"
            )
    return lines
