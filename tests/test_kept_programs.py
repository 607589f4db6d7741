"""Programs kept on disk: the next process neither traces nor compiles, and never takes another's program."""

import os
import subprocess
import sys
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax import programs, runtime
from nfd_jax.programs import Program

TWICE = """
import sys, jax, numpy as np
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import nfd_jax as nfd
from nfd_jax import programs, training
if sys.argv[2] == "found":
    training.train = None  # what was found needs no tracing
missed = []
note = lambda event, **_: missed.append(event) if event.endswith("cache_misses") else None
jax.monitoring.register_event_listener(note)
problem = nfd.Problem(np.ones((2, 2, 5), np.float32), np.ones((2, 2, 1), np.float32), 0.3)
options = {"key": jax.random.key(0), "record": ("features",), "heldout": np.ones((3, 5), np.float32)}
run = nfd.solve_limit(problem, particles=8, depth_steps=4, **options)
numbers = [np.asarray(x).tobytes().hex() for x in jax.tree.leaves(run)]
print(len(missed), type(run).__name__, *numbers)
"""


def process(folder, how):
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(folder), how], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    missed, *found = done.stdout.split()
    return int(missed), found


def test_a_second_process_neither_traces_nor_compiles_and_gets_the_same_numbers(tmp_path):
    missed, numbers = process(tmp_path, "new")
    assert missed > 0 and process(tmp_path, "found") == (0, numbers)
    for kept in (tmp_path / "nfd_jax").iterdir():
        kept.write_bytes(kept.read_bytes()[:-200])  # damaged: built again
    assert process(tmp_path, "new")[1] == numbers


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of kept programs, JAX's own cache beside it."""
    monkeypatch.setattr(programs, "KEPT_BYTES", 2**20)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / "nfd_jax"
    jax.config.update("jax_compilation_cache_dir", before)


def scaled(problem, x, factor, name="tanh"):
    from nfd_jax.activations import resolve

    return {"y": factor * resolve(name).value(x) * problem.learning_rate, "same": (x, None)}


def address(*arguments, function=scaled):
    kept = programs._Kept.of(function, arguments, None)
    return kept and kept.path.name


@pytest.fixture
def known(monkeypatch):
    """Functions of this file count as the package's."""
    monkeypatch.setattr(programs, "COMPUTES_WITH", (*programs.COMPUTES_WITH, __name__))
    found = programs._built_with
    found.cache_clear()
    yield
    found.cache_clear()


def test_an_address_changes_with_all_that_the_program_depends_on(folder, known, make_problem, monkeypatch):
    problem, x = make_problem(), jnp.ones(3)
    other = [
        address(problem, x, 2.0),
        address(problem, x, 3.0),
        address(problem, x, 2),
        address(problem, jnp.ones(4), 2.0),
        address(problem, jnp.ones(3, jnp.float32), 2.0),
        address(problem, jnp.asarray(1.0), 2.0),
        address(problem, jnp.asarray(np.ones(())), 2.0),
        address(make_problem(activation="relu"), x, 2.0),
        address(make_problem(optimizer=nfd.optimizers.Settings(momentum=0.9)), x, 2.0),
        address(make_problem(optimizer=nfd.optimizers.Settings(momentum=0.8)), x, 2.0),
        address(make_problem(activation=jnp.tanh), x, 2.0),
        address(problem, x, 2.0, function=process),
    ]
    with jax.default_matmul_precision("bfloat16"):
        other.append(address(problem, x, 2.0))
    with jax.enable_x64(False):
        other.append(address(problem, x, 2.0))
    monkeypatch.setattr(programs, "_built_with", lambda: "other sources")
    other.append(address(problem, x, 2.0))
    assert None not in other and len(set(other)) == len(other)


def test_equal_requests_have_one_address(folder, known, make_problem):
    one, same = (address(make_problem(seed=seed, rate=0.1 * seed), jnp.ones(3), 2.0) for seed in (1, 2))
    assert one == same == address(make_problem(), np.ones(3), 2.0)


def test_a_users_function_is_not_kept(folder, known, make_problem):
    mine = lambda z: jnp.tanh(z)
    assert address(make_problem(activation=mine), jnp.ones(3), 2.0) is None
    assert address(make_problem(optimizer=partial(mine)), jnp.ones(3), 2.0) is None
    assert address(make_problem(), jnp.ones(3), 2.0, function=mine) is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, known, make_problem, monkeypatch):
    (tmp_path / "nfd_jax").write_text("a file where the folder would be")
    monkeypatch.setattr(programs, "KEPT_BYTES", 2**20)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        found = Program(scaled)(make_problem(rate=0.5), jnp.ones(3), 2.0)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    np.testing.assert_allclose(found["y"], np.tanh(1.0))


def test_the_oldest_programs_make_room(tmp_path, monkeypatch):
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    monkeypatch.setattr(programs, "KEPT_BYTES", 250)
    programs._make_room(tmp_path)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["a", "b"]


def test_a_kept_program_gives_what_the_function_gives(folder, known, make_problem):
    arguments = make_problem(rate=0.5), jnp.arange(3.0), 2.0
    first = Program(scaled)
    expected = first(*arguments)
    assert len(list(folder.iterdir())) == 1
    second = Program(scaled)
    found = second(*arguments)
    assert second.executable(*arguments).build == 0.0 < first.executable(*arguments).build
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    np.testing.assert_array_equal(found["y"], expected["y"])
    np.testing.assert_array_equal(found["same"][0], arguments[1])


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_program_that_others_may_have_written_is_built_again(folder, known, make_problem, mode):
    arguments = make_problem(rate=0.5), jnp.arange(3.0), 2.0
    Program(scaled)(*arguments)
    [kept] = folder.iterdir()
    kept.chmod(mode)
    again = Program(scaled)
    again(*arguments)
    assert again.executable(*arguments).build > 0.0
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_threads_that_need_one_program_compile_it_once(make_problem):
    traced = []

    def slow(x):
        traced.append(threading.get_ident())
        return x + 1

    program, found = Program(slow), []
    threads = [threading.Thread(target=lambda: found.append(program(jnp.ones(2)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(traced) == 1 and len(found) == 8
    program(jnp.ones(3))
    assert len(traced) == 2
    programs.forget()
    program(jnp.ones(2))
    assert len(traced) == 3


def test_a_program_inside_another_is_a_part_of_it():
    program = Program(lambda x, power: x**power)
    np.testing.assert_allclose(jax.grad(lambda x: program(x, 3))(2.0), 12.0)
    np.testing.assert_allclose(jax.vmap(lambda x: program(x, 2))(jnp.arange(3.0)), [0, 1, 4])


def test_xla_knows_every_option_that_it_is_given():
    """An unknown one would stop every program: `runtime` must leave out what a release of jaxlib refuses."""
    for of_products in (False, True):
        options = runtime.compiler_options(of_products=of_products)
        assert jax.jit(lambda x: x + 1).lower(1.0).compile(options)(1.0) == 2.0
