"""What the report says in words: the claims for a reader who hasn't met them, how verdicts come about, the glossary."""

from dataclasses import dataclass

from nfd_jax.verdicts._rates import FLAT, SHARE, STEEP
from nfd_jax.verdicts._verdicts import THRESHOLD, TOLERANCE

PAPER = "arXiv 2512.21075"

INTRODUCTION = (
    "A one-layer ResNet of width <i>n</i> and depth <i>L</i> moves its features by <i>h<sub>ℓ</sub></i> = "
    "<i>h<sub>ℓ−1</sub></i> + √(<i>T/L</i>) <i>n</i><sup>−1/2</sup> <i>W<sub>ℓ</sub></i> φ(<i>h<sub>ℓ−1</sub></i>). "
    "Trained by SGD in the depth-μP scaling it has a limit as <i>n</i> and <i>L</i> grow. A standard network runs "
    "the same weights forward and, transposed, backward: <i>reused</i> backward weights. Neural Feature Dynamics "
    f"({PAPER}) is a limit system whose backward pass runs on an <i>independent</i> copy of the weights. This report "
    "compares finite networks of both kinds with limits of both kinds, on the same random numbers, and asks of each "
    "of the paper's six claims whether these data bear it out."
)
"""HTML."""


@dataclass(frozen=True)
class ClaimText:
    """A claim's title, its statement in plain words and what was measured for it; `figures` by name."""

    title: str
    statement: str
    measured: str
    figures: tuple[str, ...]


CLAIMS = {
    "C1": ClaimText(
        "Coupling at initialization",
        "Before any training, the forward pass has already used the weights when the backward pass uses their "
        "transposes. The claim: the trace this leaves in the backward features is a finite-width effect, O(1/n) in "
        "mean square, and does not build up with depth.",
        "Two networks on the same noise, one with reused and one with independent backward weights, at step 0: the "
        "mean square of the difference of their backward features (coupling_effect_ms, b), and of the coupling terms "
        "summed over layers (coupling_displacement_ms, backward). The claim asks that they fall like 1/n with width "
        "and do not grow with depth. Forward features have met no backward pass yet and are listed as a check.",
        ("coupling",),
    ),
    "C2": ClaimText(
        "Coupling in training",
        "Once SGD has changed the weights, the forward pass meets updates made from backward features that went "
        "through the same matrices. The claim: a coupling term remains however wide the network is.",
        "The same quantities at the last step, forward and backward, against width at the largest depth. The claim "
        "says that some term survives, so one quantity that does not decay with width is enough for it.",
        ("coupling",),
    ),
    "C3": ClaimText(
        "Coupling and depth",
        "The claim: what survives is O(1/L²) in one layer, and summed over all layers its effect on the features is negligible as L → ∞.",
        "One layer's coupling term (coupling_layer_ms) against depth, at the largest width and extrapolated to "
        "infinite width from the two largest ones, of which the more favourable counts; then the terms summed over "
        "layers (coupling_displacement_ms) and the difference that reusing the weights makes to h, b and f "
        "(coupling_effect_ms), of which the claim asks that they decay with depth.",
        ("coupling",),
    ),
    "C4": ClaimText(
        "Distance to the limit",
        "The claim: standard networks, whose backward pass reuses the weights, converge to the limit with independent "
        "backward weights, at the rate O(1/L).",
        "The mean square of network minus limit on the same noise (limit_error_ms), reused network against "
        "independent limit, against depth at the last step. The three other pairs are there for comparison: a "
        "network against the limit of its own kind shows how discretization in depth alone behaves.",
        ("limit_error_depth", "limit_error_width"),
    ),
    "C5": ClaimText(
        "Nondegeneracy",
        "C3 and C4 are claimed where the covariances of features and of gradients over the samples stay away from "
        "singular all along training. The claim: they do.",
        "Smallest over largest eigenvalue of the Gram matrices of φ(h) and of b, of each step's batch and of all "
        "samples of all steps so far, the least over steps and 0 < t < 1, for every network at the largest depth. An "
        f"alarm is raised where it falls below {THRESHOLD:g}. A batch that is repeated, or a loss near zero, brings "
        "samples of different steps close together.",
        ("eigenvalues",),
    ),
    "C6": ClaimText(
        "Order of limits",
        "The claim: at initialization the distance to the limit is O(1/n + 1/L), so that it makes no difference "
        "whether width or depth is taken to infinity first, or both together.",
        "The error of the reused network against the independent limit over the whole width × depth grid, fitted by "
        "E = a/n + b/L + c/(nL): its decay along the diagonal of the grid, and what it extrapolates to in n then L, "
        "L then n, and together. The same in training, with a constant d, for comparison.",
        ("joint_limits",),
    ),
}

