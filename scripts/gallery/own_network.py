# %% [markdown]
# # Your own network
#
# Your activation, your data, your optimizer: three arguments of a `Problem`. Derivatives come from JAX;
# optimizers that are linear in the
# gradients run in the limit too.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_wine

import nfd_jax as nfd

data = load_wine()
inputs = ((data.data - data.data.mean(0)) / data.data.std(0)).astype("float32")
targets = np.eye(3, dtype="float32")[data.target]
order = np.random.default_rng(0).permutation(len(inputs))
steps, batch = 30, 4
picks = order[: steps * batch].reshape(steps, batch)
test = order[-40:]
problem = nfd.Problem(
    inputs[picks],
    targets[picks],
    learning_rate=0.05,
    loss="cross_entropy",
    activation=lambda z: z * jax.nn.sigmoid(z),
    optimizer=lambda rate: optax.sgd(rate, momentum=0.8),
)
network = nfd.train_finite(
    problem, width=128, depth=8, key=jax.random.key(0), backward_weights="reused", heldout=inputs[test]
)
limit = nfd.solve_limit(
    problem,
    particles=256,
    depth_steps=16,
    key=jax.random.key(0),
    backward_weights="reused",
    heldout=inputs[test],
)
right = lambda run: (np.argmax(np.asarray(run.heldout)[-1], -1) == data.target[test]).mean()
print(f"held-out accuracy: network {right(network):.2f}, limit {right(limit):.2f}")

# %%
fig, ax = plt.subplots(figsize=(5.5, 3.6))
ax.plot(network.loss, "o", markersize=4, label="network, n = 128, L = 8")
ax.plot(limit.loss, label="limit, reused weights")
ax.set(xlabel="updates", ylabel="loss of the step's batch", title="Wine: swish, momentum, streamed batches")
_ = ax.legend()
