"""(a), (b), (f): the reference sweep in fresh processes, by the engine and by the loops that one would write
instead.

A cold process starts with an empty compilation cache, a warm one with the cache that a cold one of its kind
has filled. Wall-clock seconds from outside, interpreter and imports included.
"""

import json
from importlib.util import find_spec

from nfd_jax.sweep import make_plan

from ._tools import REFERENCE, TINY, Figure, cache_folder, child, median, reference_config

RATES = 8
BOTH = "reused,independent"


def measure(quick: bool) -> list[Figure]:
    shapes = TINY if quick else REFERENCE
    sweep = json.dumps(shapes)
    cold, warm = (1, 1) if quick else (2, 3)
    ours = ("engine.py", sweep, _sizes(shapes, 1, "reused"), "1", "reused")
    peer = ("peer_equinox.py", sweep, "1")
    one, ours_warm, peer_warm = _alternating(ours, peer, cold, warm)
    both = ("engine.py", sweep, _sizes(shapes, RATES, BOTH), str(RATES), BOTH)
    every, *_ = _alternating(both, ("peer_equinox.py", sweep, str(RATES)), 1 if quick else 2, 0)
    whole = _runs(("whole_batches.py", sweep), warm)
    figures = [
        _ratio("a cold", "engine / Equinox loop, empty cache", *one, 1 / 3),
        _ratio("a warm", "engine / Equinox loop, cache filled", ours_warm, peer_warm, 1 / 5),
        _ratio(
            "a cold, run_batch", "`nfd run` without store and report / Equinox loop", whole[:1], one[1], None
        ),
        _ratio("a warm, run_batch", "the same, cache filled", whole[1:], peer_warm, None),
        _torch(sweep, one[0], ours_warm),
        _ratio(
            "b cold",
            f"engine, {RATES} rates and both flags / Equinox loop, {RATES} rates, reused",
            *every,
            1 / 10,
        ),
        _compilations("f (a)", one, 4),
        _compilations("f (b)", every, 6),
    ]
    return figures


def _sizes(shapes: dict, rates: int, flags: str) -> str:
    """The plan's choice of programs, which takes a machine whose speeds are known: they are measured here if
    they never were."""
    plan = make_plan(reference_config(shapes, rates, flags.split(",")))
    return json.dumps({batch.width: batch.size for batch in plan})


def _alternating(ours: tuple, peer: tuple, cold: int, warm: int):
    """Samples of cold runs in turn, each with a cache of its own, then of warm runs: ((ours, peer), ours
    warm, peer warm)."""
    first: tuple[list, list] = ([], [])
    with cache_folder() as our_cache, cache_folder() as peer_cache:
        for i in range(cold):
            for samples, command, kept in zip(first, (ours, peer), (our_cache, peer_cache), strict=True):
                with cache_folder() as fresh:
                    samples.append(child(*command, fresh if i else kept))
        again = [(child(*ours, our_cache), child(*peer, peer_cache)) for _ in range(warm)]
    return first, [a for a, _ in again], [b for _, b in again]


def _runs(command: tuple, warm: int) -> list[dict]:
    with cache_folder() as cache:
        return [child(*command, cache) for _ in range(1 + warm)]


def _seconds(samples: list[dict], kind: str = "seconds") -> float:
    return median([sample[kind] for sample in samples])


def _ratio(id: str, what: str, ours: list[dict], peer: list[dict], at_most: float | None) -> Figure:
    """Of wall-clock medians; the ratio of processor time goes into the note, as it feels less of what else
    runs."""
    value = _seconds(ours) / _seconds(peer)
    processor = _seconds(ours, "processor_seconds") / _seconds(peer, "processor_seconds")
    note = f"{_seconds(ours):.2f} s / {_seconds(peer):.2f} s; processor time {processor:.3f}"
    if not all(sample.get("finite", True) for sample in (*ours, *peer)):
        raise RuntimeError(f"{id}: losses are not finite, so that nothing was compared")
    return Figure(id, what, value, at_most=at_most, samples={"ours": ours, "peer": peer}, note=note)


def _torch(sweep: str, cold: list[dict], warm: list[dict]) -> Figure:
    what = "engine warm / PyTorch loop, eager"
    if find_spec("torch") is None:
        return Figure("a, PyTorch", what, None, note="not measured: torch is not installed")
    return _ratio("a, PyTorch", what, warm, [child("peer_torch.py", sweep, "1")], None)


def _compilations(id: str, samples: tuple[list, list], at_most: int) -> Figure:
    """Programs XLA compiled in a cold process."""
    ours, peer = ([len(sample["compiled"]) for sample in each] for each in samples)
    note = f"the Equinox loop: {max(peer)}"
    return Figure(
        id,
        "programs compiled by the engine",
        max(ours),
        at_most=at_most,
        samples={"ours": ours, "peer": peer},
        note=note,
    )
