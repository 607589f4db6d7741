"""Several devices: a sweep's seeds side by side, or the coordinates of one network or limit too large for a
single device.

**Seeds** know nothing of one another: `map_seeds` gives every device its share and no message is exchanged.

**Coordinates** meet only in averages: Gram matrices (P, K·P) and (P, P), norms (P,), outputs (P, C).
`shard_noise` spreads the coordinates of the noise, and with them, through the compiler, those of everything
computed on it: `train_finite(noise=…)` ("matrix_free") and `solve_limit(noise=…)` run on all the devices and
send each other those averages and nothing wider. The results are those of one device to rounding: sums over
coordinates are taken in another order.
"""

from collections.abc import Callable, Sequence
from math import gcd
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from nfd_jax._types import Key
from nfd_jax.noise import Noise, sample_noise
from nfd_jax.problem import Problem
from nfd_jax.training import Questions

Devices = Sequence[Any]
"""Of `jax.Device`, as `jax.devices()` lists them."""


def shard_noise(noise: Noise, devices: Devices | None = None) -> Noise:
    """`noise` with its coordinates in equal parts on `devices` (default: all local ones): the last axis, the
    rows of U and V.

    Leading axes (a seed's, say) are kept whole. Raises ValueError where the number of devices does not divide
    the width.
    """
    return jax.device_put(noise, _coordinates(noise, noise.V.shape[-2], devices))


def shard_questions(questions: Questions | None, devices: Devices | None = None) -> Questions | None:
    """The same of the noise of what is asked after training."""
    if questions is None:
        return None
    mesh = _mesh(questions.xi.shape[-1], devices)
    places = [NamedSharding(mesh, PartitionSpec())]  # of the inputs
    places += [_along(mesh, xi, -1) for xi in (questions.xi, questions.xi_back) if xi is not None]
    return jax.device_put(questions, jax.tree.unflatten(jax.tree.structure(questions), places))


def sample_sharded_noise(
    problem: Problem, *, width: int, depth: int, key: Key, devices: Devices | None = None
) -> Noise:
    """`shard_noise(sample_noise(…))`, drawn where it is kept: no device ever holds more than its part."""
    draw = lambda problem, key: sample_noise(problem, width=width, depth=depth, key=key)
    where = _coordinates(jax.eval_shape(draw, problem, key), width, devices)
    return jax.jit(draw, out_shardings=where)(problem, key)


def map_seeds(one: Callable, seeds: Any, devices: Devices | None = None, *, at_once: int = 1) -> Any:
    """`jax.lax.map(one, seeds)`, the leading axis shared out among `devices` (default: all local ones).

    Each device takes `at_once` seeds side by side, vectorized.

    As many devices are used as divide the number of seeds, each with its own loop over its share: a plain
    `lax.map` would walk through all seeds in turn and fetch each from the device that holds it. Inside
    `jax.jit`; nothing is sent between devices.
    """
    devices = jax.local_devices() if devices is None else devices
    count = jax.tree.leaves(seeds)[0].shape[0]
    used = gcd(count, len(devices))
    if count == 1:
        return jax.tree.map(lambda x: x[None], one(jax.tree.map(lambda x: x[0], seeds)))
    several = lambda part: jax.lax.map(one, part, batch_size=at_once if at_once > 1 else None)
    if used == 1:
        return several(seeds)
    share = PartitionSpec("seed")
    mesh = Mesh(np.array(devices[:used]), ("seed",))
    # No axis types inside: loops start from zeros, which are the same on all devices, and end with what
    # differs.
    return jax.shard_map(several, mesh=mesh, in_specs=share, out_specs=share, check_vma=False)(seeds)


def _coordinates(noise: Noise, width: int, devices: Devices | None) -> Noise:
    """Where each array of a noise lies, in the noise's own structure."""
    mesh = _mesh(width, devices)
    places = [
        _along(mesh, noise.U, -2),
        _along(mesh, noise.V, -2),
        _along(mesh, noise.forward, -1),
        _along(mesh, noise.backward, -1),
    ]
    return jax.tree.unflatten(jax.tree.structure(noise), places)


def _mesh(width: int, devices: Devices | None) -> Mesh:
    """The devices that take equal parts of `width` coordinates."""
    devices = jax.local_devices() if devices is None else devices
    if not devices or width % len(devices):
        raise ValueError(
            f"width {width} cannot be shared out equally among {len(devices)} devices: take a multiple of "
            "them"
        )
    return Mesh(np.array(devices), ("coordinate",))


def _along(mesh: Mesh, x: Array, axis: int) -> NamedSharding:
    """Parts of `x` along the coordinates, its `axis` from the end."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * (x.ndim + axis), "coordinate"))
