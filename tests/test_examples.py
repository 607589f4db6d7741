"""The examples in public docstrings run, and give what they show."""

import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray

import nfd_jax as nfd

CALLS = [name for name in nfd.__all__ if callable(getattr(nfd, name)) and name[0].islower()]
CLASSES = ["Problem"]
ELSEWHERE = {"run", "open_results"}
"""Shown by the README's lines, which other tests run."""


@pytest.fixture
def names(monkeypatch) -> dict:
    """What every example may use: `problem` is that of `Problem`'s own."""
    monkeypatch.chdir(Path(__file__).parents[1])
    inputs = np.random.default_rng(0).standard_normal((3, 2, 4), "float32")
    problem = nfd.Problem(inputs, np.ones((3, 2, 1), "float32"), learning_rate=0.1)
    return {"jax": jax, "np": np, "nfd": nfd, "xarray": xarray, "problem": problem}


@pytest.mark.parametrize("name", [*CALLS, *CLASSES])
def test_examples_of_public_names(name, names):
    shown = import_module("nfd_jax.verdicts").judge if name == "verdicts" else getattr(nfd, name)
    found = doctest.DocTestParser().get_doctest(shown.__doc__, names, name, None, None)
    assert bool(found.examples) != (name in ELSEWHERE), f"{name} needs an example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(found).failed == 0


def test_the_api_reference_finds_every_name():
    """pdoc shows what a module holds: names are loaded when used, except where it is pdoc that asks."""
    code = (
        "import sys, types; sys.modules['pdoc'] = types.ModuleType('pdoc'); import nfd_jax as nfd; "
        "assert set(nfd.__all__) <= set(vars(nfd)), set(nfd.__all__) - set(vars(nfd))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
