"""What the report says in words: the claims in plain terms, how numbers come about, the glossary."""

from nfd_jax.verdicts import NOT_KNOWN

PAPER = "arXiv:2512.21075"


def _entries(text: str) -> list[str]:
    """One entry a line; what is indented goes on with the one above."""
    return text.replace("\n    ", " ").splitlines()


def _table(text: str) -> dict[str, str]:
    """Entries "name: words"."""
    return dict(entry.split(": ", 1) for entry in _entries(text))


CLAIM_WORDS = _table("""\
C1: Before training, the trace of reusing weights is O(1/n) at any depth
C2: In training, a trace of reuse remains however wide the network
C3: That trace is O(1/L²) in a layer and, summed over depth, negligible
C4: Networks converge to NFD, whose backward weights are independent, like 1/L
C5: Covariances of features and gradients stay nondegenerate
C6: Before training, the error is O(1/n + 1/L) in either order of limits
""")

LIMIT_NAMES = {"reused": "reused limit", "independent": "independent limit (NFD)"}

SOURCE_WORDS = {"abstract": "abstract", "summaries": "summaries of the body", "assumption": "assumption"}


def attribution(drawn: str = "below") -> str:
    """Whose words the claims are; `drawn` says where NFD is."""
    return (
        f"Whose words these are: C1 to C4 stand in the abstract of {PAPER}, C5 is an assumption of that "
        "paper, C6 comes from summaries of its body. The paper's equations were not read: NFD is the system "
        f"drawn {drawn}, and rates are rates of mean squares unless another reading is named."
    )


ATTRIBUTION_MORE = NOT_KNOWN

MEASURED = _table("""\
C1: Two networks on the same noise, one with reused and one with independent backward weights, before any
    update: what reuse changes in b, and the coupling terms of the backward pass summed over layers. Asked:
    fall like 1/n, no growth with L.
C2: The same after updates, forward and backward, extrapolated to n → ∞. One quantity that remains is enough
    for the claim.
C3: One layer's coupling term, extrapolated to n → ∞, against L; then the terms summed over layers and what
    reuse changes in h, b and f: is a constant left as n → ∞, then L → ∞?
C4: Network minus limit, standard network (reused) against the independent limit: is a constant left, and if
    not, is the rate 1/L? A network against the limit of its own kind shows what discretization in depth
    alone does: the control.
C5: Smallest over largest eigenvalue of the Gram matrices of φ(h) and of b, of each step's batch, inside 0 <
    t < 1. C3 and C4 are claimed only where these stay away from 0.
C6: Error at initialization over the width × depth grid against a limit of many more particles: a/n + b/L +
    what is left.
""")

FIGURES_OF = {
    "C1": ("coupling_width",),
    "C2": (),
    "C3": ("coupling_depth",),
    "C4": ("limit_error_depth", "limit_error_width", "law", "response"),
    "C5": ("eigenvalues", "nondegeneracy"),
    "C6": ("joint_limits",),
}

PLAIN = _table("""\
h: features h
b: gradients b
f: outputs f
limit_error_ms: network minus limit
coupling_effect_ms: what reuse changes
coupling_layer_ms: one layer's coupling
coupling_displacement_ms: coupling summed over layers
first_step_gain: gain of the first step
output_bias: bias of the mean output
feature_kernel_bias: bias of the feature kernel
gradient_kernel_bias: bias of the gradient kernel
marginal_w2: distance of marginal laws
min_eigenvalue: smallest relative eigenvalue
""")


def plain(name: str) -> str:
    """A stored name in words; what has none stays as it is."""
    return PLAIN.get(str(name), str(name).replace("_", " "))


METHOD = tuple(
    _entries("""\
All rates are rates of mean squares: O(1/L) is slope −1 on logarithmic axes; root mean squares fall half as
    fast.
A constant is what is left as n → ∞, then L → ∞, of a fit over the whole grid, beside what learning moves.
    It remains where its whole interval lies above the margin, and vanishes where it lies below it;
    otherwise it is undecided.
A rate may fail only where the control of the same run attains it on the same grid.
Intervals are at 95 % over seeds, resampled whole. Where all seeds train on the same data they cover
    initialization only.
Slopes in figures and on the first screen are of straight lines through the means drawn, and need three
    points or more.
Cells that diverged, failed or are pending are left out of every fit and figure, and counted under “What was
    run”.
""")
)

GLOSSARY = _table("""\
n, L, T, K, P: width; depth (number of layers); horizon; SGD steps; batch size. Layer ℓ is at t = ℓ/L.
h, b, f: features on the forward pass; gradients of the outputs in h, scaled to O(1); outputs.
φ, η: activation; learning rate.
reused, independent: the backward pass runs on the forward weights, transposed, or on an independent copy of
    them.
NFD: Neural Feature Dynamics: the limit with independent backward weights, as defined here.
reused limit: the limit in which the backward pass answers to the forward one, as in a real network.
mean square (ms): mean over coordinates and samples of the batch; for h and b then the largest over t.
of what learning moves: root mean square of a difference over that of h (b, f) after the updates minus
    before them.
rms: root mean square: 10 % in rms are 1 % in mean square.
network minus limit: limit_error_ms: on the same random numbers, path by path.
what reuse changes: coupling_effect_ms: reused minus independent network on the same noise.
one layer's coupling: coupling_layer_ms: what conditioning on the other pass adds to W·x and Wᵀ·u, mean over
    layers.
coupling summed over layers: coupling_displacement_ms: the same terms added up along the depth, the largest
    over t.
feature and gradient kernel: ⟨φ(h) φ(h′)⟩ and ⟨b b′⟩: averages over coordinates for pairs of samples.
bias: output_bias, feature_kernel_bias, gradient_kernel_bias: mean over seeds of network minus limit.
W₂²: marginal_w2: squared Wasserstein distance between the laws of single coordinates of network and limit.
gain of the first step: first_step_gain: (f₁ − f₀)/(−η χ₀) as η → 0, with χ the derivative of the loss.
updates made: the state before update k = 0 … K − 1, so that 0 is initialization.
cell: one network: backward weights, learning rate, width, depth and seed.
particles, depth steps: coordinates of the limit system; Euler steps in which it is solved. matched: as many
    as the width, same noise.
""")

PAPER_CITATION = (
    "Yao, Wu, Gao: Feature Learning Dynamics in Infinite-Depth Neural Networks. arXiv:2512.21075.",
    "nfd_jax {version}: finite ResNets and Neural Feature Dynamics, their infinite-depth limit, beside them.",
)
