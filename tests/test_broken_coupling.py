"""The instrument can tell: a network whose coupling is dropped, or enters with the wrong sign, changes what is concluded."""

import numpy as np
import pytest

from nfd_jax import SweepConfig
from nfd_jax.finite._matrix_free import MatrixFree
from nfd_jax.sweep import _cells
from nfd_jax.sweep._execute import run_batch
from nfd_jax.sweep._plan import make_plan
from nfd_jax.verdicts._rates import classify


def conclusions(width: int) -> dict[str, str]:
    """What the distances of networks with reused weights to either limit do with depth, after three updates."""
    sweep = SweepConfig.model_validate({
        "name": "broken", "seeds": 8, "precision": "float64",
        "problem": {"steps": 4, "batch_size": 2, "learning_rate": 1.0},
        "finite": {"widths": [width], "depths": [4, 8, 16, 32], "backward_weights": ["reused"]},
        "limit": {"depth_steps": 256}, "measure": ["limit_error"],
    })  # fmt: skip
    parts = [run_batch(sweep, batch)["compare/limit_error_ms"] for batch in make_plan(sweep)]
    error = np.concatenate(parts, axis=5)[0, :, 0, 0, :, :, -1, 0]  # limit flag, depth, seed: h at the last step
    depths = sweep.finite.depths
    kinds = [classify(depths, samples.T, reference=256, n_boot=300).kind for samples in error]
    return dict(zip(sweep.limit.backward_weights, kinds, strict=True))


@pytest.fixture(scope="module")
def intact():
    return conclusions(128)


# A width each: programs are cached by shape, and a broken one must not be mistaken for another.
@pytest.mark.parametrize("name,factor,width", [("dropped", 0.0, 127), ("sign flipped", -1.0, 126)])
def test_a_broken_coupling_changes_a_verdict(monkeypatch, intact, name, factor, width):
    monkeypatch.setattr(_cells, "MatrixFree", lambda problem, reuse, depth: MatrixFree(problem, factor * reuse, depth))
    assert conclusions(width) != intact


def test_the_width_alone_changes_none(intact):
    assert conclusions(125) == intact
