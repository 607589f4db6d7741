"""The same sweep as `nfd run` computes it, from a config: held-out samples and feature shifts included, store
and report not.

Run as a program it prints JSON.
"""

import sys
import time

start = time.perf_counter()

import json  # noqa: E402

from nfd_jax.sweep import make_plan, results  # noqa: E402

from ._tools import count_compilations, reference_config, use_cache  # noqa: E402

imported = time.perf_counter()


def main(sweep: dict, cache: str) -> dict:
    use_cache(cache)
    found = count_compilations()
    config = reference_config(sweep, 1, ["reused"])
    for batch, arrays in results(config, make_plan(config), None, None):
        if isinstance(arrays, str):
            raise RuntimeError(f"{batch.id}: {arrays}")
    return {"import": imported - start, "compiled": found}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]), sys.argv[2])))
