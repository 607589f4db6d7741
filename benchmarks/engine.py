"""The same sweep by this package's engine, in a process of its own. Run as a program it prints JSON."""

import sys
import time

start = time.perf_counter()

import jax  # noqa: E402

from nfd_jax.finite._engine import Grid, compile_grid, train_grids  # noqa: E402
from nfd_jax.problem import Problem  # noqa: E402

imported = time.perf_counter()

import json  # noqa: E402

import numpy as np  # noqa: E402

from ._tools import count_compilations, learning_rates, reference_data, use_cache  # noqa: E402


def main(sweep: dict, sizes: dict[int, int], rates: int, flags: tuple[str, ...], cache: str) -> dict:
    """`sizes`: of each width the coordinates of its program, as `nfd run` plans them."""
    use_cache(cache)
    found = count_compilations()
    inputs, targets = (jax.device_put(x) for x in reference_data(sweep))
    problem = Problem(
        inputs, targets, *jax.device_put([np.float32(0.5)]), horizon=jax.device_put(np.float32(1))
    )
    cells = {
        "depths": tuple(sweep["depths"]),
        "seeds": tuple(range(sweep["seeds"])),
        "rates": tuple(learning_rates(rates)),
    }
    grids = [Grid(width=width, **cells, flags=flags, grid=1, size=size) for width, size in sizes.items()]
    began = time.perf_counter()
    results = train_grids(problem, None, 0, grids)
    took = time.perf_counter() - began
    finite = all(bool(np.isfinite(result["loss"]).all()) for result in results)
    programs = {
        size: compile_grid(problem, None, grid) for grid, size in zip(grids, sizes.values(), strict=True)
    }
    stages = {
        size: {"build": program.build, "compile": program.compile} for size, program in programs.items()
    }
    return {
        "import": imported - start,
        "train": took,
        "programs": stages,
        "compiled": found,
        "finite": finite,
        "sizes": sizes,
    }


if __name__ == "__main__":
    planned = {int(width): size for width, size in json.loads(sys.argv[2]).items()}
    print(
        json.dumps(
            main(
                json.loads(sys.argv[1]), planned, int(sys.argv[3]), tuple(sys.argv[4].split(",")), sys.argv[5]
            )
        )
    )
