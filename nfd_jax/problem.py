"""What is learned: batches, loss, network and optimizer (`Problem`)."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax import activations, optimizers
from nfd_jax.checks import as_array, as_number, check_choice, check_finite, concrete
from nfd_jax.losses import loss_function
from nfd_jax.names import PARAMETRIZATIONS, TRAINED_LAYERS, ParametrizationName, TrainedLayers

HELDOUT_SAMPLES = 16
"""Held-out samples that sweeps follow, of those that a data set offers."""


class Problem(eqx.Module):
    """K steps of learning on given batches: everything a network or its limit needs to know, except size and
    noise.

    - `inputs` (K, P, d), `targets` (K, P, C): the batch of each step; K, P and d may not be empty, values
      must be finite. Inputs of zero stay: their h_0 is 0.
    - `learning_rate` η ≥ 0: one rate for every matrix, scaled by the width as μP asks: ΔΘ = −η n ∂loss/∂Θ.
      Finite; one so large that training diverges is allowed, and its outputs are what they become.
    - `loss`: "squared", "cross_entropy" (targets are distributions over C ≥ 2 outputs), or a function
      loss(f (P, C), y (P, C)) → scalar.
    - `activation`: a name, or an elementwise function φ; its derivative is taken by JAX.
    - `horizon` T > 0: the depth that "depth_mup" and "mup" scale their blocks by.
    - `parametrization`: "depth_mup", "mup", "vanilla" (see `nfd_jax.parametrization`).
    - `train`: "all", or "hidden" (U and V stay as drawn).
    - `optimizer`: a function learning_rate → optax.GradientTransformation; None is optax.sgd. One that is not
      linear in the gradients needs dense networks.
    - `richness` γ > 0: f = Vᵀ h_L/(γ n) and ΔΘ = −η γ² n ∂loss/∂Θ, so that features move in proportion to γ.
    - `centered`: outputs minus their value at initialization.

    Arrays take the dtype of `inputs`. `learning_rate`, `horizon` and `richness` are leaves and may be
    `vmap`ped over; names, functions and flags are static. Raises ValueError on shapes, names, functions or
    values that do not fit.

    >>> rng = np.random.default_rng(0)
    >>> inputs, targets = rng.standard_normal((3, 2, 4), "float32"), np.ones((3, 2, 1), "float32")
    >>> problem = nfd.Problem(inputs, targets, learning_rate=0.1)
    >>> problem.steps, problem.batch_size, problem.input_dim, problem.outputs
    (3, 2, 4, 1)
    """

    inputs: Float[Array, "*B K P d"]
    targets: Float[Array, "*B K P C"]
    learning_rate: Float[Array, "..."]
    horizon: Float[Array, "..."]
    richness: Float[Array, "..."]
    loss: str | Callable = eqx.field(static=True)
    activation: str | Callable = eqx.field(static=True)
    parametrization: str = eqx.field(static=True)
    train: str = eqx.field(static=True)
    optimizer: Callable | None = eqx.field(static=True)
    centered: bool = eqx.field(static=True)
    repeated: bool = eqx.field(static=True, init=False)

    def __init__(
        self,
        inputs,
        targets,
        learning_rate,
        loss: str | Callable = "squared",
        activation: str | Callable = "tanh",
        horizon=1.0,
        parametrization: ParametrizationName = "depth_mup",
        train: TrainedLayers = "all",
        optimizer: "Callable[[Array], Any] | None" = None,
        richness=1.0,
        centered: bool = False,
    ):
        self.inputs = _inputs(inputs)
        dtype = self.inputs.dtype
        self.targets = as_array("targets", targets, dtype)
        self.learning_rate = _number("learning_rate", learning_rate, dtype)
        self.horizon = _number("horizon", horizon, dtype)
        self.richness = _number("richness", richness, dtype)
        self.loss, self.activation = loss, activation
        self.parametrization, self.train = parametrization, train
        self.optimizer, self.centered = optimizer, centered
        self.repeated = _same_batch(self.inputs)

    def __check_init__(self):
        activations.resolve(self.activation)
        check_choice("parametrization", self.parametrization, PARAMETRIZATIONS)
        check_choice("train", self.train, TRAINED_LAYERS)
        check_problem(self)
        y = self.targets.shape
        loss_function(self.loss, y[1:])
        if self.loss == "cross_entropy" and y[2] < 2:
            raise ValueError(f"cross_entropy needs at least two outputs; targets have shape {y}")
        if self.optimizer is not None and not callable(self.optimizer):
            raise ValueError(
                "optimizer must be a function learning_rate -> optax.GradientTransformation, such as "
                f"lambda rate: optax.sgd(rate, momentum=0.9); received {self.optimizer!r}"
            )
        if not isinstance(self.centered, bool):
            raise ValueError(f"centered must be True or False; received {self.centered!r}")
        if self.loss == "cross_entropy" and concrete(self.targets):
            _check_distributions(self.targets)

    @classmethod
    def from_config(cls, config, *, repetition: int = 0) -> "Problem":
        """The problem that a sweep's cells run on, at the config's first learning rate; `config` as of
        `load_config`.

        `repetition` matters where the config draws data anew for each seed. Raises TypeError on anything but
        a config.
        """
        p, data, here = _read(config, repetition)
        return cls(
            here(data.inputs),
            here(data.targets),
            here(p.learning_rates[0]),
            loss=p.loss,
            activation=p.activation,
            horizon=here(p.horizon),
            parametrization=p.parametrization,
            train=p.train,
            optimizer=optimizers.from_settings(p.optimizer, p.schedule, p.steps),
            richness=here(p.richness),
            centered=p.centered,
        )

    def at_rate(self, learning_rate: Array) -> "Problem":
        """The same problem at another learning rate."""
        if not isinstance(learning_rate, jax.Array | jax.ShapeDtypeStruct):
            learning_rate = _number("learning_rate", learning_rate, self.dtype)
        return eqx.tree_at(lambda p: p.learning_rate, self, learning_rate)

    @property
    def asks_first(self) -> bool:
        """Whether all samples meet the initial weights first: centered outputs on batches that differ."""
        return self.centered and not self.repeated

    @property
    def steps(self) -> int:
        """K."""
        return self.inputs.shape[-3]

    @property
    def batch_size(self) -> int:
        """P."""
        return self.inputs.shape[-2]

    @property
    def input_dim(self) -> int:
        """d."""
        return self.inputs.shape[-1]

    @property
    def outputs(self) -> int:
        """C."""
        return self.targets.shape[-1]

    @property
    def samples(self) -> int:
        """Samples of all steps, K·P: the most directions a conditional-Gaussian matrix ever sees."""
        return self.steps * self.batch_size

    @property
    def dtype(self):
        return self.inputs.dtype

    def __repr__(self) -> str:
        number = lambda x: f"{float(x):g}" if concrete(x) and jnp.ndim(x) == 0 else f"array {jnp.shape(x)}"
        name = lambda x: x if isinstance(x, str) else getattr(x, "__name__", repr(x))
        facts = [
            (
                f"K={self.steps} steps, P={self.batch_size} samples, d={self.input_dim}, C={self.outputs}, "
                f"{self.dtype}"
            ),
            (
                f"learning_rate={number(self.learning_rate)}, loss={name(self.loss)}, "
                f"activation={name(self.activation)}"
            ),
            f"horizon={number(self.horizon)}, parametrization={self.parametrization}, train={self.train}",
        ]
        if self.optimizer is not None:
            facts.append(f"optimizer={name(self.optimizer)}")
        if self.centered or number(self.richness) != "1":
            facts.append(f"richness={number(self.richness)}, centered={self.centered}")
        return f"Problem({'; '.join(facts)})"


class Heldout(eqx.Module):
    """Samples to follow besides those learned from: `inputs` (H, d), `targets` (H, C)."""

    inputs: Float[Array, "H d"]
    targets: Float[Array, "H C"]

    @classmethod
    def from_config(cls, config, *, repetition: int = 0) -> "Heldout":
        """The first HELDOUT_SAMPLES held-out samples beside `Problem.from_config`'s; raises as it does."""
        _, data, here = _read(config, repetition)
        return cls(here(data.heldout_inputs[:HELDOUT_SAMPLES]), here(data.heldout_targets[:HELDOUT_SAMPLES]))


