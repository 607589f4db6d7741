"""What one writes instead of a sweep engine: a loop over configs in Equinox and optax, one `eqx.filter_jit`
for each shape.

Weights stacked, `lax.scan` over layers and over steps, initial weights drawn inside the same program: the
form of it that compiles and runs fastest. Learning rates are traced. Run as a program it prints JSON.
"""

import sys
import time

start = time.perf_counter()

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

imported = time.perf_counter()

import json  # noqa: E402

from ._tools import count_compilations, learning_rates, reference_data, use_cache  # noqa: E402


class ResNet(eqx.Module):
    U: jax.Array
    V: jax.Array
    W: jax.Array

    def __init__(self, width: int, depth: int, dim: int, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.U = jax.random.normal(keys[0], (width, dim))
        self.V = jax.random.normal(keys[1], (width, 1))
        self.W = jax.random.normal(keys[2], (depth, width, width))

    def __call__(self, x: jax.Array) -> jax.Array:
        depth, width = self.W.shape[:2]
        scale = (1 / depth / width) ** 0.5
        h = x @ self.U.T / x.shape[1] ** 0.5
        h, _ = jax.lax.scan(lambda h, W: (h + scale * jnp.tanh(h) @ W.T, None), h, self.W)
        return h @ self.V / width


def mean_square(net: ResNet, x: jax.Array, y: jax.Array) -> jax.Array:
    return 0.5 * jnp.mean(jnp.sum((net(x) - y) ** 2, axis=-1))


@eqx.filter_jit
def train(key, inputs, targets, rate, width: int, depth: int):
    net = ResNet(width, depth, inputs.shape[-1], key)
    optimizer = optax.chain(optax.scale(width), optax.sgd(rate))

    def step(carry, batch):
        net, state = carry
        loss, gradient = eqx.filter_value_and_grad(mean_square)(net, *batch)
        updates, state = optimizer.update(gradient, state)
        return (eqx.apply_updates(net, updates), state), loss

    return jax.lax.scan(step, (net, optimizer.init(net)), (inputs, targets))[1]


def main(sweep: dict, rates: int, cache: str) -> dict:
    use_cache(cache)
    found = count_compilations()
    inputs, targets = reference_data(sweep)
    losses, first, later = [], 0.0, 0.0
    for width in sweep["widths"]:
        for depth in sweep["depths"]:
            new = True
            for seed in range(sweep["seeds"]):
                for rate in learning_rates(rates):
                    began = time.perf_counter()
                    losses.append(
                        np.asarray(
                            train(jax.random.key(seed), inputs, targets, jnp.float32(rate), width, depth)
                        )
                    )
                    took = time.perf_counter() - began
                    first, later, new = first + took * new, later + took * (not new), False
    finite = bool(np.isfinite(losses).all())
    return {
        "import": imported - start,
        "first_calls": first,
        "later_calls": later,
        "compiled": found,
        "finite": finite,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
