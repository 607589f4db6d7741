"""What a sweep will cost, before anything of it runs: the counts behind `nfd plan`, and times at this machine's measured speeds.

A conditional-Gaussian layer answers r rows against A = K·P earlier ones: about 20 r A n + 18 r² n operations in thin products,
which take as long as reading the layer's families of A rows over and over takes. So a time is the larger of arithmetic and memory
traffic, plus a fixed cost for each small operation, which is most of it at small widths.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax

from nfd_jax.finite._engine import shape_of
from nfd_jax.sweep._grids import grid_of, program_size
from nfd_jax.sweep._machine import Machine, machine, stored_at
from nfd_jax.sweep._memory import (
    INPUTS,
    batch_bytes,
    check_fits,
    device_memory,
    devices_for,
    most_at_once,
    runs_at_once,
    seed_devices,
    size,
    spread,
)
from nfd_jax.sweep._plan import HELDOUT, SEEDS_AT_ONCE, Batch, make_plan, noise_depth, simulator

if TYPE_CHECKING:
    from nfd_jax.config import SweepConfig

TOUCHES = {"network": 12, "limit": 15}
"""How often a layer's families of A rows are read or written in one pass; measured, diffrax's bookkeeping included."""

COMPILE = {"network": 1.2, "limit": 3.0, "dense": 0.8, "noise": 0.6}
"""Time to trace and compile the programs that matter, in units of the small network's that a machine is measured with; each
width's small programs together take as long as one of `noise`."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations, normals drawn, bytes moved and small operations started."""

    flops: float = 0
    normals: float = 0
    bytes: float = 0
    operations: float = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def __mul__(self, times: float) -> "Work":
        return Work(*(times * a for a in self._all()))

    def _all(self) -> tuple[float, ...]:
        return self.flops, self.normals, self.bytes, self.operations

    def seconds(self, on: Machine) -> float:
        """Without compilation."""
        computing = max(self.flops / on.flops, self.bytes / on.bytes) + self.operations * on.operation_seconds
        return computing + self.normals / on.normals


def work(config: "SweepConfig", batch: Batch) -> Work:
    """All that a batch computes."""
    p, limit = config.problem, config.limit
    solved = limit is not None and (batch.kind == "limit" or limit.particles == "matched")
    inputs = p.input_dim if p.dataset == "gaussian" else INPUTS.get(p.dataset, 0)
    rates, total, noises = len(p.learning_rates), Work(), set()
    if solved and limit is not None:
        noises.add(limit.depth_steps)
        total += _system(config, batch.width, limit.depth_steps, "limit") * (rates * len(limit.backward_weights))
    if batch.depths and simulator(config, batch.width) == "dense":
        total += _dense(config, batch, inputs)
    else:
        for depth in batch.depths:
            noises.add(noise_depth(config, depth))
            total += _system(config, batch.width, depth, "network") * (rates * len(config.finite.backward_weights))
    if batch.redrawn:
        total += Work(normals=_redrawn(config, batch))
    total += Work(normals=sum(batch.width * (2 * p.steps * p.batch_size * layers + inputs) for layers in noises))
    return total * len(batch.seeds)


def _redrawn(config: "SweepConfig", batch: Batch) -> float:
    """Normals drawn again by all passes of a seed: both families of a layer, at the finest layers they are sums of."""
    p, limit, finite = config.problem, config.limit, config.finite
    layers = len(limit.backward_weights) * limit.depth_steps if limit is not None else 0
    layers += sum(len(finite.backward_weights) * noise_depth(config, depth) for depth in batch.depths)
    passes = 3 * p.steps + (p.batches == "stream")
    return 2 * p.steps * p.batch_size * batch.width * passes * layers * len(p.learning_rates)


def _system(config: "SweepConfig", width: int, layers: int, kind: str) -> Work:
    """One run of a network or limit: two passes a step, one for the held-out samples, and the probe's once."""
    p = config.problem
    samples, itemsize = p.steps * p.batch_size, 8 if config.precision == "float64" else 4

    def passes(count: int, rows: int) -> Work:
        flops = (20 * samples + 18 * rows) * rows * width
        return Work(flops, 0, TOUCHES[kind] * samples * width * itemsize, 4 + 4 * rows) * (count * layers)

    fresh = Work(normals=HELDOUT * layers * width)
    probe = passes(1, samples) + Work(normals=samples * layers * width) if p.batches == "stream" else Work()
    return passes(2 * p.steps, p.batch_size) + passes(p.steps, HELDOUT) + fresh + probe


