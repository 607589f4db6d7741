"""The limit to a tolerance: against closed forms, stopped and resumed, its levels and the sum of them,
coverage of its intervals."""

import time
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfd_jax as nfd
from nfd_jax.limit import _levels, _multilevel, _tolerance
from nfd_jax.limit._levels import Level, Sampler
from nfd_jax.limit._multilevel import Moments, State, combine, error, extrapolation, plan
from nfd_jax.noise import Noise


def one_sample(rate=0.01, **options):
    """One sample, one update so small that its effect is of first order in the learning rate."""
    return nfd.Problem(np.ones((2, 1, 4)), np.full((2, 1, 1), 1.0), rate, **options)


@pytest.mark.parametrize("backward_weights", ["reused", "independent"])
@pytest.mark.long
def test_first_step_has_the_gain_in_closed_form(backward_weights):
    problem = one_sample()
    gains = [0.01 * float(gain[0, 0]) for gain in nfd.first_step_gain(problem)]
    expected = gains[backward_weights == "independent"]
    found = nfd.estimate_limit(
        problem, tolerance=3e-3, key=jax.random.key(0), backward_weights=backward_weights
    )
    assert found.met
    assert found.error <= 3e-3
    assert found.output.shape == (2, 1, 1)
    assert found.loss.shape == (2,)
    bar = 3 * found.standard_error[:, 0, 0] + found.bias[:, 0, 0]
    assert np.all(np.abs(found.output[:, 0, 0] - [0, expected]) < bar + 5e-4)  # η² is 1e-4
    assert bar[1] < abs(gains[0] - gains[1])  # the other system's value would not pass
    for value, row in ((1.0, 0), ((1 - expected) ** 2, 1)):
        assert abs(found.loss[row] - value / 2) < 4 * found.quantities["loss"].standard_error[row] + 1e-3


def clock(monkeypatch, monotonic):
    """A clock for `estimate_limit` alone."""
    stub = SimpleNamespace(monotonic=monotonic, perf_counter=time.perf_counter)
    monkeypatch.setattr(_tolerance, "time", stub)


def stopped_after(monkeypatch, calls):
    """Time stands still until the clock has been read so many times, then it is over."""
    reads = iter(range(10**6))
    clock(monkeypatch, lambda: 0.0 if next(reads) < calls else 1e9)


def read(monkeypatch, estimate):
    """What `estimate()` gives while time stands still, and how often it reads the clock."""
    reads = []
    with monkeypatch.context() as patch:
        clock(patch, lambda: float(reads.append(None) or 0))
        return estimate(), len(reads)


def test_stopped_and_resumed_gives_the_same_numbers(monkeypatch):
    problem, key = one_sample(), jax.random.key(1)
    whole, reads = read(monkeypatch, lambda: nfd.estimate_limit(problem, tolerance=5e-4, key=key))
    seen = []
    with monkeypatch.context() as patch:
        stopped_after(patch, reads - 2)
        part = nfd.estimate_limit(problem, tolerance=5e-4, key=key, max_seconds=5, progress=seen.append)
    assert part.met == (part.error <= 5e-4)
    assert sum(row.samples for row in part.levels) < sum(row.samples for row in whole.levels)
    assert part.error > whole.error
    assert seen[-1] is part
    for _ in range(2):  # an estimate is not changed by being resumed
        again = nfd.estimate_limit(problem, tolerance=5e-4, key=key, resume=part)
        assert again.error == whole.error
        for name, quantity in whole.quantities.items():
            for one, other in zip(quantity, again.quantities[name], strict=True):
                np.testing.assert_array_equal(one, other)
    for other in (
        lambda: nfd.estimate_limit(problem, tolerance=5e-4, key=jax.random.key(2), resume=part),
        lambda: nfd.estimate_limit(problem, tolerance=5e-4, key=key, backward_weights="reused", resume=part),
        lambda: nfd.estimate_limit(one_sample(rate=0.02), tolerance=5e-4, key=key, resume=part),
    ):
        with pytest.raises(ValueError, match="same problem, key, backward weights and heldout"):
            other()
    with monkeypatch.context() as patch:
        stopped_after(patch, 1)
        with pytest.raises(ValueError, match="max_seconds = 5 is too short"):
            nfd.estimate_limit(problem, tolerance=5e-4, key=key, max_seconds=5)