def _read(config: Any, repetition: int) -> tuple[Any, Any, Callable]:
    """The `problem` section of a config, the data of a repetition, and how arrays come to the device in its
    precision."""
    if not hasattr(config, "problem") or not hasattr(config, "load_data"):
        raise TypeError(
            f"give the config itself, as load_config(path) returns it; received {type(config).__name__}"
        )
    if config.precision == "float64" and not jax.config.jax_enable_x64:
        text = "the config asks for float64, and JAX computes in float32 here: set "
        text += "jax.config.update('jax_enable_x64', True) first"
        warnings.warn(text, UserWarning, stacklevel=3)
    # Unlike jnp.asarray, device_put compiles nothing.
    here = lambda x: jax.device_put(np.asarray(x, config.precision))
    return config.problem, config.load_data(repetition), here


def _inputs(values: Any) -> Array:
    """`inputs` as floats, in their own precision where JAX can hold it."""
    found = as_array("inputs", values)
    if getattr(values, "dtype", None) == np.float64 and found.dtype == np.float32:
        text = "inputs are float64, and JAX computes in float32 here: pass float32, or set "
        text += "jax.config.update('jax_enable_x64', True) first"
        warnings.warn(text, UserWarning, stacklevel=4)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        return found.astype(float)
    if found.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"inputs must be float32 or float64; received {found.dtype}")
    return found


