# %% [markdown]
# # Do the losses become the same with depth?
#
# Losses of networks with reused and with independent backward weights approach each other as both approach
# zero. The *relative gap*
# (loss of independent − loss of reused) / (loss before training − loss of reused), of paired seeds, tells
# whether depth does it.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import nfd_jax as nfd

rng = np.random.default_rng(0)
x = rng.standard_normal((16, 32), "float32")
y = np.eye(4, dtype="float32")[rng.integers(0, 4, 16)]
K, depths, seeds = 16, (2, 4, 8, 16), 8
problem = nfd.Problem(np.stack([x] * K), np.stack([y] * K), learning_rate=0.3, loss="cross_entropy")
keys = jax.random.split(jax.random.key(0), seeds)
grid = nfd.train_grid(
    problem, widths=(64,), depths=depths, keys=keys, backward_weights=("reused", "independent")
)
loss = np.asarray(grid.loss).reshape(len(depths), seeds, 2, K)
print(loss.shape, "depth, seed, backward weights, step")

# %%
mean = loss.mean(1)
with np.errstate(invalid="ignore"):  # nothing is learned before the first update
    gap = (mean[:, 1] - mean[:, 0]) / (mean[:, 0, :1] - mean[:, 0])
for depth, values in zip(depths, gap, strict=True):
    print(f"L = {depth:2d}: relative gap after 4 updates {values[4]:.3f}, after {K - 1} {values[-1]:.3f}")
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for depth, curves, values in zip(depths, mean, gap, strict=True):
    (line,) = left.plot(curves[0], label=f"L = {depth}, reused")
    left.plot(curves[1], "--", color=line.get_color())
    right.plot(range(2, K), values[2:], "o-", color=line.get_color(), label=f"L = {depth}")
left.set(xlabel="updates", ylabel="training loss", title="Full: reused; dashed: independent")
right.set(xlabel="updates", ylabel="relative gap", title="The gap, relative to what was learned")
right.axhline(0, color="black", lw=0.8)
left.legend()
_ = right.legend()