def test_time_that_ends_while_levels_are_added_returns_what_there_was(monkeypatch):
    """The clock stops after a plan that adds a level, before it has any sample."""
    problem, key = one_sample(), jax.random.key(1)
    plan = _tolerance.plan
    with monkeypatch.context() as patch:

        def coarse(state, total, tolerance, aim):
            state.more_particles()
            stopped_after(patch, 0)
            return True

        patch.setattr(_tolerance, "plan", coarse)
        part = nfd.estimate_limit(problem, tolerance=6e-3, key=key, max_seconds=10**6)
    assert len([row for row in part.levels if row.kind == "particles"]) == 2
    assert len(part.state.series("particles")) == 3
    assert _tolerance.plan is plan
    with monkeypatch.context() as patch:  # too short again for a sample of it: what there was is at hand
        stopped_after(patch, 1)
        again = nfd.estimate_limit(problem, tolerance=1.0, key=key, resume=part, max_seconds=5)
    assert again.error == part.error and again.met
    whole = nfd.estimate_limit(problem, tolerance=3e-2, key=key, resume=part)
    assert len([row for row in whole.levels if row.kind == "particles"]) == 3


def test_levels_are_what_they_say():
    """Samples of every kind against single runs on the noise that the level drew."""
    problem = one_sample(rate=0.5)
    sampler = Sampler(problem, jax.random.key(3), True, None)

    def run(ends, motions, system, part, parts):
        n = ends[0].shape[1] // parts
        cut = slice(part * n, (part + 1) * n)
        noise = Noise(
            *(jnp.asarray(x[system, cut]) for x in ends), *(jnp.asarray(x[system, ..., cut]) for x in motions)
        )
        found = nfd.train_finite(problem, noise=noise, width=n, depth=noise.depth, simulator="matrix_free")
        return np.concatenate([np.ravel(found.output), np.ravel(found.loss)])

    def mean(draws, parts):
        return np.mean([run(draws.ends, draws.motions, 5, part, parts) for part in range(parts)], axis=0)

    fine = Level("particles", 64, 2)
    drawn = sampler._draw(fine, 7)
    np.testing.assert_allclose(sampler(fine, 7)[5], mean(drawn, 1) - mean(drawn, 2), rtol=0, atol=1e-12)
    steps = Level("steps", 32, 4)
    drawn = sampler._draw(steps, 7)
    coarse = Noise(*(jnp.asarray(x[5]) for x in (*drawn.ends, *drawn.motions))).coarsen(2)
    for one, other in zip(drawn.coarsen().motions, (coarse.forward, coarse.backward), strict=True):
        np.testing.assert_allclose(one[5], other, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        sampler(steps, 7)[5], mean(drawn, 1) - mean(drawn.coarsen(), 1), rtol=0, atol=1e-12
    )
    assert not np.array_equal(sampler(steps, 7), sampler(steps, 8))


def test_particles_extrapolate_to_second_order():
    """E of `mixed`, and a series' weights, take 1/N and 1/N² away."""
    f = lambda n: 3.0 + 2.0 / n - 5.0 / n**2
    one, two, four = f(64), f(32), f(16)
    assert abs(one + (5 * one - 6 * two + four) / 3 - 3.0) < 1e-12
    changes = np.array([f(32) - f(16), f(64) - f(32), f(128) - f(64)])
    assert abs(f(16) + extrapolation(3) @ changes - 3.0) < 1e-12


def test_moments_are_those_of_all_samples():
    rng = np.random.default_rng(0)
    chunks = [5.0 + rng.standard_normal((size, 3)) for size in (4, 9, 1, 30)]
    moments = Moments.empty(3)
    for chunk in chunks:
        moments = moments.with_chunk(chunk, 0.5)
    every = np.concatenate(chunks)
    assert (moments.count, moments.chunks, moments.seconds) == (44, 4, 2.0)
    np.testing.assert_allclose(moments.mean, every.mean(0))
    np.testing.assert_allclose(moments.variance, every.var(0, ddof=1))


