"""One estimate of a limit spread over workers: the same numbers to the last bit, whoever takes its samples
and whatever becomes of them."""

import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from _configs import config_with

import nfd_jax as nfd
from nfd_jax.limit import TimeTooShort
from nfd_jax.sweep import _cluster
from nfd_jax.sweep._compute import computed
from nfd_jax.sweep._plan import make_plan
from nfd_jax.sweep._spread import A_WORKER, LEAST, Share, Spread, _parts, taken

TREE = {
    "name": "spread",
    "seeds": 2,
    "precision": "float64",
    "problem": {"dataset": "gaussian", "input_dim": 4, "steps": 2, "batch_size": 1},
    "limit": {"tolerance": 0.05},
}
CONFIG = config_with(TREE, {})
[BATCH] = make_plan(CONFIG)
LEFT = "NFD_TEST_LEFT"


def one_dies(text, work):
    """Does what a worker does, but the first one to take the third share dies. Every share leaves a file."""
    left = Path(os.environ[LEFT]) / f"{work.id}.{os.getpid()}"
    if work.number == 2 and not list(left.parent.glob(f"{work.id}.*")):
        left.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    left.touch()
    return _cluster.compute(text, work)


@pytest.fixture(scope="module")
def alone():
    return computed(CONFIG, BATCH)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].values, array.values, err_msg=name)


def test_workers_take_the_samples_and_a_death_costs_a_retry(alone, tmp_path, monkeypatch):
    monkeypatch.setenv(LEFT, str(tmp_path))
    monkeypatch.setattr(_cluster, "compute", one_dies)
    found = dict(_cluster.on_cluster(CONFIG, [BATCH], scheduler=None, workers=2))
    assert_same(found[BATCH], alone)
    share, process = zip(*(path.name.rsplit(".", 1) for path in tmp_path.iterdir()), strict=True)
    assert len(set(process)) == 3 and len(set(share)) > A_WORKER
    assert share.count(f"{BATCH.id}-2") == 2


def through(spread, change=lambda share, answer: answer):
    """Takes all that an estimate asks for, here, the last that is asked for first; its outcome."""
    while not spread.ended:
        shares = []
        while (share := spread.next()) is not None:
            shares.append(share)
        for share in reversed(shares):
            spread.give(share, change(share, taken(CONFIG, share)))
        time.sleep(0.01)
    return spread.outcome()


def test_the_order_in_which_shares_come_back_changes_nothing(alone):
    assert_same(through(Spread(CONFIG, BATCH, workers=3)), alone)


def test_a_share_that_cannot_be_taken_fails_the_batch_in_a_line():
    broken = lambda share, answer: "out of memory" if share.number == 1 else answer
    spread = Spread(CONFIG, BATCH, workers=3)
    assert through(spread, broken) == "out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):  # its threads have ended, too
        spread._work.result()


def test_what_diverges_is_a_result_and_its_other_shares_are_dropped(alone):
    def diverging(share, answer):
        if share.run.flag == "independent":
            answer = [one._replace(samples=np.full_like(one.samples, np.nan)) for one in answer]
        return answer

    spread = Spread(CONFIG, BATCH, workers=3)
    found = through(spread, diverging)
    assert spread.next() is None
    flags = list(CONFIG.limit.backward_weights)
    loss, expected = (arrays["limit/loss"] for arrays in (found, alone))
    at = {flag: [i if dim == "backward_weights" else slice(None) for dim in loss.dims]
          for i, flag in enumerate(flags)}  # fmt: skip
    assert np.isnan(loss.values[tuple(at["independent"])]).all()
    np.testing.assert_array_equal(loss.values[tuple(at["reused"])], expected.values[tuple(at["reused"])])


def test_shares_are_the_whole_in_order_and_of_about_equal_cost():
    kept = []

    def take(sampler, wanted):
        kept.append(list(wanted))
        yield sampler.chunks(wanted)

    problem = nfd.Problem.from_config(CONFIG)
    nfd.estimate_limit(problem, tolerance=0.02, key=jax.random.key(0), take=take)
    cost = lambda chunks: sum(level.cost * level.systems for level, _ in chunks)
    largest = max(kept, key=cost)
    for workers in (1, 4):
        parts = _parts(largest, workers)
        assert [chunk for part in parts for chunk in part] == largest
        assert len(parts) <= A_WORKER * workers + 1
        dearest = max(cost([chunk]) for chunk in largest)
        assert max(map(cost, parts)) <= max(LEAST, cost(largest) / (A_WORKER * workers)) + dearest
    assert len(_parts(largest, 4)) > 1 and _parts([], 4) == []
    assert len({Share(BATCH, None, part, i) for i, part in enumerate(_parts(largest, 4))}) == len(
        _parts(largest, 4)
    )


def test_who_takes_too_little_is_told_and_who_is_late_is_closed():
    problem, options = nfd.Problem.from_config(CONFIG), {"tolerance": 0.05, "key": jax.random.key(0)}

    def half(sampler, wanted):
        yield sampler.chunks(wanted[: len(wanted) // 2])

    with pytest.raises(ValueError, match=r"take= must yield all chunks that are wanted: received \d+ of \d+"):
        nfd.estimate_limit(problem, take=half, **options)

    closed = []

    def slow(sampler, wanted):
        try:
            for one in wanted:
                yield sampler.chunks([one])
                time.sleep(0.05)
        finally:
            closed.append(True)

    with pytest.raises(TimeTooShort):
        nfd.estimate_limit(problem, take=slow, max_seconds=0.05, **options)
    assert closed == [True]
