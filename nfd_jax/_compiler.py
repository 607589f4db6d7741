"""How XLA compiles the programs of a sweep."""

import jax


def compiler_options() -> dict[str, str | bool] | None:
    """On a CPU LLVM's level 1: above it programs take longer to compile and none is faster, as products are not compiled by LLVM."""
    return {"xla_backend_optimization_level": "1"} if jax.default_backend() == "cpu" else None
