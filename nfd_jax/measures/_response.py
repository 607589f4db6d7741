"""/response: the gain of the first step, (f_1 − f_0)/(−η χ_0) on one sample as η → 0, against its closed form
at n = L = ∞.

Measured at two small η in float64 and extrapolated to η = 0 (Richardson). Nothing is averaged over widths,
depths or steps, so no fit stands between this number and the two systems' formulas,

    reused       T ∫ Φ G dt + K(1) + (x·x/d) G(0)          independent      T ∫ Φ dt + K(1) + x·x/d

of which training the hidden weights alone keeps the first term. Φ = E[φφ]; K and G: see `init_kernels`.
"""

import numpy as np

from nfd_jax.config import obstacle
from nfd_jax.losses import loss_function
from nfd_jax.measures._measure import Cells, Measure, Named, Variable
from nfd_jax.runtime import in_precision

RATES = (2e-4, 1e-4)
"""Learning rates η and η/2: the extrapolation leaves O(η²), rounding about 1e-16/η."""

DIMS = ("backward_weights", "width", "depth", "seed")


def _compute(cells: Cells) -> dict[str, Named]:
    steps, flags = cells.first_steps(), cells.facts.flags
    with in_precision("float64"):
        measured = [_gain(f, p, steps.rates) for f, p in zip(steps.output, steps.problems, strict=True)]
    predicted = steps.predicted[:, [("reused", "independent").index(flag) for flag in flags]]
    dims = ("seed", "backward_weights")
    return {
        "response/first_step_gain": Named(dims, np.stack(measured)),
        "response/first_step_gain_predicted": Named(dims, predicted),
    }


def _gain(f: np.ndarray, problem, rates: np.ndarray) -> np.ndarray:
    """Of one seed, (F,): outputs (R = 2, F, K = 2, 1, C), projected on χ_0 where there are several."""
    chi = np.asarray(loss_function(problem.loss).signal(f[0, 0, 0], np.asarray(problem.targets[0])), float)[0]
    moved = (f[:, :, 1, 0] - f[:, :, 0, 0]) @ chi / np.sum(chi**2)
    whole, half = -moved / rates[:, None]
    return 2 * half - whole


RESPONSE = Measure(
    "response",
    {
        "response/first_step_gain": Variable(DIMS, "gain of the first step as the learning rate goes to 0"),
        "response/first_step_gain_predicted": Variable(
            DIMS, "gain of the first step at infinite width and depth"
        ),
    },
    lambda config: obstacle(config, "response"),
    _compute,
    frozenset({"first_steps"}),
)
