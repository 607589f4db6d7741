"""What is learned (`Problem`) and what came out of learning it (`Trajectory`)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfd_jax.activations import activation
from nfd_jax.losses import loss_function
from nfd_jax.parametrization import PARAMETRIZATIONS

TRAIN = ("all", "hidden")
MATMUL_PRECISIONS = ("highest", "tensorfloat32", "bfloat16")
BACKWARD_WEIGHTS = ("reused", "independent")
RECORDS = ("features", "gradients")


class Problem(eqx.Module):
    """K steps of SGD on given batches: everything a network or its limit needs to know, except size and noise.

    `inputs` (K, P, d) and `targets` (K, P, C) are the batch of each step. One `learning_rate` η holds for every matrix, scaled
    by the width as μP asks: ΔΘ = −η n ∂loss/∂Θ. `horizon` is T; `train` is "all" or "hidden" (U and V frozen). Arrays take the
    dtype of `inputs`. `learning_rate` and `horizon` are leaves and may be `vmap`ped over; the names are static.
    Raises ValueError on shapes or names that do not fit.
    """

    inputs: Float[Array, "K P d"]
    targets: Float[Array, "K P C"]
    learning_rate: Float[Array, ""]
    horizon: Float[Array, ""]
    loss: str = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    parametrization: str = eqx.field(static=True)
    train: str = eqx.field(static=True)

    def __init__(
        self,
        inputs,
        targets,
        learning_rate,
        loss: str = "squared",
        activation: str = "tanh",
        horizon=1.0,
        parametrization: str = "depth_mup",
        train: str = "all",
    ):
        self.inputs = jnp.asarray(inputs)
        if not jnp.issubdtype(self.inputs.dtype, jnp.floating):
            self.inputs = self.inputs.astype(float)
        dtype = self.inputs.dtype
        self.targets = jnp.asarray(targets, dtype)
        self.learning_rate = jnp.asarray(learning_rate, dtype)
        self.horizon = jnp.asarray(horizon, dtype)
        self.loss, self.activation = loss, activation
        self.parametrization, self.train = parametrization, train

    def __check_init__(self):
        activation(self.activation)
        loss_function(self.loss)
        check_choice("parametrization", self.parametrization, PARAMETRIZATIONS)
        check_choice("train", self.train, TRAIN)
        x, y = self.inputs.shape, self.targets.shape
        if len(x) != 3 or len(y) != 3 or x[:2] != y[:2] or 0 in x + y:
            raise ValueError(f"inputs must be (K, P, d) and targets (K, P, C) with the same K and P; received {x} and {y}")
        if self.loss == "cross_entropy" and y[2] < 2:
            raise ValueError(f"cross_entropy needs at least two outputs; targets have shape {y}")

    @property
    def steps(self) -> int:
        return self.inputs.shape[0]

    @property
    def batch_size(self) -> int:
        return self.inputs.shape[1]

    @property
    def input_dim(self) -> int:
        return self.inputs.shape[2]

    @property
    def outputs(self) -> int:
        return self.targets.shape[2]

    @property
    def samples(self) -> int:
        """Samples of all steps, K·P: the most directions a conditional-Gaussian matrix ever sees."""
        return self.steps * self.batch_size

    @property
    def dtype(self):
        return self.inputs.dtype


class Coupling(eqx.Module):
    """What reused weights add to W φ and Wᵀ b beyond a decoupled Gaussian, per step and direction (forward, backward)."""

    layer_ms: Float[Array, "*K 2"]
    displacement_ms: Float[Array, "*K 2"]


class Trajectory(eqx.Module):
    """Learning as it went. Index k is the state before update k; index ℓ = 0 … L is the layer, t = ℓ/L.

    `output` (K, P, C) and `loss` (K,) are always there; `features` h and `gradients` b (K, L+1, P, n) when recorded (a stride
    keeps every stride-th layer). `heldout` (K, H, C) are outputs on held-out inputs, `probe` (K, G, P, n) features of step 0's
    batch along training, `coupling` its decomposition; None where not asked for.
    """

    output: Float[Array, "K P C"]
    loss: Float[Array, " K"]
    features: Float[Array, "K G P n"] | None = None
    gradients: Float[Array, "K G P n"] | None = None
    heldout: Float[Array, "K H C"] | None = None
    probe: Float[Array, "K G P n"] | None = None
    coupling: Coupling | None = None


def check_choice(what: str, received, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `received` is one of `allowed`."""
    if received not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}; received {received!r}")


def check_size(what: str, received) -> None:
    """Raise ValueError unless `received` is a positive integer."""
    if isinstance(received, bool) or not isinstance(received, int) or received < 1:
        raise ValueError(f"{what} must be a positive integer; received {received!r}")


def check_record(record: tuple[str, ...]) -> tuple[str, ...]:
    """The names to record, each known, in one order so that equal requests share one compilation."""
    names = (record,) if isinstance(record, str) else tuple(record)
    for name in names:
        check_choice("record", name, RECORDS)
    return tuple(sorted(set(names)))


def check_key(key: Array | None) -> Array:
    """`key`, or ValueError when neither a key nor noise was given."""
    if key is None:
        raise ValueError("give key= (a jax.random key) or noise= (from sample_noise)")
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
