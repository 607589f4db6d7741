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
from nfd_jax.losses import loss_function
from nfd_jax.names import (
    BACKWARD_WEIGHTS,
    PARAMETRIZATIONS,
    RECORDS,
    TRAINED_LAYERS,
    ParametrizationName,
    TrainedLayers,
)
from nfd_jax.trajectory import Coupling, Trajectory  # noqa: F401

HELDOUT_SAMPLES = 16
"""Held-out samples that sweeps follow, of those that a data set offers."""


class Problem(eqx.Module):
    """K steps of learning on given batches: everything a network or its limit needs to know, except size and
    noise.

    - `inputs` (K, P, d), `targets` (K, P, C): the batch of each step; K, P and d may not be empty, values
      must be finite.
    - `learning_rate` η ≥ 0: one rate for every matrix, scaled by the width as μP asks: ΔΘ = −η n ∂loss/∂Θ.
    - `loss`: "squared", "cross_entropy", or a function loss(f (P, C), y (P, C)) → scalar.
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
        self.inputs = _floating("inputs", inputs)
        dtype = self.inputs.dtype
        self.targets = jnp.asarray(targets, dtype)
        self.learning_rate = jnp.asarray(learning_rate, dtype)
        self.horizon = jnp.asarray(horizon, dtype)
        self.richness = jnp.asarray(richness, dtype)
        self.loss, self.activation = loss, activation
        self.parametrization, self.train = parametrization, train
        self.optimizer, self.centered = optimizer, centered
        self.repeated = _same_batch(self.inputs)

    def __check_init__(self):
        activations.resolve(self.activation)
        check_choice("parametrization", self.parametrization, PARAMETRIZATIONS)
        check_choice("train", self.train, TRAINED_LAYERS)
        x, y = self.inputs.shape, self.targets.shape
        if len(x) != 3 or len(y) != 3 or x[:2] != y[:2] or 0 in x + y:
            raise ValueError(
                f"inputs must be (K, P, d) and targets (K, P, C) with the same K and P; received {x} and {y}"
            )
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
        for name, allowed in (("inputs", "finite numbers"), ("targets", "finite numbers")):
            value = getattr(self, name)
            if _concrete(value) and not np.isfinite(np.asarray(value)).all():
                raise ValueError(f"{name} holds NaN or infinity; allowed: {allowed}")
        for name, least in (("learning_rate", "0 or above"), ("horizon", "above 0"), ("richness", "above 0")):
            value = getattr(self, name)
            if value.ndim:
                hint = "; for several, vmap over it or use train_grid" if name == "learning_rate" else ""
                raise ValueError(f"{name} must be one number; received an array of shape {value.shape}{hint}")
            if _concrete(value) and not (
                np.isfinite(value) and (value >= 0 if name == "learning_rate" else value > 0)
            ):
                raise ValueError(f"{name} must be a finite number {least}; received {float(value)}")

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
        return eqx.tree_at(lambda p: p.learning_rate, self, learning_rate)

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
        number = lambda x: f"{float(x):g}" if _concrete(x) and jnp.ndim(x) == 0 else f"array {jnp.shape(x)}"
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
        """The first HELDOUT_SAMPLES held-out samples beside `Problem.from_config`, which see."""
        _, data, here = _read(config, repetition)
        return cls(here(data.heldout_inputs[:HELDOUT_SAMPLES]), here(data.heldout_targets[:HELDOUT_SAMPLES]))


def _read(config: Any, repetition: int) -> tuple[Any, Any, Callable]:
    """The `problem` section of a config, the data of a repetition, and how arrays come to the device in its
    precision."""
    if not hasattr(config, "problem") or not hasattr(config, "load_data"):
        raise TypeError(
            f"give the config itself, as load_config(path) returns it; received {type(config).__name__}"
        )
    # Unlike jnp.asarray, device_put compiles nothing.
    here = lambda x: jax.device_put(np.asarray(x, config.precision))
    return config.problem, config.load_data(repetition), here


def _concrete(x: Any) -> bool:
    return not isinstance(x, jax.core.Tracer) and not isinstance(x, jax.ShapeDtypeStruct)


def _floating(name: str, values: Any) -> Array:
    try:
        found = jnp.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be an array of numbers; received {type(values).__name__}: {error}"
        ) from None
    if getattr(values, "dtype", None) == np.float64 and found.dtype == np.float32:
        text = f"{name} are float64, and JAX computes in float32 here: pass float32, or set "
        text += "jax.config.update('jax_enable_x64', True) first"
        warnings.warn(text, UserWarning, stacklevel=5)
    return found if jnp.issubdtype(found.dtype, jnp.floating) else found.astype(float)


def _same_batch(inputs: Array) -> bool:
    """Whether every step has the inputs of the first; unknown counts as no."""
    if not _concrete(inputs) or inputs.ndim != 3 or 0 in inputs.shape:
        return False
    x = np.asarray(inputs)
    return bool((x == x[:1]).all())


def check_choice(what: str, received, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `received` is one of `allowed`."""
    if received not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}; received {received!r}")


def check_sizes(**sizes) -> None:
    """Raise ValueError unless every size is a positive integer; their names are the message's."""
    for what, received in sizes.items():
        if isinstance(received, bool) or not isinstance(received, int | np.integer) or received < 1:
            raise ValueError(f"{what} must be a positive integer; received {received!r}")


def check_flag(received) -> None:
    """Raise ValueError unless `received` names a kind of backward weights."""
    check_choice("backward_weights", received, BACKWARD_WEIGHTS)


def check_record(record: str | tuple[str, ...]) -> tuple[str, ...]:
    """The names to record, each known, in one order so that equal requests share one compilation."""
    names = (record,) if isinstance(record, str) else tuple(record)
    for name in names:
        check_choice("record", name, RECORDS)
    return tuple(sorted(set(names)))


def check_key(key: Any) -> Array:
    """`key` as a typed key; ValueError when neither a key nor noise was given, TypeError for anything but a
    key."""
    if key is None:
        raise ValueError("give key= (a jax.random key) or noise= (from sample_noise)")
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (
        jnp.issubdtype(dtype, jax.dtypes.prng_key) or (dtype == np.uint32 and jnp.shape(key)[-1:] == (2,))
    ):
        raise TypeError(f"key must be a jax.random key, such as jax.random.key(0); received {key!r}")
    return key if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
