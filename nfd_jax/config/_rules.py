"""What makes a config impossible although every value by itself is fine: one small rule each, all checked at once.

A rule names the keys it reads, so that it is skipped where one of them is already wrong, and yields (key, message).
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nfd_jax.config import FiniteConfig, SweepConfig

Found = Iterator[tuple[str, str]]

MEASURES = ("limit_error", "coupling", "spectrum", "kernels")
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
    """(key, message) of everything wrong; rules that read a key of `skip`, or one above or below it, are left out."""

    def readable(rule: _Rule) -> bool:
        return not any(f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.") for a in rule.reads for b in skip)

    return [found for rule in _RULES if readable(rule) for found in rule.check(config)]


def applicable(config: "SweepConfig") -> tuple[str, ...]:
    """The measures that can be taken, in the order of MEASURES."""
    return tuple(measure for measure in MEASURES if _obstacle(config, measure) is None)


@_reads("finite", "limit")
def _sections(config: "SweepConfig") -> Found:
    if config.finite is None and config.limit is None:
        yield "finite", "neither finite nor limit is given, allowed: at least one of the two sections"


@_reads("problem.dataset", "problem.classes", "problem.loss")
def _outputs(config: "SweepConfig") -> Found:
    problem, classes = config.problem, config.problem.classes or ()
    if problem.dataset == "gaussian":
        if problem.loss == "cross_entropy":
            yield "problem.loss", "got cross_entropy with dataset gaussian, which has one output, allowed: squared"
        if len(classes) > 2:
            yield "problem.classes", f"got {len(classes)} classes with dataset gaussian, which has two, allowed: null"
    elif not problem.dataset.endswith(".npz") and max(classes, default=0) > 9:
        yield "problem.classes", f"got class {max(classes)}, allowed: the classes 0 to 9 of {problem.dataset}"


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
            yield "limit.depth_steps", f"got {steps}, not a multiple of depth {_join(odd)}, allowed: {allowed}"


@_reads("finite", "limit.particles", "problem.steps", "problem.batch_size")
def _enough_directions(config: "SweepConfig") -> Found:
    """A basis of steps · batch_size directions needs more coordinates than that."""
    queries, reason = _queries(config), None
    allowed = f"more than steps*batch_size = {queries}; raise it, or lower problem.steps or problem.batch_size"
    if config.limit and config.limit.particles != "matched" and config.limit.particles <= queries:
        yield "limit.particles", f"got {config.limit.particles}, allowed: {allowed}"
    if config.finite and config.finite.simulator == "matrix_free":
        reason = "a matrix_free network"
    elif config.finite and config.limit and config.limit.particles == "matched":
        reason = "a limit with matched particles"
    if config.finite and reason and (narrow := [width for width in config.finite.widths if width <= queries]):
        yield "finite.widths", f"got {_join(narrow)} for {reason}, allowed: {allowed}"


@_reads("limit.particles", "finite")
def _matched_to_something(config: "SweepConfig") -> Found:
    if config.limit and not config.finite and config.limit.particles == "matched":
        yield "limit.particles", "got matched without a finite section, allowed: an integer, the number of particles"


@_reads("measure", "finite", "limit", "problem.parametrization", "problem.steps", "problem.batch_size")
def _measures(config: "SweepConfig") -> Found:
    if "measure" not in config.model_fields_set:
        return
    for index, measure in enumerate(config.measure):
        if obstacle := _obstacle(config, measure) or _too_few_for_a_slope(config, measure):
            yield f"measure.{index}", f"{measure} {obstacle}"


def _obstacle(config: "SweepConfig", measure: str) -> str | None:
    """Why a measure cannot be taken, or None."""
    finite, limit = config.finite, config.limit
    if measure == "kernels":
        return None
    if finite is None:
        return "measures finite networks, allowed: with a finite section"
    if measure == "limit_error":
        if limit is None:
            return "compares with the limit, allowed: with a limit section"
        if limit.particles != "matched":
            return f"has no common noise when particles is {limit.particles}, allowed: with limit.particles matched"
    if measure == "coupling":
        if set(finite.backward_weights) != {"reused", "independent"}:
            return "compares both flags, allowed: with finite.backward_weights [reused, independent]"
        if config.problem.parametrization != "depth_mup":
            return f"got parametrization {config.problem.parametrization}, allowed: with depth_mup"
        if finite.simulator == "dense":
            return "needs the matrix-free network, allowed: with finite.simulator auto or matrix_free"
        if min(finite.widths) <= _queries(config):
            wider = f"widths above steps*batch_size = {_queries(config)}"
            return f"needs the matrix-free network, impossible at width {min(finite.widths)}, allowed: with {wider}"
    return None


def _too_few_for_a_slope(config: "SweepConfig", measure: str) -> str | None:
    """Why no rate could be fitted to a measure that is asked for by name, or None."""
    if config.finite is None or measure not in ("limit_error", "coupling"):
        return None
    depths, widths = config.finite.depths, config.finite.widths
    if len(depths) < 3 or max(depths) < 4 * min(depths):
        return f"has depths {_join(depths)} to fit a slope to, allowed: 3 or more finite.depths over a factor of 4"
    if measure == "coupling" and len(widths) < 2:
        return f"has width {_join(widths)} to fit a slope to, allowed: at least 2 finite.widths"
    return None


@_reads("seeds", "problem.learning_rate", "finite.widths", "finite.depths")
def _countable(config: "SweepConfig") -> Found:
    cells = config.seeds * len(config.problem.learning_rates) * 2
    if config.finite:
        cells *= len(config.finite.widths) * len(config.finite.depths)
    if cells > MAX_CELLS:
        yield "seeds", f"makes {cells} cells (flags x rates x widths x depths x seeds), allowed: at most {MAX_CELLS}"


@_reads("finite", "limit", "measure", "precision", "problem.steps", "problem.batch_size")
def _fits_any_memory(config: "SweepConfig") -> Found:
    """Coarse: what no machine holds. The devices at hand are asked when a sweep is planned."""
    if config.finite:
        width, depth = max(config.finite.widths), max(config.finite.depths)
        if (size := _finite_bytes(config, config.finite, width, depth)) > MAX_BYTES:
            yield "finite.widths", f"width {width} at depth {depth} needs {_too_much(size)} widths or depths"
    if config.limit:
        matched = config.finite.widths if config.finite else (1,)
        particles = max(matched) if config.limit.particles == "matched" else config.limit.particles
        if (size := _history_bytes(config, particles, config.limit.depth_steps)) > MAX_BYTES:
            steps = f"{particles} particles with {config.limit.depth_steps} depth_steps"
            yield "limit.depth_steps", f"{steps} needs {_too_much(size)} depth_steps, particles or batch_size"
    if "kernels" in config.measure:
        grid = math.gcd(*config.finite.depths) if config.finite else 16
        if (size := 8 * (grid + 1) * config.problem.steps * config.problem.batch_size**2) > MAX_BYTES:
            samples = f"{config.problem.batch_size} samples"
            yield "problem.batch_size", f"the kernels of {samples} need {_too_much(size)} it or leave kernels out"


def _finite_bytes(config: "SweepConfig", finite: "FiniteConfig", width: int, depth: int) -> int:
    """Of one cell: the weights (dense), or the four families of bases and images (matrix-free)."""
    copies = 2 if "independent" in finite.backward_weights else 1
    dense = depth * width * width * _itemsize(config) * copies
    matrix_free = _history_bytes(config, width, depth)
    if finite.simulator == "auto":
        return min(dense, matrix_free) if width > _queries(config) else dense
    return dense if finite.simulator == "dense" else matrix_free


def _history_bytes(config: "SweepConfig", coordinates: int, layers: int) -> int:
    return 4 * layers * _queries(config) * coordinates * _itemsize(config)


def _queries(config: "SweepConfig") -> int:
    return config.problem.steps * config.problem.batch_size


def _itemsize(config: "SweepConfig") -> int:
    return 8 if config.precision == "float64" else 4


def _too_much(size: int) -> str:
    return f"about {size / 2**40:.1f} TiB, allowed: at most {MAX_BYTES // 2**40} TiB a cell; lower"


def _join(values: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")
