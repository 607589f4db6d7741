"""What makes a config impossible although every value by itself is fine: one small rule each, all checked at
once.

A rule names the keys it reads, so that it is skipped where one of them is already wrong, and yields (key,
message).
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from nfd_jax import names
from nfd_jax.config._measures import lacking
from nfd_jax.data import DATASETS

if TYPE_CHECKING:
    from nfd_jax.config import FiniteConfig, SweepConfig

Found = Iterator[tuple[str, str]]

MAX_CELLS = 10**7
MAX_BYTES = 4 * 2**40


class _Rule(NamedTuple):
    reads: tuple[str, ...]
    check: Callable[["SweepConfig"], Found]


_RULES: list[_Rule] = []


def _reads(*keys: str) -> Callable[[Callable[["SweepConfig"], Found]], Callable[["SweepConfig"], Found]]:
    def register(check: Callable[["SweepConfig"], Found]) -> Callable[["SweepConfig"], Found]:
        _RULES.append(_Rule(keys, check))
        return check

    return register


def broken_rules(config: "SweepConfig", skip: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """(key, message) of everything wrong; rules that read a key of `skip`, or one above or below it, are left
    out.
    """

    def readable(rule: _Rule) -> bool:
        return not any(
            f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.") for a in rule.reads for b in skip
        )

    return [found for rule in _RULES if readable(rule) for found in rule.check(config)]


@_reads("finite", "limit")
def _sections(config: "SweepConfig") -> Found:
    if config.finite is None and config.limit is None:
        yield "finite", "neither finite nor limit is given, allowed: at least one of the two sections"


@_reads("problem.dataset", "problem.classes", "problem.loss")
def _outputs(config: "SweepConfig") -> Found:
    problem, classes = config.problem, config.problem.classes or ()
    if problem.dataset == "gaussian":
        if problem.loss == "cross_entropy":
            yield (
                "problem.loss",
                "got cross_entropy with dataset gaussian, which has one output, allowed: squared",
            )
        if len(classes) > 2:
            yield (
                "problem.classes",
                f"got {len(classes)} classes with dataset gaussian, which has two, allowed: null",
            )
    elif (known := DATASETS.get(problem.dataset)) and max(classes, default=0) >= known.classes:
        allowed = f"the classes 0 to {known.classes - 1} of {problem.dataset}"
        yield "problem.classes", f"got class {max(classes)}, allowed: {allowed}"


@_reads("limit", "problem.parametrization")
def _limit_parametrization(config: "SweepConfig") -> Found:
    if config.limit and config.problem.parametrization != "depth_mup":
        got = f"got {config.problem.parametrization} with a limit section"
        yield "problem.parametrization", f"{got}, allowed: depth_mup, the only one that has a limit"


@_reads("limit.depth_steps", "finite.depths")
def _common_grid(config: "SweepConfig") -> Found:
    if config.finite and config.limit:
        steps, depths = config.limit.depth_steps, config.finite.depths
        if odd := [depth for depth in depths if steps % depth]:
            common = f", the first of which is {multiple}" if (multiple := math.lcm(*depths)) <= 10**6 else ""
            allowed = f"a multiple of every depth{common}"
            yield (
                "limit.depth_steps",
                f"got {steps}, not a multiple of depth {_join(odd)}, allowed: {allowed}",
            )


_CENTERED = ("problem.centered", "problem.batches", "problem.steps")
_HISTORY = ("history.directions", "problem.batch_size", *_CENTERED)


@_reads("finite", "limit.particles", "problem.optimizer", *_HISTORY)
def _enough_coordinates(config: "SweepConfig") -> Found:
    """A basis of so many directions needs as many coordinates."""
    needed, reason = config.directions, None
    allowed = f"at least {config.directions_rule} = {needed}; raise it, or lower {_what_lowers(config)}"
    if config.limit and config.limit.alone and config.limit.alone < needed:
        yield "limit.particles", f"got {config.limit.particles}, allowed: {allowed}"
    if config.finite and config.finite.simulator == "matrix_free":
        reason = "a matrix_free network"
    elif config.finite and config.limit and config.limit.particles == "matched":
        reason = "a limit with matched particles"
    if config.finite and reason and (narrow := [width for width in config.finite.widths if width < needed]):
        yield "finite.widths", f"got {_join(narrow)} for {reason}, allowed: {allowed}"


def _what_lowers(config: "SweepConfig") -> str:
    return (
        "problem.steps or problem.batch_size" if config.history.directions is None else "history.directions"
    )


@_reads("history.directions", "problem.batch_size")
def _history(config: "SweepConfig") -> Found:
    kept, rows = config.history.directions, config.problem.batch_size
    if kept is not None and kept < rows:
        yield "history.directions", f"got {kept}, allowed: null, or at least problem.batch_size = {rows}"


@_reads("history.directions", *_CENTERED)
def _centered_history(config: "SweepConfig") -> Found:
    if config.history.directions is not None and config.problem.asks_first:
        got = f"got {config.history.directions} with centered outputs of batches that differ"
        yield "history.directions", f"{got}, allowed: null, or with batches fixed, or with centered false"


@_reads("problem.batches", "problem.pool", "problem.batch_size")
def _pool(config: "SweepConfig") -> Found:
    problem, allowed = (
        config.problem,
        f"an integer of at least problem.batch_size = {config.problem.batch_size}",
    )
    if problem.batches == "epochs" and problem.pool is None:
        yield (
            "problem.pool",
            f"missing with batches epochs, allowed: {allowed}, the number of samples in the pool",
        )
    elif problem.batches == "epochs" and problem.pool is not None and problem.pool < problem.batch_size:
        yield "problem.pool", f"got {problem.pool}, allowed: {allowed}"
    elif problem.batches != "epochs" and problem.pool is not None:
        yield (
            "problem.pool",
            f"got {problem.pool} with batches {problem.batches}, allowed: null, or batches: epochs",
        )


@_reads("problem.optimizer", "finite", "limit")
def _optimizer_needs_matrices(config: "SweepConfig") -> Found:
    if not config.needs_matrices:
        return
    optimizer, linear = config.problem.optimizer.name, ", ".join(names.LINEAR_OPTIMIZERS)
    reason = (
        f"whose update is not linear in the gradients, allowed: {linear}, or finite networks with matrices"
    )
    if config.finite and config.finite.simulator == "matrix_free":
        yield (
            "problem.optimizer.name",
            f"got {optimizer} with simulator matrix_free, {reason} (auto or dense)",
        )
    if config.limit:
        yield "problem.optimizer.name", f"got {optimizer} with a limit section, {reason} and no limit section"


@_reads("problem.optimizer")
def _optimizer_keys(config: "SweepConfig") -> Found:
    optimizer = config.problem.optimizer
    own = [key for key in type(optimizer).model_fields if key not in optimizer.idle()]
    for key in sorted(optimizer.model_fields_set & set(optimizer.idle())):
        yield f"problem.optimizer.{key}", f"given with {optimizer.name}, allowed: {', '.join(own)}"
    if optimizer.nesterov and optimizer.momentum == 0:
        yield (
            "problem.optimizer.nesterov",
            "got true without momentum, allowed: true with a momentum above 0, false",
        )


@_reads("problem.schedule", "problem.steps")
def _schedule_fits_the_run(config: "SweepConfig") -> Found:
    schedule, steps = config.problem.schedule, config.problem.steps
    for key in sorted(schedule.model_fields_set & set(schedule.idle())):
        yield f"problem.schedule.{key}", f"given with {schedule.name}, allowed: name, warmup_steps"
    longest = (
        steps if schedule.name == "constant" else steps - 1
    )  # a schedule that falls has a step to fall in
    if schedule.warmup_steps > longest:
        allowed = f"0 to {longest} with {schedule.name} and problem.steps = {steps}"
        yield "problem.schedule.warmup_steps", f"got {schedule.warmup_steps}, allowed: {allowed}"


@_reads("limit.reference_particles", "finite.widths")
def _reference(config: "SweepConfig") -> Found:
    if config.limit is None or (reference := config.limit.reference_particles) is None:
        return
    if config.finite is None:
        got = f"got {reference} without a finite section"
        yield "limit.reference_particles", f"{got}, allowed: null, or networks to compare with"
    elif reference < (least := 4 * max(config.finite.widths)):
        allowed = f"null, or at least {least}, 4 times the largest width"
        yield "limit.reference_particles", f"got {reference}, allowed: {allowed}"


@_reads("limit.tolerance", "limit.max_seconds", "limit.kernels", "precision")
def _tolerance(config: "SweepConfig") -> Found:
    if config.limit is None:
        return
    tolerance, least = config.limit.tolerance, names.LEAST_TOLERANCE[config.precision]
    if tolerance is None and config.limit.max_seconds is not None:
        got = f"got {config.limit.max_seconds:g} without a tolerance"
        yield "limit.max_seconds", f"{got}, allowed: null, or with limit.tolerance"
    if tolerance is None and config.limit.kernels:
        yield "limit.kernels", "got true without a tolerance, allowed: false, or with limit.tolerance"
    if tolerance is not None and tolerance < least:
        finer = "" if config.precision == "float64" else ", or precision: float64"
        yield "limit.tolerance", f"got {tolerance:g}, below rounding, allowed: at least {least:g}{finer}"


@_reads("limit.kernels", "finite.depths")
def _kernels_on_the_grid_of_every_level(config: "SweepConfig") -> Found:
    """Levels have steps of t that are powers of 2."""
    if config.limit is None or not config.limit.kernels or config.finite is None:
        return
    if (intervals := math.gcd(*config.finite.depths)) & (intervals - 1):
        allowed = "false, or depths whose greatest common divisor is a power of 2"
        yield (
            "limit.kernels",
            f"got true with depths of greatest common divisor {intervals}, allowed: {allowed}",
        )


@_reads("limit.particles", "limit.tolerance")
def _particles_or_tolerance(config: "SweepConfig") -> Found:
    if config.limit is None:
        return
    particles, tolerance = config.limit.particles, config.limit.tolerance
    if particles is None and tolerance is None:
        yield "limit.particles", "got null, allowed: matched, an integer, or null with limit.tolerance"
    if particles is not None and tolerance is not None:
        got = f"got {tolerance:g} with limit.particles {particles}"
        yield (
            "limit.tolerance",
            f"{got}, allowed: null, or limit.particles: null, as many as the tolerance takes",
        )


@_reads("limit.particles", "limit.tolerance", "finite")
def _matched_to_something(config: "SweepConfig") -> Found:
    if config.limit is None or config.finite or config.limit.tolerance is not None:
        return
    if config.limit.particles == "matched":
        yield (
            "limit.particles",
            "got matched without a finite section, allowed: an integer, the number of particles",
        )


@_reads("measure", "finite", "limit", "problem.parametrization", "problem.optimizer", *_HISTORY)
def _measures(config: "SweepConfig") -> Found:
    if "measure" not in config.model_fields_set:
        return
    for index, measure in enumerate(config.measure):
        if found := lacking(config, measure):
            yield f"measure.{index}", f"{measure} {found}"


@_reads("seeds", "problem.learning_rate", "finite.widths", "finite.depths")
def _countable(config: "SweepConfig") -> Found:
    cells = config.seeds * len(config.problem.learning_rates) * 2
    if config.finite:
        cells *= len(config.finite.widths) * len(config.finite.depths)
    if cells > MAX_CELLS:
        yield (
            "seeds",
            f"makes {cells} cells (flags x rates x widths x depths x seeds), allowed: at most {MAX_CELLS}",
        )


@_reads("finite", "limit", "measure", "precision", "problem.optimizer", *_HISTORY)
def _fits_any_memory(config: "SweepConfig") -> Found:
    """Coarse: what no machine holds. The devices at hand are asked when a sweep is planned."""
    if config.finite:
        width, depth = max(config.finite.widths), max(config.finite.depths)
        if (size := _finite_bytes(config, config.finite, width, depth)) > MAX_BYTES:
            yield "finite.widths", f"width {width} at depth {depth} needs {_too_much(size)} widths or depths"
    if config.limit:
        matched = config.finite.widths if config.finite else (1,)
        particles = max(matched) if config.limit.particles == "matched" else config.limit.alone or 0
        particles = max(particles, config.limit.reference_particles or 0)
        if (size := _history_bytes(config, particles, config.limit.depth_steps)) > MAX_BYTES:
            steps = f"{particles} particles with {config.limit.depth_steps} depth_steps"
            lower = "depth_steps, particles or batch_size"
            yield "limit.depth_steps", f"{steps} needs {_too_much(size)} {lower}, or set history.directions"
    if "kernels" in config.measure:
        grid = math.gcd(*config.finite.depths) if config.finite else 16
        if (size := 8 * (grid + 1) * config.problem.steps * config.problem.batch_size**2) > MAX_BYTES:
            samples = f"{config.problem.batch_size} samples"
            yield (
                "problem.batch_size",
                f"the kernels of {samples} need {_too_much(size)} it or leave kernels out",
            )


def _finite_bytes(config: "SweepConfig", finite: "FiniteConfig", width: int, depth: int) -> int:
    """Of one cell: the weights (dense), or the four families of bases and images (matrix-free)."""
    copies = 2 if "independent" in finite.backward_weights else 1
    dense = depth * width * width * _itemsize(config) * copies
    matrix_free = _history_bytes(config, width, depth)
    if config.needs_matrices or finite.simulator == "dense":
        return dense
    if finite.simulator == "auto":
        return min(dense, matrix_free) if width >= config.directions else dense
    return matrix_free


def _history_bytes(config: "SweepConfig", coordinates: int, layers: int) -> int:
    return 4 * layers * config.directions * coordinates * _itemsize(config)


def _itemsize(config: "SweepConfig") -> int:
    return 8 if config.precision == "float64" else 4


def _too_much(size: int) -> str:
    return f"about {size / 2**40:.1f} TiB, allowed: at most {MAX_BYTES // 2**40} TiB a cell; lower"


def _join(values: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")
