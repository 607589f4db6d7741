"""The first call of `solve_limit` in this process, with a compilation cache.

Run as a program it prints JSON.
"""

import json
import sys
import time

import jax
import numpy as np

import nfd_jax as nfd

from ._tools import use_cache


def main(particles: int, depth_steps: int, cache: str) -> dict:
    """Seconds of the call, and of importing what it takes, which happens when it is first named; K = 4 steps
    on P = 2 samples, tanh."""
    use_cache(cache)
    rng = np.random.default_rng(0)
    inputs, targets = (rng.standard_normal((4, 2, columns), "float32") for columns in (8, 1))
    problem, key = nfd.Problem(inputs, targets, 0.3), jax.random.key(0)
    start = time.perf_counter()
    solve = nfd.solve_limit
    imported = time.perf_counter()
    sizes = {"particles": particles, "depth_steps": depth_steps}
    jax.block_until_ready(solve(problem, key=key, **sizes).output)
    return {"import": imported - start, "call": time.perf_counter() - imported}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
