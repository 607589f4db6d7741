"""What a sweep will cost, before anything of it runs: what `nfd plan` prints."""

from collections import Counter
from typing import TYPE_CHECKING

from nfd_jax.store import Batch
from nfd_jax.sweep._compilation import COMPILE, compile_seconds, programs
from nfd_jax.sweep._machine import Machine, machine, stored_at
from nfd_jax.sweep._memory import (
    batch_bytes,
    check_fits,
    device_memory,
    devices_for,
    in_words,
    peak_bytes,
    spread,
)
from nfd_jax.sweep._plan import BATCH_SECONDS, make_plan
from nfd_jax.sweep._task import Task
from nfd_jax.sweep._work import Work, work

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

START_SECONDS, REPORT_SECONDS, ROUNDING_PROGRAMS = 4.0, 5.0, 1
"""Around the cells: imports and data; fits, figures and the page; and the programs of the float32 check, a
network that is asked little and its draw, in units of a network's."""


def around_seconds(config: "SweepConfig", on: Machine) -> float:
    """What the command takes besides its batches: start, float32 check, verdicts, figures and the page."""
    programs = ROUNDING_PROGRAMS if config.precision == "float32" else 0
    check = programs * COMPILE["network"] * on.compile_seconds
    return START_SECONDS + check + REPORT_SECONDS


def describe(config: "SweepConfig", name: str) -> str:
    """What `nfd plan` prints of one config: cells, batches, compilations, work, memory, time, and why batches
    are as they are."""
    on, free = machine(config.precision), device_memory()
    plan = make_plan(config)
    kinds = {task: count for batch, count in _alike(plan).items() for task in [Task.of(config, batch)]}
    tasks = list(kinds)
    each = {task: work(task) for task in tasks}
    seconds = {task: each[task].seconds(on) / devices_for(task.batch) for task in tasks}
    compiled, compiling = programs(tasks), compile_seconds(tasks, on)
    total = sum((each[task] * count for task, count in kinds.items()), Work())
    computing = sum(seconds[task] * count for task, count in kinds.items())
    around = around_seconds(config, on)
    peaks = {task: peak_bytes(task) for task in tasks}
    largest = max(tasks, key=peaks.__getitem__)
    counted = {kind: count for kind, count in compiled.items() if kind != "measures"}
    named = ", ".join(f"{n} {kind}" for kind, n in counted.items())
    need, place = in_words(peaks[largest]), largest.batch.id
    small, measured = _time(on.compile_seconds), stored_at(config.precision)
    facts = {
        "cells": _cells(config),
        "batches": f"{len(plan)}",
        "compilations": f"{sum(counted.values())} ({named}) and small ones",
        "arithmetic": f"{total.flops:.3g} floating-point operations",
        "random": f"{total.normals:.3g} normals",
        "memory": f"{need} at most, in {place}; {in_words(free)} free on {on.device}",
        "speeds": f"{on.flops:.2g} operations, {on.normals:.2g} normals, {on.bytes:.2g} bytes a second, "
        f"{small} to compile a small program; kept in {measured}",
        "time": f"about {_time(compiling + computing + around)}: "
        f"compiling {_time(compiling)} (less where cached), "
        f"computing {_time(computing)}, start, verdicts and report {_time(around)}",
    }
    lines = [f"{name or config.name}", *(f"  {key:<13} {text}" for key, text in facts.items())]
    lines += [
        f"  {'grouping' if not i else '':<13} {reason}"
        for i, reason in enumerate(_reasons(config, kinds, on))
    ]
    lines += [f"  does not fit  {line}" for line in check_fits(tasks, memory=free)]
    for task, count in kinds.items():
        alone = f"{task.width} particles" if task.width else "limits to a tolerance"
        what = f"width {task.width}, depths {_join(task.depths)}" if task.batch.kind == "cells" else alone
        memory, time = in_words(peaks[task]), _time(seconds[task])
        lines.append(f"  {count} × {what}, seeds {len(task.seeds)}: {memory}, about {time} each")
    return "\n".join(lines)


