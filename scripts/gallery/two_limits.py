# %% [markdown]
# # Two limits, and which of them networks follow
#
# As width and depth grow, layers become increments of Brownian motions. With independent backward weights the
# limit is Neural Feature
# Dynamics (NFD); with reused ones it keeps a response term. Both are solved here on the noise of one network.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import nfd_jax as nfd

rng = np.random.default_rng(0)
x, y = rng.standard_normal((4, 16), "float32"), np.float32([[1], [-1], [1], [-1]])
problem = nfd.Problem(np.stack([x] * 6), np.stack([y] * 6), learning_rate=0.3)
kinds, depths, seeds = ("reused", "independent"), (4, 8, 16, 32), 4


def run(key):
    noise = nfd.sample_noise(problem, width=256, depth=64, key=key)
    limits = {
        kind: nfd.solve_limit(problem, noise=noise, backward_weights=kind, record=("features",))
        for kind in kinds
    }
    errors, loss = {}, {}
    for depth in depths:
        options = {"noise": noise.coarsen(depth), "simulator": "matrix_free", "record": ("features",)}
        network = nfd.train_finite(problem, backward_weights="reused", **options)
        loss[depth] = network.loss
        for kind, limit in limits.items():
            errors[kind, depth] = ((network.features[-1, -1] - limit.features[-1, -1]) ** 2).mean()
    return errors, loss, {kind: limit.loss for kind, limit in limits.items()}


errors, loss, limits = jax.tree.map(np.asarray, jax.vmap(run)(jax.random.split(jax.random.key(0), seeds)))
for kind in kinds:
    means = [errors[kind, depth].mean() for depth in depths]
    slope = np.polyfit(np.log(depths), np.log(means), 1)[0]
    listed = ", ".join(f"{value:.4f}" for value in means)
    slope = f"{slope:+.2f}".replace("-", "−")
    print(f"h of a reused network to the {kind} limit: {listed}; slope in L {slope}")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
left.semilogy(loss[32].mean(0), "o", label="network, L = 32")
for kind, style in zip(kinds, ("--", ":"), strict=True):
    left.semilogy(limits[kind].mean(0), style, label=f"{kind} limit")
    right.loglog(
        depths, [errors[kind, depth].mean() for depth in depths], "o" + style, label=f"to the {kind} limit"
    )
right.loglog(
    depths, errors["reused", 4].mean() * 4 / np.array(depths), color="grey", lw=0.8, label="slope of 1/L"
)
left.set(xlabel="updates", ylabel="training loss", title="Loss: network and limits")
right.set(
    xlabel="depth L", ylabel="mean square per coordinate", title="h of the network minus h of each limit"
)
right.set_xticks(depths, depths), right.minorticks_off()
left.legend()
_ = right.legend()
