"""Tests run in float64 unless they say otherwise, and with the package's array shapes checked at run time."""

import gc
import os

import jax
import jaxlib.version
import numpy as np
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)

# Tests spend most of their time on compiling: those that run for longer ask for QUICK_TO_RUN. XLA reads its
# flags once: processes that tests start compile as users' do.
told = os.environ.get("XLA_FLAGS", "")
light = "--xla_backend_optimization_level=0"
if jaxlib.version.__version_info__ < (0, 11):  # XLA ends the process on a flag that it does not know
    light += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{light} {told}"
jax.jit(lambda: 0)()
os.environ["XLA_FLAGS"] = told

# Not where users call in: there a wrong argument must meet the package's own sentence.
SHAPED = (
    "noise", "gaussian", "history", "memory", "training", "observables", "losses", "optimizers",
    "parametrization", "trajectory", "finite._matrix_free", "finite._matrices", "finite._hidden",
    "_sizes", "finite._updates", "finite._dense", "finite._grid", "finite._innovations",
    "limit._terms", "limit._solve", "limit._lazy",
)  # fmt: skip
with install_import_hook([f"nfd_jax.{name}" for name in SHAPED], "beartype.beartype"):
    import nfd_jax.finite
    import nfd_jax.limit  # noqa: F401
    from nfd_jax import programs
    from nfd_jax.report import _helper

# A program found on disk would not see what a test puts in place of a function.
programs.KEPT_BYTES = 0
programs.compiler_options = lambda **_: None
# Tests keep all cores busy as it is.
_helper.cores = lambda: 1


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """A process can map so many compiled programs and no more: those of a file of tests go with it."""
    yield
    programs.forget()
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def make_problem():
    """A random problem: fixed batch of P samples over K steps, C outputs."""
    from nfd_jax import Problem

    def make(
        steps=3, rows=3, dim=5, outputs=1, *, seed=0, stream=False, dtype=np.float64, rate=0.4, **options
    ):
        rng = np.random.default_rng(seed)
        batches = steps if stream else 1
        x = rng.standard_normal((batches, rows, dim))
        y = rng.standard_normal((batches, rows, outputs))
        if options.get("loss") == "cross_entropy":
            y = np.eye(outputs)[rng.integers(0, outputs, (batches, rows))]
        x, y = (np.broadcast_to(a, (steps, *a.shape[1:])).astype(dtype) for a in (x, y))
        return Problem(x, y, rate, **options)

    return make
