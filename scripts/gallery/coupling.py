# %% [markdown]
# # The coupling, and what it does
#
# A network's backward pass runs on the transposes of the forward matrices. What that leaves behind is
# measured by running two
# networks on the same random numbers, one with *reused* backward weights (the network as it is), one with an
# *independent* copy.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import nfd_jax as nfd

rng = np.random.default_rng(0)
x, y = rng.standard_normal((4, 16), "float32"), np.float32([[1], [-1], [1], [-1]])
K, depth, seeds = 4, 8, 8
problem = nfd.Problem(np.stack([x] * K), np.stack([y] * K), learning_rate=0.5)

# %% [markdown]
# Mean square of the difference of backward features b, before training and after three updates, against
# width.


# %%
def difference(width, key):
    noise = nfd.sample_noise(problem, width=width, depth=depth, key=key)
    options = {"noise": noise, "simulator": "matrix_free", "record": ("features", "gradients", "coupling")}
    reused = nfd.train_finite(problem, backward_weights="reused", **options)
    independent = nfd.train_finite(problem, backward_weights="independent", **options)
    apart = lambda one, other: ((one - other) ** 2).mean((-2, -1)).max(-1)
    return (
        apart(reused.gradients, independent.gradients),
        apart(reused.features, independent.features),
        reused.coupling.displacement_ms,
    )


widths = (32, 128, 512)
keys = jax.random.split(jax.random.key(0), seeds)
found = {n: jax.tree.map(np.asarray, jax.vmap(lambda key, n=n: difference(n, key))(keys)) for n in widths}
for n, (b, h, _) in found.items():
    print(
        f"n = {n:3d}: b before training {b[:, 0].mean():.4f}, after {K - 1} updates {b[:, -1].mean():.4f}, "
        f"h {h[:, -1].mean():.4f}"
    )

# %%
fig, ax = plt.subplots(figsize=(5.5, 3.6))
for label, values in (
    ("b, before training", [found[n][0][:, 0] for n in widths]),
    ("b, after 3 updates", [found[n][0][:, -1] for n in widths]),
    ("h, after 3 updates", [found[n][1][:, -1] for n in widths]),
):
    ax.errorbar(
        widths,
        [v.mean() for v in values],
        [v.std() / np.sqrt(seeds) for v in values],
        marker="o",
        capsize=2,
        label=label,
    )
ax.loglog(
    widths, 2 * found[32][0][:, 0].mean() * 32 / np.array(widths), ":", color="grey", label="slope of 1/n"
)
ax.set(xlabel="width n", ylabel="mean square per coordinate", title="What reusing the weights changes")
ax.set_xticks(widths, widths, minor=False), ax.minorticks_off()
_ = ax.legend()