def _dense(config: "SweepConfig", batch: Batch, inputs: int) -> Work:
    """All networks of a seed with weight matrices: two passes a step, held-out and probe samples among their rows, and an update."""
    p, grid = config.problem, grid_of(config, batch)
    samples, itemsize = p.steps * p.batch_size, 8 if config.precision == "float64" else 4
    shape, _ = shape_of(samples, grid, jax.default_backend(), seed_devices())
    rows = 2 * p.batch_size + HELDOUT + (p.batch_size if p.batches == "stream" else 0)
    layers, matrix, thin, runs = p.steps * sum(grid.depths), shape.size**2, samples * shape.size, len(grid.flags) * len(grid.rates)
    kinds = 1 if shape.independent is None else 2
    if shape.form == "factored":  # matrices are read for all rates of a run together, corrections twice in each pass
        flops, moved = 2 * rows * matrix + 4 * rows * thin, 2 * kinds * matrix / (len(grid.flags) * shape.rates) + 4 * thin
    else:  # read in each pass, read and rewritten by the update
        flops, moved = 2 * (rows + p.batch_size) * matrix, 4 * matrix
    normals = shape.size * (kinds * max(grid.depths) * shape.size + inputs)
    return Work(flops, 0, moved * itemsize, 12 / (len(grid.flags) * shape.rates)) * (layers * runs) + Work(normals=normals)


def programs(config: "SweepConfig", plan: list[Batch]) -> Counter[str]:
    """How many programs of each kind of COMPILE a plan compiles: one for each set of shapes."""
    found: set[tuple] = set()
    for batch in plan:
        shape = batch.width, len(batch.seeds)
        limit = config.limit
        if limit is not None and (batch.kind == "limit" or limit.particles == "matched"):
            found |= {("limit", *shape), ("noise", *shape, limit.depth_steps)}
        if not batch.depths:
            continue
        if simulator(config, batch.width) == "dense":
            found |= {("dense", program_size(config, batch.width), len(batch.seeds), batch.depths)}
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
    peak = lambda batch: batch_bytes(config, batch, at_once=runs_at_once(config, batch, most=most_at_once(config)))
    largest = max(plan, key=peak)
    facts = {
        "cells": _cells(config),
        "batches": f"{len(plan)}",
        "compilations": f"{sum(compiled.values())} ({', '.join(f'{n} {kind}' for kind, n in compiled.items())}) and small ones",
        "arithmetic": f"{total.flops:.3g} floating-point operations",
        "random": f"{total.normals:.3g} normals",
        "memory": f"{size(peak(largest))} at most, in {largest.id}; {size(free)} free on {on.device}",
        "speeds": f"{on.flops:.2g} operations, {on.normals:.2g} normals, {on.bytes:.2g} bytes a second, "
        f"{_time(on.compile_seconds)} to compile a small network; measured once, {stored_at(config.precision)}",
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
        apart = [Batch(b.kind, b.width, (depth,), b.seeds) for b in shared for depth in b.depths]
        total = lambda batches: sum((work(config, batch).seconds(on) for batch in batches), 0.0)
        computing = total(apart) - total(shared)
        compiling = compile_seconds(config, apart, on) - compile_seconds(config, shared, on)
        saved = f"{_time(computing)} of computing and {_time(compiling)} of compiling saved"
        reasons.append(f"all depths of a width together, on one noise and beside one limit: about {saved}")
    runs = len(config.problem.learning_rates) * (2 if config.finite is None else len(config.finite.backward_weights))
    if runs > 1:
        reasons.append(f"all learning rates and backward weights together: {runs} runs a seed share its noise or weights")
    groups = sorted({len(batch.seeds) for batch in plan})
    several = f"{_join(tuple(groups))} of {config.seeds} seeds"
    reasons.append(f"{several} a batch: a divisor, at most {SEEDS_AT_ONCE}, that fits in memory")
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
