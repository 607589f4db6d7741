"""The plan: which cells run together, weighed at a machine's speeds, and always all of them."""

from dataclasses import replace

import pytest
from _configs import config_with

from nfd_jax.config import SweepConfig
from nfd_jax.store import Batch
from nfd_jax.store._records import batch_from
from nfd_jax.sweep import _machine, _memory, _plan
from nfd_jax.sweep._machine import Machine
from nfd_jax.sweep._plan import make_plan
from nfd_jax.sweep._task import Task

MACHINE = Machine(
    "cpu: test", compile_seconds=0.1, flops=1e11, normals=1e8, bytes=1e10, operation_seconds=1e-6
)
GIB = 2**30


def config(**changes) -> SweepConfig:
    tree = {
        "name": "plan",
        "seeds": 8,
        "problem": {"dataset": "gaussian", "input_dim": 8, "steps": 4, "batch_size": 4},
        "finite": {"widths": [64, 128], "depths": [4, 8, 16]},
    }
    return config_with(tree, changes)


@pytest.fixture
def plan_on(monkeypatch):
    """The plan of a config on a machine of these speeds."""

    def plan(config: SweepConfig, speeds: Machine = MACHINE, **options) -> list[Batch]:
        monkeypatch.setattr(_plan, "typical", lambda: speeds)
        return make_plan(config, memory=options.pop("memory", 8 * GIB), **options)

    return plan


def cells(plan: list[Batch]) -> list[tuple[int, int, int]]:
    return sorted(
        (batch.width, depth, seed) for batch in plan for depth in batch.depths or (0,) for seed in batch.seeds
    )


SLOW = replace(MACHINE, flops=1e3, bytes=1e3, normals=1e3, operation_seconds=1.0)
DENSE, FREE = {"simulator": "dense"}, {"simulator": "matrix_free"}


@pytest.mark.parametrize("speeds", [MACHINE, SLOW])
@pytest.mark.parametrize("finite", [DENSE, FREE])
@pytest.mark.parametrize(
    "limit",
    [
        {},
        {"limit": {"depth_steps": 16}},
        {"limit": {"depth_steps": 16, "particles": 40}},
        {"limit": {"depth_steps": 16, "tolerance": 0.1}},
    ],
)
def test_every_cell_is_planned_once(plan_on, speeds, finite, limit):
    sweep = config(finite=finite, **limit)
    particles = sweep.limit.alone if limit else None  # 0 to a tolerance
    alone = {(particles, 0, seed) for seed in range(8)} if particles is not None else set()
    asked = {(width, depth, seed) for width in (64, 128) for depth in (4, 8, 16) for seed in range(8)} | alone
    assert cells(plan_on(sweep, speeds)) == sorted(asked)
    done = {(64, 4, 0), (64, 8, 0), (128, 16, 3), *alone}
    assert cells(plan_on(sweep, speeds, covered=done)) == sorted(asked - done)


def test_a_batch_takes_no_more_seeds_than_it_has_time_for(plan_on):
    """Fast: the most a CPU takes. Slow: a seed each, as no batch is shorter."""
    assert {len(batch.seeds) for batch in plan_on(config(finite=FREE))} == {4}
    assert {len(batch.seeds) for batch in plan_on(config(finite=FREE), SLOW)} == {1}


def test_an_accelerator_takes_more_seeds(plan_on, monkeypatch):
    for module in (_memory, _plan):
        monkeypatch.setattr(module, "on_cpu", lambda: False)
    assert {len(batch.seeds) for batch in plan_on(config(finite=FREE))} == {8}


def test_depths_run_together_unless_that_takes_too_long_or_too_much(plan_on):
    every = {(4, 8, 16)}
    sweep = config(finite=FREE)
    assert {batch.depths for batch in plan_on(sweep)} == every
    assert {batch.depths for batch in plan_on(sweep, SLOW)} == {(4,), (8,), (16,)}
    need = max(_memory.batch_bytes(Task.of(sweep, replace(batch, seeds=(0,)))) for batch in plan_on(sweep))
    assert {batch.depths for batch in plan_on(sweep, memory=need) if batch.width == 128} == {
        (4,),
        (8,),
        (16,),
    }
    for shared in ({"finite": DENSE}, {"finite": FREE, "limit": {"depth_steps": 16}}):
        assert {batch.depths for batch in plan_on(config(**shared), SLOW)} == every, (
            "one limit, or one draw of the weights, serves them"
        )


def test_padding_is_weighed_against_compiling(plan_on):
    sweep = config(finite=DENSE)
    sizes = lambda **speeds: {batch.width: batch.size for batch in plan_on(sweep, replace(MACHINE, **speeds))}
    assert sizes(compile_seconds=1e3) == {64: 128, 128: 128}
    assert sizes(compile_seconds=1e-6) == sizes(flops=1e3) == {64: 64, 128: 128}


