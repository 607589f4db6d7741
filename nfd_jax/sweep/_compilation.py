"""Which programs a batch compiles, and how long that takes with an empty compilation cache."""

from collections import Counter
from collections.abc import Iterable

from nfd_jax._host import cores
from nfd_jax.runtime import on_cpu, one_by_one
from nfd_jax.sweep._machine import Machine
from nfd_jax.sweep._memory import depth_groups
from nfd_jax.sweep._task import Task

COMPILE = {
    "network": 18,
    "limit": 31,
    "dense": 11,
    "innovations": 20,
    "noise": 10,
    "response": 12,
    "measures": 4,
}
"""Time to trace and compile the programs that matter, in units of the small one's that a machine is measured
with; each width's small programs together take as long as one of `noise`."""

LEVELS = 6
"""Sizes of systems that an estimate of the limit to a tolerance takes, about."""


def programs(tasks: Iterable[Task]) -> Counter[str]:
    """How many programs of each kind of COMPILE the tasks compile: one for each set of shapes."""
    found: set[tuple] = set()
    for task in tasks:
        shape = task.room, 1 if one_by_one() else len(task.seeds)
        if task.tolerance is not None:
            found |= {("limit", "levels", i) for i in range(LEVELS)}
        elif task.solves_limit:
            found |= {("limit", *shape), ("noise", *shape, task.depth_steps)}
        if task.reference:
            found |= {("limit", task.reference, 1), ("noise", task.reference, 1, task.depth_steps)}
        if task.dense:
            found |= {("dense", task.batch.size, len(task.seeds), task.depths)}
            found |= {("innovations", *shape, depth) for depth in task.depths if "pairs" in task.needs}
        elif task.depths:
            beside = {len(group) for group in depth_groups(task, at_once=1)}
            found |= {("network", *shape, max(task.depths), count) for count in beside}
            found |= {("noise", *shape, layers) for layers in task.noise_depths.values()}
        if "first_steps" in task.needs:
            found |= {("response", task.room, max(task.depths))}
        found |= {("measures", name, task.width, len(task.seeds)) for name in task.measures}
    return Counter(kind for kind, *_ in sorted(found, key=str))


def compile_seconds(tasks: Iterable[Task], on: Machine) -> float:
    """With an empty compilation cache; two at a time where a CPU has the cores."""
    tasks = list(tasks)
    units = sum(COMPILE[kind] * count for kind, count in programs(tasks).items())
    units += COMPILE["noise"] * len({task.width for task in tasks})
    return units * on.compile_seconds / (min(2, cores()) if on_cpu() else 1)
