"""Intervals cover what they say, and verdicts on constants are rarely false, on samples whose law is
known.
"""

import numpy as np
import pytest

from nfd_jax.verdicts import fit_coarsening, fit_slope
from nfd_jax.verdicts._constants import CONSTANT, judge_constant
from nfd_jax.verdicts._family import Fits, fit_laws
from nfd_jax.verdicts._fit import fit_grid
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._sample import Sample
from nfd_jax.verdicts._seeds import Spread
from nfd_jax.verdicts._targets import Target

WIDTHS, DEPTHS = (64, 128, 256, 512), (8, 16, 32, 64)
N, L = (axis.ravel().astype(float) for axis in np.meshgrid(WIDTHS, DEPTHS, indexing="ij"))


def factors(rng: np.random.Generator, seeds: int, kind: str) -> np.ndarray:
    """(seeds, 1) of mean 1, shared by all points of a seed."""
    if kind == "chi2":
        return rng.normal(size=(seeds, 1)) ** 2
    return np.exp(0.3 * rng.normal(size=(seeds, 1)) - 0.045)


def draw(rng: np.random.Generator, mean: np.ndarray, seeds: int, kind: str, own: float = 0.05) -> np.ndarray:
    """(seeds, points, 1) with that mean."""
    return (mean * factors(rng, seeds, kind) * (1 + own * rng.normal(size=(seeds, len(mean)))))[..., None]


def as_sample(values: np.ndarray, signal: float = 1.0) -> Sample:
    moved = np.full(len(values), signal)
    return Sample(values, N, L, moved, 1, 0.5, 0.0, 1)


def within(count: int, repeats: int, share: float, slack: float) -> bool:
    """Whether count of repeats is as near to share as chance and slack allow, at three standard errors."""
    return abs(count / repeats - share) <= slack + 3 * np.sqrt(share * (1 - share) / repeats)


@pytest.mark.parametrize("seeds", [8, 30])
@pytest.mark.parametrize("kind", ["gaussian", "chi2"])
def test_intervals_of_means_cover(seeds, kind):
    rng, repeats = np.random.default_rng(seeds), 600
    noise = (
        (lambda: rng.normal(size=seeds)) if kind == "gaussian" else (lambda: rng.normal(size=seeds) ** 2 - 1)
    )
    found = [Spread.of(noise()).interval() for _ in range(repeats)]
    assert within(sum(one.low <= 0 <= one.high for one in found), repeats, 0.95, 0.03)


def covered(seeds: int, kind: str, repeats: int, reference: int | None) -> int:
    """How often the interval at a known law holds the constant."""
    law, rng = Law(reference), np.random.default_rng(seeds)
    truth = 0.1
    mean = truth + 1 / N + 0.2 * law.column(L, 1.0) / 64 + 3 * law.column(L, 1.0) / 64 / N
    count = 0
    for _ in range(repeats):
        fit = fit_grid(draw(rng, mean, seeds, kind), N, L, law)
        interval = Fits([fit], True).interval(CONSTANT)
        count += interval.low <= truth <= interval.high
    return count


@pytest.mark.parametrize(("seeds", "kind"), [(8, "gaussian"), (30, "chi2")])
def test_constants_of_a_known_law_are_covered(seeds, kind):
    assert within(covered(seeds, kind, 100, 256), 100, 0.95, 0.03)


@pytest.mark.long
@pytest.mark.parametrize("reference", [None, 256])
@pytest.mark.parametrize("kind", ["gaussian", "chi2"])
@pytest.mark.parametrize("seeds", [8, 30])
def test_constants_of_a_known_law_are_covered_long(seeds, kind, reference):
    assert within(covered(seeds, kind, 400, reference), 400, 0.95, 0.03)


def covered_exponents(seeds: int, kind: str, repeats: int) -> int:
    law, rng = Law(512), np.random.default_rng(seeds)
    mean = 1 / N + 0.5 * law.column(L, 1.0) / 64
    count = 0
    for _ in range(repeats):
        found = fit_grid(draw(rng, mean, seeds, kind), N, L, law).exponent()
        count += found.low <= 1.0 <= found.high
    return count


