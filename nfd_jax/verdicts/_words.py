"""The claims of arXiv 2512.21075, where each comes from, and the readings under which it is judged: text
only.
"""

from dataclasses import dataclass

CLAIMS = ("C1", "C2", "C3", "C4", "C5", "C6")
READINGS = ("ms", "rms", "law")
VERDICTS = ("holds", "fails", "undecided", "not detectable", "not measured", "hypothesis not met")


@dataclass(frozen=True)
class Statement:
    """A claim in words; `source` is abstract, summaries or assumption, `ours` what this software had to
    define.
    """

    text: str
    source: str
    ours: str

    def sentence(self) -> str:
        return f"{self.text} ({SOURCES[self.source]}; our definition: {self.ours})"


SOURCES = {
    "abstract": "from the paper's abstract",
    "summaries": "from summaries of the paper's body, not in its abstract",
    "assumption": "an assumption of the paper, not a claim of it",
}

STATEMENTS = {
    "C1": Statement(
        "At initialization the coupling caused by reusing W and its transpose is O(1/n), uniformly in depth.",
        "abstract",
        "the difference of backward features of networks with reused and with independent backward "
        "weights on the "
        "same noise, and the coupling terms of the backward pass summed over layers",
    ),
    "C2": Statement(
        "During training a coupling term survives as n → ∞.",
        "abstract",
        "the coupling terms summed over layers, and what reuse changes in h, b and f, extrapolated to n → ∞",
    ),
    "C3": Statement(
        "The surviving coupling is O(1/L²) per layer, and its accumulated effect is negligible as L → ∞.",
        "abstract",
        "one layer: mean square of its coupling term; accumulated: the sum over layers, and what reuse "
        "changes in h, b "
        "and f, against what learning moves",
    ),
    "C4": Statement(
        "Finite networks converge to the limit with independent backward weights, at rate O(1/L).",
        "abstract",
        "standard networks (reused weights) against the independent limit on the same noise, or in "
        "law, against what "
        "learning moves",
    ),
    "C5": Statement(
        "Feature and gradient covariances stay nondegenerate along training.",
        "assumption",
        "smallest over largest eigenvalue of the Gram matrices of each step's batch, and unless that is "
        "always the same of all samples so far, inside (0, 1)",
    ),
    "C6": Statement(
        "At initialization the error to the limit is O(1/n + 1/L), and the two limits commute.",
        "summaries",
        "against a limit of at least four times as many particles as the widest network, and in law "
        "against the closed forms of both kernels, along the grid and along rays n ∝ √L, L, L²",
    ),
}

NOT_KNOWN = (
    "Of the paper its abstract and secondary summaries were read, not its equations. Summaries "
    "describe figure 1 "
    "(errors against width and depth, orders as claimed), figure 2 and figure 3 (smallest eigenvalue of the "
    "covariances, 5 seeds, widths 512 to 4096, CIFAR-10); its learning rates, batch sizes and "
    "activation are not known."
)

ARGUMENTS = {
    "ms": (
        "mean square",
        "For: the coupling at initialization is φ(y·b)/‖φ‖², of size n^{-1/2} a coordinate, so that "
        "O(1/n) can only be "
        "a mean square; each rate claimed for one layer is then attained.",
        "Against: the abstract names no norm, and errors of numerical schemes are usually given as "
        "root mean squares.",
    ),
    "rms": (
        "root mean square",
        "For: it is the usual norm of strong convergence, and has the units of what it measures. Every "
        "claimed rate "
        "doubles in mean square.",
        "Against: the coupling at initialization is n^{-1/2} a coordinate, so that its root mean "
        "square cannot be O(1/n).",
    ),
    "law": (
        "law",
        "For: networks that differ path by path can be equal in law, and a user sees outputs and "
        "kernels, which the limit "
        "makes deterministic.",
        "Against: means of outputs and kernels and marginals of single coordinates are part of the "
        "law, not all of it: "
        "systems that agree in them may still differ.",
    ),
}
"""Per reading: its name, the argument for it and the argument against it."""

LOOKS = (
    "Intervals hold at 95 % for one look. Seeds added after a look widen them: with the tree's "
    "attribute `looks` at m they "
    "are taken at 1 - 0.05/m."
)
