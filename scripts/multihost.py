"""One cell too large for one machine: a network and its limit, coordinates shared out among the devices of
many processes.

    srun python scripts/multihost.py configs/huge.yaml --out cell.json       # one process a node: SLURM
    python scripts/multihost.py CONFIG --coordinator HOST:PORT --processes 2 --process 0          # by hand

Trains the widest and deepest network of the config (matrix-free, first seed, learning rate and flags) and, if
it has a limit, solves that on the same noise. Every process draws its own part of the noise and keeps it;
averages over coordinates are all that travels. The first process writes loss, output and limit_error_ms (see
the README) as JSON: those of one process to rounding.
"""

import argparse
import json
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nfd_jax import Problem, SweepConfig, load_config, seed_key, solve_limit, train_finite
from nfd_jax.observables import differences
from nfd_jax.runtime import in_precision, use_compilation_cache
from nfd_jax.sharding import sample_sharded_noise

PATHS = ("features", "gradients")


def cell(config: SweepConfig) -> dict[str, list]:
    """What is measured of the cell, on all devices of all processes."""
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("coordinate",)), PartitionSpec())
    copied = lambda tree: jax.tree.map(lambda x: jax.device_put(np.asarray(x), everywhere), tree)
    problem, data = copied((Problem.from_config(config), jax.random.key_data(seed_key(config, 0))))
    width, depth = max(config.finite.widths), max(config.finite.depths)
    steps = config.limit.depth_steps if config.limit else depth
    key = jax.random.wrap_key_data(data)
    noise = sample_sharded_noise(problem, width=width, depth=steps, key=key, devices=jax.devices())
    flag, record = config.finite.backward_weights[0], PATHS if config.limit else ()
    coarse = eqx.filter_jit(lambda noise: noise.coarsen(depth))(noise)
    run = train_finite(
        problem,
        width=width,
        depth=depth,
        simulator="matrix_free",
        noise=coarse,
        backward_weights=flag,
        record=record,
    )
    found = {"loss": run.loss, "output": run.output}
    if config.limit:
        sizes, flag = {"particles": width, "depth_steps": steps}, config.limit.backward_weights[0]
        limit = solve_limit(problem, **sizes, noise=noise, backward_weights=flag, record=record)
        found["limit_error_ms"] = _error(run, limit, steps // depth)
    return {name: np.asarray(value).tolist() for name, value in found.items()}


@eqx.filter_jit
def _error(run, limit, stride: int) -> jax.Array:
    coarse = lambda path: path[:, ::stride]
    paths = lambda trajectory: (trajectory.features, trajectory.gradients)
    return differences(run, eqx.tree_at(paths, limit, tuple(map(coarse, paths(limit)))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="where to; standard output by default")
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of the first process; found by itself on a cluster"
    )
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int, help="which one this is, from 0")
    asked = parser.parse_args()
    if asked.processes != 1:
        jax.distributed.initialize(asked.coordinator, asked.processes, asked.process)
    use_compilation_cache()
    config = load_config(asked.config)
    with in_precision(config.precision):
        found = json.dumps(cell(config))
    if jax.process_index() == 0:
        asked.out.write_text(found) if asked.out else print(found)


if __name__ == "__main__":
    main()