def test_exponents_of_the_law_of_coarsening_are_covered():
    assert within(covered_exponents(8, "gaussian", 100), 100, 0.95, 0.03)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gaussian", "chi2"])
@pytest.mark.parametrize("seeds", [8, 30])
def test_exponents_of_the_law_of_coarsening_are_covered_long(seeds, kind):
    assert within(covered_exponents(seeds, kind, 400), 400, 0.95, 0.03)


@pytest.mark.parametrize("seeds", [8, 30])
@pytest.mark.parametrize("size", [0.0, 0.3])
def test_squared_biases_are_covered(seeds, size):
    """Channels that share noise; the bias's mean square, and nothing at all."""
    rng, repeats = np.random.default_rng(seeds), 400
    count = 0
    for _ in range(repeats):
        values = size + rng.normal(size=(seeds, 1)) * 0.4 + rng.normal(size=(seeds, 5)) * 0.5
        found = Target(values, None, [], 0.0).interval()
        count += found.low <= size**2 <= found.high
    assert count / repeats >= 0.92 - 3 * np.sqrt(0.05 * 0.95 / repeats)
    if size:  # where there is no bias an interval holds 0 more often than it says
        assert within(count, repeats, 0.95, 0.03)


# truth: remains, vanishes or between (0.0025 is the margin); laws whose exponent and shift the fit doesn't
# know
LAWS = {
    "3/n + 0.5/L": (lambda n, L: 3 / n + 0.5 / L, "vanishes"),
    "a slow 0.1/√L": (lambda n, L: 0.1 / L**0.5 + 1 / n, "vanishes"),
    "1/(L + 8)": (lambda n, L: 1 / (L + 8) + 0.3 / n, "vanishes"),
    "a third of the deepest": (lambda n, L: 0.5 / L + 0.0042 + 0.3 / n, "remains"),
    "half of the deepest": (lambda n, L: 0.5 / L + 0.0078 + 0.3 / n, "remains"),
    "a constant beside a shift": (lambda n, L: 0.006 + 1 / (L + 8) + 0.3 / n, "remains"),
    "a constant beside 1/√L": (lambda n, L: 0.006 + 0.1 / L**0.5 + 0.3 / n, "remains"),
    "flat": (lambda n, L: 0.01 + 0 * n, "remains"),
    "with 1/n²": (lambda n, L: 1 / n + 30 / n**2 + 0.2 / L, "vanishes"),
}
OPPOSITE = {"remains": "vanishes", "vanishes": "remains"}


def verdicts_of(name: str, seeds: int, kind: str, repeats: int) -> list[str]:
    law, _ = LAWS[name]
    rng, mean = np.random.default_rng(seeds), LAWS[name][0](N, L)
    found = []
    for _ in range(repeats):
        sample = as_sample(draw(rng, mean, seeds, kind))
        fit = lambda sample=sample: fit_laws(sample.values, N, L, Law(), positive=True)
        found.append(judge_constant(sample, "h", Law(), margin=0.0025, floor=1e-24, fit=fit).verdict)
    return found


def check(name: str, seeds: int, kind: str, repeats: int) -> None:
    truth, found = LAWS[name][1], verdicts_of(name, seeds, kind, repeats)
    power, false = found.count(truth), found.count(OPPOSITE[truth])
    print(f"{name}, {seeds} seeds, {kind}: {truth} in {power}, the opposite in {false} of {repeats}")
    assert false <= 0.05 * repeats + 3 * np.sqrt(0.05 * 0.95 * repeats) * (repeats < 400)


@pytest.mark.parametrize("name", LAWS)
def test_false_verdicts_are_rare(name):
    for seeds, kind in ((8, "gaussian"), (30, "chi2")):
        check(name, seeds, kind, 15)