def _alike(plan: list[Batch]) -> dict[Batch, int]:
    """Batches that differ in nothing but which seeds they hold, as the first of them; and how many."""
    first: dict[tuple, Batch] = {}
    count: Counter[tuple] = Counter()
    for batch in plan:
        shape = batch.kind, batch.width, batch.depths, len(batch.seeds), batch.redrawn, batch.size
        first.setdefault(shape, batch)
        count[shape] += 1
    return {batch: count[shape] for shape, batch in first.items()}


def _cells(config: "SweepConfig") -> str:
    finite, limit, rates = config.finite, config.limit, len(config.problem.learning_rates)
    parts = []
    if finite:
        count = len(finite.widths) * len(finite.depths) * len(finite.backward_weights) * rates * config.seeds
        sizes = {
            "width": len(finite.widths),
            "depth": len(finite.depths),
            "seed": config.seeds,
            "learning rate": rates,
        }
        grid = " × ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in sizes.items())
        parts.append(f"{count} networks ({grid} × {' and '.join(finite.backward_weights)})")
    if limit:
        sizes = len(finite.widths) if finite and limit.particles == "matched" else 1
        own = config.seeds if limit.alone != 0 or config.problem.data_seed == "per_seed" else 1
        solved = f"of {limit.depth_steps} steps"
        how = solved if limit.alone != 0 else f"to a tolerance of {limit.tolerance:g}"
        parts.append(f"{sizes * len(limit.backward_weights) * rates * own} limits {how}")
    if limit and limit.reference_particles:
        count = len(limit.backward_weights) * rates * config.seeds
        parts.append(f"{count} limits of {limit.reference_particles} particles")
    return ", ".join(parts)


def _reasons(config: "SweepConfig", kinds: dict[Task, int], on: Machine) -> list[str]:
    """Why the plan's batches are as they are, in what it saves; `kinds` are those that differ, with how often
    each occurs."""
    reasons, tasks = [], list(kinds)
    shared = [task for task in tasks if len(task.depths) > 1]
    if shared:
        apart = {task.at(depths=(depth,)): kinds[task] for task in shared for depth in task.depths}
        total = lambda counts: sum((work(task).seconds(on) * count for task, count in counts.items()), 0.0)
        computing = total(apart) - total({task: kinds[task] for task in shared})
        apart = list(apart)
        compiling = compile_seconds(apart, on) - compile_seconds(shared, on)
        saved = f"{_time(computing)} of computing and {_time(compiling)} of compiling saved"
        reasons.append(f"all depths of a width together, on one noise and beside one limit: about {saved}")
    if all(task.tolerance is not None for task in tasks):
        return ["limits to a tolerance: each of many small systems, and one for repetitions of equal samples"]
    runs = len(config.problem.learning_rates) * len((config.finite or config.limit).backward_weights)
    if runs > 1:
        reasons.append(
            f"all learning rates and backward weights together: {runs} runs a seed share its noise or weights"
        )
    groups = sorted({len(task.seeds) for task in tasks})
    several = f"{_join(tuple(groups))} of {config.seeds} seeds"
    reasons.append(
        f"{several} a batch: a divisor that fits in memory "
        f"and within {_time(BATCH_SECONDS)}, where one seed does"
    )
    batches: list[Batch] = [task.batch for task in tasks]
    padded = sorted({(batch.width, batch.size) for batch in batches if batch.size not in (None, batch.width)})
    if padded:
        served = ", ".join(f"{width} in {wider}" for width, wider in padded)
        reasons.append(f"widths padded, {served}: takes less time than compiling programs of their own")
    if redrawn := [task for task in tasks if task.batch.redrawn]:
        kept = max(batch_bytes(task.at(redrawn=False, seeds=task.seeds[:1])) for task in redrawn)
        widths = _join(tuple(sorted({task.width for task in redrawn})))
        reasons.append(f"width {widths}: noise drawn anew at each use, kept it would take {in_words(kept)}")
    if wide := [task for task in tasks if spread(task) > 1]:
        widths = _join(tuple(sorted({task.width for task in wide})))
        reasons.append(f"width {widths}: coordinates shared out among the devices, too large for one")
    return reasons


def _join(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))


def _time(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
