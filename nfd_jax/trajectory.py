"""What came out of learning: outputs, losses and, where recorded, features, gradients, coupling and weights.
"""

from typing import TYPE_CHECKING

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    import xarray as xr


class Coupling(eqx.Module):
    """What reused weights add to W φ and Wᵀ b beyond a decoupled Gaussian, per step and direction (forward,
    backward).

    `layer_ms` (K, 2): mean over layers of the mean square of one layer's term. `displacement_ms` (K, 2):
    largest mean square over t of the terms summed up from the pass's start.
    """

    layer_ms: Float[Array, "*K 2"]
    displacement_ms: Float[Array, "*K 2"]


class Weights(eqx.Module):
    """Matrices of a dense network: `U` (n, d), `V` (n, C), `W` (L, n, n), `W_backward` (L, n, n), the same
    where weights are reused."""

    U: Float[Array, "*B n d"]
    V: Float[Array, "*B n C"]
    W: Float[Array, "*B L n n"]
    W_backward: Float[Array, "*B L n n"]


class Trajectory(eqx.Module):
    """Learning as it went. Index k is the state before update k; index ℓ = 0 … L is the layer, t = ℓ/L.

    `output` (K, P, C) and `loss` (K,) are always there; `features` h and `gradients` b (K, L+1, P, n) when
    recorded (at the multiples of 1/grid in t, where a grid was asked for). `heldout` (K, H, C) are outputs on
    held-out inputs; `probe` and `probe_gradients` (K, G, P, n) are h and b of step 0's batch along training;
    `coupling` is its decomposition; `weights` are a dense network's after the last update; `history_residual`
    (K,) is the largest part, relative to its norm, of a query that was not remembered. None where not asked
    for.
    """

    output: Float[Array, "*B K P C"]
    loss: Float[Array, "*B K"]
    features: Float[Array, "*B K G P n"] | None = None
    gradients: Float[Array, "*B K G P n"] | None = None
    heldout: Float[Array, "*B K H C"] | None = None
    probe: Float[Array, "*B K G P n"] | None = None
    probe_gradients: Float[Array, "*B K G P n"] | None = None
    coupling: Coupling | None = None
    weights: Weights | None = None
    history_residual: Float[Array, "*B K"] | None = None

    def to_xarray(self) -> "xr.Dataset":
        """All of it as a labelled dataset; leading axes, where the trajectory has some, are batch_0, batch_1,
        …

        Dimensions: step, sample, component, heldout_sample, t (with values ℓ/L), coordinate, direction
        (forward, backward).
        """
        import xarray as xr

        lead = tuple(f"batch_{i}" for i in range(np.ndim(self.loss) - 1))
        variables: dict[str, tuple] = {}
        coordinates: dict[str, object] = {"step": np.arange(np.shape(self.loss)[-1])}

        def put(name: str, value, dims: tuple[str, ...], text: str) -> None:
            if value is not None:
                variables[name] = ((*lead, *dims), np.asarray(value), {"long_name": text, "units": "1"})

        path = ("step", "t", "sample", "coordinate")
        put("output", self.output, ("step", "sample", "component"), "outputs f before the step's update")
        put("loss", self.loss, ("step",), "loss of the step's batch before its update")
        put("features", self.features, path, "features h")
        put("gradients", self.gradients, path, "backward features b")
        put("heldout", self.heldout, ("step", "heldout_sample", "component"), "outputs f on held-out inputs")
        put("probe", self.probe, path, "features h of the first batch")
        put("probe_gradients", self.probe_gradients, path, "backward features b of the first batch")
        put("history_residual", self.history_residual, ("step",), "largest relative residual not remembered")
        if self.coupling is not None:
            coordinates["direction"] = ["forward", "backward"]
            put(
                "coupling_layer_ms",
                self.coupling.layer_ms,
                ("step", "direction"),
                "coupling of one layer, mean square",
            )
            text = "coupling summed over layers, mean square, maximum over t"
            put("coupling_displacement_ms", self.coupling.displacement_ms, ("step", "direction"), text)
        if self.weights is not None:
            put("U", self.weights.U, ("coordinate", "input"), "input weights after the last update")
            put("V", self.weights.V, ("coordinate", "component"), "readout weights after the last update")
            for name in ("W", "W_backward"):
                put(
                    name,
                    getattr(self.weights, name),
                    ("layer", "coordinate", "coordinate_in"),
                    "hidden weights after the last update",
                )
        layers = {
            size - 1
            for name, (dims, x, _) in variables.items()
            for dim, size in zip(dims, x.shape, strict=True)
            if dim == "t"
        }
        if layers:
            count = layers.pop()
            coordinates["t"] = np.arange(count + 1) / max(1, count)
        return xr.Dataset(variables, coordinates)

    def __repr__(self) -> str:
        shapes = {name: x for name, x in vars(self).items() if x is not None}
        listed = ", ".join(
            f"{name} {tuple(np.shape(x))}" if hasattr(x, "shape") else name for name, x in shapes.items()
        )
        return f"Trajectory({listed})"
