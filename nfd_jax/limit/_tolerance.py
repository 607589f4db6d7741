"""The limit's outputs to a given tolerance, with a standard error and a bound on the bias.

One system of N particles has variance v/N and bias O(1/N + 1/M) at cost N M: a tolerance ε costs ε⁻³. Written
as a sum over levels (`_levels`, `_multilevel`) nearly all of the variance lies in the cheapest systems, and
few samples of differences take the bias away, at cost ε⁻². Samples are shared out as √(V/cost), from measured
variances V. Plans depend on samples alone, never on time: one key and tolerance give the same numbers,
stopped and resumed or not, on one core or many.
"""

import hashlib
import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nfd_jax._host import cores
from nfd_jax.activations import resolve
from nfd_jax.checks import as_number, as_size, check_flag, check_key, concrete
from nfd_jax.limit._estimate import LimitEstimate, put_together
from nfd_jax.limit._kernels import check_limit
from nfd_jax.limit._levels import Chunk, Sampled, Sampler
from nfd_jax.limit._multilevel import Moments, State, combine, error, plan
from nfd_jax.losses import loss_function
from nfd_jax.names import LEAST_TOLERANCE
from nfd_jax.optimizers import coefficients
from nfd_jax.problem import Problem, heldout_inputs

Take = Callable[[Sampler, Sequence[Chunk]], Generator[list[Sampled], None, None]]
"""Who takes samples: parts of what is wanted, in order."""


class TimeTooShort(ValueError):
    """`max_seconds` leaves no time for the first samples of all levels."""


def estimate_limit(
    problem: Problem,
    *,
    tolerance: float,
    key: jax.Array,
    backward_weights: str = "independent",
    max_seconds: float | None = None,
    heldout=None,
    kernels: SupportsIndex | None = None,
    resume: LimitEstimate | None = None,
    progress: Callable[[LimitEstimate], None] | None = None,
    take: Take | None = None,
) -> LimitEstimate:
    """The limit's outputs to `tolerance`: the rms error over (K, P, C) that is kept with a probability of
    about 95 %.

    `heldout` (H, d) are further inputs to follow, within the same tolerance then. `kernels` G, a power of 2,
    adds ⟨φφ⟩ and ⟨bb⟩ of each step's batch at t = 0, 1/G, …, 1, which come with error bars of their own
    whatever the tolerance. After `max_seconds` what has been reached is returned, with its error bars and
    `met` False. `resume` takes such an estimate, which may come from a file (`LimitEstimate.load`), further:
    to the numbers of an uninterrupted call, or from a larger tolerance (same problem, same key) to this one.
    `progress` is called with the estimate so far, now and then. `take(sampler, wanted)` is who takes samples,
    for those who spread them over processes: it yields `sampler.chunks(part)` for one part of `wanted` after
    the other, in order, and is closed where the rest is not wanted any more; None is this process. Everything
    is computed in the dtype of the inputs and averaged in float64.

    Raises ValueError for a tolerance that is not positive or below the rounding of the dtype, a time too
    short for the first levels, parametrizations without a limit, shapes, names or `kernels` that do not fit,
    and an estimate to resume that belongs to another problem; FloatingPointError where systems diverge.

    >>> estimate = nfd.estimate_limit(problem, tolerance=0.2, key=jax.random.key(0))
    >>> estimate.output.shape, estimate.met
    ((3, 2, 1), True)
    """
    check_limit(problem)
    check_flag(backward_weights)
    if not all(map(concrete, (*jax.tree.leaves(problem), key))):
        raise ValueError(
            "estimate_limit decides on samples as it takes them, and cannot be part of jit, vmap or grad; "
            "received a traced problem or key: call it outside of those, or use solve_limit"
        )
    least = LEAST_TOLERANCE[str(problem.dtype)]
    allowed = f"a number of at least {least:g}, what {np.dtype(problem.dtype)} can resolve"
    tolerance = float(as_number("tolerance", tolerance, allowed, least=least))
    if max_seconds is not None:
        max_seconds = float(as_number("max_seconds", max_seconds, "positive or None", above=0, below=None))
    heldout = heldout_inputs(problem, heldout)
    if kernels is not None:
        allowed = "a power of 2, the intervals of t, or None"
        kernels = as_size("kernels", kernels, allowed)
        if kernels & (kernels - 1):
            raise ValueError(f"kernels must be {allowed}; received {kernels}")
    if resume is not None and not isinstance(resume, LimitEstimate):
        raise TypeError(f"resume must be a LimitEstimate; received {type(resume).__name__}")
    deadline = np.inf if max_seconds is None else time.monotonic() + max_seconds

    sampler = Sampler(problem, check_key(key), backward_weights == "reused", heldout, kernels)
    identity = identity_of(sampler)
    if resume is not None and resume.identity != identity:
        raise ValueError(
            "resume= must be an estimate of the same problem, key, backward weights and heldout, and the "
            "same kernels; received another's"
        )
    state = State.start(*coarsest(problem, kernels or 1)) if resume is None else resume.state.copy()
    size, aim = sampler.size, sampler.places("output", "heldout")

    estimate = None if resume is None else replace(resume, met=resume.error <= tolerance)
    while True:
        in_time = _sample(sampler, state, deadline, take or _here)
        if state.sampled:
            total = combine(state, size)
            reached = error(total, aim)
            estimate = put_together(sampler.shapes, state.copy(), total, reached, tolerance, identity)
            if progress is not None:
                progress(estimate)
            if not in_time or not plan(state, total, tolerance, aim):
                return estimate
        elif estimate is not None:  # Time was over while levels were being added: what there was before them.
            return replace(estimate, state=state.copy())
        else:
            raise TimeTooShort(
                f"max_seconds = {max_seconds:g} is too short for the first samples of all levels, "
                "compilation included: allow more time"
            )