@pytest.mark.parametrize("limit", [None, {"depth_steps": 16}])
def test_widths_of_conditional_gaussian_systems_share_programs_where_that_saves_time(plan_on, limit):
    sizes = lambda sweep, **speeds: {
        batch.width: batch.size for batch in plan_on(sweep, replace(MACHINE, **speeds))
    }
    sweep = config(finite=FREE | {"widths": [64, 128, 256]}, limit=limit)
    assert sizes(sweep, compile_seconds=1e3) == {64: 256, 128: 256, 256: 256}
    assert sizes(sweep, compile_seconds=1e-6) == dict.fromkeys((64, 128, 256)), "programs of their own"
    alone = config(finite=FREE | {"widths": [128]}, limit=limit)
    assert sizes(alone, compile_seconds=1e3) == {128: None}
    some = config(finite=FREE | {"widths": [64, 128, 2**17]}, limit=limit)
    assert sizes(some, compile_seconds=1e2, bytes=1e8) == {64: 128, 128: 128, 2**17: None}
    bounded = config(finite=FREE, limit=limit, history={"directions": 8})
    assert set(sizes(bounded, compile_seconds=1e3).values()) == {None}, "noise is drawn at each use there"


def test_what_is_computed_hangs_on_no_measured_speed(monkeypatch):
    """Programs that widths share round otherwise than their own."""
    sweep = config(finite=FREE, limit={"depth_steps": 16})
    plans = []
    for speeds in (MACHINE, SLOW):
        monkeypatch.setattr("nfd_jax.sweep._machine.measure", lambda precision, speeds=speeds: speeds)
        plans.append(make_plan(sweep))
    assert plans[0] == plans[1] and {batch.size for batch in plans[0]} == {128}


def test_a_plan_comes_back_from_the_store_as_it_was():
    from dataclasses import asdict

    batch = Batch("cells", 64, (4, 8), (0, 3), redrawn=True, size=128)
    assert (
        batch_from({name: list(x) if isinstance(x, tuple) else x for name, x in asdict(batch).items()})
        == batch
    )


@pytest.mark.parametrize("seeds, sizes", [(8, {4}), (5, {2, 3}), (2, {2}), (7, {2, 3}), (1, {1})])
def test_limits_of_two_seeds_meet_in_a_batch_where_laws_are_compared(plan_on, seeds, sizes):
    plan = plan_on(config(seeds=seeds, finite=FREE, limit={"depth_steps": 16}, measure=["law"]))
    assert {len(batch.seeds) for batch in plan} == sizes
    assert len(cells(plan)) == 2 * 3 * seeds == len(set(cells(plan)))


def test_no_choice_hangs_on_a_measurement(monkeypatch):
    """Rounding hangs on how a plan pads and groups, and a cache of speeds may hold anything."""
    monkeypatch.setattr(_machine, "measure", lambda precision: pytest.fail("measured"))
    monkeypatch.setattr(_machine, "stored_at", lambda precision: pytest.fail("looked up"))
    padded = config(seeds=8, finite={"widths": [60, 64], "simulator": "dense"})
    assert {batch.size for batch in make_plan(padded, memory=8 * GIB)} == {64}


def test_facts_of_a_batch_are_worked_out_from_the_config():
    sweep = config(
        finite={"simulator": "auto", "widths": [8, 64]},
        limit={"depth_steps": 32, "particles": 64},
        measure=["kernels"],
    )
    narrow, wide = (Task.of(sweep, Batch("cells", width, (4, 8, 16), (0,))) for width in (8, 64))
    assert (narrow.simulator, wide.simulator) == ("dense", "matrix_free"), "16 samples"
    assert not wide.solves_limit and wide.noise_depths == {4: 4, 8: 8, 16: 16}
    alone = Task.of(sweep, Batch("limit", 64, (), (0,)))
    assert alone.solves_limit and alone.flags == () and alone.limit_flags == ("reused", "independent")
    matched = config(finite=FREE, limit={"depth_steps": 32, "reference_particles": 512})
    task = Task.of(matched, Batch("cells", 64, (4, 8, 16), (0, 1)))
    assert task.solves_limit and set(task.noise_depths.values()) == {32} and task.samples == 16
    assert task.reference == 512 and task.reference_task.width == 512 and task.reference_task.seeds == (0, 1)
    coupled = config(finite=FREE, measure=["coupling"])
    assert Task.of(coupled, Batch("cells", 64, (4, 6), (0,))).noise_depths == {4: 256, 6: 192}
    assert hash(task) == hash(Task.of(matched, Batch("cells", 64, (4, 8, 16), (0, 1))))
