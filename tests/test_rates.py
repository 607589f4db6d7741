"""Fitted laws, the coverage of their intervals and the verdicts, on synthetic samples whose law is known."""

import numpy as np
import pytest

from nfd_jax.verdicts._fits import interval, resampled_means
from nfd_jax.verdicts._rates import (
    Fit,
    classify,
    fit_coarsening,
    fit_joint,
    fit_plateau,
    fit_slope,
    open_verdict,
    seeds_needed,
)

X = np.array([8, 16, 32, 64])


def noise(rng: np.random.Generator, shape: tuple[int, ...], common: float = 0.3, own: float = 0.05) -> np.ndarray:
    """(seeds, …) lognormal factors of mean 1: one shared by all points of a seed, as by common noise, and their own."""
    shared = common * rng.normal(size=(shape[0],) + (1,) * (len(shape) - 1)) - common**2 / 2
    return np.exp(shared + own * rng.normal(size=shape) - own**2 / 2)


def near(fit: Fit, truth: float) -> bool:
    """Within a full width, four standard errors: a single draw would miss its interval 1 time in 20."""
    return abs(fit.estimate - truth) <= fit.high - fit.low < np.inf


def coarsened(x: np.ndarray, alpha: float, reference: int) -> np.ndarray:
    return np.array([np.mean((np.arange(reference // depth) / reference) ** alpha) for depth in x])


@pytest.mark.parametrize("seeds", [4, 8, 16])
@pytest.mark.parametrize(("common", "own"), [(0.5, 0.2), (0.0, 0.3)])
def test_slope_intervals_cover(seeds, common, own):
    rng, repeats = np.random.default_rng(seeds), 1000
    fits = [fit_slope(X, noise(rng, (seeds, 4), common, own) / X) for _ in range(repeats)]
    covered = np.mean([fit.low <= -1 <= fit.high for fit in fits])
    assert abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / repeats)


@pytest.mark.parametrize("constant", [0.0, 0.2])
def test_plateau_intervals_cover(constant):
    rng, repeats = np.random.default_rng(1), 100
    truth = np.array([1.0, constant, constant / (constant + 8 / 64)])
    covered = np.zeros(3)
    for _ in range(repeats):
        fit = fit_plateau(X, (8 / X + constant) * noise(rng, (8, 4)), n_boot=400)
        parts = (fit.alpha, fit.level, fit.share)
        covered += [part.low <= value <= part.high for part, value in zip(parts, truth, strict=True)]
    error = np.sqrt(0.95 * 0.05 * repeats)
    assert np.all(covered > 0.95 * repeats - 3 * error)
    if constant:  # at c = 0, the end of the range of c, intervals may cover more often than they say
        assert np.all(covered < repeats)


def test_joint_intervals_cover_and_limits_agree():
    n, L = np.array([128, 256, 512]), np.array([8, 16, 32])
    truth = np.array([3.0, 0.5, 20.0, 0.01])
    law = 3.0 / n[:, None] + 0.5 * (1 / L - 1 / 128) + 20 / n[:, None] * (1 / L - 1 / 128) + 0.01
    rng, repeats = np.random.default_rng(2), 200
    covered, agree = np.zeros(4), 0
    for _ in range(repeats):
        fit = fit_joint(n, L, law * noise(rng, (8, 3, 3), own=0.02), constant=True, reference=128, n_boot=400)
        covered += [f.low <= t <= f.high for f, t in zip((fit.a, fit.b, fit.c, fit.d), truth, strict=True)]
        agree += fit.width_first.low <= 0.01 <= fit.width_first.high
    error = np.sqrt(0.95 * 0.05 * repeats)
    assert np.all(np.abs(covered - 0.95 * repeats) < 3 * error)
    assert abs(agree - 0.95 * repeats) < 3 * error


def test_joint_fit_is_exact_without_noise_and_tells_limits_that_do_not_commute():
    n, L = np.array([128.0, 256, 512]), np.array([8.0, 16, 32])
    fit = fit_joint(n, L, np.ones((4, 1, 1)) * (3 / n[:, None] + 0.5 / L + 20 / n[:, None] / L))
    np.testing.assert_allclose([fit.a.estimate, fit.b.estimate, fit.c.estimate], [3, 0.5, 20], rtol=1e-9)
    assert fit.misfit < 1e-9 and np.isnan(fit.d.estimate)
    fit = fit_joint(16 * L, L, np.ones((4, 1, 1)) * (L / (L + 4 * L[:, None]) + 0.01))  # 0.01 in turn, 0.21 together
    assert fit.together.estimate == pytest.approx(0.21) and fit.gap.estimate > 0.5 * fit.corner


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_coarsening_law_removes_the_bias_of_a_finite_reference(alpha):
    samples = coarsened(X, alpha, 128) * noise(np.random.default_rng(3), (8, 4), own=0.01)
    fit = fit_coarsening(X, samples, reference=128)
    assert near(fit, alpha) and fit.high - fit.low < 0.15
    assert fit_slope(X, samples).high < -alpha  # the naive slope is too steep, by more than its interval
    rate = classify(X, samples, reference=128)
    assert rate.kind == "decays" and near(rate.slope, -alpha)


def test_coarsening_keeps_a_plateau_apart():
    samples = (coarsened(X, 1.0, 128) + 0.1) * noise(np.random.default_rng(4), (8, 4), own=0.01)
    rate = classify(X, samples, reference=128)
    assert rate.kind == "plateaus" and near(rate.plateau, 0.1)


@pytest.mark.parametrize(
    ("law", "kind", "slope"),
    [
        (lambda x: 1 / x, "decays", -1.0),
        (lambda x: x**-0.5, "decays", -0.5),
        (lambda x: x**-0.3, "decays", -0.3),
        (lambda x: x**-2.0, "decays", -2.0),
        (lambda x: 1 / x + 8 / x**2, "decays", None),  # flattens, but keeps falling
        (lambda x: x**0.0, "plateaus", 0.0),
        (lambda x: 0.3 + 4 / x, "plateaus", None),
        (lambda x: 0.1 + 20 / x**2.0, "plateaus", None),
        (lambda x: x**0.5, "grows", 0.5),
    ],
)
def test_verdicts_on_known_laws(law, kind, slope):
    rate = classify(X, law(X.astype(float)) * noise(np.random.default_rng(5), (16, 4), own=0.01))
    assert rate.kind == kind and rate.more_seeds == 0 and rate.used == 4
    assert rate.verdict.startswith(kind)
    if slope is not None:
        assert near(rate.slope, slope)


def test_wrong_verdicts_are_no_more_frequent_than_the_intervals_allow():
    rng, repeats = np.random.default_rng(6), 60
    for law, wrong in ((lambda x: x**-0.5, "plateaus"), (lambda x: 0.3 + 4 / x, "decays")):
        kinds = [classify(X, law(X * 1.0) * noise(rng, (4, 4), own=0.3), n_boot=300).kind for _ in range(repeats)]
        assert kinds.count(wrong) < 0.05 * repeats + 3 * np.sqrt(0.05 * 0.95 * repeats)
        assert "grows" not in kinds


def test_undecided_data_ask_for_about_as_many_seeds_as_decide():
    rng, asked, enough, half = np.random.default_rng(7), [], 0, 0
    for _ in range(30):
        samples = noise(rng, (400, 4), own=0.35) / X
        rate = classify(X, samples[:4], n_boot=300)
        if rate.kind != "open" or not rate.more_seeds <= 100:
            continue
        assert f"about {rate.more_seeds:.0f} more seeds" in rate.verdict
        asked.append(rate.more_seeds)
        enough += classify(X, samples[: 4 + 4 * int(rate.more_seeds)], n_boot=300).kind == "decays"
        half += classify(X, samples[: 4 + int(rate.more_seeds / 4)], n_boot=300).kind == "decays"
    assert len(asked) >= 10
    assert enough >= 0.8 * len(asked) and half <= 0.6 * len(asked)


def test_one_seed_decides_nothing():
    rate = classify(X, 1 / X[None])
    assert rate.kind == "open" and rate.more_seeds == 3
    assert rate.slope.estimate == pytest.approx(-1) and np.isinf([rate.slope.low, rate.slope.high]).all()


def test_values_at_the_rounding_floor_are_dropped_and_counted():
    rng = np.random.default_rng(8)
    x = np.array([8, 16, 32, 64, 128])
    law = np.maximum(1e-18 * x**-4.0, 1e-26)
    rate = classify(x, law * noise(rng, (8, 5)), floor=1e-25)
    assert rate.used == 3 and rate.dropped == 2 and rate.kept.tolist() == [True] * 3 + [False] * 2
    assert rate.kind == "decays" and near(rate.slope, -4)
    zero = classify(x, np.zeros((8, 5)))
    assert zero.kind == "zero" and zero.dropped == 5 and "zero to rounding" in zero.verdict
    assert classify(x, law[None], floor=1e-25).used == 3


def test_monte_carlo_noise_is_dropped_and_counted():
    rng = np.random.default_rng(9)
    samples = noise(rng, (8, 4)) / X
    samples[:, 3] = [1, 0, 0, 0, 0, 0, 0, 0]  # one seed makes the mean: relative standard error 1
    rate = classify(X, samples)
    assert rate.kept.tolist() == [True, True, True, False]
    assert rate.kind == "decays" and near(rate.slope, -1)
    hopeless = classify(X, np.repeat([[1.0], [0], [0], [0]], 4, axis=1))
    assert hopeless.kind == "open" and hopeless.more_seeds == 12  # relative standard error 1 halves with 4 times the seeds


def test_missing_values_leave_out_points_and_then_seeds():
    samples = noise(np.random.default_rng(10), (8, 4)) / X
    samples[:5, 3] = np.nan
    samples[7, 0] = np.inf
    rate = classify(X[::-1], samples[:, ::-1])  # any order of x
    assert rate.seeds == 7 and rate.kept.tolist() == [True, True, True, False] and rate.x.tolist() == X.tolist()
    for empty in (np.full((8, 4), np.nan), np.empty((0, 4))):
        assert classify(X, empty).kind == "unmeasured"
    assert classify(X[:1], samples[:, :1]).kind == "unmeasured"


def test_two_points_decide_a_steep_decay_and_a_flat_line_only():
    rng = np.random.default_rng(11)
    factors = noise(rng, (8, 2), own=0.005)
    kinds = [classify([8, 32], np.array([8.0, 32]) ** power * factors).kind for power in (-1.0, 0.0, -0.3)]
    assert kinds == ["decays", "plateaus", "open"]
    assert "third point" in classify([8, 32], np.array([8.0, 32]) ** -0.3 * factors).verdict


def test_seeds_needed_follow_the_width_of_students_interval():
    wide = Fit(1.0, 0.0, 2.0)
    assert seeds_needed(wide, 0.5, 4, above=True) == 9  # t_8/√9 = 0.769 is the first under half of t_3/√4 = 1.591
    assert seeds_needed(wide, -0.1, 4, above=True) == seeds_needed(wide, 2.1, 4, above=False) == 4
    assert np.isinf([seeds_needed(wide, 1.5, 4, above=True), seeds_needed(wide, 0.999, 4, above=True)]).all()
    assert "more than 1000 more seeds" in open_verdict(np.inf)


def test_interval_of_a_mean_is_students():
    samples = np.random.default_rng(13).normal(10, 1, size=(16, 1))
    fit = interval(resampled_means(samples, 20000)[:, 0], 16)
    half = 2.1314 * samples.std(ddof=1) / 4
    assert fit.high - fit.low == pytest.approx(2 * half, rel=0.05)


@pytest.mark.parametrize(
    ("x", "samples", "says"),
    [
        ([8, 16], np.ones((4, 3)), "shape"),
        ([8], np.ones((4, 1)), "at least 2"),
        ([16, 8], np.ones((4, 2)), "increasing"),
        ([8, 16], np.zeros((4, 2)), "positive mean"),
        ([8, 16], np.full((4, 2), np.nan), "finite"),
    ],
)
def test_bad_samples_are_refused(x, samples, says):
    with pytest.raises(ValueError, match=says):
        fit_slope(x, samples)


def test_bad_references_are_refused():
    for reference in (64, 96, 32):
        with pytest.raises(ValueError, match="proper divisors"):
            fit_coarsening(X, np.ones((4, 4)) / X, reference=reference)
    with pytest.raises(ValueError, match="at least 2 of each"):
        fit_joint([64], [8, 16], np.ones((4, 1, 2)))


def test_runs_that_diverged_in_all_but_name_are_left_out():
    """Finite losses whose squares overflow."""
    samples = np.exp(0.1 * np.random.default_rng(0).standard_normal((12, 4))) / X
    blown = np.vstack([samples, np.full((1, 4), 1e200)])
    assert classify(X, blown).verdict == classify(X, samples).verdict
    assert classify(X, 1e200 * samples).kind == "unmeasured"