def planted(seed, tolerance, a, b, c, e=0.0, *, wild=0.0):
    """`plan` carried out on a law whose limit is 0: f_{N,M} = a/N + b/N² + c/M + e/M² + noise of the sizes
    met with tanh. `wild`: a variance of mixed differences, at N = M = 1, beyond that."""
    rng, state, aim = np.random.default_rng(seed), State.start(32, 2), np.arange(4)
    mean = lambda n, m: a / n + b / n**2 + c / m + e / m**2
    while True:
        for level, wanted in state.wanted.items():
            n, m = level.particles, level.steps
            if level.kind == "base":
                centre, spread = [mean(n, m)], 0.5 / n
            elif level.kind == "particles":
                centre, spread = [mean(n, m) - mean(n // 2, m)], 0.9 / n**2
            else:
                centre = [mean(n, m) - mean(n, m // 2) if level.kind == "steps" else 0.0]
                spread = 1e-2 / (n * m) + (wild / (n * m) ** 2 if level.kind == "mixed" else 0)
            centre = np.repeat(centre + [0.0] * (level.kind == "mixed"), 4)
            found = state.found.get(level, Moments.empty(centre.size))
            while found.chunks < wanted:
                found = found.with_chunk(
                    centre + np.sqrt(spread) * rng.standard_normal((level.systems, centre.size)), 0.0
                )
            state.found[level] = found
        total = combine(state, 4)
        if not plan(state, total, tolerance, aim):
            return total, error(total, aim), state


@pytest.mark.parametrize("law", [(-0.3, 1.0, 0.1, 0.0), (2.5, -60.0, 0.3, 0.3), (0.0, 0.0, 0.0, 0.0)])
def test_planted_laws_are_met(law):
    tolerance, met, covered = 5e-3, 0, 0
    for seed in range(40):
        total, bound, _ = planted(seed, tolerance, *law)
        assert bound <= tolerance
        met += np.sqrt(np.mean(total.value**2)) <= tolerance
        covered += np.mean(np.abs(total.value) <= 1.96 * np.sqrt(total.variance) + total.bias)
    assert met >= 38
    assert covered >= 36


def test_cost_of_a_planted_law_is_quadratic():
    cost = lambda state: sum(state.found[level].count * level.cost for level in state.wanted)
    spent = [cost(planted(0, tolerance, -0.3, 1.0, 0.1)[2]) for tolerance in (1e-2, 1e-3)]
    assert np.log10(spent[1] / spent[0]) < 2.2


def test_systems_become_wider_where_differences_vary_too_much(monkeypatch):
    """Mixed differences that vary a hundred times as much as usual cost less with more particles; the bars
    hold as well."""
    cost = lambda state: sum(state.found[level].count * level.cost for level in state.wanted)
    law, tolerance = (-0.3, 1.0, 0.1), 1e-3
    found = [planted(seed, tolerance, *law, wild=1e3) for seed in range(8)]
    covered = [np.mean(np.abs(t.value) <= 1.96 * np.sqrt(t.variance) + t.bias) for t, *_ in found]
    assert np.mean(covered) > 0.9 and all(bound <= tolerance for _, bound, _ in found)
    assert all(state.series("mixed")[0].particles > 128 for *_, state in found)
    monkeypatch.setattr(_multilevel, "WIDER", (1,))
    narrow = [planted(seed, tolerance, *law, wild=1e3) for seed in range(8)]
    assert np.mean([cost(s) for *_, s in found]) < 0.5 * np.mean([cost(s) for *_, s in narrow])


def test_systems_are_not_made_wider_beyond_what_memory_may_hold(monkeypatch):
    monkeypatch.setattr(_multilevel, "WIDEST", 128)
    _, _, state = planted(0, 3e-3, -0.3, 1.0, 0.1, wild=1e3)
    assert {level.particles for level in state.series("mixed")} == {128}


def test_base_samples_become_wider_where_differences_in_particles_cost_too_much():
    state = State.start(32, 2)
    state.wider_base(2)
    assert [level.particles for level in state.series("base")] == [64]
    assert [level.particles for level in state.series("particles")] == [128, 256]
    state.more_particles()
    state.wider_base(4)
    assert [level.particles for level in state.series("base")] == [256]
    assert [level.particles for level in state.series("particles")] == [512, 1024]
    assert {level.particles for level in state.series("steps")} == {128}, "as they were"


def test_a_level_is_added_where_the_bias_is_seen():
    _, _, coarse = planted(0, 2e-2, -0.3, 1.0, 0.1)
    _, _, fine = planted(0, 2e-3, 2.5, -60.0, 1.0, 2.0)
    assert len(fine.series("particles")) > len(coarse.series("particles"))
    assert len(fine.series("steps")) > len(coarse.series("steps"))


@pytest.mark.parametrize("tolerance", [0, -1e-3, 1e-15, np.nan, np.inf, "small", None])
def test_tolerances_that_cannot_be(tolerance):
    with pytest.raises(
        ValueError, match="tolerance must be a number of at least 1e-13, what float64 can resolve; received"
    ):
        nfd.estimate_limit(one_sample(), tolerance=tolerance, key=jax.random.key(0))


def test_other_bad_input(make_problem):
    single = make_problem(dtype=np.float32)
    with pytest.raises(ValueError, match="at least 1e-05, what float32"):
        nfd.estimate_limit(single, tolerance=1e-6, key=jax.random.key(0))
    for options, message in (
        ({"max_seconds": 0}, "max_seconds must be positive or None; received 0"),
        ({"heldout": np.ones((3, 9))}, r"heldout must be \(H, 4\).* received \(3, 9\)"),
        ({"backward_weights": "both"}, "backward_weights must be one of"),
        ({"key": None}, "give key="),
    ):
        with pytest.raises(ValueError, match=message):
            nfd.estimate_limit(one_sample(), **{"tolerance": 1e-2, "key": jax.random.key(0)} | options)


def test_smallest_systems_hold_all_queries(make_problem):
    assert _tolerance.coarsest(make_problem(steps=3, rows=3)) == (128, 2)
    assert _tolerance.coarsest(make_problem(steps=10, rows=4, horizon=4.0)) == (128, 8)


@pytest.mark.long
@pytest.mark.parametrize("tolerance", [3e-2, 1e-2])
@pytest.mark.parametrize("backward_weights", ["reused", "independent"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_intervals_cover_a_costlier_reference(make_problem, activation, backward_weights, tolerance):
    problem = make_problem(steps=4, rows=2, dim=4, rate=0.5, activation=activation)
    at = lambda tolerance, key: nfd.estimate_limit(
        problem, tolerance=tolerance, key=key, backward_weights=backward_weights
    )
    reference = at(tolerance / 4, jax.random.key(1000))
    repeats, covered, met = 60, [], 0
    for seed in range(repeats):
        found = at(tolerance, jax.random.key(seed))
        gap = found.output - reference.output
        bar = (
            1.96 * np.sqrt(found.standard_error**2 + reference.standard_error**2)
            + found.bias
            + reference.bias
        )
        covered.append(np.mean(np.abs(gap) <= bar))
        met += np.sqrt(np.mean(gap**2)) <= tolerance
    assert np.mean(covered) >= 0.9
    assert met >= 0.95 * repeats


@pytest.mark.long
def test_heldout_inputs_follow_the_batch(make_problem):
    """A held-out copy of an input of the batch has its output."""
    problem = make_problem(steps=3, rows=2, dim=4)
    found = nfd.estimate_limit(
        problem, tolerance=2e-2, key=jax.random.key(0), heldout=np.asarray(problem.inputs[0, :1])
    )
    assert found.heldout.shape == (3, 1, 1)
    assert np.sqrt(np.mean((found.heldout[:, 0] - found.output[:, 0]) ** 2)) < 2e-2


@pytest.mark.long
def test_cost_in_the_tolerance():
    problem = eqx.tree_at(lambda p: p.targets, one_sample(rate=0.5), 2 * np.ones((2, 1, 1)))
    cost = []
    for tolerance in (1e-2, 1e-3):
        found = nfd.estimate_limit(problem, tolerance=tolerance, key=jax.random.key(0))
        cost.append(sum(row.samples * Level(row.kind, row.particles, row.steps).cost for row in found.levels))
    assert np.log10(cost[1] / cost[0]) < 2.2


def test_saved_and_loaded_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    """Stopped, written and read as by another process: every number is that of an uninterrupted call."""
    problem, key, path = one_sample(), jax.random.key(1), tmp_path / "estimate.npz"
    whole, reads = read(monkeypatch, lambda: nfd.estimate_limit(problem, tolerance=5e-4, key=key))
    with monkeypatch.context() as patch:
        stopped_after(patch, reads - 2)
        part = nfd.estimate_limit(problem, tolerance=5e-4, key=key, max_seconds=5)
    part.save(path)
    loaded = nfd.LimitEstimate.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["estimate.npz"]
    assert (loaded.error, loaded.met, loaded.levels) == (part.error, part.met, part.levels)
    assert loaded.state.wanted == part.state.wanted
    again = nfd.estimate_limit(problem, tolerance=5e-4, key=key, resume=loaded)
    assert again.error == whole.error < part.error
    for one, other in ((part, loaded), (whole, again)):
        for name, quantity in one.quantities.items():
            for x, y in zip(quantity, other.quantities[name], strict=True):
                np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="same problem, key, backward weights and heldout, and the same ker"):
        nfd.estimate_limit(problem, tolerance=5e-4, key=key, resume=loaded, kernels=1)


def test_what_is_no_saved_estimate_is_refused(tmp_path):
    path = tmp_path / "estimate.npz"
    with pytest.raises(FileNotFoundError):
        nfd.LimitEstimate.load(path)
    nfd.estimate_limit(one_sample(), tolerance=0.3, key=jax.random.key(0)).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:-40]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="no estimate of a limit, or a damaged one"):
            nfd.LimitEstimate.load(path)
    np.savez(path, format=99)
    with pytest.raises(ValueError, match="an estimate in format 99, this version reads 3: estimate anew"):
        nfd.LimitEstimate.load(path)


def test_one_identity_in_every_process_and_for_no_other_function():
    """What functions are shown with holds an address, and code says nothing of what it calls; what they do
    tells them apart."""

    def scaled(by):
        return lambda z: jnp.tanh(by * z)

    def compiled(by):
        return jax.jit(scaled(by))

    def of(activation):
        problem = one_sample(activation=activation)
        return _tolerance._identity((problem, None), "reused", [0, 1], None)

    assert of(scaled(0.5)) == of(scaled(0.5)) != of(scaled(0.25))
    assert of(compiled(0.5)) == of(compiled(0.5)) != of(compiled(0.25))
    assert of("tanh") != of(lambda z: jnp.tanh(z)) != of(lambda z: jnp.sin(z))


@pytest.mark.long
def test_kernels_come_with_bars_of_their_own(make_problem):
    """At initialization they are known in closed form."""
    problem = make_problem(steps=2, rows=2, dim=4)
    found = nfd.estimate_limit(problem, tolerance=0.2, key=jax.random.key(0), kernels=2)
    feature, gradient = (found.quantities[f"{name}_kernel"] for name in ("feature", "gradient"))
    assert found.feature_kernel.shape == found.gradient_kernel.shape == (2, 3, 2, 2)
    exact = nfd.init_kernels(problem, ts=[0.0, 0.5, 1.0])
    np.testing.assert_allclose(found.feature_kernel, np.swapaxes(found.feature_kernel, 2, 3), rtol=1e-12)
    bars = lambda quantity: 4 * quantity.standard_error[0] + quantity.bias[0] + 1e-3
    phi = phi_kernel(np.asarray(exact.preactivation))
    assert np.all(np.abs(feature.value[0] - phi) < bars(feature))
    assert np.all(np.abs(gradient.value[0] - np.asarray(exact.gradient)) < bars(gradient))
    assert np.max(feature.standard_error) < 0.1


@pytest.mark.parametrize("kernels", [3, 0, True, 0.5])
def test_grids_of_kernels_that_cannot_be(kernels):
    with pytest.raises(ValueError, match="kernels must be a power of 2"):
        nfd.estimate_limit(one_sample(), tolerance=5e-2, key=jax.random.key(0), kernels=kernels)


def test_samples_of_kernels_have_the_means_known_at_the_ends(make_problem):
    """For every N: of φ(h_0), and of b at t = 1, which is V; on both base programs."""
    problem = make_problem(steps=1, rows=2, dim=4)
    sampler, level = Sampler(problem, jax.random.key(0), True, None, 2), Level("base", 32, 2)
    gram = np.asarray(problem.inputs[0] @ problem.inputs[0].T) / 4
    for chunk in (0, _levels.FEW):
        samples = sampler(level, chunk)
        for name, t, expected in (("feature", 0, phi_kernel(gram)), ("gradient", -1, np.ones((2, 2)))):
            found = samples[:, sampler.places(f"{name}_kernel")].reshape(-1, 3, 2, 2)[:, t]
            np.testing.assert_array_less(np.abs(found.mean(0) - expected), 4 * found.std(0) / 128**0.5)


def phi_kernel(preactivation):
    """E tanh(u) tanh(v) of (u, v) ~ N(0, K), by quadrature, for K (…, 2, 2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = np.outer(weights, weights) / (2 * np.pi)
    root = np.linalg.cholesky(preactivation + 1e-14 * np.eye(2))
    z = np.tanh(root @ np.stack(np.meshgrid(nodes, nodes, indexing="ij")).reshape(2, -1))
    return np.einsum("...pa,...qa,a->...pq", z, z, weights.ravel())


def test_controls_leave_the_mean_and_take_most_of_the_variance():
    """On both programs of the base level, which have one law: means of the controls are zero, and what they
    explain of f_0 is everything."""
    problem = one_sample(rate=0.5)
    sampler, level = Sampler(problem, jax.random.key(4), True, None), Level("base", 32, 2)
    halves = []
    for start in (0, _levels.FEW):
        moments = Moments.empty(sampler.size, 3)
        for chunk in range(start, start + 12):
            samples, controls = sampler.sample(level, chunk)
            moments = moments.with_chunk(samples, 0.0, controls)
        spread = np.sqrt(np.diagonal(moments.control_squares)) / moments.count
        assert np.all(np.abs(moments.controls) < 4 * spread)
        mean, variance = moments.controlled()
        assert abs(mean[0]) < 1e-12 and variance[0] < 1e-12
        assert variance[1] < 0.6 * moments.variance[1]
        assert np.all(np.abs(mean - moments.mean) < 4 * np.sqrt(moments.variance / moments.count))
        halves.append((mean, variance / moments.count))
    (one, a), (two, b) = halves
    assert np.all(np.abs(one - two) < 4 * np.sqrt(a + b) + 1e-12)


def test_few_samples_are_not_regressed():
    rng = np.random.default_rng(0)
    moments = Moments.empty(2, 3).with_chunk(rng.standard_normal((40, 2)), 0.0, rng.standard_normal((40, 3)))
    for found, own in zip(moments.controlled(), (moments.mean, moments.variance), strict=True):
        np.testing.assert_array_equal(found, own)


def test_centered_outputs_of_fresh_batches_have_samples(make_problem):
    """With several outputs and held-out inputs, both asked under the initial weights too."""
    problem = make_problem(steps=2, rows=2, dim=4, outputs=2, stream=True, centered=True)
    sampler = Sampler(problem, jax.random.key(0), False, np.asarray(problem.inputs[0, :1]))
    samples = sampler(Level("base", 32, 2), 0)
    output, heldout = (samples[:, sampler.places(name)] for name in ("output", "heldout"))
    assert np.isfinite(samples).all() and heldout.shape == (128, 4)
    assert np.all(np.abs(output[:, :4]) < 1e-12) and np.all(np.abs(heldout[:, :2]) < 1e-9)