def _same_batch(inputs: Array) -> bool:
    """Whether every step has the inputs of the first; unknown counts as no."""
    if not concrete(inputs) or inputs.ndim != 3 or 0 in inputs.shape:
        return False
    x = np.asarray(inputs)
    return bool((x == x[:1]).all())


def _number(name: str, received: Any, dtype: Any) -> Array:
    """One of the numbers of a problem, as an array."""
    hint = "; for several, vmap over it or use train_grid" if name == "learning_rate" else ""
    low = {"least": 0} if name == "learning_rate" else {"above": 0}
    allowed = f"a finite number {'0 or above' if name == 'learning_rate' else 'above 0'}"
    return as_number(name, received, allowed, **low, dtype=dtype, hint=hint)


def _check_distributions(targets: Array) -> None:
    """Raise ValueError unless each row is a distribution, to rounding of the dtype, float32's at least."""
    y = np.asarray(targets, np.float64)
    eps = max(float(jnp.finfo(targets.dtype).eps), float(np.finfo(np.float32).eps))
    room, sums = 30 * eps * np.sqrt(y.shape[-1]), y.sum(-1)
    worst = np.unravel_index(np.argmax(np.abs(sums - 1)), sums.shape)
    if y.min() < -room or abs(sums[worst] - 1) > room:
        wrong = f"{y.min():g}" if y.min() < -room else f"a row that sums to {sums[worst]:g}"
        raise ValueError(
            "targets of cross_entropy must be distributions, numbers of at least 0 that sum to 1 over the "
            f"outputs; received {wrong}: normalize them, or give loss= a function"
        )


def check_problem(problem: Any) -> None:
    """Raise where a problem is not one network's: TypeError for anything but a `Problem`, ValueError for
    leaves that its constructor would refuse and that came in another way (`at_rate`, `eqx.tree_at`, a `vmap`
    that is over)."""
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a nfd_jax.Problem; received {type(problem).__name__}")
    x, y = np.shape(problem.inputs), np.shape(problem.targets)
    if len(x) != 3 or len(y) != 3 or x[:2] != y[:2] or 0 in x + y:
        raise ValueError(
            f"inputs must be (K, P, d) and targets (K, P, C) with the same K and P; received {x} and {y}"
        )
    for name in ("inputs", "targets"):
        check_finite(name, getattr(problem, name))
    for name in ("learning_rate", "horizon", "richness"):
        _number(name, getattr(problem, name), problem.dtype)
    if problem.centered and problem.repeated and concrete(problem.inputs) and not _same_batch(problem.inputs):
        raise ValueError(
            "inputs must be one batch at every step, as when the problem was made (its outputs are "
            "centered); received batches that differ: make a new Problem"
        )


def heldout_inputs(problem: Problem, heldout: Any) -> Array | None:
    """Held-out inputs (H, d) in the problem's dtype; ValueError on another shape and on NaN or infinity."""
    if heldout is None:
        return None
    allowed = f"(H, {problem.input_dim}), inputs of the problem's d = {problem.input_dim}"
    found = as_array("heldout", heldout, problem.dtype, allowed)
    if found.ndim != 2 or found.shape[1] != problem.input_dim or not found.shape[0]:
        raise ValueError(f"heldout must be {allowed}; received {found.shape}")
    return found
