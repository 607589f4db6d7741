"""Levels put together: the sum they estimate, its error, and which samples to take next. Pure functions of
what was sampled.

    f = E base + Σ_l d_l + rest of d + Σ_j e_j + rest of e
    d_l: particles doubled            e_j: steps doubled, with N = ∞ (the sum of "steps" and "mixed")

Either series falls like the inverse of N or of M. Its rest is extrapolated to second order, d_L + r/3 with r
= 2 d_L − d_{L−1}; |r|/3, the last correction made, is the bound on what is left of the bias. The second-order
part of the extrapolation in N inside each e_j gives a bound in the same way.

Base samples come with controls, numbers on the same noise whose mean is known to be zero (`_levels`): what
their regression on them explains is no error. It is most of it.
"""

from dataclasses import dataclass
from itertools import product
from math import ceil, log2, sqrt
from typing import NamedTuple

import numpy as np

from nfd_jax.limit._levels import KINDS, Level

PILOT = {"base": 64, "particles": 64, "steps": 64, "mixed": 24}
"""Samples of a level before anything is decided on its variance; few of the dearest kind, whose part of the
variance is least."""

SHARE = 0.12
"""Part of the tolerance that each of the three biases may take before a level is added."""

WIDER = (1, 2, 4, 8)
"""Factors by which systems may be made wider at a time, for base samples or for differences in steps."""

WIDEST = 8192
"""Particles beyond which systems are made wider for their bias alone: they shall not outgrow the memory."""

NEW_SIZES = 5e6
"""What programs of new sizes cost to compile, in particles × Euler steps."""

WORTH = 0.8
"""Part of the cost still to come that wider systems must bring it down to, to be worth a new start."""

SEEN = 3
"""How many times the variance of its noise a bias must be beyond it, squared: a level added in vain is dear,
and samples that make the noise less are wanted anyway."""

MOST_ADDED = 2
"""Levels of one kind added at a time, on what those before it say."""

GROWTH = 8
"""Samples of a level grow at most so many times before variances are looked at again."""

ENOUGH = 16
"""Samples to a control, below which controls are left alone."""


