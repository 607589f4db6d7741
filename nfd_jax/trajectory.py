"""What came out of learning: outputs, losses and, where recorded, features, gradients, coupling, weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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


_PATH = ("step", "t", "sample", "coordinate")
_DESCRIBED = {
    "output": (("step", "sample", "component"), "outputs f before the step's update"),
    "loss": (("step",), "loss of the step's batch before its update"),
    "features": (_PATH, "features h"),
    "gradients": (_PATH, "backward features b"),
    "heldout": (("step", "heldout_sample", "component"), "outputs f on held-out inputs"),
    "probe": (_PATH, "features h of the first batch"),
    "probe_gradients": (_PATH, "backward features b of the first batch"),
    "history_residual": (("step",), "largest relative residual not remembered"),
    "coupling_layer_ms": (("step", "direction"), "coupling of one layer, mean square"),
    "coupling_displacement_ms": (
        ("step", "direction"),
        "coupling summed over layers, mean square, maximum over t",
    ),
    "U": (("coordinate", "input"), "input weights after the last update"),
    "V": (("coordinate", "component"), "readout weights after the last update"),
    "W": (("layer", "coordinate", "coordinate_in"), "hidden weights after the last update"),
    "W_backward": (("layer", "coordinate", "coordinate_in"), "hidden weights after the last update"),
}
"""Dims and long name of every array that a trajectory may hold."""


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

    def narrow(self, width: int) -> "Trajectory":
        """Its first `width` coordinates: the others were room for wider networks."""
        paths = [name for name, (dims, _) in _DESCRIBED.items() if dims == _PATH]
        held = lambda run: [getattr(run, name) for name in paths if getattr(run, name) is not None]
        return eqx.tree_at(held, self, [path[..., :width] for path in held(self)])

    def to_xarray(self, leading: Mapping[str, Any] | None = None) -> "xr.Dataset":
        """All of it as a labelled dataset.

        Dimensions: step, sample, component, heldout_sample, t (with values ℓ/L), coordinate, direction
        (forward, backward). `leading` names the leading axes in order, with their labels: of `train_grid`'s
        result {"width": widths, "depth": depths, "key": range(len(keys)), …}; without it they are batch_0,
        batch_1, …. Networks of several depths have no t in common: of a `leading` "depth" with several the
        dimension is layer, with values ℓ. Raises ValueError where `leading` does not fit.

        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> grid = nfd.train_grid(problem, widths=(8, 16), depths=(2, 4), keys=keys)
        >>> axes = {"width": (8, 16), "depth": (2, 4), "key": range(3), "learning_rate": (0.1,)}
        >>> axes["backward_weights"] = ("reused", "independent")
        >>> float(grid.to_xarray(axes).loss.sel(width=16, depth=4, step=0).mean()) > 0
        True
        """
        import xarray as xr

        shape = np.shape(self.loss)[:-1]
        labels = {f"batch_{i}": None for i in range(len(shape))} if leading is None else dict(leading)
        lengths = tuple(n if of is None else len(of) for n, of in zip(shape, labels.values(), strict=False))
        if len(labels) != len(shape) or lengths != shape:
            given = ", ".join(f"{name} ({'' if of is None else len(of)})" for name, of in labels.items())
            raise ValueError(
                f"leading must name axes of lengths {shape}, in order; received {given or 'none'}"
            )
        depths = labels.get("depth")
        lead, layered = tuple(labels), depths is not None and len(depths) > 1
        held = vars(self) | (vars(self.weights) if self.weights else {})
        coordinates: dict[str, object] = {"step": np.arange(np.shape(self.loss)[-1])}
        if self.coupling is not None:
            held |= {f"coupling_{name}": x for name, x in vars(self.coupling).items()}
            coordinates["direction"] = ["forward", "backward"]
        variables = {}
        for name, (dims, text) in _DESCRIBED.items():
            if held.get(name) is None:
                continue
            value = np.asarray(held[name])
            variables[name] = ((*lead, *dims), value, {"long_name": text, "units": "1"})
            if "t" in dims:
                layers = value.shape[len(lead) + dims.index("t")] - 1
                coordinates["t"] = np.arange(layers + 1) / (1 if layered else max(1, layers))
        found = xr.Dataset(variables, coordinates | {k: list(v) for k, v in labels.items() if v is not None})
        return found.rename(t="layer") if layered and "t" in found.dims else found

    def __repr__(self) -> str:
        shapes = {name: x for name, x in vars(self).items() if x is not None}
        listed = ", ".join(
            f"{name} {tuple(np.shape(x))}" if hasattr(x, "shape") else name for name, x in shapes.items()
        )
        return f"Trajectory({listed})"
