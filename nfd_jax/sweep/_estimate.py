"""What a sweep will cost, before anything of it runs: what `nfd plan` prints."""

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from nfd_jax.runtime import one_by_one
from nfd_jax.store._batch import Batch, noise_depth, simulator
from nfd_jax.sweep._machine import Machine, machine, stored_at
from nfd_jax.sweep._memory import batch_bytes, check_fits, device_memory, devices_for, most_at_once, runs_at_once, size, spread
from nfd_jax.sweep._plan import BATCH_SECONDS, PROGRAM, make_plan
from nfd_jax.sweep._work import Work, work

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

COMPILE = {"network": 18, "limit": 31, "dense": 11, "noise": 10}
"""Time to trace and compile the programs that matter, in units of the small one's that a machine is measured with; each
width's small programs together take as long as one of `noise`."""


def programs(config: "SweepConfig", plan: list[Batch]) -> Counter[str]:
    """How many programs of each kind of COMPILE a plan compiles: one for each set of shapes."""
    found: set[tuple] = set()
    for batch in plan:
        shape = batch.width, 1 if one_by_one() else len(batch.seeds)
        limit = config.limit
        if limit is not None and (batch.kind == "limit" or limit.particles == "matched"):
            found |= {("limit", *shape), ("noise", *shape, limit.depth_steps)}
        if not batch.depths:
            continue
        if simulator(config, batch.width) == "dense":
            found |= {("dense", batch.size, len(batch.seeds), batch.depths)}
        else:
            found |= {("network", *shape, max(batch.depths))}
            found |= {("noise", *shape, noise_depth(config, depth)) for depth in batch.depths}
    return Counter(kind for kind, *_ in sorted(found))


def compile_seconds(config: "SweepConfig", plan: list[Batch], on: Machine) -> float:
    """With an empty compilation cache."""
    units = sum(COMPILE[kind] * count for kind, count in programs(config, plan).items())
    return (units + COMPILE["noise"] * len({batch.width for batch in plan})) * on.compile_seconds


def describe(config: "SweepConfig", name: str) -> str:
    """What `nfd plan` prints of one config: cells, batches, compilations, work, memory, time, and why batches are as they are."""
    plan, on, free = make_plan(config), machine(config.precision), device_memory()
    compiled, seconds = programs(config, plan), [work(config, batch).seconds(on) / devices_for(batch) for batch in plan]
    total, compiling = sum((work(config, batch) for batch in plan), Work()), compile_seconds(config, plan, on)
    peak = lambda batch: batch_bytes(config, batch, at_once=runs_at_once(config, batch, most=most_at_once(config, batch)))
    largest = max(plan, key=peak)
    facts = {
        "cells": _cells(config),
        "batches": f"{len(plan)}",
        "compilations": f"{sum(compiled.values())} ({', '.join(f'{n} {kind}' for kind, n in compiled.items())}) and small ones",
        "arithmetic": f"{total.flops:.3g} floating-point operations",
        "random": f"{total.normals:.3g} normals",
        "memory": f"{size(peak(largest))} at most, in {largest.id}; {size(free)} free on {on.device}",
        "speeds": f"{on.flops:.2g} operations, {on.normals:.2g} normals, {on.bytes:.2g} bytes a second, "
        f"{_time(on.compile_seconds)} to compile a small program; measured once, {stored_at(config.precision)}",
        "time": f"about {_time(compiling + sum(seconds))}: compiling {_time(compiling)} (less where cached), "
        f"computing {_time(sum(seconds))}",
    }
    lines = [f"{name or config.name}", *(f"  {key:<13} {text}" for key, text in facts.items())]
    lines += [f"  {'grouping' if not i else '':<13} {reason}" for i, reason in enumerate(_reasons(config, plan, on))]
    lines += [f"  does not fit  {line}" for line in check_fits(config, plan, memory=free)]
    alike: dict[tuple, list[int]] = {}
    for i, batch in enumerate(plan):
        alike.setdefault((batch.kind, batch.width, batch.depths, len(batch.seeds)), []).append(i)
    for (kind, width, depths, seeds), places in alike.items():
        what = f"width {width}, depths {_join(depths)}" if kind == "cells" else f"{width} particles"
        memory = size(peak(plan[places[0]]))
        lines.append(f"  {len(places)} × {what}, seeds {seeds}: {memory}, about {_time(seconds[places[0]])} each")
    return "\n".join(lines)


def _cells(config: "SweepConfig") -> str:
    finite, limit, rates = config.finite, config.limit, len(config.problem.learning_rates)
    parts = []
    if finite:
        count = len(finite.widths) * len(finite.depths) * len(finite.backward_weights) * rates * config.seeds
        sizes = {"width": len(finite.widths), "depth": len(finite.depths), "seed": config.seeds, "learning rate": rates}
        grid = " × ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in sizes.items())
        parts.append(f"{count} networks ({grid} × {' and '.join(finite.backward_weights)})")
    if limit:
        sizes = len(finite.widths) if finite and limit.particles == "matched" else 1
        parts.append(f"{sizes * len(limit.backward_weights) * rates * config.seeds} limits of {limit.depth_steps} steps")
    return ", ".join(parts)


def _reasons(config: "SweepConfig", plan: list[Batch], on: Machine) -> list[str]:
    """Why the plan's batches are as they are, in what it saves."""
    reasons = []
    shared = [batch for batch in plan if len(batch.depths) > 1]
    if shared:
        apart = [replace(b, depths=(depth,)) for b in shared for depth in b.depths]
        total = lambda batches: sum((work(config, batch).seconds(on) for batch in batches), 0.0)
        computing = total(apart) - total(shared)
        compiling = compile_seconds(config, apart, on) - compile_seconds(config, shared, on)
        saved = f"{_time(computing)} of computing and {_time(compiling)} of compiling saved"
        reasons.append(f"all depths of a width together, on one noise and beside one limit: about {saved}")
    runs = len(config.problem.learning_rates) * len((config.finite or config.limit).backward_weights)
    if runs > 1:
        reasons.append(f"all learning rates and backward weights together: {runs} runs a seed share its noise or weights")
    groups = sorted({len(batch.seeds) for batch in plan})
    several = f"{_join(tuple(groups))} of {config.seeds} seeds"
    reasons.append(f"{several} a batch: a divisor that fits in memory and within {_time(BATCH_SECONDS)}, where one seed does")
    padded = sorted({(batch.width, batch.size) for batch in plan if batch.size not in (None, batch.width)})
    if padded:
        served = ", ".join(f"{width} in {wider}" for width, wider in padded)
        reasons.append(f"widths padded, {served}: less than the {_time(on.compile_seconds * PROGRAM)} of one more program each")
    if redrawn := [batch for batch in plan if batch.redrawn]:
        kept = max(batch_bytes(config, replace(batch, redrawn=False, seeds=batch.seeds[:1])) for batch in redrawn)
        widths = _join(tuple(sorted({batch.width for batch in redrawn})))
        reasons.append(f"width {widths}: noise drawn anew at each use, kept it would take {size(kept)}")
    if wide := [batch for batch in plan if spread(config, batch) > 1]:
        widths = _join(tuple(sorted({batch.width for batch in wide})))
        reasons.append(f"width {widths}: coordinates shared out among the devices, too large for one")
    return reasons


def _join(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))


def _time(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
