"""What `nfd validate` lets through also runs: small sweeps of random keys, computed to their end."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax.config import SweepConfig

SWEEPS = int(os.environ.get("NFD_FUZZ_SWEEPS", "100"))

CHOICES = {
    "precision": ["float64", "float32"],
    "problem.dataset": ["digits", "gaussian"],
    "problem.classes": [[0, 1], [0, 1, 2], None],
    "problem.loss": ["squared", "squared", "cross_entropy"],
    "problem.steps": [1, 2, 3],
    "problem.batch_size": [1, 2, 3],
    "problem.batches": ["fixed", "stream", "epochs"],
    "problem.pool": [None, 4],
    "problem.data_seed": ["fixed", "per_seed"],
    "problem.activation": ["tanh", "relu", "erf", "linear", "gelu"],
    "problem.horizon": [1.0, 0.5],
    "problem.parametrization": ["depth_mup", "depth_mup", "depth_mup", "mup", "vanilla"],
    "problem.train": ["all", "hidden"],
    "problem.learning_rate": [0.2, [0.1, 0.3]],
    "problem.optimizer": [
        None,
        None,
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"name": "adam"},
        {"name": "adamw", "weight_decay": 0.1},
    ],
    "problem.schedule": [None, {"name": "cosine", "warmup_steps": 1}, {"name": "linear", "end_factor": 0.5}],
    "problem.richness": [1.0, 0.5],
    "problem.centered": [False, True],
    "finite.simulator": ["auto", "dense", "matrix_free"],
    "finite.backward_weights": [["reused", "independent"], ["reused"], ["independent"]],
    "finite.widths": [[32], [16, 32], [18, 24]],
    "finite.depths": [[4], [2, 4, 8], [3, 4], [1, 4]],
    "limit.backward_weights": [["reused", "independent"], ["reused"], ["independent"]],
    "limit.particles": ["matched", "matched", 24],
    "limit.reference_particles": [None, None, 128],
    "limit.depth_steps": [8, 12, 24],
    "history.directions": [None, None, 9],
}


def drawn(seed: int) -> SweepConfig | None:
    """A random config, None where it is no valid one."""
    choose = random.Random(seed)
    tree: dict = {"name": "fuzz", "seeds": choose.choice([1, 2])}
    gone = choose.choice([None, None, "finite", "limit"])
    for key, values in CHOICES.items():
        section, _, name = key.partition(".")
        if section != gone and (value := choose.choice(values)) is not None:
            at = tree.setdefault(section, {}) if name else tree
            at[name or section] = value
    try:
        return SweepConfig.model_validate(tree)
    except ValueError:
        return None


VALID = [seed for seed in range(60 * SWEEPS) if drawn(seed)][:SWEEPS]


@pytest.mark.long
@pytest.mark.parametrize("seed", VALID)
def test_a_valid_config_runs_to_its_end(tmp_path, seed):
    """A process each, as one that compiles thousands of programs runs into the system's limit of mappings."""
    file, out = tmp_path / "fuzz.yaml", tmp_path / "out"
    file.write_text(drawn(seed).to_yaml())
    command = [sys.executable, "-m", "nfd_jax", "run", str(file), "--out", str(out), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    tree = nfd.open_results(out, strict=True)
    status = tree["status/cell"].values if "status" in tree.children else np.ones(1)
    assert np.isin(status, (1, 2)).all(), "done, or diverged"
    if (status == 1).all():
        for name in ("finite/loss", "limit/loss", "compare/limit_error_ms", "coupling/coupling_effect_ms"):
            group, variable = name.split("/")
            if group in tree.children and variable in tree[group]:
                assert np.isfinite(tree[name]).all(), name
    assert "verdicts" in tree.children and (out / "report.html").stat().st_size > 10_000
