# %% [markdown]
# # Learning rates from the limit
#
# Loss after a few updates against the learning rate, for networks of several depths and for the infinitely
# deep one. If the curves lie on
# each other, the limit's best learning rate serves every depth.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import nfd_jax as nfd

rng = np.random.default_rng(0)
x, y = rng.standard_normal((4, 16), "float32"), np.float32([[1], [-1], [1], [-1]])
K, depths, seeds = 4, (2, 4, 8, 16), 4
rates = 2.0 ** np.arange(-4, 2)
problem = nfd.Problem(np.stack([x] * K), np.stack([y] * K), learning_rate=0.1)
keys = jax.random.split(jax.random.key(0), seeds)
grid = nfd.train_grid(
    problem,
    widths=(128,),
    depths=depths,
    keys=keys,
    learning_rates=tuple(rates),
    backward_weights=("reused",),
)
finite = np.asarray(grid.loss)[..., -1].reshape(len(depths), seeds, len(rates)).mean(1)


def solved(rate, key):
    at = nfd.Problem(problem.inputs, problem.targets, learning_rate=rate)
    return nfd.solve_limit(at, particles=128, depth_steps=32, key=key, backward_weights="reused").loss[-1]


over_rates = jax.vmap(solved, (0, None))
limit = np.asarray(jax.vmap(over_rates, (None, 0))(np.float32(rates), keys)).mean(0)
for name, values in [(f"L = {depth}", row) for depth, row in zip(depths, finite, strict=True)] + [
    ("limit", limit)
]:
    print(f"{name:7s} best learning rate of those tried: {rates[np.nanargmin(values)]:g}")

# %%
fig, ax = plt.subplots(figsize=(5.5, 3.6))
for depth, row in zip(depths, finite, strict=True):
    ax.loglog(rates, row, "o-", label=f"L = {depth}")
ax.loglog(rates, limit, "k--", lw=2, label="limit, L = ∞")
ax.set(
    xlabel="learning rate η",
    ylabel=f"training loss after {K - 1} updates",
    title="Depth against the limit",
    ylim=(None, 3),
)
ax.set_xticks(rates, [f"{rate:g}" for rate in rates]), ax.minorticks_off()
_ = ax.legend()