STATES = {
    "holds": ("✓", "meets it"),
    "fails": ("✗", "does not meet it"),
    "open": ("?", "undecided"),
    "missing": ("–", "not measured"),
    "reported": ("·", "for comparison"),
}
"""Symbol and words for the state of a row; the words say it all, the symbol helps the eye."""

METHOD = (
    "All rates are rates of mean squares: O(1/L) is slope −1 on logarithmic axes; root mean squares fall half as fast.",
    "A slope is fitted by weighted least squares to the logarithm of the mean over seeds; intervals are 95 % bootstrap "
    "intervals over seeds. Beside it stands the fit a·x^(−α) + c, which tells a plateau from a decay.",
    f"A quantity grows where its slope is above {FLAT:g}, and plateaus where it is within ±{FLAT:g}, or where c is "
    f"more than {SHARE:.0%} of the value at the largest x and the last two points fall more slowly than x^−{STEEP:g}; "
    "otherwise it decays. The verdict stands when the intervals lie on one side of these thresholds; until then it "
    "is inconclusive, with the number of further seeds that would settle it.",
    f"A claimed rate r is met by slopes up to −r + {TOLERANCE:g}: higher orders bend curves at depths within reach.",
    "A claim holds as worded in the range measured if all that it is asked holds, and does not hold as worded if one "
    "thing fails (C2, which says that something survives, needs only one). Nothing is said beyond the range measured.",
    "Cells that diverged (a loss that is not finite), failed or are pending are left out of every fit and figure, and "
    "counted above. Means at rounding level, and means whose relative standard error is above one half, are dropped.",
)

GLOSSARY = {
    "n, L, T, K, P": "width; depth, the number of layers; horizon; SGD steps; batch size; layer ℓ is at t = ℓ/L",
    "h, b, f": "forward features; backward features (gradients of the outputs in h, scaled to O(1)); outputs",
    "reused, independent": "the backward pass runs on the forward weights, transposed, or on an independent copy",
    "network → limit": "which kind of network is compared with which kind of limit",
    "mean square per coordinate (ms)": "mean over coordinates and samples of the batch; then, for h and b, the largest over t",
    "limit_error_ms": "ms of finite network minus limit, computed on the same random numbers",
    "coupling_layer_ms": "ms of one layer's coupling term (what conditioning on the other pass adds to W·x and Wᵀ·u), mean over layers",
    "coupling_displacement_ms": "ms of those terms summed over layers, the largest over t",
    "coupling_effect_ms": "ms of the network with reused minus the one with independent backward weights, same noise",
    "min_eigenvalue, max_eigenvalue": "of the Gram matrix ⟨φ(h)φ(h′)⟩ (feature) or ⟨b b′⟩ (gradient), of one step's "
    "batch (step) or of all samples so far (joint)",
    "feature_kernel, gradient_kernel": "⟨φ(h)φ(h′)⟩ and ⟨b b′⟩, averages over coordinates, along t",
    "feature_shift_ms": "ms of h at a step minus h at step 0, on fixed probe samples",
    "step": "the state before update k = 0 … K − 1, so step 0 is initialization",
    "cell": "one network: a pair of backward weights, learning rate, width, depth and seed",
    "particles": "coordinates of the limit system; matched: as many as the network is wide, on the same noise",
    "depth_steps M": "Euler steps in which the limit is solved",
}