@pytest.mark.long
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("kind", ["gaussian", "chi2"])
@pytest.mark.parametrize("seeds", [4, 8, 30, 100])
def test_false_verdicts_are_rare_long(seeds, kind, name):
    check(name, seeds, kind, 400)


def test_power_grows_with_seeds():
    few, many = (
        verdicts_of("half of the deepest", seeds, "gaussian", 20).count("remains") for seeds in (4, 30)
    )
    assert many > few or many == 20


def test_laws_without_noise_are_found():
    mean = 0.01 + 3 / N + 0.5 / L + 20 / (N * L)
    fits = fit_laws(np.repeat(mean[None, :, None], 8, 0), N, L, Law(), positive=True)
    interval = fits.interval(CONSTANT)
    assert fits.described and interval.low <= 0.01 <= interval.high and interval.high - interval.low < 0.002
    assert abs(fits.exponent().estimate - 1) < 0.1


def test_what_no_law_describes_decides_nothing():
    mean = 0.1 + 0.05 * np.cos(3 * np.log(N)) * np.sin(5 * np.log(L))
    sample = as_sample(draw(np.random.default_rng(0), mean, 30, "gaussian", own=0.01))
    fit = lambda: fit_laws(sample.values, N, L, Law(), positive=True)
    found = judge_constant(sample, "h", Law(), margin=0.0025, floor=0.0, fit=fit)
    assert found.verdict == "undecided" and "no law" in found.reason


def test_small_effects_seen_are_seen():
    """A constant as large as the smallest effect said to be seen is found about four times in five."""
    rng, mean = np.random.default_rng(0), 0.5 / L + 0.3 / N
    judge = lambda sample: judge_constant(
        sample,
        "h",
        Law(),
        margin=0.0025,
        floor=0.0,
        fit=lambda: fit_laws(sample.values, N, L, Law(), positive=True),
    )
    smallest = np.median([judge(as_sample(draw(rng, mean, 30, "gaussian"))).smallest for _ in range(9)])
    assert 0.0025 < smallest < 0.05
    found = [judge(as_sample(draw(rng, mean + smallest, 30, "gaussian"))).verdict for _ in range(20)]
    assert found.count("remains") >= 10


def test_errors_against_a_finite_reference_are_told_from_constants():
    """At M = 2 × the deepest a distance that vanishes falls faster than any power; its law of coarsening is
    fitted.
    """
    rng, law = np.random.default_rng(0), Law(128)
    mean = 0.5 * law.column(L, 1.0) / 64 + 0.3 / N
    fits = fit_laws(draw(rng, mean, 30, "gaussian"), N, L, law, positive=True)
    assert fits.described and abs(fits.exponent().estimate - 1.0) < 0.15
    interval = fits.interval(CONSTANT)
    assert interval.low <= 2e-4 and interval.high >= -2e-4 and interval.high < 0.0025


def test_slopes_and_coarsening_exponents_of_one_curve_are_covered():
    rng, depths, hits = np.random.default_rng(0), np.array([8.0, 16, 32, 64]), np.zeros(2)
    for _ in range(200):
        noise = factors(rng, 8, "gaussian") * (1 + 0.05 * rng.normal(size=(8, 4)))
        slope = fit_slope(depths, noise / depths)
        exponent = fit_coarsening(depths, noise * Law(256).column(depths, 1.0), reference=256)
        hits += [slope.low <= -1 <= slope.high, exponent.low <= 1 <= exponent.high]
    assert all(within(count, 200, 0.95, 0.03) for count in hits)


@pytest.mark.parametrize(
    ("x", "samples"),
    [
        ([1, 2], np.ones((3, 3))),
        ([2, 1], np.ones((3, 2))),
        ([1, 2], -np.ones((3, 2))),
        ([1], np.ones((3, 1))),
    ],
)
def test_curves_that_cannot_be_fitted_are_refused(x, samples):
    with pytest.raises(ValueError, match="give|leave"):
        fit_slope(x, samples)