def coarsest(problem: Problem, least_steps: int = 1) -> tuple[int, int]:
    """N and M of the smallest systems: powers of 2, N at least 128 and 2 K·P, M at least 2, 2 T and
    `least_steps`. Fewer particles take more time each, and their outputs have heavier tails."""
    particles, steps = 128, 2
    while particles < 2 * problem.samples:
        particles *= 2
    while steps < max(2 * float(problem.horizon), least_steps):
        steps *= 2
    return particles, steps


def _sample(sampler: Sampler, state: State, deadline: float, take: Take) -> bool:
    """Take the samples that the plan of `state` wants, or as many as there is time for; whether all were
    taken."""
    done = {level: state.found[level].chunks if level in state.found else 0 for level in state.wanted}
    # Largest first: their programs take longest to compile, and other levels' are compiled beside.
    missing = [
        (level, i)
        for level in sorted(state.wanted, key=lambda v: -v.cost)
        for i in range(done[level], state.wanted[level])
    ]

    if missing and time.monotonic() > deadline:
        return False
    with closing(take(sampler, missing)) as parts:
        taken = 0
        for part in parts:
            for (level, _), (samples, controls, seconds) in zip(missing[taken:], part, strict=False):
                if not np.isfinite(samples).all():
                    size = f"{level.particles} particles and {level.steps} Euler steps"
                    raise FloatingPointError(f"systems of {size} diverged: lower the learning rate")
                before = state.found.get(level, Moments.empty(samples.shape[1], controls.shape[1]))
                state.found[level] = before.with_chunk(samples, seconds, controls)
            taken += len(part)
            if taken < len(missing) and time.monotonic() > deadline:
                return False
    if taken != len(missing):
        raise ValueError(f"take= must yield all chunks that are wanted: received {taken} of {len(missing)}")
    return True


def _here(sampler: Sampler, wanted: Sequence[Chunk]) -> Generator[list[Sampled], None, None]:
    """In this process."""
    slab = 4 * cores()
    for i in range(0, len(wanted), slab):
        yield sampler.chunks(wanted[i : i + slab])


def identity_of(sampler: Sampler) -> str:
    """A digest of what two calls must share to be the same: arrays, names, what functions do, key, backward
    weights and kernels."""
    flag = "reused" if sampler.reused else "independent"
    return _identity((sampler.problem, sampler.heldout), flag, sampler.seed, sampler.kernels)


def _identity(tree, *more) -> str:
    arrays, names = eqx.partition(tree, eqx.is_array)
    found = hashlib.sha256()
    for x in map(np.asarray, (*jax.tree.leaves(arrays), *_done_by_functions(tree[0]))):
        found.update(f"{x.shape} {x.dtype}".encode() + x.tobytes())
    words = jax.tree.structure(tree), jax.tree.leaves(names), more
    # Addresses in memory, which functions are shown with, are others in another process.
    found.update(re.sub(r" at 0x[0-9a-f]+", "", repr(words)).encode())
    return found.hexdigest()


def _done_by_functions(problem: Problem) -> list[np.ndarray]:
    """Values of φ and φ', of the loss and its signals, and the optimizer's coefficients, to five digits: what
    functions are called says little of what they do."""
    phi, loss, y = resolve(problem.activation), loss_function(problem.loss), problem.targets[0]
    z = jnp.linspace(-3, 3, 31, dtype=problem.dtype)
    f = jnp.linspace(-2, 2, y.size, dtype=problem.dtype).reshape(y.shape)
    rule = coefficients(problem.optimizer, problem.learning_rate, problem.steps)
    values = phi.value(z), phi.derivative(z), loss.value(f, y), loss.signal(f, y), *rule
    return [np.round(np.asarray(x, float), 5) for x in values]