class Moments(NamedTuple):
    """Samples of one level: how many in how many chunks, mean, sum of squared deviations, and seconds they
    took.

    Beside the samples may stand `controls`, numbers of mean zero drawn on the same noise: their mean,
    `control_squares` (p, p), the sums of products of their deviations, and `cross` (p, size), of theirs with
    the samples'.
    """

    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    chunks: int
    mean: np.ndarray
    squares: np.ndarray
    seconds: float
    controls: np.ndarray
    control_squares: np.ndarray
    cross: np.ndarray

    @classmethod
    def empty(cls, size: int, controls: int = 0) -> "Moments":
        zeros = np.zeros
        also = zeros(controls), zeros((controls, controls)), zeros((controls, size))
        return cls(0, 0, zeros(size), zeros(size), 0.0, *also)

    @property
    def variance(self) -> np.ndarray:
        return self.squares / max(1, self.count - 1)

    def with_chunk(
        self, samples: np.ndarray, seconds: float, controls: np.ndarray | None = None
    ) -> "Moments":
        controls = np.zeros((len(samples), 0)) if controls is None else controls
        count, mean, level = len(samples), samples.mean(0), controls.mean(0)
        total, gap, gap_controls = self.count + count, mean - self.mean, level - self.controls
        share, off, off_controls = self.count * count / total, samples - mean, controls - level
        return Moments(
            total,
            self.chunks + 1,
            self.mean + gap * (count / total),
            self.squares + (off**2).sum(0) + gap**2 * share,
            self.seconds + seconds,
            self.controls + gap_controls * (count / total),
            self.control_squares
            + off_controls.T @ off_controls
            + np.outer(gap_controls, gap_controls) * share,
            self.cross + off_controls.T @ off + np.outer(gap_controls, gap) * share,
        )

    def controlled(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the samples less what their regression on the controls explains; the samples'
        own where they are too few for a regression, whose bias is of the order of one part in their number.
        """
        count = len(self.controls)
        if not count or self.count < ENOUGH * count:
            return self.mean, self.variance
        slopes = np.linalg.lstsq(self.control_squares, self.cross, rcond=None)[0]
        left = self.squares - (slopes * self.cross).sum(0)
        return self.mean - self.controls @ slopes, np.maximum(left, 0) / (self.count - 1 - count)


@dataclass
class State:
    """Samples so far, by level, and the plan being carried out: chunks `wanted` of each level."""

    found: dict[Level, Moments]
    wanted: dict[Level, int]

    @classmethod
    def start(cls, particles: int, steps: int) -> "State":
        """The fewest levels from which biases can be bounded."""
        state = cls({}, {})
        state._add(Level("base", particles, steps))
        for factor in (2, 4):
            state._add(Level("particles", factor * particles, steps))
            for kind in ("steps", "mixed"):
                state._add(Level(kind, 4 * particles, factor * steps))
        return state

    def copy(self) -> "State":
        return State(dict(self.found), dict(self.wanted))

    def series(self, kind: str) -> list[Level]:
        """The levels of one kind, coarse to fine."""
        return sorted(level for level in self.wanted if level.kind == kind)

    @property
    def sampled(self) -> bool:
        """Whether every level has the samples it was first given, so that there is an estimate."""
        return all(
            level in self.found and self.found[level].count >= PILOT[level.kind] for level in self.wanted
        )

    def _add(self, level: Level) -> None:
        self.wanted[level] = ceil(PILOT[level.kind] / level.systems)

    def more_particles(self) -> None:
        last = self.series("particles")[-1]
        self._add(Level("particles", 2 * last.particles, last.steps))

    def more_steps(self) -> None:
        last = self.series("steps")[-1]
        for kind in ("steps", "mixed"):
            self._add(Level(kind, last.particles, 2 * last.steps))

    def wider_steps(self, factor: int = 2) -> None:
        """So many times the particles for every difference in steps; what was sampled of them with fewer is
        of no more use."""
        for kind in ("steps", "mixed"):
            for level in self.series(kind):
                self._drop(level)
                self._add(Level(kind, factor * level.particles, level.steps))

    def wider_base(self, factor: int) -> None:
        """So many times the particles for base samples, and no differences below them."""
        [base] = self.series("base")
        wider = Level("base", factor * base.particles, base.steps)
        for level in (base, *self.series("particles")):
            if level.particles <= wider.particles:
                self._drop(level)
        self._add(wider)
        for doubled in (2, 4):
            if (level := Level("particles", doubled * wider.particles, wider.steps)) not in self.wanted:
                self._add(level)

    def _drop(self, level: Level) -> None:
        del self.wanted[level]
        self.found.pop(level, None)


class Sum(NamedTuple):
    """The levels put together: `value`, its `variance` and `bias` bound, each (size,); `sources`, the same
    bound by what causes it with the variance of that bound; and the `weight` with which each level's mean
    enters."""

    value: np.ndarray
    variance: np.ndarray
    bias: np.ndarray
    sources: dict[str, tuple[np.ndarray, np.ndarray]]
    weight: dict[Level, float]


def extrapolation(length: int) -> np.ndarray:
    """Weights of d_1 … d_L in d_1 + … + d_L + d_L + r/3, r = 2 d_L − d_{L−1}."""
    weights = np.ones(length)
    weights[-1] += 1 + 2 / 3
    weights[-2] -= 1 / 3
    return weights


def combine(state: State, size: int) -> Sum:
    """What the samples of `state` say about vectors of `size` quantities."""
    known = {level: state.found[level].controlled() for level in state.wanted}
    mean = lambda level: known[level][0]
    error2 = lambda level: known[level][1] / state.found[level].count
    weight: dict[Level, float] = {level: 1.0 for level in state.series("base")}
    for kind in ("particles", "steps", "mixed"):
        weight |= dict(zip(state.series(kind), extrapolation(len(state.series(kind))).tolist(), strict=True))
    value = sum(w * mean(level)[:size] for level, w in weight.items())
    variance = sum(w * w * error2(level)[:size] for level, w in weight.items())

    *_, before, last = state.series("particles")
    sources = {"particles": (2 * mean(last) - mean(before), 4 * error2(last) + error2(before))}
    pairs = [state.series(kind)[-2:] for kind in ("steps", "mixed")]
    rest = sum(2 * mean(last)[:size] - mean(before)[:size] for before, last in pairs)
    sources["steps"] = rest, sum(4 * error2(last)[:size] + error2(before)[:size] for before, last in pairs)
    mixed = state.series("mixed")
    second = sum(weight[level] * mean(level)[size:] for level in mixed)
    # A third of r, and half of the sum's second order: corrections made, whose remainders are smaller.
    sources["mixed"] = 1.5 * second, 2.25 * sum(weight[level] ** 2 * error2(level)[size:] for level in mixed)
    sources = {name: (np.abs(r) / 3, v / 9) for name, (r, v) in sources.items()}
    return Sum(value, variance, sum(bound for bound, _ in sources.values()), sources, weight)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def error(total: Sum, aim: np.ndarray) -> float:
    """The error, rms over the quantities `aim`, that is kept with a probability of 95 % or more: two standard
    errors and the bias."""
    return 2 * sqrt(np.mean(total.variance[aim])) + rms(total.bias[aim])


def plan(state: State, total: Sum, tolerance: float, aim: np.ndarray) -> bool:
    """Want more samples or levels in `state` where the `tolerance` is not met yet; whether any were added."""
    if error(total, aim) <= tolerance:
        return False
    grow = {"particles": state.more_particles, "steps": state.more_steps, "mixed": state.wider_steps}
    coarse = False
    for name, (bound, noise) in total.sources.items():
        beyond_noise = np.mean(bound[aim] ** 2) - np.mean(noise[aim])
        if beyond_noise > (SHARE * tolerance) ** 2 and beyond_noise > SEEN * np.mean(noise[aim]):
            # Bounds fall fourfold a level.
            missing = ceil(log2(beyond_noise / (SHARE * tolerance) ** 2) / 4)
            for _ in range(1 if name == "mixed" else min(missing, MOST_ADDED)):
                grow[name]()
            coarse = True
    if coarse:
        return True
    # Noise in the bounds falls with the samples to come: no samples are spent on what it hides today.
    expected = sum(_expected(*source, aim) for source in total.sources.values())
    aimed = 0.95 * (tolerance - min(expected, tolerance / 2)) / 2
    spread = {
        level: w * w * _spread(level, state.found[level].controlled()[1], aim)
        for level, w in total.weight.items()
    }
    if wider(state, spread, aimed):
        return True
    scale = sum(sqrt(v * level.cost) for level, v in spread.items()) / aimed**2
    before = dict(state.wanted)
    for level, v in spread.items():
        most = GROWTH * state.wanted[level]
        state.wanted[level] = min(
            most, max(state.wanted[level], ceil(scale * sqrt(v / level.cost) / level.systems))
        )
    if state.wanted == before:
        largest = max(spread, key=lambda level: spread[level] / state.found[level].count)
        state.wanted[largest] = ceil(1.5 * state.wanted[largest])
    return True


def wider(state: State, spread: dict[Level, float], aimed: float) -> bool:
    """Make systems wider where that is worth losing their samples; whether it was.

    A standard error `aimed` costs (Σ_l √(V_l cost_l))² / aimed² when samples are shared out well. With f
    times the particles base samples and differences in steps vary and cost f⁻¹ and f times as much, which
    cancels; differences in particles, and mixed ones, vary f⁻² as much.
    """
    sums = dict.fromkeys(KINDS, 0.0)
    for level, v in spread.items():
        sums[level.kind] += sqrt(v * level.cost)
    spent = sum(state.found[level].count * level.cost for level in state.wanted)

    def start(factor: int, *kinds: str) -> float:
        """What a new start of these kinds costs."""
        first = sum(PILOT[level.kind] * level.cost for level in state.wanted if level.kind in kinds)
        return factor * first + NEW_SIZES if factor > 1 else 0.0

    def fits(factor: int, kind: str) -> bool:
        most = max(level.particles for level in state.series(kind))
        return factor == 1 or factor * most <= WIDEST

    cost = {}
    for base, steps in product(WIDER, WIDER):
        if not (fits(base, "particles") and fits(steps, "mixed")):
            continue
        whole = sums["base"] + sums["particles"] / sqrt(base) + sums["steps"] + sums["mixed"] / sqrt(steps)
        again = start(base, "base", "particles") + start(steps, "steps", "mixed")
        cost[base, steps] = (whole / aimed) ** 2 + again
    base, steps = min(cost, key=cost.__getitem__)
    if cost[base, steps] > WORTH * (cost[1, 1] - spent):
        return False
    if base > 1:
        state.wider_base(base)
    if steps > 1:
        state.wider_steps(steps)
    return True


def _expected(bound: np.ndarray, noise: np.ndarray, aim: np.ndarray) -> float:
    """A bias bound, rms over `aim`, once the variance of its noise is a quarter of what it is."""
    noise_now, square = np.mean(noise[aim]), np.mean(bound[aim] ** 2)
    return sqrt(max(square - noise_now, 0) + noise_now / 4)


def _spread(level: Level, variance: np.ndarray, aim: np.ndarray) -> float:
    """Variance of one sample, with that of its part in the bias where it has one of its own."""
    first, *second = np.split(variance, 2) if level.kind == "mixed" else (variance,)
    return float(np.mean(first[aim]) + sum(np.mean(part[aim]) for part in second) / 4)
