# %% [markdown]
# # Rich and lazy
#
# `richness` γ scales how far features move: γ = 1 is depth-μP, γ → 0 kernel regression, known in closed form
# for both systems
# (`nfd.lazy_limit`). Outputs are taken minus their value at initialization (`centered`).

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import nfd_jax as nfd

rng = np.random.default_rng(0)
x, y = rng.standard_normal((2, 8), "float32"), np.float32([[1], [-1]])
K, kinds, gammas = 6, ("reused", "independent"), (0.05, 0.2, 0.5, 1.0, 2.0)


def at(gamma):
    return nfd.Problem(np.stack([x] * K), np.stack([y] * K), learning_rate=0.3, richness=gamma, centered=True)


lazy = {kind: np.asarray(nfd.lazy_limit(at(1.0), backward_weights=kind))[:, 0, 0] for kind in kinds}


def solved(gamma, kind, key):
    run = nfd.solve_limit(
        at(gamma), particles=512, depth_steps=16, key=key, backward_weights=kind, record=("features",)
    )
    return run.output[:, 0, 0], ((run.features[-1] - run.features[0]) ** 2).mean((-2, -1)).max()


keys = jax.random.split(jax.random.key(0), 8)
found = {}
for kind in kinds:
    over = jax.vmap(jax.vmap(lambda gamma, key, kind=kind: solved(gamma, kind, key), (None, 0)), (0, None))
    found[kind] = [np.asarray(part).mean(1) for part in over(np.float32(gammas), keys)]
    far = np.abs(found[kind][0] - lazy[kind]).max(1)
    print(
        kind,
        "| distance of f to the lazy limit:",
        ", ".join(f"γ = {g}: {d:.3f}" for g, d in zip(gammas, far, strict=True)),
    )

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for kind, style, color in zip(kinds, ("-", "--"), ("C0", "C1"), strict=True):
    left.plot(lazy[kind], "k" + style, lw=2.5, alpha=0.5, label=f"lazy limit, {kind}")
    for i in (0, 3):
        left.plot(
            found[kind][0][i],
            "o" if i == 0 else "s",
            color=color,
            markersize=5,
            label=f"γ = {gammas[i]}, {kind}",
        )
    right.loglog(gammas, found[kind][1], "o" + style, color=color, label=kind)
left.set(xlabel="updates", ylabel="output f of the first sample", title="Small γ follows kernel regression")
right.set(xlabel="richness γ", ylabel="mean square", title="How far h has moved at the end")
right.set_xticks(gammas, gammas), right.minorticks_off()
left.legend(fontsize=7)
_ = right.legend()
