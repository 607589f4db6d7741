"""The instrument can tell: a network whose coupling is dropped, or enters with the wrong sign, changes what
is concluded.

Networks of plain NumPy, linear φ, T = 1, one sample, whose backward pass uses r Wᵀ + √(1 - r²) W̃ᵀ: r = 1 is
the standard network, 0 the one without coupling, -1 the one whose coupling has the wrong sign. Their first
step's gain is known.
"""

from functools import cache

import numpy as np
import xarray as xr

import nfd_jax
from nfd_jax.verdicts import rates

WIDTHS, DEPTHS, SEEDS = (64, 128), (8, 16), 16


def gain(width: int, depth: int, seed: int, r: float) -> float:
    """Change of f per -ηχ at the first step, hidden weights trained only: (1/L) Σ_ℓ ⟨h h⟩_{ℓ-1} ⟨b b'⟩_ℓ, b
    the true gradient.
    """
    rng = np.random.default_rng((seed, width, depth))
    forward, other = rng.normal(size=(2, depth, width, width)) / np.sqrt(depth * width)
    h = [rng.normal(size=width)]
    for W in forward:
        h.append(h[-1] + W @ h[-1])
    true = used = rng.normal(size=width)
    total = 0.0
    for W, own, before in zip(forward[::-1], other[::-1], h[-2::-1], strict=True):
        total += (before @ before) * (true @ used) / width**2 / depth
        true, used = true + W.T @ true, used + (r * W + np.sqrt(1 - r**2) * own).T @ used
    return total


def predicted(depth: int, r: float) -> float:
    """The same as n → ∞: layers before ℓ grow ⟨h h⟩ by 1 + 1/L each, layers after it ⟨b b'⟩ by 1 + r/L."""
    return (
        sum(
            (1 + 1 / depth) ** (layer - 1) * (1 + r / depth) ** (depth - layer)
            for layer in range(1, depth + 1)
        )
        / depth
    )


@cache
def conclusions(r: float) -> tuple[str, ...]:
    """What the first step of a network, put in the place of the reused one, says of either system and of
    claim C4.
    """
    measured = [
        [[[gain(n, L, s, each) for s in range(SEEDS)] for L in DEPTHS] for n in WIDTHS] for each in (r, 0.0)
    ]
    expected = [[[[predicted(L, each)] * SEEDS for L in DEPTHS] for _ in WIDTHS] for each in (1.0, 0.0)]
    dims = ("backward_weights", "width", "depth", "seed")
    coords = {"backward_weights": ["reused", "independent"], "width": list(WIDTHS), "depth": list(DEPTHS)}
    response = xr.Dataset(
        {"first_step_gain": (dims, measured), "first_step_gain_predicted": (dims, expected)}, coords
    )
    # Means of the path by path measures would add nothing: every coupling acts on the first step's gain.
    tree = xr.DataTree.from_dict({"/response": response})
    table = rates(tree, margin=0.01)
    names = [f"C4 law first step reused → {limit}" for limit in ("reused", "independent")]
    rows = table.verdict.sel(row=names).values.tolist()
    return (
        *rows,
        bool(nfd_jax.verdicts(tree, margin=0.01).verdict.sel(claim="C4", reading="law") == "fails"),
    )


def test_an_intact_coupling_is_seen():
    own, other, fails = conclusions(1.0)
    assert own != "remains" and other == "remains" and fails


def test_a_dropped_coupling_is_the_independent_network():
    own, other, fails = conclusions(0.0)
    assert own == "remains" and other != "remains" and not fails


def test_a_coupling_of_the_wrong_sign_is_neither():
    own, other, _ = conclusions(-1.0)
    assert own == "remains" and other == "remains"


def test_closed_forms_of_deep_networks():
    assert abs(predicted(4096, 1.0) - np.e) < 2e-3 and abs(predicted(4096, 0.0) - (np.e - 1)) < 2e-3
    assert abs(predicted(4096, -1.0) - np.sinh(1)) < 2e-3
