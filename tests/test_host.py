"""What the package settles before JAX is there."""

import os
import subprocess
import sys

import pytest

from nfd_jax import _host

LOOPS = """
import sys
from nfd_jax._host import compile_small_loops
if sys.argv[1] == "whole":
    compile_small_loops()
import jax, numpy as np
import nfd_jax as nfd
from nfd_jax import programs
found, make = [], programs.Program._made
def made(*arguments):
    found.append(make(*arguments))
    return found[-1]
programs.Program._made = made
rng = np.random.default_rng(0)
inputs, targets = rng.standard_normal((3, 2, 5), "float32"), np.ones((3, 2, 1), "float32")
problem = nfd.Problem(inputs, targets, 0.3)
options = {"key": jax.random.key(0), "record": ("features", "gradients")}
limit = nfd.solve_limit(problem, particles=64, depth_steps=4, **options)
print(sum(one.run.as_text().count("xla_cpu_small_call") for one in found))
print(*(np.asarray(x).tobytes().hex() for x in jax.tree.leaves(limit)))
"""


@pytest.fixture
def told(monkeypatch):
    """What XLA_FLAGS says after `compile_small_loops`, and before."""

    def flags(before):
        monkeypatch.setenv("XLA_FLAGS", before)
        _host.compile_small_loops()
        return os.environ["XLA_FLAGS"].split()

    return flags


def test_xla_is_told_once_and_what_the_user_told_it_stays(told):
    own = f"--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold={_host.SMALL_LOOPS}"
    assert told("") == [own]
    assert told("--xla_dump_to=here") == ["--xla_dump_to=here", own]
    assert told(own) == [own]
    assert told("--xla_backend_extra_options=other=1") == ["--xla_backend_extra_options=other=1"]


def test_a_process_of_its_own_settles_all_and_what_the_user_told_openblas_stays(monkeypatch):
    seldom = []
    monkeypatch.setattr(_host.gc, "set_threshold", lambda *numbers: seldom.append(numbers))
    for before, after in ((None, "1"), ("3", "3")):
        monkeypatch.setenv("XLA_FLAGS", "")
        monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
        if before is not None:
            monkeypatch.setenv("OPENBLAS_NUM_THREADS", before)
        _host.settle()
        assert os.environ["OPENBLAS_NUM_THREADS"] == after
        assert str(_host.SMALL_LOOPS) in os.environ["XLA_FLAGS"]
    assert seldom[0][0] > 700 and len(seldom) == 2


def test_small_loops_are_compiled_whole_and_give_the_same_bits():
    def process(how):
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        command = [sys.executable, "-c", LOOPS, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        whole, numbers = done.stdout.splitlines()
        return int(whole), numbers

    (plain, numbers), (whole, again) = process("plain"), process("whole")
    assert whole > plain and numbers == again


def test_readers_of_results_need_no_jax():
    code = (
        "import sys; import nfd_jax.report._page, nfd_jax.report._figures, nfd_jax.report._show;"
        "import nfd_jax.verdicts._claims, nfd_jax.store;"
        "print([name for name in ('jax', 'scipy.stats') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
